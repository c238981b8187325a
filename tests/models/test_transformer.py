"""The encoder-decoder Transformer: its laws, its folder, and what it refuses."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_transformer import OPTIONS, tiny_transformer

import tinyllm as tl
from tinyllm.errors import CheckpointError, ConfigError
from tinyllm.models import Transformer, TransformerConfig

B, S, T = 3, 5, 4


@pytest.fixture
def texts(rng):
    """A source (B, S) and a target (B, T)."""
    return rng.integers(11, size=(B, S)), rng.integers(13, size=(B, T))


def close(found, expected, bound=1e-12):
    found, expected = (np.asarray(getattr(x, "data", x)) for x in (found, expected))
    return np.abs(found - expected).max() <= bound * np.abs(expected).max()


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {name: np.zeros(p.shape) if p.grad is None else p.grad.numpy() for name, p in model.named_parameters()}


@settings(max_examples=15, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=3),
    left=st.lists(st.booleans(), min_size=3, max_size=3),
    options=st.sampled_from(OPTIONS),
    seed=st.integers(0, 99),
)
def test_padding_changes_no_result(lengths, left, options, seed):
    """Every row of a padded batch, whichever side is padded, gives what it gives alone: logits and gradients."""
    model, rng = tiny_transformer(**options), np.random.default_rng(seed)
    sources = [rng.integers(11, size=n) for n in lengths]
    targets = [rng.integers(13, size=rng.integers(1, 5)) for _ in lengths]
    source, mask = np.full((len(lengths), 7), 5), np.zeros((len(lengths), 7), int)
    labels = np.full((len(lengths), 6), -100)
    for i, (ids, target) in enumerate(zip(sources, targets, strict=True)):
        at = slice(7 - len(ids), 7) if left[i] else slice(len(ids))
        source[i, at], mask[i, at] = ids, 1
        labels[i, : len(target)] = target
    out = model(source, mask, labels=labels)
    together = gradients(model, out.loss * int((labels >= 0).sum()))
    alone = dict.fromkeys(together, 0.0)
    for i, (ids, target) in enumerate(zip(sources, targets, strict=True)):
        one = model(ids[None], labels=target[None])
        assert close(out.logits.data[i, : len(target)], one.logits.data[0])
        for name, g in gradients(model, one.loss * len(target)).items():
            alone[name] = alone[name] + g
    largest = max(np.abs(g).max() for g in alone.values())
    for name, g in together.items():
        assert np.abs(g - alone[name]).max() < 1e-11 * largest, name


@pytest.mark.parametrize("options", OPTIONS)
def test_the_decoder_does_not_look_ahead_and_the_encoder_does(options, texts):
    model, (source, target) = tiny_transformer(**options), texts
    before = model(source, decoder_input_ids=target).logits.data
    changed = target.copy()
    changed[:, 2] = (changed[:, 2] + 1) % 13
    after = model(source, decoder_input_ids=changed).logits.data
    np.testing.assert_array_equal(after[:, :2], before[:, :2])
    assert (after[:, 2:] != before[:, 2:]).all(axis=-1).all()
    changed = source.copy()
    changed[:, -1] = (changed[:, -1] + 1) % 11
    assert (model.encode(changed).data != model.encode(source).data).any(axis=-1).all()
    assert (model(changed, decoder_input_ids=target).logits.data != before).any(axis=-1).all()


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("recording", [False, True])
@pytest.mark.parametrize("steps", [[1, 1, 1, 1], [2, 2], [3, 1]])
def test_cached_equals_uncached(options, recording, steps, texts):
    model, (source, target) = tiny_transformer(**options), texts
    mask = np.ones_like(source)
    mask[1, 3:] = 0
    expected = model(source, mask, decoder_input_ids=target).logits.data
    cache, memory, found = model.new_cache(), model.encode(source, mask), []
    with tl.enable_grad() if recording else tl.no_grad():
        for part in np.split(target, np.cumsum(steps)[:-1], axis=1):
            out = model(decoder_input_ids=part, encoder_outputs=memory, attention_mask=mask, cache=cache)
            found.append(out.logits.numpy())
    assert close(np.concatenate(found, axis=1), expected)
    assert cache.length == T


def test_the_source_is_projected_once(texts, monkeypatch):
    model, (source, target) = tiny_transformer(), texts
    memory, cache, lengths = model.encode(source), model.new_cache(), []
    plain = cache.of_source
    monkeypatch.setattr(cache, "of_source", lambda layer, project: plain(layer, lambda: lengths.append(1) or project()))
    with tl.no_grad():
        for t in range(T):
            model(decoder_input_ids=target[:, t : t + 1], encoder_outputs=memory, cache=cache)
    assert len(lengths) == model.config.num_decoder_layers


def test_beams_may_change_places_in_the_cache(texts):
    model, (source, target) = tiny_transformer(), texts
    cache, memory, order = model.new_cache(), model.encode(source), np.array([2, 0, 2, 1])
    with tl.no_grad():
        model(decoder_input_ids=target[:, :3], encoder_outputs=memory, cache=cache)
        cache.reorder(order)
        found = model(decoder_input_ids=target[order, 3:], encoder_outputs=memory[order], cache=cache).logits.data
    assert close(found[:, 0], model(source[order], decoder_input_ids=target[order]).logits.data[:, 3])


@pytest.mark.parametrize("options", OPTIONS[:3])
@pytest.mark.parametrize("num_beams", [1, 3])
def test_writing_with_and_without_the_cache_is_the_same(options, num_beams, texts):
    model, (source, _) = tiny_transformer(**options), texts
    mask = np.ones_like(source)
    mask[2, :2] = 0
    found = [
        tl.generate(model, source, 8, attention_mask=mask, num_beams=num_beams, use_cache=use, eos_token_id=2)
        for use in (True, False)
    ]
    np.testing.assert_array_equal(*found)


def test_greedy_writing_takes_the_likeliest_token(texts):
    model, (source, _) = tiny_transformer(), texts
    written = np.ones((B, 1), int)
    for _ in range(6):
        logits = model(source, decoder_input_ids=written).logits.data[:, -1]
        written = np.concatenate([written, logits.argmax(axis=1)[:, None]], axis=1)
    found = tl.generate(model, source, 6)
    assert found.tolist()[0][-6:] == written.tolist()[0][-6:]
    np.testing.assert_array_equal(found[:, -6:], written[:, -6:])


def test_the_labels_are_what_each_position_says(texts):
    model, (source, target) = tiny_transformer(), texts
    before = np.concatenate([np.full((B, 1), 1), target[:, :-1]], axis=1)
    out = model(source, decoder_input_ids=before)
    expected = tl.cross_entropy(out.logits, target).item()
    assert out.loss is None
    for loss in (model(source, labels=target).loss, model.loss({"input_ids": source, "labels": target})):
        assert abs(loss.item() - expected) < 1e-12
    given = model(source, decoder_input_ids=target, labels=target).loss
    assert abs(given.item() - tl.cross_entropy(model(source, decoder_input_ids=target).logits, target).item()) < 1e-12


def test_labels_are_smoothed_in_training_only(texts):
    model, (source, target) = tiny_transformer(label_smoothing=0.2), texts
    batch = {"input_ids": source, "labels": target}
    logp = tl.log_softmax(model(**batch).logits, axis=-1).data
    exact = -np.take_along_axis(logp, target[..., None], axis=-1).mean()
    for loss in (model.loss, lambda b: model(**b).loss):
        assert abs(loss(batch).item() - exact) < 1e-12
        model.train()
        assert abs(loss(batch).item() - (0.8 * exact - 0.2 * logp.mean())) < 1e-12
        model.eval()


def test_dropout_works_in_training_only(texts):
    model, (source, target) = tiny_transformer(dropout=0.5), texts
    batch = {"input_ids": source, "labels": target}
    once = model.loss(batch).item()
    assert model.loss(batch).item() == once
    model.train()
    with tl.random_scope(0, 0):
        drawn = model.loss(batch).item()
    with tl.random_scope(0, 0):
        assert model.loss(batch).item() == drawn
    assert model.loss(batch).item() != drawn != once


def test_where_it_looks_is_the_cross_attention_of_the_last_layer_but_one(texts):
    source, target = texts
    mask = np.ones_like(source)
    mask[1, 3:] = 0
    model = tiny_transformer(num_decoder_layers=3).train()
    weights = model.alignment(source, target, mask)
    assert model.training
    assert weights.shape == (B, T, S)
    np.testing.assert_allclose(weights.sum(axis=-1), 1)
    assert (weights[1, :, 3:] == 0).all()
    assert (weights[1, :, :3] > 0).all()
    # by hand: the scores of the second layer's heads
    model.eval()
    x, memory = [], model.encode(source, mask)
    layer = model.decoder.layers[1]
    plain = layer.multihead_attn.forward
    object.__setattr__(layer.multihead_attn, "forward", lambda x_, *a, **k: x.append(x_.data) or plain(x_, *a, **k))
    model(source, mask, decoder_input_ids=target)
    w, b = layer.multihead_attn.in_proj_weight.data, layer.multihead_attn.in_proj_bias.data
    q, k = ((y @ w[i : i + 12].T + b[i : i + 12]).reshape(B, -1, 3, 4) for y, i in ((x[0], 0), (memory.data, 12)))
    scores = np.einsum("bthd,bshd->bhts", q, k) / 2
    scores = np.where(mask[:, None, None] == 1, scores, -np.inf)
    expected = np.exp(scores) / np.exp(scores).sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(weights, expected.mean(axis=1))


def test_frozen_models_say_where_they_look_too(texts):
    model, (source, target) = tiny_transformer(), texts
    expected = model.alignment(source, target)
    for p in model.parameters():
        p.requires_grad = False
    with tl.no_grad():
        np.testing.assert_array_equal(model.alignment(source, target), expected)


# -- names, folders ----------------------------------------------------------------------------------------------------


def test_the_names_are_torchs():
    names = {name: p.shape for name, p in tiny_transformer().named_parameters() if "layers.1" not in name}
    attention = {"in_proj_weight": (36, 12), "in_proj_bias": (36,), "out_proj.weight": (12, 12), "out_proj.bias": (12,)}
    common = {f"self_attn.{name}": shape for name, shape in attention.items()}
    common |= {"linear1.weight": (20, 12), "linear1.bias": (20,), "linear2.weight": (12, 20), "linear2.bias": (12,)}
    norms = {f"norm{i}.{name}": (12,) for i in (1, 2) for name in ("weight", "bias")}
    expected = {"src_embedding.weight": (11, 12), "tgt_embedding.weight": (13, 12)}
    expected |= {f"{stack}.norm.{name}": (12,) for stack in ("encoder", "decoder") for name in ("weight", "bias")}
    expected |= {f"encoder.layers.0.{name}": shape for name, shape in (common | norms).items()}
    cross = {f"multihead_attn.{name}": shape for name, shape in attention.items()} | {
        "norm3.weight": (12,),
        "norm3.bias": (12,),
    }
    expected |= {f"decoder.layers.0.{name}": shape for name, shape in (common | norms | cross).items()}
    assert names == expected


def test_shared_embeddings_are_one_matrix(texts):
    model = tiny_transformer(**OPTIONS[4])
    assert model.src_embedding is model.tgt_embedding
    assert not any("tgt_embedding" in name for name, _ in model.named_parameters())
    assert model.head()[0] is model.src_embedding.weight


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_is_saved_is_loaded_bit_for_bit(options, dtype, tmp_path, texts):
    model, (source, target) = tiny_transformer(dtype, **options), texts
    model.save_pretrained(tmp_path)
    for loaded in (tl.models.from_pretrained(tmp_path), Transformer.from_pretrained(tmp_path)):
        assert type(loaded) is Transformer
        assert loaded.config == model.config
        assert not loaded.training
        assert {p.dtype.name for p in loaded.parameters()} == {dtype}
        np.testing.assert_array_equal(
            loaded(source, labels=target).logits.data, model(source, labels=target).logits.data
        )
    settings = json.loads((tmp_path / "config.json").read_text())
    settings.pop("architectures")
    (tmp_path / "config.json").write_text(json.dumps(settings))
    assert type(tl.models.from_pretrained(tmp_path)) is Transformer


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"d_model": 24}, "d_model=24.*do not belong together"),
        ({"num_decoder_layers": 3}, "num_decoder_layers=3.*has 2"),
        ({"src_vocab_size": 10**12}, "src_vocab_size=1000000000000.*do not belong together"),
        ({"tgt_vocab_size": 10**12}, "tgt_vocab_size=1000000000000.*do not belong together"),
        ({"max_position_embeddings": 10**12, "positions": "learned"}, "src_positions.weight is missing"),
        ({"dim_feedforward": 10**12}, "dim_feedforward=1000000000000"),
        ({"tie_word_embeddings": False}, "generator.weight is missing"),
        ({"model_type": "bert"}, "'bert'"),
    ],
)
def test_a_folder_whose_files_do_not_fit_is_refused(changes, said, tmp_path):
    tiny_transformer("float32").save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text()) | changes
    (tmp_path / "config.json").write_text(json.dumps(settings))
    with pytest.raises(CheckpointError, match=said):
        Transformer.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"norm_fist": True}, "norm_fist.*norm_first"),
        ({"is_encoder_decoder": False}, "is_encoder_decoder=False"),
        ({"nhead": 5}, "nhead=5 does not divide"),
        ({"positions": "rotary"}, "unknown positions 'rotary'"),
        ({"share_embeddings": True}, "src_vocab_size=11 and tgt_vocab_size=13"),
        ({"activation": "geluu"}, "geluu"),
        ({"dropout": 1.5}, "dropout"),
        ({"label_smoothing": -0.1}, "label_smoothing"),
        ({"layer_norm_eps": "small"}, "layer_norm_eps"),
        ({"bias": 1}, "bias"),
        ({"eos_token_id": 13}, "eos_token_id=13 is outside"),
        ({"num_encoder_layers": 0}, "num_encoder_layers"),
        ({"src_vocab_size": None}, "src_vocab_size"),
    ],
)
def test_settings_that_cannot_be_obeyed_are_refused(changes, said, tmp_path):
    model = tiny_transformer("float32")
    model.save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text()) | changes
    (tmp_path / "config.json").write_text(json.dumps(settings))
    with pytest.raises(ConfigError, match=said):
        Transformer.from_pretrained(tmp_path)


def test_sinusoids_are_made_as_far_as_they_are_needed(tmp_path, texts):
    model, (source, target) = tiny_transformer("float32"), texts
    model.save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text()) | {"max_position_embeddings": 10**12}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    longer = Transformer.from_pretrained(tmp_path)
    expected = model(source, decoder_input_ids=target).logits.data
    np.testing.assert_array_equal(longer(source, decoder_input_ids=target).logits.data, expected)
    assert np.isfinite(longer(np.tile(source, 15), decoder_input_ids=np.tile(target, 20)).logits.data).all()
    np.testing.assert_array_equal(longer(source, decoder_input_ids=target).logits.data, expected)


def test_a_missing_vocabulary_is_named():
    with pytest.raises(ConfigError, match="tgt_vocab_size is missing"):
        TransformerConfig.from_dict({"model_type": "transformer", "src_vocab_size": 5})


def test_a_config_or_settings():
    config = tiny_transformer().config
    rng = np.random.default_rng(0)
    small = Transformer(src_vocab_size=5, tgt_vocab_size=7, d_model=8, nhead=2, dim_feedforward=8, rng=rng)
    assert small.config == TransformerConfig(src_vocab_size=5, tgt_vocab_size=7, d_model=8, nhead=2, dim_feedforward=8)
    assert (len(small.encoder.layers), len(small.decoder.layers)) == (6, 6)
    with pytest.raises(TypeError, match="nhead"):
        Transformer(config, rng=rng, nhead=2)


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda m, s, t: m(s), ValueError, "decoder_input_ids, or labels"),
        (lambda m, s, t: m(decoder_input_ids=t), ValueError, "input_ids, or the encoder_outputs"),
        (lambda m, s, t: m(s[:2], decoder_input_ids=t), ValueError, "2 sources.*for 3"),
        (lambda m, s, t: m(s, labels=t, decoder_input_ids=t[:, :2]), ValueError, r"\(3, 2\).*\(3, 4\)"),
        (lambda m, s, t: m(s, np.ones((3, 4)), decoder_input_ids=t), ValueError, r"attention_mask.*\(3, 5\)"),
        (lambda m, s, t: m(s, np.full((3, 5), 2), decoder_input_ids=t), ValueError, "1 for tokens"),
        (lambda m, s, t: m(s[0], decoder_input_ids=t), ValueError, "input_ids must have shape"),
        (lambda m, s, t: m(s, decoder_input_ids=t[:, :0]), ValueError, "decoder_input_ids must have shape"),
        (lambda m, s, t: m(s * 0.5, decoder_input_ids=t), TypeError, "input_ids must be integers"),
        (lambda m, s, t: m([[1, 2], [3]], decoder_input_ids=t), ValueError, "rows differ in length"),
        (lambda m, s, t: m(s + 11, decoder_input_ids=t), IndexError, "outside the vocabulary 0..10"),
        (lambda m, s, t: m(s, labels=t + 13), IndexError, "outside"),
        (lambda m, s, t: m(np.tile(s, 3), decoder_input_ids=t), ValueError, "input_ids: 15 tokens.*12.*cut it"),
        (lambda m, s, t: m(s, decoder_input_ids=np.tile(t, 4)), ValueError, "decoder_input_ids: 16 tokens.*12"),
        (lambda m, s, t: m.loss({"input_ids": s, "decoder_input_ids": t}), ValueError, "needs labels"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(call, error, said, texts):
    with pytest.raises(error, match=said):
        call(tiny_transformer(), *texts)


def test_a_text_that_outgrows_the_positions_in_the_cache_is_refused(texts):
    model, (source, _) = tiny_transformer(), texts
    cache, memory = model.new_cache(), model.encode(source)
    with tl.no_grad():
        model(decoder_input_ids=np.ones((B, 12), int), encoder_outputs=memory, cache=cache)
        with pytest.raises(ValueError, match="13 tokens"):
            model(decoder_input_ids=np.ones((B, 1), int), encoder_outputs=memory, cache=cache)
