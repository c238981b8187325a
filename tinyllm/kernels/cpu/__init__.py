"""Kernels for the CPU, compiled by Numba; `tinyllm.kernels` says what holds for all of them."""
