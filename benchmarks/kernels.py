"""The ladder of each concept: naive loops, small operations, NumPy, a compiled kernel, PyTorch, the machine's limit.

    python benchmarks/kernels.py
    python benchmarks/kernels.py --only softmax
    python benchmarks/kernels.py --quick               # three concepts, within 45 s

`tinyllm` is what a model uses: the compiled kernel, its rows shared among the threads. The rungs that it is held
against: loops (the formula in plain Python on a tiny input, times the number of elements); small operations (the same
function of recorded NumPy operations); NumPy (one operation with a derivative by hand); PyTorch eager; JAX jit,
forward only.
The limit of attention and of linear is sgemm, NumPy's BLAS on large matrices; of everything else, a copy that reads
and writes as many bytes as the arrays that come in and go out.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from harness import OURS, Absent, Case, Step, compare, options_of, peer, work

import tinyllm as tl
from tinyllm import formulas
from tinyllm.autograd.settings import settings
from tinyllm.autograd.tape import gradients
from tinyllm.profile import Limits

LOOPS, SMALL, NUMPY, TORCH, JAX = "naive loops", "small operations", "NumPy", "PyTorch eager", "JAX jit"
ADDED, APART = "add and layer_norm", "one after the other"
ROWS, COLUMNS, VOCAB = 8192, 1024, 8192
LINEAR = (768, 128, 512)  # rows, channels in and out: the feed-forward part of a small model
PRODUCT = "linear, {} x {} to {}".format(*LINEAR)
HEADS, TIME, DIM = 12, 512, 64
PARAMETERS = 10_000_000
rng = np.random.default_rng(0)


def floats(*shape: int) -> np.ndarray:
    """Normal numbers in float32."""
    return rng.standard_normal(shape, np.float32)


@dataclass
class Concept:
    """A function in three libraries and in loops.

    Parameters
    ----------
    inputs : callable
        Makes the arrays; the floating ones are differentiated.
    ours, torch, jax : callable
        From the library's module and the inputs to the result.
    loops : callable
        Computes `loop_share` of the elements, in Python.
    moved : (float, float)
        Bytes in and out, forward and backward.
    """

    inputs: Callable[[], list[np.ndarray]]
    ours: Callable[..., Any]
    torch: Callable[..., Any]
    jax: Callable[..., Any]
    loops: Callable[[], Any] | None
    loop_share: float
    moved: tuple[float, float]
    flops: tuple[float, float] = (0.0, 0.0)


N = ROWS * COLUMNS
LINE = floats(256).tolist()  # what the loops work on
PAIRS = HEADS * TIME * (TIME + 1) / 2


def _square() -> list[np.ndarray]:
    return [floats(ROWS, COLUMNS)]


def _jax_norm(jax: Any, x: Any, weight: Any, bias: Any = 0.0, centred: bool = True) -> Any:
    x = x - x.mean(-1, keepdims=True) if centred else x
    return x / jax.numpy.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * weight + bias


def _jax_attention(jax: Any, q: Any, k: Any, v: Any) -> Any:
    scores = q @ k.swapaxes(-1, -2) / DIM**0.5
    seen = jax.numpy.tril(jax.numpy.ones((TIME, TIME), bool))
    return jax.nn.softmax(jax.numpy.where(seen, scores, -jax.numpy.inf)) @ v


CONCEPTS = {
    "softmax": Concept(
        _square,
        lambda x: tl.softmax(x),
        lambda torch, x: torch.softmax(x, -1),
        lambda jax, x: jax.nn.softmax(x),
        lambda: formulas.attention.softmax(LINE),
        256 / N,
        (8.0 * N, 12.0 * N),
    ),
    "layer_norm": Concept(
        lambda: [floats(ROWS, COLUMNS), floats(COLUMNS), floats(COLUMNS)],
        lambda x, w, b: tl.layer_norm(x, COLUMNS, w, b),
        lambda torch, x, w, b: torch.nn.functional.layer_norm(x, (COLUMNS,), w, b),
        _jax_norm,
        lambda: formulas.block.layer_norm(LINE, LINE, LINE),
        256 / N,
        (8.0 * N, 12.0 * N),
    ),
    "rms_norm": Concept(
        lambda: [floats(ROWS, COLUMNS), floats(COLUMNS)],
        lambda x, w: tl.rms_norm(x, COLUMNS, w),
        lambda torch, x, w: torch.nn.functional.rms_norm(x, (COLUMNS,), w),
        lambda jax, x, w: _jax_norm(jax, x, w, centred=False),
        None,
        0.0,
        (8.0 * N, 12.0 * N),
    ),
    ADDED: Concept(
        lambda: [floats(ROWS, COLUMNS), floats(ROWS, COLUMNS), floats(COLUMNS), floats(COLUMNS)],
        lambda x, y, w, b: tl.add_layer_norm(x, y, COLUMNS, w, b)[1],
        lambda torch, x, y, w, b: torch.nn.functional.layer_norm(x + y, (COLUMNS,), w, b),
        lambda jax, x, y, w, b: _jax_norm(jax, x + y, w, b),
        None,
        0.0,
        (16.0 * N, 12.0 * N),
    ),
    "gelu with bias": Concept(
        lambda: [floats(ROWS, COLUMNS), floats(COLUMNS)],
        lambda x, b: tl.gelu(x, "tanh", bias=b),
        lambda torch, x, b: torch.nn.functional.gelu(x + b, approximate="tanh"),
        lambda jax, x, b: jax.nn.gelu(x + b),
        lambda: [formulas.activations.gelu_tanh(x + x) for x in LINE],
        256 / N,
        (8.0 * N, 12.0 * N),
    ),
    "swiglu": Concept(
        lambda: [floats(ROWS, COLUMNS), floats(ROWS, COLUMNS)],
        lambda gate, up: tl.swiglu(gate, up),
        lambda torch, gate, up: torch.nn.functional.silu(gate) * up,
        lambda jax, gate, up: jax.nn.silu(gate) * up,
        None,
        0.0,
        (12.0 * N, 20.0 * N),
    ),
    "cross_entropy": Concept(
        lambda: [floats(N // VOCAB, VOCAB), rng.integers(0, VOCAB, N // VOCAB)],
        lambda x, target: tl.cross_entropy(x, target, reduction="none"),
        lambda torch, x, target: torch.nn.functional.cross_entropy(x, target, reduction="none"),
        lambda jax, x, target: -jax.numpy.take_along_axis(jax.nn.log_softmax(x), target[:, None], -1),
        lambda: formulas.losses.cross_entropy_of_logits([LINE], [3]),
        256 / N,
        (4.0 * N, 8.0 * N),
    ),
    PRODUCT: Concept(
        lambda: [floats(*LINEAR[:2]), floats(LINEAR[2], LINEAR[1])],
        lambda x, w: tl.linear(x, w),
        lambda torch, x, w: torch.nn.functional.linear(x, w),
        lambda jax, x, w: x @ w.T,
        None,
        0.0,
        (0.0, 0.0),
        (2.0 * math.prod(LINEAR), 4.0 * math.prod(LINEAR)),
    ),
    "attention, causal": Concept(
        lambda: [floats(1, HEADS, TIME, DIM) for _ in range(3)],
        lambda q, k, v: tl.scaled_dot_product_attention(q, k, v, is_causal=True),
        lambda torch, q, k, v: torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True),
        _jax_attention,
        lambda: formulas.attention.attention([LINE[:DIM]] * 8, [LINE[:DIM]] * 8, [LINE[:DIM]] * 8, causal=True),
        8 * 9 / 2 / PAIRS,
        (0.0, 0.0),
        (4 * PAIRS * DIM, 10 * PAIRS * DIM),
    ),
    "embedding": Concept(  # twice as many rows in the table as are picked
        lambda: [floats(2 * ROWS, COLUMNS), rng.integers(0, 2 * ROWS, ROWS)],
        lambda table, ids: tl.embedding(ids, table),
        lambda torch, table, ids: torch.nn.functional.embedding(ids, table),
        lambda jax, table, ids: table[ids],
        None,
        0.0,
        (8.0 * N, 4.0 * N + 8.0 * N + 8.0 * N),  # the gradient; a table of zeros; its rows read and written
    ),
}
ADAMW = "AdamW step, 10 M parameters"


def cases_of(quick: bool, only: str | None) -> dict[str, Case]:
    """Forward and backward of each concept, and the optimiser's step."""
    seconds = 0.3 if quick else 0.7
    found = {}
    chosen = ["softmax", "layer_norm", "gelu with bias"] if quick else list(CONCEPTS)
    for name in [only] if only in CONCEPTS else chosen if only is None else []:
        concept = CONCEPTS[name]
        for i, direction in enumerate(("forward", "backward")):
            rungs = [SMALL, NUMPY, TORCH]
            if name == ADDED:
                rungs = [APART, TORCH]
            elif i == 0:
                rungs = [LOOPS] * (concept.loops is not None) + rungs + [JAX]
            size = {"concept": name, "backward": bool(i)}
            work = f"{name}, {direction}"
            found[work] = Case(work, size, concept.flops[i], concept.moved[i], rungs, seconds)
    if only in (None, ADAMW) and not quick:
        peers = [LOOPS, NUMPY, TORCH]
        found[ADAMW] = Case(ADAMW, {"concept": ADAMW, "backward": False}, 0.0, 28.0 * PARAMETERS, peers, seconds)
    return found


def ours(threads: int, concept: str, backward: bool) -> Step:
    """The library as it comes."""
    if concept == ADAMW:
        p = tl.tensor(floats(PARAMETERS), requires_grad=True)
        p.grad = tl.tensor(floats(PARAMETERS))
        return tl.optim.AdamW([p]).step
    f = CONCEPTS[concept].ours
    arrays = [tl.tensor(a, requires_grad=a.dtype.kind == "f") for a in CONCEPTS[concept].inputs()]
    return _step(lambda: f(*arrays), arrays, backward)


def numpy(threads: int, concept: str, backward: bool) -> Step:
    """The same operations on their NumPy kernels."""
    settings.backend = "numpy"  # for as long as this process lives
    return ours(threads, concept, backward)


def apart(threads: int, concept: str, backward: bool) -> Step:
    """A sum, and then its norm."""
    arrays = [tl.tensor(a, requires_grad=True) for a in CONCEPTS[concept].inputs()]
    x, y, w, b = arrays
    return _step(lambda: tl.layer_norm(x + y, COLUMNS, w, b), arrays, backward)


def small(threads: int, concept: str, backward: bool) -> Step:
    """The same function in small operations, which the tape knows."""
    f = CONCEPTS[concept].ours
    arrays = [tl.tensor(a, requires_grad=a.dtype.kind == "f") for a in CONCEPTS[concept].inputs()]
    node = f(*arrays).node
    while node.op.ref is None:  # the function ends with a reshape
        node = node.inputs[0].node
    return _step(lambda: node.op.ref(*node.inputs, **node.params), arrays, backward)


def _step(f: Callable[[], tl.Tensor], arrays: list[tl.Tensor], backward: bool) -> Step:
    if not backward:
        return f
    y = f()
    leaves = [t for t in arrays if t.requires_grad]
    g = tl.tensor(np.asarray(floats(*y.shape), np.float32))
    return lambda: [d.data for d in gradients(y, leaves, g)]  # a gradient that is mostly zeros is written out


def pytorch(threads: int, concept: str, backward: bool) -> Step:
    """PyTorch, eager."""
    torch = peer("torch")
    torch.set_num_threads(threads)
    if concept == ADAMW:
        p = torch.nn.Parameter(torch.tensor(floats(PARAMETERS)))
        p.grad = torch.tensor(floats(PARAMETERS))
        return torch.optim.AdamW([p], fused=True).step
    f = CONCEPTS[concept].torch
    arrays = [torch.tensor(a) for a in CONCEPTS[concept].inputs()]
    leaves = [a.requires_grad_() for a in arrays if a.dtype == torch.float32]
    if not backward:
        return lambda: f(torch, *arrays)
    y = f(torch, *arrays)
    g = torch.tensor(np.asarray(floats(*y.shape), np.float32))
    return lambda: torch.autograd.grad(y, leaves, g, retain_graph=True)


def jax_jit(threads: int, concept: str, backward: bool) -> Step:
    """JAX, compiled; it takes what threads it wants."""
    jax = peer("jax")
    f = jax.jit(lambda *arrays: CONCEPTS[concept].jax(jax, *arrays))
    arrays = [jax.numpy.asarray(a) for a in CONCEPTS[concept].inputs()]
    return lambda: f(*arrays).block_until_ready()


def loops(threads: int, concept: str, backward: bool) -> tuple[Step, float]:
    """The formula in plain Python on a tiny input, and how many of them make up the whole."""
    if concept == ADAMW:
        return lambda: formulas.optimisers.adam_step(LINE, LINE, LINE, [1.0] * 256, 3), PARAMETERS / 256
    step = CONCEPTS[concept].loops
    if step is None:
        raise Absent("there are no loops for it")
    return step, 1 / CONCEPTS[concept].loop_share


SIDES = {OURS: ours, APART: apart, LOOPS: loops, SMALL: small, NUMPY: numpy, TORCH: pytorch, JAX: jax_jit}


def main() -> None:
    """Measure, and print a table or an object."""
    parser = options_of(__doc__, rounds=2)
    parser.add_argument("--only", choices=[*CONCEPTS, ADAMW], help="one concept")
    options = parser.parse_args()
    cases = cases_of(options.quick, options.only)
    if options.worker:
        work(SIDES, cases, options)
        return
    if options.quick:
        options.rounds = 1
    tl.set_num_threads(options.threads)
    report = compare(__file__, cases, options, Limits.measure(), together=True)
    report.note(f"{LOOPS}: measured on up to 256 elements (attention: 8 tokens), times the number of elements")
    report.print(options.json)


if __name__ == "__main__":
    main()
