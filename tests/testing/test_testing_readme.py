"""The page "Check your own backward pass" runs as printed, and prints what it says."""

import contextlib
import io
import re
from pathlib import Path

import pytest

import tinyllm.testing

PAGE = Path(tinyllm.testing.__file__).with_name("README.md")
BLOCK = re.compile(r"^```(python|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def _run(needs_torch: bool) -> list[tuple[str, str]]:
    """Pairs of (what the page prints, what was printed)."""
    names: dict = {}
    pairs, printed = [], ""
    for kind, text in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        if kind == "text":
            if printed is not None:
                pairs.append((text, printed))
        elif text.startswith("# needs torch") and not needs_torch:
            printed = None
        else:
            output = io.StringIO()
            with contextlib.redirect_stdout(output):
                exec(compile(text, str(PAGE), "exec"), names)
            printed = output.getvalue()
    return pairs


def _without_numbers(text: str) -> str:
    return re.sub(r"-?\b\d[\d.]*(e[-+]?\d+)?", "#", text)


def test_the_page_runs_and_prints_what_it_says():
    pairs = _run(needs_torch=False)
    assert len(pairs) == 4
    for promised, printed in pairs:
        assert _without_numbers(printed) == _without_numbers(promised)


@pytest.mark.peers
def test_the_page_runs_with_torch():
    pytest.importorskip("torch", reason="the PyTorch example needs torch")
    pairs = _run(needs_torch=True)
    assert len(pairs) == 5
    for promised, printed in pairs:
        assert _without_numbers(printed) == _without_numbers(promised)
