"""Run a file's checks in a process of its own that is watched, killed and started again as need be."""

from __future__ import annotations

import json
import os
import queue
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tinyllm
from tinyllm.errors import ConfigError, TinyLLMError, nearest
from tinyllm.testing.suite.config import Config

FAILURES = ("failed", "error", "blocked")
# To start Python, import NumPy and load the laws: not charged to the file.
START = 120.0
# A function whose checks had the process killed this often is not tried again.
PATIENCE = 2
# Of what a file prints, this much is kept; a longer line of results is none of ours.
KEPT, LINE = 2000, 2**20
KEPT_VARIABLES = ("PATH", "SYSTEMROOT", "LANG", "LC_ALL", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")


class FileError(TinyLLMError, ValueError):
    """A file that cannot be checked."""


@dataclass
class Check:
    """One law and what became of it.

    Attributes
    ----------
    function, law : str
    says : str
        What the law demands.
    status : str
        "passed", "failed" (the law is broken), "error" (the code raised, hung or crashed), "blocked" (not run, since
        other checks of the function hung or crashed), "skipped" (does not apply).
    message : str
    likely : list of str
        The likely mistakes.
    seconds, weight : float
    """

    function: str
    law: str
    says: str = ""
    status: str = ""
    message: str = ""
    likely: list[str] = field(default_factory=list)
    seconds: float = 0.0
    weight: float = 1.0

    @property
    def name(self) -> str:
        """``function.law``."""
        return f"{self.function}.{self.law}"


@dataclass
class Result:
    """All checks of a file.

    Attributes
    ----------
    path : str
    checks : list of Check
    output : str
        The beginning of what the file printed.
    printed : int
        How many bytes that was in all.
    """

    path: str
    checks: list[Check] = field(default_factory=list)
    output: str = ""
    printed: int = 0

    def count(self, *statuses: str) -> int:
        """How many checks ended so."""
        return sum(c.status in statuses for c in self.checks)

    @property
    def ok(self) -> bool:
        """Whether no check failed."""
        return not self.count(*FAILURES)

    @property
    def score(self) -> tuple[float, float]:
        """Weights of the checks that passed, and of those that passed or failed."""
        counted = [c for c in self.checks if c.status != "skipped"]
        return sum(c.weight for c in counted if c.status == "passed"), sum(c.weight for c in counted)


def check_file(path: str | Path, config: Config) -> Result:
    """Check a file.

    Raises
    ------
    FileError
        If there is no such file, or nothing to check in it.
    ConfigError
        If the configuration names what does not exist.
    """
    source = Path(path)
    if not source.is_file():
        raise FileError(f"{path} does not exist" if not source.exists() else f"{path} is no file")
    for name in config.files:
        if not (config.folder / name).is_file():
            raise ConfigError(f"files: {config.folder / name} does not exist")
    with tempfile.TemporaryDirectory(prefix="tinyllm-check-", ignore_cleanup_errors=True) as folder:
        try:
            copy = shutil.copy(source, str(Path(folder, source.name)))
            for name in config.files:
                shutil.copy(config.folder / name, folder)
        except OSError as error:
            raise FileError(f"{path} cannot be copied: {error.strerror}") from error
        return _Session(str(path), copy, folder, config).run()


class _Session:
    """One file, and as many processes as it takes."""

    def __init__(self, path: str, copy: str, folder: str, config: Config) -> None:
        self.copy, self.folder, self.config = copy, folder, config
        self.result = Result(path)
        self.checks: dict[str, Check] = {}
        self.kills: dict[str, int] = {}

    def run(self) -> Result:
        """Until every check has a result."""
        rest: list[str] | None = None
        while rest is None or rest:
            self._one_process(rest)
            for check in self.checks.values():
                if not check.status and self.kills.get(check.function, 0) >= PATIENCE:
                    self._settle(check, "blocked", f"not run: {check.function} was ended {PATIENCE} times before")
            rest = [name for name, check in self.checks.items() if not check.status]
        return self.result

    def _settle(self, check: Check, status: str, message: str, likely: list[str] | None = None) -> None:
        check.status, check.message, check.likely = status, message, likely or []

    def _one_process(self, rest: list[str] | None) -> None:
        """Follow one process to its end, natural or not."""
        with _Process(self.copy, self.folder, self.config, rest) as process:
            stage, limit = "", START
            while True:
                event = process.next(limit)
                kind = event["event"]
                if kind == "ready":
                    stage, limit = "load", self.config.timeout
                elif kind == "loaded":
                    if rest is None:
                        self._enter(event)
                    stage, limit = "", START
                elif kind == "begin":
                    stage, limit = event["check"], self.config.timeout
                elif kind == "end":
                    check = self.checks[event["check"]]
                    check.seconds = event["seconds"]
                    self._settle(check, event["status"], event["message"], event.get("likely"))
                    stage, limit = "", START
                elif kind == "unloadable":
                    self._not_loaded(event["status"], event["message"], event.get("likely"), rest)
                elif kind == "config":
                    raise ConfigError(event["message"])
                elif kind == "fault":
                    raise RuntimeError(f"the checking process failed:\n{event['message']}")
                elif kind == "done":
                    for name in rest or ():
                        if not self.checks[name].status:
                            self._settle(self.checks[name], "error", "not run: loaded again, the file lacks it")
                    break
                elif kind in ("timeout", "ended"):
                    self._ended(stage, event["message"], event["likely"], rest)
                    break
        self.result.printed += process.output.size
        self.result.output = (self.result.output + process.output.text)[:KEPT]

    def _enter(self, event: dict[str, Any]) -> None:
        """The checks there are to be."""
        have = set(event["found"])
        missing = [name for name in self.config.required if not have & {name, name.replace("_vjp", "_backward")}]
        if not event["found"] and not missing:
            raise FileError(
                f"{self.result.path} has no function that there are laws for. Name one like the library's "
                f"({', '.join(event['known'])}), or mark it with @implements"
            )
        if not event["checks"] and not missing:
            raise ConfigError(f"`only` and `skip` leave nothing to check; found: {', '.join(event['found'])}")
        for name, says in event["checks"].items():
            function, _, law = name.partition(".")
            self.checks[name] = Check(function, law, says, weight=self.config.weight(name))
        for name in missing:
            check = Check(name, "found", "The file has it.", "failed", f"there is no function {name}")
            check.likely = [nearest(name, event["found"]).removeprefix("; ")] if event["found"] else []
            check.weight = self.config.weight(check.name)
            self.checks[check.name] = check
        self.result.checks = list(self.checks.values())

    def _not_loaded(self, status: str, message: str, likely: list[str] | None, rest: list[str] | None) -> None:
        """The file itself cannot be run, at the first time or at a later one."""
        if rest is None:
            check = Check(Path(self.result.path).name, "load", "The file can be imported.")
            self._settle(check, "error" if status == "passed" else status, message, likely)
            self.checks[check.name] = check
            self.result.checks = [check]
            return
        for name in rest:
            self._settle(self.checks[name], "error", f"the file could not be loaded again: {message}", likely)

    def _ended(self, stage: str, message: str, likely: list[str], rest: list[str] | None) -> None:
        """The process is gone, and not as it should."""
        if stage == "load":
            self._not_loaded("error", f"while the file was imported, {message}", likely, rest)
        elif stage:
            check = self.checks[stage]
            self.kills[check.function] = self.kills.get(check.function, 0) + 1
            self._settle(check, "error", message, likely)
        elif not self.checks:
            raise RuntimeError(f"the checking process did not start: {message}")
        else:  # between two checks: a thread of the file's, say
            waiting = next(check for check in self.checks.values() if not check.status)
            self._settle(waiting, "error", f"before this check, {message}", likely)


class _Process:
    """A process that checks, and the threads that listen to it."""

    def __init__(self, copy: str, folder: str, config: Config, rest: list[str] | None) -> None:
        self.timeout = config.timeout
        self.memory = config.memory
        self.token = secrets.token_hex(8)
        job = {
            "token": self.token,
            "file": copy,
            "folder": str(config.folder),
            "laws": config.laws,
            "only": config.only,
            "skip": config.skip,
            "required": config.required,
            "patterns": config.patterns(),
            "memory": config.memory,
            "checks": rest,
        }
        self.child = subprocess.Popen(
            [sys.executable, "-P", "-m", "tinyllm.testing.suite.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=folder,
            env=_environment(folder),
            start_new_session=os.name == "posix",
        )
        assert self.child.stdin is not None
        try:
            self.child.stdin.write(json.dumps(job).encode())
            self.child.stdin.close()
        except OSError:  # it ended before it read its job, which `next` will notice
            pass
        self.lines: queue.Queue[bytes] = queue.Queue()
        self.output = _Output(self.child.stderr)
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def __enter__(self) -> _Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self.output.finish()
        self._listener.join(timeout=1.0)
        for stream, reader in ((self.child.stdout, self._listener), (self.child.stderr, self.output.thread)):
            if stream is not None and not reader.is_alive():  # alive: an escaped process holds the other end open
                stream.close()

    def _listen(self) -> None:
        for line in _lines(self.child.stdout):
            self.lines.put(line)

    def next(self, seconds: float) -> dict[str, Any]:
        """The next event; one of kind "timeout" or "ended" when none comes."""
        deadline = time.monotonic() + seconds
        while True:
            gone = self.child.poll() is not None
            left = deadline - time.monotonic()
            try:
                # after its end, what it wrote may still be on the way
                line = self.lines.get(timeout=0.3 if gone else max(0.0, min(left, 0.1)))
            except queue.Empty:
                if gone:
                    return {"event": "ended", **self._end()}
                if left <= 0:
                    likely = ["a loop does not end, or it waits for something"]
                    return {"event": "timeout", "message": f"it took longer than {seconds:g} s", "likely": likely}
                continue
            event = _event(line, self.token)
            if event is not None:
                return event

    def _end(self) -> dict[str, Any]:
        """How the process came to its end."""
        code = self.child.returncode
        likely: list[str] = []
        if code == 71:
            said = "it closed the pipe that results are reported through"
            likely = ["file descriptors that the code did not open must not be closed"]
        elif code >= 0:
            said = f"it ended the process (exit code {code})"
            likely = ["os._exit, or a library that gave up"]
        else:
            name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
            said = f"the process crashed ({name})"
            likely = {"SIGKILL": ["killed from outside: too much memory?"]}.get(
                name, ["ctypes, a compiled extension, or recursion too deep for the stack"]
            )
        return {"message": said, "likely": likely}

    def kill(self) -> None:
        """End it and everything that it started."""
        try:
            if os.name == "posix":
                os.killpg(self.child.pid, signal.SIGKILL)
            else:
                self.child.kill()
        except (ProcessLookupError, PermissionError):  # nobody is left
            pass
        self.child.wait()


class _Output:
    """Reads what a process prints, so that it never waits, and keeps the beginning."""

    def __init__(self, stream: Any) -> None:
        self.size = 0
        self._kept = b""
        self._stream = stream
        self.thread = threading.Thread(target=self._drain, daemon=True)
        self.thread.start()

    def _drain(self) -> None:
        while chunk := os.read(self._stream.fileno(), 2**16):
            self.size += len(chunk)
            self._kept += chunk[: KEPT - len(self._kept)]

    def finish(self) -> None:
        """Wait for the rest, unless some escaped process holds the other end open."""
        self.thread.join(timeout=1.0)

    @property
    def text(self) -> str:
        """What was kept."""
        return self._kept.decode("utf-8", errors="replace")


def _lines(stream: Any) -> Iterator[bytes]:
    """Lines as they come; one that does not end is dropped."""
    rest = b""
    while chunk := os.read(stream.fileno(), 2**16):
        *whole, rest = (rest + chunk).split(b"\n")
        yield from whole
        rest = rest if len(rest) < LINE else b""


def _event(line: bytes, token: str) -> dict[str, Any] | None:
    """The event in a line, if it is one."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and event.get("token") == token else None


def _environment(folder: str) -> dict[str, str]:
    """Little of ours: no settings, no secrets."""
    kept = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
    root = str(Path(tinyllm.__file__).resolve().parents[1])
    threads = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL", "NUMBA", "VECLIB_MAXIMUM")}
    own = {"PYTHONPATH": root, "HOME": folder, "TMPDIR": folder, "TEMP": folder, "TMP": folder, "PYTHONUTF8": "1"}
    return {**kept, **threads, **own, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1", "MPLBACKEND": "agg"}
