# %% [markdown]
# # 06 The Transformer block: LayerNorm, feed-forward, residual, positions
#
# **You will learn** what stands around attention and why: a norm that keeps numbers in range, a network at every
# position, a stream that passes by it all, and positions, without which a sentence is a bag of words. You will write
# the derivative of LayerNorm, and see what a deep stack does when the stream is cut.
#
# **You need** attention (chapter 05) and the tape (chapter 01).

# %% tags=["imports"]
import numpy as np
from matplotlib.figure import Figure

import tinyllm as tl
from tinyllm.course import budget, check, examine, formula, is_fast, show
from tinyllm.formulas import block, positions
from tinyllm.viz import distributions, draw_tape, step_backward

# %% [markdown]
# ## The question
#
# Attention moves information between positions. A language model is a stack of dozens of such layers. Why does a deep
# stack of good layers not train, unless something is added and something is divided? The answer will be a picture,
# drawn by this chapter's experiment: the loss of the same small model, deeper and deeper, in three versions. The cell
# below defines the three, and you can read it as the definition of everything that follows.

# %%
rng = np.random.default_rng(0)


def linear(inputs, outputs):
    """A weight (out, in) for `tl.linear`, of variance 1 / in (chapter 03)."""
    return tl.tensor(rng.normal(size=(outputs, inputs)) / np.sqrt(inputs), dtype=np.float32, requires_grad=True)


class Layer(tl.nn.Module):
    """Attention and feed-forward, put together in one of three ways."""

    def __init__(self, C, kind):
        self.kind = kind
        self.qkv, self.out = linear(C, 3 * C), linear(C, C)
        self.up, self.down = linear(C, 4 * C), linear(4 * C, C)

    def attention(self, x):
        q, k, v = tl.split(tl.linear(x, self.qkv), 3, axis=-1)  # (B, T, C) each: one head
        return tl.linear(tl.scaled_dot_product_attention(q, k, v, is_causal=True), self.out)

    def network(self, x):
        return tl.linear(tl.relu(tl.linear(x, self.up)), self.down)

    def forward(self, x):
        for sublayer in (self.attention, self.network):
            if self.kind == "pre-norm":
                x = x + sublayer(tl.layer_norm(x, x.shape[-1]))
            elif self.kind == "post-norm":
                x = tl.layer_norm(x + sublayer(x), x.shape[-1])
            else:  # no residual: each layer replaces what came in
                x = sublayer(tl.layer_norm(x, x.shape[-1]))
        return x


# %% [markdown]
# ## The formula
#
# The documents draw the block of the original paper, *post-norm*: the sum is normalised.

# %%
formula("F-BLOCK")

# %% [markdown]
# The network in it is given by another document, with two slips. And attention does not know where a token stands: to
# permute the words is to permute the results. So positions are added to the word vectors.

# %%
formula("F-MLP-004", printed=True)
print()
formula("F-PE")

# %% [markdown]
# ## By hand
#
# LayerNorm first. Six tokens of two numbers would be too kind: with two channels, every row becomes (1, -1) or (-1, 1),
# whatever it was. (Try it on paper: that is a fact to remember.) Here are six tokens of two numbers and one of four.

# %%
six = [[1.0, 3.0], [2.0, 2.5], [0.0, -4.0], [5.0, 1.0], [-1.0, 0.0], [2.0, 2.001]]
for row in six:
    print(row, "->", np.round(block.layer_norm(row, eps=0.0), 4).tolist())

x = [1.0, 0.0, 0.0, 0.0]
mean = sum(x) / 4
variance = 0.0
for value in x:
    variance += (value - mean) ** 2 / 4
print(f"\n{x}: mean {mean}, variance {variance}")
print("normalised:", [round((value - mean) / variance**0.5, 4) for value in x])

# %% [markdown]
# The first number is $\sqrt 3 \approx 1.732$. Many implementations print 1.5 there: they divide by $n - 1$. It is
# this chapter's bug, and you will find it below.
#
# Then positions, six of them and four channels: two clock hands, a fast one and a slow one, each shown by its sine and
# cosine.

# %%
for t, row in enumerate(positions.sinusoidal_positions(6, 4)):
    print(t, np.round(row, 4).tolist())

# %% [markdown]
# ## Step through
#
# The norm in small operations, on one row of three numbers. The mean is used twice, the deviations twice: two ways in,
# and so two gradients to be added on the way back.

# %%
x = tl.tensor([[1.0, 2.0, 4.0]], requires_grad=True)
centred = x - tl.mean(x, -1, keepdims=True)
variance = tl.mean(centred * centred, -1, keepdims=True)
h = centred / tl.sqrt(variance + 1e-5)
loss = tl.sum(h * tl.tensor([[1.0, 0.0, 0.0]]))  # how the first number of the result depends on the row
tl.print_tape(loss)
show(draw_tape(loss, names={"x": x}))

# %%
step_backward(loss, names={"x": x})

# %%
print("gradient of x:", np.round(x.grad.data, 4))
print(
    f"its sum {abs(x.grad.data.sum()):.0e}, its product with the normalised row {abs((x.grad.data * h.data).sum()):.0e}"
)

# %% [markdown]
# Both are zero (up to eps), and for a reason: adding a constant to the row changes nothing, and stretching it changes
# nothing. A gradient has no part in a direction in which nothing changes.
#
# ## All at once

# %%
rows = rng.normal(size=(5, 8))
weight, bias = rng.normal(size=(2, 8))
loops = np.array([block.layer_norm(row, weight, bias) for row in rows])
print(f"LayerNorm:  differs from the loops by {np.abs(tl.layer_norm(rows, 8, weight, bias).data - loops).max():.0e}")
table = tl.nn.sinusoids(6, 4, dtype=np.float64)
print(f"positions:  differ from the loops by {np.abs(table - positions.sinusoidal_positions(6, 4)).max():.0e}")

# %% [markdown]
# ## The derivative
#
# Write $\sigma = \sqrt{v + \epsilon}$ for the deviation of a row of $n$ numbers and $h_i = (x_i - m) / \sigma$. Three
# things move when $x_j$ does:
#
# $$\frac{\partial m}{\partial x_j} = \frac 1 n, \qquad
# \frac{\partial v}{\partial x_j} = \frac 2 n (x_j - m), \qquad
# \frac{\partial \sigma}{\partial x_j} = \frac{x_j - m}{n \sigma} = \frac{h_j}{n} .$$
#
# The quotient rule collects them:
#
# $$\frac{\partial h_i}{\partial x_j} = \frac{1}{\sigma} \Big( \delta_{ij} - \frac 1 n - \frac{h_i h_j}{n} \Big) .$$
#
# With $u_i$ the gradient arriving at $h_i$ (that of the result times the weight), the sum over $i$ is two means:
#
# $$\frac{\partial L}{\partial x_j} = \frac{1}{\sigma} \Big( u_j - \overline{u} - h_j \, \overline{u h} \Big) .$$

# %%
g = rng.normal(size=(5, 8))
x = tl.tensor(rows, requires_grad=True)
tl.layer_norm(x, 8, weight, bias).backward(g)
sigma = np.sqrt(rows.var(-1, keepdims=True) + 1e-5)
h, u = (rows - rows.mean(-1, keepdims=True)) / sigma, g * weight
by_hand = (u - u.mean(-1, keepdims=True) - h * (u * h).mean(-1, keepdims=True)) / sigma
print(f"by tape         differs by {np.abs(x.grad.data - by_hand).max():.0e}")
nudge = np.zeros_like(rows)
nudge[2, 3] = 1e-5
above, below = (tl.layer_norm(rows + s * nudge, 8, weight, bias).data for s in (1, -1))
difference = (g * (above - below)).sum() / 2e-5
print(f"by differences  differs by less than 1e-8: {abs(difference - by_hand[2, 3]) < 1e-8}")

# %% [markdown]
# ## On real data
#
# The three versions, trained on the prose of Python's standard library, character by character, at depth 1, 4 and 12,
# each for the same few steps and without warm-up. The line is a bigram count.

# %% tags=["experiment"]
from tinyllm.models import NGram
from tinyllm.train.prepare import prepare
from tinyllm.train.settings import Settings

prose = prepare(Settings.make())
train, held_out, V = prose.train.tokens, prose.held_out.tokens, prose.tokenizer.vocab_size
C, T, B = 48, 32, 16
bigram = NGram(2, V).fit(train).loss(held_out)
windows = held_out[: 64 * (T + 1)].reshape(64, T + 1).astype(np.int64)


class Model(tl.nn.Module):
    """A language model of layers of one kind."""

    def __init__(self, depth, kind):
        self.tokens = tl.nn.Embedding(V, C, rng=rng)
        self.layers = [Layer(C, kind) for _ in range(depth)]
        self.head = linear(C, V)

    def states(self, ids):
        x = self.tokens(ids) + tl.nn.sinusoids(ids.shape[1], C)
        found = [x]
        for layer in self.layers:
            found.append(layer(found[-1]))
        return found

    def loss(self, ids):
        x = tl.layer_norm(self.states(ids[:, :-1])[-1], C)
        return tl.cross_entropy(tl.linear(x, self.head), ids[:, 1:])


def trained(depth, kind, steps):
    """The model after some steps, and its held-out loss."""
    model = Model(depth, kind)
    opt = tl.optim.AdamW(model.parameters(), lr=3e-3)
    draws = np.random.default_rng(1)
    for _ in range(steps):
        starts = draws.integers(0, len(train) - T - 1, B)
        loss = model.loss(np.stack([train[s : s + T + 1] for s in starts]).astype(np.int64))
        loss.backward()
        tl.optim.clip_grad_norm_(model.parameters(), 1.0)
        opt.step()
        opt.zero_grad()
    with tl.no_grad():
        return model, model.loss(windows).item()


depths = budget(full=(1, 4, 12), fast=(1, 2))
kinds = ("pre-norm", "post-norm", "no residual")
results = {(kind, depth): trained(depth, kind, budget(full=250, fast=2))[1] for kind in kinds for depth in depths}
for kind in kinds:
    print(f"{kind:<12}", "  ".join(f"depth {depth}: {results[kind, depth]:.3f}" for depth in depths))
print(f"bigram count {bigram:.3f}")
assert is_fast() or results["pre-norm", 12] < results["no residual", 12] - 0.2

# %% tags=["experiment"]
figure = Figure(figsize=(7, 3.8), layout="constrained")
axes = figure.add_subplot()
for kind, color, marker in zip(kinds, ("#0072b2", "#e69f00", "#d55e00"), "os^", strict=True):
    axes.plot(depths, [results[kind, depth] for depth in depths], color=color, marker=marker, label=kind)
axes.axhline(bigram, color="#555555", linestyle="--", label="bigram count")
axes.set_xticks(depths)
axes.set_xlabel("layers")
axes.set_ylabel("nats per character, held out")
axes.spines[["top", "right"]].set_visible(False)
axes.legend(frameon=False)
show(figure)

# %% [markdown]
# Why? Look at what passes through the untrained stacks. With the stream, every layer adds a little to what is there;
# without it, each replaces what came in, and soon the positions resemble one another: what told the tokens apart is
# lost. (Post-norm normalises the stream itself: twelve such layers want a warm-up, and no run here has one.)

# %% tags=["experiment"]
for kind in ("pre-norm", "no residual"):
    states = Model(depths[-1], kind).states(windows[:, :-1])
    different = [np.mean(s.data.std(axis=(0, 1)) / (np.abs(s.data).mean() + 1e-9)) for s in states]
    thirds = [round(float(d), 2) for d in different[:: len(states) // 3]]
    print(f"{kind:<12} how much the positions differ, from layer to layer: {thirds}")
show(distributions({f"layer {i}": s for i, s in enumerate(states[:4])}, "no residual: values after each layer"))

# %% [markdown]
# ## Exercises


# %% tags=["exercise"]
def normalise_rows(x, weight, bias):
    """LayerNorm of x (T, C) over the last axis, eps = 1e-5."""
    # BEGIN SOLUTION
    mean = x.mean(axis=-1, keepdims=True)
    variance = x.var(axis=-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + 1e-5) * weight + bias
    # END SOLUTION


check(normalise_rows)


# %% tags=["exercise"]
def normalise_rows_vjp(g, x, weight):
    """The gradient of x, given the gradient g (T, C) of normalise_rows(x, weight, bias)."""
    # BEGIN SOLUTION
    sigma = np.sqrt(x.var(axis=-1, keepdims=True) + 1e-5)
    h, u = (x - x.mean(axis=-1, keepdims=True)) / sigma, g * weight
    return (u - u.mean(axis=-1, keepdims=True) - h * (u * h).mean(axis=-1, keepdims=True)) / sigma
    # END SOLUTION


check(normalise_rows_vjp)


# %% tags=["exercise"]
def sinusoid_table(T, C):
    """Sinusoidal positions (T, C): sines in the even channels, cosines in the odd ones."""
    # BEGIN SOLUTION
    angles = np.arange(T)[:, None] / 10000 ** (2 * np.arange(C // 2) / C)
    table = np.empty((T, C))
    table[:, 0::2], table[:, 1::2] = np.sin(angles), np.cos(angles)
    return table
    # END SOLUTION


check(sinusoid_table)


# %% tags=["exercise"]
def pre_norm_sublayer(x, w_in, w_out):
    """x + relu(LayerNorm(x) w_in^T) w_out^T, with LayerNorm's eps = 1e-5 and no weight or bias."""
    # BEGIN SOLUTION
    h = (x - x.mean(axis=-1, keepdims=True)) / np.sqrt(x.var(axis=-1, keepdims=True) + 1e-5)
    return x + np.maximum(h @ w_in.T, 0) @ w_out.T
    # END SOLUTION


check(pre_norm_sublayer)

# %% [markdown]
# ## Break it
#
# The widely read *Annotated Transformer* computes `x.std(-1)` in its LayerNorm, with PyTorch's default, and adds eps to
# it; so do BERT-pytorch and happy-llm. It trains. It is not LayerNorm, and weights trained elsewhere will not fit it.


# %%
def suspicious(x, weight, bias):
    """LayerNorm, says its author."""
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, ddof=1, keepdims=True) + 1e-5) * weight + bias


print(np.round(suspicious(np.array([[1.0, 0.0, 0.0, 0.0]]), 1, 0), 3)[0, 0], "where the square root of 3 belongs")
report = examine(suspicious, "normalise_rows")
print([check.law for check in report.checks if check.status == "failed"], report.likely[0])

# %% [markdown]
# ## What the field reports
#
# The original paper put the norm after the sum and needed a learning rate that warms up; GPT-2 moved it before, and
# most larger models since keep the stream clean. Xiong and others (2020), *On Layer Normalization in the Transformer
# Architecture*, say why in terms of gradients. To read next: Ba, Kiros and Hinton (2016) on LayerNorm; then chapter 07,
# where the block becomes a GPT.
#
# ## Summary
#
# * x + sublayer(norm(x)): the stream passes by; what is normalised is only what the sublayer sees.
# * LayerNorm works on each position alone, divides by n, and keeps eps under the root.
# * Its gradient has no part along the constant row and along the row itself.
# * Attention is blind to order; positions are added, or the model reads a bag of words.
# * Cut the stream, and depth hurts.
#
# ## Glossary
#
# | English | Chinese | meaning |
# |---|---|---|
# | layer normalisation | 层归一化 | each position's vector to mean 0 and variance 1 |
# | residual connection | 残差连接 | adding a layer's input to its output |
# | feed-forward network | 前馈网络 | two linear maps with a bend between, at each position |
# | positional encoding | 位置编码 | what tells the places apart |
# | pre-norm, post-norm | 前置归一化、后置归一化 | the norm before the sublayer, or after the sum |
