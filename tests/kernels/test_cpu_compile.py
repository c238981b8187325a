"""How kernels are compiled: the cache notices edits, its absence is survived, plain Python gives the same numbers."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import kernel_checks
import numpy as np

import tinyllm.kernels
from tinyllm.kernels.cpu.compile import jit

ROOT = Path(tinyllm.kernels.__file__).parents[2]


def python(*arguments, root, **environment):
    """Standard output of a Python program that imports the package found in the folder `root`."""
    environment = {**os.environ, "PYTHONPATH": str(root), **environment}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=root, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_plain_python_gives_the_same_numbers(tmp_path):
    python(kernel_checks.__file__, str(tmp_path), root=ROOT, NUMBA_DISABLE_JIT="1")
    for dtype in kernel_checks.DTYPES:
        compiled = kernel_checks.one_call_of_each(dtype)
        with np.load(tmp_path / f"{dtype}.npz") as plain:
            assert set(plain) == set(compiled)
            for name, value in compiled.items():
                tolerance = 64 * np.finfo(dtype).eps
                np.testing.assert_allclose(plain[name], value, rtol=tolerance, atol=tolerance, err_msg=name)


def test_an_edited_helper_in_another_file_is_compiled_again(tmp_path):
    package = tmp_path / "tinyllm"
    shutil.copytree(ROOT / "tinyllm" / "kernels", package / "kernels", ignore=shutil.ignore_patterns("__pycache__"))
    (package / "__init__.py").touch()
    program = (
        "import numpy as np; from tinyllm.kernels.cpu.softmax import log_softmax_vjp as kernel; "
        "out = np.empty((1, 1)); kernel(np.ones((1, 1)), np.zeros((1, 1)), out); "
        "print(out[0, 0], sum(kernel.stats.cache_hits.values()))"
    )

    def run():
        return python("-c", program, root=tmp_path, NUMBA_CACHE_DIR=str(tmp_path / "cache")).split()

    assert run() == ["0.0", "0"]
    assert run() == ["0.0", "1"]
    helper = package / "kernels" / "cpu" / "mathfn.py"
    text = helper.read_text(encoding="utf-8")
    assert "return (1.0 + series)" in text
    helper.write_text(text.replace("return (1.0 + series)", "return (5.0 + series)"), encoding="utf-8")
    assert run() == ["-4.0", "0"]


def test_compiles_where_no_cache_can_be_kept():
    space = {}
    exec(compile("def double(x):\n    return 2 * x", "<nowhere>", "exec"), space)
    assert jit(space["double"])(3) == 6


def test_the_package_of_kernels_imports_no_numba():
    program = "import sys, tinyllm.kernels; sys.exit('numba' in sys.modules)"
    python("-c", program, root=ROOT)
