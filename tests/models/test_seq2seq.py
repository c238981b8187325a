"""Marian, BART and T5: their laws, their folders, and what they refuse."""

import json
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_seq2seq import IDS, MODELS, OPTIONS, SIZES, tgt_vocab_size, tiny

import tinyllm as tl
from tinyllm import safetensors
from tinyllm.errors import CheckpointError, ConfigError
from tinyllm.models.t5 import buckets
from tinyllm.nn import Sinusoids, sinusoids

each_model = pytest.mark.parametrize(("kind", "options"), OPTIONS, ids=IDS)
each_kind = pytest.mark.parametrize("kind", MODELS)


def close(found, expected, bound=1e-12):
    found, expected = (np.asarray(getattr(x, "data", x)) for x in (found, expected))
    return np.abs(found - expected).max() <= bound * np.abs(expected).max()


@settings(max_examples=25, deadline=None)
@given(
    case=st.sampled_from(OPTIONS),
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=3),
    left=st.lists(st.booleans(), min_size=3, max_size=3),
    seed=st.integers(0, 99),
)
def test_padding_changes_no_result(case, lengths, left, seed):
    kind, options = case
    model, rng = tiny(kind, **options), np.random.default_rng(seed)
    sources = [rng.integers(13, size=n) for n in lengths]
    target = rng.integers(tgt_vocab_size(model), size=(len(lengths), 4))
    source, mask = np.full((len(lengths), 8), 7), np.zeros((len(lengths), 8), int)
    for i, ids in enumerate(sources):
        at = slice(8 - len(ids), 8) if left[i] else slice(len(ids))
        source[i, at], mask[i, at] = ids, 1
    together = model(source, mask, decoder_input_ids=target).logits.data
    for i, ids in enumerate(sources):
        assert close(together[i], model(ids[None], decoder_input_ids=target[i : i + 1]).logits.data[0])


@each_model
def test_cached_equals_uncached(kind, options, rng):
    model = tiny(kind, **options)
    source, target = rng.integers(13, size=(3, 6)), rng.integers(tgt_vocab_size(model), size=(3, 7))
    mask = np.ones_like(source)
    mask[1, 4:] = 0
    expected = model(source, mask, decoder_input_ids=target).logits.data
    for recording in (False, True):
        cache, memory, found = model.new_cache(), model.encode(source, mask), []
        with tl.enable_grad() if recording else tl.no_grad():
            for part in np.split(target, [1, 2, 5], axis=1):
                out = model(decoder_input_ids=part, encoder_outputs=memory, attention_mask=mask, cache=cache)
                found.append(out.logits.numpy())
        assert close(np.concatenate(found, axis=1), expected)
        assert cache.length == 7


@each_model
def test_the_decoder_does_not_look_ahead_and_the_encoder_does(kind, options, rng):
    model = tiny(kind, **options)
    source, target = rng.integers(13, size=(2, 5)), rng.integers(4, size=(2, 6))
    before = model(source, decoder_input_ids=target).logits.data
    changed = target.copy()
    changed[:, 3] += 4
    after = model(source, decoder_input_ids=changed).logits.data
    np.testing.assert_array_equal(after[:, :3], before[:, :3])
    assert (after[:, 3:] != before[:, 3:]).any(axis=-1).all()
    changed = source.copy()
    changed[:, -1] = (changed[:, -1] + 1) % 13
    assert (model(changed, decoder_input_ids=target).logits.data != before).any(axis=-1).all()


@each_model
def test_what_is_saved_is_loaded_bit_for_bit(kind, options, tmp_path, rng):
    model = tiny(kind, "float32", **options)
    model.save_pretrained(tmp_path)
    source, labels = rng.integers(13, size=(2, 5)), rng.integers(tgt_vocab_size(model), size=(2, 6))
    expected = model(source, labels=labels).logits.data
    for load in (tl.models.from_pretrained, MODELS[kind][0].from_pretrained):
        loaded = load(tmp_path)
        assert type(loaded) is MODELS[kind][0]
        assert loaded.config == model.config
        np.testing.assert_array_equal(loaded(source, labels=labels).logits.data, expected)
    loaded.train()(source, labels=labels).loss.backward()
    assert all((p.grad is None) == (name == "final_logits_bias") for name, p in loaded.named_parameters())


@each_model
def test_the_loss_is_that_of_the_logits(kind, options, rng):
    model = tiny(kind, **options)
    source, labels = rng.integers(13, size=(2, 5)), rng.integers(tgt_vocab_size(model), size=(2, 6))
    batch = {"input_ids": source, "labels": labels}
    expected = tl.cross_entropy(model(**batch).logits, labels).item()
    assert abs(model.loss(batch).item() - expected) < 1e-12
    if kind != "t5":  # a head without constants goes through the fused loss
        model.final_logits_bias.assign_(np.zeros(model.final_logits_bias.shape))
        assert model.head()[1] is None
        assert abs(model.loss(batch).item() - tl.cross_entropy(model(**batch).logits, labels).item()) < 1e-12


@each_kind
def test_dropout_works_in_training_only(kind, rng):
    rate = {"dropout_rate": 0.5} if kind == "t5" else {"dropout": 0.5}
    model = tiny(kind, **rate)
    batch = {"input_ids": rng.integers(13, size=(2, 5)), "labels": rng.integers(13, size=(2, 6))}
    once = model.loss(batch).item()
    assert model.loss(batch).item() == once
    assert model.train().loss(batch).item() != once


@pytest.mark.parametrize("part", ["attention_dropout", "activation_dropout"])
def test_each_dropout_has_its_own_rate(part, rng):
    batch = {"input_ids": rng.integers(13, size=(2, 5)), "labels": rng.integers(13, size=(2, 6))}
    model = tiny("bart", **{part: 0.5})
    once = model.loss(batch).item()
    assert model.train().loss(batch).item() != once


@each_kind
@pytest.mark.parametrize("num_beams", [1, 3])
def test_writing_with_and_without_the_cache_is_the_same(kind, num_beams, rng):
    model, source = tiny(kind), rng.integers(13, size=(3, 6))
    mask = np.ones_like(source)
    mask[2, 4:] = 0
    given = {"attention_mask": mask, "num_beams": num_beams, "eos_token_id": 2}
    found = [tl.generate(model, source, 7, use_cache=use, **given) for use in (True, False)]
    np.testing.assert_array_equal(*found)


@each_kind
def test_first_weights_keep_the_sizes_of_what_passes(kind):
    """A fresh model's states are of size 1, and the vector of the padding is 0."""
    model_class, config_class = MODELS[kind]
    longer = {} if kind == "t5" else {"max_position_embeddings": 50}
    config = config_class(**SIZES[kind] | {"d_model": 48, "vocab_size": 99} | longer)
    model = model_class(config, rng=np.random.default_rng(0)).eval()
    assert 0.5 < model.encode(np.arange(50)[None]).data.std() < 2
    if kind != "t5":
        assert (model.model.shared.weight.data[1] == 0).all()


# -- T5's distances, Marian's sinusoids --------------------------------------------------------------------------------


def test_classes_of_distances_by_hand():
    near = buckets(np.arange(-20, 3), False, 8, 20)
    # 0..3 alone, then 4 classes up to 20: the borders are 4 * 5^(k/4), that is 4, 5.98, 8.94, 13.37
    expected = [7] * 7 + [6] * 5 + [5] * 3 + [4] * 2 + [3, 2, 1, 0] + [0, 0]
    assert near.tolist() == expected
    both = buckets(np.array([-3, -1, 0, 1, 3]), True, 8, 20)
    assert both.tolist() == [2, 1, 0, 5, 6]


def test_t5_sees_distances_and_not_places(rng):
    """The same text after a long padding, and any part of a text, is read alike."""
    model = tiny("t5")
    ids = rng.integers(13, size=(1, 6))
    far = np.concatenate([np.zeros((1, 60), int), ids], axis=1)
    mask = (np.arange(66) >= 60)[None].astype(int)
    assert close(model.encode(far, mask).data[:, 60:], model.encode(ids).data)
    assert model.context_length is None


@pytest.mark.parametrize("C", [6, 7])
def test_sines_before_cosines_are_the_same_numbers(C):
    plain, apart = sinusoids(9, C, dtype="float64"), sinusoids(9, C, interleaved=False, dtype="float64")
    np.testing.assert_array_equal(apart, np.concatenate([plain[:, 0::2], plain[:, 1::2]], axis=1))
    table = Sinusoids(C, interleaved=False, dtype="float64")
    np.testing.assert_array_equal(
        table(np.array([[3, 500]])).data[0, 1], sinusoids(501, C, interleaved=False, dtype="f8")[500]
    )
    np.testing.assert_array_equal(table(np.array([3])).data[0], apart[3])


# -- folders -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    """Makes a folder of a model, with its config.json and its weights changed."""

    def make(kind, config=(), weights=lambda w: None, **options):
        tiny(kind, "float32", **options).save_pretrained(tmp_path)
        path = tmp_path / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | dict(config)))
        held, _ = safetensors.load(tmp_path / "model.safetensors")
        held = {name: array.copy() for name, array in held.items()}
        safetensors.save(tmp_path / "model.safetensors", weights(held) or held)
        return tmp_path

    return make


@each_kind
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"d_modle": 12}, "d_modle.*d_model"),
        ({"is_encoder_decoder": False}, "is_encoder_decoder=False"),
        ({"vocab_size": "13"}, "vocab_size"),
        ({"pad_token_id": -1}, "pad_token_id"),
        ({"decoder_start_token_id": 1.5}, "decoder_start_token_id"),
        ({"tie_word_embeddings": 1}, "tie_word_embeddings"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"hidden_size": 24}, "hidden_size=24 contradicts d_model=12|d_model=12 contradicts"),
    ],
)
def test_settings_that_cannot_be_obeyed_are_refused(kind, changes, said, folder):
    with pytest.raises(ConfigError, match=said):
        tl.models.from_pretrained(folder(kind, changes))


@pytest.mark.parametrize(
    ("kind", "changes", "said"),
    [
        ("bart", {"encoder_layerdrop": 0.1}, "encoder_layerdrop=0.1 cannot"),
        ("bart", {"decoder_layerdrop": 0.1}, "decoder_layerdrop"),
        ("bart", {"normalize_before": True}, "normalize_before"),
        ("bart", {"normalize_embedding": False}, "normalize_embedding=False"),
        ("marian", {"normalize_embedding": True}, "normalize_embedding=True"),
        ("marian", {"static_position_embeddings": False}, "static_position_embeddings"),
        ("bart", {"add_final_layer_norm": True}, "add_final_layer_norm"),
        ("bart", {"encoder_attention_heads": 5}, "encoder_attention_heads=5 does not divide"),
        ("bart", {"activation_function": "gelu_10"}, "gelu_10"),
        ("bart", {"pad_token_id": 13}, "pad_token_id=13 is outside"),
        ("bart", {"share_encoder_decoder_embeddings": True}, "share_encoder_decoder_embeddings"),
        ("marian", {"decoder_vocab_size": 14}, "decoder_vocab_size=14 differs"),
        ("t5", {"feed_forward_proj": "gated-gelu"}, "dense_act_fn='relu' contradicts"),
        ("t5", {"feed_forward_proj": "gated-elu", "dense_act_fn": "elu"}, "unknown activation function 'elu'"),
        ("t5", {"feed_forward_proj": 3}, "feed_forward_proj"),
        ("t5", {"is_gated_act": True}, "is_gated_act=True contradicts"),
        ("t5", {"relative_attention_num_buckets": 2}, "relative_attention_num_buckets"),
        ("t5", {"relative_attention_max_distance": 16}, "relative_attention_max_distance"),
        ("t5", {"layer_norm_epsilon": -1.0}, "layer_norm_epsilon"),
    ],
)
def test_settings_of_one_family_are_refused(kind, changes, said, folder):
    derived = {"dense_act_fn": "relu", "is_gated_act": False} if kind == "t5" else {}
    with pytest.raises(ConfigError, match=said):
        tl.models.from_pretrained(folder(kind, derived | changes))


@pytest.mark.parametrize(
    ("kind", "changes", "said"),
    [
        ("bart", {"vocab_size": 10**12}, "vocab_size=1000000000000.*do not belong together"),
        ("bart", {"encoder_layers": 10**9}, "encoder_layers=1000000000.*has 2 layers of the encoder"),
        ("bart", {"decoder_ffn_dim": 10**12}, "decoder_ffn_dim=1000000000000"),
        ("bart", {"max_position_embeddings": 10**12}, "rows_of_positions=1000000000002"),
        ("marian", {"decoder_layers": 3}, "decoder_layers=3.*has 2"),
        ("t5", {"num_decoder_layers": 5}, "num_decoder_layers=5.*has 2 blocks of the decoder"),
        ("t5", {"d_kv": 10**12}, "inner=3000000000000"),
        ("t5", {"relative_attention_num_buckets": 10}, "relative_attention_num_buckets=10"),
        ("t5", {"model_type": "mt5"}, "'mt5'"),
        ("marian", {"model_type": "bart"}, "'bart'"),
    ],
)
def test_files_that_do_not_belong_together_are_refused(kind, changes, said, folder):
    with pytest.raises(CheckpointError, match=said):
        tl.models.from_pretrained(folder(kind, changes))


@pytest.mark.parametrize(
    ("kind", "change", "said"),
    [
        ("bart", lambda w: w.pop("model.shared.weight") is None, "shared.weight is missing; this is no BART"),
        (
            "bart",
            lambda w: w.update({"lm_head.weight": np.zeros((13, 12), "f4")}),
            "lm_head.weight.*are one parameter|one parameter.*differ",
        ),
        ("bart", lambda w: w.update({"model.extra": np.zeros(3, "f4")}), "unexpected: model.extra"),
        ("bart", lambda w: w.update({"final_logits_bias": np.zeros((1, 14), "f4")}), "final_logits_bias.*14"),
        ("bart", lambda w: w.update({"final_logits_bias": np.zeros((1, 13), "i8")}), "final_logits_bias holds int64"),
        ("bart", lambda w: w["model.shared.weight"].__setitem__((2, 3), np.nan), r"shared.weight\[2, 3\] is nan"),
        (
            "marian",
            lambda w: w.update({"model.encoder.embed_positions.weight": np.zeros((10, 12), "f4")}),
            "other positions than sinusoids",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused(kind, change, said, folder):
    with pytest.raises(CheckpointError, match=said):
        tl.models.from_pretrained(folder(kind, weights=lambda w: change(w) and None))


def test_old_files_are_understood(folder, rng):
    """Copies of what is one, constants left out, sinusoids written out, a version number, no "model." in front."""
    source, labels = rng.integers(13, size=(2, 5)), rng.integers(13, size=(2, 6))

    def age(weights):
        table = weights["model.shared.weight"]
        weights.pop("final_logits_bias")
        copies = ("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight", "lm_head.weight")
        weights |= dict.fromkeys(copies, table)
        weights["model.encoder.version"] = np.zeros(1, "f4")
        weights["model.decoder.embed_positions.weight"] = sinusoids(10, 12, interleaved=False)
        return {name.removeprefix("model."): array for name, array in weights.items()}

    loaded = tl.models.from_pretrained(folder("marian", weights=age))
    expected = tiny("marian", "float32")
    expected.final_logits_bias.assign_(np.zeros((1, 13)))
    np.testing.assert_array_equal(
        loaded(source, labels=labels).logits.data, expected(source, labels=labels).logits.data
    )


def test_settings_that_change_nothing_are_passed_over(folder):
    real = {
        "bad_words_ids": [[1]],
        "num_beams": 6,
        "max_length": 512,
        "num_hidden_layers": 2,
        "normalize_before": False,
    }
    real |= {"add_bias_logits": False, "add_final_layer_norm": False, "static_position_embeddings": True}
    real |= {"normalize_embedding": False, "classif_dropout": 0.0, "_num_labels": 3, "encoder_layerdrop": 0.0}
    assert tl.models.from_pretrained(folder("marian", real)).config == tiny("marian").config


def test_a_config_says_everything_a_model_needs():
    for kind, (_, config_class) in MODELS.items():
        config = tiny(kind).config
        assert config_class.from_dict(config.to_dict()) == config
        assert config.to_dict().keys() > asdict(config).keys()
