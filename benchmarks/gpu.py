"""The CUDA kernels on a GPU: right first, then how fast, against what the machine and the field can do.

    python benchmarks/gpu.py            # under eight minutes; writes gpu.json and gpu.md beside this file

Memory-bound kernels are set against the bandwidth of a copy, by the bytes that they cannot avoid to move; products of
matrices against cuBLAS; attention against CuPy without fusion; everything against PyTorch, where it is installed. Times
are medians between events on the device; arrays are far larger than its caches. Where there is no GPU, nothing is
measured, and nothing is written.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests" / "cuda"))

Step = Callable[[], Any]


class Row(NamedTuple):
    """One line of the table; what was not measured is None."""

    kernel: str
    size: str
    milliseconds: float
    amount: str  # GB/s or TFLOP/s
    of_limit: float | None  # share of the copy's bandwidth, or of cuBLAS's speed
    cupy: float | None  # how many times faster than CuPy
    torch: float | None  # and than PyTorch


class Bench:
    """Times steps on the device, and keeps the rows."""

    def __init__(self, xp: Any, torch: Any, seconds: float) -> None:
        self.xp, self.torch, self.seconds = xp, torch, seconds
        self.rows: list[Row] = []
        self.copy = self.copy_bandwidth()

    def time(self, step: Step) -> float:
        """Median milliseconds between events around a step."""
        event = self.xp.cuda.Event
        for _ in range(3):
            step()
        self.xp.cuda.Device().synchronize()
        times: list[float] = []
        end = time.perf_counter() + self.seconds
        while len(times) < 5 or (time.perf_counter() < end and len(times) < 200):
            begin, finish = event(), event()
            begin.record()
            step()
            finish.record()
            finish.synchronize()
            times.append(self.xp.cuda.get_elapsed_time(begin, finish))
        return statistics.median(times)

    def copy_bandwidth(self) -> float:
        """Bytes per second that a copy reads and writes."""
        a = self.xp.ones(2**27, np.float32)
        b = self.xp.empty_like(a)
        return 2 * a.nbytes / (1e-3 * self.time(lambda: self.xp.copyto(b, a)))

    def memory(self, name: str, size: str, moved: int, ours: Step, cupy: Step | None, torch: Step | None) -> None:
        """A kernel that is bound by the `moved` bytes."""
        ms = self.time(ours)
        rate = moved / (1e-3 * ms)
        self.add(name, size, ms, f"{rate / 1e9:.0f} GB/s", rate / self.copy, cupy, torch)

    def arithmetic(
        self, name: str, size: str, work: float, ours: Step, limit: Step | None, cupy: Step | None, torch: Step | None
    ) -> None:
        """A kernel that is bound by its `work` floating-point operations."""
        ms = self.time(ours)
        share = self.time(limit) / ms if limit else None
        self.add(name, size, ms, f"{work / ms / 1e9:.1f} TFLOP/s", share, cupy, torch)

    def add(
        self, name: str, size: str, ms: float, amount: str, share: float | None, cupy: Step | None, torch: Step | None
    ) -> None:
        """One more row, said at once."""
        others = [self.time(step) / ms if step else None for step in (cupy, torch)]
        self.rows.append(Row(name, size, ms, amount, share, *others))
        print(line(self.rows[-1]), flush=True)


# -- the kernels -------------------------------------------------------------------------------------------------------


def check(xp: Any) -> int:
    """Every kernel against float64, at sizes that fill many tiles; how many calls were checked."""
    import cuda_cases as cases

    draw = cases.Draw(int(time.time()))
    makers = [
        cases.softmax_cases(draw, 257, 1031),
        cases.norm_cases(draw, 1021, 771),
        cases.cross_entropy_cases(draw, 129, 5003),
        cases.embedding_cases(draw, 1031, 257, 65),
        cases.activation_cases(draw, 511, 771),
        cases.adamw_cases(draw, 100_003),
        cases.matmul_cases(draw, 259, 517, 131),
        cases.attention_cases(draw, cases.Attention(4, 2, 257, 259, 64, offset=2)),
        cases.attention_cases(draw, cases.Attention(2, 2, 131, 131, 128, mask="added")),
        cases.attention_cases(draw, cases.Attention(2, 2, 131, 131, 32, mask="boolean")),
    ]
    count = 0
    for maker in makers:
        for case in maker:
            cases.run(case, xp.asarray, xp.asnumpy)
            count += 1
    return count


def tensors(torch: Any, *arrays: Any, grad: bool = False) -> list[Any]:
    """The same memory as PyTorch sees it."""
    return [torch.from_dlpack(a).requires_grad_(grad) for a in arrays]


def rows(bench: Bench, R: int, C: int) -> None:
    """Softmax and the norms."""
    from tinyllm.kernels.cuda import norm, softmax

    xp, torch = bench.xp, bench.torch
    x, g = (xp.random.standard_normal((R, C), dtype=np.float32) for _ in range(2))
    out, weight, bias = xp.empty_like(x), xp.ones(C, np.float32), xp.zeros(C, np.float32)
    mean, rstd, dweight, dbias = (xp.empty(n, np.float32) for n in (R, R, C, C))
    n, size = x.nbytes, f"{R} x {C}"

    def unfused_softmax() -> Any:
        e = xp.exp(x - x.max(axis=1, keepdims=True))
        return e / e.sum(axis=1, keepdims=True)

    def unfused_norm() -> Any:
        centred = x - x.mean(axis=1, keepdims=True)
        return centred / xp.sqrt((centred * centred).mean(axis=1, keepdims=True) + 1e-5) * weight + bias

    there: dict[str, Step] = {}
    if torch:
        f = torch.nn.functional
        tx, tg, tw, tb = tensors(torch, x, g, weight, bias)
        y = torch.softmax(tx, -1)
        _, m, r = torch.native_layer_norm(tx, (C,), tw, tb, 1e-5)
        there = {
            "softmax": lambda: torch.softmax(tx, -1),
            "softmax_vjp": lambda: torch.ops.aten._softmax_backward_data(tg, y, -1, torch.float32),
            "log_softmax": lambda: torch.log_softmax(tx, -1),
            "layer_norm": lambda: f.layer_norm(tx, (C,), tw, tb),
            "layer_norm_vjp": lambda: torch.ops.aten.native_layer_norm_backward(tg, tx, (C,), m, r, tw, tb, [True] * 3),
            "rms_norm": lambda: f.rms_norm(tx, (C,), tw),
        }
    norm.layer_norm(x, weight, bias, 1e-5, out, mean, rstd)
    for name, moved, ours, cupy in (
        ("softmax", 2 * n, lambda: softmax.softmax(x, out), unfused_softmax),
        ("softmax_vjp", 3 * n, lambda: softmax.softmax_vjp(g, x, out), None),
        ("log_softmax", 2 * n, lambda: softmax.log_softmax(x, out), None),
        ("log_softmax_vjp", 3 * n, lambda: softmax.log_softmax_vjp(g, x, out), None),
        ("layer_norm", 2 * n, lambda: norm.layer_norm(x, weight, bias, 1e-5, out, mean, rstd), unfused_norm),
        (
            "layer_norm_vjp",
            3 * n,
            lambda: norm.layer_norm_vjp(g, x, weight, mean, rstd, out, dweight, dbias),
            None,
        ),
        ("rms_norm", 2 * n, lambda: norm.rms_norm(x, weight, 1e-5, out, rstd), None),
        ("rms_norm_vjp", 3 * n, lambda: norm.rms_norm_vjp(g, x, weight, rstd, out, dweight), None),
    ):
        bench.memory(name, size, moved, ours, cupy, there.get(name))


def losses(bench: Bench, N: int, V: int) -> None:
    """Cross-entropy."""
    from tinyllm.kernels.cuda import cross_entropy as kernels

    xp, torch = bench.xp, bench.torch
    logits = xp.random.standard_normal((N, V), dtype=np.float32)
    target = xp.random.randint(0, V, N).astype(np.int64)
    weight, out = xp.ones(V, np.float32), xp.empty_like(logits)
    loss, lse, g = xp.empty(N, np.float32), xp.empty(N, np.float32), xp.full(N, 1 / N, np.float32)
    n, size = logits.nbytes, f"{N} x {V}"
    forward = None
    if torch:
        tl, tt = tensors(torch, logits, target)
        forward = lambda: torch.nn.functional.cross_entropy(tl, tt)  # noqa: E731
    given = (logits, target, weight, 0.0, -100)
    bench.memory("cross_entropy", size, n, lambda: kernels.cross_entropy(*given, loss, lse), None, forward)
    bench.memory("cross_entropy_vjp", size, 2 * n, lambda: kernels.cross_entropy_vjp(g, *given, lse, out), None, None)
    bench.memory(
        "cross_entropy_in_place",
        size,
        2 * n,
        lambda: kernels.cross_entropy_in_place(logits, target, 0.0, -100, 1.0, loss),
        None,
        None,
    )


def elements(bench: Bench, R: int, C: int) -> None:
    """Activations, AdamW, embedding."""
    from tinyllm.kernels.cuda import activation, adamw, embedding

    xp, torch = bench.xp, bench.torch
    x, g, up, out, out2 = (xp.random.standard_normal((R, C), dtype=np.float32) for _ in range(5))
    bias, dbias, dbias2 = (xp.zeros(C, np.float32) for _ in range(3))
    flat, flat_g, flat_up, flat_out, flat_out2 = (a.reshape(-1) for a in (x, g, up, out, out2))
    n, size = x.nbytes, f"{R} x {C}"
    there: dict[str, Step] = {}
    if torch:
        f = torch.nn.functional
        tx, tg = tensors(torch, x, g)
        there = {
            "gelu_erf": lambda: f.gelu(tx),
            "gelu_erf_vjp": lambda: torch.ops.aten.gelu_backward(tg, tx),
            "gelu_tanh": lambda: f.gelu(tx, approximate="tanh"),
            "gelu_tanh_vjp": lambda: torch.ops.aten.gelu_backward(tg, tx, approximate="tanh"),
            "silu": lambda: f.silu(tx),
            "silu_vjp": lambda: torch.ops.aten.silu_backward(tg, tx),
        }
    for name in ("gelu_erf", "gelu_tanh", "silu"):
        forward, backward = getattr(activation, name), getattr(activation, f"{name}_vjp")
        bias_forward, bias_backward = getattr(activation, f"bias_{name}"), getattr(activation, f"bias_{name}_vjp")
        bench.memory(name, size, 2 * n, lambda f=forward: f(flat, flat_out), None, there.get(name))
        bench.memory(
            f"{name}_vjp", size, 3 * n, lambda f=backward: f(flat_g, flat, flat_out), None, there.get(f"{name}_vjp")
        )
        bench.memory(f"bias_{name}", size, 2 * n, lambda f=bias_forward: f(x, bias, out), None, None)
        bench.memory(f"bias_{name}_vjp", size, 3 * n, lambda f=bias_backward: f(g, x, bias, out, dbias), None, None)
    bench.memory("swiglu", size, 3 * n, lambda: activation.swiglu(flat, flat_up, flat_out), None, None)
    bench.memory(
        "swiglu_vjp", size, 5 * n, lambda: activation.swiglu_vjp(flat_g, flat, flat_up, flat_out, flat_out2), None, None
    )

    biases = bias, bias
    bench.memory("bias_swiglu", size, 3 * n, lambda: activation.bias_swiglu(x, up, *biases, out), None, None)
    bench.memory(
        "bias_swiglu_vjp",
        size,
        5 * n,
        lambda: activation.bias_swiglu_vjp(g, x, up, *biases, out, out2, dbias, dbias2),
        None,
        None,
    )

    square = xp.abs(flat_out2)
    numbers = (1e-3, 0.9, 0.95, 1e-8, 0.1, 0.1, 0.05)
    fused = None
    if torch:
        p = tensors(torch, flat.copy())[0]
        p.grad = tensors(torch, flat_g)[0]
        optimizer = torch.optim.AdamW([p], fused=True)
        fused = optimizer.step
    ours = lambda: adamw.adamw(flat, flat_g, flat_up, square, *numbers)  # noqa: E731
    bench.memory("adamw", f"{flat.size}", 7 * n, ours, None, fused)
    total = xp.empty(1, np.float64)
    bench.memory(
        "sum_of_squares",
        f"{flat.size}",
        n,
        lambda: adamw.sum_of_squares(flat, total),
        lambda: xp.vdot(flat, flat),
        None,
    )

    V = min(50257, 4 * R)
    table, ids = xp.empty((V, C), np.float32), xp.random.randint(0, V, R).astype(np.int64)
    for function in (embedding.embedding_vjp, embedding.embedding_vjp_atomic):
        bench.memory(
            function.__name__, f"{R} x {C} into {V}", n + table.nbytes, lambda f=function: f(g, ids, table), None, None
        )


def products(bench: Bench, n: int) -> None:
    """The ladder of matrix products."""
    from tinyllm.kernels.cuda import matmul

    xp, torch = bench.xp, bench.torch
    a, b, out = (xp.random.standard_normal((n, n), dtype=np.float32) for _ in range(3))
    there: dict[str, Step] = {}
    if torch:
        ta, tb = tensors(torch, a, b)
        ha, hb = ta.bfloat16(), tb.bfloat16()

        def with_tf32(allowed: bool) -> Any:
            torch.backends.cuda.matmul.allow_tf32 = allowed
            return torch.mm(ta, tb)

        there = dict.fromkeys(matmul.RUNGS, lambda: with_tf32(False))
        there |= {"tf32": lambda: with_tf32(True), "bf16": lambda: torch.mm(ha, hb)}
    for rung in matmul.RUNGS:
        exact = rung not in ("tf32", "bf16")
        limit = (lambda: xp.matmul(a, b, out=out)) if exact else there.get(rung)
        bench.arithmetic(
            f"matmul {rung}",
            f"{n}^3",
            2 * n**3,
            lambda rung=rung: matmul.matmul(a, b, out, rung),
            limit,
            None,
            there.get(rung),
        )


def attentions(bench: Bench, H: int, T: int, D: int) -> None:
    """Attention, causal."""
    from tinyllm.kernels.cuda import attention

    xp, torch = bench.xp, bench.torch
    q, k, v, g, out, dq, dk, dv = (xp.random.standard_normal((H, T, D), dtype=np.float32) for _ in range(8))
    lse = xp.empty((H, T), np.float32)
    scale, visible = 1 / math.sqrt(D), xp.tri(T, dtype=bool)

    def forward() -> None:
        attention.attention(q, k, v, scale, 0, None, None, out, lse)

    def both(deterministic: bool) -> None:
        forward()
        attention.attention_vjp(g, q, k, v, scale, 0, None, None, out, lse, dq, dk, dv, deterministic)

    def unfused(backward: bool) -> None:
        s = xp.where(visible, scale * (q @ k.swapaxes(1, 2)), -np.inf)
        e = xp.exp(s - s.max(axis=2, keepdims=True))
        p = e / e.sum(axis=2, keepdims=True)
        y = p @ v
        if backward:
            dp = g @ v.swapaxes(1, 2)
            ds = p * (dp - (g * y).sum(axis=2, keepdims=True)) * scale
            ds @ k, ds.swapaxes(1, 2) @ q, p.swapaxes(1, 2) @ g

    sdpa, sdpa_both = None, None
    if torch:
        f = torch.nn.functional
        torch.backends.cuda.matmul.allow_tf32 = False
        tq, tk, tv = (t.unsqueeze(0).detach().requires_grad_() for t in tensors(torch, q, k, v))
        tg = tensors(torch, g)[0].unsqueeze(0)

        def sdpa() -> None:
            with torch.no_grad():
                f.scaled_dot_product_attention(tq, tk, tv, is_causal=True)

        def sdpa_both() -> None:
            y = f.scaled_dot_product_attention(tq, tk, tv, is_causal=True)
            torch.autograd.grad(y, (tq, tk, tv), tg)

    size, work = f"H {H} T {T} D {D} causal", 2.0 * H * T * T * D  # two products of which half is visible
    bench.arithmetic("attention", size, work, forward, None, lambda: unfused(False), sdpa)
    for name, deterministic in (("deterministic", True), ("atomic", False)):
        bench.arithmetic(
            f"attention + vjp, {name}",
            size,
            3.5 * work,
            lambda d=deterministic: both(d),
            None,
            lambda: unfused(True),
            sdpa_both,
        )


def launch_overhead(xp: Any) -> dict[str, float]:
    """Microseconds that the host needs for a launch, its arrays included."""
    from tinyllm.kernels.cuda import activation

    x = xp.ones(4, np.float32)
    out = xp.empty_like(x)
    found = {}
    for name, step in (("tinyllm", lambda: activation.silu(x, out)), ("CuPy", lambda: xp.negative(x, out=out))):
        times = []
        for _ in range(50):
            step()
        for _ in range(20):
            xp.cuda.Device().synchronize()
            begin = time.perf_counter()
            for _ in range(100):
                step()
            times.append((time.perf_counter() - begin) * 1e4)
        found[name] = statistics.median(times)
    return found


# -- the table ---------------------------------------------------------------------------------------------------------

HEAD = "| kernel | size | ms | rate | of copy or cuBLAS | x CuPy | x PyTorch |\n|---|---|---|---|---|---|---|"


def line(row: Row) -> str:
    """A row in Markdown."""
    share = "" if row.of_limit is None else f"{100 * row.of_limit:.0f}%"
    others = ["" if x is None else f"{x:.2f}" for x in (row.cupy, row.torch)]
    return "| " + " | ".join([row.kernel, row.size, f"{row.milliseconds:.3f}", row.amount, share, *others]) + " |"


def main() -> int:
    """Check, measure, write; 2 where there is no GPU."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seconds", type=float, default=1.0, help="for each time, of which there are some hundred")
    parser.add_argument("--out", type=Path, default=HERE, help="the folder for gpu.json and gpu.md")
    arguments = parser.parse_args()
    from tinyllm.errors import DeviceError
    from tinyllm.kernels.cuda.compile import require_gpu

    try:
        require_gpu()
    except DeviceError as error:
        print(f"nothing was measured: {error}", file=sys.stderr)
        return 2
    import cupy

    try:
        import torch

        torch = torch if torch.cuda.is_available() else None
    except ImportError:
        torch = None

    begin = time.perf_counter()
    checked = check(cupy)
    device = cupy.cuda.runtime.getDeviceProperties(0)["name"].decode()
    bench = Bench(cupy, torch, arguments.seconds)
    overhead = launch_overhead(cupy)
    peer = torch.__version__ if torch else "absent"
    head = [
        f"{device}, {datetime.date.today()}; CuPy {cupy.__version__}, PyTorch {peer}",
        f"{checked} calls of kernels checked against float64; copy {bench.copy / 1e9:.0f} GB/s; "
        + ", ".join(f"a launch costs {name} {us:.1f} us" for name, us in overhead.items()),
        "",
        HEAD,
    ]
    print("\n".join(head), flush=True)
    rows(bench, 32768, 1024)
    losses(bench, 4096, 50257)
    elements(bench, 16384, 3072)
    products(bench, 4096)
    attentions(bench, 16, 2048, 64)
    attentions(bench, 16, 2048, 128)
    table = "\n".join([*head, *map(line, bench.rows)]) + "\n"
    found = {
        "device": device,
        "date": str(datetime.date.today()),
        "seconds": round(time.perf_counter() - begin),
        "calls_checked": checked,
        "copy_bytes_per_second": bench.copy,
        "launch_microseconds": overhead,
        "rows": [row._asdict() for row in bench.rows],
    }
    (arguments.out / "gpu.md").write_text(table, encoding="utf-8")
    (arguments.out / "gpu.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
