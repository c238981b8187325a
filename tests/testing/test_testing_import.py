"""`import tinyllm.testing` needs NumPy and the engine only, and shows eight names."""

import subprocess
import sys

import tinyllm.testing


def test_nothing_else_is_imported():
    code = (
        "import sys, tinyllm.testing; "
        "print(sorted(m for m in ('hypothesis', 'pytest', 'numba', 'matplotlib', 'torch') if m in sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_at_most_eight_public_names():
    assert len(tinyllm.testing.__all__) <= 8
    assert all(getattr(tinyllm.testing, name).__doc__ for name in tinyllm.testing.__all__)
