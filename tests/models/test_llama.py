"""Laws of Llama, Mistral and Mixtral: what a token may see, what a cache keeps, and what is added to the loss."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_llama import SCALINGS, tiny

import tinyllm as tl
from tinyllm.errors import ConfigError
from tinyllm.models import LlamaConfig, MistralConfig, MixtralConfig
from tinyllm.testing import gradcheck

KINDS = ["Llama", "Mistral", "Mixtral"]


def logits(model, *args, **kwargs):
    return model(*args, **kwargs).logits.numpy()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_nothing_is_seen_before_its_time(kind, backend, rng):
    model = tiny(kind, max_position_embeddings=32)
    ids = rng.integers(13, size=(2, 20))
    with tl.backend(backend):
        before = logits(model, ids)
        for t in (1, 7, 19):
            changed = ids.copy()
            changed[:, t:] = (changed[:, t:] + 1) % 13
            np.testing.assert_array_equal(logits(model, changed)[:, :t], before[:, :t])


@pytest.mark.parametrize("window", [1, 3, 8])
def test_a_window_bounds_what_is_seen(window, rng):
    model = tiny("Mistral", sliding_window=window, num_hidden_layers=1)
    ids = rng.integers(13, size=(1, 16))
    before = logits(model, ids)
    changed = ids.copy()
    changed[:, 4] = (changed[:, 4] + 1) % 13
    different = (logits(model, changed) != before).any(axis=(0, 2))
    np.testing.assert_array_equal(different, [4 <= t < 4 + window for t in range(16)])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("window", [None, 3])
@settings(max_examples=12)
@given(cuts=st.lists(st.integers(1, 11), max_size=4, unique=True), padding=st.integers(0, 4), seed=st.integers(0, 99))
def test_a_cache_changes_nothing(kind, window, cuts, padding, seed):
    scaling = SCALINGS[seed % len(SCALINGS)]
    model = tiny(kind, rope_parameters=scaling, **{"sliding_window": window} if kind != "Llama" else {})
    rng = np.random.default_rng(seed)
    ids, mask = rng.integers(13, size=(2, 12)), np.ones((2, 12), int)
    mask[0, :padding] = 0
    whole = logits(model, ids, attention_mask=mask)
    cache, parts = model.new_cache(), []
    with tl.no_grad():
        for i, j in zip([0, *sorted(cuts)], [*sorted(cuts), 12], strict=True):
            parts.append(logits(model, ids[:, i:j], attention_mask=mask[:, :j], cache=cache))
    found = np.concatenate(parts, axis=1)
    np.testing.assert_allclose(found[mask == 1], whole[mask == 1], rtol=0, atol=1e-12)
    assert cache.length == 12


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing(kind, side, rng):
    model = tiny(kind)
    ids = rng.integers(13, size=(1, 6))
    alone = logits(model, ids)
    pad = np.full((1, 4), 5)
    padded = np.concatenate([pad, ids] if side == "left" else [ids, pad], axis=1)
    mask = np.concatenate([0 * pad, ids >= 0] if side == "left" else [ids >= 0, 0 * pad], axis=1)
    found = logits(model, padded, attention_mask=mask)
    np.testing.assert_allclose(found[mask == 1], alone[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("scaling", SCALINGS)
def test_positions_count_by_their_distance_alone(scaling, rng):
    # 30 tokens are beyond the length of training, where dynamic frequencies depend on the last position
    model = tiny(rope_parameters=scaling, max_position_embeddings=64)
    ids = rng.integers(13, size=(1, 9))
    found = logits(model, ids, position_ids=np.arange(9) + 21)
    np.testing.assert_allclose(found, logits(model, ids), rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_the_losses_are_one(kind, rng):
    model = tiny(kind, num_key_value_heads=1, **{"router_z_loss_coef": 0.02} if kind == "Mixtral" else {})
    ids = rng.integers(13, size=(2, 8))
    out = model(ids, labels=ids)
    assert model.loss({"input_ids": ids, "labels": ids}).item() == pytest.approx(out.loss.item(), rel=1e-13)
    logs = tl.log_softmax(out.logits, axis=-1).numpy()
    plain = -np.take_along_axis(logs[:, :-1], ids[:, 1:, None], -1).mean()
    added = 0.0
    if kind == "Mixtral":
        added = 0.05 * out.aux_loss.item() + 0.02 * out.z_loss.item()
        assert added > 0.1
        assert len(out.routing) == 2
        assert sum(layer.counts.sum() for layer in out.routing) == 2 * 2 * ids.size
    assert out.loss.item() == pytest.approx(plain + added, rel=1e-13)
    # the likelihood alone in evaluation, what is to be minimised in training
    next_token = model.next_token_loss(ids[:, :-1], ids[:, 1:]).item()
    short = model(ids[:, :-1], labels=ids[:, :-1])
    assert model.train().next_token_loss(ids[:, :-1], ids[:, 1:]).item() - next_token == pytest.approx(
        0.0 if kind != "Mixtral" else 0.05 * short.aux_loss.item() + 0.02 * short.z_loss.item(), rel=1e-9
    )


@pytest.mark.parametrize("kind", KINDS)
def test_gradient(kind):
    shape = {
        "hidden_size": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 2,
        "intermediate_size": 2,
    }
    model = tiny(kind, vocab_size=3, num_hidden_layers=1, tie_word_embeddings=True, **shape)
    ids = np.array([[0, 2, 1, 0], [1, 1, 2, 2]])
    parts = dict(model.named_modules())

    def loss(*weights):
        for name, weight in zip(names, weights, strict=True):
            module, _, attribute = name.rpartition(".")
            vars(parts[module])[attribute] = weight  # what is computed cannot be assigned as a parameter
        return model(ids, labels=ids).loss

    names = [name for name, _ in model.named_parameters() if "experts.0" not in name and "experts.1" not in name]
    gradcheck(loss, *(p.numpy() for name, p in model.named_parameters() if name in names))


def test_the_balance_loss_reaches_the_gates_through_the_loss(rng):
    """Computed and not added, it would leave the gradient of the gates as it is."""
    ids = rng.integers(13, size=(2, 8))
    gradients = []
    for weight in (0.0, 1.0):
        model = tiny("Mixtral", router_aux_loss_coef=weight)
        model(ids, labels=ids).loss.backward()
        gradients.append(model.model.layers[0].block_sparse_moe.gate.weight.grad.numpy())
    model.zero_grad()
    model(ids).aux_loss.backward()
    alone = model.model.layers[0].block_sparse_moe.gate.weight.grad.numpy()
    np.testing.assert_allclose(gradients[1] - gradients[0], alone, rtol=1e-9, atol=1e-12)
    assert np.abs(alone).max() > 1e-3


def test_jitter_and_capacity_are_of_training_alone(rng):
    model = tiny("Mixtral", router_jitter_noise=0.3, expert_capacity_factor=0.4)
    ids = rng.integers(13, size=(2, 8))
    np.testing.assert_array_equal(logits(model, ids), logits(tiny("Mixtral"), ids))
    model.train()
    with tl.random_scope(1):
        noisy = model(ids)
    with tl.random_scope(1):
        np.testing.assert_array_equal(logits(model, ids), noisy.logits.data)
    assert all(layer.dropped > 0 for layer in noisy.routing)
    assert (noisy.logits.data != logits(model.eval(), ids)).any()


@pytest.mark.parametrize("kind", KINDS)
def test_generation_with_and_without_a_cache(kind, rng):
    model = tiny(kind, max_position_embeddings=12, **{"sliding_window": 4} if kind != "Llama" else {})
    ids = rng.integers(13, size=(2, 5))
    found = tl.generate(model, ids, 16)
    np.testing.assert_array_equal(found, tl.generate(model, ids, 16, use_cache=False))
    assert found.shape == (2, 21)


def test_recomputed_blocks_give_the_same_gradients(rng):
    ids, gradients = rng.integers(13, size=(2, 8)), []
    for again in (False, True):
        model = tiny()
        model.model.checkpoint_blocks = again
        model(ids, labels=ids).loss.backward()
        gradients.append({name: p.grad.numpy() for name, p in model.named_parameters()})
    for name in gradients[0]:
        np.testing.assert_allclose(gradients[1][name], gradients[0][name], rtol=1e-12, atol=1e-15)


def test_dynamic_positions_refuse_a_cache_that_has_become_wrong(rng):
    model = tiny(rope_parameters={"rope_type": "dynamic", "factor": 2.0}, max_position_embeddings=6)
    ids, cache = rng.integers(13, size=(1, 8)), model.new_cache()
    model(ids[:, :6], cache=cache)
    with pytest.raises(ValueError, match=r"max_position_embeddings=6.*without a cache"):
        model(ids[:, 6:], cache=cache)
    assert model.context_length == 6
    assert logits(model, ids).shape == (1, 8, 13)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: LlamaConfig(num_attention_heads=5, hidden_size=12), "num_attention_heads=5"),
        (lambda: LlamaConfig(num_attention_heads=4, num_key_value_heads=3), "num_key_value_heads=3"),
        (lambda: LlamaConfig(head_dim=5), "head_dim=5 must be even"),
        (lambda: LlamaConfig(hidden_act="gelu_10"), "gelu_10"),
        (lambda: LlamaConfig(sliding_window=4), "sliding_window=4"),
        (lambda: LlamaConfig(vocab_size=0), "vocab_size"),
        (lambda: LlamaConfig(rms_norm_eps=-1.0), "rms_norm_eps"),
        (lambda: LlamaConfig(mlp_bias=1), "mlp_bias"),
        (lambda: LlamaConfig(rope_parameters={"rope_type": "longrope"}), "longrope"),
        (lambda: LlamaConfig(eos_token_id=[2, -1]), "eos_token_id"),
        (lambda: MistralConfig(attention_bias=True), "attention_bias"),
        (lambda: MistralConfig(sliding_window=0), "sliding_window"),
        (lambda: MixtralConfig(num_experts_per_tok=9), "num_experts_per_tok=9"),
        (lambda: MixtralConfig(router_aux_loss_coef=-0.1), "router_aux_loss_coef"),
        (lambda: MixtralConfig(router_jitter_noise=1.0), "router_jitter_noise"),
    ],
)
def test_impossible_settings_are_refused(make, said):
    with pytest.raises(ConfigError, match=said):
        make()
