"""Text: cleaning it, cutting it into words, and tokenizers with trained vocabularies."""

from tinyllm.text.bpe import ByteLevelBPE
from tinyllm.text.characters import CharTokenizer
from tinyllm.text.clean import (
    clean,
    decode_entities,
    normalize_unicode,
    normalize_white_space,
    remove_control_characters,
    remove_special_symbols,
    strip_html,
)
from tinyllm.text.load import load_tokenizer
from tinyllm.text.porter import PorterStemmer
from tinyllm.text.pretokenize import gpt2_split
from tinyllm.text.sentencepiece import SentencePieceBPE
from tinyllm.text.tokenizer import AddedToken, Tokenizer
from tinyllm.text.wordpiece import WordPiece
from tinyllm.text.words import WordTokenizer, word_tokenize

__all__ = [
    "AddedToken",
    "ByteLevelBPE",
    "CharTokenizer",
    "PorterStemmer",
    "SentencePieceBPE",
    "Tokenizer",
    "WordPiece",
    "WordTokenizer",
    "clean",
    "decode_entities",
    "gpt2_split",
    "load_tokenizer",
    "normalize_unicode",
    "normalize_white_space",
    "remove_control_characters",
    "remove_special_symbols",
    "strip_html",
    "word_tokenize",
]
