# %% [markdown]
# # 01 Backward is a program: the chain rule, the tape, your own engine
#
# **You will learn** how a computer differentiates: not with symbols and not with small steps, but by writing down what
# was computed and walking back. You will write five of the rules, read a whole engine in sixty lines, and then watch
# tinyllm's do the same.
#
# **You need** derivatives of one variable, the product of matrices, and Python.

# %% tags=["imports"]
import numpy as np

import tinyllm as tl
from tinyllm.course import budget, check, examine, formula, is_fast, show
from tinyllm.models import NGram
from tinyllm.viz import draw_tape, loss_curve, step_backward

# %% [markdown]
# ## The question
#
# A model has a million numbers in it, and one number, the loss, says how bad it is. In which direction should each of
# the million be moved? One could nudge them one by one and measure: a million runs for one step. There is a way that
# takes about as long as *three* runs, for any number of parameters. Here is the idea in one picture: a small
# computation, drawn with the values that go down (blue) and the gradients that come back up (orange).

# %%
x = tl.tensor([1.0, 2.0], requires_grad=True)
w = tl.tensor([0.5, -1.0], requires_grad=True)
loss = tl.sum(tl.tanh(x * w))
steps = list(tl.backward_steps(loss, retain_graph=True))
show(draw_tape(loss, steps, {"x": x, "w": w}))

# %% [markdown]
# ## The formula
#
# The chain rule. If $y = f(x)$ and the loss depends on $x$ through $y$ alone,
#
# $$\frac{\partial L}{\partial x_j} = \sum_i \frac{\partial L}{\partial y_i} \frac{\partial y_i}{\partial x_j} .$$
#
# Read it as a job description for each operation: *given the gradient $g_i = \partial L / \partial y_i$ that arrives
# at my output, hand a gradient to my input.* Nobody needs to know the whole. In the documents this is one step of the
# procedure that everything else in this course serves:

# %%
formula("P-TRAIN")

# %% [markdown]
# ## By hand
#
# Six numbers, two at a time: $L = \sum_i \tanh(x_i w_i)$ for two pairs, with a pencil. Forward, then backward, one
# line for each operation, and nothing but Python's own numbers:

# %%
from math import tanh

x1, x2, w1, w2 = 1.0, 2.0, 0.5, -1.0
p1, p2 = x1 * w1, x2 * w2
t1, t2 = tanh(p1), tanh(p2)
L = t1 + t2
print(f"forward:  p = ({p1}, {p2})   t = ({t1:.4f}, {t2:.4f})   L = {L:.4f}")

dt1, dt2 = 1.0, 1.0  # L = t1 + t2: each counts once
dp1, dp2 = dt1 * (1 - t1**2), dt2 * (1 - t2**2)  # the derivative of tanh is 1 - tanh^2
dx1, dx2 = dp1 * w1, dp2 * w2  # the derivative of x w by x is w
dw1, dw2 = dp1 * x1, dp2 * x2
print(f"backward: dp = ({dp1:.4f}, {dp2:.4f})   dx = ({dx1:.4f}, {dx2:.4f})   dw = ({dw1:.4f}, {dw2:.4f})")

# %% [markdown]
# Compare with the picture above. Nothing here is symbolic, and nothing is approximate. The lines of the backward part
# are those of the forward part in reverse order. A program can write them: it only has to remember what was done.
# Here is that program, an engine for single numbers. Read it to the end; there is no magic left afterwards.


# %%
class Number:
    """A number that remembers how it was computed."""

    def __init__(self, value, inputs=(), rule=None):
        self.value, self.inputs, self.rule, self.grad = value, inputs, rule, 0.0

    def __add__(self, other):
        return Number(self.value + other.value, (self, other), lambda g, y: (g, g))

    def __mul__(self, other):
        a, b = self.value, other.value
        return Number(a * b, (self, other), lambda g, y: (g * b, g * a))

    def tanh(self):
        return Number(tanh(self.value), (self,), lambda g, y: (g * (1 - y * y),))


def backward(loss):
    """Give every number behind `loss` its gradient."""
    order, seen = [], set()

    def visit(n):  # inputs first: afterwards `order` is an order in which things could have been computed
        if id(n) not in seen:
            seen.add(id(n))
            for i in n.inputs:
                visit(i)
            order.append(n)

    visit(loss)
    loss.grad = 1.0
    for n in reversed(order):  # latest first: when we come to n, all who used it have sent their part
        if n.rule:
            for i, d in zip(n.inputs, n.rule(n.grad, n.value), strict=True):
                i.grad += d  # += : a number that is used twice gets two gradients


numbers = [Number(v) for v in (x1, x2, w1, w2)]
a, b, c, d = numbers
backward((a * c).tanh() + (b * d).tanh())
print("dx, dw by the engine:", [round(n.grad, 4) for n in numbers])

# %% [markdown]
# ## Step through
#
# tinyllm's engine is the same program for arrays. It writes the *tape*: one line for each operation. Order of
# creation is order enough, so it needs no `visit`.

# %%
tl.print_tape(loss)

# %%
step_backward(loss, names={"x": x, "w": w})

# %% [markdown]
# Each step takes one line of the tape, latest first. `backward_steps` is a generator; `loss.backward()` only exhausts
# it. Print the steps if you prefer text:

# %%
for step in tl.backward_steps(loss, retain_graph=True):
    print(step)

# %% [markdown]
# ## All at once
#
# Arrays bring one new thing: *broadcasting*. In `X @ W + b` with `b` of shape (3,) and the product of shape (4, 3),
# each number of `b` is used four times. Four uses send back four gradients, and they add up. tinyllm writes the
# copying on the tape as a step of its own, `broadcast_to`; its adjoint is a sum, in one place for all operations.

# %%
rng = np.random.default_rng(0)
X = tl.tensor(rng.normal(size=(4, 2)))
W = tl.tensor(rng.normal(size=(2, 3)), requires_grad=True)
b = tl.tensor(rng.normal(size=3), requires_grad=True)
y = X @ W + b
tl.print_tape(y)

g = rng.normal(size=(4, 3))
y.backward(g)
loops = np.zeros(3)
for i in range(4):
    for j in range(3):
        loops[j] += g[i, j]
print(
    "gradient of b:", np.round(b.grad.data, 4), f"  differs from the loops by {np.abs(b.grad.data - loops).max():.0e}"
)

# %% [markdown]
# ## The derivative
#
# Three rules cover most of a language model. The product of matrices $y_{ij} = \sum_k a_{ik} b_{kj}$: the number
# $a_{ik}$ touches $y_{ij}$ for every $j$, each time with the factor $b_{kj}$, so
#
# $$\frac{\partial L}{\partial a_{ik}} = \sum_j g_{ij} b_{kj}, \qquad \text{that is} \quad da = g\, b^\top,
# \qquad \text{and likewise} \quad db = a^\top g .$$
#
# Broadcasting copies, $y_{ij} = b_j$, and its adjoint sums, $db_j = \sum_i g_{ij}$. Picking rows, $y_i = t_{k_i}$, is
# copying too; its adjoint adds each gradient to the row that it came from. By hand, by the tape, by differences:

# %%
by_hand = X.data.T @ g
print(f"by tape         differs by {np.abs(W.grad.data - by_hand).max():.0e}")
nudge = np.zeros((2, 3))
nudge[1, 2] = 1e-6
above, below = (X.data @ (W.data + s * nudge) + b.data for s in (1, -1))
by_differences = (g * (above - below)).sum() / 2e-6
print(f"by differences  differs by less than 1e-8: {abs(by_differences - by_hand[1, 2]) < 1e-8}")

# %% [markdown]
# Differences are how one *checks* gradients, and `tl.testing.gradcheck` does it carefully (with random incoming
# gradients, since with ones mistakes can cancel, and with an estimate of its own error). Nudging is no way to train:
# one run for each parameter.
#
# ## On real data
#
# A first language model by gradient descent: a table of scores, a row for each character, whose softmax is to predict
# the next character. The best such table is known without any descent: count the pairs. If backward is right, descent
# must arrive at the counted optimum, and not below it.

# %% tags=["experiment"]
from tinyllm.data import load

text = " ".join(document.text for document in load("stdlib-prose").documents)[: budget(full=400_000, fast=20_000)]
alphabet = sorted(set(text))
ids = np.searchsorted(alphabet, list(text))
V = len(alphabet)
optimum = NGram(2, V, smoothing="mle").fit(ids).loss(ids)
print(f"{len(ids):,} characters, {V} different; the counted optimum is {optimum:.4f} nats per character")

# %% tags=["experiment"]
pairs = np.zeros((V, V))
np.add.at(pairs, (ids[:-1], ids[1:]), 1)
pairs = pairs[pairs.sum(axis=1) > 0]  # rows that are followed by something
share = pairs / pairs.sum()

table = tl.tensor(np.zeros_like(share), requires_grad=True)
opt = tl.optim.Adam([table], lr=0.1)
losses = []
for _ in range(budget(full=400, fast=5)):
    loss = -tl.sum(share * tl.log_softmax(table, axis=-1))  # the mean over all pairs of the text
    loss.backward()
    opt.step()
    opt.zero_grad()
    losses.append(loss.item())
print(f"descent arrives at {losses[-1]:.4f}")
assert is_fast() or 0 <= losses[-1] - optimum < 0.01

# %% tags=["experiment"]
lines = [("uniform", float(np.log(V))), ("counted optimum", optimum)]
steps = range(1, len(losses) + 1)
show(loss_curve((steps, losses), ([steps[-1]], [losses[-1]]), lines, "a bigram table", "last"))

# %% [markdown]
# makemore's names, if you have them, give a figure that the field knows: 2.4540 for the counted bigrams.

# %%
import os
from pathlib import Path

names = Path(os.environ.get("TINYLLM_DATA", "nowhere"), "names", "names.txt")
if names.exists():
    words = names.read_text().split()
    symbols = [np.array([0, *(ord(c) - 96 for c in word), 0]) for word in words]
    print(f"names: {NGram(2, 27, smoothing='mle').fit(symbols).loss(symbols):.4f} nats per symbol")

# %% [markdown]
# ## Exercises
#
# Five rules. `check` runs each on several shapes and says what is wrong; `hint("multiply_vjp")` helps on.


# %% tags=["exercise"]
def multiply_vjp(g, a, b):
    """y = a * b: the gradients (da, db), given g, the gradient of y."""
    # BEGIN SOLUTION
    return g * b, g * a
    # END SOLUTION


check(multiply_vjp)


# %% tags=["exercise"]
def tanh_vjp(g, y):
    """y = tanh(x): the gradient of x, given g and the result y."""
    # BEGIN SOLUTION
    return g * (1 - y * y)
    # END SOLUTION


check(tanh_vjp)


# %% tags=["exercise"]
def matmul_vjp(g, a, b):
    """y = a @ b: the gradients (da, db), given g."""
    # BEGIN SOLUTION
    return g @ b.T, a.T @ g
    # END SOLUTION


check(matmul_vjp)


# %% tags=["exercise"]
def unbroadcast(g, shape):
    """The gradient of something of this shape that was broadcast to the shape of g."""
    # BEGIN SOLUTION
    g = g.sum(axis=tuple(range(g.ndim - len(shape))))
    stretched = tuple(i for i, n in enumerate(shape) if n == 1 and g.shape[i] > 1)
    return g.sum(axis=stretched, keepdims=True)
    # END SOLUTION


check(unbroadcast)


# %% tags=["exercise"]
def gather_vjp(g, ids, rows):
    """y = table[ids]: the gradient of the table, which has so many rows, given g (len(ids), C)."""
    # BEGIN SOLUTION
    table = np.zeros((rows, g.shape[1]))
    np.add.at(table, ids, g)
    return table
    # END SOLUTION


check(gather_vjp)

# %% [markdown]
# ## Break it
#
# "Gradients for broadcast variables: wrong shape (not reduced)" is issue 2424 of deeplearning4j's nd4j. PyTorch
# (issue 1787) and burn (181) had it too; every engine meets it once. Here is the rule of `y = x + b` as many write it
# first. With NumPy, `b = b - 0.1 * db` then quietly makes b larger, of a shape that broadcasts on:


# %%
def suspicious(g, shape):
    """The gradient of b in x + b, says its author: an addition hands the gradient on."""
    return g


b = np.zeros(3)
b = b - 0.1 * suspicious(np.ones((4, 3)), b.shape)
print("b had shape (3,), and now has", b.shape)
print(examine(suspicious, "unbroadcast").likely[0])

# %% [markdown]
# tinyllm's walk asserts on every edge that gradient and value agree in shape and dtype: such a rule cannot pass.
#
# ## What the field reports
#
# micrograd does what our `Number` does in 94 lines, and it is where many learn this; HIPS autograd's core has 415;
# tinyllm's tape and tensor are meant to be read in one sitting as well: `tinyllm/autograd/tape.py`. To read next:
# Baydin and others, *Automatic differentiation in machine learning: a survey* (2018), sections 2 and 3.
#
# ## Summary
#
# * Write down what was computed; walk back; each operation turns its output's gradient into its inputs'.
# * What is used several times gets several gradients, and they add up: that is broadcasting's sum, too.
# * The cost is that of three forward passes or so, for any number of parameters.
# * Differences are for checking.
#
# ## Glossary
#
# | English | Chinese | meaning |
# |---|---|---|
# | chain rule | 链式法则 | how derivatives of composed functions multiply |
# | tape, computation graph | 计算图 | what was computed from what |
# | reverse mode | 反向模式 | from the one result back to the many inputs |
# | cotangent | 余切（上游梯度） | the gradient that arrives at an output |
# | adjoint | 伴随 | an operation's way back: copying and summing, picking and scattering |
# | broadcasting | 广播 | using one number in place of many |
