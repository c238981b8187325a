"""`tinyllm proofs`: which derivative was held against `gradcheck`, on which backend, in which dtype, to which order."""

from __future__ import annotations

import json as encoder
import sys
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tinyllm.autograd import Tensor, backend
from tinyllm.autograd.tape import reachable
from tinyllm.testing.drawn import KINDS, drawn
from tinyllm.testing.gradcheck import gradcheck
from tinyllm.testing.mutants.cases import CASES, Case, operation, rows
from tinyllm.testing.mutants.jobs import Job, Line, Progress, done
from tinyllm.testing.report import GradCheckError
from tinyllm.threads import usable_cores

DTYPES, ORDERS = ("float64", "float32"), (1, 2)


class Proof(NamedTuple):
    """One cell of the table: an operation, how it was computed, and the complaint, empty where there is none."""

    op: str
    backend: str
    dtype: str
    order: int
    complaint: str


def run(
    ops: Sequence[str] | None = None,
    seed: int = 0,
    draws: int = len(KINDS),
    *,
    processes: int = 1,
    progress: Progress | None = None,
) -> list[Proof]:
    """Check every operation's derivative on each backend that has a kernel of its own for it.

    Parameters
    ----------
    ops : sequence of str, optional
        Rows of the table; all by default.
    seed : int
        Of shapes, inputs, cotangents and directions.
    draws : int
        Shapes for each operation, beside those of the table of cases: of each kind in turn (`drawn.KINDS`).
    processes, progress
        As in `jobs.done`.

    Raises
    ------
    ConfigError
        If there is no such operation.
    """
    jobs = [
        Job(row, prove, (row, kernel, dtype, seed, draws))
        for row in rows(ops)
        for kernel in _backends(CASES[row][0], operation(row), seed)
        for dtype in DTYPES
    ]
    return [proof for pair in done(jobs, processes, progress) for proof in pair]


def prove(row: str, kernel: str, dtype: str, seed: int, draws: int) -> list[Proof]:
    """The proofs of both orders, at the row's own cases and at drawn shapes."""
    at_second = _complaint(row, kernel, dtype, 2, seed, draws)
    # the second order is checked after the first, so there is nothing to repeat unless one of them fails
    at_first = _complaint(row, kernel, dtype, 1, seed, draws) if at_second else ""
    return [Proof(row, kernel, dtype, order, text) for order, text in zip(ORDERS, (at_first, at_second), strict=True)]


def _backends(case: Case, op: str, seed: int) -> list[str]:
    """The backends that compute the operation differently."""
    found = []
    for name in ("numpy", "numba"):
        with backend(name):
            inputs = [Tensor(x, requires_grad=True) for x in case.inputs(np.random.default_rng(seed))]
            kernels = {node.kernel for node in reachable(case.f(*inputs)) if node.op.name == op}
        if name == "numpy" or "numba" in kernels:
            found.append(name)
    return found


def _complaint(row: str, kernel: str, dtype: str, order: int, seed: int, draws: int) -> str:
    rng = np.random.default_rng(seed)
    points = [(case.f, case.inputs(rng)) for case in CASES[row]]
    points += [drawn(row, KINDS[k % len(KINDS)], np.random.default_rng([seed, k])) for k in range(draws)]
    with backend(kernel):
        for f, inputs in points:
            given = [x if dtype == "float64" else x.astype(dtype) for x in inputs]
            try:
                gradcheck(f, *given, order=order, seed=seed)
            except GradCheckError as error:
                return f"at shapes {', '.join(str(x.shape) for x in given)}: {error}"
    return ""


def main(json: bool = False, ops: Sequence[str] | None = None, seed: int = 0, draws: int = len(KINDS)) -> int:
    """Print the table, or one JSON object; the exit code is 0 if every derivative passed, else 1."""
    proofs = run(ops, seed, draws, processes=1 if ops else usable_cores(), progress=Line("proofs", "rules"))
    wrong = [p for p in proofs if p.complaint]
    if json:
        print(encoder.dumps({"proofs": [p._asdict() for p in proofs], "failed": len(wrong)}))
        return int(bool(wrong))
    width = max(len(p.op) for p in proofs)
    print(f"{'operation':{width}}  backend  " + "  ".join(f"{d} order {o}" for d in DTYPES for o in ORDERS))
    cells = {(p.op, p.backend, p.dtype, p.order): "FAILED" if p.complaint else "ok" for p in proofs}
    for op, kernel in dict.fromkeys((p.op, p.backend) for p in proofs):
        row = (cells[op, kernel, d, o].ljust(15) for d in DTYPES for o in ORDERS)
        print(f"{op:{width}}  {kernel:7}  {'  '.join(row)}".rstrip())
    for p in wrong:
        print(f"\n{p.op}, {p.backend}, {p.dtype}, order {p.order}:\n{p.complaint}", file=sys.stderr)
    print(f"\n{len(proofs) - len(wrong)} of {len(proofs)} checks passed (seed {seed}, {draws} drawn shapes each)")
    return int(bool(wrong))
