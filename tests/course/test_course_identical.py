"""Two executions of a chapter give the same bytes, except in cells whose output is a time."""

import pytest

pytest.importorskip("jupytext", reason="the chapters' tools need pip install 'tinyllm[chapters]'")
pytest.importorskip("nbclient", reason="the chapters' tools need pip install 'tinyllm[chapters]'")

from tinyllm.course.build import as_bytes
from tinyllm.course.execute import in_kernel
from tinyllm.course.files import read, sources, tags


def executed(source):
    """The notebook's bytes after an execution in a kernel of its own, without the outputs of timed cells."""
    notebook = read(source)
    in_kernel(notebook, source.name, fast=True)
    for cell in notebook.cells:
        if "timing" in tags(cell):
            cell.outputs = []
    assert any(cell.get("outputs") for cell in notebook.cells)
    return as_bytes(notebook)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("source", sources(), ids=lambda path: path.stem)
def test_two_executions_give_the_same_bytes(source):
    one, two = executed(source), executed(source)
    if one != two:
        first = next(i for i, (a, b) in enumerate(zip(one, two, strict=False)) if a != b)
        around = slice(max(0, first - 200), first + 200)
        raise AssertionError(
            f"they differ: {one[around].decode(errors='replace')!r} {two[around].decode(errors='replace')!r}"
        )
