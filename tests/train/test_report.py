"""What a run shows: progress, the table, the picture."""

import io

import numpy as np
import pytest
from trainees import make_trainer

from tinyllm.errors import CheckpointError
from tinyllm.train import Console
from tinyllm.train.console import clock
from tinyllm.train.report import ascii_text, bits_per_character, read_log, table
from tinyllm.train.trainer import LOG
from tinyllm.viz import loss_curve, save_figure


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(("seconds", "shown"), [(0, "0:00"), (7.4, "0:07"), (59.6, "1:00"), (3600, "1:00:00")])
def test_clock(seconds, shown):
    assert clock(seconds) == shown


def test_progress_is_rewritten_in_place_on_a_terminal(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    console = Console(Terminal())
    for text in ("step 1, a long state", "step 2", "too soon"):
        console.progress(text)
        now[0] += 0.06
    console.say("done")
    shown = console.stream.getvalue()
    assert "too soon" in shown
    assert "step 2" not in shown
    assert shown.count("\n") == 1
    assert shown.endswith("\rdone\n")
    assert "\rtoo soon            " in shown


def test_progress_is_a_line_every_few_seconds_elsewhere(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    console = Console(io.StringIO())
    for step in range(100):
        console.progress(f"step {step}")
        now[0] += 0.11
    assert console.stream.getvalue() == "step 0\nstep 46\nstep 92\n"


def test_a_run_shows_step_loss_speed_and_time_left(monkeypatch):
    monkeypatch.setattr("tinyllm.train.console._PAUSE_ELSEWHERE", 0.0)
    trainer = make_trainer(None)
    trainer.console = Console(io.StringIO())
    trainer.run()
    shown = trainer.console.stream.getvalue()
    lines = shown.splitlines()
    assert [line.split()[1] for line in lines if "tokens/s" in line] == [f"{n}/12" for n in range(1, 13)]
    assert "0:00 left" in lines[-2]
    assert lines[-1].startswith("step 12  held-out loss ")


def test_a_run_names_the_text_that_it_watches():
    trainer = make_trainer(None)
    trainer.watched = "validation"
    trainer.console = Console(io.StringIO())
    trainer.run()
    shown = trainer.console.stream.getvalue()
    assert "validation loss" in shown
    assert "held-out" not in shown


def test_the_table_puts_the_worst_first_and_gives_bits():
    text = table("Title:", [("a", 1.0), ("longer", 2.0)], tokens_per_character=1)
    assert text.splitlines() == [
        "Title:",
        "           nats/char  bits/char",
        "  longer      2.0000     2.8854",
        "  a           1.0000     1.4427",
    ]
    assert "nats/token" in table("", [("a", 1.0)], 0.5)


def test_bits_per_character_do_not_depend_on_the_tokenizer():
    # Two tokens of two characters each, or four of one: the same text with the same probability.
    assert bits_per_character(2.0, 0.5) == pytest.approx(bits_per_character(1.0, 1.0))
    assert bits_per_character(np.log(2), 1.0) == pytest.approx(1.0)


def test_a_log_that_ends_within_a_line_is_read_to_its_last_whole_one(tmp_path):
    make_trainer(tmp_path).run()
    records = read_log(tmp_path)
    with (tmp_path / LOG).open("a") as file:
        file.write('{"step": 13, "lo')
    assert read_log(tmp_path) == records
    (tmp_path / LOG).write_text("nonsense\n")
    with pytest.raises(CheckpointError, match="damaged"):
        read_log(tmp_path)


def test_the_picture_has_every_line_and_only_ascii(tmp_path):
    steps = np.arange(1, 301)
    lines = [("uniform", 4.6), ("bigram", 2.50), ("trigram", 2.49)]
    figure = loss_curve((steps, 3 / steps + 2), ([0, 300], [4.6, 2.1]), lines, title=ascii_text("caf\xe9"))
    (axes,) = figure.axes
    texts = [text.get_text() for text in (*axes.texts, axes.title, *axes.get_legend().get_texts())]
    assert texts[:3] == ["trigram 2.49", "bigram 2.50", "uniform 4.60"]
    assert all(text.isascii() for text in texts)
    places = [text.xy[1] for text in axes.texts]
    assert np.diff(places).min() > 0.05 * 2  # the names do not lie on each other
    low, high = axes.get_ylim()
    assert low < 2.0
    assert high > 4.6
    path = save_figure(figure, tmp_path / "loss.png")
    assert path.read_bytes().startswith(b"\x89PNG")
    assert list(tmp_path.iterdir()) == [path]


def test_the_picture_of_a_run_that_has_hardly_begun(tmp_path):
    save_figure(loss_curve(([], []), ([0], [4.0])), tmp_path / "loss.png")


def test_a_picture_that_cannot_be_written_leaves_the_old_one(tmp_path):
    with pytest.raises(CheckpointError, match="cannot be written"):
        save_figure(loss_curve(([1], [2.0]), ([0], [4.0])), tmp_path / "nowhere" / "loss.png")
