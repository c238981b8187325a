"""Figures of merit, from plain numbers, labels and texts: NumPy alone."""

from tinyllm.metrics.answers import exact_match, normalize_answer, token_f1
from tinyllm.metrics.associations import WEATResult, weat
from tinyllm.metrics.bleu import BLEUScore, corpus_bleu, sentence_bleu
from tinyllm.metrics.bleu_tokens import tokenize_13a, tokenize_char, tokenize_intl, tokenize_none, tokenize_zh
from tinyllm.metrics.chrf import ChrFScore, chrf
from tinyllm.metrics.edits import edit_distance, phoneme_error_rate, word_error_rate
from tinyllm.metrics.labels import (
    ClassificationReport,
    accuracy,
    classification_report,
    confusion_matrix,
    f1,
    precision,
    recall,
)
from tinyllm.metrics.likelihood import bits_per_byte, perplexity
from tinyllm.metrics.ranks import roc_auc, spearman
from tinyllm.metrics.rouge import RougeScore, rouge_l, rouge_n
from tinyllm.metrics.ter import TERScore, ter

__all__ = [
    "BLEUScore",
    "ChrFScore",
    "ClassificationReport",
    "RougeScore",
    "TERScore",
    "WEATResult",
    "accuracy",
    "bits_per_byte",
    "chrf",
    "classification_report",
    "confusion_matrix",
    "corpus_bleu",
    "edit_distance",
    "exact_match",
    "f1",
    "normalize_answer",
    "perplexity",
    "phoneme_error_rate",
    "precision",
    "recall",
    "roc_auc",
    "rouge_l",
    "rouge_n",
    "sentence_bleu",
    "spearman",
    "ter",
    "token_f1",
    "tokenize_13a",
    "tokenize_char",
    "tokenize_intl",
    "tokenize_none",
    "tokenize_zh",
    "weat",
    "word_error_rate",
]
