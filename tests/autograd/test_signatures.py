"""The public signatures, written down: names, order of the arguments, defaults. A change here is a change for users."""

# ruff: noqa: E501 (a signature on a line)

import inspect

import numpy as np
import pytest

import tinyllm as tl

SIGNATURES = """
abs(x)
add(a, b)
add_along_axis(x, indices, shape, axis=-1)
add_at(x, index, shape)
add_layer_norm(x, residual, normalized_shape, weight=None, bias=None, eps=1e-05)
add_rms_norm(x, residual, normalized_shape, weight=None, eps=None)
argmax(x, axis=None)
argmin(x, axis=None)
argsort(x, axis=-1)
astype(x, dtype)
backend(name)
backward_steps(loss, cotangent=None, *, retain_graph=False, create_graph=False)
binary_cross_entropy_with_logits(input, target, weight=None, reduction='mean', pos_weight=None)
bitwise_and(a, b)
bitwise_or(a, b)
broadcast_to(x, shape)
ceil(x)
checkpoint(f, *inputs)
clip(x, min=None, max=None)
concatenate(tensors, axis=0)
copy(x)
cos(x)
cross_entropy(logits, target, weight=None, ignore_index=-100, reduction='mean', label_smoothing=0.0)
cumsum(x, axis=None)
divide(a, b)
dropout(x, p=0.5, training=True, rng=None)
einsum(subscripts, *operands)
elu(x, alpha=1.0)
embedding(ids, weight, padding_idx=None)
enable_grad()
equal(a, b)
erf(x)
exp(x)
expand_dims(x, axis)
expm1(x)
flip(x, axis=None)
floor(x)
gelu(x, approximate='none', *, bias=None)
getitem(x, index)
grad(f, argnums=0)
greater(a, b)
greater_equal(a, b)
gru(x, weight_ih, weight_hh, bias_ih, bias_hh, h0, lengths=None, reverse=False)
hessian_vector_product(f, x, v)
identity(x)
invert(x)
is_recording()
isfinite(x)
isnan(x)
jvp(f, primals, tangents)
kl_div(input, target, reduction='mean', log_target=False)
layer_norm(x, normalized_shape, weight=None, bias=None, eps=1e-05)
leaky_relu(x, negative_slope=0.01)
less(a, b)
less_equal(a, b)
linear(x, weight, bias=None)
linear_cross_entropy(x, weight, target, ignore_index=-100, reduction='mean', label_smoothing=0.0)
log(x)
log1p(x)
log_softmax(x, axis=-1)
logsumexp(x, axis=None, keepdims=False)
lstm(x, weight_ih, weight_hh, bias_ih, bias_hh, h0, c0, lengths=None, reverse=False)
masked_fill(x, mask, value)
matmul(a, b)
max(x, axis=None, keepdims=False)
maximum(a, b)
mean(x, axis=None, keepdims=False)
min(x, axis=None, keepdims=False)
minimum(a, b)
mse_loss(input, target, reduction='mean')
multiply(a, b)
negative(x)
no_grad()
norm(x, ord=None, axis=None, keepdims=False)
not_equal(a, b)
one_hot(ids, num_classes, dtype=float64)
ones_like(x)
outer(a, b)
pad(x, pad_width, mode='constant', constant_values=0.0)
power(a, b)
print_tape(result)
prod(x, axis=None, keepdims=False)
random_scope(seed, step=0, sample=0)
relu(x)
repeat(x, repeats, axis=None)
reshape(x, shape)
rms_norm(x, normalized_shape, weight=None, eps=None)
rnn(x, weight_ih, weight_hh, bias_ih, bias_hh, h0, nonlinearity='tanh', lengths=None, reverse=False)
roll(x, shift, axis=None)
round(x, decimals=0)
scaled_dot_product_attention(q, k, v, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False, *, offset=0, rng=None)
self_attention(qkv, n_head, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, *, rng=None)
sigmoid(x)
sign(x)
silu(x, *, bias=None)
sin(x)
softmax(x, axis=-1)
softplus(x)
sort(x, axis=-1)
split(x, indices_or_sections, axis=0)
sqrt(x)
squeeze(x, axis=None)
stack(tensors, axis=0)
std(x, axis=None, ddof=0, keepdims=False)
subtract(a, b)
sum(x, axis=None, keepdims=False)
sum_to(x, shape)
swapaxes(x, axis1, axis2)
swiglu(gate, up, *, gate_bias=None, up_bias=None)
take_along_axis(x, indices, axis=-1)
tanh(x)
tensor(data, dtype=None, requires_grad=False)
tile(x, reps)
topk(x, k, axis=-1, largest=True)
transpose(x, axes=None)
tril(x, k=0)
triu(x, k=0)
value_and_grad(f, argnums=0)
var(x, axis=None, ddof=0, keepdims=False)
vjp(f, *primals)
where(condition, a, b)
zeros_like(x)
Tensor.__init__(self, data, dtype=None, requires_grad=False)
Tensor.argmax(self, axis=None)
Tensor.assign_(self, value)
Tensor.astype(self, dtype)
Tensor.backward(self, cotangent=None, *, retain_graph=False, create_graph=False)
Tensor.detach(self)
Tensor.item(self)
Tensor.max(self, axis=None, keepdims=False)
Tensor.mean(self, axis=None, keepdims=False)
Tensor.min(self, axis=None, keepdims=False)
Tensor.numpy(self)
Tensor.reshape(self, *shape)
Tensor.std(self, axis=None, ddof=0, keepdims=False)
Tensor.sum(self, axis=None, keepdims=False)
Tensor.transpose(self, *axes)
Tensor.var(self, axis=None, ddof=0, keepdims=False)
"""
LINES = SIGNATURES.split("\n")[1:-1]


def written(f) -> str:
    parts, star = [], False
    for p in inspect.signature(f).parameters.values():
        if p.kind is p.VAR_POSITIONAL:
            parts.append("*" + p.name)
            star = True
            continue
        if p.kind is p.KEYWORD_ONLY and not star:
            parts.append("*")
            star = True
        default = p.default.__name__ if isinstance(p.default, type) else repr(p.default)
        parts.append(p.name if p.default is p.empty else f"{p.name}={default}")
    return f"({', '.join(parts)})"


@pytest.mark.parametrize("line", LINES)
def test_signature(line: str) -> None:
    name = line.partition("(")[0]
    owner, _, attribute = name.rpartition(".")
    f = getattr(getattr(tl, owner) if owner else tl, attribute)
    assert attribute + written(f) == line.removeprefix(f"{owner}.")


def test_the_table_is_complete() -> None:
    engine = tl.autograd
    exported = {*engine.__all__, *engine.ops.__all__, *engine.fused.__all__}
    functions = {n for n in exported if inspect.isfunction(getattr(tl, n)) or n in ("no_grad", "random_scope")}
    assert functions == {line.partition("(")[0] for line in LINES if not line.startswith("Tensor.")}


def test_every_function_is_reachable_and_documented() -> None:
    engine = tl.autograd
    for name in (*engine.__all__, *engine.ops.__all__, *engine.fused.__all__):
        assert name in dir(tl)
        if not inspect.ismodule(getattr(tl, name)):
            assert getattr(tl, name).__doc__


@pytest.mark.parametrize("name", ["sum", "mean", "var", "std", "max", "min", "prod"])
def test_order_of_arguments_is_numpys(name: str) -> None:
    """Each argument that NumPy's function has too comes in NumPy's order."""
    ours = list(inspect.signature(getattr(tl, name)).parameters)[1:]
    theirs = [p for p in inspect.signature(getattr(np, name)).parameters if p in ours]
    assert ours == theirs


def test_a_misspelt_name_is_an_error() -> None:
    with pytest.raises(AttributeError, match="sofmax"):
        _ = tl.sofmax
