"""The memory of a training step at its peak, against PyTorch; and whether it grows.

    python benchmarks/memory.py                 # three sizes, with and without activation checkpointing
    python benchmarks/memory.py --minutes 30    # and how much more is held after so many minutes of training
    python benchmarks/memory.py --quick         # the small model, within 45 s

Every figure is of a process of its own: the resident memory at its peak, less what it was when everything was imported.
"""

from __future__ import annotations

import json
import statistics
import time

from harness import OURS, Absent, Report, Step, current_memory, in_process, options_of, peak_growth, peer, say
from train_step import SIZES, trainer

import tinyllm as tl
from tinyllm.profile import Limits

TORCH = "PyTorch eager"


def ours(size: dict[str, int], threads: int, checkpoint: bool) -> Step:
    """A step of tinyllm's Trainer."""
    made = trainer(size)
    made.model.transformer.checkpoint_blocks = checkpoint
    return made.step


def pytorch(size: dict[str, int], threads: int, checkpoint: bool) -> Step:
    """The same step in PyTorch."""
    peer("torch")
    from gpt_torch import training_step

    return training_step(size, threads, compiled=False, checkpoint=checkpoint)


SIDES = {OURS: ours, TORCH: pytorch}
TINY = {"layers": 1, "heads": 2, "channels": 64, "time": 64, "batch": 8, "vocab": 65}


def peak(side: str, size: str, checkpoint: bool, threads: int) -> None:
    """Print the peak that a model and four of its steps add to a process, and the median time of the last three."""
    SIDES[side](TINY, threads, checkpoint)()  # imports, and compiles kernels
    times: list[float] = []

    def train() -> None:
        step = SIDES[side](SIZES[size], threads, checkpoint)
        for _ in range(4):
            begin = time.perf_counter()
            step()
            times.append(time.perf_counter() - begin)

    print(json.dumps({"bytes": peak_growth(train), "seconds": statistics.median(times[1:])}))


def growth(size: str, minutes: float) -> None:
    """Print the memory that is held after a tenth of the time, and after all of it."""
    step, end = trainer(SIZES[size]).step, time.monotonic() + 60 * minutes
    while time.monotonic() < end - 54 * minutes:
        step()
    early, steps = current_memory(), 0
    while time.monotonic() < end:
        step()
        steps += 1
    print(json.dumps({"early": early, "late": current_memory(), "steps": steps}))


def peaks(report: Report, sizes: list[str], threads: int) -> None:
    """A row for each size, with and without computing the blocks again in backward."""
    for name in sizes:
        size = SIZES[name]
        about = f"{size['layers']} layers, C={size['channels']}, T={size['time']}, B={size['batch']}, V={size['vocab']}"
        for checkpoint in (False, True):
            say(f"{name}{', checkpointed' * checkpoint}")
            found = {}
            for side in SIDES:
                try:
                    found[side] = in_process(__file__, side, name, "checkpoint" * checkpoint, threads=threads)
                except Absent as reason:
                    report.note(f"{side}: skipped, {reason}")
            mine, other = found[OURS], found.get(TORCH, {})
            work = f"peak memory of a training step, {about}{', blocks computed again in backward' * checkpoint}"
            seconds = {"ours_step_s": mine["seconds"], "peer_step_s": other.get("seconds")}
            report.add_bytes(work, TORCH, mine["bytes"], other.get("bytes"), **seconds)
            report.note(f"{work}: {1e3 * mine['seconds']:,.0f} ms a step")


def main() -> None:
    """Measure, and print a table or an object."""
    parser = options_of(__doc__)
    parser.add_argument("--minutes", type=float, default=2.0, help="of training, to see whether memory grows")
    options = parser.parse_args()
    tl.set_num_threads(options.threads)
    if options.worker:
        if options.worker[0] == "growth":
            growth("small", float(options.worker[1]))
        else:
            side, size, *checkpoint = options.worker
            peak(side, size, any(checkpoint), options.threads)
        return
    report = Report(__file__, options.threads, Limits.measure())
    peaks(report, ["small"] if options.quick else list(SIZES), options.threads)
    minutes = 0.1 if options.quick else options.minutes
    say(f"training for {minutes:g} minutes")
    held = in_process(__file__, "growth", str(minutes), threads=options.threads)
    work = f"memory held after {minutes:g} minutes of training, {held['steps']:,} steps (peer: after a tenth of them)"
    report.add_bytes(work, "the same run, earlier", held["late"], held["early"])
    report.print(options.json)


if __name__ == "__main__":
    main()
