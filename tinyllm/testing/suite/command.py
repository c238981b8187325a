"""`tinyllm check FILE.py`."""

from __future__ import annotations

import json as json_module
import sys
from dataclasses import replace
from pathlib import Path

from tinyllm.errors import ConfigError, TinyLLMError
from tinyllm.testing.suite import config as configuration
from tinyllm.testing.suite import report
from tinyllm.testing.suite.run import check_file

PASSED, FAILED, USERS = 0, 1, 2


def main(
    path: str | Path,
    json: bool = False,
    junit: str | Path | None = None,
    config: str | Path | None = None,
    timeout: float | None = None,
    memory: float | None = None,
) -> int:
    """Check a file, print the report, and return the exit code.

    Parameters
    ----------
    path : str or Path
        A Python file with functions of the library's names, or marked with `implements`.
    json : bool
        Print one JSON object instead of the table.
    junit : str or Path, optional
        Also write JUnit XML here.
    config : str or Path, optional
        A TOML file that restricts, weights and adds checks.
    timeout : float, optional
        Seconds for each check; 10 unless the TOML file says otherwise.
    memory : float, optional
        MiB for the file's own use; 1024 unless the TOML file says otherwise.

    Returns
    -------
    int
        0: all passed; 1: some failed; 2: the user's error, its message on standard error.
    """
    try:
        settings = configuration.read(config) if config is not None else configuration.Config()
        settings = replace(
            settings,
            timeout=settings.timeout if timeout is None else configuration.positive("timeout", timeout),
            memory=settings.memory if memory is None else configuration.positive("memory", memory),
        )
        if junit is not None and not Path(junit).absolute().parent.is_dir():
            raise ConfigError(f"{junit} cannot be written: there is no folder {Path(junit).absolute().parent}")
        result = check_file(path, settings)
        if junit is not None:
            _write(Path(junit), report.junit(result))
    except TinyLLMError as error:
        print(f"tinyllm: {error}", file=sys.stderr)
        return USERS
    print(json_module.dumps(report.as_json(result)) if json else report.text(result))
    return PASSED if result.ok else FAILED


def _write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error
