"""The Transformer that copies: its mixture is a law, copying is possible for any token, caches and folders keep it."""

import numpy as np
import pytest

import tinyllm as tl
from tinyllm.models import PointerConfig, PointerTransformer

V = 9


def make(dtype="float64", channels=8) -> PointerTransformer:
    config = PointerConfig(
        src_vocab_size=V,
        tgt_vocab_size=V,
        d_model=channels,
        nhead=2,
        num_encoder_layers=1,
        num_decoder_layers=2,
        dim_feedforward=16,
        dropout=0.0,
        max_position_embeddings=12,
    )
    return PointerTransformer(config, rng=np.random.default_rng(0), dtype=dtype).eval()


SOURCE = np.array([[3, 4, 5, 2], [6, 2, 0, 0]])
MASK = np.array([[1, 1, 1, 1], [1, 1, 0, 0]])
TARGET = np.array([[4, 5, 2], [6, 2, -100]])


def test_the_logits_are_logarithms_of_probabilities():
    p = np.exp(make()(SOURCE, MASK, labels=TARGET).logits.numpy())
    np.testing.assert_allclose(p.sum(axis=-1), 1, atol=1e-7)


def test_a_closed_gate_copies_and_an_open_one_is_the_transformer():
    model = make()
    model.gate.weight.assign_(np.zeros((1, 8)))
    model.gate.bias.assign_(np.array([-40.0]))
    p = np.exp(model(SOURCE, MASK, labels=TARGET).logits.numpy())
    for row, tokens in enumerate(({2, 3, 4, 5}, {2, 6})):  # the padding, 0, is never copied
        others = [token for token in range(V) if token not in tokens]
        assert p[row][:, others].max() < 1e-8
    model.gate.bias.assign_(np.array([40.0]))
    plain = tl.models.Transformer(
        tl.models.TransformerConfig(**vars(model.config)), rng=np.random.default_rng(1), dtype="float64"
    ).eval()
    for name, parameter in plain.named_parameters():
        parameter.assign_(dict(model.named_parameters())[name].numpy())
    assert model(SOURCE, MASK, labels=TARGET).loss.item() == pytest.approx(
        plain(SOURCE, MASK, labels=TARGET).loss.item(), abs=1e-6
    )


def test_the_loss_is_the_mean_of_the_labels_logarithms():
    model = make()
    out = model(SOURCE, MASK, labels=TARGET)
    known = TARGET != -100
    told = np.take_along_axis(out.logits.numpy(), np.where(known, TARGET, 0)[..., None], axis=-1)[..., 0]
    assert out.loss.item() == pytest.approx(-told[known].mean(), abs=1e-7)
    batch = {"input_ids": SOURCE, "attention_mask": MASK, "labels": TARGET}
    assert model.loss(batch).item() == pytest.approx(out.loss.item())
    with pytest.raises(ValueError, match="needs labels"):
        model.loss({"input_ids": SOURCE, "decoder_input_ids": SOURCE})


def test_padding_changes_nothing():
    model = make()
    alone = model(SOURCE[1:, :2], labels=TARGET[1:, :2]).logits.numpy()
    padded = model(SOURCE, MASK, labels=TARGET).logits.numpy()[1:, :2]
    np.testing.assert_allclose(alone, padded, atol=1e-10)


@pytest.mark.parametrize("beams", [1, 3])
def test_it_writes_the_same_with_a_cache_as_without(beams):
    model = make()
    found = [
        tl.generate(model, SOURCE, attention_mask=MASK, max_new_tokens=6, num_beams=beams, use_cache=cached)
        for cached in (True, False)
    ]
    np.testing.assert_array_equal(*found)


def test_the_alignment_is_where_it_points():
    weights = make().alignment(SOURCE, [[1, 4], [1, 6]], MASK)
    assert weights.shape == (2, 2, 4)
    np.testing.assert_allclose(weights.sum(axis=-1), 1)
    assert (weights[1, :, 2:] == 0).all()


def test_a_folder_keeps_it(tmp_path):
    model = make("float32")
    model.save_pretrained(tmp_path)
    again = tl.models.from_pretrained(tmp_path)
    assert isinstance(again, PointerTransformer)
    found, expected = (one(SOURCE, labels=TARGET).logits.numpy() for one in (again, model))
    np.testing.assert_array_equal(found, expected)


def test_its_gradient_is_the_finite_difference():
    model = make(channels=4)

    def loss(pointer, gate):
        model.pointer.weight, model.gate.weight = pointer, gate
        return model(SOURCE, MASK, labels=TARGET).loss

    weights = [tl.tensor(layer.weight.numpy(), requires_grad=True) for layer in (model.pointer, model.gate)]
    tl.testing.gradcheck(loss, *weights)
