# %% [markdown]
# # 08 Fast: from loops to fused kernels, and one rung further
#
# **You will learn** why two programs with the same number of multiplications differ a thousandfold in time; how a
# softmax is computed from pieces, without ever seeing all scores at once; how the backward pass does without the
# weights that nobody stored; to draw the limits of your machine and see what is near them; and to find a race.
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
from tinyllm import formulas, threads
from tinyllm.course import budget, check, examine, formula, is_fast, show
from tinyllm.formulas import attention as literal
from tinyllm.formulas.sat import WORDS, sat_numbers
from tinyllm.kernels.cpu.compile import FAST
from tinyllm.profile.limits import Limits, best_time
from tinyllm.viz import attention_map, draw_tape, step_backward
from tinyllm.viz.roofline import Point, roofline

# %% [markdown]
# ## The question
#
# Attention over $T$ positions has $T^2$ weights: twice the text, four times the memory. Most of the time is not spent on
# computing them, either, but on carrying them to memory and back. Must they all be there at the same time? The picture
# is the answer. On the left, what the formula says: a weight for each pair. On the right, what a fast program holds at
# any moment: *one tile* of it, and two numbers for each row.

# %%
T, tile = 16, 4
scores = np.where(np.tri(T, dtype=bool), np.random.default_rng(4).normal(size=(T, T)), -np.inf)
weights = tl.softmax(scores, axis=-1).data

figure = Figure(figsize=(8, 4.2), layout="constrained")
whole, tiled = figure.subplots(1, 2)
whole.imshow(weights, cmap="Blues", vmin=-0.05, vmax=0.6)
whole.set_title("stored: T x T weights", fontsize=14)
now = np.full((T, T), np.nan)
now[8:12, 4:8] = weights[8:12, 4:8]
tiled.imshow(now, cmap="Blues", vmin=-0.05, vmax=0.6)
for i in range(0, T, tile):
    for j in range(0, i + 1, tile):
        done = (i, j) < (8, 4)
        tiled.add_patch(Rectangle((j - 0.5, i - 0.5), tile, tile, fill=False, edgecolor="#555555", linewidth=0.7))
        tiled.text(j + 1.5, i + 1.5, "used" if done else "", ha="center", va="center", fontsize=11, color="#555555")
for x, color in ((T + 0.5, "#d55e00"), (T + 2.0, "#009e73")):
    tiled.add_patch(Rectangle((x, -0.5), 1, T, facecolor=color, edgecolor="white"))
tiled.text(T + 1.0, T, "max", ha="center", va="top", fontsize=12, color="#d55e00")
tiled.text(T + 3.6, T, "sum", ha="center", va="top", fontsize=12, color="#009e73")
tiled.set_xlim(-0.6, T + 5)
tiled.set_title("held: one tile and two columns", fontsize=14)
for axes in (whole, tiled):
    axes.set_axis_off()
show(figure)

# %% [markdown]
# ## The formula
#
# It is that of chapter 05. Not one symbol of it changes in this chapter; only the order in which it is computed.

# %%
formula("F-ATTN")

# %% [markdown]
# The library has it on every rung of a ladder, from loops that are the formula to the letter down to kernels for
# graphics processors. `tinyllm formulas F-ATTN` prints the sources of all of them; here are their names.

# %%
entry = formulas.get("F-ATTN")
print("loops   ", *(f"{f.__module__}.{f.__name__}" for f in entry.loops[:2]))
print("library ", *entry.library[:2])
print("Numba   ", *entry.kernels[:2])
print("CUDA    ", *(name.replace(".cpu.", ".cuda.") for name in entry.kernels[:2]))

# %% [markdown]
# ## By hand
#
# A softmax needs the largest score before it can begin, and the sum of all exponentials before it can end. So it seems
# to need all scores at once. It does not. Take six scores with six values of two numbers, and pretend that only three of
# them fit on the table. For each half, write down three things: its maximum, its sum of $e^{score - maximum}$, and the
# sum of the same exponentials times the values.

# %%
scores = [1.0, 3.0, 2.0, 5.0, 0.0, 4.0]
values = [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [2.0, 0.0], [0.0, 2.0], [1.0, -1.0]]


def piece(scores, values):
    """(maximum, total of the exponentials, their sum with the values)."""
    top, total, sums = max(scores), 0.0, [0.0, 0.0]
    for score, value in zip(scores, values, strict=True):
        e = np.exp(score - top)
        total += e
        for d in range(2):
            sums[d] += e * value[d]
    return top, total, sums


top1, total1, sums1 = piece(scores[:3], values[:3])
top2, total2, sums2 = piece(scores[3:], values[3:])
print(f"first half:  maximum {top1}, total {total1:.4f}, sums ({sums1[0]:.4f}, {sums1[1]:.4f})")
print(f"second half: maximum {top2}, total {total2:.4f}, sums ({sums2[0]:.4f}, {sums2[1]:.4f})")

# %% [markdown]
# The halves are measured against different maxima. But $e^{x - 5} = e^{x - 3} e^{3 - 5}$: one factor for the whole first
# half brings it to the scale of the second. Then totals and sums simply add, and one division ends it.

# %%
top = max(top1, top2)
shrink1, shrink2 = np.exp(top1 - top), np.exp(top2 - top)
total = total1 * shrink1 + total2 * shrink2
result = [(sums1[d] * shrink1 + sums2[d] * shrink2) / total for d in range(2)]
print(f"factors e^({top1:g} - {top:g}) = {shrink1:.4f} and e^({top2:g} - {top:g}) = {shrink2:g}; total {total:.4f}")
print(f"result from the halves   ({result[0]:.6f}, {result[1]:.6f})")

at_once = np.array(literal.softmax(scores)) @ np.array(values)
print(f"all six scores at once   ({at_once[0]:.6f}, {at_once[1]:.6f})")

# %% [markdown]
# This is the *online softmax*. It is exact: no approximation anywhere, only another order.
#
# ## Step through
#
# The smallest piece is one score. Watch the running maximum, total and result as the scores come in one by one. Where
# the maximum grows, all that was summed before shrinks by the factor in the fourth column.

# %%
top, total, sums, seen = -np.inf, 0.0, np.zeros(2), []
print("score  maximum  e^(score - maximum)  shrink   total   result so far")
for score, value in zip(scores, values, strict=True):
    new = max(top, score)
    shrink, e = np.exp(top - new), np.exp(score - new)
    total, sums, top = total * shrink + e, sums * shrink + e * np.array(value), new
    seen.append([np.exp(s - top) / total for s in scores[: len(seen) + 1]] + [0.0] * (5 - len(seen)))
    print(f"{score:5g}  {top:7g}  {e:19.4f}  {shrink:6.4f}  {total:6.4f}   ({sums[0] / total:.4f}, {sums[1] / total:.4f})")

# %% [markdown]
# Before the first score the maximum is $-\infty$, and $e^{-\infty} = 0$ clears what was never there. In the picture, a
# row is a step, and shows what share each score has after it: the rows always sum to 1, and the last is the softmax.

# %%
show(attention_map(np.array(seen), [f"step {i}" for i in range(1, 7)], [f"{s:g}" for s in scores], numbers=True))

# %% [markdown]
# Now the tape. Attention in small operations, on "The cat sat on the mat" of chapter 05: every line is an array that
# is written to memory, and most are kept for the way back.

# %%
n = sat_numbers()
q = tl.tensor([sat_numbers(word)["q"] for word in range(6)], requires_grad=True)  # (6, 2)
k, v = (tl.tensor(n[name], requires_grad=True) for name in "KV")  # (6, 2) each
g = tl.tensor(np.random.default_rng(0).normal(size=(6, 2)).round(1))

scores = q @ k.T / np.sqrt(2)
e = tl.exp(scores - scores.data.max(axis=-1, keepdims=True))
y = e / tl.sum(e, axis=-1, keepdims=True) @ v
loss = tl.sum(y * g)
tl.print_tape(loss)
show(draw_tape(loss, names={"q": q, "k": k, "v": v}))

# %%
step_backward(loss, names={"q": q, "k": k, "v": v})

# %% [markdown]
# The same as *one* operation. *Fused* means: one node on the tape, one pass over memory, one derivative rule written by
# hand. What happens between q and y never leaves the processor.

# %%
small = [t.grad.data.copy() for t in (q, k, v)]
for t in (q, k, v):
    t.grad = None
y = tl.scaled_dot_product_attention(q, k, v)
fused = tl.sum(y * g)
tl.print_tape(fused)
show(draw_tape(fused, names={"q": q, "k": k, "v": v}))
fused.backward()
for name, t, before in zip("qkv", (q, k, v), small, strict=True):
    print(f"gradient of {name}: differs from that of the small operations by {np.abs(t.grad.data - before).max():.0e}")

# %% [markdown]
# ## All at once
#
# On which rung do the loops become fast? First the same loops, handed to Numba, which translates them to machine code
# when they are first called. This is the online softmax, key after key; nothing of size $T^2$ appears.


# %%
@numba.njit(nogil=True, **FAST)
def compiled(q, k, v, out):
    """Attention of q, k, v (T, D) into out, one key at a time."""
    D, root = q.shape[1], np.sqrt(q.dtype.type(q.shape[1]))
    for i in range(len(q)):
        top, total = -np.inf, 0.0
        out[i] = 0
        for j in range(len(k)):
            score = q.dtype.type(0)
            for d in range(D):
                score += q[i, d] * k[j, d]
            score /= root
            if score > top:
                shrink = np.exp(top - score)
                total *= shrink
                for d in range(D):
                    out[i, d] *= shrink
                top = score
            e = np.exp(score - top)
            total += e
            for d in range(D):
                out[i, d] += e * v[j, d]
        for d in range(D):
            out[i, d] /= total
    return out


def in_numpy(q, k, v):
    """Attention of q, k, v (T, D) in four lines of NumPy: all weights at once."""
    scores = q @ k.T / np.sqrt(q.dtype.type(q.shape[1]))
    e = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True) @ v


def fused_kernel(q, k, v):
    """The library's operation, on its Numba kernel."""
    with tl.backend("numba"), tl.no_grad():
        return tl.scaled_dot_product_attention(q, k, v).data


rng = np.random.default_rng(1)
q, k, v = rng.normal(size=(3, 40, 8))
loops = np.array(literal.attention(q, k, v))
for name, found in (("NumPy", in_numpy(q, k, v)), ("compiled loops", compiled(q, k, v, np.empty_like(q))),
                    ("fused kernel", fused_kernel(q, k, v))):  # fmt: skip
    print(f"{name:<15} differs from the loops by less than 1e-14: {np.abs(found - loops).max() < 1e-14}")

# %% [markdown]
# The fused kernel (`tinyllm/kernels/cpu/attention.py`) does not go key by key but tile by tile, so that the products
# within a tile can be left to BLAS, the fastest matrix product on this machine. Rescaling happens once for each tile.
#
# ### One rung further: CUDA, in the simulator
#
# A graphics processor runs thousands of threads. A *block* of them shares a little fast memory and can wait for one
# another at a *barrier*. No such processor is needed to see it work: under `NUMBA_ENABLE_CUDASIM=1` the threads are
# plain Python, one after the other, and any of them may `print`. Numba asks for that setting when it is first imported,
# hence the process of its own. Two threads now do what we did by hand: each takes three scores, writes its pair to
# shared memory, waits, and merges both pairs.

# %%
KERNEL = '''
import numpy as np
from tinyllm.kernels.cuda.compile import cuda, float32, kernel
from tinyllm.kernels.cuda.intrinsics import exp

@kernel
def softmax_of_six(x, out):
    tops, totals = cuda.shared.array(2, float32), cuda.shared.array(2, float32)
    t = cuda.threadIdx.x
    top, total = max(x[3 * t], x[3 * t + 1], x[3 * t + 2]), np.float32(0)
    for j in range(3 * t, 3 * t + 3):
        total += exp(x[j] - top)
    tops[t], totals[t] = top, total
    if cuda.threadIdx.x == 1:
        print("thread 1 has the maximum", top, "and the total", round(float(total), 4))
    cuda.syncthreads()
    largest = max(tops[0], tops[1])
    whole = totals[0] * exp(tops[0] - largest) + totals[1] * exp(tops[1] - largest)
    for j in range(3 * t, 3 * t + 3):
        out[j] = exp(x[j] - largest) / whole

x = np.array([1, 3, 2, 5, 0, 4], np.float32)
out = np.empty(6, np.float32)
softmax_of_six[1, 2](x, out)  # one block of two threads
print("softmax:", out.round(4))
'''


def simulate(program):
    """Run a program in a process of its own, with CUDA's simulator; print what it prints, or why it stopped."""
    environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    print(done.stdout, end="")
    if "No module named" in done.stderr:
        print("CUDA's simulator is not installed here: it comes with Numba, or with the package numba-cuda.")
    elif done.returncode:
        print(next(line.rpartition("simulator.")[2] for line in done.stderr.splitlines() if "Error: " in line))


simulate(KERNEL)
print("literal:", np.round(literal.softmax([1, 3, 2, 5, 0, 4]), 4))

# %% [markdown]
# And if nobody waits? The simulator watches every access to shared memory.

# %%
simulate(KERNEL.replace("cuda.syncthreads()", "pass"))

# %% [markdown]
# ## The derivative
#
# The way back needs the weights, and nobody stored them. Write $S = QK^\top/\sqrt d$ for the scores, and keep for each
# query one number from the way there, the log-sum-exp $L_i = \log \sum_j e^{S_{ij}}$. Then any weight can be made again,
# alone:
#
# $$P_{ij} = e^{S_{ij} - L_i} .$$
#
# The result is $O_i = \sum_j P_{ij} V_j$. With $dO$ arriving, the rule of the product gives
#
# $$dV_j = \sum_i P_{ij}\, dO_i, \qquad dP_{ij} = dO_i \cdot V_j .$$
#
# Through the softmax of row $i$ (chapter 05):
#
# $$dS_{ij} = P_{ij} \Big( dP_{ij} - \sum_l P_{il}\, dP_{il} \Big) .$$
#
# The sum runs over the whole row, which no tile has. But put $dP_{il} = dO_i \cdot V_l$ into it:
#
# $$\sum_l P_{il}\, dO_i \cdot V_l = dO_i \cdot \sum_l P_{il} V_l = dO_i \cdot O_i =: D_i ,$$
#
# and $O$ is there already: one number for each query, from two rows that are at hand. So $dS = P (dP - D)$, tile by
# tile; and $dQ = dS\, K / \sqrt d$, $dK = dS^\top Q / \sqrt d$. By hand, in strips of 16 keys; by the library's kernel,
# which does just this; and by finite differences:

# %%
q, k, v, g = rng.normal(size=(4, 48, 4))
root = np.sqrt(4)
O, L = in_numpy(q, k, v), np.log(np.exp(q @ k.T / root).sum(axis=-1, keepdims=True))  # kept: (48, 4) and (48, 1)
D = (g * O).sum(axis=-1, keepdims=True)
dq, dk, dv = np.zeros_like(q), np.zeros_like(k), np.zeros_like(v)
for j in range(0, 48, 16):
    keys = slice(j, j + 16)
    P = np.exp(q @ k[keys].T / root - L)  # (48, 16): made again, used up at once
    dS = P * (g @ v[keys].T - D)
    dq += dS @ k[keys] / root
    dk[keys] = dS.T @ q / root
    dv[keys] = P.T @ g

with tl.backend("numba"):
    by_tape = tl.vjp(tl.scaled_dot_product_attention, q, k, v)[1](g)
print("by tape         differs by less than 1e-13:",
      all(np.abs(t.data - d).max() < 1e-13 for t, d in zip(by_tape, (dq, dk, dv), strict=True)))  # fmt: skip
for name, x, d in (("dq", q, dq), ("dk", k, dk), ("dv", v, dv)):
    before, moved = x[7, 2], []
    for step in (1e-5, -1e-5):
        x[7, 2] = before + step
        moved.append((g * in_numpy(q, k, v)).sum())
    x[7, 2] = before
    print(f"by differences  {name}[7, 2] differs by less than 1e-8: {abs((moved[0] - moved[1]) / 2e-5 - d[7, 2]) < 1e-8}")

# %% [markdown]
# ## On real data
#
# The data are your own machine. First memory, which is the same on every machine: what does the tape keep of one head
# of attention for the way back, besides q, k, v and y? In float32, for longer and longer texts:

# %%
for T in budget(full=(256, 1024, 4096), fast=(256, 1024, 4096)):
    q, k, v = (tl.tensor(x, requires_grad=True) for x in np.ones((3, T, 64), np.float32))
    kept = {}
    for name in ("numpy", "numba"):
        with tl.backend(name):
            saved = tl.scaled_dot_product_attention(q, k, v).node.saved
        kept[name] = sum(a.nbytes for a in (saved if isinstance(saved, tuple) else (saved,)))
    print(f"T = {T:<5} stored weights {kept['numpy'] / 2**20:8.3f} MB    fused kernel {kept['numba'] / 2**20:.3f} MB")

# %% [markdown]
# Then time. Two limits come first: how many operations per second the best matrix product reaches (*sgemm*), and how many
# bytes per second a plain copy moves. Nothing that computes can pass the one, nothing that uses main memory the other.
# All on one thread, so that the rungs can be compared; the figures are those of the machine that made this page.

# %% tags=["timing"]
before = tl.get_num_threads()
tl.set_num_threads(1)
limits = Limits.measure(seconds=budget(2.0, 0.1), size=budget(1536, 256), megabytes=budget(128, 8))
ridge = limits.flops / limits.bytes
print(f"sgemm {limits.flops / 1e9:.1f} GFLOP/s, copy {limits.bytes / 1e9:.1f} GB/s")
print(f"below {ridge:.1f} operations per byte memory is the limit, above it the product")

# %% [markdown]
# The ladder: one head of 64 channels. Every rung does the same $4 T^2 \cdot 64$ operations, so that operations per
# second can be compared even where the loops get a shorter text. The line to reach is sgemm.

# %% tags=["timing"]
C, seconds, small, large = 64, budget(1.0, 0.0), budget(128, 16), budget(2048, 64)
draws = np.random.default_rng(2)
short, long = (list(draws.normal(size=(3, T, C)).astype(np.float32)) for T in (small, large))
as_lists, out = [x.tolist() for x in short], np.empty_like(long[0])
rungs = {
    "Python loops": (small, lambda: literal.attention(*as_lists)),
    "NumPy": (large, lambda: in_numpy(*long)),
    "compiled loops": (large, lambda: compiled(*long, out)),
    "fused kernel": (large, lambda: fused_kernel(*long)),
}
if importlib.util.find_spec("torch"):
    import torch

    torch.set_num_threads(1)
    tensors = [torch.from_numpy(x)[None, None] for x in long]
    rungs["PyTorch"] = (large, lambda: torch.nn.functional.scaled_dot_product_attention(*tensors))
else:
    print("PyTorch is not installed here: its rung is missing.")

rates, times = {}, {}
with threads.blas_on_caller():
    for name, (T, work) in rungs.items():
        times[name] = best_time(work, seconds)
        rates[name] = 4 * T**2 * C / times[name] / 1e9
        print(f"{name:<15} T = {T:<5} {times[name] * 1e3:9.2f} ms {rates[name]:10.4f} GFLOP/s")
print(f"fused kernel against loops: {rates['fused kernel'] / rates['Python loops']:.0f} times as fast")
assert is_fast() or rates["fused kernel"] > 100 * rates["Python loops"]

# %% tags=["timing"]
figure = Figure(figsize=(7, 3.2), layout="constrained")
axes = figure.add_subplot()
colors = ("#555555", "#0072b2", "#e69f00", "#009e73", "#cc79a7")
axes.barh(list(rates), list(rates.values()), color=colors[: len(rates)])
axes.axvline(limits.flops / 1e9, color="#d55e00", linestyle="--")
axes.text(limits.flops / 1e9 * 0.9, -0.1, "sgemm", color="#d55e00", ha="right", va="center", fontsize=13)
axes.set_xscale("log")
axes.set_xlabel("GFLOP/s, one thread", fontsize=13)
axes.tick_params(labelsize=13)
axes.invert_yaxis()
axes.spines[["top", "right"]].set_visible(False)
show(figure)

# %% [markdown]
# Why is NumPy, whose products are sgemm's, so far from sgemm? Count the bytes. Its four lines write or read an array of
# $T^2$ numbers twelve times, while the fused kernel reads q, k and v and writes the result. Operations divided by bytes
# is the *arithmetic intensity*, and the *roofline* draws the two limits over it. The mark's size, and the percentage,
# say how much of its limit each program reaches: a low mark under a high roof has its trouble elsewhere.

# %% tags=["timing"]
T, N = large, 4 * large * C  # bytes of q, k, v or the result
weights = draws.normal(size=(T, T)).astype(np.float32)
with threads.blas_on_caller():
    softmax = best_time(lambda: tl.softmax(weights, axis=-1), seconds)
    product = best_time(lambda: np.matmul(long[0], long[1].T, out=weights), seconds)
work = [
    ("NumPy", 4 * T**2 * C, 4 * N + 12 * 4 * T**2, times["NumPy"]),
    ("compiled loops", 4 * T**2 * C, 4 * N, times["compiled loops"]),
    ("fused kernel", 4 * T**2 * C, 4 * N, times["fused kernel"]),
    ("softmax alone", 4 * T**2, 2 * 4 * T**2, softmax),
    ("scores alone", 2 * T**2 * C, 2 * N + 4 * T**2, product),
]
points = [Point(name, f, b, s, limits.shortest(f, b) / s) for name, f, b, s in work]
show(roofline(points, limits.flops, limits.bytes, "percent of the limit at this intensity"))
for point in points:
    print(f"{point.name:<15} {point.flops / point.bytes:7.1f} operations per byte: {100 * point.weight:.1f}% of its limit")
tl.set_num_threads(before)

# %% [markdown]
# Compiled loops stand below the highest part of the roof: no byte too many, but one multiplication at a time, where
# sgemm keeps all units of the processor busy. Both are needed, few bytes and full units. Fusion brings the first, tiles
# with a good product in them the second.
#
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
        piece = x[:, begin : begin + chunk]
        new = np.maximum(top, piece.max(axis=1))
        total = total * np.exp(top - new) + np.exp(piece - new[:, None]).sum(axis=1)
        top = new
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
#
# Two processors should be faster than one. In Numba's issue tracker, number 3681 shares the loop `y[0] += x[i]` among
# threads with `prange`, and the sum comes out wrong. Here is such a sum. To see what the threads do, and to get the same
# page every time, they are Python generators, and a random number plays the operating system: it says whose turn it is.


# %%
def worker(part, total):
    """One thread: `total[0] += value` as the processor does it, a read and then a write."""
    for value in part:
        seen = total[0]
        yield  # here another thread may get its turn
        total[0] = seen + value


def suspicious(x, count, seed, switch=0.01):
    """The sum of x by `count` threads, says its author. `switch`: how often the turn is passed on."""
    turns, total = np.random.default_rng(seed), [0.0]
    waiting = [worker(part, total) for part in np.array_split(x, count)]
    me = 0
    while waiting:
        if turns.random() < switch:
            me = int(turns.integers(len(waiting)))
        try:
            next(waiting[me])
        except StopIteration:
            waiting.pop(me)
            me = 0
    return total[0]


# %% [markdown]
# Three checks that one might write. The numbers are whole, so that no rounding can be blamed: any order of additions
# gives the same sum, bit for bit. Which check goes red?

# %%
x = np.random.default_rng(6).integers(1, 10, 2000).astype(float)
runs = {count: [suspicious(x, count, seed) for seed in range(4)] for count in (1, 2, 4)}
print(f"the sum is {x.sum():.0f}")
print("right with one thread:                ", set(runs[1]) == {x.sum()})
print("within 2% with two threads:           ", abs(runs[2][0] / x.sum() - 1) < 0.02)
print("the same bits in four runs, by threads:", {count: len(set(found)) == 1 for count, found in runs.items()})
for count, found in runs.items():
    print(f"  {count} threads: {[f'{value:.0f}' for value in found]}")

# %% [markdown]
# *Run it again, and compare bit for bit with the same number of threads*: no right answer is needed, and no tolerance
# hides the loss. Two threads with two numbers each show how an addition is lost:

# %%
total = [0.0]
a, b = worker([1.0, 2.0], total), worker([10.0, 20.0], total)
for name, thread in (("A", a), ("B", b), ("A", a), ("B", b), ("A", a), ("B", b)):
    next(thread, None)
    print(f"{name} had its turn: A has read {a.gi_frame and a.gi_frame.f_locals['seen']}, "
          f"B has read {b.gi_frame and b.gi_frame.f_locals.get('seen')}, total {total[0]:g}")  # fmt: skip

# %% [markdown]
# Both read, both write, and the second write wipes out the first. The cure is not to share: each thread has a sum of its
# own, and the sums are added at the end, always in the same order. The library divides all its work like that.

# %%
def parallel_sum(x):
    """Each range has a sum of its own; `parallel` gives them in order, whoever was first."""
    return sum(threads.parallel(lambda begin, end: x[begin:end].sum(), len(x)))


print("the same bits in four runs:", len({parallel_sum(x) for _ in range(4)}) == 1, " right:", parallel_sum(x) == x.sum())

# %% [markdown]
# Real threads, real processors: the loop compiled, without Python's lock, on two threads. How often it goes wrong, and
# by how much, is different every time, and on a machine with one free core it may go right for days.


# %% tags=["timing"]
@numba.njit(nogil=True)
def add_up(x, total):
    """Add x to what everybody adds to."""
    for i in range(x.size):
        total[0] += x[i]


def racing_sum(x):
    """The sum by two threads into one number."""
    total = np.zeros(1)
    threads.parallel(lambda begin, end: add_up(x[begin:end], total), len(x))
    return total[0]


tl.set_num_threads(2)
ones = np.ones(budget(3_000_000, 1000))
print(f"{len(ones)} ones, ten times:", [f"{racing_sum(ones):.0f}" for _ in range(10)])
tl.set_num_threads(before)

# %% [markdown]
# CUDA has thousands of threads, and the same mistake. The simulator does not wait for bad luck; it stops at the first
# access that no barrier orders:

# %%
simulate('''
import numpy as np
from tinyllm.kernels.cuda.compile import cuda, kernel

@kernel
def add_up(x, total):
    total[0] += x[cuda.threadIdx.x]

add_up[1, 32](np.ones(32, np.float32), np.zeros(1, np.float32))
''')

# %% [markdown]
# `check` knows the sequential relative of this bug, a sum from before that is not carried on as it should be:


# %%
def hasty(x, chunk):
    """log sum exp after each chunk, says its author."""
    tops = np.maximum.accumulate([x[:, i : i + chunk].max(axis=1) for i in range(0, x.shape[1], chunk)], axis=0)
    sums = [np.exp(x[:, i * chunk : (i + 1) * chunk] - top[:, None]).sum(axis=1) for i, top in enumerate(tops)]
    return (tops + np.log(np.cumsum(sums, axis=0))).T


print(examine(hasty, "running_logsumexp").likely[0])

# %% [markdown]
# ## What the field reports
#
# The two numbers on the way there are Milakov and Gimelshein's (*Online normalizer calculation for softmax*, 2018); the
# tiles, and the way back without stored weights, are FlashAttention's (Dao and others, 2022), whose abstract reports GPT-2
# trained three times as fast at 1K tokens. The roofline is Williams, Waterman and Patterson's (2009). On larger machines
# the gap is wider still. From NVIDIA's data sheet of the H100, float32 operations and bytes per second:

# %%
operations, bytes_moved = 67e12, 3.35e12
print(f"H100: memory is the limit below {operations / bytes_moved:.0f} operations per byte")
print(f"a softmax of float32 numbers does {4 / 8} operations per byte, a sum of two arrays {1 / 12:.2f}")

# %% [markdown]
# To read next: FlashAttention's section 3, then `tinyllm/kernels/cpu/attention.py`, whose loops you now know, and
# `tinyllm/kernels/cuda/attention.py`, the same tiles with a thread for each few numbers.
#
# ## Summary
#
# * Maximum, total and sum of a piece can be merged with those of another: e^(old - new) brings them to one scale.
# * So attention needs one tile of weights at a time, and keeps O(T) numbers instead of O(T^2).
# * Backward makes the weights again from the log-sum-exp; D = rowsum(dO * O) takes the place of a sum over all keys.
# * Operations per byte decide which limit holds: fuse to move less, multiply in tiles to compute faster.
# * `total[0] += x[i]` is a read and a write. Share it, and additions are lost; run twice and compare bits to find out.
#
# ## Glossary
#
# | English | Chinese | meaning |
# |---|---|---|
# | kernel | 核函数 | the inner loops of an operation, compiled |
# | fusion | 算子融合 | several operations in one pass over memory |
# | online softmax | 在线归一化指数函数 | softmax from pieces, rescaled as the maximum grows |
# | log-sum-exp | 对数求和指数 | the logarithm of the sum of exponentials |
# | tile | 分块 | a part of a matrix that fits into fast memory |
# | arithmetic intensity | 算术强度 | operations per byte moved |
# | roofline | 屋顶线模型 | the two limits of a machine over arithmetic intensity |
# | race | 数据竞争 | a result that depends on which thread comes first |
# | barrier | 同步屏障 | where threads wait for one another |
# | shared memory | 共享内存 | small fast memory of a block of threads |
