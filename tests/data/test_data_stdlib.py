"""The corpora inside Python."""

import inspect
import re
import shutil
import sys
import textwrap

import pytest

from tinyllm.data import Corpus, load, split, stdlib
from tinyllm.errors import ConfigError, DataError


@pytest.fixture(scope="module")
def prose():
    calls = []
    corpus = load("stdlib-prose", progress=lambda *call: calls.append(call))
    assert [done for done, _, _ in calls] == list(range(1, calls[-1][1] + 1))
    return corpus


@pytest.fixture(scope="module")
def code():
    return load("stdlib-code")


def test_prose_is_the_docstrings_and_the_topics(prose):
    assert 1_000_000 < prose.characters < 4_000_000
    assert 4_000 < len(prose.documents) < 15_000
    assert len(prose.groups) > 100
    assert prose.python == sys.version
    texts = {document.source.split(":")[0]: document.text for document in prose.documents}
    assert {"json/__init__.py", "pydoc_data/topics.py", "asyncio/tasks.py"} < texts.keys()
    (dedent,) = [d for d in prose.documents if d.text == inspect.getdoc(textwrap.dedent)]
    assert dedent.group == "textwrap"
    assert "def dedent" not in dedent.text


def test_groups_are_top_level_packages_and_tests_are_absent(prose, code):
    for corpus in (prose, code):
        assert all(re.split(r"[/.]", d.source)[0] == d.group for d in corpus.documents)
        assert not {"test", "idlelib", "lib2to3", "site-packages"} & set(corpus.groups)
        assert not any("/tests/" in d.source for d in corpus.documents)


def test_no_text_occurs_twice(prose, code):
    for corpus in (prose, code):
        assert len({d.text for d in corpus.documents}) == len(corpus.documents)


def test_code_is_source(code):
    assert 400 < len(code.documents) < 900
    assert 8_000_000 < code.characters < 14_000_000
    (textwrap,) = [d for d in code.documents if d.source == "textwrap.py"]
    assert "def dedent(" in textwrap.text
    assert not any(d.group == "pydoc_data" and "topics" in d.source for d in code.documents)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_held_out_packages_are_whole_and_close_to_a_tenth(prose, seed):
    train, held_out = split(prose, 0.1, seed)
    assert not set(train.groups) & set(held_out.groups)
    assert sorted(train.groups + held_out.groups) == sorted(prose.groups)
    assert 0.09 < held_out.characters / prose.characters <= 0.1
    assert train.characters + held_out.characters == prose.characters
    assert held_out.groups != split(prose, 0.1, seed + 1)[1].groups


def test_an_encoding_is_not_silently_ignored():
    with pytest.raises(ConfigError, match="stdlib-prose takes no encoding"):
        load("stdlib-prose", encoding="utf-8")


@pytest.fixture
def library(tmp_path, monkeypatch):
    """A standard library of our own making."""
    monkeypatch.setattr(stdlib.sysconfig, "get_path", lambda name: str(tmp_path))
    return tmp_path


def test_every_kind_of_definition_is_found_once_in_order(library):
    (library / "mod.py").write_text(
        '"""Module."""\n'
        'class A:\n    """Class."""\n    async def f(self):\n        r"""Me\\thod.\n\n        Indented."""\n'
        'try:\n    def g():\n        "In try."\nexcept ImportError:\n    def h():\n        "In except."\n'
        'match 0:\n    case 0:\n        def i():\n            "In case."\n'
        'def j():\n    "Module."\ndef k():\n    "  "\ndef l():\n    f"not one"\n'
    )
    (library / "bad.py").write_text("print 'two'\n")
    (library / "odd.py").write_bytes(b'# coding: latin-1\n"""\xe9t\xe9 \\d"""\n')
    for folder in ("test", "site-packages/x", "pkg/tests"):
        (library / folder).mkdir(parents=True)
        (library / folder / "t.py").write_text('"""Not this."""\n')
    corpus = load("stdlib-prose")
    texts = [(d.source, d.text) for d in corpus.documents]
    assert texts == [
        ("mod.py:1", "Module."),
        ("mod.py:3", "Class."),
        ("mod.py:5", "Me\\thod.\n\nIndented."),
        ("mod.py:10", "In try."),
        ("mod.py:13", "In except."),
        ("mod.py:17", "In case."),
        ("odd.py:2", "été \\d"),
    ]
    assert corpus.left_out == {"file that does not parse": 1, "duplicate": 1}
    shutil.rmtree(library / "pkg")
    assert [d.source for d in load("stdlib-code").documents] == ["bad.py", "mod.py", "odd.py"]


def test_a_python_without_sources_says_so(library):
    with pytest.raises(DataError, match="no sources of its standard library"):
        load("stdlib-prose")


def test_reading_is_repeatable(code):
    again = load("stdlib-code")
    assert isinstance(again, Corpus)
    assert again == code
