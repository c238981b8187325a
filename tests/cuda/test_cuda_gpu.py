"""The CUDA kernels on a GPU, at real sizes: python -m pytest -m gpu."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cuda_cases
import numpy as np
import pytest
from cuda_cases import Attention, Case, Draw

import tinyllm as tl
from tinyllm import device
from tinyllm.errors import DeviceError
from tinyllm.kernels.cuda import attention
from tinyllm.kernels.cuda.compile import require_gpu

pytestmark = pytest.mark.gpu
REPEATS = 10


@pytest.fixture(scope="module", autouse=True)
def cupy() -> Any:
    """CuPy, on a machine with a GPU."""
    try:
        require_gpu()
    except DeviceError as error:
        pytest.skip(str(error))
    return pytest.importorskip("cupy")


REAL: dict[str, Callable[[Draw], Iterator[Case]]] = {
    "softmax": lambda d: cuda_cases.softmax_cases(d, 4096, 1031),
    "softmax, a vocabulary": lambda d: cuda_cases.softmax_cases(d, 64, 50257),
    "norm": lambda d: cuda_cases.norm_cases(d, 8192, 768),
    "norm, odd": lambda d: cuda_cases.norm_cases(d, 1021, 4099),
    "cross_entropy": lambda d: cuda_cases.cross_entropy_cases(d, 512, 50257),
    "embedding": lambda d: cuda_cases.embedding_cases(d, 8192, 768, 50257),
    "embedding, few ids": lambda d: cuda_cases.embedding_cases(d, 8191, 129, 65),
    "activation": lambda d: cuda_cases.activation_cases(d, 8191, 3072),
    "adamw": lambda d: cuda_cases.adamw_cases(d, 10_000_003),
    "matmul": lambda d: cuda_cases.matmul_cases(d, 1024, 1024, 1024),
    "matmul, odd": lambda d: cuda_cases.matmul_cases(d, 517, 1031, 259),
    "attention, D 32": lambda d: cuda_cases.attention_cases(d, Attention(8, 8, 1024, 1024, 32, offset=0)),
    "attention, D 64": lambda d: cuda_cases.attention_cases(d, Attention(8, 2, 1024, 1024, 64, offset=0)),
    "attention, D 128": lambda d: cuda_cases.attention_cases(d, Attention(4, 4, 513, 1031, 128)),
    "attention, D 80, cache": lambda d: cuda_cases.attention_cases(d, Attention(4, 1, 65, 1000, 80, offset=935)),
    "attention, boolean": lambda d: cuda_cases.attention_cases(d, Attention(8, 4, 515, 517, 64, mask="boolean")),
    "attention, added": lambda d: cuda_cases.attention_cases(d, Attention(4, 4, 515, 517, 64, 2, mask="added")),
    "attention, one row": lambda d: cuda_cases.attention_cases(d, Attention(4, 4, 515, 517, 33, mask="one row")),
}
DETERMINISTIC_BUT = ("atomic",)


@pytest.mark.parametrize("name", REAL)
def test_fresh_inputs(name: str, cupy: Any) -> None:
    for seed in range(REPEATS if "vocabulary" not in name and "adamw" not in name else 3):
        for case in REAL[name](Draw(1000 + seed)):
            cuda_cases.run(case, cupy.asarray, cupy.asnumpy)


@pytest.mark.parametrize("name", REAL)
def test_every_run_gives_the_same_bits(name: str, cupy: Any) -> None:
    for case in REAL[name](Draw(1)):
        if any(word in case.name for word in DETERMINISTIC_BUT):
            continue
        results = []
        for _ in range(REPEATS):
            given = [
                cupy.asarray(a.start() if isinstance(a, cuda_cases.Out) else a)
                if isinstance(a, (cuda_cases.Out, np.ndarray))
                else a
                for a in case.arguments
            ]
            case.function(*given, **case.options)
            results.append([g for g, a in zip(given, case.arguments, strict=True) if isinstance(a, cuda_cases.Out)])
        for again in results[1:]:
            for a, b in zip(results[0], again, strict=True):
                assert (a.view(cupy.uint8) == b.view(cupy.uint8)).all(), case.name


def test_the_tiny_cases_of_the_simulator(cupy: Any) -> None:
    for group in cuda_cases.TINY:
        for case in cuda_cases.all_cases(group):
            cuda_cases.run(case, cupy.asarray, cupy.asnumpy)


def test_attention_needs_no_memory_for_scores(cupy: Any) -> None:
    T = 32768
    q, k, v, g, out, dq, dk, dv = (cupy.random.normal(size=(1, T, 64), dtype=cupy.float32) for _ in range(8))
    lse = cupy.empty((1, T), cupy.float32)
    pool = cupy.get_default_memory_pool()
    before = pool.total_bytes()
    attention.attention(q, k, v, 0.125, 0, None, None, out, lse)
    attention.attention_vjp(g, q, k, v, 0.125, 0, None, None, out, lse, dq, dk, dv)
    assert pool.total_bytes() - before < T * 4 * 64


def test_a_gpt_is_trained_as_on_the_host(cupy: Any) -> None:
    config = tl.models.GPTConfig(n_layer=2, n_head=4, n_embd=256, n_positions=128, vocab_size=1000)
    ids = np.random.default_rng(0).integers(1000, size=(4, 128))
    losses, models = {}, {}
    for where in ("cpu", "cuda"):
        model = models[where] = tl.models.GPT(config, rng=np.random.default_rng(0)).to(where)
        optimizer = tl.optim.AdamW(model.parameters(), lr=1e-3)
        losses[where] = []
        for _ in range(5):
            with device.no_copies():
                loss = model.loss({"input_ids": ids, "labels": ids})
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
            losses[where].append(loss.item())
    np.testing.assert_allclose(losses["cuda"], losses["cpu"], rtol=1e-4)
    for (name, a), (_, b) in zip(*(models[w].named_parameters() for w in ("cpu", "cuda")), strict=True):
        np.testing.assert_allclose(b.numpy(), a.numpy(), rtol=1e-2, atol=1e-3, err_msg=name)


def test_primitives_run_in_cupy(cupy: Any) -> None:
    """The engine on CuPy's arrays, as `tests/autograd/test_foreign_array.py` has it on another class."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "autograd"))
    from gradient_cases import CASES

    for case in CASES:
        here = [tl.tensor(a, requires_grad=True) for a in case.arrays]
        there = [tl.tensor(a, requires_grad=True).to("cuda") for a in case.arrays]
        y = case.f(*here)
        try:
            z = case.f(*there)
        except TypeError as error:  # CuPy's, where the case has an operand of NumPy's beside the tensors
            if "numpy" not in str(error).lower():
                raise
            continue
        np.testing.assert_allclose(z.numpy(), y.numpy(), rtol=1e-4, atol=1e-5, err_msg=case.id)
