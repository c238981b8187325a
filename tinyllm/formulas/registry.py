"""The registry: every entry by its id, and the inspection that finds what an entry lacks."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

from tinyllm.errors import TinyLLMError, nearest
from tinyllm.formulas import (
    activations,
    attention,
    block,
    claims,
    dropout,
    evaluation,
    init,
    language_model,
    losses,
    masked_lm,
    moe,
    optimisers,
    positions,
    procedures,
    recurrent,
    samples,
    sat,
    words,
)
from tinyllm.formulas.entry import Erratum, Formula

__all__ = ["Erratum", "Formula", "FormulaError", "all_formulas", "gaps", "get", "resolve"]

KINDS = {"F-": "formula", "P-": "procedure", "C-": "sample", "E-": "claim"}


class FormulaError(TinyLLMError, LookupError):
    """An id that no formula, procedure, sample or claim has."""


_ALL: dict[str, Formula] = {
    entry.id: entry
    for module in (
        attention,
        sat,
        losses,
        block,
        language_model,
        words,
        positions,
        activations,
        optimisers,
        init,
        dropout,
        recurrent,
        masked_lm,
        moe,
        evaluation,
        procedures,
        samples,
        claims,
    )
    for entry in module.ENTRIES
}


def all_formulas() -> tuple[Formula, ...]:
    """Every entry: formulas, procedures, samples, claims, each kind in the order of its files.

    Returns
    -------
    tuple of Formula
    """
    order = list(KINDS.values())
    return tuple(sorted(_ALL.values(), key=lambda entry: order.index(entry.kind)))


def get(id: str) -> Formula:
    """The entry with this id, such as ``"F-ATTN"``.

    Parameters
    ----------
    id : str
        As in the registry's list.

    Returns
    -------
    Formula

    Raises
    ------
    FormulaError
        When there is none; the nearest id is named.
    """
    if id not in _ALL:
        raise FormulaError(f"no formula has the id {id!r}{nearest(id, _ALL)}")
    return _ALL[id]


def resolve(dotted: str) -> object:
    """The object behind a dotted name such as ``"tinyllm.optim.Adam"``.

    Parameters
    ----------
    dotted : str
        Module and names, joined by dots.

    Returns
    -------
    object

    Raises
    ------
    ImportError, AttributeError
        When a module or a name on the way does not exist.
    """
    module, *names = dotted.split(".")
    found: object = importlib.import_module(module)
    for name in names:
        module = f"{module}.{name}"
        if not hasattr(found, name):
            try:
                importlib.import_module(module)
            except ModuleNotFoundError as error:
                raise AttributeError(f"{dotted}: there is no {module}") from error
        found = getattr(found, name)
    return found


def gaps(entry: Formula, root: Path) -> list[str]:
    """What an entry lacks, one sentence each; an empty list when it holds what its status promises.

    An open entry may lack its library counterpart, but it has to say what is missing and to name it: once all that it
    names exists, to be open is a gap. Every test it names must exist. A complete one has loops, tests and a library
    counterpart (a claim needs none); what it announces as misprinted it has to list as an erratum with a test, and with
    code that shows it. Kernels, where any are named, must exist.

    Parameters
    ----------
    entry : Formula
        What is inspected.
    root : Path
        The folder that holds ``tests/``.

    Returns
    -------
    list of str
    """
    found = []
    if KINDS.get(entry.id[:2]) != entry.kind:
        found.append(f"kind {entry.kind!r} does not fit the id {entry.id!r}")
    for name in ("title", "meaning", "where", "tests"):
        if not getattr(entry, name):
            found.append(f"no {name}")
    if entry.kind == "formula" and not (entry.latex and entry.axes):
        found.append("a formula needs latex and axes")
    if entry.kind != "sample" and not entry.loops:
        found.append("no loops")
    if entry.as_printed and not entry.errata:
        found.append("a printed version, but no erratum that says what is wrong in it")
    if entry.kind in ("sample", "claim") and not entry.errata:
        found.append("no erratum")
    for erratum in entry.errata:
        if not (entry.as_printed or erratum.show):
            found.append(f"no code shows the erratum: {erratum.fault}")
    for test in (*entry.tests, *(erratum.test for erratum in entry.errata)):
        file, _, name = test.partition("::")
        if not (root / file).is_file():
            found.append(f"no test file {file}")
        elif not re.search(rf"^def {re.escape(name)}\(", (root / file).read_text(encoding="utf-8"), re.MULTILINE):
            found.append(f"no test {test}")
    if entry.status == "open":
        if not entry.reason:
            found.append("open, but no reason")
        if not _unresolved(entry.library):
            found.append("open, but all that it names is there: close it, or name what is missing")
    elif entry.status == "complete":
        if not entry.library and entry.kind != "claim":
            found.append("no library counterpart")
        found += [f"no library code: {error}" for error in _unresolved(entry.library)]
    else:
        found.append(f"unknown status {entry.status!r}")
    found += [f"no kernel: {error}" for error in _unresolved(entry.kernels)]
    return found


def _unresolved(names: tuple[str, ...]) -> list[str]:
    """What is said of each dotted name with nothing behind it."""
    errors = []
    for dotted in names:
        try:
            resolve(dotted)
        except (ImportError, AttributeError) as error:
            errors.append(str(error))
    return errors
