# %% [markdown]
# # 05 Attention by hand: "The cat sat on the mat"
#
# **You will learn** what a query, a key and a value are, by computing every number of one attention yourself; how a
# mask keeps the future out; how the gradient finds its way back through a softmax; and how to tell, by one experiment,
# that a mask leaks.
#
# **You need** the product of matrices, the chain rule (chapter 01) and softmax (chapter 02).

# %% tags=["imports"]
import numpy as np

import tinyllm as tl
from tinyllm.course import budget, check, examine, formula, is_fast, show

# %% [markdown]
# ## The question
#
# A word means little alone. What should the vector of "sat" become, once it has read its sentence? Something about a
# cat, surely, and perhaps a mat. Attention answers with a weighted mean: every word gets a weight, and the new vector
# is the mean of what the words have to say. Here is the answer that we are going to compute: row by row, where each
# word of the sentence looks.
# %%
from tinyllm.formulas.sat import W_K, W_Q, W_V, WORDS, sat_numbers
from tinyllm.viz import attention_map, draw_tape, loss_curve, step_backward

rows = [sat_numbers(word)["weights"] for word in range(len(WORDS))]
show(attention_map(np.array(rows), WORDS, title="each row: where that word looks"))

# %% [markdown]
# Read the row of "sat": it looks at "cat" most, then at "mat", and at the other words alike. Nobody told it the
# grammar. The vectors did; let us see how.
#
# ## The formula

# %%
formula("F-ATTN")

# %% [markdown]
# One of the documents prints a variant that cannot be meant. It is worth a look, for its faults are the ones that
# people make in code: the wrong thing is compared, and the softmax runs along the wrong axis.

# %%
formula("F-ATTN-004", printed=True)

# %% [markdown]
# ## By hand
#
# Six words, vectors of two numbers: the first says how much of a *thing* a word names, the second how much of a *deed*.
# The three matrices are chosen so that you can multiply in your head: a deed asks for things, a thing asks for deeds.

# %%
n = sat_numbers()
print("W_Q =", W_Q, "  W_K =", W_K, "  W_V =", W_V)
print(f"\nthe query of 'sat' is W_Q x = {n['q']}\n")
print(f"{'word':<6}{'vector x':<13}{'key k':<13}{'value v':<13}{'q.k':<6}")
for s, word in enumerate(WORDS):
    print(f"{word:<6}{n['X'][s]!s:<13}{n['K'][s]!s:<13}{n['V'][s]!s:<13}{n['dots'][s]:<6g}")

# %% [markdown]
# The query of "sat" is (2, 0): it asks for things. Its dot product with the key of "cat" is 4, with that of "mat" 2,
# with the others 0. Now the softmax, in the plainest loops there are. Check a row or two with a pocket calculator.

# %%
scores = [dot / np.sqrt(2) for dot in n["dots"]]  # divided by sqrt(d_k), d_k = 2
exponentials = [np.exp(score) for score in scores]
total = 0.0
for e in exponentials:
    total += e
weights = [e / total for e in exponentials]

new_sat = [0.0, 0.0]
for s in range(6):
    for j in range(2):
        new_sat[j] += weights[s] * n["V"][s][j]

for word, score, e, w in zip(WORDS, scores, exponentials, weights, strict=True):
    print(f"{word:<6} score {score:.4f}   exp {e:8.4f}   weight {w:.4f}")
print(f"sum of the exponentials {total:.4f}, of the weights {sum(weights):.4f}")
print(f"the new vector of 'sat': ({new_sat[0]:.4f}, {new_sat[1]:.4f})")

# %% [markdown]
# Why divide by the root of $d_k$? The dot product of two vectors of $d$ independent numbers of variance 1 has the
# variance $d$. Without the division, larger vectors would give larger scores, one weight near 1 and the rest near 0,
# and a gradient near 0 for all of them.
#
# ## Step through
#
# The same numbers as Tensors. Every operation is written down on the *tape*, one line each:

# %%
X = tl.tensor(n["X"])  # (6, 2)
q = tl.tensor([n["q"]], requires_grad=True)  # (1, 2), the query of "sat"
k = tl.tensor(n["K"], requires_grad=True)  # (6, 2)
v = tl.tensor(n["V"], requires_grad=True)  # (6, 2)

p = tl.softmax(q @ k.T / np.sqrt(2), axis=-1)  # (1, 6)
y = p @ v  # (1, 2)
loss = tl.sum(y * tl.tensor([[1.0, -1.0]]))  # a number, so that there is something to differentiate
tl.print_tape(loss)

# %% [markdown]
# Drawn: leaves at the top, the result at the bottom. Small values are written out in blue.

# %%
show(draw_tape(loss, names={"q": q, "k": k, "v": v}))

# %% [markdown]
# Backward walks the tape from the bottom up. Each step takes the gradient that has arrived at one operation (orange)
# and hands a gradient to each of its inputs. In a live notebook the next cell has a slider.

# %%
step_backward(loss, names={"q": q, "k": k, "v": v})

# %% [markdown]
# The step of the softmax is the only one that is not a product. Look at its numbers: the six gradients of the scores
# sum to zero. Adding the same number to all scores changes no weight, so the gradient in that direction must be zero.

# %%
for step in tl.backward_steps(loss, retain_graph=True):
    if step.node.op.name == "softmax":
        print("gradient of the scores:", np.round(step.in_grads[0].data, 4))
        print(f"their sum: {abs(step.in_grads[0].data.sum()):.0e}")

# %% [markdown]
# ## All at once
#
# All queries together are a matrix, and the formula is two products with a softmax between. The library's operation
# computes just that, in one go and without storing more than it must:

# %%
K, V = np.array(n["K"]), np.array(n["V"])
Q = np.array([sat_numbers(word)["q"] for word in range(6)])
loops = np.array([sat_numbers(word)["output"] for word in range(6)])  # (6, 2)
at_once = tl.scaled_dot_product_attention(Q, K, V).data
print(np.round(at_once, 4))
print(f"largest difference from the loops: {np.abs(at_once - loops).max():.1e}")

# %% [markdown]
# ## The derivative
#
# Write $p$ for one row of weights, $x$ for its scores, $g$ for the gradient that arrives at $p$. Softmax is
# $p_i = e^{x_i} / \sum_k e^{x_k}$. By the quotient rule, with $\delta_{ij}$ being 1 where $i = j$ and 0 elsewhere,
#
# $$\frac{\partial p_i}{\partial x_j} = p_i \delta_{ij} - p_i p_j .$$
#
# The chain rule sums over all weights, since each depends on every score:
#
# $$\frac{\partial L}{\partial x_j} = \sum_i g_i (p_i \delta_{ij} - p_i p_j) = p_j \Big( g_j - \sum_i g_i p_i \Big) .$$
#
# The rest is the rule of the matrix product, used twice: for $y = p v$ it gives $dp = g v^\top$ and $dv = p^\top g$;
# for the scores $s = q k^\top / \sqrt{d}$ it gives $dq = ds\, k / \sqrt{d}$ and $dk = ds^\top q / \sqrt{d}$.
# By hand, by the tape, and by finite differences:

# %%
rng = np.random.default_rng(0)
g = rng.normal(size=(1, 2))  # a random gradient: with ones, mistakes can cancel

P = p.data
dp = g @ V.T
ds = P * (dp - (g @ V.T * P).sum(axis=-1, keepdims=True))
by_hand = ds @ K / np.sqrt(2)

by_tape = tl.vjp(lambda q: tl.scaled_dot_product_attention(q, K, V), q)[1](g)[0].data

step = 1e-5
by_differences = np.zeros((1, 2))
for j in range(2):
    e = np.zeros((1, 2))
    e[0, j] = step
    above, below = (tl.scaled_dot_product_attention(q.data + s * e, K, V).data for s in (1, -1))
    by_differences[0, j] = (g * (above - below)).sum() / (2 * step)

print("by hand        ", by_hand)
print(f"by tape         differs by {np.abs(by_tape - by_hand).max():.0e}")
print(f"by differences  differs by less than 1e-8: {np.abs(by_differences - by_hand).max() < 1e-8}")

# %% [markdown]
# ## On real data
#
# Sorting is a job for attention: to write the next digit, look for the smallest that has not been written. Six digits
# in, the same six sorted out, a million questions in all. The honest lines: guessing a digit; and the best that can be
# done *without looking at the input*, only at the place in the output and the digit just written.

# %%
PLACES = 6


def questions(count, rng):
    """Inputs and sorted outputs, side by side: (count, 12)."""
    digits = rng.integers(0, 10, (count, PLACES))
    return np.concatenate([digits, np.sort(digits, axis=1)], axis=1)


rng = np.random.default_rng(5)
test = questions(2000, np.random.default_rng(99))

seen = np.ones((PLACES, 11, 10))  # how often digit c follows digit b at place a; one added to each
train = questions(100_000, rng)
before = np.concatenate([np.full((len(train), 1), 10), train[:, PLACES:-1]], axis=1)
for place in range(PLACES):
    np.add.at(seen[place], (before[:, place], train[:, PLACES + place]), 1)
chance = seen / seen.sum(axis=-1, keepdims=True)
before = np.concatenate([np.full((len(test), 1), 10), test[:, PLACES:-1]], axis=1)
blind = -np.mean([np.log(chance[i, before[:, i], test[:, PLACES + i]]) for i in range(PLACES)])
print(f"guessing: {np.log(10):.3f} nats per digit; place and digit before: {blind:.3f} nats")

# %% [markdown]
# Now a small GPT: three layers of attention with three heads, the blocks of chapter 06. Only the sorted half is
# predicted; the label -100 says "not this one".

# %% tags=["experiment"]
config = tl.models.GPTConfig(n_layer=3, n_head=3, n_embd=48, n_positions=2 * PLACES, vocab_size=10)
model = tl.models.GPT(config, rng=np.random.default_rng(1))
steps = budget(full=1500, fast=5)
opt = tl.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.95))
rate = tl.optim.schedules.cosine(lr=3e-3, warmup=50, steps=max(steps, 51), final=1e-5)


def labels(ids):
    """The sorted half; the first half is not predicted."""
    return np.where(np.arange(2 * PLACES) < PLACES, -100, ids)


losses = []
for t in range(steps):
    batch = questions(64, rng)
    loss = model(batch, labels=labels(batch)).loss
    loss.backward()
    tl.optim.clip_grad_norm_(model.parameters(), 1.0)
    opt.lr = rate(t)
    opt.step()
    opt.zero_grad()
    losses.append(loss.item())

with tl.no_grad():
    held_out = model(test, labels=labels(test)).loss.item()
answers = tl.generate(model, test[:, :PLACES], max_new_tokens=PLACES)
exact = (np.asarray(answers)[:, PLACES:] == test[:, PLACES:]).all(axis=1).mean()
print(f"held out: {held_out:.3f} nats per digit; {exact:.1%} of {len(test)} questions answered without a fault")
assert is_fast() or exact > 0.99, exact

# %% tags=["experiment"]
lines = [("guessing", np.log(10)), ("place and digit before", blind)]
points = (range(1, steps + 1), losses), ([steps], [held_out])
show(loss_curve(*points, lines, "sorting six digits"))

# %% [markdown]
# Does it sort as we would? Where do the outputs look? A row for each digit that is written, a column for all before.

# %% tags=["experiment"]
question = test[:1]
with tl.no_grad():
    states = model(question, output_hidden_states=True).hidden_states
    attn, norm = model.transformer.h[1].attn, model.transformer.h[1].ln_1
    parts = tl.split(attn.c_attn(norm(states[1])), 3, axis=-1)
    q, k, _ = (part.numpy()[0].reshape(2 * PLACES, 3, 16).transpose(1, 0, 2) for part in parts)  # (H, T, D)
shown = np.where(np.tri(2 * PLACES, dtype=bool), q @ k.transpose(0, 2, 1) / 4, -np.inf)
heads = tl.softmax(shown, axis=-1).data[:, PLACES - 1 : -1]  # the rows that write a digit
digits = [str(d) for d in question[0]]
show(attention_map(heads, digits[PLACES:], digits, title="second layer: rows write, columns are read"))

# %% [markdown]
# Each row looks, in one head at least, at the digit that it writes, where that stands in the question. Nobody said so:
# the examples did.
#
# ## Exercises
#
# Write each function; `check` tells you what is right, what is wrong, and the likely mistake. `hint("name")` helps on.


# %% tags=["exercise"]
def attention_weights(q, k):
    """softmax(q k^T / sqrt(d)) for q (T, d), k (S, d): weights (T, S)."""
    # BEGIN SOLUTION
    scores = q @ k.T / np.sqrt(q.shape[-1])
    e = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)
    # END SOLUTION


check(attention_weights)


# %% tags=["exercise"]
def masked_attention(q, k, v):
    """Causal attention of q, k, v (T, d): position t sees positions 0..t. Result (T, d)."""
    # BEGIN SOLUTION
    scores = q @ k.T / np.sqrt(q.shape[-1])
    scores = np.where(np.tri(len(q), dtype=bool), scores, -np.inf)
    e = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True) @ v
    # END SOLUTION


check(masked_attention)


# %% tags=["exercise"]
def softmax_vjp(g, p):
    """The gradient of the scores, given softmax's result p (T, S) and the gradient g (T, S) that arrives at it."""
    # BEGIN SOLUTION
    return p * (g - (g * p).sum(axis=-1, keepdims=True))
    # END SOLUTION


check(softmax_vjp)


# %% tags=["exercise"]
def masked_attention_vjp(g, q, k, v):
    """The gradients (dq, dk, dv) of masked_attention(q, k, v), given the gradient g (T, d) of its result."""
    # BEGIN SOLUTION
    root = np.sqrt(q.shape[-1])
    scores = np.where(np.tri(len(q), dtype=bool), q @ k.T / root, -np.inf)
    e = np.exp(scores - scores.max(axis=-1, keepdims=True))
    p = e / e.sum(axis=-1, keepdims=True)
    dp = g @ v.T
    ds = p * (dp - (dp * p).sum(axis=-1, keepdims=True)) / root
    return ds @ k, ds.T @ q, p.T @ g
    # END SOLUTION


check(masked_attention_vjp)

# %% [markdown]
# ## Break it
#
# In the issue tracker of attention-is-all-you-need-pytorch, number 19 reports a mask that lets the decoder see what it
# is to predict. Such a model trains wonderfully: its loss falls below every line, and its samples are rubbish. Here is
# an attention with a fault of that kind. Three rows of numbers look fine:


# %%
def suspicious(q, k, v):
    """Causal attention, says its author."""
    scores = q @ k.T / np.sqrt(q.shape[-1])
    scores = np.where(np.tri(len(q), k=1, dtype=bool), scores, -np.inf)
    e = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True) @ v


rng = np.random.default_rng(3)
q, k, v = rng.normal(size=(3, 6, 2))
print(np.round(suspicious(q, k, v), 3)[:3])

# %% [markdown]
# The law that finds it needs no right answer to compare with: *change the token at place t, and no output before t may
# change.* Which rows change when only the last word does?

# %%
for name, attention in (("masked_attention", masked_attention), ("suspicious", suspicious)):
    k2, v2 = k.copy(), v.copy()
    k2[-1] += 1
    v2[-1] += 1
    changed = np.abs(attention(q, k2, v2) - attention(q, k, v)).max(axis=1) > 0
    print(f"{name:<17} rows that change: {np.flatnonzero(changed).tolist()}")

# %% [markdown]
# Row 4 changed with word 5: it looked ahead by one. `check` names the mistake:

# %%
print(examine(suspicious, "masked_attention").likely[0])

# %% [markdown]
# ## What the field reports
#
# minGPT's demonstration sorts six digits without a fault after 2000 steps of a model of this size; the figure above is
# ours. Published attention at full size is this very formula, many times over: 12 layers of 12 heads in GPT-2's
# smallest model. To read next: Vaswani and others, *Attention Is All You Need* (2017), section 3.2, five pages that are
# worth their fame; then chapter 06, which puts attention into a block, and chapter 08, which makes it fast.
#
# ## Summary
#
# * A query asks, keys answer, values are mixed: softmax(q k^T / sqrt(d)) v.
# * The softmax runs over the keys; the root keeps the scores from growing with the vectors' size.
# * A mask is -inf *before* the softmax. Zeros before it, or a mask after it, are other functions.
# * The gradient of softmax is p * (g - sum(g * p)): each score moves every weight.
# * Change the future; if the past changes, the mask leaks.
#
# ## Glossary
#
# | English | Chinese | meaning |
# |---|---|---|
# | attention | 注意力 | a weighted mean of values, the weights computed from the content |
# | query, key, value | 查询、键、值 | what a position asks; what it answers to; what it says |
# | softmax | 归一化指数函数 | positive numbers that sum to 1, by exp and division |
# | causal mask | 因果掩码 | hides the positions that come later |
# | head | 注意力头 | one of several attentions side by side |
# | cotangent | 余切（上游梯度） | the gradient that arrives from above |
