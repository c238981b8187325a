"""Modules: functions with parameters, out of which models are built."""

from tinyllm.autograd.fused.rotary import rotary
from tinyllm.nn import init
from tinyllm.nn.activations import activation
from tinyllm.nn.attention import MultiHeadAttention, merge_heads, split_heads
from tinyllm.nn.dropout import Dropout
from tinyllm.nn.embedding import Embedding
from tinyllm.nn.feedforward import FeedForward
from tinyllm.nn.linear import Linear
from tinyllm.nn.losses import BCEWithLogitsLoss, CrossEntropyLoss, MSELoss
from tinyllm.nn.module import Mismatch, Module
from tinyllm.nn.norm import LayerNorm, RMSNorm
from tinyllm.nn.position import LearnedPositions, SinusoidalPositions, sinusoids
from tinyllm.nn.sequential import Sequential

__all__ = [
    "BCEWithLogitsLoss",
    "CrossEntropyLoss",
    "Dropout",
    "Embedding",
    "FeedForward",
    "LayerNorm",
    "LearnedPositions",
    "Linear",
    "MSELoss",
    "Mismatch",
    "Module",
    "MultiHeadAttention",
    "RMSNorm",
    "Sequential",
    "SinusoidalPositions",
    "activation",
    "init",
    "merge_heads",
    "rotary",
    "sinusoids",
    "split_heads",
]
