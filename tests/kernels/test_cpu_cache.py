"""The cache of compiled kernels: two processes at once, an installation that cannot be written, another helper."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import tinyllm.kernels

ROOT = Path(tinyllm.kernels.__file__).parents[2]
PROGRAM = """
import numpy as np
from tinyllm.kernels.cpu.softmax import log_softmax_vjp as kernel
out = np.empty((2, 3))
kernel(np.ones((2, 3)), np.full((2, 3), np.log(1 / 3)), out)
assert np.allclose(out, 0), out
print(sum(kernel.stats.cache_hits.values()))
"""


def start(root, **environment):
    environment = {**os.environ, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1", **environment}
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        cwd=root,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ends_well(process):
    """Whether the process loaded its kernel from the cache."""
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out.strip() == "1"


def test_two_processes_compile_at_once(tmp_path):
    pair = [start(ROOT, NUMBA_CACHE_DIR=str(tmp_path)) for _ in range(2)]
    for process in pair:
        ends_well(process)
    assert ends_well(start(ROOT, NUMBA_CACHE_DIR=str(tmp_path)))  # and what they leave is whole


def copy_of_the_kernels(folder):
    """The package of kernels alone, as it would be installed."""
    package = folder / "tinyllm"
    shutil.copytree(ROOT / "tinyllm" / "kernels", package / "kernels", ignore=shutil.ignore_patterns("__pycache__"))
    (package / "__init__.py").touch()
    return package


@pytest.fixture
def read_only(tmp_path):
    """A copy of the kernels in which no file can be made, also by root: `__pycache__` is a file there."""
    package = copy_of_the_kernels(tmp_path / "site")
    for folder in [package, *(path for path in package.rglob("*") if path.is_dir())]:
        (folder / "__pycache__").touch()
    paths = [package, *package.rglob("*")]
    for path in paths:
        path.chmod(0o555 if path.is_dir() else 0o444)
    yield tmp_path / "site"
    for path in paths:
        path.chmod(0o755 if path.is_dir() else 0o644)


def nowhere(tmp_path):
    """Surroundings in which no place for a cache can be made."""
    blocked = tmp_path / "blocked"
    blocked.touch()  # a file: no folder can be made under it
    return {"HOME": str(blocked), "XDG_CACHE_HOME": str(blocked), "LOCALAPPDATA": str(blocked)}


def test_a_read_only_installation_keeps_its_cache_elsewhere(read_only, tmp_path):
    home = {"HOME": str(tmp_path / "home"), "XDG_CACHE_HOME": str(tmp_path / "home"), "NUMBA_CACHE_DIR": ""}
    home["LOCALAPPDATA"] = str(tmp_path / "home")
    assert not ends_well(start(read_only, **home))
    assert ends_well(start(read_only, **home))


def test_a_read_only_installation_without_any_place_for_a_cache_works(read_only, tmp_path):
    for _ in range(2):  # each compiles for itself
        assert not ends_well(start(read_only, **nowhere(tmp_path), NUMBA_CACHE_DIR=""))


def test_a_change_in_another_file_is_a_change_of_every_kernel(tmp_path):
    package = copy_of_the_kernels(tmp_path / "site")
    path = package / "kernels" / "cpu" / "compile.py"  # not the file of the kernel, nor one that it calls
    cache = {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    assert not ends_well(start(tmp_path / "site", **cache))
    assert ends_well(start(tmp_path / "site", **cache))
    with path.open("a", encoding="utf-8") as file:
        file.write("\n# changed\n")
    assert not ends_well(start(tmp_path / "site", **cache))
