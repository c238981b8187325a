"""The ladder: one formula from LaTeX to kernels, each rung read from the sources as they are now."""

from __future__ import annotations

import ast
import inspect
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tinyllm.formulas.entry import Erratum, Formula
from tinyllm.formulas.registry import all_formulas, get, resolve

ROOT = Path(__file__).parents[2]  # the folder that holds the package
WIDTH = 100

# In a class, what carries the formula: a module's forward pass, an optimiser's step.
METHODS = ("forward", "_update")


def listing() -> str:
    """One line for each entry: id, title, chapter, whether it is open, and its places in the documents.

    Returns
    -------
    str
    """
    entries = all_formulas()
    ids, titles = max(len(e.id) for e in entries), max(len(e.title) for e in entries)
    lines = []
    for e in entries:
        chapter = f"chapter {e.chapter}" if e.chapter else ""
        state = "open" if e.status == "open" else ""
        places = ", ".join(f"{document[:3]} {section}" for document, section in e.where)
        lines.append(f"{e.id:{ids}}  {e.title:{titles}}  {chapter:10}  {state:4}  {places}")
    return "\n".join(lines)


def ladder(id: str) -> str:
    """Everything about one entry, from the formula down to the kernels.

    Parameters
    ----------
    id : str
        Such as ``"F-ATTN"``.

    Returns
    -------
    str
        The formula and its errata, the literal loops, the library's code with its derivative rules, the Numba and CUDA
        kernels, the tests and the chapter.

    Raises
    ------
    FormulaError
        When there is no such entry; the nearest id is named.
    """
    entry = get(id)
    title = f"{entry.id}  {entry.title}"
    rungs = [
        ("Formula", _formula(entry)),
        ("Loops (float64)", _loops(entry)),
        ("Library", _library(entry)),
        (
            "Numba kernels",
            "\n\n".join(_source(resolve(name), name) for name in entry.kernels) or "none: NumPy computes it",
        ),
        ("CUDA kernels", "\n\n".join(_cuda_files(entry)) or "none"),
        ("Tests", "\n".join(entry.tests)),
        ("Chapter", entry.chapter or "none"),
    ]
    if entry.kind != "formula" and not entry.kernels:
        del rungs[3:5]
    parts = [f"{title}\n{'=' * len(title)}"]
    parts += [_heading(number, name) + "\n\n" + text for number, (name, text) in enumerate(rungs, start=1)]
    return "\n\n".join(parts) + "\n"


# --- the rungs --------------------------------------------------------------------------------------------------------


def _formula(entry: Formula) -> str:
    lines = []
    if entry.latex:
        lines += [f"    {entry.latex}", ""]
    if entry.printed:
        lines += ["As printed:", f"    {entry.printed}", ""]
    lines += [textwrap.fill(entry.meaning, WIDTH), "", "Where: " + ", ".join(map(" ".join, entry.where))]
    if entry.axes:
        lines.append(f"Axes: {entry.axes}")
    if entry.source:
        lines.append(f"Source: {entry.source}")
    if entry.status == "open":
        lines.append(f"Open: {entry.reason}")
    for erratum in entry.errata:
        lines += ["", *_erratum(erratum)]
    return "\n".join(lines)


def _erratum(erratum: Erratum) -> Iterator[str]:
    for name, text in (
        ("Fault", erratum.fault),
        ("Remedy", erratum.remedy),
        ("Shown", erratum.show() if erratum.show else ""),
        ("Test", erratum.test),
    ):
        if text:
            yield textwrap.fill(f"{name + ':':8}{text}", WIDTH, subsequent_indent=" " * 8, break_on_hyphens=False)


def _loops(entry: Formula) -> str:
    meant = [_source(f) for f in entry.loops]
    printed = [_source(f, note="as printed") for f in entry.as_printed]
    return "\n\n".join(meant + printed) or "none: the sample is code already"


def _library(entry: Formula) -> str:
    pieces: dict[str, None] = {}  # in order, each once: two functions may share an operation
    for dotted in entry.library:
        try:
            found = resolve(dotted)
        except (ImportError, AttributeError):
            pieces[f"--- {dotted}: not written yet"] = None
            continue
        pieces.update(dict.fromkeys(_counterpart(dotted, found)))
    return "\n\n".join(pieces) or "none: a claim about the text"


def _counterpart(dotted: str, found: Any) -> Iterator[str]:
    """The source of what an entry names: of a function with its operations, of a class the method with the formula."""
    if not (inspect.isfunction(found) or inspect.isclass(found)):
        yield f"--- {dotted} = {found!r}"
    elif found.__module__.startswith("tinyllm.samples."):  # to be read beside the printed sample: the whole file
        yield _source(sys.modules[found.__module__], dotted)
    elif inspect.isclass(found):
        methods = [getattr(found, name) for name in METHODS if hasattr(found, name)]
        first_line = (inspect.getdoc(found) or "").split("\n")[0]
        yield f"--- {dotted}  {_place(found)}\n{first_line}"
        for method in methods:
            yield _source(method, f"{dotted}.{method.__name__}")
    else:
        yield _source(found, dotted)
        for name, op in operations(found).items():
            yield from _rule(found, name, op)


def operations(function: Callable[..., Any]) -> dict[str, Any]:
    """The operations of the engine that a function applies by itself, by their names in its module."""
    op_class = resolve("tinyllm.autograd.tape.Op")
    named = {name: function.__globals__.get(name) for name in function.__code__.co_names}  # type: ignore[attr-defined]
    return {name: value for name, value in named.items() if isinstance(value, op_class)}  # type: ignore[arg-type]


def _rule(function: Callable[..., Any], name: str, op: Any) -> Iterator[str]:
    """How a gradient passes an operation: a primitive's line of the table; a fused one's `ref` and NumPy kernel."""
    if op.ref is None:
        module = sys.modules[function.__module__]
        yield _assignment(module, name)
        if vars(module).get(op.forward.__name__) is op.forward:  # where it is more than NumPy's function or a lambda
            yield _source(op.forward, note="NumPy, forward")
        return
    yield _source(op.ref, note=f"{op.name} in small operations: the oracle, and what is differentiated twice")
    kernel = op.impls["numpy"]()
    shown: dict[str, None] = {}
    for part, note in ((kernel.forward, "NumPy, forward"), (kernel.vjp, "NumPy, backward")):
        for helper in _helpers(part):
            shown[_source(helper, note="NumPy, helper")] = None
        shown[_source(part, note=note)] = None
    yield from shown


def _helpers(function: Callable[..., Any]) -> Iterator[Callable[..., Any]]:
    """Functions of its own module that a kernel calls: private ones by name, and those that were handed to it."""
    code = function.__code__  # type: ignore[attr-defined]
    by_name = (function.__globals__.get(name) for name in code.co_names if name.startswith("_"))  # type: ignore[attr-defined]
    handed = inspect.getclosurevars(function).nonlocals.values()
    for found in (*by_name, *handed):
        if inspect.isfunction(found) and found.__module__ == function.__module__:
            yield found


def _cuda_files(entry: Formula) -> Iterator[str]:
    """The files of the CUDA kernels, which bear the names of the Numba ones; read, not imported, for want of a GPU."""
    for module in dict.fromkeys(name.split(".")[3] for name in entry.kernels):
        file = ROOT / "tinyllm" / "kernels" / "cuda" / f"{module}.py"
        if file.is_file():
            yield f"--- {file.relative_to(ROOT).as_posix()}\n{file.read_text(encoding='utf-8').rstrip()}"


# --- reading sources --------------------------------------------------------------------------------------------------


def _source(found: Any, name: str = "", note: str = "") -> str:
    """The source of a function or module under a line that says what and where it is."""
    label = name or found.__name__
    source = textwrap.dedent(inspect.getsource(found)).rstrip()
    return f"--- {label}  {_place(found)}{f'  ({note})' if note else ''}\n{source}"


def _assignment(module: Any, name: str) -> str:
    """The statement of a module that binds `name`."""
    source = inspect.getsource(module)
    for node in ast.parse(source).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            place = f"{Path(module.__file__).relative_to(ROOT).as_posix()}:{node.lineno}"
            return f"--- {name}  {place}  (rule: g arrives at y)\n{ast.get_source_segment(source, node)}"
    raise ValueError(f"{module.__name__} has no assignment to {name}")


def _place(found: Any) -> str:
    """File and line, from the folder that holds the package."""
    found = inspect.unwrap(found)
    file = Path(inspect.getsourcefile(found) or "").relative_to(ROOT).as_posix()
    return file if inspect.ismodule(found) else f"{file}:{inspect.getsourcelines(found)[1]}"


def _heading(number: int, name: str) -> str:
    line = f"{number}. {name}"
    return f"{line}\n{'-' * len(line)}"
