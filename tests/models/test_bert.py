"""BERT and its heads: what an encoder must be, its folders, and what is refused."""

import json

import numpy as np
import pytest
from tiny_bert import tiny_bert, tiny_config

import tinyllm as tl
from tinyllm import models, safetensors
from tinyllm.errors import CheckpointError, ConfigError
from tinyllm.formulas import attention as formulas
from tinyllm.formulas.block import block_post_norm, layer_norm
from tinyllm.formulas.linear import linear
from tinyllm.models import (
    BERT,
    BERTConfig,
    BERTForMaskedLM,
    BERTForPreTraining,
    BERTForQuestionAnswering,
    BERTForSequenceClassification,
    BERTForTokenClassification,
)
from tinyllm.models.bert_heads import mean_of_tokens

HEADS = [
    BERTForMaskedLM,
    BERTForPreTraining,
    models.BERTForNextSentencePrediction,
    BERTForSequenceClassification,
    BERTForTokenClassification,
    BERTForQuestionAnswering,
]


# -- what it computes --------------------------------------------------------------------------------------------------


def test_a_block_is_f_block_in_loops(rng):
    model = tiny_bert(hidden_act="relu")
    layer, x = model.encoder.layer[0], rng.normal(size=(5, 12))
    w = {name: p.data for name, p in layer.named_parameters()}

    def attend(X):
        names = [(f"attention.self.{n}.weight", f"attention.self.{n}.bias") for n in ("query", "key", "value")]
        q, k, v = (np.array([linear(row, w[a], w[b]) for row in X]) for a, b in names)
        heads = [formulas.attention(q[:, h], k[:, h], v[:, h]) for h in (slice(0, 4), slice(4, 8), slice(8, 12))]
        out = w["attention.output.dense.weight"], w["attention.output.dense.bias"]
        return [linear(row, *out) for row in np.concatenate(heads, axis=1)]

    def feed_forward(row):
        hidden = linear(row, w["intermediate.dense.weight"], w["intermediate.dense.bias"])
        return linear([max(0.0, h) for h in hidden], w["output.dense.weight"], w["output.dense.bias"])

    def norm(name):
        return lambda row: layer_norm(row, w[f"{name}.weight"], w[f"{name}.bias"], 1e-12)

    norms = norm("attention.output.LayerNorm"), norm("output.LayerNorm")
    expected = block_post_norm(x, attend, feed_forward, *norms)
    np.testing.assert_allclose(layer(tl.tensor(x[None]), None).data[0], expected, rtol=0, atol=1e-12)


def test_padding_changes_nothing(rng):
    model = tiny_bert()
    ids = rng.integers(1, 23, size=(2, 6))
    padded = np.concatenate([ids, np.zeros((2, 3), int)], axis=1)
    mask = np.concatenate([np.ones((2, 6), int), np.zeros((2, 3), int)], axis=1)
    expected = model(ids)
    found = model(padded, attention_mask=mask)
    np.testing.assert_allclose(found.last_hidden_state.data[:, :6], expected.last_hidden_state.data, atol=1e-12)
    np.testing.assert_allclose(found.pooler_output.data, expected.pooler_output.data, atol=1e-12)


def test_every_token_sees_both_sides(rng):
    model = tiny_bert()
    ids = rng.integers(1, 23, size=(1, 6))
    first = model(ids).last_hidden_state.data
    changed = ids.copy()
    changed[0, 3] = ids[0, 3] % 22 + 1
    assert (np.abs(model(changed).last_hidden_state.data - first).max(axis=-1) > 1e-6).all()


def test_without_positions_a_text_is_a_bag_of_tokens(rng):
    model = tiny_bert()
    table = model.embeddings.position_embeddings.weight
    ids, order = rng.integers(1, 23, size=(1, 7)), rng.permutation(7)
    assert not np.allclose(model(ids).last_hidden_state.data[:, order], model(ids[:, order]).last_hidden_state.data)
    table.assign_(np.zeros(table.shape))
    expected = model(ids).last_hidden_state.data[:, order]
    np.testing.assert_allclose(model(ids[:, order]).last_hidden_state.data, expected, atol=1e-12)


def test_the_padding_learns_only_as_an_answer(rng):
    model = tiny_bert(BERT)
    model(np.array([[0, 3, 0]])).pooler_output.backward(rng.normal(size=(1, 12)))
    gradient = model.embeddings.word_embeddings.weight.grad.data
    assert not gradient[0].any()
    assert gradient[3].any()


def test_hidden_states_are_the_embeddings_and_every_block(rng):
    model = tiny_bert(BERTForMaskedLM)
    out = model(rng.integers(1, 23, size=(2, 5)), output_hidden_states=True)
    assert [h.shape for h in out.hidden_states] == [(2, 5, 12)] * 3
    assert model(np.array([[1]])).hidden_states is None


def test_the_loss_needs_no_logits_that_are_not_told(rng):
    model = tiny_bert(BERTForMaskedLM)
    ids = rng.integers(1, 23, size=(3, 7))
    batch = {"input_ids": ids, "labels": np.where(rng.random(ids.shape) < 0.3, ids, -100)}
    whole = model(**batch).loss
    whole.backward()
    gradients = {name: p.grad.data for name, p in model.named_parameters()}
    model.zero_grad()
    part = model.loss(batch)
    np.testing.assert_allclose(part.item(), whole.item(), rtol=1e-14)
    part.backward()
    for name, p in model.named_parameters():
        np.testing.assert_allclose(p.grad.data, gradients[name], rtol=0, atol=1e-13)


def test_blocks_computed_again_give_the_same_gradients(rng):
    gradients = []
    for again in (False, True):
        model = tiny_bert(BERTForMaskedLM, hidden_dropout_prob=0.2, attention_probs_dropout_prob=0.2).train()
        model.bert.encoder.checkpoint_blocks = again
        ids = np.arange(1, 11).reshape(2, 5)
        with tl.random_scope(seed=3):
            model.loss({"input_ids": ids, "labels": ids}).backward()
        gradients.append([p.grad.data for p in model.parameters()])
    assert all((a == b).all() for a, b in zip(*gradients, strict=True))


def pooled_by_mean(**settings):
    return tiny_bert(BERTForSequenceClassification, classifier_pooling="mean", num_labels=3, **settings)


def test_the_mean_is_over_the_tokens_whatever_the_padding(rng):
    model = pooled_by_mean()
    ids = rng.integers(1, 23, size=(3, 8))
    lengths = np.array([8, 1, 5])
    mask = (np.arange(8) < lengths[:, None]).astype(int)
    means = []
    for row, n in zip(ids, lengths, strict=True):
        states = model.bert(row[None, :n]).last_hidden_state.data[0]
        means.append(sum(states) / n)
    expected = np.array(means) @ model.classifier.weight.data.T + model.classifier.bias.data
    for padding in (0, 7):  # what stands there does not matter
        padded = np.where(mask == 1, ids, padding)
        np.testing.assert_allclose(model(padded, attention_mask=mask).logits.data, expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(model(ids[:1]).logits.data, expected[:1], rtol=0, atol=1e-12)
    nothing = model(ids[:1], attention_mask=np.zeros((1, 8), int)).logits.data
    np.testing.assert_array_equal(nothing[0], model.classifier.bias.data)


@pytest.mark.parametrize("mask", [None, np.array([[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0]])])
def test_the_derivative_of_the_mean_is_that_of_differences(rng, mask):
    tl.testing.gradcheck(lambda x: mean_of_tokens(x, mask), rng.normal(size=(3, 4, 5)))


def test_every_gradient_through_the_mean_is_that_of_differences(rng):
    model = pooled_by_mean()
    ids = np.array([[3, 1, 4], [2, 7, 0]])
    batch = {"input_ids": ids, "attention_mask": np.array([[1, 1, 1], [1, 1, 0]]), "labels": np.array([2, 0])}
    model.loss(batch).backward()
    for name, p in model.named_parameters():
        direction, value, h = rng.normal(size=p.shape), p.numpy(), 1e-5
        losses = []
        for sign in (1, -1):
            p.assign_(value + sign * h * direction)
            losses.append(model.loss(batch).item())
        p.assign_(value)
        found = (losses[0] - losses[1]) / (2 * h)
        np.testing.assert_allclose(found, (p.grad.data * direction).sum(), rtol=1e-5, atol=1e-8, err_msg=name)


@pytest.mark.parametrize("head", HEADS)
def test_a_loss_without_labels_says_what_is_missing(head):
    model = tiny_bert(head)
    with pytest.raises(ValueError, match=f"needs {model.targets[0]}.*input_ids"):
        model.loss({"input_ids": np.array([[1, 2]])})


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({"input_ids": [1, 2]}, r"\(B, T\)"),
        ({"input_ids": [[1.0, 2.0]]}, "integers"),
        ({"input_ids": [[1, 23]]}, "23"),
        ({"input_ids": [[1] * 12]}, "max_position_embeddings=11"),
        ({"input_ids": [[1, 2]], "position_ids": [[4, 11]]}, "max_position_embeddings=11"),
        ({"input_ids": [[1, 2]], "token_type_ids": [[0, 2]]}, "2"),
        ({"input_ids": [[1, 2]], "token_type_ids": [[0]]}, "token_type_ids must have the shape"),
        ({"input_ids": [[1, 2]], "attention_mask": [[1, 0.5]]}, "1 for tokens"),
        ({"input_ids": [[1, 2]], "attention_mask": [[1]]}, "attention_mask must have shape"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(inputs, said):
    with pytest.raises((ValueError, TypeError, IndexError), match=said):
        tiny_bert()(**inputs)


@pytest.mark.parametrize(
    ("head", "labels", "said"),
    [
        (BERTForMaskedLM, {"labels": [[1]]}, r"labels must have shape \(1, 2\)"),
        (BERTForSequenceClassification, {"labels": [[0, 1]]}, r"labels must have shape \(1,\)"),
        (BERTForSequenceClassification, {"labels": [[0.5]]}, "multi_label_classification"),
        (BERTForSequenceClassification, {"labels": [7]}, "7"),
        (BERTForQuestionAnswering, {"start_positions": [[1]], "end_positions": [1]}, "start_positions must have shape"),
    ],
)
def test_labels_that_do_not_fit_are_refused(head, labels, said):
    with pytest.raises((ValueError, IndexError), match=said):
        tiny_bert(head)([[1, 2]], **labels)


# -- its folders -------------------------------------------------------------------------------------------------------


def edit(folder, change):
    path = folder / "model.safetensors"
    weights, _ = safetensors.load(path)
    safetensors.save(path, change(weights) or weights)


@pytest.mark.parametrize("kind", [BERT, *HEADS])
def test_what_is_saved_is_loaded_bit_for_bit(tmp_path, kind):
    model = tiny_bert(kind, "float32", tie_word_embeddings=False, problem_type="regression", classifier_dropout=0.5)
    model.save_pretrained(tmp_path)
    loaded = models.from_pretrained(tmp_path)
    assert type(loaded) is kind
    assert not loaded.training
    assert loaded.config.labels == model.config.labels
    state = loaded.state_dict()
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(state[name], value)
    loaded.save_pretrained(tmp_path / "again")
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / name).read_bytes()


def test_a_head_of_another_task_is_begun_anew_with_the_same_body(tmp_path):
    body = tiny_bert(BERTForMaskedLM)
    body.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"classifier.weight.*is missing.*give from_pretrained an rng"):
        BERTForSequenceClassification.from_pretrained(tmp_path)
    rng = np.random.default_rng(1)
    model = BERTForSequenceClassification.from_pretrained(tmp_path, rng=rng, num_labels=5, hidden_dropout_prob=0.2)
    assert model.classifier.weight.shape == (5, 12)
    assert 0.1 < model.classifier.weight.data.std() < 0.6
    assert model.config.hidden_dropout_prob == 0.2
    state = body.state_dict()
    for name, value in model.bert.encoder.state_dict().items():
        np.testing.assert_array_equal(value, state[f"bert.encoder.{name}"])
    model.save_pretrained(tmp_path / "tuned")
    same = BERTForSequenceClassification.from_pretrained(tmp_path / "tuned", num_labels=5)
    np.testing.assert_array_equal(same.classifier.weight.data, model.classifier.weight.data)
    with pytest.raises(CheckpointError, match=r"classifier.weight"):
        BERTForSequenceClassification.from_pretrained(tmp_path / "tuned", num_labels=3)


def test_the_body_of_any_head_is_loaded(tmp_path):
    for head in HEADS:
        model = tiny_bert(head)
        model.save_pretrained(tmp_path / head.__name__)
        body = BERT.from_pretrained(tmp_path / head.__name__)
        assert (body.pooler is None) == (model.bert.pooler is None)
        ids = np.array([[3, 1, 4]])
        expected = model.bert(ids).last_hidden_state.data
        np.testing.assert_array_equal(body(ids).last_hidden_state.data, expected)


def test_a_mean_needs_no_pooler_and_is_remembered(tmp_path):
    tiny_bert(BERT).save_pretrained(tmp_path)
    rng = np.random.default_rng(1)
    model = BERTForSequenceClassification.from_pretrained(tmp_path, rng=rng, classifier_pooling="mean")
    assert not any("pooler" in name for name in model.state_dict())
    model.save_pretrained(tmp_path / "tuned")
    assert json.loads((tmp_path / "tuned" / "config.json").read_text())["classifier_pooling"] == "mean"
    loaded, ids = models.from_pretrained(tmp_path / "tuned"), np.array([[3, 1, 4]])
    np.testing.assert_array_equal(loaded(ids).logits.data, model(ids).logits.data)
    # The setting is of this head alone: others have the pooler that they need.
    other = models.BERTForNextSentencePrediction.from_pretrained(tmp_path / "tuned", rng=rng)
    assert other.bert.pooler is not None


def test_old_names_and_buffers_are_understood(tmp_path):
    model = tiny_bert(BERTForPreTraining)
    model.save_pretrained(tmp_path)

    def age(weights):
        old = {}
        for name, value in weights.items():
            name = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
            old[name] = value
        old["bert.embeddings.position_ids"] = np.arange(11)[None]
        old["cls.predictions.decoder.weight"] = weights["bert.embeddings.word_embeddings.weight"]
        old["cls.predictions.decoder.bias"] = weights["cls.predictions.bias"]
        return old

    edit(tmp_path, age)
    state = models.from_pretrained(tmp_path).state_dict()
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(state[name], value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda w: {n: x for n, x in w.items() if "word_emb" not in n}, "word_embeddings.weight is missing"),
        (lambda w: {n: x for n, x in w.items() if ".layer.1." not in n}, "num_hidden_layers=2"),
        (lambda w: {n: x for n, x in w.items() if "key.bias" not in n}, "missing: bert.encoder.layer.0.attention"),
        (lambda w: w | {"bert.encoder.layer.0.extra": np.zeros(2)}, "unexpected: bert.encoder.layer.0.extra"),
        (lambda w: w | {"cls.predictions.decoder.weight": np.zeros((23, 12))}, "tie_word_embeddings"),
        (lambda w: w | {"cls.predictions.bias": np.zeros(23, int)}, "int64"),
        (lambda w: w | {"cls.predictions.bias": np.full(23, np.nan)}, "nan"),
    ],
)
def test_weights_that_do_not_fit_are_refused(tmp_path, change, said):
    tiny_bert(BERTForMaskedLM).save_pretrained(tmp_path)
    edit(tmp_path, change)
    with pytest.raises(CheckpointError, match=said) as error:
        models.from_pretrained(tmp_path)
    assert str(tmp_path) in str(error.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"is_decoder": True}, "is_decoder=True"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type='relative_key'"),
        ({"add_cross_attention": True}, "add_cross_attention=True"),
        ({"hidden_act": "gelu_10"}, "gelu_10"),
        ({"hidden_sise": 24}, "hidden_sise.*hidden_size"),
        ({"num_attention_heads": 5}, "num_attention_heads=5"),
        ({"problem_type": "ranking"}, "problem_type"),
        ({"classifier_pooling": "max"}, "classifier_pooling must be one of cls, mean, got 'max'"),
        ({"pad_token_id": 23}, "pad_token_id=23"),
        ({"id2label": {"1": "a"}}, "id2label"),
    ],
)
def test_settings_that_cannot_be_obeyed_are_refused(tmp_path, changes, said):
    tiny_bert().save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(ConfigError, match=said) as error:
        BERT.from_pretrained(tmp_path)
    assert str(path) in str(error.value)


def test_a_setting_that_nobody_has_is_refused(tmp_path):
    tiny_bert().save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"num_lables.*num_labels"):
        BERT.from_pretrained(tmp_path, num_lables=3)


def test_dropout_that_a_file_leaves_out_is_berts():
    config = BERTConfig.from_dict({"model_type": "bert"})
    assert (config.hidden_dropout_prob, config.attention_probs_dropout_prob) == (0.1, 0.1)
    assert tiny_config().hidden_dropout_prob == 0.0
