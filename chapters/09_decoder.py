# %% [markdown]
# # 09 The modern decoder: RMSNorm, rotary positions, SwiGLU, grouped heads, the cache
#
# **You will learn** what Llama changed in the block of chapter 06, one change at a time: a norm with less in it,
# positions that are turns, a gated network, heads that share their keys; and how a cache makes each new token cheap.
# You will measure which of the changes pays, and find a bug that hides until the text is longer than a window.
#
# **You need** attention (chapter 05), the block (06), training and writing (07).

# %% tags=["imports"]
from itertools import pairwise

import numpy as np
from matplotlib.figure import Figure

import tinyllm as tl
from tinyllm.autograd.fused.rotary import rotary
from tinyllm.course import budget, check, examine, formula, is_fast, show
from tinyllm.formulas import activations, attention
from tinyllm.models import NGram
from tinyllm.models.llama import Llama
from tinyllm.models.llama_config import LlamaConfig
from tinyllm.train.prepare import prepare
from tinyllm.train.settings import Settings
from tinyllm.viz import step_backward

# %% [markdown]
# ## The question
#
# A text of a thousand tokens is written token by token: a thousand passes through the model. Must each of them read the
# whole text again? The answer is no, and it shapes the model: what is kept from pass to pass decides how long a text,
# and how many texts at once, a machine can hold. The picture counts both for a small published model, SmolLM2-135M:
# multiply-adds of the next token, and numbers kept for the text before it. The rest of the chapter explains the lines.

# %%
layers, C, H, H_shared, inner, V_big = 30, 576, 9, 3, 1536, 49152  # the shape of SmolLM2-135M
D = C // H
weights = layers * (2 * C * C + 2 * C * H_shared * D + 3 * C * inner) + V_big * C  # of the matrices that a token meets
tokens = np.arange(1, 2049)
fresh = weights * tokens + 2 * layers * C * tokens**2 / 2  # every token again, and every pair of tokens
cached = weights + 2 * layers * C * tokens  # the new token, and its pairs with those before
figure = Figure(figsize=(9, 3.6), layout="constrained")
left, right = figure.subplots(1, 2)
left.loglog(tokens, fresh, color="#d55e00", label="the whole text again")
left.loglog(tokens, cached, color="#0072b2", label="with a cache")
left.set_ylabel("multiply-adds for one new token")
for heads, name, color in ((H, "9 heads of keys", "#e69f00"), (H_shared, "3, shared", "#009e73")):
    right.plot(tokens, 2 * layers * heads * D * tokens / 1e6, color=color, label=f"{name} by layer")
right.set_ylabel("million numbers kept")
for axes in (left, right):
    axes.set_xlabel("tokens of the text")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
show(figure)

# %% [markdown]
# ## The formula
#
# The documents stop at the original Transformer. Two of their formulas are changed here, and one is kept:

# %%
formula("F-BLOCK")
print()
formula("F-PE")
print()
formula("F-ATTN")

# %% [markdown]
# Llama's block is $x + \mathrm{attention}(\mathrm{norm}(x))$, then $x + \mathrm{network}(\mathrm{norm}(x))$, with
#
# $$\mathrm{norm}(x)_i = \frac{x_i}{\sqrt{\tfrac 1 n \sum_j x_j^2 + \epsilon}}\, w_i , \qquad
# \mathrm{network}(x) = W_3 \big( \mathrm{silu}(W_1 x) \odot W_2 x \big), \quad \mathrm{silu}(z) = z\,\sigma(z),$$
#
# and positions that are not added to the words but turn queries and keys: the pair of channels $i$ and $i + D/2$ of the
# token at place $t$ is turned by the angle $t \cdot 10000^{-2i/D}$. (Zhang and Sennrich 2019, eq. 4; Shazeer 2020,
# eq. 6; Su and others 2021, section 3.2. Touvron and others 2023 put them together.)
#
# ## By hand
#
# **The norm** of chapter 06 took off the mean and divided by the deviation. This one only divides.

# %%
x = [1.0, 3.0, -2.0, 4.0]
root = (sum(value * value for value in x) / len(x)) ** 0.5
print(f"RMSNorm:   divided by {root:.4f}:", [round(value / root, 4) for value in x])

# %% [markdown]
# **Positions.** The smallest head has two channels: an arrow on paper. The token at place t has its arrow turned by t
# radians. Six tokens, all with the same query (1, 0) and the same key (1, 0): whatever differs is due to the places.

# %%
words = ["the", "cat", "sat", "on", "the", "mat"]
print("scores   " + "".join(f"{word:>7}" for word in words))
for t in range(6):
    q = (np.cos(t), np.sin(t))  # (1, 0), turned by t
    row = []
    for s in range(t + 1):
        k = (np.cos(s), np.sin(s))
        row.append(q[0] * k[0] + q[1] * k[1])
    print(f"{words[t]:<8}", "".join(f"{score:7.3f}" for score in row))

# %% [markdown]
# Look along the diagonals: 1, then $\cos 1$, then $\cos 2$. Two turned arrows know only how far they were turned *from
# each other*. So a score depends on the distance of two tokens, never on their places. Remember it for later.
#
# **The gate.** A unit of chapter 06's network passes on relu(a). A gated one computes two numbers, and passes on
# silu(a) times b: the first says how far the door opens, the second what comes through.

# %%
for a, b in ((2.0, 3.0), (0.0, 3.0), (-1.0, 3.0), (-6.0, 3.0), (2.0, -3.0)):
    silu = a * activations.sigmoid(a)
    print(f"gate {a:4.1f}: silu {silu:7.4f};  through comes {b:4.1f}: {silu * b:8.4f}")

# %% [markdown]
# **Shared heads.** With 4 heads of queries and 2 of keys and values, neighbours share: head h looks at head h // 2.
# **The cache.** The keys and values of a token depend on the tokens before it, not on those after it. So when the next
# one comes they are already right. By hand, six tokens, one channel, the keys being the numbers themselves:

# %%
print("heads of queries 0 1 2 3 look at heads of keys", [h // (4 // 2) for h in range(4)])
numbers, keys = [0.5, 1.0, -1.0, 2.0, 0.0, 1.5], []
for t, value in enumerate(numbers):
    keys.append(value)  # what is kept
    e = [np.exp(value * key) for key in keys]
    now = sum(weight * key for weight, key in zip(e, keys, strict=True)) / sum(e)
    again = attention.attention(*([[[number] for number in numbers[: t + 1]]] * 3))[t][0]
    print(f"{words[t]:<4} with {len(keys)} keys kept {now:8.5f}, everything anew {again:8.5f}")

# %% [markdown]
# ## Step through
#
# A Llama with one block, two heads that share one head of keys, and eight channels, on six tokens.

# %%
config = LlamaConfig(
    vocab_size=5, hidden_size=8, intermediate_size=12, num_hidden_layers=1, num_attention_heads=2,
    num_key_value_heads=1, max_position_embeddings=6, initializer_range=0.5,
)  # fmt: skip
small = Llama(config, rng=np.random.default_rng(0), dtype=np.float64)
sentence = np.array([[0, 1, 2, 3, 0, 4]])  # (B, T): the cat sat on the mat
loss = small(sentence, labels=sentence).loss
tl.print_tape(loss)

# %% [markdown]
# Read it beside chapter 07's tape. No positions are added to the words. The norm is `rms_norm`; one product has become
# three, of which those of keys and values are half as wide; `rotary` turns queries and keys, and leaves the values
# alone; the network has three products with `swiglu` among them. Back along it, to the step through the turned keys:

# %%
names = {name.split("layers.0.")[-1].removesuffix(".weight"): p for name, p in small.named_parameters()}
walk = step_backward(loss, names=names)
turns = [i for i, step in enumerate(walk.steps) if step.node.op.name == "rotary"]
g, (back,) = walk.steps[turns[0]].out_grad.data, walk.steps[turns[0]].in_grads
print(f"length of the gradient before the turn {np.linalg.norm(g):.6f}, after it {np.linalg.norm(back.data):.6f}")
show(walk.figure(turns[0]))

# %% [markdown]
# A turn changes no length, so neither does its derivative: gradients are turned back by the same angles.
#
# ## All at once
#
# The library's operations against the loops, then the law of this chapter: *with a cache as without one.*

# %%
rng = np.random.default_rng(0)
rows, w = rng.normal(size=(6, 8)), rng.normal(size=8)
root = lambda row: (sum(u * u for u in row) / 8 + 1e-5) ** 0.5  # noqa: E731
loops = np.array([[row[i] / root(row) * w[i] for i in range(8)] for row in rows])
print(f"rms_norm  differs from the loops by {np.abs(tl.rms_norm(rows, 8, w, 1e-5).data - loops).max():.0e}")
turned = rotary(rows).data
for t in range(6):
    for i in range(4):
        angle = t * 10000 ** (-2 * i / 8)
        u, v = rows[t, i], rows[t, i + 4]
        assert np.isclose(turned[t, i], u * np.cos(angle) - v * np.sin(angle), rtol=0, atol=1e-14)
print("rotary    agrees with the loops")

whole, cache, worst = small(sentence).logits.data, small.new_cache(), 0.0
with tl.no_grad():
    for t in range(6):
        logits = small(sentence[:, t : t + 1], cache=cache).logits.data  # one token each time
        worst = max(worst, np.abs(logits[:, 0] - whole[:, t]).max())
print(f"token by token, with a cache of {cache.length} tokens: differs by {worst:.0e}")

# %% [markdown]
# ## The derivative
#
# Of the norm. Write $r = \sqrt{\overline{x^2} + \epsilon}$ for a row of $n$ numbers and $h_i = x_i / r$. Both move with
# $x_j$:
#
# $$\frac{\partial r}{\partial x_j} = \frac{x_j}{n r} = \frac{h_j}{n}, \qquad
# \frac{\partial h_i}{\partial x_j} = \frac 1 r \Big( \delta_{ij} - \frac{h_i h_j}{n} \Big) .$$
#
# With $u = g\, w$ the gradient that arrives at $h$, the sum over $i$ is
#
# $$\frac{\partial L}{\partial x_j} = \frac 1 r \Big( u_j - h_j\, \overline{u h} \Big) .$$
#
# It is LayerNorm's without the term $\overline u$: there, a constant added to a row changed nothing.

# %%
g, x = rng.normal(size=(6, 8)), tl.tensor(rows, requires_grad=True)
tl.rms_norm(x, 8, w, 1e-5).backward(g)
r = np.sqrt((rows**2).mean(-1, keepdims=True) + 1e-5)
h, u = rows / r, g * w
by_hand = (u - h * (u * h).mean(-1, keepdims=True)) / r
print(f"by tape         differs by {np.abs(x.grad.data - by_hand).max():.0e}")
nudge = np.zeros_like(rows)
nudge[2, 3] = 1e-5
above, below = (tl.rms_norm(rows + s * nudge, 8, w, 1e-5).data for s in (1, -1))
print(f"by differences  differs by less than 1e-8: {abs((g * (above - below)).sum() / 2e-5 - by_hand[2, 3]) < 1e-8}")

# %% [markdown]
# ## On real data
#
# Which of the changes pays? Five small models on the prose of the standard library, character by character: the first
# is chapter 07's, and each of the others has one change more. The same text, steps and rate for all; twice, with other
# first weights, so that we see what is chance. A gate needs a third matrix, so its network is made narrower by a third.

# %% tags=["experiment"]
prose = prepare(Settings.make())
train, held_out, V = prose.train.tokens, prose.held_out.tokens, prose.tokenizer.vocab_size
width, depth, T, B = 64, 3, 64, 12
windows = held_out[: budget(full=160, fast=4) * (T + 1)].reshape(-1, T + 1).astype(np.int64)
bigram = NGram(2, V).fit(train).loss(held_out)


class Layer(tl.nn.Module):
    """A block, with as many of the changes as are named."""

    def __init__(self, changes, rng):
        linear = lambda n, m: tl.nn.Linear(n, m, bias=False, std=n**-0.5, rng=rng)  # noqa: E731
        self.changes = changes
        shared = width // 4 if "grouped" in changes else width
        self.q, self.kv, self.out = linear(width, width), linear(width, 2 * shared), linear(width, width)
        hidden = 8 * width // 3 if "swiglu" in changes else 4 * width
        self.up, self.down = linear(width, hidden), linear(hidden, width)
        if "swiglu" in changes:
            self.gate = linear(width, hidden)
        norm = tl.nn.RMSNorm if "rms" in changes else tl.nn.LayerNorm
        self.norms = [norm(width), norm(width)]

    def forward(self, x):
        n = self.norms[0](x)
        q, (k, v) = self.q(n), tl.split(self.kv(n), 2, axis=-1)
        q, k, v = (a.reshape(*a.shape[:2], -1, 16).transpose(0, 2, 1, 3) for a in (q, k, v))  # heads of 16 channels
        if "rotary" in self.changes:
            q, k = rotary(q), rotary(k)
        y = tl.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        x = x + self.out(y.transpose(0, 2, 1, 3).reshape(*x.shape))
        n = self.norms[1](x)
        return x + self.down(tl.swiglu(self.gate(n), self.up(n)) if "swiglu" in self.changes else tl.gelu(self.up(n)))


class Model(tl.nn.Module):
    """A language model of such blocks."""

    def __init__(self, changes, seed):
        rng = np.random.default_rng(seed)
        tables = (0.06 * rng.normal(size=(n, width)) for n in (V, T))
        self.changes, (self.words, self.places) = changes, (tl.tensor(t, np.float32, True) for t in tables)
        self.layers = [Layer(changes, rng) for _ in range(depth)]
        self.norm, self.head = tl.nn.LayerNorm(width), tl.nn.Linear(width, V, std=width**-0.5, rng=rng)

    def loss(self, ids):
        x = tl.embedding(ids[:, :-1], self.words)
        if "rotary" not in self.changes:
            x = x + self.places
        for layer in self.layers:
            x = layer(x)
        return tl.linear_cross_entropy(self.norm(x), self.head.weight, ids[:, 1:])


def trained(changes, seed):
    """The model after some steps: parameters, and the loss on held-out text."""
    model, steps = Model(changes, seed), budget(full=350, fast=2)
    opt = tl.optim.AdamW(model.parameters(), lr=3e-3)
    draws = np.random.default_rng(seed)
    for step in range(steps):
        opt.lr = 3e-3 * min((step + 1) / 20, 1 - step / steps)
        starts = draws.integers(0, len(train) - T - 1, B)
        loss = model.loss(np.stack([train[s : s + T + 1] for s in starts]).astype(np.int64))
        loss.backward()
        tl.optim.clip_grad_norm_(model.parameters(), 1.0)
        opt.step()
        opt.zero_grad()
    with tl.no_grad():
        used = sum(p.size for name, p in model.named_parameters() if "places" not in name or "rotary" not in changes)
        return used, model.loss(windows).item()


steps_of_change = ["chapter 07's", "rms", "rotary", "swiglu", "grouped"]
found = {}
for i, name in enumerate(steps_of_change):
    found[name] = [trained(steps_of_change[1 : i + 1], seed) for seed in range(2)]
    (size, one), (_, other) = found[name]
    print(f"{'' if i == 0 else '+ '}{name:<13} {size:>8,} parameters, held out {one:.3f} and {other:.3f}")
print(f"bigram count  {bigram:.3f}")
means = {name: np.mean([loss for _, loss in pair]) for name, pair in found.items()}
assert is_fast() or means["grouped"] < bigram < means["chapter 07's"]

# %% tags=["experiment"]
figure = Figure(figsize=(7, 3.4), layout="constrained")
axes = figure.add_subplot()
for seed, marker in ((0, "o"), (1, "s")):
    axes.plot([found[name][seed][1] for name in steps_of_change], marker=marker, color="#0072b2", linestyle="none")
axes.plot(list(means.values()), color="#555555", linewidth=1)
axes.set_xticks(range(5), [name if i == 0 else f"+ {name}" for i, name in enumerate(steps_of_change)])
axes.set_ylabel("nats per character, held out")
show(figure)
gains = {b: means[a] - means[b] for a, b in pairwise(steps_of_change)}
print("what each change brought:", ", ".join(f"{name} {gain:+.3f}" for name, gain in gains.items()))
print("largest difference between two seeds:", f"{max(abs(a - b) for (_, a), (_, b) in found.values()):.3f}")

# %% [markdown]
# Hold each gain against the last line. After few steps the block of chapter 07 is still behind a bigram count: it has
# to learn a table of places before it can look one character back. With turns, that is a matter of one angle. The norm
# and the gate cannot be told from luck here; they were chosen for speed, and for gains seen at a thousand times this
# size. Sharing heads is not to lower the loss: it makes the cache smaller, and the question is how little it costs.
#
# ## Exercises


# %% tags=["exercise"]
def rms_rows(x, weight):
    """RMSNorm of x (T, C) over the last axis, eps = 1e-5."""
    # BEGIN SOLUTION
    return x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + 1e-5) * weight
    # END SOLUTION


check(rms_rows)


# %% tags=["exercise"]
def rms_rows_vjp(g, x, weight):
    """The gradient of x, given the gradient g (T, C) of rms_rows(x, weight)."""
    # BEGIN SOLUTION
    r = np.sqrt((x * x).mean(axis=-1, keepdims=True) + 1e-5)
    h, u = x / r, g * weight
    return (u - h * (u * h).mean(axis=-1, keepdims=True)) / r
    # END SOLUTION


check(rms_rows_vjp)


# %% tags=["exercise"]
def turned_by_position(x, positions):
    """Rotary positions: x (T, D), its row t turned as befits a token at positions[t]; pairs are i and i + D/2."""
    # BEGIN SOLUTION
    half = x.shape[1] // 2
    angles = positions[:, None] * 10000.0 ** (-np.arange(half) / half)
    u, v, cos, sin = x[:, :half], x[:, half:], np.cos(angles), np.sin(angles)
    return np.concatenate([u * cos - v * sin, v * cos + u * sin], axis=1)
    # END SOLUTION


check(turned_by_position)


# %% tags=["exercise"]
def grouped_attention(q, k, v):
    """Causal attention of q (H, T, D) with k, v (H', T, D): neighbouring heads of queries share a head of keys."""
    # BEGIN SOLUTION
    k, v = (np.repeat(a, len(q) // len(k), axis=0) for a in (k, v))
    scores = q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1])
    scores = np.where(np.tri(q.shape[1], dtype=bool), scores, -np.inf)
    e = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True) @ v
    # END SOLUTION


check(grouped_attention)


# %% tags=["exercise"]
def windowed_step(q, keys, values, window):
    """Attention of the newest token, query q (D,), with the last `window` of keys, values (S, D), the newest last."""
    # BEGIN SOLUTION
    keys, values = keys[-window:], values[-window:]
    scores = keys @ q / np.sqrt(len(q))
    e = np.exp(scores - scores.max())
    return e / e.sum() @ values
    # END SOLUTION


check(windowed_step)

# %% [markdown]
# ## Break it
#
# Mistral lets a token see a *window* of tokens only, so that its cache need not grow. The cache of a well-known
# textbook, LLMs-from-scratch, was wrong once the text was longer than the context (issue 925); so was that of
# transformers for its models with windows (issue 37574). Here is a decoder of one head, in the style of the exercises.
# Its author has tested it: with the cache as without it, to the last digit. Is that enough?


# %%
Q, K, W = rng.normal(size=(3, 8, 8))  # of queries, keys and values
stream = rng.normal(size=(14, 8))  # a text of 14 tokens


def without_a_cache(text, window):
    """What the last token of text (T, 8) receives."""
    places = np.arange(len(text))
    return windowed_step(
        turned_by_position(text @ Q, places)[-1], turned_by_position(text @ K, places), text @ W, window
    )


def with_a_cache(text, window, place_of):
    """The same, token by token; `place_of` tells the new token its place from the tokens kept and those seen."""
    keys, values, results = np.empty((0, 8)), np.empty((0, 8)), []
    for seen, token in enumerate(text):
        place = np.array([place_of(len(keys), seen)])
        q, k = (turned_by_position((token @ M)[None], place) for M in (Q, K))
        keys, values = np.concatenate([keys, k]), np.concatenate([values, (token @ W)[None]])
        results.append(windowed_step(q[0], keys, values, window))
        keys, values = keys[-window:], values[-window:]  # the older ones will not be seen again
    return np.array(results)


suspicious = lambda kept, seen: kept  # noqa: E731
for length in (6, 14):
    expected = np.array([without_a_cache(stream[: t + 1], window=6) for t in range(length)])
    off = np.abs(with_a_cache(stream[:length], 6, suspicious) - expected).max(axis=1)
    print(
        f"{length:>2} tokens, window 6: {'the same at every step' if off.max() < 1e-12 else f'off by {off.round(2)}'}"
    )

# %% [markdown]
# The author's test had six tokens. After the seventh token the cache drops one, and the place of the next is
# counted from what was *kept*: from there on every new token believes that it stands at place 6, while the old keys
# were turned by their true places. The scores are those of wrong distances, nothing crashes, and the text slowly loses
# its thread. What is needed is the number of tokens *seen*:

# %%
mended = with_a_cache(stream, 6, lambda kept, seen: seen)
print(f"mended: differs by {np.abs(mended - expected).max():.0e}")

report = examine(lambda q, keys, values, window: windowed_step(q, keys, values, window + 1), "windowed_step")
print("and the cache that drops one token too late:", report.likely[0])

# %% [markdown]
# The law that finds all of these: *cached equals uncached at every step, on texts longer than every window there is.*
# A model with a table of places, as GPT-2, has a second edge. When its context is full, every token moves one place to
# the front, and all that was kept is wrong at once: `tl.generate` then computes the window anew.
#
# ## What the field reports
#
# Llama (Touvron and others 2023) has this block, as have Mistral, Qwen, Gemma and SmolLM2, in sizes from a hundred
# million to hundreds of billions. Ainslie and others (2023) found that sharing keys among groups of heads costs little
# quality; Su and others (2021) give the turns; Narang and others (2021), who tried dozens of changes at one size, found
# that most do not pay, and gates and RMSNorm do. `tinyllm chat` runs SmolLM2-135M through the code of this chapter. To
# read next: `tinyllm/models/llama.py`, which is a page; then chapter 10, where the network is divided among experts.
#
# ## Summary
#
# * RMSNorm divides by the root of the mean square; its gradient has no part along the row itself.
# * Turned queries and keys: a score depends on the distance of two tokens. The gradient is turned back.
# * A gate multiplies two projections; heads that share keys make the cache smaller.
# * A cache changes the time and nothing else. Its places count the tokens seen, not the tokens kept.
# * Test it on texts longer than the window.
#
# ## Glossary
#
# | English | Chinese | meaning |
# |---|---|---|
# | RMSNorm | 均方根归一化 | a row divided by the root of its mean square |
# | rotary positions (RoPE) | 旋转位置编码 | queries and keys turned by an angle for each place |
# | gated network (SwiGLU) | 门控前馈网络 | one projection opens the way for another |
# | grouped-query attention | 分组查询注意力 | several heads of queries share one of keys and values |
# | sliding window | 滑动窗口 | a token sees only so many of those before it |
