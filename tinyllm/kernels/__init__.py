"""Array-level arithmetic: the inner loops of the library, compiled. `cpu` holds one file per concept.

What holds for every kernel:

* A kernel is a module-level function over C-contiguous arrays of one floating dtype, float32 or float64, and of the
  fixed rank its docstring names; indices are int64. Reshaping, copying to contiguity and choosing outputs is the
  caller's work.
* The caller hands in every output, whatever it holds: a kernel overwrites all of it. Kernels keep nothing, and
  allocate nothing but attention's tiles. Inputs are left alone except where "in place" is said; an output may be the
  same array as an input only where the docstring says so.
* **Nothing is checked.** A wrong shape or an id out of range reads or writes foreign memory, as in C: who calls a
  kernel has checked them.
* Scalars are Python numbers (float for a float: an int makes Numba compile the kernel once more), computed with in
  the dtype of the arrays. A read-only array is a type of its own for Numba, too: pass the writable one where there is
  a choice.
* NaN goes through and -inf is an ordinary value, as in NumPy.
* The source is the algorithm. With ``NUMBA_DISABLE_JIT=1`` it runs as plain Python, equal up to the order of summation
  and the fusing of products into sums: a few units in the last place for each element, about sqrt(n) of them for a sum
  of n terms.
* Kernels run on one thread and release the GIL, so that threads can run them side by side.

Importing this package imports no Numba; importing a module of kernels does.
"""
