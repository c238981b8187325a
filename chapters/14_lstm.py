# %% [markdown]
# # 14 RNN and LSTM: a highway for gradients
#
# **You will learn** how a network can read a text of any length with a memory of fixed size; why the plain recurrent
# network forgets, and what the LSTM's gates change; how gradients flow back through time, and where one cuts them off.
# You will train both, and a small GPT, on the same text, and hold all three against counting.
#
# **You need** the tape (chapter 01), the count models (02), training (03) and the GPT (07).

# %% tags=["imports"]
import numpy as np
from matplotlib.figure import Figure

import tinyllm as tl
from tinyllm import keras, nn
from tinyllm.autograd.tape import gradients, reachable
from tinyllm.course import budget, check, examine, formula, is_fast, show
from tinyllm.data import Batches, consecutive_windows, eval_windows
from tinyllm.formulas import recurrent, samples
from tinyllm.models import GPT, GPTConfig, LSTMConfig, LSTMLanguageModel, NGram
from tinyllm.train.prepare import prepare
from tinyllm.train.settings import Settings
from tinyllm.viz import draw_tape, step_backward

# %% [markdown]
# ## The question
#
# Before attention, networks read like we do: one token at a time, with what they remember in a *state*. The state has a
# fixed size, so a token costs the same after ten others as after ten thousand; a Transformer's cache grows. The
# documents say that the LSTM learns long dependencies, and that RNNs do not. What decides it is how a gradient comes
# back from far. The picture: of random texts, how strongly the last state depends on the token d places before it, as
# the size of the gradient there, in parts of the one at d = 0. Nothing is trained yet; for the LSTM only the first bias
# of its forget gate differs.

# %% tags=["experiment"]
H, far = 64, budget(full=60, fast=20)


def reach(layer, seed=0):
    """Of 16 random texts: the mean size of the gradient at each distance from the end, relative to distance 0."""
    rng = np.random.default_rng(seed)
    x = tl.tensor(rng.normal(size=(16, far, 32)).astype(np.float32), requires_grad=True)
    y, _ = layer(x)
    (dx,) = gradients(y[:, -1], [x], tl.tensor(rng.normal(size=(16, H)).astype(np.float32)))
    sizes = np.linalg.norm(dx.data, axis=-1)[:, ::-1]  # (B, d)
    return np.exp(np.log(sizes / sizes[:, :1] + 1e-30).mean(axis=0))


def lstm_with_forget_bias(bias):
    """An LSTM whose forget gates start with this bias."""
    layer = nn.LSTM(32, H, rng=np.random.default_rng(1))
    values = layer.bias_ih_l0.numpy()
    values[H : 2 * H] = bias
    layer.bias_ih_l0.assign_(values)
    return layer


curves = {"RNN": reach(nn.RNN(32, H, rng=np.random.default_rng(1)))}
curves |= {f"LSTM, forget bias {bias}": reach(lstm_with_forget_bias(bias)) for bias in (0, 1, 5)}
figure = Figure(figsize=(7, 3.8), layout="constrained")
axes = figure.add_subplot()
for (name, curve), color in zip(curves.items(), ("#d55e00", "#56b4e9", "#0072b2", "#009e73"), strict=True):
    axes.semilogy(curve, color=color, label=name)
axes.set_xlabel("distance from the end, in tokens")
axes.set_ylabel("gradient, relative")
axes.spines[["top", "right"]].set_visible(False)
axes.legend(frameon=False)
show(figure)
print("at the far end:", "  ".join(f"{name} {curve[-1]:.0e}" for name, curve in curves.items()))

# %% [markdown]
# A straight line on this scale is a power: each step back multiplies by about the same factor. For the RNN the factor
# is what W and tanh make of a vector; for the LSTM it is close to the forget gate, which a bias can open.
#
# ## The formula

# %%
formula("F-LSTM")

# %% [markdown]
# The documents use the LSTM in one of their samples, C-001, as a Keras program. It has two faults:

# %%
for line in (samples.show_lstm_keeps_one_state(), samples.show_one_hot_is_wanted()):
    print(line)

# %% [markdown]
# ## By hand
#
# Six tokens of one number each and a single hidden unit, so that every gate is one number. First the plain cell: its
# weights are 1 and 0.5, no bias. A 1 comes, then nothing.

# %%
words = [1.0, 0.0, 0.0, 0.0, 0.0, 0.0]
h, slope = 0.0, 1.0
for t, x in enumerate(words):
    (h,) = recurrent.rnn_cell([x], [h], [[1.0]], [[0.5]], [0.0], [0.0])
    slope *= 0.5 * (1 - h * h) if t else 1 - h * h
    print(f"t={t}  h = {h:.4f}   dh/dx_0 = {slope:.4f}")

# %% [markdown]
# State and slope both halve, at the least, with every step. Now an LSTM with the forget gate wide open (bias 5) and an
# input gate that opens when something comes: the memory c keeps what it was told, and its slope hardly shrinks.

# %%
W, U, b = [[6.0], [0.0], [2.0], [0.0]], [[0.0]] * 4, [-3.0, 5.0, 0.0, 2.0]
h, c, slope = [0.0], [0.0], 1.0
for t, x in enumerate(words):
    h, c = recurrent.lstm_cell([x], h, c, W, U, b, [0.0] * 4)
    keep = 1 / (1 + np.exp(-5.0))
    slope *= keep if t else 1.0
    print(f"t={t}  c = {c[0]:.4f}  h = {h[0]:.4f}   dc_t/dc_0 = {slope:.4f}")

# %% [markdown]
# ## Step through
#
# One step of an LSTM with two units, in small operations. Look for what lies between the old memory and
# the new one: the product with f and a sum, and nothing else. The state h has to pass the weights; c does not.

# %%
rng = np.random.default_rng(0)
c_old = tl.tensor([0.5, -1.0], requires_grad=True)
gates = tl.tensor(rng.normal(size=8))
i, f, g, o = tl.split(gates, 4)
c_new = tl.sigmoid(f) * c_old + tl.sigmoid(i) * tl.tanh(g)
shown = tl.sigmoid(o) * tl.tanh(c_new)
loss = tl.sum(shown)
tl.print_tape(loss)
show(draw_tape(loss, names={"c_old": c_old}))

# %%
step_backward(loss, names={"c_old": c_old})

# %% [markdown]
# ## All at once
#
# In the library a whole layer is one operation: the inputs' part is one product for all times; then each step is one
# product with the state, and one pass over the gates. It computes what the loops do, and what a sequence of cells does.

# %%
layer = nn.LSTM(3, 4, rng=rng, dtype=np.float64)
X = rng.normal(size=(2, 6, 3))
weights = [getattr(layer, name).numpy() for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")]
loops = np.array([recurrent.lstm(x, *weights) for x in X])
y, (h_last, c_last) = layer(X)
print(f"all at once differs from the loops by {np.abs(y.data - loops).max():.0e}")
first, state = layer(X[:, :2])
second, _ = layer(X[:, 2:], state)
print(f"in two pieces, the state handed on: {np.abs(np.concatenate([first.data, second.data], 1) - loops).max():.0e}")

# %% [markdown]
# ## The derivative
#
# Of one step, with $c' = f c + i g$ and $h' = o \tanh(c')$: the memory is shown and handed on, so two gradients arrive
# at it,
#
# $$\bar c' \leftarrow \bar c' + \bar h' \, o \, (1 - \tanh^2 c'), \qquad \bar c = f \, \bar c' .$$
#
# Over k steps the second is a product of forget gates, number by number: the *highway*. In the plain cell, it is
#
# $$\bar h = W^\top \big( (1 - h'^2) \, \bar h' \big) ,$$
#
# a product of matrices and slopes, which shrinks or explodes (Bengio, Simard and Frasconi 1994). Weights are used at
# every step, so their gradients add up over all times; this is called *backpropagation through time*.

# %%
rnn = nn.RNN(3, 4, rng=rng, dtype=np.float64)
G = rng.normal(size=(1, 6, 4))
states, _ = rnn(X[:1])
states.backward(G)
hs, W_hh = states.data[0], rnn.weight_hh_l0.data
by_hand, arriving = np.zeros((4, 4)), np.zeros(4)
for t in reversed(range(6)):
    d = (G[0, t] + arriving) * (1 - hs[t] ** 2)
    by_hand += np.outer(d, hs[t - 1] if t else np.zeros(4))
    arriving = W_hh.T @ d
print(f"by tape         differs by {np.abs(rnn.weight_hh_l0.grad.data - by_hand).max():.0e}")
values, ends = W_hh.copy(), []
for sign in (1, -1):
    values[1, 2] = W_hh[1, 2] + sign * 1e-5
    nudged = nn.RNN(3, 4, rng=rng, dtype=np.float64)
    nudged.load_state_dict({**rnn.state_dict(), "weight_hh_l0": values})
    ends.append((G * nudged(X[:1])[0].data).sum())
print(f"by differences  differs by less than 1e-8: {abs((ends[0] - ends[1]) / 2e-5 - by_hand[1, 2]) < 1e-8}")

# %% [markdown]
# ## On real data
#
# The prose of Python's standard library, character by character. An RNN, an LSTM and a GPT of about the same number of
# parameters, trained for the same number of steps on the same windows; the lines are counts from chapter 02. First the
# documents' program, corrected: `keras` is a thin face over the same modules.

# %%
prose = prepare(Settings.make())
train, held_out, V = prose.train.tokens, prose.held_out.tokens, prose.tokenizer.vocab_size
T = 64
N = budget(full=300, fast=4)
x = train[: N * T].reshape(N, T).astype(np.int64)
y = train[1 : N * T + 1].reshape(N, T).astype(np.int64)
model = keras.Sequential(
    [
        keras.layers.Embedding(V, 32),
        keras.layers.LSTM(64, return_sequences=True),
        keras.layers.Dense(V, activation="softmax"),
    ]
)
model.compile(optimizer="adam", loss=keras.losses.SparseCategoricalCrossentropy(), metrics=["accuracy"])

# %% tags=["experiment"]
history = model.fit(x, y, epochs=2, verbose=0).history
loss, accuracy = model.evaluate(x, y)
print(f"two epochs of C-001: loss {history['loss'][0]:.2f}, then {history['loss'][1]:.2f}; accuracy {accuracy:.2f}")
print(f"knowing nothing: {np.log(V):.2f}")

# %% [markdown]
# It runs, and two epochs on so little text are hardly a beginning. Now the comparison, with more text and larger steps.

# %%
steps = budget(full=500, fast=2)
rate = tl.optim.schedules.cosine(lr=5e-3, warmup=steps // 10, steps=steps, final=5e-5)


class RNNModel(nn.Module):
    """The plain network in the LSTM's place."""

    def __init__(self, rng):
        self.embedding = nn.Embedding(V, 64, rng=rng)
        self.layer = nn.RNN(64, 288, rng=rng)
        self.head = nn.Linear(288, V, rng=rng)

    def next_token_loss(self, ids, targets):
        return tl.cross_entropy(self.head(self.layer(self.embedding(ids))[0]), targets)


def trained(model):
    """Its losses on the way, and the held-out loss at the end."""
    opt, batches, losses = tl.optim.AdamW(model.parameters(), lr=0.0), Batches(train, 16, T + 1, seed=1), []
    for step in range(steps):
        ids = batches.at(step)["input_ids"]
        loss = model.next_token_loss(ids[:, :-1], ids[:, 1:])
        loss.backward()
        tl.optim.clip_grad_norm_(model.parameters(), 1.0)
        opt.lr = rate(step)
        opt.step()
        opt.zero_grad()
        losses.append(loss.item())
    with tl.no_grad():
        windows = eval_windows(held_out, T + 1, 32, limit=budget(full=256, fast=2))
        found = [model.next_token_loss(w["input_ids"][:, :-1], w["input_ids"][:, 1:]).item() for w in windows]
    return losses, float(np.mean(found))


def make(name):
    rng = np.random.default_rng(0)
    if name == "RNN":
        return RNNModel(rng)
    if name == "LSTM":
        return LSTMLanguageModel(LSTMConfig(vocab_size=V, embedding_size=64, hidden_size=136), rng=rng)
    config = GPTConfig(n_layer=2, n_head=4, n_embd=72, n_positions=T, vocab_size=V, initializer_range=0.06)
    return GPT(config, rng=rng)


# %% tags=["experiment"]
models = {name: make(name) for name in ("RNN", "LSTM", "GPT")}
results = {name: trained(model) for name, model in models.items()}
ladder = NGram(5, V).fit(train).ladder(held_out[:20_000])
for name, (_, loss) in results.items():
    print(f"{name:<5} {models[name].num_parameters():>8,} parameters, held out {loss:.3f}")
print(f"counts: bigram {ladder[2]:.3f}, trigram {ladder[3]:.3f}, 5-gram {ladder[5]:.3f}")
assert is_fast() or results["LSTM"][1] < ladder[2]

# %% tags=["experiment"]
figure = Figure(figsize=(7, 3.8), layout="constrained")
axes = figure.add_subplot()
for (name, (losses, _)), color in zip(results.items(), ("#d55e00", "#0072b2", "#009e73"), strict=True):
    smooth = np.convolve(losses, np.full(min(20, len(losses)), 1 / min(20, len(losses))), "valid")
    axes.plot(smooth, color=color, label=name)
for order, name in ((2, "bigram"), (3, "trigram"), (5, "5-gram")):
    axes.hlines(ladder[order], 0, len(smooth), color="#555555", linestyle=":")
    axes.text(len(smooth), ladder[order], f" {name}", va="center", color="#555555")
axes.set_xlim(0, 1.2 * len(smooth))
axes.set_xlabel("step")
axes.set_ylabel("nats per character, training")
axes.spines[["top", "right"]].set_visible(False)
axes.legend(frameon=False)
show(figure)

# %% [markdown]
# Do not expect the order of the first picture here. For the same number of parameters the plain network has twice the
# units, since an LSTM's matrices have four blocks; and on text like this, in windows of 64 characters and a run as
# short as this, little of what helps lies far back. Where the distance matters by design,
# `benchmarks/long_dependencies.py` measures it, on texts of growing length that are to be copied: there it is attention
# that makes the difference, for whatever a recurrent network is to repeat must first fit into its state.
#
# A recurrent model needs no windows: its state can go on. *Truncated* backpropagation carries the state from window to
# window and cuts the tape between them, which the last part of this chapter is about.
#
# ## Exercises


# %% tags=["exercise"]
def lstm_step(x, h, c, w_ih, w_hh, b):
    """One step of F-LSTM, blocks in the order i, f, g, o: the new h and the new c."""
    # BEGIN SOLUTION
    i, f, g, o = np.split(w_ih @ x + w_hh @ h + b, 4)
    i, f, o = (1 / (1 + np.exp(-gate)) for gate in (i, f, o))
    new_c = f * c + i * np.tanh(g)
    return o * np.tanh(new_c), new_c
    # END SOLUTION


check(lstm_step)


# %% tags=["exercise"]
def memory_vjp(dh, dc, i_gate, f_gate, o_gate, g, c):
    """The gradient of the old memory c, given those of h' = o tanh(c') and of c' = f c + i g."""
    # BEGIN SOLUTION
    new_c = f_gate * c + i_gate * g
    return (dc + dh * o_gate * (1 - np.tanh(new_c) ** 2)) * f_gate
    # END SOLUTION


check(memory_vjp)


# %% tags=["exercise"]
def through_time_vjp(g, states, first, w_hh):
    """The gradient of w_hh in h_t = tanh(a_t + w_hh h_(t-1)), given what arrives at each state, g (T, H)."""
    # BEGIN SOLUTION
    grad, arriving = np.zeros_like(w_hh), np.zeros_like(first)
    for t in reversed(range(len(g))):
        d = (g[t] + arriving) * (1 - states[t] ** 2)
        grad += np.outer(d, states[t - 1] if t else first)
        arriving = w_hh.T @ d
    return grad
    # END SOLUTION


check(through_time_vjp)


# %% tags=["exercise"]
def text_strands(tokens, rows, width):
    """Windows (windows, rows, width) of which row b continues row b of the window before."""
    # BEGIN SOLUTION
    n = len(tokens) // rows // width * width
    strands = tokens[: len(tokens) // rows * rows].reshape(rows, -1)[:, :n]
    return np.swapaxes(strands.reshape(rows, -1, width), 0, 1)
    # END SOLUTION


check(text_strands)

# %% [markdown]
# ## Break it
#
# A trainer that walks along a text hands the state from window to window. In Lightning-AI/pytorch-lightning the state
# came back attached to its tape, until pull request 8145, "Fix truncated_bptt_steps hiddens detach()". What happens
# then? The first window is fine. From the second on, backward wants to walk into the window before.

# %% tags=["experiment"]
walker = LSTMLanguageModel(LSTMConfig(vocab_size=V, embedding_size=8, hidden_size=16), rng=np.random.default_rng(0))
windows = [w["input_ids"] for w in consecutive_windows(train[:2000], batch_size=2, block_size=16)]


def suspicious(keep_tape):
    """Losses of four windows, the state handed on as it is; and how long the tape behind each is."""
    state, lengths = None, []
    for ids in windows[:4]:
        _, y, state = walker.model(ids[:, :-1], state)
        loss = tl.linear_cross_entropy(y, walker.head(), ids[:, 1:])
        lengths.append(len(reachable(loss)))
        loss.backward(retain_graph=keep_tape)
    return lengths


try:
    suspicious(keep_tape=False)
except RuntimeError as error:
    print(str(error).split(";")[0].split(" (")[0], "...")
print("operations behind the losses if every tape is kept:", suspicious(keep_tape=True))
print(
    "if the state is detached:                          ",
    [len(reachable(loss)) for loss in walker.truncated_losses({"input_ids": ids} for ids in windows[:4])],
)

# %% [markdown]
# The usual "remedy" for that error, `retain_graph=True`, makes it a fault that nobody sees: every step walks back to
# the beginning of the text, time and memory grow without end, and the weights have changed under the old part of the
# tape. Here the engine says so: a parameter that was moved since is not the one that was computed with.

# %% tags=["experiment"]
opt = tl.optim.SGD(walker.parameters(), lr=0.1)
state = None
try:
    for ids in windows[:2]:
        _, y, state = walker.model(ids[:, :-1], state)
        tl.linear_cross_entropy(y, walker.head(), ids[:, 1:]).backward(retain_graph=True)
        opt.step()
except RuntimeError as error:
    print(str(error).split(":")[0])


def suspicious_strands(tokens, rows, width):
    """A second fault of such trainers: the state belongs to another text."""
    return tokens[: len(tokens) // (rows * width) * rows * width].reshape(-1, rows, width)


report = examine(suspicious_strands, "text_strands")
print([law.law for law in report.checks if law.status == "failed"], report.likely[0])

# %% [markdown]
# ## What the field reports
#
# Hochreiter and Schmidhuber (1997) gave the memory cell; Gers, Schmidhuber and Cummins (2000) its forget gate, without
# which it can only fill up; Jozefowicz, Zaremba and Sutskever (2015) tried ten thousand variants and found that a
# forget bias of 1 was worth as much as any. Greff and others (2017), *LSTM: a search space odyssey*, agree. Merity,
# Keskar and Socher (2018) show how far a well regularised LSTM gets as a language model. State-space models and linear
# attention have brought the fixed-size state back. To read next: Bahdanau, Cho and Bengio (2015), where one
# recurrent network reads, another writes, and attention is invented to join them; chapter 15 does the same without
# recurrence.
#
# ## Summary
#
# * A recurrent network has a state of fixed size; each token costs the same.
# * Gradients come back through a product of step factors: matrices in the RNN, forget gates in the LSTM.
# * A gate near 1 is a highway; its bias decides whether it starts open.
# * The weights are used at every step, and their gradients add up over time.
# * Truncated backpropagation hands on the state, not the tape.
#
# ## Glossary
#
# | English | Chinese | meaning |
# |---|---|---|
# | recurrent neural network (RNN) | 循环神经网络 | reads step by step and keeps a state |
# | long short-term memory (LSTM) | 长短期记忆网络 | a recurrent network with gates and a memory |
# | gate | 门控 | a number from 0 to 1 that lets through, number by number |
# | hidden state | 隐藏状态 | what one step hands to the next |
# | vanishing gradient | 梯度消失 | a gradient that shrinks with every step back |
# | backpropagation through time | 随时间反向传播 | the chain rule along all steps |
