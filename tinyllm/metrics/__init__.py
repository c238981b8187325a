"""Figures of merit, from plain numbers and lists: NumPy alone."""

from tinyllm.metrics.likelihood import bits_per_byte, perplexity

__all__ = ["bits_per_byte", "perplexity"]
