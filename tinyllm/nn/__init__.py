"""Modules: functions with parameters, out of which models are built."""

from tinyllm.autograd.fused.grouped_linear import grouped_linear
from tinyllm.autograd.fused.rotary import rotary, rotary_tables, rotate
from tinyllm.nn import init
from tinyllm.nn.activations import activation
from tinyllm.nn.attention import MultiHeadAttention, merge_heads, split_heads
from tinyllm.nn.dropout import Dropout
from tinyllm.nn.embedding import Embedding
from tinyllm.nn.feedforward import FeedForward
from tinyllm.nn.linear import Linear
from tinyllm.nn.losses import BCEWithLogitsLoss, CrossEntropyLoss, MSELoss
from tinyllm.nn.module import Mismatch, Module
from tinyllm.nn.moe import MoE, balance_loss, router_z_loss
from tinyllm.nn.norm import LayerNorm, RMSNorm
from tinyllm.nn.position import LearnedPositions, SinusoidalPositions, Sinusoids, sinusoids
from tinyllm.nn.recurrent import GRU, LSTM, RNN
from tinyllm.nn.rope import Rope, rope_parameters
from tinyllm.nn.sequential import Sequential

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
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
    "MoE",
    "Module",
    "MultiHeadAttention",
    "RMSNorm",
    "Rope",
    "Sequential",
    "SinusoidalPositions",
    "Sinusoids",
    "activation",
    "balance_loss",
    "grouped_linear",
    "init",
    "merge_heads",
    "rope_parameters",
    "rotary",
    "rotary_tables",
    "rotate",
    "router_z_loss",
    "sinusoids",
    "split_heads",
]
