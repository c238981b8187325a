# %% [markdown]
# # 08 Fast: from loops to fused kernels, and one rung further
# **You will learn** why two programs with the same multiplications differ a thousandfold in time; how a softmax is
# computed from pieces; how backward does without weights that nobody stored; to find your machine's limits, and a race.
#
# **You need** attention and its derivative (chapter 05), the tape (chapter 01).

# %% tags=["imports"]
import importlib.util
import os
import subprocess
import sys

import numba
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

import tinyllm as tl
from tinyllm import threads
from tinyllm.course import budget, check, formula, is_fast, show
from tinyllm.formulas import attention as literal
from tinyllm.formulas.sat import sat_numbers
from tinyllm.kernels.cpu.compile import FAST
from tinyllm.profile.limits import Limits, best_time
from tinyllm.viz import draw_tape, step_backward
from tinyllm.viz.roofline import Point, roofline

# %% [markdown]
# ## The question
# Attention over $T$ positions has $T^2$ weights: twice the text, four times the memory. Must they all be there at once?
# The picture is the answer. On the left, what the formula says: a weight for each pair. On the right, what a fast
# program holds at any moment: *one tile* of it, and two numbers for each row.

# %%
rng = np.random.default_rng(4)
weights = tl.softmax(np.where(np.tri(16, dtype=bool), rng.normal(size=(16, 16)), -np.inf), axis=-1).data
held = np.full((16, 19), np.nan)
held[8:12, 4:8], held[:, 17:] = weights[8:12, 4:8], [0.25, 0.45]
figure = Figure(figsize=(8, 4.2), layout="constrained")
left, right = figure.subplots(1, 2)
for axes, picture, title in ((left, weights, "stored: T x T weights"), (right, held, "held: a tile, two columns")):
    axes.imshow(picture, cmap="Blues", vmin=-0.05, vmax=0.6)
    axes.set_title(title, fontsize=14)
    axes.set(xlim=(-0.6, 18.6), xticks=[], yticks=[], frame_on=False)
    for i, j in zip(*np.tril_indices(4), strict=True):
        axes.add_patch(Rectangle((4 * j - 0.5, 4 * i - 0.5), 4, 4, fill=False, edgecolor="#555555", linewidth=0.7))
show(figure)

# %% [markdown]
# ## The formula
# It is that of chapter 05. Not one symbol changes, only the order in which it is computed. The library has it on every
# rung of a ladder, from loops to kernels for graphics processors; `tinyllm formulas F-ATTN` prints them all.

# %%
formula("F-ATTN")

# %% [markdown]
# ## By hand
# A softmax needs the largest score before it can begin, and the sum of all exponentials before it can end. So it seems
# to need all scores at once. It does not. Take six scores with six values of two numbers; only three fit on the table.
# For each half write down its maximum, its total of $e^{score - maximum}$, and the same exponentials times the values.

# %%
scores = [1.0, 3.0, 2.0, 5.0, 0.0, 4.0]
values = [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [2.0, 0.0], [0.0, 2.0], [1.0, -1.0]]


def piece(scores, values):
    """(maximum, total of the exponentials, their sum with the values)."""
    top, total, sums = max(scores), 0.0, [0.0, 0.0]
    for score, (a, b) in zip(scores, values, strict=True):
        e = np.exp(score - top)
        total, sums = total + e, [sums[0] + e * a, sums[1] + e * b]
    return top, total, np.array(sums)


halves = piece(scores[:3], values[:3]), piece(scores[3:], values[3:])
for top, total, sums in halves:
    print(f"maximum {top:g}, total {total:.4f}, sums {sums.round(4)}")

# %% [markdown]
# The halves are measured against different maxima. But $e^{x - 5} = e^{x - 3} e^{3 - 5}$: one factor for the whole
# first half brings it to the scale of the second. Then totals and sums simply add, and one division ends it.

# %%
top, total, result = max(top for top, _, _ in halves), 0.0, np.zeros(2)
for its_top, its_total, its_sums in halves:
    shrink = np.exp(its_top - top)
    total, result = total + its_total * shrink, result + its_sums * shrink
    print(f"factor e^({its_top:g} - {top:g}) = {shrink:.4f}")
print("from the halves:", np.round(result / total, 6))
print("all six at once:", np.round(np.array(literal.softmax(scores)) @ np.array(values), 6))

# %% [markdown]
# ## Step through
# This is the *online softmax*, and it is exact. The smallest piece is one score. Watch the running maximum, total and
# result as the scores come in one by one. Where the maximum grows, all that was summed before shrinks by the factor in
# the fourth column. Before the first score the maximum is $-\infty$, and $e^{-\infty} = 0$.

# %%
top, total, sums = -np.inf, 0.0, np.zeros(2)
print("score  maximum  e^(score - maximum)  shrink   total   result so far")
for score, value in zip(scores, values, strict=True):
    new = max(top, score)
    shrink, e = np.exp(top - new), np.exp(score - new)
    total, sums, top = total * shrink + e, sums * shrink + e * np.array(value), new
    print(f"{score:5g}  {top:7g}  {e:19.4f}  {shrink:6.4f}  {total:6.4f}  {np.round(sums / total, 4)}")

# %% [markdown]
# Now the tape. Attention in small operations, on "The cat sat on the mat" of chapter 05: every line is an array that
# is written to memory and kept for the way back.

# %%
q = tl.tensor([sat_numbers(word)["q"] for word in range(6)], requires_grad=True)  # (6, 2)
k, v = (tl.tensor(sat_numbers()[name], requires_grad=True) for name in "KV")  # (6, 2) each
g = tl.tensor(np.random.default_rng(0).normal(size=(6, 2)).round(1))

scores = q @ k.T / np.sqrt(2)
e = tl.exp(scores - scores.data.max(axis=-1, keepdims=True))
loss = tl.sum(e / tl.sum(e, axis=-1, keepdims=True) @ v * g)
tl.print_tape(loss)
show(draw_tape(loss, names={"q": q, "k": k, "v": v}))

# %% [markdown]
# The same as *one* operation. *Fused* means: one node on the tape, one pass over memory, one derivative rule written by
# hand. What lies between q and y never leaves the processor.

# %%
loss.backward()
small, k.grad = k.grad.data, None
fused = tl.sum(tl.scaled_dot_product_attention(q, k, v) * g)
fused.backward(retain_graph=True)
print("the gradient of k is that of the small operations:", np.abs(k.grad.data - small).max() < 1e-14)
step_backward(fused, names={"q": q, "k": k, "v": v})

# %% [markdown]
# ## All at once
# On which rung do the loops become fast? First the same loops, handed to Numba, which translates them to machine code
# when they are first called: the online softmax, key after key. Then NumPy, then the library's kernel.


# %%
@numba.njit(nogil=True, **FAST)
def compiled(q, k, v, out):
    root = np.sqrt(q.dtype.type(q.shape[1]))
    for i in range(len(q)):
        top, total = q.dtype.type(-np.inf), q.dtype.type(0)
        out[i] = 0
        for j in range(len(k)):
            score = q.dtype.type(0)
            for d in range(q.shape[1]):
                score += q[i, d] * k[j, d]
            new = max(top, score / root)
            shrink, e = np.exp(top - new), np.exp(score / root - new)
            total = total * shrink + e
            for d in range(q.shape[1]):
                out[i, d] = out[i, d] * shrink + e * v[j, d]
            top = new
        out[i] /= total
    return out


def in_numpy(q, k, v):
    scores = q @ k.T / np.sqrt(q.dtype.type(q.shape[1]))
    e = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True) @ v


q, k, v = rng.normal(size=(3, 64, 64)).astype(np.float32)
loops = np.array(literal.attention(q, k, v))
fused = tl.scaled_dot_product_attention(q, k, v).data
found = in_numpy(q, k, v), compiled(q, k, v, np.empty_like(q)), fused
print("they differ from the loops by less than 1e-5:", *(np.abs(y - loops).max() < 1e-5 for y in found))

# %% [markdown]
# The fused kernel (`tinyllm/kernels/cpu/attention.py`) goes not key by key but tile by tile: the products within a tile
# are left to BLAS, the fastest matrix product of this machine.
# ### One rung further: CUDA, in the simulator
# A graphics processor runs thousands of threads. A *block* of them shares a little fast memory and can wait for one
# another at a *barrier*. No such processor is needed to see it work: under `NUMBA_ENABLE_CUDASIM=1`, which Numba looks
# for at its first import, threads are plain Python, one after the other, and any of them may `print`. Two threads do
# what we did by hand: each takes three scores, writes maximum and total to shared memory, waits, and merges.

# %%
KERNEL = """
import numpy as np
from tinyllm.kernels.cuda.compile import cuda, float32, kernel
from tinyllm.kernels.cuda.intrinsics import exp, log

@kernel
def log_sum_exp_of_six(x, out):
    tops = cuda.shared.array(2, float32)
    totals = cuda.shared.array(2, float32)
    t = cuda.threadIdx.x
    a, b, c = x[3 * t], x[3 * t + 1], x[3 * t + 2]
    tops[t] = max(a, b, c)
    totals[t] = exp(a - tops[t]) + exp(b - tops[t]) + exp(c - tops[t])
    if cuda.threadIdx.x == 1:
        print("thread 1 has the maximum", tops[t], "and the total", round(float(totals[t]), 4))
    cuda.syncthreads()
    top = max(tops[0], tops[1])
    out[t] = top + log(totals[0] * exp(tops[0] - top) + totals[1] * exp(tops[1] - top))

out = np.empty(2, np.float32)
log_sum_exp_of_six[1, 2](np.array([1, 3, 2, 5, 0, 4], np.float32), out)  # one block of two threads
print("both threads found", out.round(4))
"""


def simulate(program):
    """Run a program under CUDA's simulator, in a process of its own; print what it prints, or why it stopped."""
    command, simulated = [sys.executable, "-c", program], {**os.environ, "NUMBA_ENABLE_CUDASIM": "1"}
    done = subprocess.run(command, env=simulated, capture_output=True, text=True)
    print(done.stdout, end="")
    if done.returncode:
        why = next(line for line in done.stderr.splitlines() if "Error: " in line)
        print("This needs the package numba-cuda." if "No module" in why else why.rpartition("simulator.")[2])


simulate(KERNEL)
print("in one piece:     ", np.log(np.exp([1, 3, 2, 5, 0, 4]).sum()).round(4))

# %% [markdown]
# ## The derivative
# The way back needs the weights, and nobody stored them. Write $S = QK^\top/\sqrt d$ and keep, for each query, one
# number from the way there: $L_i = \log \sum_j e^{S_{ij}}$, the *log-sum-exp*. Then any weight can be made again:
# $P_{ij} = e^{S_{ij} - L_i}$. The result is $O_i = \sum_j P_{ij} V_j$. With $dO$ arriving, the rule of the product is
# $dV_j = \sum_i P_{ij}\, dO_i$ and $dP_{ij} = dO_i \cdot V_j$. Through the softmax of row $i$ (chapter 05),
# $dS_{ij} = P_{ij} \big( dP_{ij} - \sum_l P_{il}\, dP_{il} \big)$. That sum runs over the whole row, which no tile has.
# But put $dP_{il} = dO_i \cdot V_l$ into it:
#
# $$\sum_l P_{il}\, dO_i \cdot V_l = dO_i \cdot \sum_l P_{il} V_l = dO_i \cdot O_i =: D_i .$$
#
# $O$ is there already. So $dS = P (dP - D)$, tile by tile; and $dQ = dS\, K / \sqrt d$, $dK = dS^\top Q / \sqrt d$. By
# hand, in strips of 16 keys; by the library's kernel, which does just this; and by finite differences:

# %%
q, k, v, g = rng.normal(size=(4, 48, 4))
O, L = in_numpy(q, k, v), np.log(np.exp(q @ k.T / 2).sum(axis=-1, keepdims=True))  # kept: (48, 4) and (48, 1)
D = (g * O).sum(axis=-1, keepdims=True)
dq, dk, dv = np.zeros_like(q), np.zeros_like(k), np.zeros_like(v)
for j in range(0, 48, 16):
    keys = slice(j, j + 16)
    P = np.exp(q @ k[keys].T / 2 - L)  # (48, 16): made again, used up at once; 2 is the root of 4
    dS = P * (g @ v[keys].T - D)
    dq += dS @ k[keys] / 2
    dk[keys], dv[keys] = dS.T @ q / 2, P.T @ g

with tl.backend("numba"):
    by_tape = tl.vjp(tl.scaled_dot_product_attention, q, k, v)[1](g)
worst = max(np.abs(t.data - by_hand).max() for t, by_hand in zip(by_tape, (dq, dk, dv), strict=True))
nudge = np.zeros_like(k)
nudge[20, 2] = 1e-5
difference = (g * (in_numpy(q, k + nudge, v) - in_numpy(q, k - nudge, v))).sum() / 2e-5 - dk[20, 2]
print(
    f"by tape differs by less than 1e-13: {worst < 1e-13}; by differences by less than 1e-8: {abs(difference) < 1e-8}"
)

# %% [markdown]
# ## On real data
# The data are your own machine. First memory: what does the tape keep of one head of attention for the way back,
# besides q, k, v and y? In float32, for longer and longer texts:

# %%
for T in (256, 1024, 4096):
    q, k, v = (tl.tensor(x, requires_grad=True) for x in np.ones((3, T, 64), np.float32))
    with tl.backend("numpy"):
        weights = tl.scaled_dot_product_attention(q, k, v).node.saved
    with tl.backend("numba"):
        saved = tl.scaled_dot_product_attention(q, k, v).node.saved
    print(f"T = {T:<5} stored weights {weights.nbytes:>9} bytes   fused kernel {sum(x.nbytes for x in saved):>6} bytes")

# %% [markdown]
# Then time. Two limits come first: how many operations per second the best matrix product reaches (*sgemm*), and how
# many bytes per second a copy moves. Then the ladder, for one head of 64 channels, on one thread: every rung does the
# same $4 T^2 \cdot 64$ operations, so that rates can be compared even where the loops get a shorter text.

# %% tags=["timing"]
cores, seconds, small, large = tl.get_num_threads(), budget(1.0, 0.0), budget(128, 16), budget(1024, 64)
tl.set_num_threads(1)
limits = Limits.measure(seconds=budget(8.0, 0.0), size=budget(512, 256), megabytes=budget(64, 8))
print(f"sgemm {limits.flops / 1e9:.1f} GFLOP/s, copy {limits.bytes / 1e9:.1f} GB/s\n")
short, long = ([rng.normal(size=(T, 64)).astype(np.float32) for _ in range(3)] for T in (small, large))
as_lists, out = [x.tolist() for x in short], np.empty_like(long[0])
rungs = {
    "Python loops": (small, lambda: literal.attention(*as_lists)),
    "NumPy": (large, lambda: in_numpy(*long)),
    "compiled loops": (large, lambda: compiled(*long, out)),
    "fused kernel": (large, lambda: tl.scaled_dot_product_attention(*long)),
}
if importlib.util.find_spec("torch"):
    import torch

    torch.set_num_threads(1)
    tensors = [torch.from_numpy(x)[None, None] for x in long]
    rungs["PyTorch"] = (large, lambda: torch.nn.functional.scaled_dot_product_attention(*tensors))

times, rates = {}, {}
with threads.blas_on_caller():
    for name, (T, work) in rungs.items():
        times[name] = best_time(work, seconds)
        rates[name] = 4 * T**2 * 64 / times[name] / 1e9
        print(f"{name:<15} T = {T:<5} {times[name] * 1e3:9.2f} ms {rates[name]:10.4f} GFLOP/s")
print(f"fused kernel: {rates['fused kernel'] / rates['Python loops']:.0f} times as fast as the loops")
print("" if "PyTorch" in rates else "PyTorch is not installed here: its rung is missing.")
assert is_fast() or rates["fused kernel"] > 1000 * rates["Python loops"]

# %% [markdown]
# Why is NumPy, whose products are sgemm's, so far from sgemm? Count the bytes: its lines read or write $T^2$ numbers
# twelve times, the fused kernel reads q, k, v and writes y. Operations (of products) per byte are the *arithmetic
# intensity*; the *roofline* draws both limits over it. The percentage, 99 at most: how much of its limit each reaches.

# %% tags=["timing"]
weights, moved = rng.normal(size=(large, large)).astype(np.float32), 4 * long[0].nbytes  # q, k, v, result
times["softmax alone"] = best_time(lambda: tl.softmax(weights, axis=-1), seconds)
products = 4 * large**2 * 64
counts = dict.fromkeys(("compiled loops", "fused kernel"), (products, moved))
counts |= {"NumPy": (products, moved + 12 * weights.nbytes), "softmax alone": (4 * large**2, 2 * weights.nbytes)}
points = [Point(name, *c, times[name], min(0.99, limits.shortest(*c) / times[name])) for name, c in counts.items()]
show(roofline(points, limits.flops, limits.bytes))
tl.set_num_threads(cores)

# %% [markdown]
# Compiled loops waste no bytes, but leave most units of the processor idle: fusion needs tiles with a good product.
# ## Exercises


# %% tags=["exercise"]
def merge_pieces(m1, s1, m2, s2):
    """Maxima and sums of exponentials of two pieces, each (N,), merged: (m, s). An empty piece is (-inf, 0)."""
    # BEGIN SOLUTION
    m = np.maximum(m1, m2)
    base = np.where(np.isinf(m), 0, m)
    return m, s1 * np.exp(m1 - base) + s2 * np.exp(m2 - base)
    # END SOLUTION


check(merge_pieces)


# %% tags=["exercise"]
def running_logsumexp(x, chunk):
    """log sum exp of the rows of x (N, S), as known after each chunk of columns: (N, ceil(S / chunk))."""
    # BEGIN SOLUTION
    top, total, found = np.full(len(x), -np.inf), np.zeros(len(x)), []
    for begin in range(0, x.shape[1], chunk):
        part = x[:, begin : begin + chunk]
        new = np.maximum(top, part.max(axis=1))
        total, top = total * np.exp(top - new) + np.exp(part - new[:, None]).sum(axis=1), new
        found.append(top + np.log(total))
    return np.stack(found, axis=1)
    # END SOLUTION


check(running_logsumexp)


# %% tags=["exercise"]
def attention_in_chunks(q, k, v, chunk):
    """Attention of q (T, D) over k, v (S, D), `chunk` keys at a time, never all weights at once: (T, D)."""
    # BEGIN SOLUTION
    top, total, sums = np.full(len(q), -np.inf), np.zeros(len(q)), np.zeros((len(q), v.shape[1]))
    for begin in range(0, len(k), chunk):
        scores = q @ k[begin : begin + chunk].T / np.sqrt(q.shape[1])
        new = np.maximum(top, scores.max(axis=1))
        p, shrink = np.exp(scores - new[:, None]), np.exp(top - new)
        total, sums = total * shrink + p.sum(axis=1), sums * shrink[:, None] + p @ v[begin : begin + chunk]
        top = new
    return sums / total[:, None]
    # END SOLUTION


check(attention_in_chunks)


# %% tags=["exercise"]
def product_intensity(m, k, n, itemsize):
    """Operations per byte of (m, k) @ (k, n), each matrix read or written once; a multiply-add is two operations."""
    # BEGIN SOLUTION
    return 2 * m * k * n / (itemsize * (m * k + k * n + m * n))
    # END SOLUTION


check(product_intensity)

# %% [markdown]
# ## Break it
# Two processors should be faster than one. In Numba's issue tracker, number 3681 shares a loop with
# `y[0, 1] += x[i, j]` among threads by `prange`, and the sum comes out wrong. Here is such a sum. To get the same page
# every time, the threads are Python generators, and a random number says whose turn it is, and for how long.


# %%
def worker(part, total):
    """One thread: `total[0] += value` as a processor does it, a read and then a write."""
    for value in part:
        seen = total[0]
        yield  # here its turn may end
        total[0] = seen + value


def suspicious(x, count, seed):
    """The sum of x by `count` threads, says its author."""
    turns, total = np.random.default_rng(seed), [0.0]
    waiting = [worker(part, total) for part in np.array_split(x, count)]
    while waiting:
        thread = waiting[turns.integers(len(waiting))]
        for _ in range(turns.integers(1, 3000)):
            if next(thread, "done") == "done":
                waiting.remove(thread)
                break
    return total[0]


# %% [markdown]
# Three checks that one might write. The numbers are whole: any order of additions gives the same sum, bit for bit.
# Which check goes red?

# %%
x = np.random.default_rng(6).integers(1, 10, 2000).astype(float)
runs = {count: [suspicious(x, count, seed) for seed in range(6)] for count in (1, 2)}
print(f"right with one thread: {runs[1][0] == x.sum()}; right with two threads: {runs[2][0] == x.sum()}")
for count, found in runs.items():
    print(f"six runs with {count} thread(s), the same bits: {len(set(found)) == 1!s:<6}", *found)

# %% [markdown]
# *Run it again and compare bit for bit, with the same number of threads*: no right answer is needed, and no tolerance
# hides the loss. Two threads that add one number each show what happens:

# %%
total = [0.0]
A, B = worker([1.0], total), worker([10.0], total)
for does, thread in (("A reads", A), ("B reads", B), ("A adds 1", A), ("B adds 10", B)):
    next(thread, None)
    print(f"{does:<10} total {total[0]:g}")

# %% [markdown]
# B had read before A wrote, so A's addition is lost. The cure is not to share: each thread has a sum of its own, and
# these are added at the end, always in the same order. The library divides all its work like that. Now real threads,
# without Python's lock; how often the shared sum goes wrong is different every time.


# %% tags=["timing"]
@numba.njit(nogil=True)
def add_up(x, total):
    for i in range(x.size):
        total[0] += x[i]


ones, totals = np.ones(budget(10_000_000, 1000)), np.zeros((8, 1))
for total in totals:
    threads.parallel(lambda begin, end, total=total: add_up(ones[begin:end], total), len(ones))
own = threads.parallel(lambda begin, end: ones[begin:end].sum(), len(ones))
print(f"{len(ones)} ones into one sum:", *(f"{total:.0f}" for total in totals[:, 0]), f"; each its own: {sum(own):.0f}")

# %% [markdown]
# On a graphics processor it is the same mistake with thousands of threads. Leave out the barrier of the kernel above,
# and the simulator, which watches every access, does not wait for bad luck:

# %%
simulate(KERNEL.replace("cuda.syncthreads()", "pass"))

# %% [markdown]
# ## What the field reports
# The two numbers for each row are Milakov and Gimelshein's (*Online normalizer calculation for softmax*, 2018); tiles,
# and the way back without stored weights, are FlashAttention's (Dao and others, 2022), whose abstract reports GPT-2
# trained three times as fast at 1K tokens. The roofline is Williams, Waterman and Patterson's (2009). To read next:
# FlashAttention's section 3, then `tinyllm/kernels/cpu/attention.py`, whose steps you now know.
# ## Summary
# * Maximum, total and sums of two pieces can be merged: e^(old - new) brings them to one scale.
# * So attention needs one tile of weights at a time, and keeps O(T) numbers instead of O(T^2).
# * Backward makes the weights again from the log-sum-exp; D = rowsum(dO * O) takes the place of a sum over all keys.
# * Operations per byte decide which limit holds: fuse to move less, multiply in tiles to compute faster.
# * `total[0] += x[i]` is a read and a write. Shared by threads, it loses additions: run twice and compare bits.
# ## Glossary
# | English | Chinese | meaning |
# |---|---|---|
# | kernel, fusion | 核函数、算子融合 | an operation's inner loops, compiled; several operations in one kernel |
# | online softmax | 在线归一化指数函数 | softmax from pieces, rescaled as the maximum grows |
# | tile | 分块 | a part of a matrix that fits into fast memory |
# | arithmetic intensity, roofline | 算术强度、屋顶线模型 | operations per byte moved; the limits drawn over it |
# | race, barrier | 数据竞争、同步屏障 | a result that depends on who comes first; where threads wait for one another |
