"""Distillation: the held-out loss of a small model alone, of the same one taught by a larger one, and of the teacher.

python benchmarks/distill.py [--data FILE] [--steps 600] [--write]

A GPT on the standard library's prose, and an encoder-decoder Transformer that translates (--data: pairs; by default
the messages of JupyterLab). Both students take the same steps from the same first weights. With --write the tables take
the place of their sections in TASKS.md.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

from harness import machine, say
from tasks import by_name, replace_section, shown

from tinyllm.train import Settings, train

_COMMON: dict[str, Any] = {"threads": 1, "sample_tokens": 0, "eval_windows": 200}
_SMALL = {"n_layer": 1, "n_head": 2, "n_embd": 48}
TEACHERS: dict[str, dict[str, Any]] = {
    "distillation, GPT": {"n_layer": 3, "n_embd": 128, "block_size": 64},
    "distillation, encoder-decoder": {"task": "translation", "lr": 1e-3},
}


def main() -> None:
    """Train teachers and students, and print their losses."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="pairs for the encoder-decoder")
    parser.add_argument("--steps", type=int, default=600, help="of every model (default: 600)")
    parser.add_argument("--write", action="store_true", help="into TASKS.md")
    options = parser.parse_args()
    for title, teacher in TEACHERS.items():
        chosen = {"data": options.data} if options.data and "task" in teacher else {}
        text = section(title, _COMMON | teacher | chosen, options.steps)
        print(text)
        if options.write:
            replace_section(title, text)


def section(title: str, teacher: dict[str, Any], steps: int) -> str:
    """The table of one teacher and its students."""
    base = teacher | {"steps": steps, "eval_every": steps}
    rows = []
    with tempfile.TemporaryDirectory() as place:
        folder = str(Path(place) / "teacher")
        for name, changed in (
            ("teacher", {}),
            ("student alone", _SMALL),
            ("student distilled, labels and teacher alike", _SMALL | {"teacher": folder, "distill_weight": 0.5}),
            ("student distilled, from the teacher alone", _SMALL | {"teacher": folder, "distill_weight": 1.0}),
        ):
            say(f"{title}: {name}")
            out = folder if name == "teacher" else str(Path(place) / name.replace(" ", "-"))
            result = train(Settings.make(base, changed), out)
            rows.append((result["loss"], name, result["parameters"]))
    lines = [f"## {title}", "", f"{by_name(result['data'])}; {steps:,} steps of each model, temperature 2.", ""]
    lines += ["| | held-out loss | parameters |", "|---|---:|---:|"]
    lines += [f"| {name} | {loss:.4f} | {size:,} |" for loss, name, size in sorted(rows, reverse=True)]
    command = " ".join(["python", "benchmarks/distill.py", *shown(sys.argv[1:])])
    held = machine()
    lines += ["", f"`{command}`; {held['processor']}, one thread, Python {held['versions']['python']}."]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
