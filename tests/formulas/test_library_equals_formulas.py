"""The library's functions, found by the names in the registry, equal the loops on random float64 inputs of odd shapes.

What the registry lists as open is skipped until it exists; what it lists as complete has to be there.
"""

import math

import numpy as np
import pytest

import tinyllm as tl
from tinyllm.formulas import (
    activations,
    attention,
    block,
    dropout,
    evaluation,
    get,
    init,
    language_model,
    losses,
    masked_lm,
    moe,
    optimisers,
    positions,
    procedures,
    recurrent,
    resolve,
    sat,
    words,
)
from tinyllm.models import TransformerConfig


def library(id, name):
    """The object that entry `id` names as its counterpart."""
    entry = get(id)
    assert name in entry.library
    try:
        return resolve(name)
    except (ImportError, AttributeError):
        if entry.status == "open":
            pytest.skip(f"{name}: {entry.reason}")
        raise


def close(actual, expected, rtol=1e-12, atol=1e-13):
    actual = actual.numpy() if hasattr(actual, "numpy") else np.asarray(actual)
    np.testing.assert_allclose(actual, np.asarray(expected), rtol=rtol, atol=atol)


# --- attention --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1,), (7,), (3, 5), (2, 1, 11)])
def test_softmax(rng, shape):
    x = 4 * rng.normal(size=shape)
    close(library("F-ATTN", "tinyllm.softmax")(tl.tensor(x), axis=-1), np.apply_along_axis(attention.softmax, -1, x))


@pytest.mark.parametrize(("T", "S", "d_k", "d_v"), [(1, 1, 1, 1), (5, 7, 3, 2), (3, 2, 1, 5)])
def test_scaled_dot_product_attention(rng, T, S, d_k, d_v):
    sdpa = library("F-ATTN", "tinyllm.scaled_dot_product_attention")
    Q, K, V = rng.normal(size=(2, 3, T, d_k)), rng.normal(size=(2, 3, S, d_k)), rng.normal(size=(2, 3, S, d_v))
    mask = rng.random((T, S)) < 0.6
    mask[0] = False  # a row that allows nothing
    bias = rng.normal(size=(T, S))
    for arguments, loops in (
        ({}, {}),
        ({"is_causal": True}, {"causal": True}),
        ({"attn_mask": mask}, {"mask": mask}),
        ({"attn_mask": bias}, {"mask": bias}),
    ):
        expected = [[attention.attention(Q[b, h], K[b, h], V[b, h], **loops) for h in range(3)] for b in range(2)]
        close(sdpa(tl.tensor(Q), tl.tensor(K), tl.tensor(V), **arguments), expected)


def test_worked_example():
    n = sat.sat_numbers()
    sdpa = library("P-SAT", "tinyllm.scaled_dot_product_attention")
    close(sdpa(tl.tensor([n["q"]]), tl.tensor(n["K"]), tl.tensor(n["V"])), [n["output"]])


# --- losses -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("N", "V"), [(1, 1), (1, 5), (7, 3)])
def test_cross_entropy(rng, N, V):
    logits, targets = 3 * rng.normal(size=(N, V)), rng.integers(0, V, size=N)
    loss = library("F-CE", "tinyllm.cross_entropy")(tl.tensor(logits), tl.tensor(targets))
    close(loss, losses.cross_entropy_of_logits(logits, targets))
    nll = library("F-CE", "tinyllm.cross_entropy")(tl.tensor(logits), tl.tensor(targets), reduction="none").numpy()
    assert math.exp(loss.numpy()) == pytest.approx(language_model.perplexity(nll), rel=1e-12)


def test_cross_entropy_with_probabilities(rng):
    logits, Y = rng.normal(size=(5, 4)), rng.dirichlet(np.ones(4), size=5)
    Yhat = [attention.softmax(row) for row in logits]
    loss = library("F-CE", "tinyllm.cross_entropy")(tl.tensor(logits), tl.tensor(Y))
    close(loss, losses.mean_cross_entropy(Y, Yhat))


@pytest.mark.parametrize("N", [1, 7])
def test_mse_loss(rng, N):
    y, yhat = rng.normal(size=(2, N))
    close(library("F-MSE", "tinyllm.mse_loss")(tl.tensor(yhat), tl.tensor(y)), losses.mse(y, yhat))


@pytest.mark.parametrize("order", [1, 2, 3])
def test_ngram(rng, order):
    NGram = library("F-LM", "tinyllm.models.NGram")
    ids, V = rng.integers(0, 4, size=60), 5
    for smoothing, k in (("add-k", 0.5), ("mle", 0.0)):
        setting = {"k": k} if k else {}
        model = NGram(order, V, smoothing=smoothing, given=order - 1, **setting).fit(ids)
        for t in range(order - 1, 20):
            history = ids[t - order + 1 : t].tolist()
            loops = [language_model.ngram_probability(ids, history, token, V, k) for token in range(V)]
            close(model.probs(history), loops)


def test_perplexity(rng):
    nll = rng.gamma(2.0, size=9)
    perplexity = library("F-LM", "tinyllm.metrics.perplexity")
    assert perplexity(float(nll.sum()), 9) == pytest.approx(language_model.perplexity(nll), rel=1e-14)


# --- layers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1,), (5,), (3, 7), (2, 3, 4)])
def test_layer_norm(rng, shape):
    layer_norm = library("F-BLOCK", "tinyllm.layer_norm")
    x, weight, bias = rng.normal(size=shape), rng.normal(size=shape[-1]), rng.normal(size=shape[-1])
    for eps in (1e-5, 0.1):
        expected = np.apply_along_axis(block.layer_norm, -1, x, weight, bias, eps)
        close(layer_norm(tl.tensor(x), shape[-1:], tl.tensor(weight), tl.tensor(bias), eps), expected)
    expected = np.apply_along_axis(block.layer_norm, -1, x)
    close(layer_norm(tl.tensor(x), shape[-1:]), expected)


def test_activations(rng):
    x = np.concatenate([3 * rng.normal(size=13), [0.0, -0.5, 20.0, -20.0]])
    for name in ("relu", "sigmoid", "tanh", "gelu"):
        loops = getattr(activations, name)
        close(library("F-ACT", f"tinyllm.{name}")(tl.tensor(x)), [loops(value) for value in x])
    gelu = library("F-ACT", "tinyllm.gelu")
    close(gelu(tl.tensor(x), approximate="tanh"), [activations.gelu_tanh(value) for value in x])


def test_embedding(rng):
    ids, table = rng.integers(0, 5, size=7), rng.normal(size=(5, 3))
    found = library("F-EMB", "tinyllm.embedding")(tl.tensor(ids), tl.tensor(table))
    close(found, words.embedding_by_one_hot(ids, table))


def with_random_parameters(module, rng):
    """The module in float64, no parameter left at 0 or 1."""
    module.load_state_dict({name: rng.normal(size=p.shape) for name, p in module.named_parameters()})
    return module


@pytest.mark.parametrize(("T", "C", "H"), [(1, 1, 1), (5, 6, 3), (7, 4, 1)])
def test_multi_head_attention(rng, T, C, H):
    MultiHeadAttention = library("F-ATTN", "tinyllm.nn.MultiHeadAttention")
    module = with_random_parameters(MultiHeadAttention(C, H, bias=False, rng=rng, dtype=np.float64), rng)
    W_q, W_k, W_v = np.split(module.in_proj_weight.numpy(), 3)
    X = rng.normal(size=(2, T, C))
    for causal in (False, True):
        loops = [attention.multi_head_attention(x, W_q, W_k, W_v, module.out_proj.weight.numpy(), H, causal) for x in X]
        close(module(tl.tensor(X), is_causal=causal), loops, rtol=1e-11)


@pytest.mark.parametrize(("C", "F"), [(1, 1), (3, 7)])
def test_feed_forward(rng, C, F):
    FeedForward = library("F-MLP-004", "tinyllm.nn.FeedForward")
    module = with_random_parameters(FeedForward(C, F, rng=rng, dtype=np.float64), rng)
    parameters = [p.numpy() for p in (module.up.weight, module.up.bias, module.down.weight, module.down.bias)]
    X = rng.normal(size=(2, 5, C))
    close(module(tl.tensor(X)), [[block.feed_forward(x, *parameters) for x in row] for row in X])


def test_post_norm_block(rng):
    """F-BLOCK, put together from the library's modules as the formula reads."""
    T, C, F, H = 5, 6, 9, 2
    make = {"rng": rng, "dtype": np.float64}
    self_attention = with_random_parameters(
        library("F-BLOCK", "tinyllm.nn.MultiHeadAttention")(C, H, bias=False, **make), rng
    )
    feed_forward = with_random_parameters(library("F-BLOCK", "tinyllm.nn.FeedForward")(C, F, **make), rng)
    LayerNorm = library("F-BLOCK", "tinyllm.nn.LayerNorm")
    norm_1, norm_2 = (with_random_parameters(LayerNorm(C, dtype=np.float64), rng) for _ in range(2))
    X = rng.normal(size=(T, C))

    x = tl.tensor(X[None])
    x1 = norm_1(x + self_attention(x))
    x2 = norm_2(x1 + feed_forward(x1))

    W_q, W_k, W_v = np.split(self_attention.in_proj_weight.numpy(), 3)
    W_o = self_attention.out_proj.weight.numpy()
    mlp = [p.numpy() for p in (feed_forward.up.weight, feed_forward.up.bias)]
    mlp += [p.numpy() for p in (feed_forward.down.weight, feed_forward.down.bias)]
    loops = block.block_post_norm(
        X.tolist(),
        lambda x: attention.multi_head_attention(x, W_q, W_k, W_v, W_o, H),
        lambda x: block.feed_forward(x, *mlp),
        lambda x: block.layer_norm(x, norm_1.weight.numpy(), norm_1.bias.numpy(), norm_1.eps),
        lambda x: block.layer_norm(x, norm_2.weight.numpy(), norm_2.bias.numpy(), norm_2.eps),
    )
    close(x2, [loops], rtol=1e-10, atol=1e-11)


def test_encoder_layer_of_the_transformer(rng):
    """F-BLOCK as the encoder-decoder has it: three layers, one after the other."""
    T, C, F, H = 5, 6, 9, 2
    config = TransformerConfig(
        src_vocab_size=5, tgt_vocab_size=5, d_model=C, nhead=H, dim_feedforward=F, dropout=0.0, bias=True
    )
    EncoderLayer = library("F-BLOCK", "tinyllm.models.transformer.EncoderLayer")
    X = rng.normal(size=(T, C)).tolist()
    x = tl.tensor([X])
    for _ in range(3):
        layer = with_random_parameters(EncoderLayer(config, rng, np.float64), rng)
        for bias in (layer.self_attn.in_proj_bias, layer.self_attn.out_proj.bias):  # the formula has none
            bias.assign_(np.zeros(bias.shape))
        W_q, W_k, W_v = np.split(layer.self_attn.in_proj_weight.numpy(), 3)
        heads = W_q, W_k, W_v, layer.self_attn.out_proj.weight.numpy(), H
        mlp = [p.numpy() for p in (layer.linear1.weight, layer.linear1.bias, layer.linear2.weight, layer.linear2.bias)]
        norms = [(norm.weight.numpy(), norm.bias.numpy(), norm.eps) for norm in (layer.norm1, layer.norm2)]
        X = block.block_post_norm(
            X,
            lambda x, heads=heads: attention.multi_head_attention(x, *heads),
            lambda x, mlp=mlp: block.feed_forward(x, *mlp),
            lambda x, norm=norms[0]: block.layer_norm(x, *norm),
            lambda x, norm=norms[1]: block.layer_norm(x, *norm),
        )
        x = layer(x)
    close(x, [X], rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize(("T", "C"), [(1, 1), (5, 4), (9, 7)])
def test_sinusoidal_positions(rng, T, C):
    SinusoidalPositions = library("F-PE", "tinyllm.nn.SinusoidalPositions")
    module, x = SinusoidalPositions(T + 3, C, dtype=np.float64), rng.normal(size=(2, T, C))
    table = np.array(positions.sinusoidal_positions(T + 3, C))
    close(module(tl.tensor(x)), x + table[:T])
    close(module(tl.tensor(x), offset=3), x + table[3:])


def test_dropout(rng):
    x, p = rng.normal(size=200), 0.3
    for function in (
        lambda t: library("F-DROP", "tinyllm.dropout")(t, p, rng=rng),
        lambda t: library("F-DROP", "tinyllm.nn.Dropout")(p, rng)(t),
    ):
        y = function(tl.tensor(x)).numpy()
        assert 0 < np.sum(y == 0) < 200
        close(y, dropout.dropout(x, y != 0, p), rtol=1e-14)
    evaluated = library("F-DROP", "tinyllm.nn.Dropout")(p, rng).eval()
    close(evaluated(tl.tensor(x)), x, rtol=0, atol=0)


def test_initialisation(rng):
    """The library draws to the bound, or with the deviation, that the loops give."""
    fan_in, fan_out = 300, 200
    shape, n = (fan_out, fan_in), fan_in * fan_out
    for name, bound in (
        ("xavier_uniform", init.xavier_uniform_bound(fan_in, fan_out)),
        ("he_uniform", init.he_uniform_bound(fan_in)),
    ):
        W = library("F-INIT", f"tinyllm.nn.init.{name}")(shape, rng, dtype=np.float64)
        assert bound * (1 - 20 / n) < np.abs(W).max() <= bound
        assert W.std() == pytest.approx(bound / math.sqrt(3), rel=0.01)
    for name, std in (("xavier_normal", init.xavier_std(fan_in, fan_out)), ("he_normal", init.he_std(fan_in))):
        W = library("F-INIT", f"tinyllm.nn.init.{name}")(shape, rng, dtype=np.float64)
        assert W.std() == pytest.approx(std, rel=0.015)
        assert np.abs(W).max() > 3 * std


def test_autoregressive_loss(rng):
    GPT = library("F-MLM", "tinyllm.models.GPT")
    config = tl.models.GPTConfig(n_layer=1, n_head=2, n_embd=4, n_positions=8, vocab_size=5)
    ids = rng.integers(0, 5, size=(3, 7))
    out = GPT(config, rng=rng, dtype=np.float64).eval()(ids, labels=ids)
    logits = out.logits.numpy()
    loops = [
        masked_lm.autoregressive_loss([attention.softmax(row) for row in logits[b]], ids[b]) for b in range(len(ids))
    ]
    close(out.loss, np.mean(loops))


def test_masked_lm_loss(rng):
    BERTForMaskedLM = library("F-MLM", "tinyllm.models.BERTForMaskedLM")
    config = tl.models.BERTConfig(
        vocab_size=7, hidden_size=4, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
    )
    ids, chosen = rng.integers(1, 7, size=9), rng.random(9) < 0.5
    hidden = np.where(chosen, 0, ids)
    model = BERTForMaskedLM(config, rng=rng, dtype=np.float64)
    out = model(hidden[None], labels=np.where(chosen, ids, -100)[None])
    loops = masked_lm.masked_lm_loss([attention.softmax(row) for row in out.logits.numpy()[0]], ids, chosen)
    close(out.loss, loops)


def test_lstm(rng):
    LSTM = library("F-LSTM", "tinyllm.nn.LSTM")
    module = with_random_parameters(LSTM(3, 4, rng=rng, dtype=np.float64), rng)
    X = rng.normal(size=(2, 5, 3))
    weights = [getattr(module, name).numpy() for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")]
    close(module(tl.tensor(X))[0], [recurrent.lstm(x, *weights) for x in X], rtol=1e-11)


# --- training ---------------------------------------------------------------------------------------------------------


def trajectory(optimiser, starts, gradients):
    """Where the optimiser leads a parameter that meets these gradients one after the other."""
    theta = tl.tensor(starts, requires_grad=True)
    opt = optimiser([theta])
    path = []
    for g in gradients:
        opt.zero_grad()
        theta.backward(g)
        opt.step()
        path.append(theta.numpy())
    return path


def test_sgd(rng):
    SGD = library("F-SGD", "tinyllm.optim.SGD")
    theta, gradients = rng.normal(size=5), rng.normal(size=(7, 5))
    expected, plain, velocity = [], theta, np.zeros(5)
    for g in gradients:
        plain = optimisers.sgd_step(plain, g, lr=0.1)
        expected.append(plain)
    close(trajectory(lambda p: SGD(p, lr=0.1), theta, gradients), expected)
    expected, plain = [], theta
    for g in gradients:
        plain, velocity = optimisers.sgd_momentum_step(plain, g, velocity, lr=0.1, momentum=0.8)
        expected.append(plain)
    close(trajectory(lambda p: SGD(p, lr=0.1, momentum=0.8), theta, gradients), expected)


def test_adam(rng):
    Adam = library("F-ADAM", "tinyllm.optim.Adam")
    theta, gradients = rng.normal(size=5), rng.normal(size=(7, 5)) * 10.0 ** np.arange(-3, 2)
    expected, state = [], (theta, np.zeros(5), np.zeros(5))
    for t, g in enumerate(gradients, start=1):
        state = optimisers.adam_step(state[0], g, state[1], state[2], t, 0.01, 0.8, 0.95, 1e-3)
        expected.append(state[0])
    close(trajectory(lambda p: Adam(p, lr=0.01, betas=(0.8, 0.95), eps=1e-3), theta, gradients), expected)


def test_weight_decay_is_the_penalty(rng):
    """Decay in SGD is a step down the slope of the L2 penalty."""
    theta, strength, h = rng.normal(size=4), 0.3, 1e-5
    slope = [
        (dropout.l2_penalised(0.0, theta + d, strength) - dropout.l2_penalised(0.0, theta - d, strength)) / (2 * h)
        for d in h * np.eye(4)
    ]
    SGD = library("F-SGD", "tinyllm.optim.SGD")
    path = trajectory(lambda p: SGD(p, lr=0.1, weight_decay=strength), theta, np.zeros((1, 4)))
    close(path[0], theta - 0.1 * np.array(slope), rtol=1e-8)


def test_training_procedure(rng):
    """P-TRAIN, its gradient by hand, takes the same path as autograd and SGD."""
    X, labels = rng.normal(size=(12, 3)), rng.integers(0, 4, size=12)
    start = rng.normal(size=(4, 3))
    weights, expected = procedures.train(X, labels, 4, W=start, lr=0.3, decay=0.9, tolerance=0.0, max_epochs=9)
    W = tl.tensor(start, requires_grad=True)
    opt = library("P-TRAIN", "tinyllm.optim.SGD")([W], lr=0.3)
    found = []
    for t in range(9):
        loss = tl.cross_entropy(tl.tensor(X) @ tl.transpose(W), tl.tensor(labels))
        opt.zero_grad()
        loss.backward()
        opt.lr = 0.3 * 0.9**t
        opt.step()
        found.append(loss.numpy())
    close(found, expected)
    close(W, weights)


@pytest.mark.parametrize(("E", "k", "C", "inner"), [(1, 1, 1, 1), (5, 2, 3, 4), (4, 1, 3, 2)])
def test_moe(rng, E, k, C, inner):
    mixture = library("F-MOE", "tinyllm.nn.MoE")(C, inner, E, k, std=1.0, rng=rng, dtype=np.float64)
    x = rng.normal(size=(7, C))
    silu = resolve("tinyllm.silu")

    def expert(e):
        w1, w2, w3 = (getattr(mixture.experts[e], name).weight.numpy() for name in ("w1", "w2", "w3"))
        return lambda v: (w2 @ (silu(w1 @ np.array(v)).numpy() * (w3 @ np.array(v)))).tolist()

    W_g, experts = mixture.gate.weight.numpy(), [expert(e) for e in range(E)]
    y, routing = mixture(tl.tensor(x))
    close(y, [moe.moe(v.tolist(), W_g.tolist(), experts, k) for v in x])
    if k == 1:  # Switch's formula, whose experts are the most probable one alone
        probabilities = tl.softmax(tl.tensor(x @ W_g.T), axis=-1).numpy().tolist()
        close(library("F-MOE", "tinyllm.nn.balance_loss")([routing]), moe.balance_loss(probabilities, alpha=1.0))


# --- text and evaluation ----------------------------------------------------------------------------------------------


def test_clean():
    """On plain HTML the library's careful cleaning and the loops leave the same words."""
    clean = library("P-PREP", "tinyllm.text.clean")
    for text in ("<p>Two  cats</p>\n sat.", "<b>It's</b> a <i>test</i>, isn't it?", "1 < 2", "no tags"):
        ours, loops = (procedures.tokenise(f(text)) for f in (clean, procedures.clean))
        assert [w for w in ours if w[0].isalnum()] == [w for w in loops if w[0].isalnum()]


def test_classification_measures(rng):
    y, yhat = rng.integers(0, 3, size=(2, 25))
    assert library("F-EVAL", "tinyllm.metrics.accuracy")(y, yhat) == pytest.approx(evaluation.accuracy(y, yhat))
    for name in ("precision", "recall", "f1"):
        loops = getattr(evaluation, name)
        ours = library("F-EVAL", f"tinyllm.metrics.{name}")
        close(ours(y, yhat, average=None, labels=[0, 1, 2]), [loops(y, yhat, label) for label in range(3)])
        assert ours(y, yhat, average="macro") == pytest.approx(evaluation.macro(loops, y, yhat))


def test_bleu():
    corpus_bleu = library("F-EVAL", "tinyllm.metrics.corpus_bleu")
    hypotheses = ["the cat sat on the mat today", "a dog is in the house now"]
    references = ["the cat sat on a mat today", "there is a dog in the house now"]
    loops = evaluation.bleu([h.split() for h in hypotheses], [[r.split()] for r in references])
    assert corpus_bleu(hypotheses, [references], tokenize="none").score == pytest.approx(100 * loops, rel=1e-12)
