"""Corpora, their division into training and held-out text, token arrays and batches."""

from tinyllm.data.batches import Batches, eval_windows
from tinyllm.data.consecutive import Strands, consecutive_windows
from tinyllm.data.corpus import Corpus, Document
from tinyllm.data.load import NAMES, load
from tinyllm.data.split import split
from tinyllm.data.tokens import token_dtype, tokenize_corpus

__all__ = [
    "NAMES",
    "Batches",
    "Corpus",
    "Document",
    "Strands",
    "consecutive_windows",
    "eval_windows",
    "load",
    "split",
    "token_dtype",
    "tokenize_corpus",
]
