"""Asking teachers over HTTP: clients, the batcher that keeps their servers busy, and how much at once."""
