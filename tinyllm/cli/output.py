"""What several commands print: one JSON object, a sample, the metrics of a run."""

from __future__ import annotations

import json
import math
from typing import Any


def print_json(result: dict[str, Any]) -> None:
    """One JSON object on one line; JSON has no infinity, so what is not finite is null."""
    finite = {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in result.items()
    }
    print(json.dumps(finite, allow_nan=False))


def print_metrics(result: dict[str, Any], name: str) -> None:
    """What a model of two texts wrote about held-out sources, and its metrics beside the baselines'."""
    from tinyllm.train.report import metrics_table

    unit = result.get("unit", "nats per token")
    print(f"\nHeld-out sources, what was written, what was expected:\n{indented(result['sample'])}\n")
    print(f"Held out of {result['data']}: {result['sources']:,} sources; loss {result['loss']:.4f} {unit}.")
    print(metrics_table({**result["baselines"], name: result["metrics"]}, result["lowest_is_best"]))


def indented(text: str) -> str:
    return "\n".join("  | " + line for line in text.splitlines())
