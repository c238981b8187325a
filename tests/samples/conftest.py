"""Real text for the samples."""

from pydoc_data.topics import topics

import pytest

from tinyllm.data import Corpus, Document


@pytest.fixture(scope="session")
def prose() -> Corpus:
    """The help topics of Python: the part of stdlib-prose that is read at once."""
    return Corpus("topics", tuple(Document(text, f"topics:{name}", name) for name, text in topics.items()))
