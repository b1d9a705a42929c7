"""Runs seen afterwards, or from outside: what they were started with, their figures, their rows' stories."""
