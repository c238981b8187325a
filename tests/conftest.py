"""Fixtures shared by all tests."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

# The first draw of a hypothesis test may compile a kernel: no deadline. Derandomised, so that a red run repeats.
settings.register_profile("tinyllm", deadline=None, derandomize=True, max_examples=40)
settings.load_profile("tinyllm")


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator with the same draws in every run."""
    return np.random.default_rng(20240607)


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of real data named by TINYLLM_DATA; the test is skipped where there is none."""
    folder = os.environ.get("TINYLLM_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("TINYLLM_DATA does not name a folder of test data")
    return Path(folder)
