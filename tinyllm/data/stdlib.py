"""Two corpora that every CPython carries: the prose and the code of its own standard library.

Sources are parsed, never imported. Both differ from one Python version to the next, so `Corpus.python` records it.
"""

from __future__ import annotations

import ast
import os
import sys
import sysconfig
import tokenize
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tinyllm.data.corpus import Corpus, Document, without_duplicates
from tinyllm.data.files import Progress
from tinyllm.errors import DataError

# Not the library's own text: installed packages, and tests (nearly twice as much as all the rest, and often tables of
# cases). IDLE is an application; lib2to3 holds Python 2 fixtures, and later versions are without it.
SKIPPED_FOLDERS = {"site-packages", "dist-packages", "__pycache__", "test", "tests", "idlelib", "lib2to3"}
TOPICS = "pydoc_data/topics.py"


def read_prose(progress: Progress | None = None) -> Corpus:
    """`pydoc_data.topics` and every docstring of the standard library, grouped by top-level package, copies removed."""
    documents: list[Document] = []
    left_out: Counter[str] = Counter()
    for source, group, code in _sources(progress):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the library's escape sequences are not the user's concern
            try:
                tree = ast.parse(code)
            except SyntaxError:
                left_out["file that does not parse"] += 1
                continue
        texts = _topics(tree) if source == TOPICS else _docstrings(tree)
        documents += [Document(text, f"{source}:{line}", group) for line, text in texts]
    kept, left_out["duplicate"] = without_duplicates(documents)
    return Corpus("stdlib-prose", kept, dict(left_out), sys.version)


def read_code(progress: Progress | None = None) -> Corpus:
    """Every source file of the standard library, grouped by top-level package, copies removed."""
    # The topics are prose in a dict literal: they belong to the other corpus.
    documents = [
        Document(code, source, group) for source, group, code in _sources(progress) if code and source != TOPICS
    ]
    kept, duplicates = without_duplicates(documents)
    return Corpus("stdlib-code", kept, {"duplicate": duplicates}, sys.version)


def _sources(progress: Progress | None) -> Iterator[tuple[str, str, str]]:
    """(path below the library's folder, top-level package or module, source) of each file, in sorted order."""
    root = Path(sysconfig.get_path("stdlib"))
    paths = []
    for directory, folders, files in os.walk(root):
        folders[:] = [name for name in folders if name not in SKIPPED_FOLDERS and not name.startswith("config-")]
        # _sysconfigdata describes the machine that Python was built on.
        paths += [
            Path(directory, name) for name in files if name.endswith(".py") and not name.startswith("_sysconfigdata")
        ]
    if not paths:
        raise DataError(
            f"this Python has no sources of its standard library at {root}; name a file or folder of text instead"
        )
    names = sorted((path.relative_to(root).as_posix(), path) for path in paths if path.is_file())
    for done, (source, path) in enumerate(names, start=1):
        with tokenize.open(path) as file:  # obeys the coding line
            code = file.read()
        yield source, source.split("/")[0].removesuffix(".py"), code
        if progress:
            progress(done, len(names), "files")


def _docstrings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, text) of the docstrings of a module, its classes and functions, in source order."""
    stack: list[ast.AST] = [tree]
    while stack:
        node = stack.pop()
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = (ast.get_docstring(node) or "").strip()
            if text:
                yield node.body[0].lineno, text
        # Only statements hold definitions: leaving expressions alone halves the time.
        children = [
            c for c in ast.iter_child_nodes(node) if isinstance(c, ast.stmt | ast.excepthandler | ast.match_case)
        ]
        stack += reversed(children)


def _topics(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, text) of the help topics: the values of the module's dict literal."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            for value in node.values:
                text = ast.literal_eval(value).strip()
                if text:
                    yield value.lineno, text
