"""`kernelcheck` passes the library's kernels and rejects kernels with the usual mistakes."""

import numpy as np
import pytest

from tinyllm.testing import GradCheckError, implements, kernelcheck
from tinyllm.testing.implements import implementations


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def rows(rng, n):
    return [rng.normal(size=(3, n))]


def right(x, out):
    out[...] = softmax(x)


def unshifted(x, out):
    e = np.exp(x)
    out[...] = e / e.sum(axis=-1, keepdims=True)


def forgets_the_tail(x, out):
    n = x.shape[-1] // 4 * 4 or x.shape[-1]
    out[:, :n] = softmax(x)[:, :n]


def adds_to_the_output(x, out):
    out += softmax(x)


def changes_its_input(x, out):
    if x.flags.writeable:
        x -= x.max()
    out[...] = softmax(x)


def half_precision(x, out):
    out[...] = softmax(x.astype(np.float16).astype(np.float32))


def fills_masks_with_a_number(x, out):
    out[...] = softmax(np.maximum(x, -10))


def assumes_contiguous(x, out):
    out[...] = softmax(np.lib.stride_tricks.as_strided(x, x.shape, (x.itemsize * x.shape[1], x.itemsize)))


@pytest.mark.parametrize(
    ("kernel", "said"),
    [
        (unshifted, "one huge entry|large"),
        (forgets_the_tail, "never written"),
        (adds_to_the_output, "never written"),
        (changes_its_input, "changed its input 0"),
        (half_precision, "units"),
        (fills_masks_with_a_number, "-inf|large|huge"),
        (assumes_contiguous, "strided|column-major"),
    ],
)
def test_wrong_kernels_are_rejected(kernel, said):
    with pytest.raises(GradCheckError, match=said):
        kernelcheck(kernel, softmax, rows)


def test_a_right_kernel_passes_within_its_units():
    assert kernelcheck(right, softmax, rows) <= 2
    assert kernelcheck(softmax, softmax, rows, writes=False) <= 2
    assert kernelcheck(right, softmax, [[np.ones((2, 3))], [np.zeros((1, 1))]]) <= 2


def test_shapes_of_returned_outputs():
    with pytest.raises(GradCheckError, match="outputs of shape"):
        kernelcheck(lambda x: x[:1], lambda x: x, rows, writes=False)


def test_the_kernels_of_the_library():
    from tinyllm.kernels.cpu import norm as norm_kernels
    from tinyllm.kernels.cpu import softmax as softmax_kernels

    assert kernelcheck(softmax_kernels.softmax, softmax, rows, layouts=False, limit=16) < 16

    def rms_norm(x, weight):
        rstd = 1 / np.sqrt((x * x).mean(axis=-1) + x.dtype.type(1e-5))
        return x * rstd[:, None] * weight, rstd

    def kernel(x, weight, out, rstd):
        norm_kernels.rms_norm(x, weight, 1e-5, out, rstd)

    cases = [[np.random.default_rng(n).normal(size=(4, n)), np.ones(n)] for n in (1, 7, 64, 129)]
    assert kernelcheck(kernel, rms_norm, cases, layouts=False, limit=32) < 32


def test_implements_marks_functions_and_knows_the_names():
    @implements("softmax")
    def mine(x):
        return x

    @implements("softmax_backward")
    def mine_back(g, x):
        return g

    def relu(x):
        return x

    found = implementations({"a": mine, "b": mine_back, "relu": relu, "other": print})
    assert found["softmax"] == (mine, mine_back)
    assert found["relu"] == (relu, None)
    assert set(found) == {"softmax", "relu"}
    with pytest.raises(ValueError, match="did you mean 'layer_norm'"):
        implements("layernorm")
