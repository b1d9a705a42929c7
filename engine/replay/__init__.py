"""Dead letters sent again: rows that a gate refused, and rows that were asked for and never written."""

from engine.replay.replay import Replayed, Wish, preview, replay

__all__ = ["Replayed", "Wish", "preview", "replay"]
