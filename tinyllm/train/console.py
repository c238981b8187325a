"""What a run says while it works: one line rewritten in place on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TextIO

_PAUSE_ON_TERMINAL = 0.1  # seconds between two states of the rewritten line
_PAUSE_ELSEWHERE = 5.0  # seconds between two lines of a log


class Console:
    """Progress on a stream, standard error unless another is given; standard output is left to results."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stderr
        self.terminal = self.stream.isatty()
        self._pause = _PAUSE_ON_TERMINAL if self.terminal else _PAUSE_ELSEWHERE
        self._shown = -self._pause
        self._width = 0

    def progress(self, text: str) -> None:
        """Show the present state, unless the last one was shown only a moment ago."""
        now = time.monotonic()
        if now - self._shown < self._pause:
            return
        self._shown = now
        if self.terminal:
            self.stream.write("\r" + text.ljust(self._width))
            self._width = len(text)
        else:
            self.stream.write(text + "\n")
        self.stream.flush()

    def say(self, text: str) -> None:
        """Write a line that stays."""
        if self._width:
            self.stream.write("\r" + " " * self._width + "\r")
            self._width = 0
        self.stream.write(text + "\n")
        self.stream.flush()

    def files(self, done: int, total: int, what: str) -> None:
        """Progress of reading a corpus, in the form that `tinyllm.data.load` reports it."""
        self.progress(f"reading {done:,}/{total:,} {what}")


def clock(seconds: float) -> str:
    """A duration as 0:07, 12:34 or 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
