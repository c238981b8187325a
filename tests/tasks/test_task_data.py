"""What tasks read, measure, and hold themselves against."""

import importlib.util
import json
import zipfile

import pytest

from tinyllm.errors import DataError
from tinyllm.tasks import PAIR_TASKS, sequences, task, word_problems
from tinyllm.tasks.catalogues import read_catalogues
from tinyllm.tasks.scripts import scripts
from tinyllm.tasks.sentences import sentences
from tinyllm.tasks.translation import join
from tinyllm.tasks.word_problems import spaced
from tinyllm.train import Settings
from tinyllm.train.defaults import DEFAULTS

RULES = {
    "sort": lambda source: "".join(sorted(source)),
    "copy": lambda source: source,
    "reverse": lambda source: source[::-1],
    "addition": lambda source: str(sum(map(int, source.split("+"))))[::-1],
}


def read(name, **changed):
    settings = Settings.make({"task": name} | changed)
    return settings, task(name), task(name).read(settings)


@pytest.mark.parametrize("name", RULES)
def test_the_rule_holds_in_every_example(name, monkeypatch):
    monkeypatch.setattr(sequences, "_EXAMPLES", 2000)
    settings, what, pairs = read(name)
    assert len(pairs.pairs) > 1000
    assert len({pair.source for pair in pairs.pairs}) == len(pairs.pairs)
    assert all(RULES[name](pair.source) == pair.target for pair in pairs.pairs)
    assert all(len(pair.source) < settings.block_size for pair in pairs.pairs)
    assert what.read(Settings.make({"task": name, "seed": 1})).pairs != pairs.pairs


def test_word_problems_have_one_answer_and_no_story_is_below_zero(monkeypatch):
    monkeypatch.setattr(word_problems, "_EXAMPLES", 2000)
    _, _, pairs = read("word-problems")
    assert len({pair.source for pair in pairs.pairs}) == len(pairs.pairs) > 1000
    assert all(int(pair.target.replace(" ", "")) >= 0 for pair in pairs.pairs)
    assert spaced("12 of 345, 6") == "1 2 of 3 4 5, 6"


def test_gsm8k_gives_questions_and_final_numbers(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps({"question": "2 and 30?", "answer": "32 is right\n#### 1,032"}) + "\n")
    _, _, pairs = read("word-problems", data=str(path))
    assert [(p.source, p.target) for p in pairs.pairs] == [("2 and 3 0?", "1 0 3 2")]
    path.write_text("{}\n")
    with pytest.raises(DataError, match="line 1"):
        read("word-problems", data=str(path))


def test_cmudict_is_read_plain_and_zipped(tmp_path):
    text = ";;; a comment\nABLE 1 EY1 B AH0 L\nABLE(2)  EY1 B L\nA42128 1 EY1\n"
    plain = tmp_path / "cmudict.txt"
    plain.write_text(text)
    with zipfile.ZipFile(tmp_path / "cmudict.zip", "w") as archive:
        archive.writestr("cmudict/cmudict", text)
    for path in (plain, tmp_path / "cmudict.zip"):
        _, what, pairs = read("pronunciation", data=str(path))
        assert [(p.source, p.target) for p in pairs.pairs] == [("a b l e", "EY1 B AH0 L"), ("a b l e", "EY1 B L")]
    settings = Settings.make({"task": "pronunciation"})
    found = what.measure(["EY1 B L", "K AE1"], [["EY1 B AH0 L", "EY1 B L"], ["K AE1 T"]], settings)
    assert found == {"PER %": pytest.approx(100 / 6), "wrong words %": 50.0}


@pytest.mark.slow
def test_docstrings_are_summed_up_by_their_first_line():
    settings, what, pairs = read("summarisation")
    assert len(pairs.pairs) > 1000
    assert all(pair.group and pair.source and 3 <= len(pair.target.split()) <= 25 for pair in pairs.pairs)
    sources = [pair.source for pair in pairs.pairs[:3]]
    assert what.baselines(pairs.pairs, sources)["lead-1"] == [sentences(source)[0] for source in sources]
    perfect = what.measure(["a b c"], [["x", "a b c"]], settings)
    assert perfect == {"ROUGE-1": 100.0, "ROUGE-2": 100.0, "ROUGE-L": 100.0}


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("One. Two! Three? four.", ["One.", "Two!", "Three? four."]),
        ("See e.g. this. And that", ["See e.g. this.", "And that"]),
        ("你好。再见！", ["你好。", "再见！"]),
        ("no mark", ["no mark"]),
    ],
)
def test_sentences(text, cut):
    assert sentences(text) == cut


def test_words_are_joined_as_each_language_writes_them():
    assert join(["Hello", ",", "world", "!"]) == "Hello, world!"
    assert join(["我", "用", "Python", "写", "。"]) == "我用 Python 写。"


def test_scripts_are_those_of_letters():
    assert scripts("abc É 12 ~") == {"LATIN"}
    assert scripts("Привет мир, 你好") == {"CYRILLIC", "CJK"}


def test_translation_is_measured_in_characters_where_it_is_chinese():
    what, settings = task("translation"), Settings.make({"task": "translation"})
    chinese = what.measure(["我喜欢读书写字"], [["我喜欢读书写字吗"]], settings)
    assert chinese["BLEU"] > 80
    several = what.measure(["a b c d e"], [["z", "a b c d e"]], settings)
    assert several["BLEU"] == pytest.approx(100)
    assert several["chrF"] == pytest.approx(100)


def test_word_by_word_learns_from_the_training_pairs_alone(tmp_path):
    path = tmp_path / "t.tsv"
    path.write_text("the cat\tle chat\nthe dog\tle chien\na cat\tun chat\na dog\tun chien\n")
    _, what, pairs = read("translation", data=str(path))
    found = what.baselines(pairs.pairs, ["a cat", "the whale"])
    assert found["word by word (IBM model 1)"] == ["un chat", "le whale"]
    assert found["copy"] == ["a cat", "the whale"]


def test_dialogue_answers_as_the_nearest_question_was(tmp_path):
    path = tmp_path / "t.tsv"
    path.write_text("what is a cat\tan animal\nwhat is a car\ta machine\nhello you\thi\ngood day\thi\n")
    settings, what, pairs = read("dialogue", data=str(path))
    found = what.baselines(pairs.pairs, ["is a car fast?", "zzz"])
    assert found == {"commonest answer": ["hi", "hi"], "nearest question": ["a machine", "hi"]}
    assert what.measure(["hi", "hi"], [["hi"], ["ho"]], settings)["distinct %"] == 50.0


@pytest.mark.parametrize(
    ("name", "package"),
    [
        ("translation", "jupyterlab_language_pack_fr_FR"),
        ("dialogue", "chatterbot_corpus"),
        ("pronunciation", "g2p_en"),
    ],
)
def test_the_embedded_source_is_there_or_its_package_is_named(name, package):
    if importlib.util.find_spec(package):
        _, _, pairs = read(name)
        assert len(pairs.pairs) > 500
    else:
        with pytest.raises(DataError, match=f"pip install .*{package.replace('_', '-')}"):
            read(name)


def test_a_language_that_no_package_has_is_named():
    with pytest.raises(DataError, match="jupyterlab-language-pack-xx-XX is not installed"):
        read_catalogues("xx_XX")


def test_every_task_has_defaults_that_make_settings():
    assert set(PAIR_TASKS) < set(DEFAULTS)
    for name in DEFAULTS:
        settings = Settings.make({"task": name})
        assert settings.task == name
        assert settings.data == DEFAULTS[name].get("data", "stdlib-prose")
        assert Settings.make({"task": name, "steps": 700}).steps == 700
