"""What the kernel tests share: outputs full of NaN, closeness in units of rounding, slopes, one call of each kernel.

Run as a script it writes the results of `one_call_of_each` to a folder: plain Python's, to compare with the compiled.
"""

import sys
from collections.abc import Callable

import numpy as np

SIZES = (1, 2, 3, 5, 7, 13, 31, 33, 64, 129)
SHAPES = [(rows, cols) for cols in SIZES for rows in (1, 7)] + [(0, 3), (64, 31), (129, 5)]
DTYPES = ("float32", "float64")


def poisoned(*shape: int, dtype: str) -> np.ndarray:
    """An output array in which whatever a kernel leaves unwritten, or reads, shows."""
    return np.full(shape, np.nan, dtype)


def assert_close(
    actual: np.ndarray, reference: np.ndarray, *, ulps: float = 16, scale: float | np.ndarray = 1.0
) -> None:
    """|actual - reference| <= ulps * eps * max(|reference|, scale); NaN and infinities in the same places."""
    assert actual.shape == np.shape(reference)
    finite = np.isfinite(reference)
    np.testing.assert_array_equal(actual[~finite], reference[~finite])
    bound = ulps * np.finfo(actual.dtype).eps * np.maximum(np.abs(reference), scale)
    wrong = ~(np.abs(actual.astype(float) - reference) <= bound) & finite
    assert not wrong.any(), f"{wrong.sum()} of {wrong.size} off, first at {np.argwhere(wrong)[0]}: " + str(
        (actual[wrong][0], np.asarray(reference)[wrong][0])
    )


def assert_vjp(
    forward: Callable, x: np.ndarray, g: np.ndarray, cotangent: np.ndarray, rng: np.random.Generator
) -> None:
    """<cotangent, d> equals the central difference of <g, forward(x)> along random d, in float64."""
    for _ in range(3):
        d = rng.normal(size=x.shape)
        h = 1e-4
        slope = [np.sum(g * (forward(x + k * h * d) - forward(x - k * h * d))) / (2 * k * h) for k in (1, 2)]
        better = slope[0] + (slope[0] - slope[1]) / 3  # Richardson: the error is of order h^4
        np.testing.assert_allclose(np.sum(cotangent * d), better, rtol=1e-7, atol=1e-8)


def one_call_of_each(dtype: str) -> dict[str, np.ndarray]:
    """Outputs of every kernel on small inputs."""
    from tinyllm.kernels.cpu import activation, adamw, attention, cross_entropy, embedding, norm, recurrent, softmax

    rng = np.random.default_rng(3)
    rows, cols = 5, 37

    def draw(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(dtype)

    def run(kernel: Callable, *inputs: object, out: list[tuple[int, ...]]) -> list[np.ndarray]:
        outputs = [poisoned(*shape, dtype=dtype) for shape in out]
        kernel(*inputs, *outputs)
        results.update({f"{kernel.__name__} {i}": output for i, output in enumerate(outputs)})
        return outputs

    results: dict[str, np.ndarray] = {}
    x, g, weight, bias = draw(rows, cols), draw(rows, cols), draw(cols), draw(cols)
    x[0, :3] = -np.inf
    for kernel, vjp in ((softmax.softmax, softmax.softmax_vjp), (softmax.log_softmax, softmax.log_softmax_vjp)):
        run(vjp, g, run(kernel, x, out=[x.shape])[0], out=[x.shape])

    target = np.array([3, 36, -100, 0, 3])
    _, lse = run(cross_entropy.cross_entropy, g, target, np.abs(weight), 0.1, -100, out=[(rows,), (rows,)])
    run(cross_entropy.cross_entropy_vjp, draw(rows), g, target, np.abs(weight), 0.1, -100, lse, out=[x.shape])
    logits = g.copy()
    run(cross_entropy.cross_entropy_in_place, logits, target, 0.1, -100, 0.3, out=[(rows,)])
    results["cross_entropy_in_place logits"] = logits

    x = draw(rows, cols)
    _, mean, rstd = run(norm.layer_norm, x, weight, bias, 1e-5, out=[x.shape, (rows,), (rows,)])
    run(norm.layer_norm_vjp, g, x, weight, mean, rstd, out=[x.shape, (cols,), (cols,)])
    run(norm.add_layer_norm, x, g, weight, bias, 1e-5, out=[x.shape, x.shape, (rows,), (rows,)])
    run(norm.add_rms_norm, x, g, weight, 1e-5, out=[x.shape, x.shape, (rows,)])
    _, rstd = run(norm.rms_norm, x, weight, 1e-5, out=[x.shape, (rows,)])
    run(norm.rms_norm_vjp, g, x, weight, rstd, out=[x.shape, (cols,)])

    flat, flat_g = 3 * x.ravel(), g.ravel()
    for kernel in (activation.gelu_erf, activation.gelu_tanh, activation.silu):
        run(kernel, flat, out=[flat.shape])
    for kernel in (activation.gelu_erf_vjp, activation.gelu_tanh_vjp, activation.silu_vjp):
        run(kernel, flat_g, flat, out=[flat.shape])
    for kernel in (activation.bias_gelu_erf, activation.bias_gelu_tanh, activation.bias_silu):
        run(kernel, 3 * x, bias, out=[x.shape])
    for kernel in (activation.bias_gelu_erf_vjp, activation.bias_gelu_tanh_vjp, activation.bias_silu_vjp):
        run(kernel, g, 3 * x, bias, out=[x.shape, (cols,)])
    run(activation.swiglu, flat, flat_g, out=[flat.shape])
    run(activation.swiglu_vjp, draw(flat.size), flat, flat_g, out=[flat.shape, flat.shape])
    run(activation.bias_swiglu, 3 * x, g, bias, weight, out=[x.shape])
    run(activation.bias_swiglu_vjp, draw(rows, cols), 3 * x, g, bias, weight, out=[x.shape, x.shape, (cols,), (cols,)])

    ids, table = np.array([2, 0, 2, 2, 1]), draw(4, cols)
    run(embedding.embedding, table, ids, out=[x.shape])
    embedding.embedding_vjp(g, ids, 1, table[1:])
    results["embedding_vjp"] = table

    H, T, S, D = 2, 18, 37, 5
    steps, key = np.array([[0, T * D, D], [0, S * D, D]])[[0, 0, 0, 1, 1, 0, 1, 1]], np.arange(5, dtype=np.uint64)
    common = ((H, 1, T, S, D, D), 0.4, 3, draw(1, T, S), np.zeros(H, np.int64), 0.2, key, H * T * S)
    q, k, v, g = draw(H * T * D), draw(H * S * D), draw(H * S * D), draw(H * T * D)
    forward = (q, k, v, steps[[2, 3, 4, 1]], *common, 0, H)
    y, shift, inverse = run(attention.attention, *forward, out=[q.shape, (H * T,), (H * T,)])
    backward = (g, y, q, k, v, steps, *common, shift, inverse, 0, H)
    run(attention.attention_vjp, *backward, out=[q.shape, k.shape, v.shape])

    T, B, H, lengths = 3, 2, 5, np.array([3, 2])
    h, c, last = draw(B, H), draw(B, H), (B, H)
    for reverse in (False, True):
        x, w, g = draw(T, B, 4 * H), draw(1, H, 4 * H), draw(T, B, H)
        back, bias = w.swapaxes(1, 2).copy(), draw(4 * H)
        y = poisoned(T, B, H, dtype=dtype)
        inputs, w_ih = draw(T, B, 4), draw(1, 4, 4 * H)
        made = np.zeros((0, B, 4), dtype), w_ih  # the products with the inputs, where they are in `x` already
        recurrent.rnn(*made, w[:, :, :H].copy(), bias[:H], h, lengths, False, reverse, 0, x[:, :, :H].copy(), y)
        dx, dh = poisoned(T, B, H, dtype=dtype), np.zeros_like(h)
        recurrent.rnn_vjp(g, 0, y, back[:, :H].copy(), lengths, False, reverse, dx, dh)
        results.update({f"rnn {reverse} {n}": d for n, d in (("y", y), ("dx", dx), ("dh", dh))})

        y, memory, gates = poisoned(T, B, H, dtype=dtype), poisoned(T, B, H, dtype=dtype), x.copy()
        recurrent.lstm(inputs, w_ih, w, bias, h, c, lengths, reverse, 0, y, memory, gates)
        dx, dh, dc = poisoned(T, B, 4 * H, dtype=dtype), np.zeros_like(h), draw(*last)
        recurrent.lstm_vjp(g, 0, memory, gates, c, back, lengths, reverse, dx, dh, dc)
        found = {"y": y, "memory": memory, "gates": gates, "dx": dx, "dh": dh, "dc": dc}
        results.update({f"lstm {reverse} {n}": d for n, d in found.items()})

        y, news, gates = poisoned(T, B, H, dtype=dtype), poisoned(T, B, H, dtype=dtype), x[:, :, : 3 * H].copy()
        strips = w_ih[:, :, : 3 * H].copy(), w[:, :, : 2 * H].copy(), w[:, :, 2 * H : 3 * H].copy()
        biases = bias[: 3 * H], draw(3 * H)
        recurrent.gru(inputs, *strips, *biases, h, lengths, reverse, 0, y, gates, news)
        dx, du, dh = poisoned(T, B, 3 * H, dtype=dtype), poisoned(T, B, 3 * H, dtype=dtype), np.zeros_like(h)
        recurrent.gru_vjp(g, 0, y, gates, news, h, back[:, : 3 * H].copy(), lengths, reverse, dx, du, dh)
        found = {"y": y, "gates": gates, "news": news, "dx": dx, "du": du, "dh": dh}
        results.update({f"gru {reverse} {n}": d for n, d in found.items()})

    for kernel in (adamw.adamw, adamw.adam):
        state = [draw(cols), draw(cols), draw(cols), np.abs(draw(cols))]
        kernel(*state, 1e-2, 0.9, 0.99, 1e-8, 0.1, 0.19, 0.0199)
        results.update({f"{kernel.__name__} {name}": value for name, value in zip("pgmv", state, strict=True)})
    results["sum_of_squares"] = np.asarray(adamw.sum_of_squares(flat))
    return results


if __name__ == "__main__":
    with np.errstate(all="ignore"):
        for dtype in DTYPES:
            np.savez(f"{sys.argv[1]}/{dtype}.npz", **one_call_of_each(dtype))
