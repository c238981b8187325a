"""`tinyllm proofs`: which derivative was held against `gradcheck`, on which backend, in which dtype, to which order."""

from __future__ import annotations

import json as encoder
import sys
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tinyllm.autograd import Tensor, backend
from tinyllm.autograd.tape import reachable
from tinyllm.errors import ConfigError, nearest
from tinyllm.testing.gradcheck import gradcheck
from tinyllm.testing.mutants.cases import CASES, Case, operation
from tinyllm.testing.report import GradCheckError

DTYPES, ORDERS = ("float64", "float32"), (1, 2)


class Proof(NamedTuple):
    """One cell of the table: an operation, how it was computed, and the complaint, empty where there is none."""

    op: str
    backend: str
    dtype: str
    order: int
    complaint: str


def run(ops: Sequence[str] | None = None, seed: int = 0) -> list[Proof]:
    """Check every operation's derivative on each backend that has a kernel of its own for it.

    Parameters
    ----------
    ops : sequence of str, optional
        Rows of the table; all by default.
    seed : int
        Of inputs, cotangents and directions.

    Raises
    ------
    ConfigError
        If there is no such operation.
    """
    for name in ops or ():
        if name not in CASES:
            raise ConfigError(f"there is no operation {name!r} to check{nearest(name, CASES)}")
    rows = list(ops or CASES)
    proofs = []
    for i, row in enumerate(rows):
        if sys.stderr.isatty():
            print(f"\r{i}/{len(rows)} operations, {row:30}", end="", file=sys.stderr, flush=True)
        for kernel in _backends(CASES[row][0], operation(row), seed):
            for dtype in DTYPES:
                for order in ORDERS:
                    complaint = _complaint(CASES[row], kernel, dtype, order, seed)
                    proofs.append(Proof(row, kernel, dtype, order, complaint))
    if sys.stderr.isatty():
        print(file=sys.stderr)
    return proofs


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


def _complaint(cases: Sequence[Case], kernel: str, dtype: str, order: int, seed: int) -> str:
    rng = np.random.default_rng(seed)
    with backend(kernel):
        for case in cases:
            inputs = [x if dtype == "float64" else x.astype(dtype) for x in case.inputs(rng)]
            try:
                gradcheck(case.f, *inputs, order=order, seed=seed)
            except GradCheckError as error:
                return str(error)
    return ""


def main(json: bool = False, ops: Sequence[str] | None = None, seed: int = 0) -> int:
    """Print the table, or one JSON object; the exit code is 0 if every derivative passed, else 1."""
    proofs = run(ops, seed)
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
    print(f"\n{len(proofs) - len(wrong)} of {len(proofs)} checks passed (seed {seed})")
    return int(bool(wrong))
