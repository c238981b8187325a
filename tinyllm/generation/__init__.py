"""Writing with a model: one token after the other, greedily or drawn from filtered probabilities; or by beam search."""

from tinyllm.generation.filters import (
    frequency_penalty,
    logit_bias,
    min_p,
    no_repeat_ngram,
    presence_penalty,
    repetition_penalty,
    temperature,
    top_k,
    top_p,
    typical,
)
from tinyllm.generation.generate import generate
from tinyllm.generation.output import Generation, Step
from tinyllm.generation.protocols import Cache, CausalModel, EncoderDecoder

__all__ = [
    "Cache",
    "CausalModel",
    "EncoderDecoder",
    "Generation",
    "Step",
    "frequency_penalty",
    "generate",
    "logit_bias",
    "min_p",
    "no_repeat_ngram",
    "presence_penalty",
    "repetition_penalty",
    "temperature",
    "top_k",
    "top_p",
    "typical",
]
