# %% [markdown]
# # 13 Looking inside: where a model looks, and what it needs
#
# **You will learn** to follow attention through all layers; to ask which tokens an answer came from, by a slope and by
# a sum of slopes that can be checked; to read what each layer would say; to silence a head and see what is lost. And,
# on a task whose truth we know, which of these methods tells it.
#
# **You need** attention (chapter 05), the block with its residual stream (chapter 06) and a trained GPT (chapter 07).

# %% tags=["imports"]
import numpy as np

import tinyllm as tl
from tinyllm.course import budget, check, examine, formula, is_fast, show

# %% [markdown]
# ## The question
#
# A model answers, and somebody asks why. The documents name attention pictures as a way to understand a model. Such a
# picture is easily drawn; whether it tells the *reason* is another question, and it can be answered only where the
# reason is known. So we shall make such a place: a task whose every answer comes from one token and no other. First
# the picture that chapter 05 began with: where each word of a sentence looks.
# %%
from tinyllm.explain import (
    attention_maps,
    gradient_times_input,
    heads_ablated,
    integrated_gradients,
    logit_lens,
    look_at,
    recompute,
    rollout,
)
from tinyllm.formulas.sat import WORDS, sat_numbers
from tinyllm.viz import attention_map

A = np.array([sat_numbers(word)["weights"] for word in range(len(WORDS))])  # (6, 6)
show(attention_map(A, WORDS, title="one layer: each row is where that word looks"))

# %% [markdown]
# ## The formula
#
# The weights are the softmax within attention; nothing else is needed to draw them.

# %%
formula("F-ATTN")

# %% [markdown]
# Three more that are not in the documents. *Attention rollout* (Abnar and Zuidema 2020) follows the weights through the
# layers, half of each token passing by in the residual stream. *Integrated gradients* (Sundararajan, Taly and Yan 2017)
# give token $i$, whose embedding is $x_i$, the sum of all slopes on a straight way from a baseline $b$:
#
# $$F = \prod_{l} \frac{A_l + I}{2}, \qquad
# \phi_i = (x_i - b_i) \cdot \int_0^1 \frac{\partial s}{\partial x_i}\big(b + \alpha (x - b)\big)\, d\alpha,
# \qquad \sum_i \phi_i = s(x) - s(b).$$
#
# The last equation is called *completeness*. It is what makes the method checkable. The *logit lens* is the model's own
# last step, taken early: norm a layer's state, multiply it with the table of tokens, softmax.
#
# ## By hand
#
# Let the sentence pass two layers, both with the weights above. What is "sat" made of after the second? In each layer
# the word with index $t$ is made half of itself and half of what it looks at; what it looks at was made likewise, one
# layer before.

# %%
half = [[0.5 * A[t][s] + (0.5 if s == t else 0.0) for s in range(6)] for t in range(6)]
flow = [[0.0] * 6 for _ in range(6)]
for t in range(6):
    for s in range(6):
        for between in range(6):  # by way of every word in the middle
            flow[t][s] += half[t][between] * half[between][s]
print(f"{'word':<6}{'one layer':>10}{'two layers':>12}")
for s, word in enumerate(WORDS):
    print(f"{word:<6}{A[2][s]:>10.4f}{flow[2][s]:>12.4f}")
print(f"sums  {sum(A[2]):>10.4f}{sum(flow[2]):>12.4f}")

# %% [markdown]
# Half of a half of "sat" never left its place, and what "cat" and "mat" saw has arrived as well. The rows still sum to
# 1: a product of tables whose rows sum to 1 is such a table.
#
# ## Step through
#
# For the other methods nothing has to be built into a model: the tape is enough. It holds each operation with what went
# in. So we may read it once more, *with one value changed*. Here is the attention of "sat", and what would have come
# out if it could not have looked at "cat":

# %%
n = sat_numbers()
q = tl.tensor([n["q"]], requires_grad=True)  # (1, 2)
scores = q @ np.array(n["K"]).T / np.sqrt(2)  # (1, 6)
weights = tl.softmax(scores, axis=-1)
out = weights @ np.array(n["V"])  # (1, 2)
tl.print_tape(out)

blind = scores.data.copy()
blind[0, 1] = -np.inf  # "cat"
print("\nas it was:          ", np.round(out.data[0], 4))
print("blind to 'cat':     ", np.round(recompute(out, {scores.node: tl.tensor(blind)}).data[0], 4))

# %% [markdown]
# Only what comes after the changed node is computed again. A silent head, a weaker embedding, a layer skipped: each is
# one call of `recompute`.
#
# ## All at once
#
# The library's rollout is the loops above as a product of matrices, for any number of layers and heads:

# %%
maps = np.stack([A[None], A[None]])  # (layers, heads, T, T)
print(f"largest difference from the loops: {np.abs(rollout(maps) - np.array(flow)).max():.1e}")

# %% [markdown]
# ## The derivative
#
# Why do the attributions add up? Write $h(\alpha) = s(b + \alpha (x - b))$. By the chain rule
#
# $$h'(\alpha) = \sum_i (x_i - b_i) \cdot \frac{\partial s}{\partial x_i}\big(b + \alpha (x - b)\big),$$
#
# and the integral of $h'$ from 0 to 1 is $h(1) - h(0) = s(x) - s(b)$: that is all. Take $s(x) = \tanh(3 x_1 + x_2)$,
# whose derivative is $(1 - s^2)(3, 1)$. By hand, by the tape, by finite differences:

# %%
x, b = np.array([1.0, 0.5]), np.zeros(2)


def s(x):
    """A score that saturates: far out it is flat."""
    return tl.tanh(3.0 * x[0] + x[1])


def slope_by_hand(x):
    return (1 - np.tanh(3 * x[0] + x[1]) ** 2) * np.array([3.0, 1.0])


at, step = np.array([0.2, 0.1]), 1e-6
differences = [(s(tl.tensor(at + step * e)) - s(tl.tensor(at - step * e))).item() / (2 * step) for e in np.eye(2)]
print("by hand        ", slope_by_hand(at))
print(f"by tape         differs by {np.abs(tl.grad(s)(tl.tensor(at)).data - slope_by_hand(at)).max():.0e}")
print(f"by differences  differs by less than 1e-8: {np.abs(differences - slope_by_hand(at)).max() < 1e-8}")

# %% [markdown]
# At $x$ the score is flat, and so the slope there says that nothing matters. The sum of slopes along the way knows
# better, and a few well-placed points (Gauss and Legendre's) get it exactly:

# %%
change = s(tl.tensor(x)).item() - s(tl.tensor(b)).item()
print(f"the score changes by {change:.6f}; gradient times input says {slope_by_hand(x) @ x:.6f}")
for m in (2, 4, 8, 16):
    middles = (np.arange(m) + 0.5) / m
    points, share = np.polynomial.legendre.leggauss(m)
    plain = np.mean([slope_by_hand(b + a * (x - b)) @ (x - b) for a in middles])
    placed = sum(w / 2 * slope_by_hand(b + (p + 1) / 2 * (x - b)) @ (x - b) for p, w in zip(points, share, strict=True))
    print(f"{m:>3} points: evenly spaced {plain:.6f}, Gauss and Legendre {placed:.6f}")

# %% [markdown]
# ## On real data
#
# Now the task with a known reason: eight random letters, then the same eight again. From the ninth on, each letter is
# told by the one eight places before it and by nothing else. The honest lines: guessing, and what the letter before
# tells (nothing, since letters are drawn independently; counting shows it).

# %%
LETTERS, HALF = "abcdefghijklmnop", 8
letters = tl.text.CharTokenizer.train([LETTERS])


def texts(count, rng):
    """(count, 16): eight letters, twice."""
    half = rng.integers(0, len(LETTERS), (count, HALF))
    return np.concatenate([half, half], axis=1)


rng = np.random.default_rng(5)
test = texts(500, np.random.default_rng(99))
seen = np.ones((len(LETTERS), len(LETTERS)))
train = texts(20_000, rng)
np.add.at(seen, (train[:, HALF:-1], train[:, HALF + 1 :]), 1)
chance = seen / seen.sum(axis=1, keepdims=True)
bigram = -np.log(chance[test[:, HALF:-1], test[:, HALF + 1 :]]).mean()
print(f"guessing: {np.log(len(LETTERS)):.3f} nats per letter; by the letter before: {bigram:.3f}")

# %% tags=["experiment"]
config = tl.models.GPTConfig(n_layer=2, n_head=2, n_embd=32, n_positions=2 * HALF, vocab_size=len(LETTERS))
model = tl.models.GPT(config, rng=np.random.default_rng(1))
steps = budget(full=400, fast=5)
opt = tl.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.98))
rate = tl.optim.schedules.cosine(lr=3e-3, warmup=50, steps=max(steps, 51), final=1e-5)


def labels(ids):
    """The second half; the first one cannot be known."""
    return np.where(np.arange(2 * HALF) < HALF, -100, ids)


for t in range(steps):
    batch = texts(64, rng)
    loss = model(batch, labels=labels(batch)).loss
    loss.backward()
    tl.optim.clip_grad_norm_(model.parameters(), 1.0)
    opt.lr = rate(t)
    opt.step()
    opt.zero_grad()
model.eval()
with tl.no_grad():
    held_out = model(test, labels=labels(test)).loss.item()
print(f"held out, after {steps} steps: {held_out:.4f} nats per letter")
assert is_fast() or held_out < 0.1, held_out

# %% [markdown]
# Look at one text, cut off after twelve letters: the model is to tell the thirteenth, which is the fifth. `look_at`
# runs the model and keeps the tape. All heads of both layers:

# %% tags=["experiment"]
CUT, TRUE = 12, 12 - HALF  # letters that are shown, and the place of the one that tells the answer
prompts = ["".join(LETTERS[i] for i in row[:CUT]) for row in test]
clear = next(prompt for prompt in prompts if len(set(prompt)) == HALF)  # eight different letters
subject = look_at(model, letters, clear)
maps = attention_maps(subject)  # (layers, heads, T, T)
print(f"{clear!r} -> {subject.answer!r}; the letter that tells it is {clear[TRUE]!r}, at place {TRUE}")
for layer in range(2):
    show(attention_map(maps[layer], subject.tokens, title=f"layer {layer}: the last row writes the answer"))

# %% [markdown]
# Where does the last row of layer 1 look, the row that writes the answer? And what had *that* place looked at before,
# in layer 0?

# %% tags=["experiment"]
last = int(maps[1].mean(axis=0)[-1].argmax())
before = int(maps[0].mean(axis=0)[last].argmax())
print(f"layer 1: the answer's row looks at place {last}, {clear[last]!r}")
print(f"layer 0: the row of place {last} looked at place {before}, {clear[before]!r}")

# %% [markdown]
# Who believes the picture of the last layer believes the letter in the first line. If it is not the right one, the
# second line tells how that could be: the answer's row reads a place that had fetched the right letter for it one
# layer earlier. What lies at a place is no longer the token of that place.
#
# So let us count. For each method, over many texts: how often does its largest number stand at the right place? The
# honest lines are guessing a place, and pointing at the last letter. Rollout gives most to the last letter itself, as
# half of it passes by; to be fair it is counted without that one too.

# %% tags=["experiment"]
count = budget(full=60, fast=2)
names = ("attention, last layer", "rollout", "rollout, itself left out", "gradient times input", "integrated gradients")
hits = dict.fromkeys(names, 0)
gaps = []
for prompt in prompts[:count]:
    one = look_at(model, letters, prompt)
    where = attention_maps(one)
    followed = rollout(where)[-1]
    whole, gap = integrated_gradients(one, steps=24)
    gaps.append(abs(gap) / np.abs(whole).sum())
    slopes = np.abs(gradient_times_input(one))
    found = (where[-1].mean(axis=0)[-1], followed, followed[:-1], slopes, np.abs(whole))
    for name, values in zip(names, found, strict=True):
        hits[name] += int(values.argmax() == TRUE)
print(f"{'guessing a place':<26}{1 / CUT:>7.1%}\n{'the last letter':<26}{0:>7.1%}")
for name, right in hits.items():
    print(f"{name:<26}{right / count:>7.1%}")
print(f"what integrated gradients miss of completeness, at most: {max(gaps):.1e} of the sum")
assert is_fast() or hits["integrated gradients"] > 0.8 * count, hits

# %% [markdown]
# Read the table before you believe a picture. The slope fails too: a model that is sure of its answer stands where the
# score is flat. The sum of slopes on the way does not. Now the layers: what would the model say if each were the last?

# %% tags=["experiment"]
said = logit_lens(subject)  # (layers + 1, T, V)
answer = LETTERS.index(subject.answer)
for row, name in enumerate(["embeddings", "layer 0", "layer 1"]):
    best = LETTERS[said[row, -1].argmax()]
    print(f"{name:<11} says {best!r} ({said[row, -1].max():.3f}); gives {subject.answer!r} {said[row, -1, answer]:.3f}")

# %% [markdown]
# The embedding of a letter says that letter, since the same table reads and writes. And the heads: which are needed?
# Silence each in turn and watch the loss on the second halves of all the test's texts.

# %% tags=["experiment"]
from tinyllm.explain.pictures import heads_picture

changes = heads_ablated(model(test, labels=labels(test)).loss)
show(heads_picture(changes))

# %% [markdown]
# A head that is needed shows as a large number. If all of a layer's are small, that does not mean that the layer is not
# needed: two heads may do the same work, and either is enough. Silencing them one by one cannot see that.
#
# ## Exercises
#
# Write each function; `check` tells you what is right, what is wrong, and the likely mistake. `hint("name")` helps on.


# %% tags=["exercise"]
def attention_rollout(maps):
    """Attention followed through layers: maps (layers, heads, T, T) -> (T, T), each layer (mean over heads + I) / 2."""
    # BEGIN SOLUTION
    T = maps.shape[-1]
    flow = np.eye(T)
    for layer in maps.mean(axis=1):
        flow = (layer + np.eye(T)) / 2 @ flow
    return flow
    # END SOLUTION


check(attention_rollout)


# %% tags=["exercise"]
def path_attributions(slopes, x, base):
    """Slopes (m, T, C) at m evenly spaced points between base and x (T, C): what each token did, (T,)."""
    # BEGIN SOLUTION
    return ((x - base) * slopes.mean(axis=0)).sum(axis=-1)
    # END SOLUTION


check(path_attributions)


# %% tags=["exercise"]
def silence_head(out, head, heads):
    """A copy of the output (T, C) of an attention with `heads` heads side by side, in which head `head` gives 0."""
    # BEGIN SOLUTION
    out = out.copy()
    D = out.shape[1] // heads
    out[:, head * D : (head + 1) * D] = 0
    return out
    # END SOLUTION


check(silence_head)


# %% tags=["exercise"]
def lens(states, weight, bias, W):
    """What each state (layers, C) would say: LayerNorm (eps 1e-5) with weight and bias, softmax of @ W.T; W (V, C)."""
    # BEGIN SOLUTION
    mean = states.mean(axis=-1, keepdims=True)
    variance = states.var(axis=-1, keepdims=True)
    scores = ((states - mean) / np.sqrt(variance + 1e-5) * weight + bias) @ W.T
    e = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)
    # END SOLUTION


check(lens)

# %% [markdown]
# ## Break it
#
# Issue 1076 of TransformerLens, a library for such work, reports a logit lens whose early layers seem to know nothing:
# nearly the same probability for every token. The picture was plausible, and studies were made with such pictures. Here
# is a lens with that fault. The state of a token grows from layer to layer, and its author saved a computation:


# %%
def suspicious(states, weight, bias, W):
    """The logit lens, says its author."""
    centred = states - states.mean(axis=-1, keepdims=True)
    scores = (centred / np.sqrt(states[-1].var() + 1e-5) * weight + bias) @ W.T
    e = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


rng = np.random.default_rng(0)
states = rng.normal(size=(3, 8)) * np.array([[1.0], [5.0], [40.0]])  # three layers of one token
weight, bias, W = np.ones(8), np.zeros(8), rng.normal(size=(5, 8))
print("suspicious\n", np.round(suspicious(states, weight, bias, W), 3))
print("lens\n", np.round(lens(states, weight, bias, W), 3))

# %% [markdown]
# The last rows agree, so comparing with the model's own answer finds nothing. The law that does find it: a norm undoes
# any scale, so *a state ten times as large must say the same*, and what one layer says must not depend on another.

# %%
for name, f in (("lens", lens), ("suspicious", suspicious)):
    larger = states * np.array([[10.0], [1.0], [1.0]])
    moved = np.abs(f(larger, weight, bias, W) - f(states, weight, bias, W)).max(axis=1)
    print(f"{name:<11} the first layer's answer moves by {moved[0]:.3f} when its state is scaled")

# %% [markdown]
# `check` names the mistake:

# %%
print(examine(suspicious, "lens").likely[0])

# %% [markdown]
# ## What the field reports
#
# Whether attention explains is an old quarrel: *Attention is not Explanation* (Jain and Wallace 2019) found other
# weights with the same answers, *Attention is not not Explanation* (Wiegreffe and Pinter 2019) found the test too easy.
# The table above is one small answer. Issue 1413 of captum, PyTorch's library for attributions, tells of integrated
# gradients that do not add up even with many points; here the gap is printed every time. *Are Sixteen Heads Really
# Better than One?* (Michel, Levy and Neubig 2019) silenced heads one by one and could often spare most. Heads that copy
# from an earlier place are the *induction heads* of Olsson and others (2022); theirs find the place by content, ours by
# distance, since the distance is always the same. To try on a model of your own: `tinyllm explain RUN "text"`, which
# writes all of this as one page.
#
# ## Summary
#
# * Attention weights say where a head looks, not what the answer needs; rollout follows them through the layers.
# * A slope is blind where the score is flat. The sum of slopes along a way adds up to the whole change: check the gap.
# * The logit lens is the model's last step, taken early, each layer normed by its own spread.
# * Silence a part and watch the loss: that is an experiment, not a picture.
# * Try a method first where the truth is known.
#
# ## Glossary
#
# | English | Chinese | meaning |
# |---|---|---|
# | attention map | 注意力图 | the weights of a head, drawn |
# | attention rollout | 注意力展开 | weights followed through the layers |
# | attribution | 归因 | a number for each token: what it did for the answer |
# | integrated gradients | 积分梯度 | slopes added up on the way from a baseline |
# | completeness | 完备性 | the attributions sum to the change of the score |
# | logit lens | 对数几率透镜 | a layer's state put through the model's last step |
# | ablation | 消融 | taking a part away to see what it did |
