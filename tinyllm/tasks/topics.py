"""Labelled texts that come with packages: docstrings by their package, and short dialogues by their topic (P-NEWS)."""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tinyllm.data.labelled import Labelled, gathered
from tinyllm.data.stdlib import read_prose
from tinyllm.errors import DataError

PACKAGES = 8  # the packages with most docstrings
_LEAST = 40  # characters of a docstring that says something
_NEWS = {"politics": "politics", "money": "economy", "sports": "sports"}  # the documents' classes


def stdlib_packages() -> Labelled:
    """The docstrings of the standard library's largest packages, each with the name of its package."""
    documents = [d for d in read_prose().documents if len(d.text) >= _LEAST and d.group != "pydoc_data"]
    largest = [name for name, _ in Counter(d.group for d in documents).most_common(PACKAGES)]
    rows = ((d.source, " ".join(d.text.split()), d.group) for d in documents if d.group in largest)
    return gathered(f"docstrings of the standard library's {PACKAGES} largest packages", rows)


def chatterbot_news() -> Labelled:
    """The dialogues of chatterbot-corpus on politics, economy and sports: the documents' classes, but no news.

    Raises
    ------
    DataError
        If the package, or PyYAML, is not installed.
    """
    spec = importlib.util.find_spec("chatterbot_corpus")
    if spec is None or not spec.submodule_search_locations:
        raise DataError(
            "chatterbot-corpus is not installed: pip install chatterbot-corpus, or name a file of labelled texts with "
            "--data"
        )
    try:
        import yaml
    except ImportError:
        raise DataError("the dialogues are YAML files: pip install pyyaml") from None
    folder = Path(spec.submodule_search_locations[0], "data", "english")
    rows = []
    for name, label in _NEWS.items():
        turns = yaml.safe_load((folder / f"{name}.yml").read_text(encoding="utf-8"))["conversations"]
        rows += [(f"{name}.yml", " ".join(str(t) for t in talk), label) for talk in turns if isinstance(talk, list)]
    return gathered("chatterbot-corpus: politics, economy, sports (dialogues, not news)", rows)


EMBEDDED: dict[str, Callable[[], Labelled]] = {
    "stdlib-packages": stdlib_packages,
    "chatterbot-news": chatterbot_news,
}
