# %% [markdown]
# # 02 Probability, cross-entropy, perplexity: counting as the first language model
#
# **You will learn** what a language model is and how one number says how good it is; why that number is a cross-entropy
# and what its gradient looks like; how to compute it without overflow; and how good a model is that only counts.
#
# **You need** logarithms, and chapter 01 for the tape.

# %% tags=["imports"]
import numpy as np

import tinyllm as tl
from tinyllm.course import budget, check, examine, formula, show
from tinyllm.formulas import language_model, losses
from tinyllm.models import NGram

# %% [markdown]
# ## The question
#
# Cover the end of a sentence: "The function return". Which character comes next? You would bet on *s* and give *e* a
# little. A language model makes such bets at every place of a text, and is judged by how much probability it had
# given to what was really written. Here is where this chapter ends: models that do nothing but count, on the prose of
# Python's standard library, each looking back a little further than the one before.
# %% tags=["experiment"]
from tinyllm.train.prepare import prepare
from tinyllm.train.settings import Settings
from tinyllm.viz import draw_tape, step_backward

prose = prepare(Settings.make())  # divided by package: no page is in both parts
train, held_out = prose.train.tokens, prose.held_out.tokens
train, held_out = train[: budget(full=None, fast=200_000)], held_out[: budget(full=None, fast=20_000)]
V = prose.tokenizer.vocab_size
print(f"{len(train):,} characters to count, {len(held_out):,} to be judged by, {V} different ones")

# %% tags=["experiment"]
from matplotlib.figure import Figure

orders = range(6)
model = NGram(5, V).fit(train)
rungs = model.ladder(held_out)  # nats per character for contexts of -1, 0, 1, ... 4 characters
figure = Figure(figsize=(7, 3.6), layout="constrained")
axes = figure.add_subplot()
axes.bar(orders, rungs, color="#0072b2")
axes.set_xticks(orders, ["uniform", "unigram", "bigram", "trigram", "4-gram", "5-gram"])
axes.set_ylabel("nats per character, held out")
axes.spines[["top", "right"]].set_visible(False)
for order, loss in zip(orders, rungs, strict=True):
    axes.annotate(f"{loss:.3f}", (order, loss), ha="center", va="bottom")
show(figure)

# %% [markdown]
# ## The formula
#
# The objective of language modelling, and the loss that everything in this course is trained with:

# %%
formula("F-LM")
print()
formula("F-CE")

# %% [markdown]
# Three things that the documents say of cross-entropy cannot be taken literally: its errata above. The first is worth
# a number. If $N$ counted samples and $y_i$ were the label, a sample of class 0 would cost nothing, however wrong the
# model:

# %%
labels, predicted = [0, 1, 2], [0.01, 0.5, 0.9]  # "label times log of the predicted probability"
print(
    "as printed, summed over samples:",
    [round(-y * float(np.log(p)), 3) for y, p in zip(labels, predicted, strict=True)],
)
print("as meant, one-hot over classes: ", [round(-float(np.log(p)), 3) for p in predicted])

# %% [markdown]
# There is a second loss in the documents, for numbers instead of classes. Language models do not use it; it is here
# so that you have met it.

# %%
formula("F-MSE")
print(f"\nmean squared error of [1, 2, 3] against [1, 2, 5]: {losses.mse([1, 2, 3], [1, 2, 5]):.4f}")

# %% [markdown]
# ## By hand
#
# Six tokens and two classes: a text of *a* and *b*, a model that knows only how often each occurs. Everything can be
# checked with a pencil.

# %%
text = "aababa"
p = {"a": 4 / 6, "b": 2 / 6}
total = 0.0
for token in text:
    surprise = -np.log(p[token])
    total += surprise
    print(f"{token}: probability {p[token]:.4f}, surprise {surprise:.4f} nats")
mean = total / len(text)
print(f"cross-entropy {mean:.4f} nats = {mean / np.log(2):.4f} bits per token, perplexity {np.exp(mean):.4f}")

# %% [markdown]
# *Perplexity* is the same number read as a count: a fair die with that many sides would surprise as much. A model that
# knows nothing about two symbols has perplexity 2. The loops of the registry say the same:

# %%
print(f"{language_model.perplexity([-np.log(p[token]) for token in text]):.4f}")

# %% [markdown]
# ## Step through
#
# A model does not write probabilities down; it computes *scores* (logits), and softmax makes probabilities of them.
# Two samples, three classes. The tape of the loss, in small operations:

# %%
logits = tl.tensor([[2.0, 0.0, -1.0], [0.0, 1.0, 0.5]], requires_grad=True)
truth = np.array([0, 2])
shifted = logits - tl.max(logits, axis=-1, keepdims=True).detach()
log_p = shifted - tl.log(tl.sum(tl.exp(shifted), axis=-1, keepdims=True))
loss = -tl.mean(log_p[np.arange(2), truth])
tl.print_tape(loss)
show(draw_tape(loss, names={"logits": logits}))

# %%
step_backward(loss, names={"logits": logits})

# %%
print("gradient of the logits:")
print(np.round(logits.grad.data, 4))
print("probabilities minus one-hot truth, divided by 2 samples:")
print(np.round((tl.softmax(logits).data - np.eye(3)[truth]) / 2, 4))

# %% [markdown]
# All those steps end in something this simple: *what was predicted minus what was true*. Keep it in mind when you see
# a training loop; this is what drives it.
#
# ## All at once
#
# The library's operation does the same in one go, for any number of samples. It equals the literal loops:

# %%
rng = np.random.default_rng(0)
many, targets = rng.normal(size=(50, 7)) * 3, rng.integers(0, 7, 50)
at_once = tl.cross_entropy(many, targets).item()
loops = losses.cross_entropy_of_logits(many, targets)
print(f"loops {loops:.12f}, at once {at_once:.12f}")

# %% [markdown]
# ## The derivative
#
# For one sample with true class $t$ the loss is $L = -\log p_t = \log \sum_k e^{x_k} - x_t$. The first part is
# differentiated by the chain rule,
#
# $$\frac{\partial}{\partial x_j} \log \sum_k e^{x_k} = \frac{e^{x_j}}{\sum_k e^{x_k}} = p_j ,$$
#
# the second gives $-1$ for $j = t$ and 0 elsewhere. With $y$ the one-hot truth,
#
# $$\frac{\partial L}{\partial x_j} = p_j - y_j ,$$
#
# divided by $N$ for the mean over $N$ samples. By hand, by the tape, by finite differences:

# %%
x = tl.tensor(many, requires_grad=True)
tl.cross_entropy(x, targets).backward()
by_hand = (tl.softmax(many).data - np.eye(7)[targets]) / 50
print(f"by tape         differs by {np.abs(x.grad.data - by_hand).max():.0e}")
tl.testing.gradcheck(lambda x: tl.cross_entropy(x, targets), many)
step = 1e-5
place = (3, 2)
nudge = np.zeros_like(many)
nudge[place] = step
difference = (tl.cross_entropy(many + nudge, targets).item() - tl.cross_entropy(many - nudge, targets).item()) / (
    2 * step
)
print(f"by differences  differs by less than 1e-9: {abs(difference - by_hand[place]) < 1e-9}")

# %% [markdown]
# ## On real data
#
# The picture at the top is this chapter's experiment. An n-gram model counts how often each character followed the
# $n - 1$ characters before it. The longer the context, the sharper the bet, and the more contexts were never seen. So
# the counts of long contexts are mixed with those of shorter ones (Witten and Bell's rule, 1991). What happens
# without?

# %% tags=["experiment"]
for order in (1, 2, 3, 4, 5):
    raw = NGram(order, V, smoothing="add-k").fit(train).loss(held_out)
    print(f"order {order}: one added to each count {raw:.3f}, mixed with shorter contexts {rungs[order]:.3f}")

# %% [markdown]
# With one added to every count, longer contexts make things *worse* from some order on: most of the probability goes
# to characters that never follow. Mixed, each order helps. The 5-gram's figure is the line that a neural model has to
# beat, and it costs seconds. What does such a model write?

# %% tags=["experiment"]
for order in (1, 2, 3, 5):
    ids = NGram(order, V).fit(train).generate(70, np.random.default_rng(1), prompt=prose.tokenizer.encode("\n"))
    print(f"{order}-gram: {prose.tokenizer.decode(ids)!r}")

# %% [markdown]
# ## Exercises


# %% tags=["exercise"]
def log_probabilities(x):
    """log softmax of x (N, V) along the last axis."""
    # BEGIN SOLUTION
    shifted = x - x.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    # END SOLUTION


check(log_probabilities)


# %% tags=["exercise"]
def stable_cross_entropy(logits, targets):
    """The mean of -log softmax(logits)[target]: logits (N, V), targets (N,), one number."""
    # BEGIN SOLUTION
    shifted = logits - logits.max(axis=-1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return -log_p[np.arange(len(targets)), targets].mean()
    # END SOLUTION


check(stable_cross_entropy)


# %% tags=["exercise"]
def cross_entropy_slope(logits, targets):
    """The gradient of the mean cross-entropy with respect to the logits (N, V)."""
    # BEGIN SOLUTION
    e = np.exp(logits - logits.max(axis=-1, keepdims=True))
    p = e / e.sum(axis=-1, keepdims=True)
    p[np.arange(len(targets)), targets] -= 1
    return p / len(targets)
    # END SOLUTION


check(cross_entropy_slope)


# %% tags=["exercise"]
def bigram_probabilities(ids, vocab_size):
    """P(next | this), one added to every count: (vocab_size, vocab_size)."""
    # BEGIN SOLUTION
    counts = np.ones((vocab_size, vocab_size))
    np.add.at(counts, (ids[:-1], ids[1:]), 1)
    return counts / counts.sum(axis=1, keepdims=True)
    # END SOLUTION


check(bigram_probabilities)

# %% [markdown]
# ## Break it
#
# A softmax straight from the formula, `np.exp(x) / np.exp(x).sum()`, is in many a code base; in numenta's
# nupic-legacy it stood until pull request 3818, "Fix softmax overflow". It passes every test on ordinary numbers.
# Which check goes red?


# %%
def suspicious(logits, targets):
    """Cross-entropy, says its author."""
    with np.errstate(all="ignore"):
        p = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
        return -np.log(p[np.arange(len(targets)), targets]).mean()


print(suspicious(np.array([[2.0, 0.0]]), np.array([0])), suspicious(np.array([[1000.0, 0.0]]), np.array([0])))
report = examine(suspicious, "stable_cross_entropy")
print([check.law for check in report.checks if check.status == "failed"], report.likely)

# %% [markdown]
# Training does meet such scores: a model with a learning rate that is a little too high reaches them in a few steps,
# and from the first NaN on every parameter is NaN. Taking the maximum off changes nothing in the quotient, and keeps
# every exponential at 1 or below.
#
# ## What the field reports
#
# On tinyshakespeare the same ladder reads 4.1744 (uniform), 3.3473, 2.4819, 2.0458, 1.7840, and 1.6688 for a 5-gram;
# nanoGPT's small CPU recipe, a Transformer, reports 1.88. A count model beats it: the honest line belongs on the
# picture. To read next: Jurafsky and Martin, *Speech and Language Processing*, chapter 3; Chen and Goodman (1998) on
# how to mix counts.
#
# ## Summary
#
# * A language model gives a probability to every next token; its loss is the mean surprise, in nats.
# * Perplexity is exp(loss); bits are nats divided by log 2.
# * The gradient of the loss with respect to the scores is prediction minus truth.
# * Take the maximum off before the exponential. Always.
# * Counting with mixed contexts is a real model: beat it, or say that you did not.
#
# ## Glossary
#
# | English | Chinese | meaning |
# |---|---|---|
# | cross-entropy | 交叉熵 | the mean surprise of a model at the truth |
# | perplexity | 困惑度 | exp of the cross-entropy |
# | logits | 未归一化分数 | scores before the softmax |
# | n-gram | n 元语法 | n tokens in a row, and the model that counts them |
# | smoothing | 平滑 | giving probability to what was never seen |
# | held-out data | 留出数据 | text that the model was not fitted to |
