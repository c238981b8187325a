"""The checks of a file as pytest tests, one each.

``TINYLLM_CHECK=answers.py python -m pytest --pyargs tinyllm.testing.suite.pytest_module``; the TOML file, if any, is
named by ``TINYLLM_CHECK_CONFIG``. pytest need not know of it otherwise: nothing is installed as a plugin.
"""

from __future__ import annotations

import os

import pytest

from tinyllm.errors import TinyLLMError
from tinyllm.testing.suite import config, report
from tinyllm.testing.suite.run import Check, check_file


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run the checks, and make a test of each result."""
    path, settings = os.environ.get("TINYLLM_CHECK"), os.environ.get("TINYLLM_CHECK_CONFIG")
    if not path:
        raise pytest.UsageError("set TINYLLM_CHECK to the file that is to be checked")
    try:
        result = check_file(path, config.read(settings) if settings else config.Config())
    except TinyLLMError as error:
        raise pytest.UsageError(str(error)) from error
    metafunc.parametrize("check", result.checks, ids=[check.name for check in result.checks])


def test_law(check: Check) -> None:
    """One law about one function of the file."""
    if check.status == "skipped":
        pytest.skip(check.message)
    if check.status != "passed":
        pytest.fail("\n".join(report.failure(check)), pytrace=False)
