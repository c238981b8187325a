"""Commands that check derivatives, formulas and code: `check`, `mutants`, `proofs`, `formulas`."""

from __future__ import annotations

import argparse
from typing import Any

from tinyllm.cli.output import print_json
from tinyllm.cli.parser import add_command


def add_check(commands: Any) -> None:
    check = add_command(
        commands, "check", _check, "hold the functions in a file of yours against the formulas and their derivatives"
    )
    check.add_argument("file", metavar="FILE.py")
    check.add_argument("--config", metavar="FILE.toml", help="restrict, weigh and add checks")
    check.add_argument("--junit", metavar="FILE.xml", help="also write JUnit XML here")
    check.add_argument("--timeout", type=float, metavar="SECONDS", help="for each check (default: 10)")
    check.add_argument("--memory", type=float, metavar="MIB", help="for the file's own use (default: 1024)")


def _check(options: argparse.Namespace) -> int:
    from tinyllm.testing import suite

    return suite.main(options.file, options.json, options.junit, options.config, options.timeout, options.memory)


def add_mutants(commands: Any) -> None:
    mutants = add_command(
        commands, "mutants", _mutants, "plant mistakes in every derivative and see whether gradcheck finds them"
    )
    mutants.add_argument("--op", action="append", metavar="NAME", help="only this operation; may be repeated")
    mutants.add_argument("--seed", type=int, default=0, metavar="S")


def _mutants(options: argparse.Namespace) -> int:
    from tinyllm.testing import mutants

    return mutants.main(options.json, options.op, options.seed)


def add_proofs(commands: Any) -> None:
    proofs = add_command(
        commands, "proofs", _proofs, "check every derivative on each backend, in each dtype, to order 2"
    )
    proofs.add_argument("--op", action="append", metavar="NAME", help="only this operation; may be repeated")
    proofs.add_argument("--seed", type=int, default=0, metavar="S")
    proofs.add_argument("--draws", type=int, default=6, metavar="N", help="shapes drawn for each (%(default)s)")


def _proofs(options: argparse.Namespace) -> int:
    from tinyllm.testing import proofs

    return proofs.main(options.json, options.op, options.seed, options.draws)


def add_formulas(commands: Any) -> None:
    formulas = add_command(
        commands, "formulas", _formulas, "every formula of the documents; with an ID, its ladder from loops to kernels"
    )
    formulas.add_argument("id", metavar="ID", nargs="?", help="e.g. F-ATTN")


def _formulas(options: argparse.Namespace) -> None:
    from tinyllm import formulas

    if options.json:
        entries = [formulas.get(options.id)] if options.id else formulas.all_formulas()
        names = ("id", "kind", "title", "where", "latex", "library", "tests", "chapter", "status", "reason")
        print_json({entry.id: {name: getattr(entry, name) for name in names} for entry in entries})
    else:
        print(formulas.ladder(options.id) if options.id else formulas.listing())
