# %% [markdown]
# # 10 Mixture of experts
#
# **You will learn** how a model gets many more parameters at the same work per token: a gate sends each token to a few
# of many networks, the experts. You will compute such a gate by hand, sort tokens by their experts, differentiate the
# choice, find out why one more loss is needed, and see what happens where it is computed and never added.
#
# **You need** the block with its feed-forward network (chapter 06) and the training of a GPT (chapter 07).

# %% tags=["imports"]
import time

import numpy as np
from matplotlib.figure import Figure

import tinyllm as tl
from tinyllm.course import budget, check, examine, formula, is_fast, show
from tinyllm.formulas import moe
from tinyllm.formulas.sat import WORDS, sat_numbers
from tinyllm.models import Llama, LlamaConfig, Mixtral, MixtralConfig, NGram
from tinyllm.viz import loss_curve, step_backward

# %% [markdown]
# ## The question
#
# Two thirds of a block's parameters stand in its feed-forward network, and every token is multiplied by all of them:
# a comma as well as a name, Python as well as English. Could each token meet only the part that it needs? Here is what
# it would look like: six words, three networks, and a gate that lets every word use two of them. Dark means much.

# %%
X = np.array(sat_numbers()["X"], dtype=float)  # (T, C) = (6, 2): how much of a thing, how much of a deed
W_g = np.array([[2.0, 0.0], [0.0, 2.0], [1.0, 1.0]])  # (E, C): expert 0 asks for things, 1 for deeds, 2 for both
k, E = 2, len(W_g)
gates = np.array([moe.moe_gate(x, W_g.tolist(), k) for x in X.tolist()])  # (T, E)
figure = Figure(figsize=(5, 3.4), layout="constrained")
axes = figure.add_subplot()
axes.imshow(gates, cmap="Blues", vmin=0, vmax=1, aspect="auto")
axes.set_xticks(range(E), [f"expert {e}" for e in range(E)])
axes.set_yticks(range(len(WORDS)), WORDS)
for (t, e), share in np.ndenumerate(gates):
    axes.text(e, t, f"{share:.2f}" if share else "-", ha="center", va="center", color="w" if share > 0.6 else "k")
show(figure)

# %% [markdown]
# ## The formula
#
# One of the documents has the mixture of experts in its title and nowhere else. What it leaves out:

# %%
formula("F-MOE")

# %% [markdown]
# ## By hand
#
# The gate first. Expert e gives a token the score $w_e \cdot x$. The two best are kept; a softmax over these two says
# how much each counts; the third gets exactly 0 and is never computed. Of equal scores the first expert wins.

# %%
print(f"{'word':<5} {'vector':<12} {'scores':<18} kept, and how much")
for word, x in zip(WORDS, X.tolist(), strict=True):
    scores = [sum(w * v for w, v in zip(row, x, strict=True)) for row in W_g.tolist()]
    kept = sorted(range(E), key=lambda e: -scores[e])[:k]  # Python's sort keeps the order of equals
    total = sum(np.exp(scores[e]) for e in kept)
    told = ", ".join(f"{e}: {np.exp(scores[e]) / total:.4f}" for e in kept)
    print(f"{word:<5} {x!s:<12} {scores!s:<18} {told}")

# %% [markdown]
# Now the experts. Real ones are networks; ours double, exchange and negate the two numbers. The word's new vector is
# the sum of what its two experts make of it, each times its gate. Count the calls: two for each word, not three.

# %%
experts = [lambda v: [2 * v[0], 2 * v[1]], lambda v: [v[1], v[0]], lambda v: [-v[0], -v[1]]]
calls = 0
for word, x, gate in zip(WORDS, X.tolist(), gates, strict=True):
    y = [0.0, 0.0]
    for e in range(E):
        if gate[e] > 0:
            from_expert = experts[e](x)
            calls += 1
            for j in range(2):
                y[j] += gate[e] * from_expert[j]
    print(f"{word:<5} -> ({y[0]:.4f}, {y[1]:.4f})")
print(f"{calls} calls; all experts for all words would be {E * len(WORDS)}")

# %% [markdown]
# And the loss of balance. Nothing in the above keeps the gate from sending all words to the same experts, which are
# then trained most and become better still, so that even more is sent to them. So one looks at two numbers for every
# expert: $f_e$, the share of words whose best expert it is, and $P_e$, the mean probability that a softmax over *all*
# scores gives it.

# %%
probabilities = np.array([np.exp(W_g @ x) / np.exp(W_g @ x).sum() for x in X])  # (T, E)
f, P = [0.0] * E, [0.0] * E
for p in probabilities:
    f[int(np.argmax(p))] += 1 / len(X)
    for e in range(E):
        P[e] += p[e] / len(X)
print("f =", np.round(f, 4), " P =", np.round(P, 4))
print(f"E sum f P = {E * sum(a * b for a, b in zip(f, P, strict=True)):.4f}; evenly spread it would be 1,")
print(f"all to one expert, and surely so, {E}")

# %% [markdown]
# Our gate likes expert 0: it wins "The" and "the", whose vectors are zero, by the rule for equals alone. Expert 2 is
# nobody's first choice.
#
# ## Step through
#
# The library's layer, `nn.MoE`, with the same gate. Its experts are SwiGLU networks, $W_2(\mathrm{silu}(W_1 x) \odot
# W_3 x)$, here with two channels inside. The tape, from the words to a loss (the mean square of the result):

# %%
layer = tl.nn.MoE(2, 2, E, k, std=1.0, out_std=1.0, rng=np.random.default_rng(0), dtype=np.float64)
layer.gate.weight.assign_(W_g)
y, routing = layer(tl.tensor(X, requires_grad=True))
loss = (y * y).mean()
tl.print_tape(loss)

# %% [markdown]
# Row by row. The gate's scores (6, 3); the two best of each word (6, 2) and their softmax. Then the twelve choices are
# *sorted by expert*: `embedding` picks the words' rows in that order, (12, 2), some of them twice. `grouped_linear`
# is one product of matrices for every group of rows; three of these with a swiglu between them are all the experts at
# work. The second `embedding` puts the results back where they belong, times the gate, and the two of each word are
# added. Who went where is in `routing`:

# %%
order = np.argsort(routing.chosen.reshape(-1), kind="stable")
print("choices of each word    ", routing.chosen.tolist())
print("words sorted by expert  ", [WORDS[i // k] for i in order])
print("rows of each expert     ", routing.counts.tolist())

# %% [markdown]
# Backward, the same roads in the other direction: a word used by two experts gets two gradients, added; an expert gets
# the gradients of its own rows alone; an expert that nobody chose would get zeros.

# %%
for i, step in enumerate(step_backward(loss).steps, start=1):
    sizes = [f"{np.abs(g.data).max():.3f}" for g in step.in_grads if g is not None]
    print(f"{i:>2} {step.node.op.name:<16} largest gradients handed on: {', '.join(sizes)}")

# %% [markdown]
# ## All at once
#
# The sorted products against the loops of the formula, word by word and expert by expert; and the work that is saved.
# A model of eight experts, two of which a token uses, has four times the parameters of those that a token meets.

# %%
silu = lambda v: v / (1 + np.exp(-v))  # noqa: E731
matrices = [[getattr(e, name).weight.numpy() for name in ("w1", "w2", "w3")] for e in layer.experts]
networks = [lambda v, m=m: (m[1] @ (silu(m[0] @ v) * (m[2] @ v))).tolist() for m in matrices]
loops = [moe.moe(x, W_g.tolist(), networks, k) for x in X.tolist()]
print(f"layer and loops differ by {np.abs(y.data - loops).max():.0e}")

rng = np.random.default_rng(0)
tokens = tl.tensor(rng.normal(size=(budget(full=4096, fast=64), 64)).astype(np.float32))
seconds = {}
for experts_used in (2, 8):
    wide = tl.nn.MoE(64, 128, 8, experts_used, rng=rng)
    wide(tokens)  # kernels are compiled at their first use
    begin = time.perf_counter()
    for _ in range(5):
        wide(tokens)
    seconds[experts_used] = (time.perf_counter() - begin) / 5
print(f"{wide.num_parameters():,} parameters; of those of the experts, {2 / 8:.0%} meet a token that uses two of eight")

# %% tags=["timing"]
print(f"two experts of eight {1e3 * seconds[2]:.1f} ms, all eight {1e3 * seconds[8]:.1f} ms")

# %% [markdown]
# ## The derivative
#
# Who is chosen is a decision, and has no derivative: a little more score changes nobody's place, almost everywhere.
# How much the chosen count does have one. With $y = \sum_e G_e o_e$, $G$ the softmax of the kept scores $s$, and $g$
# the gradient of $y$, let $d_e = g \cdot o_e$ be how much the loss would like more of expert $e$. Chapter 05 has the
# way through a softmax:
#
# $$\frac{\partial L}{\partial s_e} = G_e \Big(d_e - \sum_j G_j d_j\Big).$$
#
# So a gate learns by comparing the experts that were used *with each other*. One that was not used is never heard of;
# with k = 1 there is nothing to compare, $G = 1$, and the gradient is 0. In the balance loss $f$ is a count and has no
# derivative either; it is $P$ that carries the gradient, $\partial L / \partial p_{te} = \alpha E f_e / T$: the more
# an expert is used, the more every token's probability for it is pushed down.

# %%
g = 2 * y.data / y.data.size  # the gradient of the mean square
outputs = np.array([[network(x) for network in networks] for x in X])  # (T, E, C)
d = np.einsum("tc,tec->te", g, outputs)
by_hand = (gates * (d - (gates * d).sum(axis=1, keepdims=True))).T @ X  # (E, C), as scores are X @ W_g.T
print("the gate's gradient, row by expert\n", np.round(by_hand, 4))


def loss_of(weight):
    """The loss with another gate."""
    layer.gate.weight.assign_(weight)
    result, _ = layer(tl.tensor(X))
    return (result * result).mean()


layer.zero_grad()
loss_of(W_g).backward()
by_tape, by_differences = layer.gate.weight.grad.numpy(), np.zeros_like(W_g)
for place in np.ndindex(W_g.shape):
    nudge = np.zeros_like(W_g)
    nudge[place] = 1e-6
    by_differences[place] = (loss_of(W_g + nudge) - loss_of(W_g - nudge)).item() / 2e-6
print(f"by tape         differs by {np.abs(by_tape - by_hand).max():.0e}")
print(f"by differences  differs by less than 1e-7: {np.abs(by_differences - by_hand).max() < 1e-7}")

# %% [markdown]
# ## On real data
#
# Prose and code of Python's standard library, byte by byte. Three models see the same bytes in the same order: a dense
# Llama, and two mixtures (Mixtral) whose tokens use 2 of 8 experts of half the width, so that a token meets as many
# numbers, but for the gate. One mixture's balance loss counts 0.01; the other's is computed and does not count. Every
# batch has as much prose as code, and so has the held-out text.

# %% tags=["experiment"]
kinds, size = ("prose", "code"), budget(full=800_000, fast=20_000)
train, held_out = {}, {}
for kind in kinds:
    parts = tl.data.split(tl.data.load(f"stdlib-{kind}"))
    raw = ["\n\n".join(document.text for document in part.documents).encode()[:size] for part in parts]
    train[kind], held_out[kind] = (np.frombuffer(text, np.uint8).astype(np.int64) for text in raw)
    held_out[kind] = held_out[kind][: size // 16]
counts = NGram(5, 256).fit(np.concatenate(list(train.values())))
lines = {kind: counts.loss(held_out[kind]) for kind in kinds}
print("5-gram, nats per byte:", {kind: round(line, 3) for kind, line in lines.items()})

# %%
T, B, steps = 64, 8, budget(full=500, fast=3)
shape = {"vocab_size": 256, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
shape |= {"max_position_embeddings": T, "initializer_range": 0.08, "tie_word_embeddings": True}
mixed = {"num_local_experts": 8, "num_experts_per_tok": 2, "intermediate_size": 96}


def trained(model):
    """Train the model; its losses, and for every 20th step the shares of tokens that the last layer's experts read."""
    batches = [tl.data.Batches(train[kind], B, T + 1, seed) for seed, kind in enumerate(kinds)]
    rate = tl.optim.schedules.cosine(lr=4e-3, warmup=max(1, steps // 15), steps=steps, final=4e-5)
    optimizer, losses, usage = tl.optim.AdamW(model.parameters(), betas=(0.9, 0.99)), [], []
    for step in range(steps):
        ids = np.concatenate([each.at(step)["input_ids"] for each in batches])
        out = model(ids, labels=ids)
        out.loss.backward()
        tl.optim.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.lr = rate(step)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(out.loss.item())
        if isinstance(model, Mixtral):
            losses[-1] -= model.config.router_aux_loss_coef * out.aux_loss.item()  # what is left can be compared
            if step % 20 == 0:
                usage.append(out.routing[-1].counts / out.routing[-1].tokens.sum())
    return losses, np.array(usage)


def judged(model):
    """Nats per byte of each kind of held-out text."""
    model.eval()
    found = {}
    for kind in kinds:
        windows = [w["input_ids"] for w in tl.data.eval_windows(held_out[kind], T + 1, 32)]
        with tl.no_grad():
            each = [model.next_token_loss(ids[:, :-1], ids[:, 1:]).item() * len(ids) for ids in windows]
        found[kind] = sum(each) / sum(len(ids) for ids in windows)
    return found


# %% tags=["experiment"]
models = {"dense": Llama(LlamaConfig(intermediate_size=192, **shape), rng=np.random.default_rng(0))}
for weight in (0.0, 0.01):
    config = MixtralConfig(router_aux_loss_coef=weight, **mixed, **shape)
    models[f"mixture, balance {weight:g}"] = Mixtral(config, rng=np.random.default_rng(0))
curves, usages, results = {}, {}, {}
for name, model in models.items():
    curves[name], usages[name] = trained(model)
    results[name] = judged(model)
    told = ", ".join(f"{kind} {loss:.3f}" for kind, loss in results[name].items())
    print(f"{name:<22} {model.num_parameters():>8,} parameters; held out: {told}")
means = {name: np.mean(list(found.values())) for name, found in results.items()}
assert is_fast() or max(means.values()) - min(means.values()) < 0.06

# %% [markdown]
# The mixtures have nearly three times the parameters, at nearly the same work per byte, and after so few steps the
# three are about level: each expert has learnt from a quarter of the bytes. What more parameters are worth is a matter
# of longer runs (`benchmarks/moe.py` has one). What have the gates done? From left to right the steps of training;
# stacked from bottom to top, for each expert of the last layer, the share of the tokens that chose it. Every token
# chooses two, so that the shares sum to 2, and none can be above 1.

# %% tags=["experiment"]
colours = ("#0072b2", "#d55e00", "#e69f00", "#009e73", "#56b4e9", "#cc79a7", "#555555", "#f0e442")
figure = Figure(figsize=(8, 3), layout="constrained")
for axes, (name, usage) in zip(figure.subplots(1, 2, sharey=True), list(usages.items())[1:], strict=True):
    axes.stackplot(20 * np.arange(len(usage)), usage.T, colors=colours)
    axes.set_title(name, fontsize=11, loc="left")
    axes.set_xlabel("step")
    axes.margins(0)
figure.axes[0].set_ylabel("share of the tokens")
show(figure)
for name, usage in list(usages.items())[1:]:
    told = ", ".join(f"{share:.0%}" for share in np.sort(usage[-1])[::-1])
    print(f"{name:<22} at the end the experts have of the tokens: {told}")
assert is_fast() or usages["mixture, balance 0.01"][-1].max() < 0.8 * usages["mixture, balance 0"][-1].max()

# %% [markdown]
# Without the balance loss one expert, or two, take part in nearly everything, and some might as well not be there:
# their parameters are paid for and hardly used. The losses hardly show it. And who reads what? For each kind of
# held-out text, the share of its choices that went to each expert, in both layers.

# %% tags=["experiment"]
balanced = models["mixture, balance 0.01"]
for layer_number in range(2):
    for kind in kinds:
        ids = held_out[kind][: len(held_out[kind]) // T * T].reshape(-1, T)
        with tl.no_grad():
            went = balanced(ids).routing[layer_number].counts
        print(f"layer {layer_number + 1}, {kind:<6}", "  ".join(f"{share:>4.0%}" for share in went / went.sum()))

# %% [markdown]
# Prose and code are not divided among the experts: most are used by both, in other proportions. What they divide is
# finer than kinds of text. For each expert of the last layer, the characters of which it reads the largest share:

# %% tags=["experiment"]
both = np.concatenate([held_out[kind][: len(held_out[kind]) // T * T].reshape(-1, T) for kind in kinds])
with tl.no_grad():
    went = balanced(both).routing[-1].chosen  # (N, k)
often = [c for c in np.unique(both) if (both == c).sum() >= both.size // 200]
share = np.array([[np.mean((went[both.reshape(-1) == c] == e).any(axis=1)) for e in range(8)] for c in often])
for e in range(8):
    top = sorted(zip(share[:, e], often, strict=True), reverse=True)[:6]
    print(f"expert {e + 1}:", "  ".join(f"{chr(c)!r} {s:.0%}" for s, c in top))

# %% [markdown]
# ## Exercises


# %% tags=["exercise"]
def topk_gate(scores, k):
    """Softmax over the k largest of each row of scores (N, E), of equal ones the first; 0 for the others."""
    # BEGIN SOLUTION
    order = np.argsort(-scores, axis=-1, kind="stable")[:, :k]
    kept = np.full(scores.shape, -np.inf)
    np.put_along_axis(kept, order, np.take_along_axis(scores, order, axis=-1), axis=-1)
    e = np.exp(kept - kept.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)
    # END SOLUTION


check(topk_gate)


# %% tags=["exercise"]
def gate_vjp(g, gates, outputs):
    """The gradient (N, E) of the kept scores, for y[n] = sum over e of gates[n, e] outputs[n, e], given g (N, C)."""
    # BEGIN SOLUTION
    d = np.einsum("nc,nec->ne", g, outputs)
    return gates * (d - (gates * d).sum(axis=-1, keepdims=True))
    # END SOLUTION


check(gate_vjp)


# %% tags=["exercise"]
def kept_by_capacity(chosen, capacity):
    """1.0 for each token that its expert chosen[t] still reads, the first `capacity` ones; 0.0 for those dropped."""
    # BEGIN SOLUTION
    read, kept = np.zeros(chosen.max() + 1), np.zeros(len(chosen))
    for t, e in enumerate(chosen):
        if read[e] < capacity:
            kept[t] = 1.0
            read[e] += 1
    return kept
    # END SOLUTION


check(kept_by_capacity)


# %% tags=["exercise"]
def mixture_loss(surprise, probabilities, alpha):
    """The mean of surprise (N,) plus the balance loss alpha E sum_e f_e P_e of probabilities (N, E)."""
    # BEGIN SOLUTION
    N, E = probabilities.shape
    f = np.bincount(probabilities.argmax(axis=1), minlength=E) / N
    return surprise.mean() + alpha * E * (f * probabilities.mean(axis=0)).sum()
    # END SOLUTION


check(mixture_loss)

# %% [markdown]
# ## Break it
#
# Issue 140 of minimind, a small language model with a mixture of experts, is about a balance loss that was computed in
# every step and never added to what was minimised. Nothing crashes. The number is even in the log, and the model's own
# loss falls as it should.


# %%
def suspicious_loss(surprise, probabilities, alpha):
    """The loss of a mixture, says its author."""
    f = np.bincount(probabilities.argmax(axis=1), minlength=probabilities.shape[1]) / len(probabilities)
    balance = alpha * probabilities.shape[1] * (f * probabilities.mean(axis=0)).sum()
    print(f"  [log] balance loss {balance:.4f}") if alpha == 0.01 else None
    return surprise.mean()


suspicious_loss(np.ones(6), probabilities, alpha=0.01)
report = examine(suspicious_loss, "mixture_loss")
print([check.law for check in report.checks if check.status == "failed"], report.likely[0])

# %% [markdown]
# Without a check for the function, ask the model. A coefficient that does something must show in the gradient of the
# gates: raise it from 0 to 1, and the difference has to be the gradient of the balance loss alone. And the picture
# above, of the mixture whose balance did not count, is what a log of the experts' shares would have shown.

# %%
ids = held_out["prose"][: 4 * T].reshape(4, T)


def gate_gradient(weight, part="loss"):
    """The gradient of the first gate."""
    config = MixtralConfig(router_aux_loss_coef=weight, **mixed, **shape)
    model = Mixtral(config, rng=np.random.default_rng(0), dtype=np.float64)
    getattr(model(ids, labels=ids), part).backward()
    return model.model.layers[0].block_sparse_moe.gate.weight.grad.numpy()


alone = gate_gradient(0.0, "aux_loss")
difference = gate_gradient(1.0) - gate_gradient(0.0)
print(f"gradient of the balance loss: up to {np.abs(alone).max():.4f}")
print(f"added by the coefficient: the same to {np.abs(difference - alone).max() / np.abs(alone).max():.0e}")
print("if it were never added, the second line's difference would be 1")

# %% tags=["experiment"]
names = ("mixture, balance 0", "mixture, balance 0.01")
mean_of = min(9, steps)  # neighbouring steps, so that the curves can be told apart
smooth = [np.convolve(curves[name], np.ones(mean_of) / mean_of, "valid") for name in names]
points = [(range(mean_of, steps + 1)[::every], losses[::every]) for losses, every in zip(smooth, (1, 24), strict=True)]
baseline = [("5-gram, held out", float(np.mean(list(lines.values()))))]
show(loss_curve(points[0], points[1], baseline, "training loss: balance not added, and added", "balance added"))

# %% [markdown]
# The two curves lie close to one another: the loss is no alarm. *Watch the shares of the experts.*
#
# ## What the field reports
#
# Shazeer and others (2017) put a mixture between the layers of an LSTM; Fedus and others (2022) took one expert per
# token, a capacity, and the balance loss of this chapter; Mixtral (Jiang and others 2024) uses two of eight, as here.
# Its authors looked for experts of subjects and found none: neighbouring tokens, and tokens of one syntax, go together.
# A capacity drops tokens (exercise 3), so that a token's result depends on its neighbours in the batch; sorting, as in
# `nn.MoE`, drops none. A longer run with Chinese text beside prose and code is in `benchmarks/moe.py`.
#
# ## Summary
#
# * A gate sends each token to k of E networks: E / k times the parameters at the same work per token.
# * Tokens are sorted by expert, so that each expert is one product of matrices; nothing is padded or dropped.
# * Choosing has no derivative; how much the chosen count has one. The unchosen learn nothing.
# * Hence the balance loss, E sum f P. It has to be *added*.
# * A loss curve does not show a collapse. Shares do.
#
# ## Glossary
#
# | English | Chinese | meaning |
# |---|---|---|
# | mixture of experts | 混合专家 | many networks, of which each token uses a few |
# | gate, router | 门控, 路由 | what scores the experts for a token |
# | top-k routing | top-k 路由 | using the k experts of the largest scores |
# | load balancing loss | 负载均衡损失 | what keeps the gate from sending all to a few |
# | capacity | 专家容量 | how many tokens an expert reads of a batch |
# | sparse activation | 稀疏激活 | parameters that exist and are not used by this token |
