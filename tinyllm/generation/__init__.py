"""Writing with a model: one token after the other, greedily or drawn from filtered probabilities."""

from tinyllm.generation.filters import (
    min_p,
    no_repeat_ngram,
    repetition_penalty,
    temperature,
    top_k,
    top_p,
    typical,
)
from tinyllm.generation.generate import CausalModel, generate

__all__ = [
    "CausalModel",
    "generate",
    "min_p",
    "no_repeat_ngram",
    "repetition_penalty",
    "temperature",
    "top_k",
    "top_p",
    "typical",
]
