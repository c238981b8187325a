"""Tensors "on a GPU" without one: arrays of a foreign class whose kernels run in the simulator."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "autograd"))

from foreign import Foreign, to_foreign

import tinyllm as tl
from tinyllm import device
from tinyllm.autograd.tape import reachable
from tinyllm.errors import DeviceError
from tinyllm.kernels.cuda.compile import SIMULATED, Kernel
from tinyllm.train import checkpoint, run
from tinyllm.train.job import prepare_job
from tinyllm.train.settings import Settings

assert SIMULATED, "these tests are run by test_cuda_simulator.py"


@pytest.fixture(autouse=True)
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Foreign arrays say where they are, as CuPy's do, and are what ``to("cuda")`` makes."""
    described = property(lambda self: self._values.__array_interface__)
    monkeypatch.setattr(Foreign, "__cuda_array_interface__", described, raising=False)
    monkeypatch.setattr(device, "to_gpu", to_foreign)


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the kernels that were launched."""
    names: list[str] = []
    plain = Kernel.launch

    def launch(self: Kernel, *arguments: Any) -> None:
        names.append(self.name)
        plain(self, *arguments)

    monkeypatch.setattr(Kernel, "launch", launch)
    return names


rng = np.random.default_rng(0)


def draw(*shape: int) -> np.ndarray:
    return rng.normal(size=shape).astype(np.float32)


IDS = np.array([[1, 0, 1], [3, 2, 2]])
MASK = np.array([[True, False, True], [True, True, True], [False, False, False]])
OPERATIONS: dict[str, tuple[Any, list[np.ndarray], str]] = {
    "softmax": (tl.softmax, [draw(2, 3)], "softmax.softmax_kernel"),
    "softmax, first axis": (lambda x: tl.softmax(x, 0), [draw(2, 3, 2)], "softmax.softmax_kernel"),
    "log_softmax": (tl.log_softmax, [draw(2, 3)], "softmax.log_softmax_kernel"),
    "layer_norm": (lambda x, w, b: tl.layer_norm(x, 5, w, b), [draw(2, 3, 5), draw(5), draw(5)], "norm.layer_norm"),
    "rms_norm": (lambda x, w: tl.rms_norm(x, (2, 3), w), [draw(2, 2, 3), draw(2, 3)], "norm.rms_norm"),
    "gelu": (tl.gelu, [draw(2, 3)], "activation.gelu_erf"),
    "gelu of a part": (lambda x: tl.gelu(x[1:, 1:]), [draw(3, 3)], "activation.gelu_erf"),
    "gelu tanh, bias": (lambda x, b: tl.gelu(x, "tanh", bias=b), [draw(2, 2, 3), draw(3)], "activation.bias_gelu_tanh"),
    "silu": (tl.silu, [draw(5)], "activation.silu"),
    "swiglu": (tl.swiglu, [draw(2, 3), draw(2, 3)], "activation.swiglu_kernel"),
    "swiglu, biases": (
        lambda x, u, b, c: tl.swiglu(x, u, gate_bias=b, up_bias=c),
        [draw(2, 3), draw(2, 3), draw(3), draw(3)],
        "activation.bias_swiglu_kernel",
    ),
    "silu, bias": (lambda x, b: tl.silu(x, bias=b), [draw(2, 3), draw(3)], "activation.bias_silu"),
    "cross_entropy": (
        lambda x: tl.cross_entropy(x, IDS, label_smoothing=0.1),
        [draw(2, 3, 5)],
        "cross_entropy.cross_entropy_kernel",
    ),
    "linear_cross_entropy": (
        lambda x, w: tl.linear_cross_entropy(x, w, IDS),
        [draw(2, 3, 4), draw(5, 4)],
        "cross_entropy.cross_entropy_in_place_kernel",
    ),
    "embedding": (lambda w: tl.embedding(IDS, w, padding_idx=1), [draw(5, 3)], "embedding.add_runs_kernel"),
    "attention": (
        lambda q, k, v: tl.scaled_dot_product_attention(q, k, v, MASK, is_causal=True, enable_gqa=True),
        [draw(2, 4, 3, 5), draw(2, 2, 3, 5), draw(2, 2, 3, 5)],
        "attention.forward_32_boolean",
    ),
    "self_attention": (
        lambda x: tl.self_attention(x, 2, is_causal=True),
        [draw(2, 3, 24)],
        "attention.forward_32_plain",
    ),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_use_the_kernels(name: str, launched: list[str]) -> None:
    f, arrays, kernel = OPERATIONS[name]
    here = [tl.tensor(a, dtype=np.float64, requires_grad=True) for a in arrays]
    there = [tl.tensor(a, requires_grad=True).to("cuda") for a in arrays]
    y = f(*here)
    with device.no_copies():
        z = f(*there)
        assert z.device == "cuda"
        assert all(type(node.out.array) is Foreign for node in reachable(z) if node.op.name != "to")
        g = np.asarray(rng.normal(size=y.shape))
        tl.sum(z * tl.tensor(g.astype(np.float32)).to("cuda")).backward()
    y.backward(g)
    assert any(n.startswith(kernel) for n in launched)
    np.testing.assert_allclose(z.numpy(), y.numpy(), rtol=1e-4, atol=1e-5)
    moved = [tl.tensor(a) for a in arrays]
    for t in moved:
        t.requires_grad = True
    tl.sum(f(*[t.to("cuda") for t in moved]) * tl.tensor(g.astype(np.float32)).to("cuda")).backward()
    for a, b in zip(here, moved, strict=True):
        assert b.grad.device == "cpu"  # the gradient came back
        np.testing.assert_allclose(b.grad.numpy(), a.grad.numpy(), rtol=1e-3, atol=1e-4)


def test_what_kernels_do_not_do_is_done_without(launched: list[str]) -> None:
    x = tl.tensor(draw(2, 3)).astype(np.float64).to("cuda")
    assert tl.softmax(x).device == "cuda"
    with tl.random_scope(0):
        q = tl.tensor(draw(1, 3, 4)).to("cuda")
        tl.scaled_dot_product_attention(q, q, q, dropout_p=0.5)
    with tl.backend("numpy"):
        tl.softmax(q)
    assert launched == []


def test_silent_copies_raise_where_they_are_forbidden() -> None:
    x = tl.tensor(draw(3)).to("cuda")
    asked = {
        "bool": lambda: bool(x[0] > 0),
        "float": lambda: float(x[0]),
        "int": lambda: int(x[0]),
        "repr": lambda: repr(x),
        "numpy.array": lambda: np.array(x),
        "copied to the GPU": lambda: x * draw(3),
    }
    for words, f in asked.items():
        f()
        with device.no_copies(), pytest.raises(DeviceError, match=words.replace("(", r"\(")):
            f()
    with device.no_copies():  # said, or inputs, or numbers
        assert x.numpy().shape == (3,)
        assert isinstance(x[0].item(), float)
        assert (2 * x + 1).to("cpu").device == "cpu"
        tl.where(np.array([True, False, True]), x, 0.0)


def test_a_module_moves_with_its_gradients() -> None:
    layer = tl.nn.Linear(3, 2, rng=np.random.default_rng(0))
    x = tl.tensor(draw(4, 3))
    before = layer(x).numpy()
    tl.sum(layer(x)).backward()
    assert layer.to("cuda") is layer
    assert {p.device for p in layer.parameters()} == {p.grad.device for p in layer.parameters()} == {"cuda"}
    np.testing.assert_allclose(layer(x.to("cuda")).numpy(), before, rtol=1e-6)
    layer.to("cpu")
    np.testing.assert_array_equal(layer(x).numpy(), before)


def tiny_gpt() -> Any:
    config = tl.models.GPTConfig(n_layer=1, n_head=2, n_embd=8, n_positions=4, vocab_size=7)
    return tl.models.GPT(config, rng=np.random.default_rng(1))


def test_a_gpt_trains_without_silent_copies(launched: list[str]) -> None:
    losses = []
    for where in ("cpu", "cuda"):
        model = tiny_gpt().to(where)
        optimizer = tl.optim.AdamW(model.parameters(), lr=1e-2)
        found = []
        for step in range(2):
            ids = np.random.default_rng(step).integers(7, size=(2, 4))
            with device.no_copies():
                loss = model.loss({"input_ids": ids, "labels": ids})
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
            found.append(loss.item())
        losses.append(found)
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)
    for kernel in ("attention.forward_32_plain", "attention.keys_32_plain", "norm.layer_norm_vjp_kernel", "adamw"):
        assert any(name.startswith(kernel) for name in launched), kernel


def test_unknown_device() -> None:
    with pytest.raises(DeviceError, match="unknown device 'gpu'"):
        tl.tensor(draw(1)).to("gpu")


def test_training_on_a_gpu_and_going_on_with_it(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("abcab bcabc cabca abcca " * 40, encoding="utf-8")
    small = {"n_layer": 1, "n_head": 2, "n_embd": 8, "block_size": 4, "batch_size": 2, "steps": 2, "eval_every": 1}
    small |= {"data": str(text), "eval_windows": 1, "sample_tokens": 0, "held_out": 0.02, "lr": 1e-2, "threads": 1}
    found = {}
    for where in ("cpu", "cuda"):
        settings = Settings.make(small | {"device": where})
        job = prepare_job(settings)
        trainer = run.make_trainer(job, tmp_path / where)
        (tmp_path / where).mkdir()
        trainer.step()
        trainer.save()
        trainer.step()
        found[where] = {name: p.numpy() for name, p in job.model.named_parameters()}
        assert {p.device for p in job.model.parameters()} == {where}
        again = prepare_job(settings)
        trainer = run.make_trainer(again, tmp_path / where)
        trainer.resume(checkpoint.load(tmp_path / where / checkpoint.FILE))
        trainer.step()
        for name, p in again.model.named_parameters():
            np.testing.assert_array_equal(p.numpy(), found[where][name])
    for name, value in found["cpu"].items():
        np.testing.assert_allclose(found["cuda"][name], value, rtol=1e-3, atol=1e-4)
