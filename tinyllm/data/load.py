"""A corpus by its name or path."""

from __future__ import annotations

import os
from pathlib import Path

from tinyllm.data import stdlib
from tinyllm.data.corpus import Corpus
from tinyllm.data.files import Progress, read_file, read_folder, read_stdin
from tinyllm.errors import ConfigError, DataError, nearest

_LIBRARY = {"stdlib-prose": stdlib.read_prose, "stdlib-code": stdlib.read_code}

NAMES = tuple(_LIBRARY)


def load(name_or_path: str | Path, encoding: str | None = None, progress: Progress | None = None) -> Corpus:
    """Read a corpus.

    Parameters
    ----------
    name_or_path : str or Path
        `stdlib-prose`, `stdlib-code`, a file (plain or gzip), a folder (every text file below it is a document) or "-"
        for standard input. A file called like a corpus is reached as `./stdlib-prose`.
    encoding : str, optional
        Encoding of the files; without it UTF-8, or UTF-16 or UTF-32 where a byte order mark says so.
    progress : callable, optional
        Called as `progress(done, total, what)` where there is more than one file.

    Returns
    -------
    Corpus
        At least one document and at least two distinct characters.

    Raises
    ------
    DataError
        For a path that does not exist or holds no usable text; it names the file and, for a wrong encoding, the byte.
    ConfigError
        For an unknown encoding, or one given with a corpus that needs none.
    """
    name = str(name_or_path)
    if name in _LIBRARY:
        if encoding:
            raise ConfigError(f"{name} takes no encoding (got {encoding!r}): Python's sources name their own")
        corpus = _LIBRARY[name](progress)
    elif name == "-":
        corpus = read_stdin(encoding)
    elif os.path.isdir(name):
        corpus = read_folder(Path(name), encoding, progress)
    elif os.path.exists(name):
        corpus = read_file(Path(name), encoding)
    else:
        raise DataError(f"no file, folder or corpus is called {name!r}{nearest(name, NAMES)}")
    return _with_two_characters(corpus)


def _with_two_characters(corpus: Corpus) -> Corpus:
    """`corpus`, refused where there is nothing to predict."""
    first = corpus.documents[0].text[0]
    if all(document.text.count(first) == len(document.text) for document in corpus.documents):
        raise DataError(f"{corpus.name} holds no character but {first!r}: a model needs at least two different ones")
    return corpus
