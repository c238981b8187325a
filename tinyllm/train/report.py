"""What a run says at its end: one table of losses, and the picture."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tinyllm.errors import CheckpointError
from tinyllm.train.trainer import LOG

_TITLE = 74  # characters in a line above the picture


def bits_per_character(loss: float, tokens_per_character: float) -> float:
    """Bits per character of a text, from its loss in nats per token."""
    return loss * tokens_per_character / math.log(2)


def table(title: str, rows: Sequence[tuple[str, float]], tokens_per_character: float) -> str:
    """Losses as a table in plain text, the worst model first.

    Parameters
    ----------
    title : str
        The line above.
    rows : sequence of (name, loss)
        Nats per token.
    tokens_per_character : float
        Of the text that the losses were measured on; where it is 1, nats per token are nats per character.
    """
    unit = "nats/char" if tokens_per_character == 1 else "nats/token"
    width = max(len(name) for name, _ in rows)
    lines = [title, f"  {'':{width}}  {unit:>10}  {'bits/char':>9}"]
    for name, loss in sorted(rows, key=lambda row: -row[1]):
        lines.append(f"  {name:{width}}  {loss:10.4f}  {bits_per_character(loss, tokens_per_character):9.4f}")
    return "\n".join(lines)


def metrics_table(rows: Mapping[str, Mapping[str, float]], lowest_is_best: bool = False) -> str:
    """Metrics of several methods as a table in plain text, the worst by the first metric first.

    Parameters
    ----------
    rows : dict
        The method's name to its metrics, which are the same for all.
    lowest_is_best : bool
        Whether the first metric is an error rate.
    """
    names = list(next(iter(rows.values())))
    width = max(map(len, rows))
    lines = ["  ".join(["", " " * width, *(f"{name:>9}" for name in names)])]
    for method, metrics in sorted(rows.items(), key=lambda row: row[1][names[0]], reverse=lowest_is_best):
        lines.append("  ".join(["", f"{method:{width}}", *(f"{metrics[name]:9.2f}" for name in names)]))
    return "\n".join(lines)


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The records of a run's log, oldest first; a last line that was never finished is left out.

    Raises
    ------
    CheckpointError
        For a log that is missing or damaged.
    """
    log = folder / LOG
    try:
        lines = log.read_bytes().split(b"\n")
        return [json.loads(line) for line in lines[:-1]]
    except OSError as error:
        raise CheckpointError(f"{log}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise CheckpointError(f"{log} is damaged: {error}") from error


def draw_loss(folder: Path) -> Path:
    """Draw ``loss.png`` of a run from its log."""
    from tinyllm.viz import loss_curve, save_figure

    records = read_log(folder)
    run = records[0]["run"]
    train = [record for record in records if "loss" in record]
    watched = [record for record in records if "held_out" in record]
    ended = [record["result"] for record in records if "result" in record]
    if ended:
        last = f": {ended[-1]['loss']:.3f} on all that was held out"
    else:
        last = f": {watched[-1]['held_out']:.3f} after {watched[-1]['step']:,} steps" if watched else ""
    model = f"{run.get('model', 'GPT')} of {run['parameters'] / 1e6:.2f} M parameters"
    figure = loss_curve(
        ([record["step"] for record in train], [record["loss"] for record in train]),
        ([record["step"] for record in watched], [record["held_out"] for record in watched]),
        list(run["watched_baselines"].items()),
        title=textwrap.fill(ascii_text(f"{Path(run['data']).name}, {model}{last}"), _TITLE),
        held_out_name=run["watched"],
    )
    return save_figure(figure, folder / "loss.png")


def ascii_text(text: str) -> str:
    """`text` with a question mark for what is not ASCII: fonts for it may be missing."""
    return text.encode("ascii", "replace").decode()
