"""Language models, from counting to the Transformer, and the folders they are loaded from."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

from numpy.typing import DTypeLike

if TYPE_CHECKING:
    from tinyllm.models.bart import BART
    from tinyllm.models.bart_config import BARTConfig, MarianConfig
    from tinyllm.models.bert import BERT, BERTConfig
    from tinyllm.models.bert_heads import (
        BERTForMaskedLM,
        BERTForNextSentencePrediction,
        BERTForPreTraining,
        BERTForQuestionAnswering,
        BERTForSequenceClassification,
        BERTForTokenClassification,
    )
    from tinyllm.models.cache import KVCache
    from tinyllm.models.gpt import GPT, GPTConfig
    from tinyllm.models.llama import Llama, Mistral
    from tinyllm.models.llama_config import LlamaConfig, MistralConfig, MixtralConfig
    from tinyllm.models.lstm import LSTMConfig, LSTMLanguageModel
    from tinyllm.models.marian import Marian
    from tinyllm.models.mixtral import Mixtral
    from tinyllm.models.ngram import NGram
    from tinyllm.models.output import MixtureOutput, ModelOutput
    from tinyllm.models.pointer import PointerConfig, PointerTransformer
    from tinyllm.models.ppmi import ppmi_svd
    from tinyllm.models.rnn_seq2seq import RNNEncoderDecoder, RNNEncoderDecoderConfig
    from tinyllm.models.t5 import T5
    from tinyllm.models.t5_config import T5Config
    from tinyllm.models.transformer import Transformer, TransformerConfig
    from tinyllm.models.word2vec import Word2Vec
    from tinyllm.models.word_vectors import WordVectors

__all__ = [
    "BART",
    "BERT",
    "GPT",
    "T5",
    "BARTConfig",
    "BERTConfig",
    "BERTForMaskedLM",
    "BERTForNextSentencePrediction",
    "BERTForPreTraining",
    "BERTForQuestionAnswering",
    "BERTForSequenceClassification",
    "BERTForTokenClassification",
    "GPTConfig",
    "KVCache",
    "LSTMConfig",
    "LSTMLanguageModel",
    "Llama",
    "LlamaConfig",
    "Marian",
    "MarianConfig",
    "Mistral",
    "MistralConfig",
    "Mixtral",
    "MixtralConfig",
    "MixtureOutput",
    "ModelOutput",
    "NGram",
    "PointerConfig",
    "PointerTransformer",
    "RNNEncoderDecoder",
    "RNNEncoderDecoderConfig",
    "T5Config",
    "Transformer",
    "TransformerConfig",
    "Word2Vec",
    "WordVectors",
    "from_pretrained",
    "ppmi_svd",
]

_HOMES = {
    "BART": "bart",
    "BARTConfig": "bart_config",
    "BERT": "bert",
    "BERTConfig": "bert",
    "BERTForMaskedLM": "bert_heads",
    "BERTForNextSentencePrediction": "bert_heads",
    "BERTForPreTraining": "bert_heads",
    "BERTForQuestionAnswering": "bert_heads",
    "BERTForSequenceClassification": "bert_heads",
    "BERTForTokenClassification": "bert_heads",
    "GPT": "gpt",
    "GPTConfig": "gpt",
    "KVCache": "cache",
    "LSTMConfig": "lstm",
    "LSTMLanguageModel": "lstm",
    "Llama": "llama",
    "LlamaConfig": "llama_config",
    "Marian": "marian",
    "MarianConfig": "bart_config",
    "Mistral": "llama",
    "MistralConfig": "llama_config",
    "Mixtral": "mixtral",
    "MixtralConfig": "llama_config",
    "MixtureOutput": "output",
    "ModelOutput": "output",
    "NGram": "ngram",
    "PointerConfig": "pointer",
    "PointerTransformer": "pointer",
    "RNNEncoderDecoder": "rnn_seq2seq",
    "RNNEncoderDecoderConfig": "rnn_seq2seq",
    "T5": "t5",
    "T5Config": "t5_config",
    "Transformer": "transformer",
    "TransformerConfig": "transformer",
    "Word2Vec": "word2vec",
    "WordVectors": "word_vectors",
    "ppmi_svd": "ppmi",
}

# What config.json may say: the class that was saved (`architectures`), else its family (`model_type`).
_ARCHITECTURES = {
    "BartForConditionalGeneration": "BART",
    "BartModel": "BART",
    "BertModel": "BERT",
    "BertForMaskedLM": "BERTForMaskedLM",
    "BertForNextSentencePrediction": "BERTForNextSentencePrediction",
    "BertForPreTraining": "BERTForPreTraining",
    "BertForQuestionAnswering": "BERTForQuestionAnswering",
    "BertForSequenceClassification": "BERTForSequenceClassification",
    "BertForTokenClassification": "BERTForTokenClassification",
    "GPT2LMHeadModel": "GPT",
    "GPT2Model": "GPT",
    "LSTMLanguageModel": "LSTMLanguageModel",
    "LlamaForCausalLM": "Llama",
    "RNNEncoderDecoder": "RNNEncoderDecoder",
    "MarianMTModel": "Marian",
    "MarianModel": "Marian",
    "MistralForCausalLM": "Mistral",
    "MixtralForCausalLM": "Mixtral",
    "T5ForConditionalGeneration": "T5",
    "T5Model": "T5",
    "PointerTransformer": "PointerTransformer",
    "Transformer": "Transformer",
}
_MODEL_TYPES = {
    "bart": "BART",
    "bert": "BERT",
    "gpt2": "GPT",
    "t5": "T5",
    "pointer-transformer": "PointerTransformer",
    "transformer": "Transformer",
    "llama": "Llama",
    "lstm": "LSTMLanguageModel",
    "rnn-encoder-decoder": "RNNEncoderDecoder",
    "marian": "Marian",
    "mistral": "Mistral",
    "mixtral": "Mixtral",
}

# Single files that hold a whole model: what loads them.
_FILES = {".gguf": ("gguf", "load_gguf"), ".bin": ("llama2c", "load_llama2c")}


def from_pretrained(folder: str | os.PathLike[str], dtype: DTypeLike | None = None) -> Any:
    """The model in a folder, of the class that its config.json names.

    Parameters
    ----------
    folder : path
        With `config.json` and `model.safetensors`; or a GGUF file; or a `.bin` file of llama2.c.
    dtype : dtype, optional
        As in the class's own `from_pretrained`.

    Returns
    -------
    Module

    Raises
    ------
    CheckpointError
        If the folder is incomplete or damaged, or its class is unknown.
    ConfigError
        If a setting cannot be obeyed.
    """
    from tinyllm.errors import CheckpointError
    from tinyllm.models.folder import read_config

    if (suffix := os.path.splitext(folder)[1]) in _FILES and not os.path.isdir(folder):
        module, loader = _FILES[suffix]
        return getattr(importlib.import_module(f"tinyllm.models.{module}"), loader)(folder, dtype=dtype)
    settings = read_config(folder)
    named, known = settings.get("architectures"), _ARCHITECTURES
    name = named[0] if isinstance(named, list) and named else None
    if name is None:
        name, known = settings.get("model_type"), _MODEL_TYPES
    if not isinstance(name, str) or name not in known:
        what = "names no model" if name is None else f"names the model {name!r}, which is unknown"
        raise CheckpointError(f"{folder}: config.json {what}; known: {', '.join(sorted(known))}")
    return _class(known[name]).from_pretrained(folder, dtype=dtype)


def _class(name: str) -> Any:
    return getattr(importlib.import_module(f"tinyllm.models.{_HOMES[name]}"), name)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return _class(name)
    raise AttributeError(f"module 'tinyllm.models' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
