"""The recurrent encoder-decoder, with and without attention: padding, cache, beams, folders, learning."""

import numpy as np
import pytest

import tinyllm as tl
from tinyllm.errors import ConfigError
from tinyllm.models import RNNEncoderDecoder, RNNEncoderDecoderConfig
from tinyllm.testing import gradcheck

KINDS = {
    "plain": {"attention": "none", "plain": True},
    "none": {"attention": "none"},
    "bahdanau": {"attention": "bahdanau"},
    "luong": {"attention": "luong", "share_embeddings": True, "src_vocab_size": 10},
}
every_kind = pytest.mark.parametrize("kind", KINDS)


def tiny(kind, **settings):
    sizes = {"src_vocab_size": 9, "tgt_vocab_size": 10, "embedding_size": 5, "hidden_size": 6}
    config = RNNEncoderDecoderConfig(**(sizes | KINDS[kind] | settings))
    return RNNEncoderDecoder(config, rng=np.random.default_rng(2), dtype=np.float64)


@pytest.fixture
def batch(rng):
    mask = np.array([[0, 0, 1, 1, 1, 1], [1] * 6, [1, 1, 1, 1, 0, 0]])
    labels = rng.integers(3, 10, (3, 4))
    labels[1, 3] = -100
    return {"input_ids": rng.integers(0, 9, (3, 6)), "attention_mask": mask, "labels": labels}


@every_kind
def test_padding_of_the_source_changes_nothing(kind, batch):
    model = tiny(kind)
    logits = model(**batch).logits.data
    for b in range(3):
        real = batch["attention_mask"][b] == 1
        alone = model(batch["input_ids"][b : b + 1, real], labels=batch["labels"][b : b + 1])
        np.testing.assert_allclose(logits[b], alone.logits.data[0], atol=1e-13)


@every_kind
def test_the_loss_is_that_of_the_logits(kind, batch):
    model = tiny(kind)
    out = model(**batch)
    log_p = tl.log_softmax(out.logits).data
    real = batch["labels"] != -100
    expected = -np.take_along_axis(log_p, np.where(real, batch["labels"], 0)[..., None], -1)[..., 0][real].mean()
    assert out.loss.item() == pytest.approx(expected)
    assert model.loss(batch).item() == pytest.approx(expected)


@every_kind
def test_a_token_does_not_see_those_after_it(kind, batch, rng):
    model = tiny(kind)
    ids = rng.integers(0, 10, (3, 5))
    source = {name: batch[name] for name in ("input_ids", "attention_mask")}
    before = model(**source, decoder_input_ids=ids).logits.data
    ids[:, 3] = (ids[:, 3] + 1) % 10
    after = model(**source, decoder_input_ids=ids).logits.data
    np.testing.assert_array_equal(before[:, :3], after[:, :3])
    assert (before[:, 3:] != after[:, 3:]).all()


@pytest.mark.parametrize("kind", ["bahdanau", "luong"])
def test_the_gradient_is_the_finite_difference(kind):
    model = tiny(kind, src_vocab_size=4, tgt_vocab_size=4, embedding_size=1, hidden_size=2)
    source = {"input_ids": [[3, 1, 2], [2, 3, 0]], "attention_mask": np.array([[1, 1, 1], [1, 1, 0]])}
    parts = dict(model.named_modules())
    weights = {n: p.numpy() for n, p in model.named_parameters() if "weight_hh" not in n and "bias" not in n}

    def loss(*given):
        for name, weight in zip(weights, given, strict=True):
            module, _, attribute = name.rpartition(".")
            vars(parts[module])[attribute] = weight  # what is computed cannot be assigned as a parameter
        return model(**source, labels=[[3, 2], [1, -100]]).loss

    gradcheck(loss, *weights.values())


@every_kind
def test_token_by_token_is_the_same_as_all_at_once(kind, batch, rng):
    model = tiny(kind)
    ids = rng.integers(0, 10, (3, 5))
    source = {name: batch[name] for name in ("input_ids", "attention_mask")}
    memory, cache = model.encode(**source), model.new_cache()
    seen = {"encoder_outputs": memory, "attention_mask": batch["attention_mask"], "cache": cache}
    one_by_one = [model(decoder_input_ids=ids[:, t : t + 1], **seen).logits.data for t in range(5)]
    at_once = model(**source, decoder_input_ids=ids).logits.data
    np.testing.assert_allclose(np.concatenate(one_by_one, axis=1), at_once, atol=1e-13)


@pytest.mark.parametrize("kind", ["bahdanau", "luong"])
def test_the_first_steps_do_not_nail_the_attention_to_one_place(kind, rng):
    """While no more is learnt than which tokens are frequent, each place is looked at."""
    config = RNNEncoderDecoderConfig(src_vocab_size=200, tgt_vocab_size=200, attention=kind)
    model = RNNEncoderDecoder(config, rng=rng)
    opt = tl.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(15):
        labels = np.minimum(rng.geometric(0.1, (16, 6)) + 2, 199)
        loss = model.loss({"input_ids": rng.integers(3, 200, (16, 8)), "labels": labels})
        opt.zero_grad()
        loss.backward()
        opt.step()
    weights = model.alignment(rng.integers(3, 200, (16, 8)), labels)
    entropy = -(weights * np.log(weights + 1e-30)).sum(axis=-1)
    assert entropy.mean() > 0.3 * np.log(8)


@every_kind
@pytest.mark.parametrize("beams", [1, 3])
def test_writing_with_the_state_and_without_it(kind, beams, batch):
    model = tiny(kind)
    source, mask = batch["input_ids"], batch["attention_mask"]
    with_it, without = (
        tl.generate(model, source, 6, num_beams=beams, use_cache=use, attention_mask=mask) for use in (True, False)
    )
    np.testing.assert_array_equal(with_it, without)
    assert (with_it[:, 0] == model.config.decoder_start_token_id).all()


@every_kind
def test_folders(kind, tmp_path, batch):
    model = tiny(kind)
    model.save_pretrained(tmp_path)
    loaded = tl.models.from_pretrained(tmp_path)
    assert loaded.config == model.config
    np.testing.assert_array_equal(loaded(**batch).logits.data, model(**batch).logits.data)


@pytest.mark.parametrize("kind", ["bahdanau", "luong"])
def test_alignments_are_weights_of_the_tokens_of_the_source(kind, batch, rng):
    model = tiny(kind)
    weights = model.alignment(batch["input_ids"], rng.integers(0, 10, (3, 4)), batch["attention_mask"])
    assert weights.shape == (3, 4, 6)
    np.testing.assert_allclose(weights.sum(axis=-1), 1)
    assert not weights[0, :, :2].any()
    assert not weights[2, :, 4:].any()


def test_without_attention_there_is_no_alignment(batch):
    with pytest.raises(ConfigError, match="no attention"):
        tiny("none").alignment(batch["input_ids"], batch["labels"][:, :2])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"attention": "luongg"}, "did you mean 'luong'"),
        ({"hidden_size": 0}, "hidden_size"),
        ({"plain": True}, "without attention"),
        ({"share_embeddings": True}, "one vocabulary"),
        ({"eos_token_id": 10}, "outside the target's vocabulary"),
    ],
)
def test_impossible_settings(settings, words):
    with pytest.raises(ConfigError, match=words):
        RNNEncoderDecoderConfig(**({"src_vocab_size": 9, "tgt_vocab_size": 10} | settings))


@pytest.mark.parametrize("kind", ["none", "bahdanau", "luong"])
def test_it_learns_to_reverse(kind, rng):
    """Short words backwards: what a decoder can only say if it knows the source."""
    config = RNNEncoderDecoderConfig(
        src_vocab_size=8, tgt_vocab_size=8, embedding_size=16, hidden_size=32, attention=kind, eos_token_id=2
    )
    model = RNNEncoderDecoder(config, rng=rng)
    source = rng.integers(3, 8, (64, 4))
    batch = {"input_ids": source, "labels": source[:, ::-1].copy()}
    opt = tl.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(60):
        loss = model.loss(batch)
        opt.zero_grad()
        loss.backward()
        opt.step()
    written = tl.generate(model, source[:16], 4)
    assert (written[:, 1:] == source[:16, ::-1]).mean() > 0.9
