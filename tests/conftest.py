"""Fixtures shared by all tests."""

import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings

from tinyllm import buffers

# The first draw of a hypothesis test may compile a kernel: no deadline. Derandomised, so that a red run repeats.
settings.register_profile("tinyllm", deadline=None, derandomize=True, max_examples=40)
settings.load_profile("tinyllm")


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator with the same draws in every run."""
    return np.random.default_rng(20240607)


@pytest.fixture
def peak_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Any]], int]:
    """``peak_of(step)``: the most bytes that a step takes at once."""

    def measure(step: Callable[[], Any]) -> int:
        monkeypatch.setattr(buffers, "_pool", buffers.Pool())
        monkeypatch.setattr(buffers, "_pages", bytearray)  # memory that tracemalloc knows of
        tracemalloc.start()
        try:
            step()
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    return measure


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of real data named by TINYLLM_DATA; the test is skipped where there is none."""
    folder = os.environ.get("TINYLLM_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("TINYLLM_DATA does not name a folder of test data")
    return Path(folder)
