# %% [markdown]
# # 15 Encoder and decoder: translation, BLEU, beam
#
# **You will learn** how a model reads one text and writes another one about it: two stacks, and the attention between
# them. How translations are judged by counting, which count is honest, and how a search for a likely sentence differs
# from taking the likeliest word each time. You will train a translator in a minute and hold it against three baselines.
#
# **You need** attention (chapter 05), the block (06), the GPT and its cache (07).

# %% tags=["imports"]
import numpy as np
from matplotlib.figure import Figure

import tinyllm as tl
from tinyllm.course import budget, check, examine, formula, is_fast, show
from tinyllm.formulas.evaluation import bleu
from tinyllm.metrics import chrf, corpus_bleu
from tinyllm.models import Transformer
from tinyllm.models.ibm1 import IBM1
from tinyllm.tasks.catalogues import read_catalogues
from tinyllm.tasks.pairs import split_pairs
from tinyllm.tasks.translation import word_by_word
from tinyllm.text import ByteLevelBPE, word_tokenize
from tinyllm.viz import attention_map, loss_curve, step_backward

# %% [markdown]
# ## The question
#
# A translation is not a text that goes on: it may be longer or shorter than its source, and in another order. What must
# the writer know at each word? Where in the source to look. That can be learned from nothing but pairs of sentences,
# and it was, by counting, thirty years before you read this: IBM's model 1 asks which source word each target word came
# from. Here are the messages of JupyterLab, English and Chinese, and what the counts say about one of them. This
# chapter ends with the same picture, drawn by a network that was never told what a word is.

# %%
LONGEST = 24  # tokens of a side
pairs = [
    pair
    for pair in read_catalogues("zh_CN").pairs
    if len(word_tokenize(pair.source)) <= LONGEST // 2 and len(pair.target) <= LONGEST
]
train, held_out = split_pairs(pairs, 0.1, seed=0)  # no source is in both
counts = IBM1().fit([word_tokenize(pair.source) for pair in train], [list(pair.target) for pair in train])
print(f"{len(train):,} pairs for training, {len(held_out)} held out")

# %%
example = next(p for p in train if len(p.source.split()) == 4 and 6 <= len(p.target) <= 9 and p.target.isalpha())
words, characters = word_tokenize(example.source), list(example.target)
p = np.array([[counts.probability(c, w) for w in words] for c in characters])  # (T, S)
p /= p.sum(axis=1, keepdims=True)
print(example.source, "|", *(f"{i} {c}" for i, c in enumerate(characters, start=1)))
rows = [str(i) for i in range(1, len(characters) + 1)]  # many computers have no Chinese letters for pictures
show(attention_map(p, rows, words, title="model 1: which word each character comes from"))

# %% [markdown]
# ## The formula
#
# Nothing new is needed, only a new use. In self-attention, queries, keys and values come from one text. In
# *cross-attention* the queries come from the target, keys and values from what the encoder has made of the source.

# %%
formula("F-ATTN")

# %% [markdown]
# And a formula for the judge. BLEU asks how many runs of one, two, three and four words a translation shares with a
# human one. $p_n$ is the share of its n-grams that are found there; the factor before it punishes what is too short.

# %%
formula("F-EVAL")

# %% [markdown]
# ## By hand
#
# **Cross-attention.** A source of six tokens, two numbers each, and one query. No mask: the source is all there.

# %%
memory = [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.0, 0.0], [2.0, 0.0], [0.0, 2.0]]
query = [2.0, 0.0]
scores = []
for m in memory:
    scores.append((query[0] * m[0] + query[1] * m[1]) / 2**0.5)
weights = [np.exp(score) / sum(np.exp(scores)) for score in scores]
mixed = [0.0, 0.0]
for weight, m in zip(weights, memory, strict=True):
    mixed = [mixed[0] + weight * m[0], mixed[1] + weight * m[1]]
print("weights", np.round(weights, 3).tolist(), " what the decoder gets", np.round(mixed, 3).tolist())

# %% [markdown]
# **BLEU.** The trick is *clipping*: each n-gram counts at most as often as the human translation has it. Without it the
# first candidate, which says one word six times, would have six words of six right.

# %%
reference = ["the", "cat", "sat", "on", "the", "mat"]
for candidate in ("the the the the the the", "the cat sat", "on the mat sat the cat", "the cat sat on a mat"):
    said = candidate.split()
    found = []
    for n in (1, 2):
        grams = [tuple(said[k : k + n]) for k in range(len(said) - n + 1)]
        known = [tuple(reference[k : k + n]) for k in range(len(reference) - n + 1)]
        matches = sum(min(grams.count(gram), known.count(gram)) for gram in set(grams))
        found.append(f"p{n} = {matches}/{len(grams)}")
    short = min(1.0, np.exp(1 - len(reference) / len(said)))
    score = bleu([said], [[reference]], n_max=2)
    print(f"{candidate:<24} {'  '.join(found)}  brevity {short:.3f}  BLEU with N = 2: {100 * score:.1f}")

# %% [markdown]
# **Beams.** Two steps, words a and b, and the probabilities of a tree. Taking the likelier word each time ("greedy")
# begins with a. But what is likeliest of all begins with b. Two *beams*, the two best beginnings, find it.

# %%
first = {"a": 0.6, "b": 0.4}
then = {"a": {"a": 0.55, "b": 0.45}, "b": {"a": 0.95, "b": 0.05}}
whole = {x + y: first[x] * then[x][y] for x in "ab" for y in "ab"}
greedy = max(first, key=first.get)
greedy += max(then[greedy], key=then[greedy].get)
print("all texts:", {text: round(p, 3) for text, p in whole.items()})
likeliest = max(whole, key=whole.get)
print(f"greedy writes {greedy}, {whole[greedy]:.2f}; the likeliest is {likeliest}, {whole[likeliest]:.2f}")

# %% [markdown]
# ## Step through
#
# Cross-attention alone, with the memory as keys and values both. Mark in the tape how often the memory is used.

# %%
M = tl.tensor(memory, requires_grad=True)
Q = tl.tensor([[2.0, 0.0], [0.0, 1.0]], requires_grad=True)
attended = tl.softmax(Q @ M.mT / np.sqrt(2.0), axis=-1) @ M  # (T, d)
loss = tl.sum(attended * tl.tensor([[1.0, 0.0], [0.0, 0.0]]))
tl.print_tape(loss)

# %%
walk = step_backward(loss, names={"memory": M, "queries": Q})
for step in walk.steps:
    sizes = ["-" if g is None else f"{np.abs(g.data).max():.3f}" for g in step.in_grads]
    print(f"{step.node.op.name:<12} largest gradients handed on: {', '.join(sizes)}")
show(walk.figure(-1))
print("gradient of the memory:\n", np.round(M.grad.data, 3).tolist())

# %% [markdown]
# Twice: once as values, in the last product, and once as keys, transposed, in the first. Its two gradients are added.
# This sum is *all* that the encoder ever learns from: no label is on its side, every token of it is judged by how it
# helped the decoder.
#
# ## All at once
#
# The library's `Transformer` has both stacks. The encoder's attention has no mask; the decoder's layers have three
# parts: causal self-attention, cross-attention, and the network. Given `labels`, it makes the decoder's input by
# itself: the labels, one place to the right, after a start token. Position t sees what comes before t, and says t.

# %%
small = Transformer(
    src_vocab_size=9, tgt_vocab_size=9, d_model=16, nhead=2, num_encoder_layers=1, num_decoder_layers=1,
    dim_feedforward=32, dropout=0.0, rng=np.random.default_rng(0), dtype="float64",
)  # fmt: skip
source, target = np.array([[3, 4, 5, 6, 7, 8]]), np.array([[5, 6, 3, 2]])  # 2 is the end
before = np.array([[1, 5, 6, 3]])  # 1 is the start
logits = small(source, decoder_input_ids=before).logits.data[0]
by_hand = np.mean([np.log(np.exp(logits[t]).sum()) - logits[t][target[0, t]] for t in range(4)])
print(f"loss: differs from our shift by {abs(small(source, labels=target).loss.item() - by_hand):.0e}")

cache, memory_6 = small.new_cache(), small.encode(source)  # the source is read once
steps = []
with tl.no_grad():
    for t in range(4):  # a token at a time; keys and values of the source are kept beside those of the target
        out = small(decoder_input_ids=before[:, t : t + 1], encoder_outputs=memory_6, cache=cache)
        steps.append(out.logits.numpy()[0, 0])
print(f"token by token with a cache: differs by {np.abs(np.array(steps) - logits).max():.0e}")

other_end, other_word = source.copy(), before.copy()
other_end[0, -1], other_word[0, 2] = 3, 7
for name, x, y in (("last source", other_end, before), ("third target", source, other_word)):
    differs = (small(x, decoder_input_ids=y).logits.data[0] != logits).any(axis=1)
    print(f"another {name} token changes the places {np.flatnonzero(differs).tolist()}")

# %% [markdown]
# The last lines are the contract of the two stacks: everybody may look at the whole source, nobody at what is to come.
#
# ## The derivative
#
# Let $S = Q M^\top / \sqrt d$, $A = \mathrm{softmax}(S)$ row by row, $Y = A M$, and $G = \partial L / \partial Y$. As
# values, $M$ gets $A^\top G$. The weights get $dA = G M^\top$, and through the softmax of chapter 05 the scores get
#
# $$dS_{ij} = A_{ij} \Big( dA_{ij} - \sum_k A_{ik}\, dA_{ik} \Big), \qquad
# \frac{\partial L}{\partial M} = A^\top G + \frac{1}{\sqrt d}\, dS^\top Q .$$
#
# The first term says what to say, the second when to be found.

# %%
rng = np.random.default_rng(1)
q, m, g = rng.normal(size=(3, 4)), rng.normal(size=(6, 4)), rng.normal(size=(3, 4))
A = tl.softmax(q @ m.T / 2).data
dA = g @ m.T
dS = A * (dA - (A * dA).sum(axis=1, keepdims=True))
as_values, as_keys = A.T @ g, dS.T @ q / 2


def loss_of(m):
    """The number whose gradient by m is wanted."""
    return tl.sum(tl.scaled_dot_product_attention(q, m, m) * g)


tape = tl.tensor(m, requires_grad=True)
loss_of(tape).backward()
differences = np.zeros_like(m)
for place in np.ndindex(m.shape):
    nudge = np.zeros_like(m)
    nudge[place] = 1e-5
    differences[place] = (loss_of(tl.tensor(m + nudge)) - loss_of(tl.tensor(m - nudge))).item() / 2e-5
print(f"by tape         differs by {np.abs(tape.grad.data - as_values - as_keys).max():.0e}")
print(f"by differences  differs by less than 1e-8: {np.abs(differences - as_values - as_keys).max() < 1e-8}")
print(f"one part alone  differs by {min(np.abs(differences - part).max() for part in (as_values, as_keys)):.2f}")

# %% [markdown]
# ## On real data
#
# Three baselines first. *Copy* leaves the English as it is. *Word by word* takes model 1's likeliest translation of
# each word. The *memory* takes the whole translation of the training message that shares most words with the source;
# people who translate programs for a living use just that. BLEU and chrF count runs of Chinese characters here.

# %%
sources, answers = [pair.source for pair in held_out], [pair.target for pair in held_out]
known = [set(word_tokenize(pair.source.lower())) for pair in train]


def remembered(text):
    """The translation of the training message with the largest share of common words."""
    said = set(word_tokenize(text.lower()))
    return train[int(np.argmax([len(said & other) / len(said | other) for other in known]))].target


judge = lambda texts: (corpus_bleu(texts, [answers], tokenize="zh").score, chrf(texts, [answers]).score)  # noqa: E731


table = {
    "copy": judge(sources),
    "word by word (model 1)": judge(word_by_word(train, sources)),
    "memory": judge([remembered(text) for text in sources]),
}

# %% [markdown]
# Then the Transformer: two layers on each side, 128 channels, English in pieces of words (chapter 04), Chinese in
# characters. Labels are *smoothed*: a tenth of each is spread over the vocabulary, so that no answer is ever quite
# certain. Two thousand messages are few, so a fifth of everything is dropped out in training.

# %%
PAD, START, END, UNKNOWN = range(4)
pieces = ByteLevelBPE.train([pair.source for pair in train], vocab_size=1200)
alphabet = sorted(set("".join(pair.target for pair in train)))
number = {c: i for i, c in enumerate(alphabet, start=4)}


def padded(rows, fill):
    """Rows of different lengths as one array."""
    longest = max(map(len, rows))
    return np.array([[*row, *[fill] * (longest - len(row))] for row in rows])


def batch(pairs):
    """What the model is given for some pairs: source, its mask, and labels."""
    ids = [pieces.encode(pair.source) for pair in pairs]
    labels = [[*(number.get(c, UNKNOWN) for c in pair.target), END] for pair in pairs]
    mask = padded([[1] * len(row) for row in ids], 0)
    return {"input_ids": padded(ids, PAD), "attention_mask": mask, "labels": padded(labels, -100)}


def text_of(row):
    """The characters of a row up to its end."""
    ended = [*row.tolist(), END]
    return "".join(alphabet[i - 4] for i in ended[: ended.index(END)] if i > UNKNOWN)


def new_model(layers, channels, vocabulary, **settings):
    """A Transformer that reads tokens of this vocabulary and writes Chinese characters."""
    return Transformer(
        src_vocab_size=vocabulary, tgt_vocab_size=len(alphabet) + 4, d_model=channels, nhead=4,
        num_encoder_layers=layers, num_decoder_layers=layers, dim_feedforward=4 * channels, activation="gelu",
        norm_first=True, max_position_embeddings=4 * LONGEST, rng=np.random.default_rng(0), **settings,
    )  # fmt: skip


def fit(model, make_batch, steps, size=32, lr=2e-3):
    """Train on random pairs; the losses."""
    optimizer = tl.optim.AdamW(model.parameters(), betas=(0.9, 0.98), weight_decay=0.05)
    rate = tl.optim.schedules.cosine(lr, warmup=max(1, steps // 15), steps=steps, final=lr / 100)
    rng, losses = np.random.default_rng(0), []
    for t in range(steps):
        loss = model.loss(make_batch([train[i] for i in rng.integers(len(train), size=size)]))
        loss.backward()
        tl.optim.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.lr = rate(t)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


# %% tags=["experiment"]
steps = budget(full=800, fast=2)
model = new_model(2, 128, pieces.vocab_size, dropout=0.2, label_smoothing=0.1)
losses = fit(model, batch, steps)
model.eval()
judged = batch(held_out[: budget(full=len(held_out), fast=8)])
with tl.no_grad():
    held_out_loss = model.loss(judged).item()
print(f"{model.num_parameters():,} parameters; held out {held_out_loss:.3f} nats per character")

# %% tags=["experiment"]
question = {"attention_mask": judged["attention_mask"], "max_new_tokens": LONGEST + 2, "eos_token_id": END}
for beams in (1, 2, 4):
    written = tl.generate(model, judged["input_ids"], num_beams=beams, **question)[:, 1:]  # the start token is left out
    texts = [text_of(row) for row in written]
    texts += [""] * (len(answers) - len(texts))  # where only the code is tested
    table[f"Transformer, {beams} beam{'s' * (beams > 1)}"] = judge(texts)
for name, (b, c) in table.items():
    print(f"{name:<24} BLEU {b:5.1f}  chrF {c:5.1f}")
assert is_fast() or table["Transformer, 4 beams"][0] > table["word by word (model 1)"][0] + 10

# %% tags=["experiment"]
figure = Figure(figsize=(7, 3.2), layout="constrained")
axes = figure.subplots()
axes.barh([*table][::-1], [b for b, _ in table.values()][::-1], color=["#0072b2"] * 3 + ["#555555"] * 3)
axes.set_xlabel("BLEU of the held-out messages")
axes.spines[["top", "right"]].set_visible(False)
show(figure)

# %% [markdown]
# Who wins is what the table says, and nothing was tuned on it. Mind what a score hides. The memory says nothing that a
# human has not said, and cannot say anything new. Look at some translations, and at the runners-up of one: beams give
# the n best texts, with the mean of their log-probabilities.

# %% tags=["experiment"]
for i in range(6):
    print(f"{sources[i]}\n    human {answers[i]}   memory {remembered(sources[i])}   Transformer {texts[i]}")

# %% tags=["experiment"]
best = tl.generate(
    model, judged["input_ids"][:1], num_beams=4, num_return_sequences=3, details=True,
    **question | {"attention_mask": judged["attention_mask"][:1]},
)  # fmt: skip
print([(text_of(row), round(float(score), 3)) for row, score in zip(best.ids[:, 1:], best.scores, strict=True)])

# %% [markdown]
# And the picture of the beginning again, for the same message: where the decoder looks before it writes each character.

# %% tags=["experiment"]
shown = batch([example])
before = np.concatenate([[[START]], shown["labels"][:, :-1]], axis=1)
looks = model.alignment(shown["input_ids"], before)[0]  # (T, S)
names = [pieces.decode([i]) for i in shown["input_ids"][0]]
show(attention_map(looks, [*rows, "(end)"], names, title="cross-attention, the mean of four heads"))

# %% [markdown]
# ## Exercises


# %% tags=["exercise"]
def translation_batch(source, target, start):
    """What the encoder reads, what the decoder has before it, what it is to say; (B, T) each, padding is 0."""
    # BEGIN SOLUTION
    before = np.concatenate([np.full((len(target), 1), start), target[:, :-1]], axis=1)
    return source, before, np.where(target == 0, -100, target)
    # END SOLUTION


check(translation_batch)


# %% tags=["exercise"]
def cross_attention_vjp(g, q, memory):
    """The gradient (S, d) of the memory in y = softmax(q memory^T / sqrt(d)) memory, given the gradient g of y."""
    # BEGIN SOLUTION
    scores = q @ memory.T / np.sqrt(q.shape[1])
    A = np.exp(scores - scores.max(axis=1, keepdims=True))
    A /= A.sum(axis=1, keepdims=True)
    dA = g @ memory.T
    dS = A * (dA - (A * dA).sum(axis=1, keepdims=True))
    return A.T @ g + dS.T @ q / np.sqrt(q.shape[1])
    # END SOLUTION


check(cross_attention_vjp)


# %% tags=["exercise"]
def ngram_matches(candidate, reference, n):
    """How many n-grams of the candidate are in the reference, clipped; and how many it has: two numbers."""
    # BEGIN SOLUTION
    mine, theirs = ([tuple(ids[k : k + n].tolist()) for k in range(len(ids) - n + 1)] for ids in (candidate, reference))
    return np.array([sum(min(mine.count(gram), theirs.count(gram)) for gram in set(mine)), len(mine)])
    # END SOLUTION


check(ngram_matches)


# %% tags=["exercise"]
def beam_step(logp, scores, k):
    """The k best continuations of beginnings with sums scores (B,), logp (B, V): pairs (beginning, token), (k, 2)."""
    # BEGIN SOLUTION
    total = scores[:, None] + logp
    order = np.argsort(-total.reshape(-1), kind="stable")[:k]
    return np.stack([order // logp.shape[1], order % logp.shape[1]], axis=1)
    # END SOLUTION


check(beam_step)

# %% [markdown]
# ## Break it
#
# A Transformer in a much-read course hands *the same* tokens to its encoder and to its decoder, and compares what it
# says with their continuation (datawhalechina/happy-llm, issue 191; issue 134 there misses the shift). It runs, and it
# learns wonderfully well. In our terms:


# %%
def suspicious_batch(source, target, start):
    """Encoder's input, decoder's input and labels, says their author."""
    before = np.concatenate([np.full((len(target), 1), start), target[:, :-1]], axis=1)
    return target, before, np.where(target == 0, -100, target)


report = examine(suspicious_batch, "translation_batch")
print([check.law for check in report.checks if check.status == "failed"], "\n", report.likely[0])

# %% [markdown]
# What would you see without the check? Two models, trained for a few steps, one on sources that are the answers.

# %% tags=["experiment"]
short = budget(full=250, fast=2)


def leaking(pairs):
    """A batch whose sources are the targets."""
    honest = batch(pairs)
    answer = np.where(honest["labels"] < 0, PAD, honest["labels"])
    return honest | {"input_ids": answer, "attention_mask": (answer != PAD).astype(int)}


right = new_model(1, 64, pieces.vocab_size, dropout=0.0)
wrong = new_model(1, 64, len(alphabet) + 4, dropout=0.0, share_embeddings=True)
curves = fit(right, batch, short, lr=4e-3), fit(wrong, leaking, short, lr=4e-3)
points = (range(1, short + 1), curves[0]), (range(1, short + 1, 8), curves[1][::8])
show(loss_curve(*points, [], "source: the English, or the answer itself", "leaking"))

# %% [markdown]
# The second alarm needs no patience. Nobody can translate noise: of targets that are drawn at random, a translator can
# know nothing, whatever it reads, and loses at least the logarithm of the alphabet, unless it is told.

# %% tags=["experiment"]
noise = np.random.default_rng(2).integers(4, len(alphabet) + 4, size=(64, 8))
for name, small in (("honest", right), ("leaking", wrong)):
    small.eval()
    with tl.no_grad():
        told = {"input_ids": noise} if small is wrong else {"input_ids": batch(train[:64])["input_ids"]}
        lost = small.loss(told | {"labels": noise}).item()
    print(f"{name:<8} loses {lost:.2f} nats per character of noise; the logarithm is {np.log(len(alphabet)):.2f}")
    assert is_fast() or (lost < np.log(len(alphabet)) - 1) == (small is wrong)

# %% [markdown]
# ## What the field reports
#
# On Multi30k, German to English, the models of the tutorial pytorch-seq2seq reach BLEU 13.8 (LSTM), 20.6 (GRU), 28.3
# (GRU with attention) and 36.5 (a Transformer of 9 million parameters): our reference numbers. Scores of different data
# or tokenisers are not comparable; Post (2018) is about that, and `sacrebleu`, whose numbers ours equal to the printed
# digit, came of it. To read next: Vaswani and others (2017), sections 3 and 5; Papineni and others (2002) on BLEU;
# Brown and others (1993) on model 1; Stahlberg and Byrne (2019): the likeliest translation of all is often the empty
# one, so that beams are good *because* they search badly.
#
# ## Summary
#
# * An encoder reads everything, a decoder what it has written; cross-attention lies between them.
# * The source is used as keys and as values, and both send a gradient back: the encoder's only teacher.
# * BLEU: clipped n-grams, their geometric mean, and a penalty for what is too short.
# * Greedy takes the likeliest word, beams keep several beginnings; neither finds the likeliest text for sure.
# * A source that holds the answer makes every score wonderful. Test with noise.
#
# ## Glossary
#
# | English | Chinese | meaning |
# |---|---|---|
# | encoder, decoder | 编码器、解码器 | the stack that reads, the stack that writes |
# | cross-attention | 交叉注意力 | queries of the target, keys and values of the source |
# | beam search | 束搜索 | keeping the few best beginnings |
# | BLEU | 双语评估替补 | n-grams shared with a human translation |
# | label smoothing | 标签平滑 | a part of each label spread over all classes |
# | data leak | 数据泄漏 | the answer among the inputs |
