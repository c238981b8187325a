"""Sentences as vectors whose angles say how close they are in meaning, and searching a text with them."""

from tinyllm.sentences.encoder import SentenceEncoder
from tinyllm.sentences.search import Match, search

__all__ = ["Match", "SentenceEncoder", "search"]
