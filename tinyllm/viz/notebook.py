"""Whether somebody can move a slider."""

from __future__ import annotations

import importlib.util
import os
import sys

STATIC = "TINYLLM_STATIC"  # set where notebooks are executed to be read, not played with


def is_live() -> bool:
    """Whether this is a notebook's kernel with ipywidgets, and not one that only makes a page."""
    if STATIC in os.environ or "ipykernel" not in sys.modules:
        return False
    return importlib.util.find_spec("ipywidgets") is not None
