"""Tokenizer files: read with errors that name the file, written whole or not at all."""

from __future__ import annotations

import gzip
import json
import os
import zlib
from pathlib import Path
from typing import Any

from tinyllm.errors import TokenizerError

_KINDS: dict[type, str] = {
    dict: "an object",
    list: "a list",
    str: "a string",
    int: "a whole number",
    bool: "true or false",
}


def describe(value: object) -> str:
    """What `value` is, in JSON's words, for a message."""
    if value is None:
        return "null"
    kind = _KINDS.get(type(value), type(value).__name__)
    return f"{kind} ({value!r})" if isinstance(value, str | int | float) and len(repr(value)) < 60 else kind


def field(holder: dict[str, Any], name: str, kind: type, where: str = "") -> Any:
    """The value of `name` in a JSON object, which must be there and be of this `kind`."""
    label = f"{where}.{name}" if where else name
    if name not in holder:
        raise TokenizerError(f"{label!r} is missing; it should be {_KINDS[kind]}")
    return expect(holder[name], kind, label)


def expect(value: Any, kind: type, label: str) -> Any:
    """`value`, which must be of this `kind`; `label` is its place in the file."""
    if type(value) is not kind:
        raise TokenizerError(f"{label!r} should be {_KINDS[kind]}, but is {describe(value)}")
    return value


def only_known(holder: dict[str, Any], known: set[str], label: str) -> None:
    """TokenizerError where a JSON object has a setting that nobody here would obey."""
    for name in holder:
        if name not in known:
            raise TokenizerError(f"'{label}.{name}' is not supported; known: {', '.join(sorted(known))}")


def vocabulary(value: dict[str, Any], label: str) -> dict[str, int]:
    """`value`, a JSON object whose values must all be whole numbers."""
    for token, index in value.items():
        if type(index) is not int:
            expect(index, int, f"{label}.{token}")
    return value


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, gzip-compressed or not; TokenizerError where it cannot be read."""
    try:
        data = path.read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise TokenizerError(f"{path}: not UTF-8 at byte {error.start}; is it a tokenizer's file?") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise TokenizerError(f"{path}: damaged gzip data ({error})") from None
    except FileNotFoundError:
        raise TokenizerError(f"{path}: no such file") from None
    except OSError as error:
        raise TokenizerError(f"{path}: cannot be read ({error.strerror or error})") from None


def read_json_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; TokenizerError where it is empty, cut off or no object."""
    text = read_text(path)
    if not text.strip():
        raise TokenizerError(f"{path}: the file is empty")
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise TokenizerError(
            f"{path}: not valid JSON at line {error.lineno}, column {error.colno} ({error.msg}); was it cut off?"
        ) from None
    except (RecursionError, ValueError) as error:
        raise TokenizerError(f"{path}: not a tokenizer's JSON ({error})") from None
    if not isinstance(value, dict):
        raise TokenizerError(f"{path}: should hold a JSON object, but holds {describe(value)}")
    return value


def write_json(path: Path, value: dict[str, Any] | list[Any]) -> None:
    """Write `value` beside `path` and put it in place by one rename: the old file stays whole if anything fails."""
    text = json.dumps(value, ensure_ascii=False, indent=2) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with open(part, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
