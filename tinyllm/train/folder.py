"""The folder of a run, made beside its place and put there whole by one rename."""

from __future__ import annotations

import glob
import os
import platform
import re
import shutil
from pathlib import Path
from types import TracebackType
from typing import Self

from tinyllm.errors import ConfigError


class NewFolder:
    """A folder in the making; on leaving the `with` block it is removed unless `place` was called.

    Parameters
    ----------
    out : str or Path, optional
        Where it shall be. It must not exist.
    name : str
        Without `out`, the place is ``runs/<name>-<n>`` with the first free n.

    Raises
    ------
    ConfigError
        Where `out` exists, or no folder can be made there. Nothing has been computed by then.
    """

    def __init__(self, out: str | Path | None, name: str) -> None:
        self._name = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "run"
        self._out = Path(out) if out else None
        parent = self._out.parent if self._out else Path("runs")
        self._refuse_existing()
        self.path = parent / f".{self._wanted().name}{_mark()}{os.getpid()}"
        self._placed = False
        try:
            parent.mkdir(parents=True, exist_ok=True)
            _remove_stale(parent)
            self.path.mkdir()
        except OSError as error:
            wanted = self._wanted()
            raise ConfigError(
                f"the run folder {wanted} cannot be made: {error.strerror}; choose another with --out"
            ) from error

    def place(self) -> Path:
        """Put the folder in its place and return that."""
        while True:
            self._refuse_existing()
            wanted = self._wanted()
            try:
                os.rename(self.path, wanted)
            except OSError as error:
                if self._out or not wanted.exists():  # else another run was quicker to take the number
                    raise ConfigError(f"the run folder {wanted} cannot be made: {error.strerror}") from error
            else:
                self.path, self._placed = wanted, True
                return wanted

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._placed:
            shutil.rmtree(self.path, ignore_errors=True)

    def _wanted(self) -> Path:
        if self._out:
            return self._out
        taken = [path.name.removeprefix(f"{self._name}-") for path in Path("runs").glob(f"{self._name}-*")]
        return Path("runs", f"{self._name}-{1 + max((int(n) for n in taken if n.isdecimal()), default=0)}")

    def _refuse_existing(self) -> None:
        if self._out and (self._out.exists() or self._out.is_symlink()):
            raise ConfigError(
                f"{self._out} exists and is never overwritten: choose another --out, remove it, "
                f"or continue the run in it with `tinyllm resume {self._out}`"
            )


def _mark() -> str:
    """What stands before the process's number; it names the machine, because others may share the folder."""
    return f".new-{platform.node()}-"


def _remove_stale(parent: Path) -> None:
    """Remove what processes of this machine had begun to make in this folder when they were killed."""
    for path in parent.glob(f".*{glob.escape(_mark())}*"):
        pid = path.name.rpartition("-")[2]
        if pid.isdecimal() and not _lives(int(pid)):
            shutil.rmtree(path, ignore_errors=True)


def _lives(pid: int) -> bool:
    """Whether there is such a process, as far as one may know."""
    if os.name == "nt":  # os.kill would end it
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
