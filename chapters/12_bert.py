# %% [markdown]
# # 12 BERT: unlabelled text buys labels
#
# **You will learn** how a text without labels asks a model questions that both sides of a token answer; what such
# pre-training is worth when labels are few; how to judge a classifier; and against which simple rivals.
#
# **You need** attention and the block (chapters 05, 06), cross-entropy (02) and tokens (04).

# %% tags=["imports"]
import numpy as np
from matplotlib.figure import Figure

import tinyllm as tl
from tinyllm.course import budget, check, examine, formula, is_fast, show
from tinyllm.data.labelled import Labelled
from tinyllm.formulas import evaluation, masked_lm, procedures
from tinyllm.metrics import classification_report, confusion_matrix
from tinyllm.models import BERTConfig, BERTForMaskedLM
from tinyllm.models.bag_of_words import LogisticRegression, NaiveBayes
from tinyllm.optim import AdamW, schedules
from tinyllm.tasks.classification import ClassificationJob
from tinyllm.tasks.pairs import split_units
from tinyllm.tasks.topics import stdlib_packages
from tinyllm.text.wordpiece import WordPiece
from tinyllm.train import Plan, Settings, Trainer
from tinyllm.train.masked import HiddenTokens
from tinyllm.train.run import make_trainer
from tinyllm.viz import draw_tape, step_backward
from tinyllm.viz.confusion import confusion_picture

# %% [markdown]
# ## The question
#
# Labels cost money: somebody has to read every text. Text without labels is free. Can a model that has read much of it
# be taught a task with few labels? The task here: from which package of the standard library is a docstring? There are
# many docstrings; suppose that only a few of them had been labelled.

# %% tags=["experiment"]
data = stdlib_packages()
print(data)
pool, held_out = split_units(data.examples, lambda example: example.unit, 0.3, 0)
held_out = [held_out[i] for i in np.random.default_rng(0).permutation(len(held_out))[: budget(full=400, fast=40)]]
for example in pool[:3]:
    print(f"{example.label:>12}: {example.text[:80]!r}")

# %% [markdown]
# What each number of labels buys, with and without pre-training, is drawn further down. First, what pre-training asks.
#
# ## The formula
#
# GPT asks what comes next. BERT hides some tokens and asks what stood there; it may look at both sides:

# %%
formula("F-MLM")

# %% [markdown]
# What is learnt so is carried to a task, and judged there:

# %%
formula("P-TRANSFER")

# %%
formula("F-EVAL")

# %% [markdown]
# ## By hand
#
# Six tokens. Two places are chosen; one of them is hidden behind [MASK], the other stays as it is, and is asked for all
# the same. Of the chosen places, 80% become [MASK], 10% any other token, and 10% stay, so that the model cannot rely on
# what it reads.

# %%
names = ["the", "cat", "sat", "on", "mat", "[MASK]"]
ids = [0, 1, 2, 3, 0, 4]  # the cat sat on the mat
u_choose = [0.9, 0.1, 0.5, 0.3, 0.05, 0.8]  # below 0.15: chosen
u_action = [0.0, 0.4, 0.0, 0.0, 0.95, 0.0]  # below 0.8: hidden; from 0.9: left as it is
hidden, chosen = masked_lm.mask_tokens(ids, u_choose, u_action, [3] * 6, mask_id=5)
print("read :", " ".join(names[i] for i in hidden))
print("asked:", " ".join(names[i] if c else "." for i, c in zip(ids, chosen, strict=True)))

# %% [markdown]
# Suppose the model gives the hidden *cat* a probability of 1/4, and *the*, which it can see but may not trust, 1/2. All
# other places do not count, whatever it thinks there:

# %%
P = np.full((6, 5), 0.2)
P[1, 1], P[4, 0] = 1 / 4, 1 / 2
print(f"loss {masked_lm.masked_lm_loss(P.tolist(), ids, chosen):.4f} = (log 4 + log 2) / 2 = {np.log(8) / 2:.4f}")

# %% [markdown]
# And judging. Eighteen headlines, the documents' case (P-NEWS): politics, economy, sports, by counting words:

# %%
print("  ".join(f"{name} {value:.3f}" for name, value in procedures.news().items()))
truth, said = [0, 0, 1, 1, 2, 2], [0, 1, 1, 1, 2, 0]
for label in range(3):
    measures = (evaluation.precision, evaluation.recall, evaluation.f1)
    print(f"label {label}:", "  ".join(f"{m.__name__} {m(truth, said, label):.3f}" for m in measures))

# %% [markdown]
# ## Step through
#
# The loss of the sentence on the tape. Only the chosen rows of the scores reach the loss:

# %%
rng = np.random.default_rng(0)
logits = tl.tensor(rng.normal(size=(6, 5)).round(1), requires_grad=True)
labels = np.where(chosen, ids, -100)
told = tl.log_softmax(logits[labels != -100], axis=-1)
loss = -tl.mean(told[np.arange(2), labels[labels != -100]])
tl.print_tape(loss)
show(draw_tape(loss, names={"logits": logits}))

# %%
step_backward(loss, names={"logits": logits})

# %%
print(logits.grad.data.round(3))

# %% [markdown]
# Four rows of zeros: where nothing is asked, nothing is learnt. Only some 15% of a text teach BERT anything, where GPT
# learns from every token; that is the price of seeing both sides.
#
# ## All at once
#
# `cross_entropy` leaves out the places whose label is -100, so that a batch of texts is one call; the loops agree:

# %%
at_once = tl.cross_entropy(logits, labels)
p = tl.softmax(logits, axis=-1).data
print(f"loops {masked_lm.masked_lm_loss(p.tolist(), ids, chosen):.12f}, at once {at_once.item():.12f}")

# %% [markdown]
# ## The derivative
#
# The loss is a mean over the chosen places $M$ of $-\log p_t[x_t]$ with $p_t = \mathrm{softmax}(z_t)$. From chapter 02
# the slope of one such term is $p_t$ with 1 taken off at $x_t$. So
#
# $$\frac{\partial L}{\partial z_{tj}} = \frac{1}{|M|} \left(p_{tj} - [j = x_t]\right) \quad (t \in M), \qquad 0
# \quad (t \notin M) .$$

# %%
by_hand = np.zeros((6, 5))
for t in np.flatnonzero(chosen):
    by_hand[t] = p[t] - np.eye(5)[ids[t]]
by_hand /= sum(chosen)
print(f"by tape         differs by {np.abs(logits.grad.data - by_hand).max():.0e}")
report = tl.testing.gradcheck(lambda z: tl.cross_entropy(z, labels), logits.data)
print("by differences ", report)

# %% [markdown]
# ## On real data
#
# **Pre-training.** A small BERT reads the docstrings of the pool, without their labels, and tells hidden tokens. A
# WordPiece vocabulary is trained on the same text.

# %% tags=["experiment"]
texts = [example.text for example in pool]
tokenizer = WordPiece.train(texts, vocab_size=2000)
SHAPE = {"n_layer": 2, "n_head": 4, "n_embd": 96, "block_size": 64}
config = BERTConfig(
    vocab_size=tokenizer.vocab_size,
    hidden_size=96,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=384,
    max_position_embeddings=64,
    initializer_range=0.08,
    pad_token_id=tokenizer.pad_token_id,
)
bert = BERTForMaskedLM(config, rng=np.random.default_rng(0))
objective = HiddenTokens(bert, tokenizer, 64)
tokens = np.concatenate([np.array(tokenizer.encode(text)[1:]) for text in texts])
print(f"{len(tokens):,} tokens, {bert.num_parameters():,} parameters")
STEPS = budget(full=600, fast=3)
losses = []


class Watched(HiddenTokens):
    """The objective, whose loss is kept."""

    def loss(self, batch):
        """Mean over the hidden tokens."""
        value = super().loss(batch)
        losses.append(value.item())
        return value


watched = Watched(bert, tokenizer, 64)
plan = Plan(steps=STEPS, rate=schedules.cosine(2e-3, min(70, STEPS - 1), STEPS, 0.0), clip=1.0, count=watched.count)
Trainer(watched, watched.batches(tokens, 32, 0), AdamW(bert.parameters(), lr=2e-3), plan).run()
tenth = max(1, len(losses) // 10)
print(f"loss of hidden tokens: at first {np.mean(losses[:tenth]):.2f}, at last {np.mean(losses[-tenth:]):.2f} nats")
print(f"(uniform over the vocabulary: {np.log(tokenizer.vocab_size):.2f})")
assert is_fast() or np.mean(losses[-tenth:]) < np.mean(losses[:tenth]) - 1

# %% [markdown]
# What does it put into a gap?

# %% tags=["experiment"]
bert.eval()
for text in ("return true if the [MASK] exists.", "raise an [MASK] if the argument is not valid."):
    before, after = text.split("[MASK]")
    gap = [*tokenizer.encode(before)[:-1], tokenizer.mask_token_id, *tokenizer.encode(after)[1:]]
    scores = bert(np.array([gap])).logits.data[0, gap.index(tokenizer.mask_token_id)]
    print(f"{text:<50}", ", ".join(tokenizer.id_to_token(i) for i in np.argsort(-scores)[:6]))

# %% [markdown]
# The frequent words, and not those that fit: so far it knows how often words occur, and little of what they mean. What
# that is worth, the labels tell.
#
# **Fine-tuning.** A classifier on top of the same body, all of it trained on 40, 160 or 640 labelled docstrings; beside
# it the same model from random weights, naive Bayes, and logistic regression over words and pairs of words. Two draws
# of the labelled texts for each number.

# %% tags=["experiment"]
import tempfile
from pathlib import Path

folder = Path(tempfile.mkdtemp())
bert.save_pretrained(folder)
tokenizer.save(folder)
SIZES = budget(full=(40, 160, 640), fast=(40,))
SEEDS = budget(full=2, fast=1)
scores = {
    name: {size: [] for size in SIZES} for name in ("pre-trained", "random", "naive Bayes", "logistic regression")
}
truth = [example.label for example in held_out]


def fine_tuned(train, seed, **start):
    """A job that was trained on these texts."""
    settings = Settings.make(
        SHAPE | start | {"task": "classification", "steps": budget(full=150, fast=2), "lr": 1e-3, "seed": seed,
                         "vocab_size": 2000, "sample_tokens": 0, "eval_every": 1000}
    )  # fmt: skip
    job = ClassificationJob(settings, Labelled("docstrings", tuple(train)), train, held_out)
    trainer = make_trainer(job)
    trainer.held_out = None
    trainer.run()
    return job


for size in SIZES:
    for seed in range(SEEDS):
        order = np.random.default_rng([size, seed]).permutation(len(pool))[:size]
        train = [pool[i] for i in order]
        some = [e.text for e in train], [e.label for e in train]
        job = fine_tuned(train, seed, start=str(folder))
        guesses = {
            "pre-trained": job.predict([e.text for e in held_out]),
            "random": fine_tuned(train, seed, init_std=0.05).predict([e.text for e in held_out]),
            "naive Bayes": NaiveBayes().fit(*some).predict([e.text for e in held_out]),
            "logistic regression": LogisticRegression().fit(*some).predict([e.text for e in held_out]),
        }
        for name, guess in guesses.items():
            scores[name][size].append(100 * tl.metrics.accuracy(truth, guess))
for name, found in scores.items():
    print(f"{name:>20}", "   ".join(f"{size}: {np.mean(found[size]):.1f}%" for size in SIZES))

# %% tags=["experiment"]
figure = Figure(figsize=(6.5, 4), layout="constrained")
axes = figure.add_subplot()
for (name, found), colour, mark in zip(
    scores.items(), ("#0072b2", "#d55e00", "#555555", "#009e73"), "osv^", strict=True
):
    means = [np.mean(found[size]) for size in SIZES]
    axes.errorbar(SIZES, means, [np.std(found[s]) for s in SIZES], color=colour, marker=mark, capsize=3, label=name)
commonest = max(truth.count(label) for label in set(truth)) / len(truth)
axes.axhline(100 * commonest, color="#999999", linestyle="--", label="always the commonest label")
axes.set_xscale("log")
axes.set_xticks(SIZES, [str(size) for size in SIZES])
axes.minorticks_off()
axes.set(xlabel="labelled texts", ylabel="held-out accuracy, %")
axes.spines[["top", "right"]].set_visible(False)
axes.legend(frameon=False)
show(figure)
few = SIZES[0]
assert is_fast() or np.mean(scores["pre-trained"][SIZES[-1]]) > np.mean(scores["random"][SIZES[-1]])

# %% [markdown]
# Read the lines in two steps. Pre-trained against random, the same network: that is what unlabelled text bought. Then
# both against the counting models, which have never seen any text but the labelled one, and train in a second: they are
# the price that a network has to beat before anybody should use it. A small BERT that read for a minute need not; the
# field's figures below are of models that read for days.
#
# Where the last fine-tuned model errs:

# %% tags=["experiment"]
predicted = guesses["pre-trained"]
print(classification_report(truth, predicted))
order = sorted({*truth, *predicted})
show(confusion_picture(confusion_matrix(truth, predicted, labels=order), order))

# %% [markdown]
# Accuracy is kind to a model that likes the large classes; macro F1 lets every class weigh alike.
#
# ## Exercises


# %% tags=["exercise"]
def masked_labels(ids, chosen):
    """The labels (T,): ids (T,) where chosen (T,), and -100 where nothing is asked."""
    # BEGIN SOLUTION
    return np.where(chosen, ids, -100)
    # END SOLUTION


check(masked_labels)


# %% tags=["exercise"]
def hidden_tokens(ids, chosen, u, random_ids):
    """What BERT reads: of the chosen places 80% (u < 0.8) are 99, 10% random_ids, 10% stay; the others stay too."""
    # BEGIN SOLUTION
    changed = np.where(u < 0.8, 99, np.where(u < 0.9, random_ids, ids))
    return np.where(chosen, changed, ids)
    # END SOLUTION


check(hidden_tokens)


# %% tags=["exercise"]
def masked_loss_slope(logits, labels):
    """The gradient (T, V) of the mean loss over the places whose label (T,) is not -100."""
    # BEGIN SOLUTION
    asked = np.flatnonzero(labels != -100)
    e = np.exp(logits - logits.max(axis=-1, keepdims=True))
    p = e / e.sum(axis=-1, keepdims=True)
    slope = np.zeros_like(p)
    slope[asked] = p[asked]
    slope[asked, labels[asked]] -= 1
    return slope / len(asked)
    # END SOLUTION


check(masked_loss_slope)


# %% tags=["exercise"]
def mean_f1(confusion):
    """Macro F1 of a confusion matrix (K, K), rows true, columns predicted."""
    # BEGIN SOLUTION
    right = np.diag(confusion)
    precision, recall = right / confusion.sum(axis=0), right / confusion.sum(axis=1)
    return np.mean(2 * precision * recall / (precision + recall))
    # END SOLUTION


check(mean_f1)

# %% [markdown]
# ## Break it
#
# In lucidrains/mlm-pytorch, issue 2 reports a loss over all tokens, hidden or not. Most of them can be read off the
# input: the labels leak past the mask. Training looks splendid, since copying is soon learnt. Here is such a labeller:


# %%
def suspicious(ids, chosen):
    """The labels of a masked text, says its author."""
    return np.where(ids >= 0, ids, -100)


report = examine(suspicious, "masked_labels")
print([check.law for check in report.checks if check.status == "failed"], report.likely)

# %% [markdown]
# By how much would the loss lie? A model that copies what it reads, with probability 0.99, and knows nothing about what
# is hidden:

# %%
V, share = tokenizer.vocab_size, 0.15 * 0.9  # of all places, those where what is read is not what is asked
honest = 0.9 * np.log(V) - 0.1 * np.log(0.99)
leaking = share * np.log(V) - (1 - share) * np.log(0.99)
print(f"loss over the chosen places {honest:.2f} nats, over all places {leaking:.2f}")

# %% [markdown]
# A loss far below what the field reports for a small model is a reason to look for a leak, not to celebrate.
#
# ## What the field reports
#
# Devlin and others (2019) pre-trained on 3,300 million words for four days on 16 TPUs; fine-tuning then took an hour at
# most and set the best results of its time on eleven tasks. Howard and Ruder (2018) had shown the year before, with an
# LSTM, that pre-training on unlabelled text and 100 labels do as well as 10,000 labels without it. Wang and Manning
# (2012) are the reason to print the counting models: with pairs of words they were hard to beat for years. Read next:
# those three; then RoBERTa (Liu and others 2019), which changed little but the amount of text.
#
# `tinyllm train --model bert` pre-trains, `tinyllm finetune RUN --task classify --data FILE` fine-tunes, and
# `python benchmarks/label_efficiency.py` draws this chapter's picture for MiniLM, a model of real size.
#
# ## Summary
#
# * Hiding tokens turns text into questions with answers, from both sides of each token.
# * Only the chosen places count; their slope is prediction minus truth, divided by their number.
# * Pre-training pays where labels are few. Compare with the same network from random weights, and with counting.
# * Accuracy, precision, recall and F1 answer different questions; macro F1 lets rare classes count.
# * A masked loss that is too good has leaked.
#
# ## Glossary
#
# | English | Chinese | meaning |
# |---|---|---|
# | masked language model | 掩码语言模型 | tells hidden tokens from both sides |
# | pre-training | 预训练 | training on text without labels |
# | fine-tuning | 微调 | going on with few labels, on a task |
# | transfer learning | 迁移学习 | what was learnt on one task helps on another |
# | precision, recall | 精确率, 召回率 | of what was called k; of what is k |
# | F1 | F1 值 | their harmonic mean |
# | confusion matrix | 混淆矩阵 | how often k was called j |
