"""What the parsers of all commands share, and the exit codes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any, NoReturn

DONE, OURS, USERS, INTERRUPTED = 0, 1, 2, 130
AS_JSON = "print one JSON object instead of text"


class Parser(argparse.ArgumentParser):
    """One that names what is wrong in the same words as every other error of the user's."""

    def error(self, message: str) -> NoReturn:
        """Leave with the exit code of an error of the user's."""
        self.print_usage(sys.stderr)
        self.exit(USERS, f"tinyllm: {message}\n")


def add_command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], int | None], help: str
) -> argparse.ArgumentParser:
    """A command, whose options go to `run`; it returns the exit code, or None where all is done."""
    added: argparse.ArgumentParser = commands.add_parser(name, help=help, description=help, allow_abbrev=False)
    added.set_defaults(run=run)
    added.add_argument("--json", action="store_true", help=AS_JSON)
    return added


def add_part(commands: Any, name: str, help: str) -> argparse.ArgumentParser:
    """A command of a command; --json may stand behind either."""
    added: argparse.ArgumentParser = commands.add_parser(name, help=help, description=help, allow_abbrev=False)
    added.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help=AS_JSON)
    return added


def flags(parser: argparse.ArgumentParser) -> list[str]:
    """Of a command, and of the commands in it."""
    found: list[str] = []
    for action in parser._actions:
        found += action.option_strings
        if isinstance(action, argparse._SubParsersAction):
            found += [flag for part in action.choices.values() for flag in flags(part)]
    return found
