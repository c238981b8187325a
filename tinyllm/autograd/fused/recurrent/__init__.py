"""Recurrent layers through all times, each as one operation: RNN, LSTM (F-LSTM), GRU.

What the inputs contribute, ``x W_ih^T``, is one product for all times; then one step waits for another. Arrays are in
the order of time: x is (T, B, I), the weights are (G H, I) and (G H, H) with G = 1, 4 or 3 blocks of H channels, and
the result is (T, B, H), the state after each step. The LSTM's has one more entry, (T + 1, B, H): behind the states lies
the memory after the last step.

With `lengths`, sequence b ends after ``lengths[b]`` steps and keeps its state from then on; with `reverse` the steps go
from the last time to the first, so that a sequence keeps its first state until it begins.

A file per cell holds one step of it in small operations, one step forward and back on arrays, and the calls of its
kernels. What carries a step through time is in `through_time` (small operations, arrays) and `compiled` (kernels).
"""

from tinyllm.autograd.fused.recurrent.gru import gru
from tinyllm.autograd.fused.recurrent.lstm import lstm
from tinyllm.autograd.fused.recurrent.operands import checked_lengths
from tinyllm.autograd.fused.recurrent.rnn import rnn

__all__ = ["checked_lengths", "gru", "lstm", "rnn"]
