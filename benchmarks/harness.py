"""What every benchmark shares: sides that run in alternating processes, the machine and its limits, the report."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import tinyllm as tl
from tinyllm.profile.limits import Limits, median_time

Step = Callable[[], Any]
OURS = "tinyllm"


class Absent(Exception):
    """A peer cannot be measured here; the message says why."""


def peer(package: str) -> Any:
    """A peer's package, imported.

    Raises
    ------
    Absent
        If it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError:
        raise Absent(f"{package} is not installed") from None


def machine() -> dict[str, Any]:
    """The processor, the system and the versions that a figure belongs to."""
    model = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo") as lines:
            model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)
    except OSError:
        pass
    versions = {"python": platform.python_version()}
    for package in ("numpy", "numba", "torch", "jax"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "absent"
    return {"processor": model, "cores": os.cpu_count(), "system": platform.system(), "versions": versions}


# -- options and processes ---------------------------------------------------------------------------------------------


def options_of(description: str, rounds: int = 3, threads: int = 2) -> argparse.ArgumentParser:
    """The options that every benchmark understands."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=threads, help=f"of either side (default: {threads})")
    parser.add_argument("--rounds", type=int, default=rounds, help=f"processes of each side (default: {rounds})")
    parser.add_argument("--quick", action="store_true", help="end within 45 s")
    parser.add_argument("--json", action="store_true", help="print one object instead of a table")
    parser.add_argument("--worker", nargs="*", help=argparse.SUPPRESS)
    return parser


def in_process(
    script: str, *worker: str, threads: int, quick: bool = False, environment: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The object that ``script --worker ...`` prints last, in a process of its own.

    Raises
    ------
    Absent
        If the object says that something is absent.
    """
    done = subprocess.run(
        [sys.executable, script, "--threads", str(threads), *["--quick"] * quick, "--worker", *worker],
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(worker)} failed:\n{done.stderr}")
    result = json.loads(done.stdout.splitlines()[-1])
    if "absent" in result:
        raise Absent(result["absent"])
    return result


def peak_growth(step: Step) -> int | None:
    """By how many bytes the memory of this process exceeds, at its peak within the step, what it was before."""
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")  # the peak begins anew
    except OSError:
        return None
    before = current_memory()
    step()
    return current_memory("VmHWM") - before


def current_memory(name: str = "VmRSS") -> int:
    """Bytes of memory that this process holds; ``"VmHWM"``: at its peak (Linux)."""
    with open("/proc/self/status") as lines:
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith(name + ":"))


def say(text: str) -> None:
    """Progress, on standard error."""
    print(text, file=sys.stderr, flush=True)


# -- one piece of work, several sides ----------------------------------------------------------------------------------


@dataclass
class Case:
    """A piece of work: its size, the least that it has to do, and who does it.

    Parameters
    ----------
    work : str
        What it is.
    size : dict
        What the sides are called with.
    flops, bytes : float
        For the share of the machine's limit.
    peers : sequence of str
        The sides that it is held against.
    seconds : float
        How long a process measures it.
    """

    work: str
    size: dict[str, Any]
    flops: float
    bytes: float
    peers: Sequence[str]
    seconds: float = 3.0


def measure(step: Step | tuple[Step, float], seconds: float) -> float:
    """The median duration of a step, after some that warm up; times a number, where the step is a sample."""
    step, times = step if isinstance(step, tuple) else (step, 1.0)
    return times * median_time(step, seconds, warm=2)


def compare(
    script: str,
    cases: Mapping[str, Case],
    options: argparse.Namespace,
    limits: Limits,
    together: bool = False,
) -> Report:
    """Measure each case on tinyllm and its peers, every side in processes of its own, in turn.

    Where the cases are measured `together`, a process of a side goes through all of them.
    """
    report = Report(script, options.threads, limits)
    times: dict[tuple[str, str], list[float]] = {}
    absent: set[str] = set()
    for names in [list(cases)] if together else [[name] for name in cases]:
        sides = dict.fromkeys([OURS, *(peer for name in names for peer in cases[name].peers)])
        for round_ in range(options.rounds):
            for side in [side for side in sides if side not in absent]:
                mine = [name for name in names if side in (OURS, *cases[name].peers)]
                what = mine[0] if len(mine) == 1 else f"{len(mine)} cases"
                say(f"{side}: {what} (process {round_ + 1} of {options.rounds})")
                try:
                    found = in_process(script, side, *mine, threads=options.threads, quick=options.quick)
                except Absent as reason:
                    report.note(f"{side}: skipped, {reason}")
                    absent.add(side)
                    continue
                for name, seconds in found.items():
                    times.setdefault((name, side), []).append(seconds)
    for name, case in cases.items():
        for side in case.peers:
            if (name, side) in times:
                report.add(case.work, side, times[name, OURS], times[name, side], case.flops, case.bytes)
    return report


def work(sides: Mapping[str, Callable[..., Step]], cases: Mapping[str, Case], options: argparse.Namespace) -> None:
    """Be a worker process of `compare`: measure one side in some cases, and print the seconds of each.

    A side is called with the number of threads and the case's size, and gives the step that is measured.
    """
    side, *names = options.worker
    tl.set_num_threads(options.threads)
    try:
        found = {name: measure(sides[side](options.threads, **cases[name].size), cases[name].seconds) for name in names}
    except Absent as reason:
        found = {"absent": str(reason)}
    print(json.dumps(found))


# -- the report --------------------------------------------------------------------------------------------------------


@dataclass
class Report:
    """Rows of figures, each with its peer, and the limits that were measured beside them."""

    script: str
    threads: int
    limits: Limits
    rows: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(
        self,
        work: str,
        peer: str | None,
        ours: Sequence[float],
        theirs: Sequence[float] = (),
        flops: float = 0.0,
        nbytes: float = 0.0,
        **more: Any,
    ) -> None:
        """A row: seconds of each process of either side, and what the work has to do at the least."""
        mine = statistics.median(ours)
        other = statistics.median(theirs) if theirs else None
        self.rows.append(
            {
                "work": work,
                "peer": peer,
                "ours_s": mine,
                "peer_s": other,
                "ratio": other / mine if other else None,
                "limit_share": self.limits.shortest(flops, nbytes) / mine if flops or nbytes else None,
                "ours_range_s": [min(ours), max(ours)],
                "peer_range_s": [min(theirs), max(theirs)] if theirs else None,
                **more,
            }
        )

    def add_bytes(self, work: str, peer: str, ours: int | None, theirs: int | None = None, **more: Any) -> None:
        """A row of memory: the ratio is above 1 where tinyllm takes less."""
        if ours is None:
            self.note("memory: skipped, the system does not tell the peak of a process")
            return
        figures = {"work": work, "peer": peer if theirs else None, "ours_s": None, "peer_s": None, "limit_share": None}
        ratio = theirs / max(1, ours) if theirs else None
        self.rows.append(figures | {"ratio": ratio, "ours_bytes": ours, "peer_bytes": theirs, **more})

    def note(self, text: str) -> None:
        """Something that a reader of the figures has to know; said once."""
        if text not in self.notes:
            self.notes.append(text)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "benchmark": os.path.basename(self.script),
            "date": time.strftime("%Y-%m-%d"),
            "machine": machine(),
            "threads": self.threads,
            "sgemm_flops": self.limits.flops,
            "copy_bytes": self.limits.bytes,
            "rows": self.rows,
            "notes": self.notes,
        }

    def print(self, as_json: bool) -> None:
        """One object, or a table."""
        if as_json:
            print(json.dumps(self.as_dict()))
            return
        about = machine()
        versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
        print(f"{about['processor']}, {about['cores']} cores, {about['system']}; {plural(self.threads)}; {versions}")
        print(
            f"limits measured now: sgemm {self.limits.flops / 1e9:.0f} GFLOP/s, copy {self.limits.bytes / 1e9:.1f} GB/s"
        )
        print("medians of processes [their range]; ratio above 1: tinyllm is faster\n")
        table = [("work", "tinyllm", "peer", "", "ratio", "of the limit"), *map(cells, self.rows)]
        widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
        for row in table:
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        for note in self.notes:
            print(f"- {note}")


def plural(threads: int) -> str:
    """Threads, counted."""
    return f"{threads} thread{'s' * (threads > 1)}"


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    """A row as text: work, ours, the peer's name, theirs, ratio, share of the limit."""
    ours, theirs = (_figure(row, side) for side in ("ours", "peer"))
    ratio = "-" if row["ratio"] is None else f"{row['ratio']:.2f}"
    share = "-" if row["limit_share"] is None else f"{row['limit_share']:.0%}"
    return row["work"], ours, row["peer"] or "-", theirs, ratio, share


def _figure(row: dict[str, Any], side: str) -> str:
    if row[f"{side}_s"] is not None:
        return spread(row[f"{side}_s"], row[f"{side}_range_s"])
    return "-" if row.get(f"{side}_bytes") is None else f"{row[f'{side}_bytes'] / 2**20:,.0f} MiB"


def spread(middle: float, ends: Sequence[float]) -> str:
    """A median and the range around it, in a unit that suits them."""
    unit, factor = next(
        (u, f) for u, f in (("s", 1.0), ("ms", 1e3), ("us", 1e6), ("ns", 1e9)) if middle * f >= 1 or f == 1e9
    )
    low, high = ends
    digits = 0 if middle * factor >= 100 else 1 if middle * factor >= 10 else 2
    text = f"{middle * factor:.{digits}f} {unit}"
    return text if low == high else f"{text} [{low * factor:.{digits}f}, {high * factor:.{digits}f}]"
