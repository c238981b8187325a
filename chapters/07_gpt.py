# %% [markdown]
# # 07 GPT: training and sampling
#
# **You will learn** how the blocks of chapter 06 become a model that writes: what each position is to predict, what a
# trainer does in every step, when to stop, and how to draw a text from the probabilities. You will train a GPT in the
# two minutes that a chapter has, and hold it against every count model of chapter 02, whoever wins.
#
# **You need** cross-entropy and the count models (chapter 02), Adam (chapter 03), attention and the block (05, 06).

# %% tags=["imports"]
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from matplotlib.figure import Figure

import tinyllm as tl
from tinyllm.course import budget, check, examine, formula, is_fast, show
from tinyllm.data import Batches
from tinyllm.formulas import procedures
from tinyllm.models import GPT, GPTConfig, NGram
from tinyllm.train import Plan, Trainer, mean_loss
from tinyllm.train.prepare import prepare
from tinyllm.train.report import read_log
from tinyllm.train.settings import Settings
from tinyllm.train.task import NextToken
from tinyllm.viz import loss_curve, step_backward

# %% [markdown]
# ## The question
#
# A language model gives a probability to everything that may come next. Two questions are left. How does a GPT learn
# these probabilities? And how does one write with them: always the likeliest, or a draw, and from which? The picture is
# of the second answer, with chapter 02's 5-gram as the model: what may follow "Return the ", as the model has it, made
# sharper, made flatter, and cut off. The rest of the chapter puts a GPT in its place.

# %%
prose = prepare(Settings.make())  # the prose of Python's standard library, divided by package
train, held_out = prose.train.tokens, prose.held_out.tokens
train, held_out = train[: budget(full=len(train), fast=100_000)], held_out[: budget(full=len(held_out), fast=5_000)]
V, encode, decode = prose.tokenizer.vocab_size, prose.tokenizer.encode, prose.tokenizer.decode
counts = NGram(5, V).fit(train)

# %% tags=["experiment"]
log_p = np.log(counts.probs(encode("Return the ")))  # (V,)
shown = np.argsort(-log_p, kind="stable")[:12]
choices = {
    "temperature 1: as it is": log_p,
    "temperature 0.5: sharper": log_p / 0.5,
    "temperature 2: flatter": log_p / 2,
    "top-p 0.6: cut off": tl.generation.top_p(log_p, 0.6),
}
figure = Figure(figsize=(8, 4.4), layout="constrained")
figure.supylabel("probability")
for axes, (name, scores) in zip(figure.subplots(2, 2, sharey=True).flat, choices.items(), strict=True):
    axes.bar(range(len(shown)), tl.softmax(scores).data[shown], color="#0072b2")
    axes.set_xticks(range(len(shown)), [decode([token]) for token in shown])
    axes.set_title(name, fontsize=11, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
show(figure)

# %% [markdown]
# ## The formula
#
# What is to be learned is the objective of chapter 02. How, and for how long, two procedures of the documents say.

# %%
formula("P-TRAIN")
print()
formula("P-LOOP")

# %% [markdown]
# The second is worth a test, since a flow chart is a graph. Is there a way out?

# %%
for name, chart in (("as printed", procedures.printed_chart()), ("as meant", procedures.meant_chart())):
    leads = " or ".join(chart["evaluate"])
    print(f"{name:<11} from 'evaluate' to {leads:<14} can it end? {procedures.can_end(chart, 'preprocess')}")

# %% [markdown]
# So a trainer needs an end. Ours has two: a number of steps, and *patience*, so many evaluations on held-out text
# without a better one. `tinyllm.samples.improvement_loop` runs the chart as meant, if you want to watch it decide.
#
# ## By hand
#
# Six tokens, and under each what it is to predict: the token after it. The last one has nothing to predict; the label
# -100 says so, and the loss leaves it out. This shift by one is the whole idea, and this chapter's bug.

# %%
words = ["the", "cat", "sat", "on", "mat"]
ids = [0, 1, 2, 3, 0, 4]  # the cat sat on the mat
targets = []
for t in range(6):
    targets.append(ids[t + 1] if t + 1 < 6 else -100)
print("sees      ", [words[i] for i in ids])
print("predicts  ", [words[i] if i != -100 else "-" for i in targets])
print("as numbers", targets)

# %% [markdown]
# Now the smallest GPT there is: no block at all. A table gives every word two numbers, on the way in; on the way out
# the *same* table gives every word a score, its dot product with what arrives. GPT-2 shares its table so ("tied").

# %%
E = [[1, 0], [2, 0], [0, 1], [0, 2], [1, 1]]  # the, cat, sat, on, mat
total = 0.0
for t in range(5):
    x = E[ids[t]]
    scores = [x[0] * row[0] + x[1] * row[1] for row in E]
    p = np.exp(scores[targets[t]]) / sum(np.exp(score) for score in scores)
    total -= np.log(p)
    print(f"{words[ids[t]]:<4} scores {scores!s:<16} p({words[targets[t]]}) = {p:.4f}, surprise {-np.log(p):.4f}")
print(f"loss {total / 5:.4f} nats; knowing nothing would give log 5 = {np.log(5):.4f}")

# %% [markdown]
# Worse than knowing nothing: after "cat" and after "on" the largest score is the word's own: it would be said again. To
# mend that is the work of training. First, writing with what there is. The scores after "the" are 1, 2, 0, 0, 1.
# Dividing them by a *temperature* before the softmax makes the draw bolder or more careful; *top-p* keeps the likeliest
# words until their probabilities reach p, and draws among these.

# %%
scores = [1, 2, 0, 0, 1]
for temperature in (0.5, 1.0, 2.0):
    e = [np.exp(score / temperature) for score in scores]
    p = [value / sum(e) for value in e]
    print(f"temperature {temperature}:", "  ".join(f"{word} {q:.3f}" for word, q in zip(words, p, strict=True)))

p = [np.exp(score) / sum(np.exp(scores)) for score in scores]
so_far, kept = 0.0, []
for i in sorted(range(5), key=lambda i: -p[i]):  # of equal ones the lower number first
    if so_far < 0.8:
        kept.append(words[i])
        so_far += p[i]
        print(f"keep {words[i]}, together {so_far:.3f}")
print("top-p 0.8 draws among", kept)

# %% [markdown]
# ## Step through
#
# A real GPT, with one block, two heads and eight channels, on the same six tokens. Its tape, from the ids to the loss:

# %%
config = GPTConfig(n_layer=1, n_head=2, n_embd=8, n_inner=16, n_positions=6, vocab_size=5, initializer_range=0.5)
small = GPT(config, rng=np.random.default_rng(0), dtype=np.float64)
sentence = np.array([ids])  # (B, T) = (1, 6)
loss = small(sentence, labels=sentence).loss
tl.print_tape(loss)

# %% [markdown]
# Read it with chapter 06 beside you. Rows 0 to 2: the word's vector plus the place's. Rows 3 to 9: norm, attention, and
# the sum with what came in. Rows 10 to 16: norm, feed-forward, and the sum again. Then a last norm, the scores of five
# words at each of six places (row 18), and the mean surprise: six numbers summed, one of them 0, divided by 5. In the
# picture `wte` is the table of words, `wpe` that of places; c0 are the ids, c1 the places, c2 the targets.
# Now back along it. The picture stops at the step that comes through the head, row 18: `wte` gets its first gradient,
# in orange, and the block is still without any.

# %%
names = {n.removeprefix("h.0.").removesuffix(".weight"): p for n, p in small.transformer.named_parameters()}
walk = step_backward(loss, names=names)
head = next(i for i, step in enumerate(walk.steps) if step.node.seq == 18)
show(walk.figure(head))

# %% [markdown]
# And step by step to the end. The same table comes up again in the last step, as the place where words were looked up.

# %%
table, parts = small.transformer.wte.weight, []
for i, step in enumerate(walk.steps, start=1):
    sizes = [f"{np.abs(g.data).max():.4f}" for g in step.in_grads if g is not None]
    mine = [g.data for x, g in zip(step.node.inputs, step.in_grads, strict=True) if x is table]
    parts += mine
    print(f"{i:>2} {step.node.op.name:<15} largest gradients handed on: {', '.join(sizes)}{' <- wte' if mine else ''}")
print(f"wte.grad is the sum of the two: differs by {np.abs(table.grad.data - sum(parts)).max():.0e}")
show(walk.figure(-1))

# %% [markdown]
# ## All at once
#
# Given `labels`, the model shifts by itself: pass the ids, *not* shifted. Here is its loss against ours, shifted by
# hand, from its scores. The second line is about writing. To add a word, only that word's query is new; keys and values
# of the words before it are kept in a *cache*. That must change the time and nothing else.

# %%
scores = small(sentence).logits.data[0]  # (T, V)
by_hand = [np.log(np.exp(scores[t]).sum()) - scores[t][targets[t]] for t in range(5)]
print(f"loss: differs from the loops by {abs(loss.item() - np.mean(by_hand)):.0e}")
written = [tl.generate(small, [0], max_new_tokens=5, use_cache=cache).tolist() for cache in (True, False)]
print(f"five more words with a cache {written[0]}, without {written[1]}")

# %% [markdown]
# ## The derivative
#
# The table $E$ of a tied model is used twice. In the model without blocks, with $x_t$ the token at place $t$, the
# scores are $z_{tw} = e_{x_t} \cdot e_w$. Let $d_{tw} = \partial L / \partial z_{tw}$, which chapter 02 has found:
# prediction minus truth, divided by the number of places. Pretend there were two tables, $A$ for the way in and $B$ for
# the way out, $z_{tw} = a_{x_t} \cdot b_w$. Then, one sum each,
#
# $$\frac{\partial L}{\partial b_w} = \sum_t d_{tw}\, a_{x_t}, \qquad
# \frac{\partial L}{\partial a_v} = \sum_{t:\, x_t = v} \sum_w d_{tw}\, b_w .$$
#
# Now let both be one table, $A = B = E$. Moving $e_v$ moves $a_v$ and $b_v$ together, so by the chain rule the two are
# added:
#
# $$\frac{\partial L}{\partial e_v} = \sum_t d_{tv}\, e_{x_t} + \sum_{t:\, x_t = v} \sum_w d_{tw}\, e_w .$$
#
# The first sum reaches every row of the table, the second only words that occur.

# %%
x, y, E = np.array(ids[:-1]), np.array(ids[1:]), np.array(E, dtype=float)
loss_of = lambda E: tl.cross_entropy(tl.embedding(x, E) @ E.T, y)  # noqa: E731
d = (tl.softmax(E[x] @ E.T).data - np.eye(5)[y]) / 5  # (T, V)
way_out, way_in = d.T @ E[x], np.zeros_like(E)
np.add.at(way_in, x, d @ E)  # "the" occurs twice: its two rows are added
by_hand = way_out + way_in

E_tape = tl.tensor(E, requires_grad=True)
loss_of(E_tape).backward()
by_differences = np.zeros_like(E)
for place in np.ndindex(E.shape):
    nudge = np.zeros_like(E)
    nudge[place] = 1e-5
    by_differences[place] = (loss_of(tl.tensor(E + nudge)) - loss_of(tl.tensor(E - nudge))).item() / 2e-5
print("rows: the, cat, sat, on, mat; way out, way in, sum\n", np.round(np.hstack([way_out, way_in, by_hand]), 4))
print(f"by tape         differs by {np.abs(E_tape.grad.data - by_hand).max():.0e}")
print(f"by differences  differs by less than 1e-9: {np.abs(by_differences - by_hand).max() < 1e-9}")
print(f"one part alone  differs by {min(np.abs(by_differences - part).max() for part in (way_out, way_in)):.2f}")

# %% [markdown]
# ## On real data
#
# First the lines to beat: all count models of chapter 02, from knowing nothing to a Witten-Bell 5-gram.

# %% tags=["experiment"]
names = ("uniform", "unigram", "bigram", "trigram", "4-gram", "5-gram")
lines = list(zip(names, counts.ladder(held_out), strict=True))
for name, line in lines:
    print(f"{name:<8} {line:.3f} nats per character")

# %% [markdown]
# Then the GPT: four blocks, four heads, 128 channels, and 64 characters of context. The library's `Trainer` does what
# you did by hand in chapter 03, in every step: a batch of random windows, the loss, its gradient, a limit to the
# gradient's length, an AdamW step at the rate of the schedule (warm-up, then a cosine). From time to time it reads
# some of the held-out text. The whole chapter is to take two minutes on two idle cores; hence the number of steps.

# %% tags=["experiment"]
T, steps = 64, budget(full=1200, fast=3)
rng = np.random.default_rng(0)
config = GPTConfig(n_layer=4, n_head=4, n_embd=128, n_positions=T, vocab_size=V, initializer_range=0.06)
model = GPT(config, rng=rng)
task = NextToken(model)  # a window has T + 1 tokens: the first T are read, the last T are to be predicted
with TemporaryDirectory() as folder:
    trainer = Trainer(
        task,
        Batches(train, batch_size=16, block_size=T + 1, seed=0),
        tl.optim.AdamW(model.parameters(), betas=(0.9, 0.99)),
        Plan(steps, tl.optim.schedules.cosine(lr=3e-3, warmup=steps // 15, steps=steps, final=3e-5), clip=1.0,
             eval_every=budget(full=150, fast=3)),
        folder=Path(folder),
        held_out=lambda: task.windows(held_out, batch_size=16, limit=budget(full=320, fast=16)),
    )  # fmt: skip
    cpu = time.process_time()
    trainer.run()
    cpu = time.process_time() - cpu
    log = read_log(Path(folder))
model.eval()
final = mean_loss(task, task.windows(held_out, batch_size=16))  # the whole held-out text, once
print(f"{model.num_parameters():,} parameters, {steps:,} steps, {trainer.at.tokens / len(train):.2f} times the text")
print(f"held out: {final:.3f} nats per character, perplexity {np.exp(final):.2f}")

# %% tags=["timing"]
print(f"training took {trainer.at.seconds:.0f} s here; {cpu:.0f} s of computing, on two cores {cpu / 2:.0f} s")

# %% tags=["experiment"]
for name, line in lines:
    print(f"{name:<8} {line:.3f} {'beaten' if final < line else 'NOT beaten'} by the GPT's {final:.3f}")
assert is_fast() or final < dict(lines)["4-gram"], final
points = [
    tuple(zip(*((r["step"], r[key]) for r in log if key in r), strict=True)) for key in ("loss", "held_out")
]  # (steps, losses) of training and of the held-out text
show(loss_curve(*points, lines, "GPT on the prose of the standard library"))

# %% [markdown]
# That is the verdict on two minutes: all lines but the last. Four characters of context, counted well, still win. Keep
# in mind what each side knows: the 5-gram has read the whole training text once, in seconds; the GPT sees up to 64
# characters, and has read as much of the text as the first cell says. One more honesty: held-out text was read while
# training went on, to draw the curve, but nothing was chosen by it.
#
# ### What it writes
#
# The same model, the same beginning, four ways to draw. Two numbers beside each: how many of the words written occur in
# the training text, and how many are different from one another.

# %% tags=["experiment", "timing"]
import re
import textwrap

known = set(re.findall("[A-Za-z]+", decode(train)))
prompt = np.array([encode("\nReturn the ")] * 8)  # eight texts at a time
ways = {
    "temperature 0.2": {"temperature": 0.2},
    "temperature 0.8": {"temperature": 0.8},
    "temperature 1.2": {"temperature": 1.2},
    "temperature 1.2 and top-p 0.8": {"temperature": 1.2, "top_p": 0.8},
}
length = budget(full=240, fast=6)
for name, way in ways.items():
    texts = [decode(row) for row in tl.generate(model, prompt, length, rng=np.random.default_rng(7), **way)]
    said = [word for text in texts for word in re.findall("[A-Za-z]+", text)[2:-1]]  # without prompt and last piece
    shares = (np.mean([word in known for word in said]), len(set(said)) / len(said)) if said else (0, 0)
    print(f"--- {name}: {shares[0]:.0%} of the words are known, {shares[1]:.0%} are different")
    print(textwrap.fill(" ".join(texts[0].split()), 110), "\n")

# %% [markdown]
# A low temperature repeats the safest phrases; a high one takes what the model itself thinks unlikely, and one bad
# character leads to another, for the model goes on from what it has written. Top-p cuts the long tail off: at the same
# temperature, far more of the words are words again. None of these change the model or its loss.
#
# ## Exercises


# %% tags=["exercise"]
def shifted_targets(ids, mask):
    """What each position of ids (B, T) is to predict, -100 for nothing; mask (B, T) is 0 for padding at the end."""
    # BEGIN SOLUTION
    targets = np.full_like(ids, -100)
    targets[:, :-1] = np.where(mask[:, 1:] == 1, ids[:, 1:], -100)
    return targets
    # END SOLUTION


check(shifted_targets)


# %% tags=["exercise"]
def tied_table_vjp(g, ids, table):
    """The gradient (V, C) of the table in scores = table[ids] @ table.T, given the gradient g (T, V) of the scores."""
    # BEGIN SOLUTION
    grad = g.T @ table[ids]
    np.add.at(grad, ids, g @ table)
    return grad
    # END SOLUTION


check(tied_table_vjp)


# %% tags=["exercise"]
def temperature_softmax(logits, temperature):
    """softmax(logits / temperature) along the last axis of logits (N, V)."""
    # BEGIN SOLUTION
    z = logits / temperature
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)
    # END SOLUTION


check(temperature_softmax)


# %% tags=["exercise"]
def nucleus_logits(logits, p):
    """Top-p: the likeliest tokens of each row of logits (N, V) until their probability reaches p; the others -inf."""
    # BEGIN SOLUTION
    order = np.argsort(-logits, axis=-1, kind="stable")
    ranked = np.take_along_axis(logits, order, axis=-1)
    e = np.exp(ranked - ranked[:, :1])
    q = e / e.sum(axis=-1, keepdims=True)
    keep = np.cumsum(q, axis=-1) - q < p  # the sum of those before: the first is always kept
    result = np.empty_like(logits)
    np.put_along_axis(result, order, np.where(keep, ranked, -np.inf), axis=-1)
    return result
    # END SOLUTION


check(nucleus_logits)

# %% [markdown]
# ## Break it
#
# The first GPT and GPT-2 of huggingface/transformers compared the scores at each place with the token *at that place*,
# until pull request 404, "Fix Language Modeling Loss": training, it says, destroyed the language model within a few
# steps. A year later the same fault was found in TransformerXL (issue 3711 there). Nothing crashes, and the loss falls.


# %%
def suspicious_targets(ids, mask):
    """What each position is to predict, says its author."""
    return np.where(mask == 1, ids, -100)


print(suspicious_targets(sentence, np.ones_like(sentence)))
report = examine(suspicious_targets, "shifted_targets")
print([check.law for check in report.checks if check.status == "failed"], report.likely[0])

# %% [markdown]
# You do not have a check for everything. What would you see without one? Two small GPTs, trained for a few steps, one
# with the right targets, one with these.

# %% tags=["experiment"]
short = budget(full=120, fast=2)


def few_steps(shift):
    """A small GPT and its training losses; targets are `shift` places to the left."""
    config = GPTConfig(n_layer=2, n_head=2, n_embd=64, n_positions=T, vocab_size=V, initializer_range=0.06)
    small = GPT(config, rng=np.random.default_rng(1))
    opt, batches, losses = tl.optim.AdamW(small.parameters(), lr=3e-3), Batches(train, 16, T + 1, seed=1), []
    for step in range(short):
        window = batches.at(step)["input_ids"]  # (B, T + 1)
        loss = tl.cross_entropy(small(window[:, :T]).logits, window[:, shift : shift + T])
        loss.backward()
        tl.optim.clip_grad_norm_(small.parameters(), 1.0)
        opt.step()
        opt.zero_grad()
        losses.append(loss.item())
    return small, losses


right, wrong = few_steps(1), few_steps(0)
best_line = dict(lines)["5-gram"]
below = 1 + int(np.argmax(np.array(wrong[1]) < best_line))
honest = mean_loss(NextToken(wrong[0]), NextToken(wrong[0]).windows(held_out, 16, 64))
print(f"after {short} steps: right targets {right[1][-1]:.2f}, not shifted {wrong[1][-1]:.1f}")
print(f"not shifted, it is below the 5-gram after {below} steps, with {below * 16 * T:,} characters read")
print(f"judged by the token that really comes next: {honest:.1f}; uniform would be {np.log(V):.1f}")
assert is_fast() or (wrong[1][-1] < 0.5 and honest > np.log(V))

points = (range(1, short + 1), right[1]), (range(1, short + 1, 4), wrong[1][::4])
show(loss_curve(*points, lines[1:], "training with the right targets, and with targets not shifted", "not shifted"))

# %% [markdown]
# That is the alarm: *a loss far below the best count model within a few steps is a leak, not a triumph.* The model
# copies its input to its output, which the tied table makes especially easy. There is a second alarm that needs no text
# at all: on characters drawn at random, nobody can do better than uniform.

# %% tags=["experiment"]
noise = np.random.default_rng(2).integers(0, V, (16, T + 1))
with tl.no_grad():
    for name, (small, _), shift in (("right targets", right, 1), ("not shifted", wrong, 0)):
        loss = tl.cross_entropy(small(noise[:, :T]).logits, noise[:, shift : shift + T]).item()
        print(f"{name:<14} its loss on noise {loss:.1f}: {'impossible' if loss < np.log(V) - 0.1 else 'possible'}")

# %% [markdown]
# ## What the field reports
#
# nanoGPT's small recipe for a CPU, four layers and 128 channels as here, reports 1.88 on tinyshakespeare, where a
# Witten-Bell 5-gram needs 1.6688; its large one, on a graphics card, 1.4697 (our reference numbers). So a GPT that
# loses to counting is no scandal; a report that leaves the line out is. The README of this library has the longer run
# of `tinyllm train` beside the same lines. To read next: Radford and others (2019) on GPT-2; Press and Wolf (2017) on
# the tied table; Holtzman and others (2020) on top-p; then chapter 08, which makes all this fast.
#
# ## Summary
#
# * Position t predicts token t + 1; where there is none, the label is -100.
# * A training step: batch, loss, gradient, limit, optimiser. A training loop needs an end.
# * A table used twice gets two gradients, and they add up.
# * Temperature divides scores before the softmax; top-p cuts off the tail; both leave the model as it is.
# * Draw every honest line. A loss that is too good is a bug until shown otherwise.
#
# ## Glossary
#
# | English | Chinese | meaning |
# |---|---|---|
# | next-token prediction | 下一词元预测 | what each position is trained for |
# | weight tying | 权重绑定 | one table for the way in and the way out |
# | temperature | 温度 | what scores are divided by before a draw |
# | top-p (nucleus) sampling | 核采样 | drawing among the likeliest, up to a sum of p |
# | KV cache | 键值缓存 | keys and values kept from the words before |
# | early stopping | 早停 | the end when held-out text no longer gets better |
