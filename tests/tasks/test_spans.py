"""Answers marked in a text: offsets, windows over long texts, the best span; and the questions that rules make."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyllm.autograd import Tensor
from tinyllm.errors import ConfigError, DataError
from tinyllm.models.bert_heads import SpanOutput
from tinyllm.nn import Module
from tinyllm.tasks.questions import from_squad, from_stdlib
from tinyllm.tasks.spans import collate, mark, windows
from tinyllm.text.wordpiece import WordPiece

TOKENIZER = WordPiece.train(["the ball is red and the boat is blue " * 5], vocab_size=60, min_frequency=1)
WORDS = st.lists(st.sampled_from(["ball", "boat", "red", "blue", "The", "Zzz", "is"]), min_size=1, max_size=40)


@settings(max_examples=80, deadline=None)
@given(words=WORDS, limit=st.integers(12, 30))
def test_windows_cover_the_text_and_know_its_characters(words, limit):
    text = " ".join(words)
    rows = windows(TOKENIZER, "is it red", text, limit)
    ids, offsets = TOKENIZER.encode_with_offsets(text)
    seen = {}
    for row in rows:
        assert len(row.ids) <= limit
        for index, place in zip(row.ids[row.first :], row.offsets, strict=False):
            seen[place] = index
    assert sorted(seen) == sorted(offsets)
    assert [seen[place] for place in offsets] == ids


@settings(max_examples=80, deadline=None)
@given(words=WORDS, data=st.data())
def test_the_place_of_an_answer_holds_its_characters(words, data):
    text = " ".join(words)
    i = data.draw(st.integers(0, len(words) - 1))
    j = data.draw(st.integers(i, len(words) - 1))
    start = len(" ".join(words[:i])) + (i > 0)
    end = start + len(" ".join(words[i : j + 1]))
    for row in windows(TOKENIZER, "red", text, 16):
        place = row.place(start, end)
        if place:
            first, last = (row.offsets[p - row.first] for p in place)
            assert text[first[0] : last[1]] == text[start:end]


class Pointing(Module):
    """A model that finds one token as the first and one as the last, and nothing else likely."""

    class config:
        max_position_embeddings = 16
        pad_token_id = 0

    def __init__(self, first, last):
        self.first, self.last = first, last

    def __call__(self, input_ids, **more):
        assert not self.training
        start = (input_ids == self.first) * 5.0 + (more["token_type_ids"] == 0) * 9.0  # the question would be better
        end = (input_ids == self.last) * 5.0 + (more["attention_mask"] == 0) * 9.0
        return SpanOutput(Tensor(start), Tensor(end))


def test_the_best_span_is_found_in_any_window_never_in_the_question():
    text = "the boat is blue and " * 6 + "the ball is red"
    ball, red = (TOKENIZER.encode(word, add_special_tokens=False)[0] for word in ("ball", "red"))
    assert len(windows(TOKENIZER, "is it red", text, 16)) > 3
    model = Pointing(ball, red)
    answer, score = mark(model, TOKENIZER, "is it red", text)
    assert (answer, score) == ("ball is red", 10.0)
    assert model.training  # again: it is asked in the middle of training, too
    # An answer does not end before it begins.
    assert mark(Pointing(red, ball), TOKENIZER, "is it red", "the ball is red")[1] == 5.0


def test_types_tell_the_question_from_the_text():
    (row,) = windows(TOKENIZER, "is it", "the ball", 20)
    batch = collate([row], 0)
    types = batch["token_type_ids"][0]
    assert types[: row.first].sum() == 0
    assert types[row.first :].all()
    with pytest.raises(ConfigError, match="leaves no room"):
        windows(TOKENIZER, "is " * 20, "the ball", 16)


@pytest.mark.slow
def test_the_rules_put_every_answer_where_they_say():
    questions = from_stdlib()
    assert len(questions) > 2000
    kinds = {question.question.split()[1] for question in questions}
    assert kinds == {"does", "is", "function"}
    for question in questions:
        (answer,), (start,) = question.answers, question.starts
        assert question.text[start : start + len(answer)] == answer
        assert question.group


def test_a_file_of_another_form_is_refused(tmp_path):
    path = tmp_path / "q.json"
    path.write_text("[]")
    with pytest.raises(DataError, match="SQuAD's form"):
        from_squad(path)
    wrong = {"question": "q", "answers": [{"text": "red", "answer_start": 1}]}
    path.write_text(json.dumps({"data": [{"paragraphs": [{"context": "the red", "qas": [wrong]}]}]}))
    with pytest.raises(DataError, match="does not stand at character 1"):
        from_squad(path)
    path.write_text(json.dumps({"data": []}))
    with pytest.raises(DataError, match="no question with an answer"):
        from_squad(path)
