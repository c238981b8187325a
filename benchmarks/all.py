"""Every benchmark in turn; with --write, their tables go into benchmarks/README.md.

python benchmarks/all.py --write                  # about 20 minutes on two quiet cores
python benchmarks/all.py --write --only kernels   # one table, the others stay
python benchmarks/all.py --write --only memory --minutes 30   # other options go to the benchmark
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from harness import cells, plural, say

HERE = Path(__file__).parent
NAMES = (
    "train_step",
    "decode",
    "attention",
    "recurrent",
    "kernels",
    "overhead",
    "threads",
    "memory",
    "tokenizer",
    "word2vec",
)


def run(name: str, more: list[str]) -> dict[str, Any]:
    """The object that a benchmark prints."""
    say(f"-- {name}")
    command = [sys.executable, str(HERE / f"{name}.py"), "--json", *more]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def markdown(result: dict[str, Any]) -> str:
    """A benchmark's figures as a table, with when and where they were measured."""
    about = result["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items() if version != "absent")
    lines = [
        f"`{result['benchmark']}`, {result['date']}, {about['processor']}, {about['cores']} cores, {about['system']}, "
        f"{plural(result['threads'])}; {versions}; limits in the same run: sgemm "
        f"{result['sgemm_flops'] / 1e9:.0f} GFLOP/s, copy {result['copy_bytes'] / 1e9:.1f} GB/s",
        "",
        "| work | tinyllm | peer | | ratio | of the limit |",
        "|---|---|---|---|---|---|",
        *("| " + " | ".join(cells(row)) + " |" for row in result["rows"]),
        *([""] if result["notes"] else []),
        *(f"* {note}" for note in result["notes"]),
    ]
    return "\n".join(lines)


def written(text: str, name: str, table: str) -> str:
    """The README with this benchmark's table, between its two markers."""
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    if begin not in text or end not in text:
        raise SystemExit(f"benchmarks/README.md has no place for {name}: {begin} and {end}")
    head, rest = text.split(begin, 1)
    return f"{head}{begin}\n{table}\n{end}{rest.split(end, 1)[1]}"


def main() -> None:
    """Run them, print the tables, and write them where asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=NAMES, action="append", help="may be repeated")
    parser.add_argument("--write", action="store_true", help="rewrite the tables in benchmarks/README.md")
    options, more = parser.parse_known_args()
    readme = HERE / "README.md"
    for name in options.only or NAMES:
        table = markdown(run(name, more))
        print(f"\n{table}", flush=True)
        if options.write:
            readme.write_text(written(readme.read_text(encoding="utf-8"), name, table), encoding="utf-8")


if __name__ == "__main__":
    main()
