"""Where a run is made: whole or not at all."""

import os
import subprocess
import sys

import pytest

from tinyllm.errors import ConfigError
from tinyllm.train.folder import NewFolder, _mark


def test_a_folder_comes_whole_or_not_at_all(tmp_path):
    with NewFolder(tmp_path / "a", "name") as new:
        (new.path / "file").write_text("x")
        assert not (tmp_path / "a").exists()
        assert new.place() == tmp_path / "a"
    assert (tmp_path / "a" / "file").read_text() == "x"
    with pytest.raises(KeyError), NewFolder(tmp_path / "b", "name"):
        raise KeyError
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_name_like_that_of_an_unfinished_folder_is_kept(tmp_path):
    with NewFolder(tmp_path / f"a{_mark()}7", "name") as new:
        new.place()
    assert (tmp_path / f"a{_mark()}7").exists()


@pytest.mark.skipif(os.name == "nt", reason="Windows does not tell whether a process lives without ending it")
def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path):
    done = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    dead = int(done.stdout)
    names = {
        "killed": f".run{_mark()}{dead}",
        "alive": f".run{_mark()}{os.getppid()}",
        "elsewhere": f".run.new-another-machine-{dead}",
        "user": f".run{_mark()}notes",
    }
    for name in names.values():
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("x")
    with NewFolder(tmp_path / "a", "name"):
        pass
    assert {path.name for path in tmp_path.iterdir()} == set(names.values()) - {names["killed"]}


def test_an_existing_folder_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="never overwritten"):
        NewFolder(tmp_path, "name")
