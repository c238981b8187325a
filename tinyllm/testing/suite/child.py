"""The process in which the checked file runs: it reads a job, runs checks, and reports each one as a line of JSON.

Started by `run`. It is no security boundary: it keeps accidents away from the process that grades, not attacks.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import sys
import time
import traceback
import types
from pathlib import Path
from typing import Any

from tinyllm.errors import ConfigError
from tinyllm.testing.suite.checks import Runnable, collect, guarded
from tinyllm.testing.suite.config import refuse_unknown
from tinyllm.testing.suite.table import LAWS

MODULE = "checked_file"
STARTS_PROCESSES = frozenset(
    ("os.fork", "os.forkpty", "os.exec", "os.posix_spawn", "os.spawn", "os.system", "subprocess.Popen")
)


class Channel:
    """The way back: one line of JSON for each event, marked so that stray output is not taken for one."""

    def __init__(self, token: str) -> None:
        self.token = token
        self.process = os.getpid()
        self.descriptor = os.dup(1)
        os.dup2(2, 1)  # whatever the file prints goes another way
        self.identity = os.fstat(self.descriptor)[:3]

    def send(self, event: str, **content: Any) -> None:
        """Report, or end at once if this is a copy of the process or the pipe is gone."""
        if os.getpid() != self.process:
            os._exit(0)
        line = (json.dumps({"token": self.token, "event": event, **content}) + "\n").encode()
        try:
            if os.fstat(self.descriptor)[:3] != self.identity:  # closed, and the number used for another file
                os._exit(71)
            while line:
                line = line[os.write(self.descriptor, line) :]
        except OSError:
            os._exit(71)


def limit(memory: float) -> None:
    """Bound memory, files and core dumps, where the system can."""
    try:
        import resource
    except ImportError:  # Windows
        return
    size = int(memory * 2**20)
    try:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except OSError:  # not Linux: what is in use already is not known
        used = 2**31
    for name, bound in (("RLIMIT_AS", used + size), ("RLIMIT_FSIZE", size), ("RLIMIT_CORE", 0)):
        kind = getattr(resource, name, None)
        if kind is None:
            continue
        hard = resource.getrlimit(kind)[1]
        try:
            resource.setrlimit(kind, (bound if hard == resource.RLIM_INFINITY else min(bound, hard), hard))
        except (ValueError, OSError):  # refused by the system
            continue


def refuse_processes(event: str, arguments: Any) -> None:
    """An audit hook: a file under check starts no other processes."""
    if event in STARTS_PROCESSES:
        raise PermissionError(f"a file under check must not start other processes ({event})")


def main() -> None:
    """Run one job."""
    job = json.loads(sys.stdin.buffer.read())
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    channel = Channel(job["token"])
    try:
        checks = prepare(job, channel)
        if checks is not None:
            for name, check in checks.items():
                if job["checks"] is None or name in job["checks"]:
                    channel.send("begin", check=name)
                    start = time.monotonic()
                    outcome = guarded(check.run, job["file"])
                    channel.send("end", check=name, seconds=round(time.monotonic() - start, 3), **outcome)
        channel.send("done")
    except Exception:
        channel.send("fault", message=traceback.format_exc())
    os._exit(0)  # threads and exit handlers of the file are not waited for


def prepare(job: dict[str, Any], channel: Channel) -> dict[str, Runnable] | None:
    """Load laws and file; the checks to run, in order."""
    try:
        for where in job["laws"]:
            load_laws(where, job["folder"])
        every = [f"{name}.{law.__name__}" for name, laws in LAWS.items() for law in laws]
        refuse_unknown(job["patterns"], every)
        for name in job["required"]:
            refuse_unknown([name if name in LAWS else name.removesuffix("_backward").removesuffix("_vjp")], every)
    except ConfigError as error:
        channel.send("config", message=str(error))
        return None
    channel.send("ready")
    limit(job["memory"])
    sys.addaudithook(refuse_processes)
    loaded: list[tuple[list[str], dict[str, Runnable]]] = []
    outcome = guarded(
        lambda: loaded.append(collect(vars(load(job["file"])), MODULE, job["only"], job["skip"])), job["file"]
    )
    if outcome["status"] != "passed":
        channel.send("unloadable", **outcome)
        return None
    found, checks = loaded[0]
    channel.send("loaded", checks={name: check.says for name, check in checks.items()}, found=found, known=sorted(LAWS))
    return checks


def load(path: str) -> types.ModuleType:
    """Run a Python file as a module."""
    spec = importlib.util.spec_from_file_location(MODULE, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[MODULE] = module
    sys.path.append(str(Path(path).parent))
    spec.loader.exec_module(module)
    return module


def load_laws(where: str, folder: str) -> None:
    """Run a teacher's file of laws, or import a module of them."""
    try:
        if where.endswith(".py"):
            spec = importlib.util.spec_from_file_location(f"laws_{Path(where).stem}", Path(folder, where))
            assert spec is not None
            assert spec.loader is not None
            spec.loader.exec_module(importlib.util.module_from_spec(spec))
        else:
            if folder not in sys.path:
                sys.path.append(folder)
            importlib.import_module(where)
    except Exception as error:
        raise ConfigError(f"the laws {where} cannot be loaded: {type(error).__name__}: {error}") from error


if __name__ == "__main__":
    main()
