"""Layers against the literal loops of `tinyllm.formulas`, and the laws they obey."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinyllm as tl
from tinyllm import nn
from tinyllm.errors import ConfigError
from tinyllm.formulas import attention, block, linear, positions

DOUBLE = np.float64


def randomise(module: nn.Module, rng: np.random.Generator) -> nn.Module:
    """Parameters that are neither 0 nor 1, which would hide an error in them."""
    for p in module.parameters():
        p.assign_(rng.normal(size=p.shape))
    return module


def test_linear_is_the_formula(rng):
    layer = randomise(nn.Linear(3, 2, rng=rng, dtype=DOUBLE), rng)
    x = rng.normal(size=(4, 3))
    expected = [linear.linear(row, layer.weight.numpy(), layer.bias.numpy()) for row in x]
    np.testing.assert_allclose(layer(x).data, expected, rtol=1e-13)
    assert nn.Linear(3, 2, bias=False, rng=rng).bias is None


def test_layer_norm_is_the_formula(rng):
    layer = randomise(nn.LayerNorm(5, eps=1e-3, dtype=DOUBLE), rng)
    x = rng.normal(size=(4, 5))
    expected = [block.layer_norm(row, layer.weight.numpy(), layer.bias.numpy(), 1e-3) for row in x]
    np.testing.assert_allclose(layer(x).data, expected, rtol=1e-12)


def test_rms_norm_has_mean_square_one(rng):
    layer = nn.RMSNorm((2, 3), dtype=DOUBLE)
    y = layer(rng.normal(size=(4, 2, 3))).data
    np.testing.assert_allclose((y**2).mean(axis=(1, 2)), 1, rtol=1e-12)
    layer.weight.assign_(np.full((2, 3), 3.0))
    np.testing.assert_allclose((layer(y).data ** 2).mean(axis=(1, 2)), 9, rtol=1e-12)
    np.testing.assert_allclose(nn.RMSNorm(2, eps=12.0, dtype=DOUBLE)(np.array([2.0, 2.0])).data, [0.5, 0.5])


def test_feed_forward_is_the_formula(rng):
    layer = randomise(nn.FeedForward(3, 7, rng=rng, dtype=DOUBLE), rng)
    x = rng.normal(size=(4, 3))
    weights = [p.numpy() for p in (layer.up.weight, layer.up.bias, layer.down.weight, layer.down.bias)]
    np.testing.assert_allclose(layer(x).data, [block.feed_forward(row, *weights) for row in x], rtol=1e-12)


@pytest.mark.parametrize("causal", [False, True])
def test_self_attention_is_the_formula(causal, rng):
    layer = nn.MultiHeadAttention(6, 3, bias=False, rng=rng, dtype=DOUBLE)
    x = rng.normal(size=(2, 5, 6))
    w_q, w_k, w_v = np.split(layer.in_proj_weight.numpy(), 3)
    expected = [
        attention.multi_head_attention(row, w_q, w_k, w_v, layer.out_proj.weight.numpy(), 3, causal) for row in x
    ]
    np.testing.assert_allclose(layer(tl.tensor(x), is_causal=causal).data, expected, rtol=1e-12, atol=1e-14)


@given(t=st.integers(1, 6), c=st.integers(1, 9))
def test_sinusoids_are_the_formula(t, c):
    np.testing.assert_allclose(nn.sinusoids(t, c, dtype=DOUBLE), positions.sinusoidal_positions(t, c), atol=1e-13)


@given(b=st.integers(1, 3), t=st.integers(1, 5), s=st.integers(1, 5), h=st.integers(1, 3), d=st.integers(1, 3))
def test_the_one_product_of_self_attention_equals_three(b, t, s, h, d):
    rng = np.random.default_rng(b + 7 * t)
    layer = randomise(nn.MultiHeadAttention(h * d, h, rng=rng, dtype=DOUBLE), rng)
    x = tl.tensor(rng.normal(size=(b, t, h * d)))
    apart = layer(x, tl.tensor(x), tl.tensor(x))
    np.testing.assert_allclose(layer(x).data, apart.data, rtol=1e-11, atol=1e-12)
    assert layer(x, tl.tensor(rng.normal(size=(b, s, h * d)))).shape == (b, t, h * d)


def test_causal_attention_never_looks_ahead(rng):
    layer = nn.MultiHeadAttention(8, 2, rng=rng)
    x = rng.normal(size=(1, 6, 8)).astype(np.float32)
    before = layer(tl.tensor(x), is_causal=True).numpy()
    x[:, 4:] += 1
    after = layer(tl.tensor(x), is_causal=True).numpy()
    np.testing.assert_array_equal(before[:, :4], after[:, :4])
    assert (before[:, 4:] != after[:, 4:]).any(axis=-1).all()


def test_attention_without_positions_commutes_with_permutations(rng):
    layer = nn.MultiHeadAttention(8, 4, rng=rng, dtype=DOUBLE)
    x, order = rng.normal(size=(2, 7, 8)), rng.permutation(7)
    np.testing.assert_allclose(layer(tl.tensor(x)).data[:, order], layer(tl.tensor(x[:, order])).data, atol=1e-13)


def test_padding_of_the_source_changes_nothing(rng):
    layer = nn.MultiHeadAttention(8, 2, rng=rng, dtype=DOUBLE)
    x, source = tl.tensor(rng.normal(size=(2, 3, 8))), rng.normal(size=(2, 5, 8))
    real = np.array([[True] * 5, [True] * 2 + [False] * 3])
    masked = layer(x, tl.tensor(source), attn_mask=real[:, None, :]).data
    alone = layer(x[1:], tl.tensor(source[1:, :2])).data
    np.testing.assert_allclose(masked[1:], alone, atol=1e-13)
    np.testing.assert_allclose(masked[:1], layer(x[:1], tl.tensor(source[:1])).data, atol=1e-13)


def test_attention_is_linear_in_the_values_and_not_in_the_keys(rng):
    layer = nn.MultiHeadAttention(8, 2, bias=False, rng=rng, dtype=DOUBLE)
    q, k, v = (tl.tensor(rng.normal(size=(2, 5, 8))) for _ in range(3))
    np.testing.assert_allclose(layer(q, k, 3 * v).data, 3 * layer(q, k, v).data, atol=1e-13)
    assert (layer(q, 3 * k, v).data != layer(q, k, v).data).all()


def test_masks_of_every_rank_agree(rng):
    layer = nn.MultiHeadAttention(8, 2, rng=rng, dtype=DOUBLE)
    x, mask = tl.tensor(rng.normal(size=(3, 5, 8))), np.tri(5, dtype=bool)
    expected = layer(x, is_causal=True).data
    as_numbers = np.where(mask, 0.0, -np.inf)
    for m in (mask, mask[None], mask[None, None], np.broadcast_to(mask, (3, 5, 5)), as_numbers):
        np.testing.assert_allclose(layer(x, attn_mask=m).data, expected, atol=1e-13)


def test_split_and_merge_are_inverse(rng):
    x = rng.normal(size=(2, 3, 12))
    heads = nn.split_heads(tl.tensor(x), 4)
    assert heads.shape == (2, 4, 3, 3)
    np.testing.assert_array_equal(heads.data[:, 1], x[:, :, 3:6])
    np.testing.assert_array_equal(nn.merge_heads(heads).data, x)


def test_heads_that_do_not_divide_are_refused(rng):
    for heads in (3, 0):
        with pytest.raises(ValueError, match="heads do not divide 8 channels"):
            nn.MultiHeadAttention(8, heads, rng=rng)


def test_embedding_looks_up_rows_and_keeps_padding_still(rng):
    layer = nn.Embedding(5, 3, padding_idx=-4, rng=rng)
    assert layer.padding_idx == 1
    assert not layer.weight.data[1].any()
    ids = np.array([[0, 1], [4, 4]])
    y = layer(ids)
    np.testing.assert_array_equal(y.data, layer.weight.data[ids])
    y.sum().backward()
    np.testing.assert_array_equal(layer.weight.grad.data, np.array([1, 0, 0, 0, 2])[:, None] * np.ones((5, 3)))
    with pytest.raises(ValueError, match="padding_idx 5"):
        nn.Embedding(5, 3, padding_idx=5, rng=rng)


def test_positions_begin_at_the_offset(rng):
    x = np.zeros((2, 3, 4), np.float32)
    table = nn.SinusoidalPositions(8, 4)
    np.testing.assert_array_equal(table(tl.tensor(x), offset=2).data[1], nn.sinusoids(8, 4)[2:5])
    learned = nn.LearnedPositions(8, 4, rng=rng)
    y = learned(tl.tensor(x), offset=5)
    np.testing.assert_array_equal(y.data[0], learned.weight.data[5:])
    y.sum().backward()
    np.testing.assert_array_equal(learned.weight.grad.data[:, 0], [0, 0, 0, 0, 0, 2, 2, 2])
    for layer in (table, learned):
        with pytest.raises(ValueError, match=r"positions 6\.\.8 do not exist: the table has 8"):
            layer(tl.tensor(x), offset=6)
    assert list(table.parameters()) == []


def test_dropout_in_training_and_in_evaluation(rng):
    layer = nn.Dropout(0.25, rng)
    x = np.ones((1000, 10), np.float32)
    y = layer(tl.tensor(x)).data
    assert set(np.unique(y)) == {0, np.float32(1 / 0.75)}
    assert abs((y == 0).mean() - 0.25) < 0.02
    np.testing.assert_array_equal(layer.eval()(tl.tensor(x)).data, x)


def test_dropout_in_a_scope_can_be_drawn_again(rng):
    layer = nn.Sequential(
        nn.Dropout(0.5), nn.FeedForward(8, 8, dropout=0.5, rng=rng), nn.MultiHeadAttention(8, 2, dropout=0.5, rng=rng)
    )
    x = tl.tensor(rng.normal(size=(2, 3, 8)).astype(np.float32))

    def run(step: int) -> np.ndarray:
        with tl.random_scope(1, step):
            return layer(x).numpy()

    np.testing.assert_array_equal(run(0), run(0))
    assert (run(0) != run(1)).any()
    layer.eval()
    np.testing.assert_array_equal(layer(x).data, layer(x).data)


def test_feed_forward_drops_its_hidden_layer(rng):
    layer = nn.FeedForward(3, 50, dropout=1.0, rng=rng)
    layer.down.bias.assign_([1, 2, 3])
    x = rng.normal(size=(4, 3)).astype(np.float32)
    np.testing.assert_array_equal(layer(x).data, [[1, 2, 3]] * 4)
    assert (layer.eval()(x).data != [1, 2, 3]).all()


def test_attention_dropout_works_without_a_scope_and_ends_in_evaluation(rng):
    layer = nn.MultiHeadAttention(8, 2, dropout=0.5, rng=rng)
    x = tl.tensor(rng.normal(size=(2, 9, 8)).astype(np.float32))
    assert (layer(x).data != layer(x).data).any()
    layer.eval()
    np.testing.assert_array_equal(layer(x).data, layer(x).data)


@pytest.mark.parametrize("p", [-0.1, 1.5, float("nan")])
def test_impossible_dropout_is_refused(p, rng):
    with pytest.raises(ValueError, match="dropout"):
        nn.Dropout(p)
    with pytest.raises(ValueError, match="dropout"):
        nn.MultiHeadAttention(4, 2, dropout=p, rng=rng)


def test_activation_by_name():
    x = tl.tensor([-1.0, 0.5])
    np.testing.assert_array_equal(nn.activation("relu")(x).data, [0, 0.5])
    np.testing.assert_array_equal(nn.activation("gelu_new")(x).data, tl.gelu(x, approximate="tanh").data)
    assert (nn.activation("gelu")(x).data != nn.activation("gelu_new")(x).data).all()
    with pytest.raises(ConfigError, match=r"'gleu'; did you mean 'gelu'\?"):
        nn.FeedForward(2, 2, "gleu", rng=np.random.default_rng(0))


def test_losses_pass_on_their_settings(rng):
    logits, target = rng.normal(size=(4, 3)), np.array([0, 2, 1, 2])
    weight = np.array([1.0, 2.0, 0.5])
    ours = nn.CrossEntropyLoss(weight, ignore_index=1, reduction="sum", label_smoothing=0.1)(tl.tensor(logits), target)
    assert ours.item() == tl.cross_entropy(logits, target, weight, 1, "sum", 0.1).item()
    assert nn.MSELoss("sum")(tl.tensor(logits), logits + 2).item() == pytest.approx(48)
    y = rng.integers(0, 2, size=(4, 3)).astype(float)
    ours = nn.BCEWithLogitsLoss(weight, "none", pos_weight=2 * weight)(tl.tensor(logits), y)
    s = 1 / (1 + np.exp(-logits))
    expected = -weight * (2 * weight * y * np.log(s) + (1 - y) * np.log(1 - s))
    np.testing.assert_allclose(ours.data, expected, rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_stack_keeps_its_dtype_forward_and_backward(dtype, rng):
    model = nn.Sequential(
        nn.Embedding(11, 8, rng=rng, dtype=dtype),
        nn.SinusoidalPositions(16, 8, dtype=dtype),
        nn.LearnedPositions(16, 8, rng=rng, dtype=dtype),
        nn.MultiHeadAttention(8, 2, dropout=0.1, rng=rng, dtype=dtype),
        nn.LayerNorm(8, dtype=dtype),
        nn.FeedForward(8, 16, "gelu", dropout=0.1, rng=rng, dtype=dtype),
        nn.RMSNorm(8, dtype=dtype),
        nn.Linear(8, 11, rng=rng, dtype=dtype),
    )
    ids = rng.integers(11, size=(3, 5))
    logits = model(ids)
    loss = nn.CrossEntropyLoss()(logits, ids)
    assert logits.dtype == loss.dtype == dtype
    loss.backward()
    for name, p in model.named_parameters():
        assert p.dtype == p.grad.dtype == dtype, name
        assert p.grad.data.any(), name


@given(lead=st.lists(st.integers(0, 4), max_size=3), c=st.integers(1, 5), d=st.integers(1, 5))
def test_leading_axes_go_through(lead, c, d):
    rng = np.random.default_rng(0)
    x = tl.tensor(rng.normal(size=(*lead, c)).astype(np.float32))
    assert nn.Linear(c, d, rng=rng)(x).shape == (*lead, d)
    for layer in (nn.LayerNorm(c), nn.RMSNorm(c), nn.Dropout(0.5, rng), nn.FeedForward(c, d, rng=rng)):
        assert layer(x).shape == x.shape


def test_xavier_keeps_the_variance_through_ten_linear_layers(rng):
    x = tl.tensor(rng.normal(size=(500, 256)).astype(np.float32))
    for _ in range(10):
        x = nn.Linear(256, 256, bias=False, rng=rng)(x)
    assert 0.7 < x.data.var() < 1.4
