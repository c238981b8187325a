"""The TOML file that restricts, weights and adds checks."""

from __future__ import annotations

import fnmatch
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from tinyllm.errors import ConfigError, nearest

TIMEOUT, MEMORY = 10.0, 1024.0


@dataclass(frozen=True)
class Config:
    """What to check, and how much each check counts.

    Attributes
    ----------
    only, skip : tuple of str
        Functions (``softmax``), checks (``softmax.axes``) or patterns (``*.gradient``).
    required : tuple of str
        Functions that the file must have, such as ``softmax`` or ``softmax_backward``.
    files : tuple of str
        Copied beside the checked file; relative to the TOML file.
    laws : tuple of str
        Python files, relative to the TOML file, or dotted names of modules, with more laws.
    timeout, memory : float
        Seconds and MiB that each check may take.
    weights : dict
        What a check counts, by the same names as `only`; the last that fits wins.
    folder : Path
        Of the TOML file.
    """

    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    laws: tuple[str, ...] = ()
    timeout: float = TIMEOUT
    memory: float = MEMORY
    weights: dict[str, float] = field(default_factory=dict)
    folder: Path = Path()

    def weight(self, name: str) -> float:
        """What the check ``function.law`` counts."""
        return ([1.0] + [w for pattern, w in self.weights.items() if fits(pattern, name)])[-1]

    def patterns(self) -> tuple[str, ...]:
        """All names of checks that the file mentions."""
        return (*self.only, *self.skip, *self.weights)


def fits(pattern: str, name: str) -> bool:
    """Whether a pattern names the check ``function.law``."""
    return fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(name.partition(".")[0], pattern)


def refuse_unknown(patterns: Iterable[str], checks: Iterable[str]) -> None:
    """Raise ConfigError for a name that no check has."""
    known = list(checks)
    for pattern in patterns:
        if not any(fits(pattern, name) for name in known):
            functions = {name.partition(".")[0] for name in known}
            near = known if "." in pattern else functions
            raise ConfigError(f"{pattern!r} names no check{nearest(pattern, near)}")


def read(path: str | Path) -> Config:
    """The configuration in a TOML file.

    Raises
    ------
    ConfigError
        For a file that cannot be read, is not TOML, or has unknown names or impossible values.
    """
    try:
        found = tomllib.loads(Path(path).read_bytes().decode("utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not a TOML file: {error}") from error
    for name in found:
        if name not in ("check", "weights"):
            raise ConfigError(f"{path}: unknown table [{name}]{nearest(name, ('check', 'weights'))}")
    settings: dict[str, Any] = {}
    kinds = {f.name: f.type for f in fields(Config) if f.name not in ("weights", "folder")}
    for name, value in _table(path, found, "check").items():
        if name not in kinds:
            raise ConfigError(f"{path}: unknown setting {name!r} in [check]{nearest(name, kinds)}")
        settings[name] = _checked(f"{path}: {name}", value, number=kinds[name] == "float")
    weights = _table(path, found, "weights")
    for name, value in weights.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
            hint = '; write "function.law" in quotes' if isinstance(value, dict) else ""
            raise ConfigError(f"{path}: the weight of {name} must be a number from 0 up, got {value!r}{hint}")
    return Config(**settings, weights=weights, folder=Path(path).resolve().parent)


def _table(path: str | Path, found: dict[str, Any], name: str) -> dict[str, Any]:
    table = found.get(name, {})
    if not isinstance(table, dict):
        raise ConfigError(f"{path}: [{name}] must be a table, got {table!r}")
    return table


def positive(name: str, value: Any) -> float:
    """A setting that must be a number above 0."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise ConfigError(f"{name} must be a number above 0, got {value!r}")
    return float(value)


def _checked(name: str, value: Any, number: bool) -> Any:
    if number:
        return positive(name, value)
    if not (isinstance(value, list) and all(isinstance(item, str) for item in value)):
        raise ConfigError(f"{name} must be a list of strings, got {value!r}")
    return tuple(value)
