"""How long the experiments of a chapter run: in full for readers, in a few steps where only the code is tested."""

from __future__ import annotations

import os
from typing import TypeVar

FAST = "TINYLLM_FAST"
T = TypeVar("T")


def is_fast() -> bool:
    """Whether the chapter is only being tested: claims about losses do not hold then."""
    return FAST in os.environ


def budget(full: T, fast: T) -> T:
    """`full`, or `fast` where a chapter is only being tested."""
    return fast if is_fast() else full
