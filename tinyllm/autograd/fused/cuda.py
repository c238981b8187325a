"""The fused operations on a GPU: how the arrays of an operation become those of `tinyllm.kernels.cuda`.

`add_kernels` gives each operation an implementation ``"cuda"``, which float32 arrays on a GPU get. What a kernel does
not do (attention with dropout, for one) is left to the implementation ``"numpy"``, in functions of the arrays' own
library. Products of matrices are the library's, too: cuBLAS.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tinyllm.autograd.fused import activation, attention, norm
from tinyllm.autograd.fused.cross_entropy import _cross_entropy as cross_entropy_op
from tinyllm.autograd.fused.embedding import _embedding as embedding_op
from tinyllm.autograd.fused.embedding import _forward as embedding_forward
from tinyllm.autograd.fused.linear_cross_entropy import _kernel as in_chunks
from tinyllm.autograd.fused.linear_cross_entropy import _linear_cross_entropy as linear_cross_entropy_op
from tinyllm.autograd.fused.softmax import _log_softmax_op as log_softmax_op
from tinyllm.autograd.fused.softmax import _softmax_op as softmax_op
from tinyllm.autograd.tape import Kernel, Op
from tinyllm.autograd.tensor import Array, namespace


def flat(a: Array) -> Array:
    """The elements of `a` (n,), one after the other, from a multiple of 16 bytes on."""
    a = namespace(a).ascontiguousarray(a).reshape(-1)
    return a.copy() if a.__cuda_array_interface__["data"][0] % 16 else a


def shaped(a: Array, *shape: int) -> Array:
    """The elements of `a` in another shape, as `flat`."""
    return flat(a).reshape(shape)


def rows(a: Array, size: int) -> Array:
    """The elements of `a` (R, size), as `flat`."""
    return shaped(a, a.size // size, size)


def like(a: Array, *shape: int) -> Array:
    """Uninitialised memory where `a` is, of its shape or another."""
    return namespace(a).empty(shape or a.shape, dtype=np.float32)


def either(op: Op, suits: Callable[..., bool], kernel: Kernel) -> Kernel:
    """`kernel` for arrays and settings that suit it, else what the operation does without kernels."""

    def forward(*arrays: Array, **params: Any) -> tuple[Array, Any]:
        chosen = kernel if suits(*arrays, **params) else op.impls["numpy"]()
        return chosen.forward(*arrays, **params)

    def vjp(needs: tuple[bool, ...], g: Array, y: Array, saved: Any, *arrays: Array, **params: Any) -> Any:
        if suits(*arrays, **params):
            return kernel.vjp(needs, g, y, saved, *arrays, **params)
        return op.impls["numpy"]().vjp(needs, g, y, saved, *arrays, **params)

    return Kernel(forward, vjp)


# -- softmax, norms ----------------------------------------------------------------------------------------------------


def _along_last(kernel: Callable[..., None], axis: int, *arrays: Array) -> Array:
    xp = namespace(arrays[0])
    moved = [xp.moveaxis(a, axis, -1) for a in arrays]
    shape = moved[0].shape
    given = [rows(a, shape[-1]) for a in moved]
    out = like(given[0])
    kernel(*given, out)
    return xp.moveaxis(out.reshape(shape), -1, axis)


def _softmax() -> Kernel:
    from tinyllm.kernels.cuda import softmax as kernels

    return Kernel(
        lambda x, axis: (_along_last(kernels.softmax, axis, x), None),
        lambda needs, g, y, saved, x, axis: (_along_last(kernels.softmax_vjp, axis, g, y),),
    )


def _log_softmax() -> Kernel:
    from tinyllm.kernels.cuda import softmax as kernels

    return Kernel(
        lambda x, axis: (_along_last(kernels.log_softmax, axis, x), None),
        lambda needs, g, y, saved, x, axis: (_along_last(kernels.log_softmax_vjp, axis, g, y),),
    )


def _layer_norm() -> Kernel:
    from tinyllm.kernels.cuda import norm as kernels

    def forward(x: Array, weight: Array, bias: Array, eps: float) -> tuple[Array, Any]:
        given = rows(x, weight.size)
        out, mean, rstd = like(given), like(x, len(given)), like(x, len(given))
        kernels.layer_norm(given, flat(weight), flat(bias), eps, out, mean, rstd)
        return out.reshape(x.shape), (mean, rstd)

    def vjp(
        needs: tuple[bool, ...], g: Array, y: Array, saved: Any, x: Array, weight: Array, bias: Array, eps: float
    ) -> tuple[Array, ...]:
        mean, rstd = saved
        given = rows(x, weight.size)
        dx, dweight, dbias = like(given), like(weight, weight.size), like(weight, weight.size)
        kernels.layer_norm_vjp(rows(g, weight.size), given, flat(weight), mean, rstd, dx, dweight, dbias)
        return dx.reshape(x.shape), dweight.reshape(weight.shape), dbias.reshape(bias.shape)

    def suits(x: Array, weight: Array, bias: Array, eps: float) -> bool:
        return weight.size <= kernels.MAX_COLUMNS

    return either(norm._layer_norm_op, suits, Kernel(forward, vjp))


def _rms_norm() -> Kernel:
    from tinyllm.kernels.cuda import norm as kernels

    def forward(x: Array, weight: Array, eps: float) -> tuple[Array, Any]:
        given = rows(x, weight.size)
        out, rstd = like(given), like(x, len(given))
        kernels.rms_norm(given, flat(weight), eps, out, rstd)
        return out.reshape(x.shape), rstd

    def vjp(
        needs: tuple[bool, ...], g: Array, y: Array, rstd: Any, x: Array, weight: Array, eps: float
    ) -> tuple[Array, ...]:
        given = rows(x, weight.size)
        dx, dweight = like(given), like(weight, weight.size)
        kernels.rms_norm_vjp(rows(g, weight.size), given, flat(weight), rstd, dx, dweight)
        return dx.reshape(x.shape), dweight.reshape(weight.shape)

    def suits(x: Array, weight: Array, eps: float) -> bool:
        return weight.size <= kernels.MAX_COLUMNS

    return either(norm._rms_norm_op, suits, Kernel(forward, vjp))


# -- activations -------------------------------------------------------------------------------------------------------


def _elementwise(kernel: Callable[..., None], outputs: int, *arrays: Array) -> list[Array]:
    given = [flat(a) for a in arrays]
    outs = [like(given[0]) for _ in range(outputs)]
    kernel(*given, *outs)
    return [out.reshape(arrays[0].shape) for out in outs]


def _with_bias(kernel: Callable[..., None], xs: list[Array], biases: list[Array]) -> Array:
    C = biases[0].size
    out = like(xs[0], xs[0].size // C, C)
    kernel(*(rows(x, C) for x in xs), *(flat(b) for b in biases), out)
    return out.reshape(xs[0].shape)


def _with_bias_vjp(kernel: Callable[..., None], g: Array, xs: list[Array], biases: list[Array]) -> tuple[Array, ...]:
    C = biases[0].size
    dxs, dbiases = [like(x, x.size // C, C) for x in xs], [like(b) for b in biases]
    kernel(rows(g, C), *(rows(x, C) for x in xs), *(flat(b) for b in biases), *dxs, *dbiases)
    return (*(dx.reshape(g.shape) for dx in dxs), *dbiases)


def _gelu() -> Kernel:
    from tinyllm.kernels.cuda import activation as kernels

    def forward(x: Array, *bias: Array, approximate: str) -> tuple[Array, None]:
        tanh = approximate == "tanh"
        if bias:
            return _with_bias(kernels.bias_gelu_tanh if tanh else kernels.bias_gelu_erf, [x], list(bias)), None
        return _elementwise(kernels.gelu_tanh if tanh else kernels.gelu_erf, 1, x)[0], None

    def vjp(
        needs: tuple[bool, ...], g: Array, y: Array, saved: None, x: Array, *bias: Array, approximate: str
    ) -> tuple[Array, ...]:
        tanh = approximate == "tanh"
        if bias:
            kernel = kernels.bias_gelu_tanh_vjp if tanh else kernels.bias_gelu_erf_vjp
            return _with_bias_vjp(kernel, g, [x], list(bias))
        return tuple(_elementwise(kernels.gelu_tanh_vjp if tanh else kernels.gelu_erf_vjp, 1, g, x))

    return Kernel(forward, vjp)


def _silu() -> Kernel:
    from tinyllm.kernels.cuda import activation as kernels

    def forward(x: Array, *bias: Array) -> tuple[Array, None]:
        return _with_bias(kernels.bias_silu, [x], list(bias)) if bias else _elementwise(kernels.silu, 1, x)[0], None

    def vjp(needs: tuple[bool, ...], g: Array, y: Array, saved: None, x: Array, *bias: Array) -> tuple[Array, ...]:
        if bias:
            return _with_bias_vjp(kernels.bias_silu_vjp, g, [x], list(bias))
        return tuple(_elementwise(kernels.silu_vjp, 1, g, x))

    return Kernel(forward, vjp)


def _swiglu() -> Kernel:
    from tinyllm.kernels.cuda import activation as kernels

    def forward(gate: Array, up: Array, *biases: Array) -> tuple[Array, None]:
        if biases:
            return _with_bias(kernels.bias_swiglu, [gate, up], list(biases)), None
        return _elementwise(kernels.swiglu, 1, gate, up)[0], None

    def vjp(
        needs: tuple[bool, ...], g: Array, y: Array, saved: None, gate: Array, up: Array, *biases: Array
    ) -> tuple[Array, ...]:
        if biases:
            return _with_bias_vjp(kernels.bias_swiglu_vjp, g, [gate, up], list(biases))
        return tuple(_elementwise(kernels.swiglu_vjp, 2, g, gate, up))

    return Kernel(forward, vjp)


# -- losses, embedding -------------------------------------------------------------------------------------------------


def _cross_entropy() -> Kernel:
    from tinyllm.kernels.cuda import cross_entropy as kernels

    def forward(
        logits: Array, target: Array, weight: Array, ignore_index: int, label_smoothing: float
    ) -> tuple[Array, Any]:
        losses, lse = like(logits, len(logits)), like(logits, len(logits))
        given = rows(logits, logits.shape[1]), flat(target), flat(weight), label_smoothing, ignore_index
        kernels.cross_entropy(*given, losses, lse)
        return losses, lse

    def vjp(
        needs: tuple[bool, ...],
        g: Array,
        y: Array,
        lse: Any,
        logits: Array,
        target: Array,
        weight: Array,
        ignore_index: int,
        label_smoothing: float,
    ) -> tuple[Array | None, ...]:
        out = like(logits)
        given = rows(logits, logits.shape[1]), flat(target), flat(weight), label_smoothing, ignore_index
        kernels.cross_entropy_vjp(flat(g), *given, lse, out)
        return out, None, None

    return Kernel(forward, vjp)


def _linear_cross_entropy() -> Kernel:
    from tinyllm.kernels.cuda import cross_entropy as kernels

    def slopes(
        logits: Array, target: Array, scale: float, ignore_index: int, label_smoothing: float
    ) -> tuple[Array, Array]:
        logits, losses = rows(logits, logits.shape[1]), like(logits, len(logits))
        kernels.cross_entropy_in_place(logits, flat(target), label_smoothing, ignore_index, scale, losses)
        return losses, logits

    return in_chunks(slopes)


def _embedding() -> Kernel:
    from tinyllm.kernels.cuda import embedding as kernels

    def vjp(
        needs: tuple[bool, bool], g: Array, y: Array, saved: None, weight: Array, ids: Array, padding_idx: int | None
    ) -> tuple[Array, None]:
        out = like(weight)
        kernels.embedding_vjp(rows(g, weight.shape[1]), flat(ids.astype(np.int64)), out)
        if padding_idx is not None:
            out[padding_idx] = 0
        return out, None

    return either(embedding_op, lambda weight, ids, padding_idx: ids.size > 0, Kernel(embedding_forward, vjp))


# -- attention ---------------------------------------------------------------------------------------------------------


def _heads(x: Array) -> Array:
    """(..., H, T, D) -> (N, T, D)."""
    return shaped(x, math.prod(x.shape[:-2]), *x.shape[-2:])


def _mask(mask: Array | None, lead: tuple[int, ...], S: int) -> tuple[Array | None, Array | None]:
    """The mask as (K, T or 1, S), and for each head which of the K it takes; made where the mask is."""
    if mask is None:
        return None, None
    xp = namespace(mask)
    whole = xp.broadcast_to(mask, np.broadcast_shapes(mask.shape, (1,) * (len(lead) + 1) + (S,)))
    own = whole.shape[:-2]
    which = xp.broadcast_to(xp.arange(math.prod(own), dtype=np.int64).reshape(own), lead)
    return shaped(whole, math.prod(own), whole.shape[-2], S), flat(which)


def _attends(q: Array, k: Array, v: Array, mask: Array | None = None, **settings: Any) -> bool:
    """Whether the kernels do this: no dropout, one head size, not too large."""
    from tinyllm.kernels.cuda.attention import MAX_HEAD_SIZE

    return settings["key"] is None and q.shape[-1] == v.shape[-1] <= MAX_HEAD_SIZE and 0 not in k.shape


def _attend(q: Array, k: Array, v: Array, mask: Array | None = None, **settings: Any) -> tuple[Array, Array]:
    """Output and lse, (N, T, D) and (N, T)."""
    from tinyllm.kernels.cuda import attention as kernels

    S = k.shape[-2]
    offset = S if settings["limit"] is None else settings["limit"]
    queries = _heads(q)
    out, lse = like(queries), like(queries, *queries.shape[:2])
    where = _mask(mask, q.shape[:-2], S)
    kernels.attention(queries, _heads(k), _heads(v), settings["scale"], offset, *where, out, lse)
    return out, lse


def _attend_vjp(
    g: Array, y: Array, lse: Array, q: Array, k: Array, v: Array, mask: Array | None = None, **settings: Any
) -> list[Array]:
    """The cotangents of q, k and v, in their shapes."""
    from tinyllm.kernels.cuda import attention as kernels

    S = k.shape[-2]
    offset = S if settings["limit"] is None else settings["limit"]
    queries, keys, values = (_heads(x) for x in (q, k, v))
    dq, dk, dv = (like(x) for x in (queries, keys, values))
    where = _mask(mask, q.shape[:-2], S)
    kernels.attention_vjp(
        _heads(g), queries, keys, values, settings["scale"], offset, *where, _heads(y), lse, dq, dk, dv
    )
    return [d.reshape(x.shape) for d, x in zip((dq, dk, dv), (q, k, v), strict=True)]


def _attention() -> Kernel:
    plain = attention._attention.impls["numpy"]()

    def forward(q: Array, *rest: Array, **settings: Any) -> tuple[Array, Any]:
        out, lse = _attend(q, *rest, **settings)
        return out.reshape(q.shape), lse

    def vjp(
        needs: tuple[bool, ...], g: Array, y: Array, lse: Array, *arrays: Array, **settings: Any
    ) -> tuple[Array | None, ...]:
        if any(needs[3:]):  # the mask's cotangent is as large as all weights
            _, weights = plain.forward(*arrays, **settings)
            return plain.vjp(needs, g, y, weights, *arrays, **settings)
        return *_attend_vjp(g, y, lse, *arrays, **settings), *(None for _ in needs[3:])

    return either(attention._attention, _attends, Kernel(forward, vjp))


def _self_attention() -> Kernel:
    plain = attention._self_attention.impls["numpy"]()

    def forward(qkv: Array, *mask: Array, n_head: int, **settings: Any) -> tuple[Array, Any]:
        parts = attention._unpack(qkv, n_head)
        out, lse = _attend(*parts, *mask, **settings)
        return attention._merge(out.reshape(parts[0].shape)), lse

    def vjp(
        needs: tuple[bool, ...], g: Array, y: Array, lse: Array, qkv: Array, *mask: Array, n_head: int, **settings: Any
    ) -> tuple[Array | None, ...]:
        if any(needs[1:]):
            _, weights = plain.forward(qkv, *mask, n_head=n_head, **settings)
            return plain.vjp(needs, g, y, weights, qkv, *mask, n_head=n_head, **settings)
        g, y = (attention._swapped(x.reshape((*x.shape[:-1], n_head, x.shape[-1] // n_head))) for x in (g, y))
        grads = _attend_vjp(g, y, lse, *attention._unpack(qkv, n_head), *mask, **settings)
        merged = namespace(qkv).concatenate([attention._merge(d) for d in grads], axis=-1)
        return merged, *(None for _ in mask)

    def suits(qkv: Array, *mask: Array, n_head: int, **settings: Any) -> bool:
        return _attends(*attention._unpack(qkv, n_head), *mask, **settings)

    return either(attention._self_attention, suits, Kernel(forward, vjp))


def add_kernels() -> None:
    """Give the fused operations their implementations on a GPU; each imports its kernels when first used."""
    made: dict[Op, Callable[[], Kernel]] = {
        softmax_op: _softmax,
        log_softmax_op: _log_softmax,
        norm._layer_norm_op: _layer_norm,
        norm._rms_norm_op: _rms_norm,
        activation._gelu: _gelu,
        activation._silu: _silu,
        activation._swiglu: _swiglu,
        cross_entropy_op: _cross_entropy,
        linear_cross_entropy_op: _linear_cross_entropy,
        embedding_op: _embedding,
        attention._attention: _attention,
        attention._self_attention: _self_attention,
    }
    for op, make in made.items():
        op.impls["cuda"] = functools.cache(make)
