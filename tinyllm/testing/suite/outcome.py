"""How a law says that an answer breaks it, or that it does not apply."""

from __future__ import annotations

from collections.abc import Sequence


class Broken(Exception):
    """An answer that breaks a law.

    Parameters
    ----------
    message : str
        What came and what was expected.
    likely : sequence of str
        The likely mistakes, likeliest first.
    """

    def __init__(self, message: str, likely: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.likely = tuple(likely)


class NotApplicable(Exception):
    """A law that has nothing to say about an answer, such as one on masks about a function that takes none."""
