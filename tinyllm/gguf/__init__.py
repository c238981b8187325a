"""The GGUF file format of llama.cpp: settings, a tokenizer and weights in one file, the weights in blocks of few bits.

Source: the format's specification, ggml/docs/gguf.md; the blocks are those of ggml's quantisation types.
"""

from tinyllm.gguf.blocks import KINDS, Kind
from tinyllm.gguf.contents import GGUF, StoredStrings, StoredTensor
from tinyllm.gguf.reader import read

__all__ = ["GGUF", "KINDS", "Kind", "StoredStrings", "StoredTensor", "read"]
