"""A benchmark of sleeping: what `benchmarks/harness.py` is tested with."""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from harness import OURS, Absent, Case, compare, options_of, work

from tinyllm.profile import Limits


def sleeper(seconds):
    return lambda threads, factor: lambda: time.sleep(seconds * factor)


def nobody(threads, factor):
    raise Absent("nobody has it")


SIDES = {
    OURS: sleeper(0.001),
    "slow": sleeper(0.004),
    "sampled": lambda threads, factor: (lambda: time.sleep(0.001), 10.0),
    "nobody": nobody,
}
CASES = {
    "one": Case("sleep once", {"factor": 1}, 1e6, 0.0, ["slow", "nobody"], 0.05),
    "twice": Case("sleep twice", {"factor": 2}, 0.0, 1e6, ["slow", "sampled"], 0.05),
}


def main():
    parser = options_of(__doc__, rounds=2)
    parser.add_argument("--together", action="store_true")
    options = parser.parse_args()
    if options.worker:
        work(SIDES, CASES, options)
        return
    compare(__file__, CASES, options, Limits(1e9, 1e9, 2), options.together).print(options.json)


if __name__ == "__main__":
    main()
