"""Kernels for NVIDIA GPUs, compiled by numba-cuda: `tinyllm.kernels.cpu` one rung further up, under the same names.

What `tinyllm.kernels` says of the CPU's kernels holds here, and this besides:

* `softmax(x, out)` is a Python function that launches ``softmax_kernel[blocks, threads](x, out)``, the function that
  every thread runs. Launches return at once and run in order.
* Everything is float32, and a constant in a kernel is a float32 too: ``2 * x`` would be computed in float64, at a
  fraction of the speed. Ids are int64.
* A result is the same, bit for bit, in every run. Where atomic additions are faster and give that up, they are an
  option.
* Scratch memory comes from the namespace of the arrays, which is CuPy's pool.

**Without a GPU**, and to look inside with one: set ``NUMBA_ENABLE_CUDASIM=1`` before Python starts, and kernels run on
NumPy arrays as plain Python, thread after thread, always in the same order. `print` and `breakpoint` work in any of
them. In a kernel's source, this prints from one thread:

    if cuda.blockIdx.x == 0 and cuda.threadIdx.x == 3:
        print("sum of thread 3:", total)

The simulator raises on a race, an index out of bounds, and a barrier that not all threads come to; `simulator.py` says
how.

Words: a *block* of threads runs on one processor of the GPU (an H100 has 132), sees the same *shared memory*, and can
wait for one another (`cuda.syncthreads`). 32 neighbours in it are a *warp*, run in step, and best read neighbouring
elements.
"""
