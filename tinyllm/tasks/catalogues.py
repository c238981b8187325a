"""The messages of JupyterLab in two languages: sentence pairs that a package from PyPI carries."""

from __future__ import annotations

import gettext
import importlib.util
from pathlib import Path

from tinyllm.errors import DataError
from tinyllm.tasks.pairs import Pair, Pairs, clean_pairs


def read_catalogues(locale: str) -> Pairs:
    """English messages and their translations in the package ``jupyterlab-language-pack-<locale>``.

    A message that was left in English is no pair. The package is looked for and read, never imported.

    Raises
    ------
    DataError
        If the package is not installed.
    """
    name = f"jupyterlab_language_pack_{locale}"
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        package = name.replace("_", "-")
        raise DataError(
            f"{package} is not installed: pip install {package}, or name a file of pairs (source, tab, target) "
            "with --data"
        )
    found = []
    for path in sorted(Path(spec.submodule_search_locations[0]).glob("locale/*/LC_MESSAGES/*.mo")):
        with path.open("rb") as file:
            messages = gettext.GNUTranslations(file)
        for english, translated in _messages(messages):
            if english != translated:
                found.append((path.stem, Pair(english, translated)))
    return clean_pairs(f"messages of JupyterLab, en-{locale[:2]}", found)


def _messages(catalogue: gettext.GNUTranslations) -> list[tuple[str, str]]:
    """The messages of a catalogue, one line each; plurals by their first form, contexts left out."""
    # gettext gives no list of its messages; this attribute has been theirs since Python 2.
    table: dict[str | tuple[str, int], str] = catalogue._catalog  # type: ignore[attr-defined]
    pairs = []
    for key, translated in table.items():
        english = key[0] if isinstance(key, tuple) else key
        if english and translated:
            pairs.append((" ".join(english.rpartition("\x04")[2].split()), " ".join(translated.split())))
    return pairs
