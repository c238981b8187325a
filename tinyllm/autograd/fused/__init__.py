"""Operations computed in one go: kernels for all gradients at once, and `ref`, the same in small operations."""

from tinyllm.autograd.fused.activation import gelu, silu, swiglu
from tinyllm.autograd.fused.add_norm import add_layer_norm, add_rms_norm
from tinyllm.autograd.fused.attention import scaled_dot_product_attention, self_attention
from tinyllm.autograd.fused.cross_entropy import cross_entropy
from tinyllm.autograd.fused.cuda import add_kernels
from tinyllm.autograd.fused.embedding import embedding
from tinyllm.autograd.fused.linear import linear
from tinyllm.autograd.fused.linear_cross_entropy import linear_cross_entropy
from tinyllm.autograd.fused.norm import layer_norm, rms_norm
from tinyllm.autograd.fused.recurrent import gru, lstm, rnn
from tinyllm.autograd.fused.softmax import log_softmax, softmax

add_kernels()

__all__ = [
    "add_layer_norm",
    "add_rms_norm",
    "cross_entropy",
    "embedding",
    "gelu",
    "gru",
    "layer_norm",
    "linear",
    "linear_cross_entropy",
    "log_softmax",
    "lstm",
    "rms_norm",
    "rnn",
    "scaled_dot_product_attention",
    "self_attention",
    "silu",
    "softmax",
    "swiglu",
]
