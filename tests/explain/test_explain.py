"""Looking inside: each answer against what it must be, on models small enough to take apart."""

import html.parser
import json

import numpy as np
import pytest

import tinyllm as tl
from tinyllm.autograd.tape import reachable
from tinyllm.cli import main
from tinyllm.errors import ConfigError, DataError
from tinyllm.explain import (
    attention_maps,
    gradient_times_input,
    heads_ablated,
    integrated_gradients,
    logit_lens,
    look_at,
    recompute,
    rollout,
)
from tinyllm.explain.page import Section, page
from tinyllm.models import (
    GPT,
    BERTConfig,
    BERTForMaskedLM,
    BERTForSequenceClassification,
    GPTConfig,
    Llama,
    LlamaConfig,
)
from tinyllm.models.lstm import LSTMConfig, LSTMLanguageModel
from tinyllm.text import CharTokenizer
from tinyllm.text.wordpiece import SPECIAL_TOKENS

V = 13
LETTERS = CharTokenizer.train(["abcdefgh"], special_tokens=SPECIAL_TOKENS)


def gpt(**settings):
    config = GPTConfig(vocab_size=V, n_positions=10, n_embd=12, n_layer=2, n_head=3, initializer_range=0.4, **settings)
    return GPT(config, rng=np.random.default_rng(0), dtype="float64").eval()


def llama():
    config = LlamaConfig(
        vocab_size=V,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=10,
        initializer_range=0.4,
    )
    return Llama(config, rng=np.random.default_rng(0), dtype="float64").eval()


def bert(kind, **settings):
    config = BERTConfig(
        vocab_size=V,
        hidden_size=12,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=16,
        max_position_embeddings=10,
        initializer_range=0.4,
        pad_token_id=LETTERS.pad_token_id,
        **settings,
    )
    return kind(config, rng=np.random.default_rng(0), dtype="float64").eval()


LABELS = {"num_labels": 3, "id2label": {0: "a", 1: "b", 2: "c"}}
MODELS = {
    "gpt": gpt,
    "llama": llama,
    "masked": lambda: bert(BERTForMaskedLM),
    "classifier": lambda: bert(BERTForSequenceClassification, **LABELS),
    "several labels": lambda: bert(BERTForSequenceClassification, **LABELS, problem_type="multi_label_classification"),
}
HEADS = {"gpt": 3, "llama": 4, "masked": 3, "classifier": 3, "several labels": 3}


@pytest.fixture(params=MODELS)
def name(request):
    return request.param


@pytest.fixture
def subject(name):
    return look_at(MODELS[name](), LETTERS, "abcab")


def test_attention_is_a_mean_and_sees_no_future_where_there_is_none(subject, name):
    maps = attention_maps(subject)
    assert maps.shape == (2, HEADS[name], 5, 5)
    np.testing.assert_allclose(maps.sum(axis=-1), 1, atol=1e-12)
    causal = name in ("gpt", "llama")
    assert (np.triu(maps, 1) == 0).all() == causal


def test_the_maps_are_the_weights_by_which_values_were_mixed():
    subject = look_at(gpt(), LETTERS, "abcab")
    node = next(n for n in reversed(reachable(subject.logits)) if n.op.name == "self_attention")
    v = node.inputs[0].data[0, :, 24:].reshape(5, 3, 4).swapaxes(0, 1)  # (H, T, D)
    mixed = (attention_maps(subject)[0] @ v).swapaxes(0, 1).reshape(5, 12)
    np.testing.assert_allclose(mixed, node.out.array[0], atol=1e-12)


def test_rollout_multiplies_the_layers():
    maps = np.random.default_rng(0).dirichlet(np.ones(4), size=(2, 3, 4))
    a, b = ((m.mean(axis=0) + np.eye(4)) / 2 for m in maps)
    np.testing.assert_allclose(rollout(maps), b @ a, atol=1e-12)
    np.testing.assert_allclose(rollout(maps).sum(axis=1), 1)


def test_integrated_gradients_are_complete(subject):
    attributions, gap = integrated_gradients(subject, steps=40)
    assert attributions.shape == (5,)
    assert abs(gap) < 1e-6 * np.abs(attributions).max()
    _, coarse = integrated_gradients(subject, steps=2)
    assert abs(coarse) > abs(gap)


def test_gradient_times_input_is_the_slope_by_differences(subject):
    node = subject.word_embeddings
    found, h = gradient_times_input(subject), 1e-6
    for t in range(5):
        scores = []
        for sign in (1, -1):
            moved = node.out.array.copy()
            moved[0, t] *= 1 + sign * h
            scores.append(float(subject.score(recompute(subject.logits, {node: tl.tensor(moved)})).data[0]))
        np.testing.assert_allclose(found[t], (scores[0] - scores[1]) / (2 * h), rtol=1e-5, atol=1e-8)


def test_the_score_is_the_log_probability_of_the_answer(subject, name):
    logits = subject.logits.data[0] if subject.place is None else subject.logits.data[0, subject.place]
    expected = logits[subject.target] - np.log(np.exp(logits).sum())
    if name == "several labels":  # each of them has a probability of its own
        expected = -np.log1p(np.exp(-logits[subject.target]))
    np.testing.assert_allclose(subject.score(subject.logits).data[0], expected, rtol=1e-10)


def test_the_last_row_of_the_lens_is_the_model_itself(name, subject):
    if subject.place is None:
        return
    lens = logit_lens(subject)
    assert lens.shape == (3, 5, V)
    e = np.exp(subject.logits.data[0])
    np.testing.assert_allclose(lens[-1], e / e.sum(axis=-1, keepdims=True), rtol=1e-9)
    assert not np.allclose(lens[0], lens[-1])


def test_the_lens_of_a_gpt_goes_through_its_final_norm():
    model = gpt()
    subject = look_at(model, LETTERS, "abcab")
    state = subject.states[1]
    logits = (model.transformer.ln_f(state) @ model.transformer.wte.weight.mT).data[0]
    e = np.exp(logits)
    np.testing.assert_allclose(logit_lens(subject)[1], e / e.sum(axis=-1, keepdims=True), rtol=1e-9)


def test_a_silent_head_is_one_whose_rows_of_the_next_matrix_are_zero():
    model = gpt()
    subject = look_at(model, LETTERS, "abcab")
    changes = heads_ablated(subject.loss())
    assert changes.shape == (2, 3)
    whole = subject.loss().item()
    for layer, head in [(0, 2), (1, 0)]:
        weight = model.transformer.h[layer].attn.c_proj.weight
        kept = weight.numpy()
        silent = kept.copy()
        silent[4 * head : 4 * head + 4] = 0
        weight.assign_(silent)
        np.testing.assert_allclose(changes[layer, head], subject.loss().item() - whole, rtol=1e-9)
        weight.assign_(kept)


def test_heads_of_every_model_can_be_silenced(subject, name):
    changes = heads_ablated(subject.loss())
    assert changes.shape == (2, HEADS[name])
    assert np.abs(changes).min() > 0


def test_the_loss_of_a_masked_model_hides_every_token_in_turn():
    model = bert(BERTForMaskedLM)
    subject = look_at(model, LETTERS, "ab[MASK]a")
    expected = []
    for t in (0, 1, 3):
        ids = subject.ids.copy()
        ids[0, t] = LETTERS.mask_token_id
        logits = model(ids).logits.data[0, t]
        expected.append(np.log(np.exp(logits).sum()) - logits[subject.ids[0, t]])
    np.testing.assert_allclose(subject.loss().item(), np.mean(expected), rtol=1e-10)


def test_recomputing_with_the_same_values_changes_nothing(subject):
    node = subject.word_embeddings
    again = recompute(subject.logits, {node: tl.tensor(node.out.array)})
    np.testing.assert_array_equal(again.data, subject.logits.data)
    assert recompute(subject.logits, {}) is subject.logits


def test_what_is_asked(name):
    model = MODELS[name]()
    subject = look_at(model, LETTERS, "abcab", target="b")
    assert subject.answer == "b"
    if name == "masked":
        assert subject.tokens == ["a", "b", "c", "a", "[MASK]"]
        assert look_at(model, LETTERS, "a[MASK]c").place == 1
    elif name in ("gpt", "llama"):
        assert subject.place == 4


@pytest.mark.parametrize(
    ("name", "text", "target", "error", "said"),
    [
        ("gpt", "", None, DataError, "no tokens"),
        ("gpt", "a" * 11, None, DataError, "11 tokens long, but the model sees 10"),
        ("gpt", "ab", "ab", ConfigError, "one token"),
        ("masked", "[MASK]a[MASK]", None, DataError, r"2 \[MASK\]s"),
        ("masked", "[PAD]", None, DataError, "no token that could be hidden"),
        ("classifier", "ab", "z", ConfigError, "known: a, b, c"),
    ],
)
def test_what_cannot_be_asked_is_refused(name, text, target, error, said):
    with pytest.raises(error, match=said):
        look_at(MODELS[name](), LETTERS, text, target)


def test_a_number_has_no_probability_to_explain():
    model = bert(BERTForSequenceClassification, num_labels=1, problem_type="regression")
    with pytest.raises(ConfigError, match="tells a number"):
        look_at(model, LETTERS, "ab")


@pytest.mark.parametrize(("name", "text"), [("gpt", "a"), ("masked", "[MASK]")])
def test_a_text_of_one_token_has_the_loss_of_its_answer(name, text):
    subject = look_at(MODELS[name](), LETTERS, text)
    np.testing.assert_allclose(subject.loss().item(), -subject.score(subject.logits).data[0])


def test_a_model_without_attention_is_refused():
    config = LSTMConfig(vocab_size=V, embedding_size=4, hidden_size=4, num_layers=1)
    with pytest.raises(ConfigError, match="LSTMLanguageModel has no attention"):
        look_at(LSTMLanguageModel(config, rng=np.random.default_rng(0)), LETTERS, "abc")


class Reader(html.parser.HTMLParser):
    """Collects what a page refers to."""

    def __init__(self):
        super().__init__()
        self.sources, self.text = [], ""

    def handle_starttag(self, tag, attrs):
        self.sources += [value for key, value in attrs if key in ("src", "href")]
        assert tag not in ("script", "link", "iframe")

    def handle_data(self, data):
        self.text += data


def test_the_page_has_everything_in_it(tmp_path, capsys):
    model = bert(BERTForMaskedLM)
    model.save_pretrained(tmp_path / "run")
    LETTERS.save(tmp_path / "run")
    arguments = ["explain", str(tmp_path / "run"), "ab[MASK]a", "--steps", "8", "--layer", "1", "--json"]
    assert main(arguments) == 0
    result = json.loads(capsys.readouterr().out)
    folder = tmp_path / "run" / "explain"
    names = {"attributions", "rollout", "attention-1", "heads", "lens"}
    assert {path.stem for path in folder.glob("*.png")} == names
    reader = Reader()
    reader.feed((folder / "index.html").read_text(encoding="utf-8"))
    assert len(reader.sources) == len(names)
    assert all(source.startswith("data:image/png;base64,iVBOR") for source in reader.sources)
    assert "[MASK]" in reader.text
    assert result["page"] == str(folder / "index.html")


def test_the_command_checks_before_it_draws(tmp_path, capsys):
    bert(BERTForMaskedLM).save_pretrained(tmp_path)
    LETTERS.save(tmp_path)
    assert main(["explain", str(tmp_path), "ab", "--layer", "7"]) == 2
    assert "layer must be from 0 to 1" in capsys.readouterr().err
    assert main(["explain", str(tmp_path), "ab", "--steps", "0"]) == 2
    assert "steps" in capsys.readouterr().err


def test_a_text_cannot_write_into_the_page():
    text = page("<script>", {"<b>": "<script>"}, ["<script>", '"'], np.ones(2), [Section("<a", "<p", [('"<', b"")])])
    assert "<script>" not in text
    assert "<b>" not in text
    assert text.count("<h2>") == 1
