"""Matrix products, climbed as a ladder: each rung a kernel of its own that saves what the one below it wastes.

    out (M, N) = a (M, K) @ b (K, N), row-major

The product takes M N K multiply-adds on (M K + K N + M N) numbers, so it should be bound by arithmetic: an H100 can do
some 80 float32 multiply-adds in the time it needs to read one number from memory. Every rung is about reading less
often:

    naive            each number of a is read N times, each of b M times, all from the caches
    tiled            a tile is read once per block into shared memory: N / 32 and M / 32 times
    register_tiled   64-wide tiles: N / 64 and M / 64 times; shared memory is read 2 numbers for 4 multiply-adds, not 2
    for 1 vectorised       128-wide tiles; 4 reads of 16 bytes for 64 multiply-adds
    warp_tiled       a warp reads less of what its lanes share; the next tile is under way while this one is multiplied
    tf32, bf16       tensor cores: a warp multiplies 16 x 8 by 8 x 8 (or 16 x 16 by 16 x 8) in one instruction

`tf32` rounds its inputs to 10 bits of mantissa and `bf16` to 7 (float32 has 23); sums are float32. What training uses
is cuBLAS, by way of the arrays' own ``@``; this file shows what is inside.

Sources: Boehm 2022, "How to optimize a CUDA matmul kernel"; NVIDIA, CUTLASS documentation, "Efficient GEMM in CUDA".
"""

from __future__ import annotations

from typing import Any

from tinyllm.kernels.cuda.compile import Array, Kernel, cuda, float32, inline, int32, kernel
from tinyllm.kernels.cuda.intrinsics import load4, mma_bf16, mma_tf32, store4, to_bf16x2, to_tf32
from tinyllm.kernels.cuda.tiles import ZERO, add_scaled, clear, fetch, fetch4, put4

# -- 1: one thread, one element ----------------------------------------------------------------------------------------


@kernel
def naive_kernel(a: Array, b: Array, out: Array) -> None:
    """A thread walks along a row of `a` and down a column of `b`; in a warp, all share the row."""
    j, i = cuda.grid(2)
    if i < out.shape[0] and j < out.shape[1]:
        total = ZERO
        for k in range(a.shape[1]):
            total += a[i, k] * b[k, j]
        out[i, j] = total


# -- 2: tiles in shared memory -----------------------------------------------------------------------------------------

TILE = 32


@kernel
def tiled_kernel(a: Array, b: Array, out: Array) -> None:
    """The naive kernel reads each number again for every thread that needs it, 32 x 32 of which are in one block.

    Here the block reads a tile of each matrix together, a number per thread, and multiplies them from shared memory.
    """
    left = cuda.shared.array((TILE, TILE), float32)
    right = cuda.shared.array((TILE, TILE), float32)
    tx, ty = cuda.threadIdx.x, cuda.threadIdx.y
    i, j = cuda.blockIdx.y * TILE + ty, cuda.blockIdx.x * TILE + tx
    total = ZERO
    for start in range(0, a.shape[1], TILE):
        left[ty, tx] = fetch(a, i, start + tx)
        right[ty, tx] = fetch(b, start + ty, j)
        cuda.syncthreads()
        for k in range(TILE):
            total += left[ty, k] * right[k, tx]
        cuda.syncthreads()
    if i < out.shape[0] and j < out.shape[1]:
        out[i, j] = total


# -- 3: tiles in registers ---------------------------------------------------------------------------------------------

SIDE, DEPTH = 64, 16  # a block's tile of out is (SIDE, SIDE), its tiles of a and b are DEPTH deep
ODD = DEPTH + 1  # the length of a row in shared memory, so that those of a column lie in different banks
SHARE = 4  # a thread has SHARE x SHARE elements of out, 16 rows and columns apart


@kernel
def register_tiled_kernel(a: Array, b: Array, out: Array) -> None:
    """The tiled kernel reads two numbers from shared memory for each multiply-add, and that is what it waits for.

    Here a thread has 4 x 4 elements: 4 numbers of `a` and 4 of `b` serve for 16 multiply-adds.
    """
    left = cuda.shared.array((SIDE, ODD), float32)
    right = cuda.shared.array((DEPTH, SIDE), float32)
    total = cuda.local.array((SHARE, SHARE), float32)
    tx, ty = cuda.threadIdx.x, cuda.threadIdx.y
    row, column = cuda.blockIdx.y * SIDE, cuda.blockIdx.x * SIDE
    clear(total)
    for start in range(0, a.shape[1], DEPTH):
        for r in range(SHARE):
            left[ty + 16 * r, tx] = fetch(a, row + ty + 16 * r, start + tx)
            right[ty, tx + 16 * r] = fetch(b, start + ty, column + tx + 16 * r)
        cuda.syncthreads()
        for k in range(DEPTH):
            for r in range(SHARE):
                for c in range(SHARE):
                    total[r, c] += left[ty + 16 * r, k] * right[k, tx + 16 * c]
        cuda.syncthreads()
    for r in range(SHARE):
        for c in range(SHARE):
            i, j = row + ty + 16 * r, column + tx + 16 * c
            if i < out.shape[0] and j < out.shape[1]:
                out[i, j] = total[r, c]


# -- 4: vectors --------------------------------------------------------------------------------------------------------

WIDE, THIN, TWO_THIN = 128, 8, 16  # a block's tile of out is (WIDE, WIDE), its tiles of a and b are THIN deep
STRIDE = WIDE + 4  # of a row in shared memory: a multiple of 16 bytes, not of all 32 banks


@inline
def stage(a, b, left, right, slot, row, column, start, t):
    """Bring a tile of `a`, transposed, and one of `b` to shared memory, four numbers of each per thread."""
    i, k = t // 2, t % 2 * 4
    p, q, r, s = fetch4(a, row + i, start + k)
    left[slot + k, i] = p
    left[slot + k + 1, i] = q
    left[slot + k + 2, i] = r
    left[slot + k + 3, i] = s
    k, j = t // 32, t % 32 * 4
    p, q, r, s = fetch4(b, start + k, column + j)
    store4(right, (slot + k, j), p, q, r, s)


@inline
def multiply(left, right, slot, i, i_step, j, j_step, total):
    """Add to an 8 x 8 share: rows i.. and i + i_step.., columns j.. and j + j_step.., four each."""
    for k in range(slot, slot + THIN):
        for h in range(2):
            p, q, r, s = load4(left, (k, i + h * i_step))
            add_scaled(total, 4 * h, p, right, k, j, j_step)
            add_scaled(total, 4 * h + 1, q, right, k, j, j_step)
            add_scaled(total, 4 * h + 2, r, right, k, j, j_step)
            add_scaled(total, 4 * h + 3, s, right, k, j, j_step)


@inline
def write(out, i, i_step, j, j_step, total):
    """Store an 8 x 8 share."""
    for r in range(8):
        row = i + r // 4 * i_step + r % 4
        put4(out, row, j, total[r, 0], total[r, 1], total[r, 2], total[r, 3])
        put4(out, row, j + j_step, total[r, 4], total[r, 5], total[r, 6], total[r, 7])


@kernel
def vectorised_kernel(a: Array, b: Array, out: Array) -> None:
    """The register-tiled kernel issues an instruction for every number that it reads, 8 for 16 multiply-adds.

    Here one instruction reads four, and a thread has 8 x 8 elements: 4 reads for 64 multiply-adds. For that, the four
    numbers of `a` that a thread needs must lie side by side, so its tile is stored transposed.
    """
    left = cuda.shared.array((THIN, STRIDE), float32, alignment=16)
    right = cuda.shared.array((THIN, STRIDE), float32, alignment=16)
    total = cuda.local.array((8, 8), float32)
    t = cuda.threadIdx.x
    i, j = t // 16 * 4, t % 16 * 4
    row, column = cuda.blockIdx.y * WIDE, cuda.blockIdx.x * WIDE
    clear(total)
    for start in range(0, a.shape[1], THIN):
        stage(a, b, left, right, 0, row, column, start, t)
        cuda.syncthreads()
        multiply(left, right, 0, i, 64, j, 64, total)
        cuda.syncthreads()
    write(out, row + i, 64, column + j, 64, total)


# -- 5: warps ----------------------------------------------------------------------------------------------------------


@kernel
def warp_tiled_kernel(a: Array, b: Array, out: Array) -> None:
    """In the vectorised kernel a warp spans 2 x 16 threads and reads 2 vectors of `a` and 16 of `b` at a time.

    Here it spans 8 x 4, and reads 8 and 4; its elements are 64 x 32 of the block's. There are two of each tile, so that
    one is filled while the other is multiplied: half of the barriers go, and with them the wait for memory.
    """
    left = cuda.shared.array((TWO_THIN, STRIDE), float32, alignment=16)
    right = cuda.shared.array((TWO_THIN, STRIDE), float32, alignment=16)
    total = cuda.local.array((8, 8), float32)
    t = cuda.threadIdx.x
    warp, lane = t // 32, t % 32
    i, j = warp // 4 * 64 + lane // 4 * 4, warp % 4 * 32 + lane % 4 * 4
    row, column = cuda.blockIdx.y * WIDE, cuda.blockIdx.x * WIDE
    clear(total)
    slot = 0  # where the tile to be multiplied begins; the other one begins at THIN
    stage(a, b, left, right, slot, row, column, 0, t)
    for start in range(0, a.shape[1], THIN):
        cuda.syncthreads()  # this slot is full, and everybody is done with the other one
        if start + THIN < a.shape[1]:
            stage(a, b, left, right, THIN - slot, row, column, start + THIN, t)
        multiply(left, right, slot, i, 32, j, 16, total)
        slot = THIN - slot
    write(out, row + i, 32, column + j, 16, total)


# -- 6: tensor cores ---------------------------------------------------------------------------------------------------

WORDS = 16  # a block's tiles of a and b are so many 4-byte words deep: 16 numbers in tf32, 32 in bf16
LEFT_STRIDE, RIGHT_STRIDE = WORDS + 4, WIDE + 8  # which put what a warp reads at a time into 32 different banks


@inline
def tf32_of_a(a, i, word):
    """A word of a row of `a`: one number."""
    return to_tf32(fetch(a, i, word))


@inline
def tf32_of_b(b, word, j):
    """A word of a column of `b`: one number."""
    return to_tf32(fetch(b, word, j))


@inline
def bf16_of_a(a, i, word):
    """A word of a row of `a`: two numbers."""
    return to_bf16x2(fetch(a, i, 2 * word), fetch(a, i, 2 * word + 1))


@inline
def bf16_of_b(b, word, j):
    """A word of a column of `b`: two numbers, one above the other."""
    return to_bf16x2(fetch(b, 2 * word, j), fetch(b, 2 * word + 1, j))


def tensor_core_kernel(name: str, numbers: int, word_of_a: Any, word_of_b: Any, mma: Any) -> Kernel:
    """The kernel with so many numbers in a word.

    The warp-tiled kernel has one instruction for each multiply-add of a lane. Here one multiplies for the whole warp:
    its 64 x 32 elements are 4 x 4 products of 16 x 8, of which a lane holds four numbers each, in an order that the
    instruction prescribes (see `mma_tf32`).
    """

    def body(a, b, out):
        left = cuda.shared.array((WIDE, LEFT_STRIDE), int32)
        right = cuda.shared.array((WORDS, RIGHT_STRIDE), int32)
        total = cuda.local.array((4, 4, 4), float32)
        t = cuda.threadIdx.x
        warp, g, l = t // 32, t % 32 // 4, t % 4
        i, j = warp // 4 * 64 + g, warp % 4 * 32
        row, column = cuda.blockIdx.y * WIDE, cuda.blockIdx.x * WIDE
        for m in range(4):
            for n in range(4):
                for k in range(4):
                    total[m, n, k] = ZERO
        for start in range(0, -(-a.shape[1] // numbers), WORDS):
            for k in range(t, WIDE * WORDS, 256):
                left[k // WORDS, k % WORDS] = word_of_a(a, row + k // WORDS, start + k % WORDS)
                right[k // WIDE, k % WIDE] = word_of_b(b, start + k // WIDE, column + k % WIDE)
            cuda.syncthreads()
            for k in range(l, WORDS, 8):
                for m in range(4):
                    r = i + 16 * m
                    rows = (left[r, k], left[r + 8, k], left[r, k + 4], left[r + 8, k + 4])
                    for n in range(4):
                        columns = (right[k, j + 8 * n + g], right[k + 4, j + 8 * n + g])
                        sums = (total[m, n, 0], total[m, n, 1], total[m, n, 2], total[m, n, 3])
                        w, x, y, z = mma(rows, columns, sums)
                        total[m, n, 0] = w
                        total[m, n, 1] = x
                        total[m, n, 2] = y
                        total[m, n, 3] = z
            cuda.syncthreads()
        for m in range(4):
            for n in range(4):
                for k in range(4):
                    r, c = row + i + 16 * m + k // 2 * 8, column + j + 8 * n + 2 * l + k % 2
                    if r < out.shape[0] and c < out.shape[1]:
                        out[r, c] = total[m, n, k]

    return kernel(body, name)


tf32_kernel = tensor_core_kernel("tf32_kernel", 1, tf32_of_a, tf32_of_b, mma_tf32)
bf16_kernel = tensor_core_kernel("bf16_kernel", 2, bf16_of_a, bf16_of_b, mma_bf16)


# -- the ladder --------------------------------------------------------------------------------------------------------

# name: kernel, threads of a block, its columns and rows of out
RUNGS = {
    "naive": (naive_kernel, (32, 8), (32, 8)),
    "tiled": (tiled_kernel, (TILE, TILE), (TILE, TILE)),
    "register_tiled": (register_tiled_kernel, (16, 16), (SIDE, SIDE)),
    "vectorised": (vectorised_kernel, 256, (WIDE, WIDE)),
    "warp_tiled": (warp_tiled_kernel, 256, (WIDE, WIDE)),
    "tf32": (tf32_kernel, 256, (WIDE, WIDE)),
    "bf16": (bf16_kernel, 256, (WIDE, WIDE)),
}


def matmul(a: Array, b: Array, out: Array, rung: str = "warp_tiled") -> None:
    """``a @ b`` into `out`, for a (M, K), b (K, N); `rung` is a key of RUNGS."""
    body, threads, (columns, rows) = RUNGS[rung]
    body[(-(-out.shape[1] // columns), -(-out.shape[0] // rows)), threads](a, b, out)
