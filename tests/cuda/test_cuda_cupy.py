"""What the engine asks of an array's own functions, CuPy has: checked where CuPy is installed, without a GPU."""

import ast
import gc
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest

import tinyllm
from tinyllm.autograd.tape import Op

cupy = pytest.importorskip("cupy", reason="CuPy, of tinyllm[cuda], is not installed")

PACKAGE = Path(tinyllm.__file__).parent
NAMES = ("xp",)  # what the sources call the namespace of an array


def calls() -> Iterator[tuple[str, str, set[str]]]:
    """Where, function and keywords of each use of a namespace."""
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text("utf-8"))
        called = {id(n.func): n for n in ast.walk(tree) if isinstance(n, ast.Call)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in NAMES:
                call = called.get(id(node))
                keywords = {k.arg for k in call.keywords if k.arg} if call else set()
                yield f"{path.relative_to(PACKAGE)}:{node.lineno}", node.attr, keywords


def test_functions_and_their_keywords() -> None:
    found = list(calls())
    assert len(found) > 100
    for where, name, keywords in found:
        function = getattr(cupy, name, None)
        assert function is not None, f"{where}: CuPy has no {name}"
        try:
            parameters = inspect.signature(function).parameters
        except (TypeError, ValueError):  # a ufunc, or a class: they take what NumPy's do
            continue
        if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            assert keywords <= set(parameters), f"{where}: cupy.{name} does not take {keywords - set(parameters)}"


def test_primitives_that_are_functions_by_name() -> None:
    primitives = [x for x in gc.get_objects() if isinstance(x, Op) and x.forward.__name__ == "by_name"]
    assert len(primitives) > 20
    for op in primitives:
        assert hasattr(cupy, op.name), f"CuPy has no {op.name}"
