"""The laws of a causal language model, its gradients, and a trained one reproduced activation by activation."""

import base64
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_gpt import tiny_gpt

import tinyllm as tl
from tinyllm.autograd.tape import reachable
from tinyllm.errors import ConfigError
from tinyllm.models import GPT, GPTConfig
from tinyllm.nn import merge_heads, split_heads

OPTIONS = [
    {},
    {"tie_word_embeddings": False},
    {"activation_function": "relu", "n_inner": 5},
    {"activation_function": "gelu", "scale_attn_weights": False},
    {"activation_function": "silu", "scale_attn_by_inverse_layer_idx": True, "layer_norm_epsilon": 1e-3},
    {"activation_function": "tanh", "n_head": 1, "reorder_and_upcast_attn": True},
]


def logits(model, ids, **more):
    with tl.no_grad():
        return model(ids, **more).logits.numpy()


# -- causality, padding, cache -----------------------------------------------------------------------------------------


@given(st.integers(0, 9), st.integers(1, 12), st.integers(1, 3))
def test_outputs_before_t_do_not_change_with_token_t(t, shift, batch):
    model = tiny_gpt()
    ids = np.random.default_rng(t).integers(13, size=(batch, 10))
    changed = ids.copy()
    changed[:, t] = (ids[:, t] + shift) % 13
    a, b = logits(model, ids), logits(model, changed)
    np.testing.assert_array_equal(a[:, :t], b[:, :t])
    assert (a[:, t] != b[:, t]).any()


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_nor_at_sizes_where_kernels_are_compiled(backend, rng):
    model = tiny_gpt(dtype="float32", n_embd=48, n_head=4, n_positions=70, vocab_size=65)
    ids = rng.integers(65, size=(3, 70))
    with tl.backend(backend):
        a = logits(model, ids)
        for t in (0, 1, 31, 32, 33, 64, 69):
            changed = ids.copy()
            changed[:, t] = (ids[:, t] + 7) % 65
            b = logits(model, changed)
            np.testing.assert_array_equal(a[:, :t], b[:, :t])
            assert (a[:, t] != b[:, t]).any()


@pytest.mark.parametrize("settings", OPTIONS)
@pytest.mark.parametrize("left", [True, False])
def test_padding_changes_nothing(settings, left, rng):
    model = tiny_gpt(**settings)
    lengths = [6, 2, 5, 1]
    width = max(lengths) + 1  # one column is padding in every row
    ids = rng.integers(13, size=(len(lengths), width))  # what is under the padding is arbitrary
    mask = np.zeros_like(ids)
    for row, n in enumerate(lengths):
        mask[row, width - n :] = 1 if left else 0
        mask[row, :n] = mask[row, :n] if left else 1
    padded = logits(model, ids, attention_mask=mask)
    assert np.isfinite(padded).all()
    for row in range(len(lengths)):
        real = mask[row] == 1
        np.testing.assert_allclose(padded[row, real], logits(model, ids[row, real][None])[0], rtol=0, atol=1e-12)


def test_what_is_under_the_padding_does_not_matter_even_to_a_bit(rng):
    model = tiny_gpt()
    ids, mask = rng.integers(13, size=(2, 7)), np.array([[0, 0, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0, 0]])
    other = np.where(mask == 1, ids, (ids + 1) % 13)
    a, b = logits(model, ids, attention_mask=mask), logits(model, other, attention_mask=mask)
    np.testing.assert_array_equal(a[mask == 1], b[mask == 1])


def test_a_mask_of_ones_is_no_mask(rng):
    model, ids = tiny_gpt(), rng.integers(13, size=(2, 7))
    np.testing.assert_array_equal(logits(model, ids, attention_mask=np.ones((2, 7), int)), logits(model, ids))


def test_padding_has_no_gradient(rng):
    ids, mask = rng.integers(12, size=(1, 6)), np.array([[0, 0, 1, 1, 1, 1]])
    ids[0, :2] = 12  # a token that comes in the padding alone
    labels = np.where(mask == 1, ids, -100)
    labels[0, 2] = -100  # predicted from padding
    model = tiny_gpt(tie_word_embeddings=False)
    model(ids, attention_mask=mask, labels=labels).loss.backward()
    assert not model.transformer.wte.weight.grad.numpy()[12].any()


@given(st.lists(st.integers(1, 4), min_size=1, max_size=5), st.booleans())
def test_cached_equals_uncached(pieces, padded):
    model = tiny_gpt()
    total = min(sum(pieces), 10)
    ids = np.random.default_rng(total).integers(13, size=(2, total))
    mask = np.ones((2, total), int)
    if padded:
        mask[0, : total // 2] = 0
    whole = logits(model, ids, attention_mask=mask)
    cache, at = model.new_cache(), 0
    for n in pieces:
        end = min(at + n, total)
        if end == at:
            break
        piece = logits(model, ids[:, at:end], attention_mask=mask[:, :end], cache=cache)
        real = mask[:, at:end] == 1
        np.testing.assert_allclose(piece[real], whole[:, at:end][real], rtol=0, atol=1e-12)
        at = end
        assert cache.length == at


def test_a_cache_passes_gradients(rng):
    ids = rng.integers(13, size=(1, 6))
    whole, pieces = tiny_gpt(), tiny_gpt()
    g = rng.normal(size=(1, 2, 13))
    whole(ids).logits[:, 4:].backward(g)
    cache = pieces.new_cache()
    pieces(ids[:, :4], cache=cache)
    pieces(ids[:, 4:], cache=cache).logits.backward(g)
    for (name, p), (_, q) in zip(whole.named_parameters(), pieces.named_parameters(), strict=True):
        np.testing.assert_allclose(q.grad.numpy(), p.grad.numpy(), rtol=0, atol=1e-12, err_msg=name)


def test_positions_are_counted_from_the_mask(rng):
    model, ids = tiny_gpt(), rng.integers(13, size=(2, 5))
    mask = np.array([[0, 0, 1, 1, 1], [1, 1, 1, 1, 0]])
    counted = np.array([[0, 0, 0, 1, 2], [0, 1, 2, 3, 3]])
    given_positions = logits(model, ids, attention_mask=mask, position_ids=counted)
    np.testing.assert_array_equal(given_positions, logits(model, ids, attention_mask=mask))
    shifted = logits(model, ids, position_ids=np.arange(5) + 3)
    assert np.abs(shifted - logits(model, ids)).max() > 1e-3
    np.testing.assert_array_equal(shifted, logits(model, ids, position_ids=np.tile(np.arange(5) + 3, (2, 1))))


def test_hidden_states_begin_with_the_embeddings_and_end_normed(rng):
    model, ids = tiny_gpt(n_layer=3), rng.integers(13, size=(2, 5))
    out = model(ids, output_hidden_states=True)
    assert [h.shape for h in out.hidden_states] == [(2, 5, 12)] * 4
    t = model.transformer
    x = t.wte.weight.numpy()[ids] + t.wpe.weight.numpy()[:5]
    np.testing.assert_array_equal(out.hidden_states[0].data, x)
    for block, state in zip(t.h[:-1], out.hidden_states[1:-1], strict=True):
        x = block(tl.tensor(x), None, None).data
        np.testing.assert_array_equal(state.data, x)
    last = t.ln_f(t.h[-1](tl.tensor(x), None, None))
    np.testing.assert_array_equal(out.hidden_states[-1].data, last.data)
    np.testing.assert_allclose(out.logits.data, last.data @ t.wte.weight.data.T, atol=1e-13)
    assert model(ids).hidden_states is None


def test_the_scales_of_attention_are_scales_of_the_queries(rng):
    ids, plain = rng.integers(13, size=(2, 8)), tiny_gpt(n_layer=3)
    unscaled, by_layer = (
        tiny_gpt(n_layer=3, scale_attn_weights=False),
        tiny_gpt(n_layer=3, scale_attn_by_inverse_layer_idx=True),
    )
    for model, factor in ((unscaled, lambda i: 1 / math.sqrt(4)), (by_layer, lambda i: i + 1)):
        assert np.abs(logits(model, ids) - logits(plain, ids)).max() > 1e-3
        for i, block in enumerate(model.transformer.h):
            for p in block.attn.c_attn.parameters():
                value = p.numpy()
                value[..., :12] *= factor(i)
                p.assign_(value)
        np.testing.assert_allclose(logits(model, ids), logits(plain, ids), rtol=0, atol=1e-12)


def test_every_norm_has_the_configured_epsilon():
    t = tiny_gpt(layer_norm_epsilon=1e-3).transformer
    assert {norm.eps for block in t.h for norm in (block.ln_1, block.ln_2)} | {t.ln_f.eps} == {1e-3}


# -- loss and gradients ------------------------------------------------------------------------------------------------


def test_the_loss_is_the_mean_over_the_predicted_labels(rng):
    model, ids = tiny_gpt(), rng.integers(13, size=(3, 6))
    labels = np.where(rng.random((3, 6)) < 0.3, -100, ids)
    out = model(ids, labels=labels)
    log_p = out.logits.data - np.log(np.exp(out.logits.data).sum(-1, keepdims=True))
    terms = [-log_p[b, t, labels[b, t + 1]] for b in range(3) for t in range(5) if labels[b, t + 1] != -100]
    assert 0 < len(terms) < 15
    assert out.loss.item() == pytest.approx(np.mean(terms), abs=1e-14)
    assert model.loss({"input_ids": ids, "labels": labels}).item() == out.loss.item()
    assert model(ids, labels=labels.astype("int32")).loss.item() == out.loss.item()
    assert model(ids, labels=ids.astype("uint8")).loss.item() == model(ids, labels=ids).loss.item()


@pytest.mark.parametrize("settings", OPTIONS)
def test_every_gradient_equals_central_differences(settings, rng):
    model = tiny_gpt(**settings)
    ids = rng.integers(13, size=(2, 7))
    mask = np.array([[0, 0, 1, 1, 1, 1, 1], [1] * 7])
    labels = np.where(mask == 1, ids, -100)
    batch = {"input_ids": ids, "attention_mask": mask, "labels": labels}
    model.loss(batch).backward()
    for name, p in model.named_parameters():
        direction = rng.normal(size=p.shape)
        slope = float((p.grad.data * direction).sum())
        at = p.numpy()

        def moved(h, p=p, at=at, direction=direction):
            p.assign_(at + h * direction)
            with tl.no_grad():
                return model.loss(batch).item()

        # Two step sizes: their difference estimates the error of the better one.
        coarse, fine = ((moved(h) - moved(-h)) / (2 * h) for h in (2e-4, 1e-4))
        p.assign_(at)
        better = (4 * fine - coarse) / 3
        # The last term is rounding: a few ulps of the loss over the step.
        assert abs(slope - better) < abs(fine - coarse) + 1e-10, name
        assert abs(slope) > 1e-6, name


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("tied", [True, False])
def test_the_loss_without_logits_has_the_same_gradients(tied, backend, rng):
    batch = {"input_ids": rng.integers(13, size=(3, 7)), "labels": rng.integers(13, size=(3, 7))}
    batch["labels"][1, 2:] = -100
    found = []
    for loss_of in (lambda m: m(**batch).loss, lambda m: m.loss(batch)):
        model = tiny_gpt(tie_word_embeddings=tied)
        with tl.backend(backend):
            loss = loss_of(model)
            loss.backward()
        found.append({"loss": loss.numpy()} | {name: p.grad.numpy() for name, p in model.named_parameters()})
    for name, expected in found[0].items():
        np.testing.assert_allclose(found[1][name], expected, rtol=1e-10, atol=1e-12, err_msg=name)


def test_the_tied_matrix_gets_both_gradients(rng):
    ids = rng.integers(13, size=(2, 5))
    tied, untied = tiny_gpt(), tiny_gpt(tie_word_embeddings=False)
    untied.load_state_dict(tied.state_dict() | {"lm_head.weight": tied.transformer.wte.weight.numpy()})
    for model in (tied, untied):
        model(ids, labels=ids).loss.backward()
    both = untied.transformer.wte.weight.grad.data + untied.lm_head.weight.grad.data
    np.testing.assert_allclose(tied.transformer.wte.weight.grad.data, both, rtol=0, atol=1e-14)
    assert tied.num_parameters() == untied.num_parameters() - 13 * 12


# -- initialisation, dropout, dtype ------------------------------------------------------------------------------------


def test_the_first_weights_are_gpt2s(rng):
    config = GPTConfig(vocab_size=500, n_positions=200, n_embd=64, n_layer=8, n_head=4)
    model = GPT(config, rng=rng)
    for name, p in model.named_parameters():
        x = p.numpy().astype(float)
        assert p.dtype == np.float32
        if name.endswith("bias"):
            assert not x.any(), name
        elif ".ln_" in name:
            assert (x == 1).all(), name
        else:
            std = 0.02 / math.sqrt(16) if "c_proj" in name else 0.02
            assert abs(x.std() / std - 1) < 5 / math.sqrt(2 * x.size), name
            assert abs(x.mean()) < 5 * std / math.sqrt(x.size), name


def test_the_seed_decides_the_weights():
    config = GPTConfig(vocab_size=7, n_positions=4, n_embd=8, n_layer=1, n_head=2, tie_word_embeddings=False)
    a, b, c = (GPT(config, rng=np.random.default_rng(s)).state_dict() for s in (1, 1, 2))
    assert all((a[n] == b[n]).all() for n in a)
    assert (a["lm_head.weight"] != c["lm_head.weight"]).all()
    wide = GPT(config, rng=np.random.default_rng(1), dtype="float64").state_dict()
    assert all((wide[n].astype("f4") == a[n]).all() for n in a)


def test_a_new_model_knows_nothing(rng):
    config = GPTConfig(vocab_size=65, n_positions=16, n_embd=32, n_layer=2, n_head=4)
    ids = rng.integers(65, size=(8, 16))
    loss = GPT(config, rng=rng)(ids, labels=ids).loss
    assert loss.dtype == np.float32
    assert loss.item() == pytest.approx(math.log(65), abs=0.1)


@pytest.mark.parametrize("which", ["resid_pdrop", "embd_pdrop", "attn_pdrop"])
def test_dropout_works_in_training_alone_and_can_be_drawn_again(which, rng):
    model, ids = tiny_gpt(**{which: 0.5}), rng.integers(13, size=(2, 6))
    plain = logits(tiny_gpt(), ids)
    np.testing.assert_array_equal(logits(model, ids), plain)
    model.train()
    drawn = []
    for step in (0, 0, 1):
        with tl.random_scope(seed=3, step=step):
            drawn.append(logits(model, ids))
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert (drawn[0] != drawn[2]).any()
    assert (drawn[0] != plain).any()
    with pytest.raises(ValueError, match="needs a seed"):
        model(ids)


def test_dropout_is_where_gpt2_has_it(rng):
    model, ids = tiny_gpt(resid_pdrop=0.1, embd_pdrop=0.2, attn_pdrop=0.3).train(), rng.integers(13, size=(2, 6))
    with tl.random_scope(seed=0):
        loss = model(ids, labels=ids).loss
    nodes = reachable(loss)[::-1]
    found = [(n.op.name, n.params.get("p", n.params.get("dropout_p"))) for n in nodes]
    block = [("self_attention", 0.3), ("dropout", 0.1), ("dropout", 0.1)]
    assert [f for f in found if f[1]] == [("dropout", 0.2), *block, *block]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_nothing_changes_the_dtype(dtype, rng):
    model, ids = tiny_gpt(dtype=dtype, scale_attn_by_inverse_layer_idx=True), rng.integers(13, size=(2, 6))
    out = model(ids, attention_mask=[[0, 1, 1, 1, 1, 1], [1] * 6], labels=ids, output_hidden_states=True)
    assert {out.loss.dtype, out.logits.dtype, *(h.dtype for h in out.hidden_states)} == {np.dtype(dtype)}
    out.loss.backward()
    assert {p.grad.dtype for p in model.parameters()} == {np.dtype(dtype)}


def test_ids_may_be_lists_arrays_of_any_integers_or_tensors(rng):
    model, ids = tiny_gpt(), rng.integers(13, size=(2, 5))
    for same in (ids.tolist(), ids.astype("u1"), ids.astype("i2"), tl.tensor(ids)):
        np.testing.assert_array_equal(logits(model, same), logits(model, ids))


# -- a trained model, activation by activation -------------------------------------------------------------------------


def decoded(path):
    """name -> array, from the JSON files of gpt_nano_sort."""
    dtypes = {"torch.float32": "<f4", "torch.int64": "<i8"}
    return {
        name: np.frombuffer(base64.b64decode(v["data"]), dtypes[v["dtype"]]).reshape(v["shape"])
        for name, v in json.loads(path.read_text()).items()
        if name != "config"
    }


@pytest.fixture(scope="module")
def sorter(data_folder):
    folder = data_folder / "gpt_nano_sort"
    if not folder.is_dir():
        pytest.skip("the data folder has no gpt_nano_sort")
    config = GPTConfig(vocab_size=3, n_positions=11, n_embd=48, n_layer=3, n_head=3, tie_word_embeddings=False)
    model = GPT(config, rng=np.random.default_rng(0))
    weights = {n: w for n, w in decoded(folder / "model.json").items() if not n.endswith(".attn.bias")}
    turned = {n: w.T if n.split(".")[-2].startswith("c_") and w.ndim == 2 else w for n, w in weights.items()}
    model.load_state_dict(turned)
    return model.eval(), decoded(folder / "partials.json")


def test_a_trained_model_is_reproduced_activation_by_activation(sorter):
    model, expected = sorter
    assert model.num_parameters() == 85_584 + 3 * 48  # the published count leaves out the head
    ids = expected["idx"].astype(int)
    t, found = model.transformer, {}
    with tl.no_grad():
        found["tok_emb"] = t.wte(ids)
        found["pos_emb"] = t.wpe(np.arange(11)[None])
        x = found["x"] = found["tok_emb"] + found["pos_emb"]
        block = t.h[0]
        found["ln1"] = block.ln_1(x)
        found["qkv"] = block.attn.c_attn(found["ln1"])
        q, k, v = (split_heads(part, 3) for part in tl.split(found["qkv"], 3, axis=-1))
        found["q"], found["k"], found["v"] = q, k, v
        scores = (q @ k.mT).numpy() * np.float32(block.attn.scale)
        found["att"] = np.where(np.tri(11, dtype=bool), scores, -np.inf)
        found["attSm"] = tl.softmax(tl.tensor(found["att"]))
        found["y"] = merge_heads(found["attSm"] @ v)
        found["yProj"] = block.attn.c_proj(found["y"])
        np.testing.assert_allclose(block.attn(found["ln1"], None, None).data, found["yProj"].data, atol=2e-6)
        found["attnResid"] = x + found["yProj"]
        found["ln2"] = block.ln_2(found["attnResid"])
        found["fc"] = block.mlp.c_fc(found["ln2"])
        found["gelu"] = tl.gelu(found["fc"], "tanh")
        found["mlp"] = block.mlp(found["ln2"])
        found["mlpResid"] = found["attnResid"] + found["mlp"]
        for i, block in enumerate(t.h):
            x = found[f"block{i}"] = block(x, None, None)
        out = model(ids, output_hidden_states=True)
        found["ln_f"], found["lm_head"] = out.hidden_states[-1], out.logits
        found["probs"] = tl.softmax(out.logits)
    assert set(found) == set(expected) - {"idx"}
    for name, value in found.items():
        value = value.numpy() if isinstance(value, tl.Tensor) else value
        np.testing.assert_allclose(value, expected[name], rtol=0, atol=1e-5, err_msg=name)


def test_a_trained_model_sorts_every_sequence(sorter):
    model, _ = sorter
    every = np.stack(np.meshgrid(*[range(3)] * 6, indexing="ij"), axis=-1).reshape(-1, 6)
    written = tl.generate(model, every, max_new_tokens=6)
    assert written.shape == (729, 12)
    np.testing.assert_array_equal(written[:, 6:], np.sort(every, axis=1))


# -- misuse ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda m: m(np.zeros((1, 11), int)), ValueError, "11 tokens.*n_positions=10"),
        (lambda m: m([[0, 13]]), IndexError, "13.*0..12"),
        (lambda m: m([[0, -1]]), IndexError, "-1.*0..12"),
        (lambda m: m([0, 1]), ValueError, r"\(B, T\)"),
        (lambda m: m(np.zeros((2, 0), int)), ValueError, r"T > 0.*\(2, 0\)"),
        (lambda m: m([[0.5]]), TypeError, "integers.*float64"),
        (lambda m: m([[0, 1], [2]]), ValueError, "differ in length"),
        (lambda m: m([[0, 1]], attention_mask=[[1]]), ValueError, r"\(1, 2\).*\(1, 1\)"),
        (lambda m: m([[0, 1]], attention_mask=[[-10000, 0]]), ValueError, "1 for tokens"),
        (lambda m: m([[0, 1]], position_ids=[0, 10]), IndexError, "10.*0..9"),
        (lambda m: m([[0, 1]], position_ids=[0, 1, 2]), ValueError, "position_ids"),
        (lambda m: m([[0, 1]], labels=[[0, 1, 2]]), ValueError, "labels"),
        (lambda m: m([[0]], labels=[[0]]), ValueError, "at least 2"),
        (lambda m: m([[0, 1]], labels=[[0, 13]]), Exception, "13"),
        (lambda m: m.loss({"input_ids": [[0, 1]]}), ValueError, "labels"),
    ],
)
def test_misuse_is_named(call, error, said):
    with pytest.raises(error, match=said):
        call(tiny_gpt())


def test_more_columns_than_positions_are_fine_where_they_are_padding(rng):
    model, ids = tiny_gpt(), rng.integers(13, size=(1, 14))
    mask = np.array([[0] * 6 + [1] * 8])
    padded = logits(model, ids, attention_mask=mask)[:, 6:]
    np.testing.assert_allclose(padded, logits(model, ids[:, 6:]), rtol=0, atol=1e-12)


def test_a_cache_of_another_batch_or_too_many_tokens_is_refused(rng):
    model = tiny_gpt()
    cache = model.new_cache()
    model(rng.integers(13, size=(2, 6)), cache=cache)
    with pytest.raises(ValueError, match=r"holds 2 sequences.*3"):
        model(rng.integers(13, size=(3, 1)), cache=cache)
    with pytest.raises(ValueError, match="11 tokens"):
        model(rng.integers(13, size=(2, 5)), cache=cache)
    assert cache.length == 6


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"n_head": 5}, "n_head=5 does not divide n_embd=12"),
        ({"n_layer": 0}, "n_layer"),
        ({"vocab_size": 6.5}, "vocab_size"),
        ({"vocab_size": True}, "vocab_size"),
        ({"n_inner": -1}, "n_inner"),
        ({"activation_function": "gelu_knew"}, "gelu_new"),
        ({"resid_pdrop": 1.5}, "resid_pdrop.*0 to 1"),
        ({"attn_pdrop": float("nan")}, "attn_pdrop"),
        ({"layer_norm_epsilon": -1e-5}, "layer_norm_epsilon"),
        ({"initializer_range": float("inf")}, "initializer_range"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings.*true or false"),
        ({"bos_token_id": -1}, "bos_token_id"),
        ({"eos_token_id": [1, None, 2.5]}, "eos_token_id"),
    ],
)
def test_impossible_settings_are_refused_by_name(settings, said):
    with pytest.raises(ConfigError, match=said):
        GPTConfig(**{"n_embd": 12, "n_head": 3} | settings)


def test_sizes_may_be_numpys():
    config = GPTConfig(vocab_size=np.int64(7), n_embd=np.int32(12), n_head=3, resid_pdrop=np.float64(0.5))
    assert type(config.vocab_size) is int
    assert json.loads(json.dumps(config.to_dict()))["resid_pdrop"] == 0.5
