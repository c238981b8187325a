"""The code samples' faults, each shown by what the sample would do to shapes, names and numbers."""

import ast

import numpy as np
import pytest

from tinyllm.formulas import all_formulas, get
from tinyllm.formulas.attention import attention
from tinyllm.formulas.claims import order_defect
from tinyllm.formulas.dropout import dropout
from tinyllm.formulas.losses import cross_entropy
from tinyllm.formulas.procedures import tokenise
from tinyllm.formulas.recurrent import lstm
from tinyllm.formulas.samples import (
    PRINTED_RESULT_004,
    attend,
    linear_shape,
    show_class_without_body,
    show_cut_off,
    show_dropped_tail,
    show_hidden_dim_of_002b,
    show_logits_are_no_probabilities,
    show_target_is_never_used,
    show_third_class,
    show_undefined_in_training_loop,
    show_untrained_positions,
    torch_cross_entropy_shape,
    undefined_names,
)

SAMPLES = [entry for entry in all_formulas() if entry.kind == "sample"]


@pytest.mark.parametrize("entry", SAMPLES, ids=lambda entry: entry.id)
def test_every_fault_can_be_shown(entry):
    for erratum in entry.errata:
        said = erratum.show()
        assert said
        assert "it runs" not in said
        assert "no error" not in said


def test_c000_does_not_parse():
    assert show_class_without_body().endswith("IndentationError")
    with pytest.raises(IndentationError):
        ast.parse("class Model:\n    # ...\n\nx = 1\n")
    ast.parse("class Model:\n    ...\n")  # an ellipsis would have done


def test_c000_undefined_names():
    assert show_undefined_in_training_loop() == "never defined: model, num_epochs, train_dataloader"
    assert undefined_names("import a.b as c\nfrom d import e\nx = c + e\ndef f(): pass\nprint(f, x)") == set()
    assert undefined_names("x = y") == {"y"}


def test_c001_one_prediction_per_sequence(rng):
    X, W, U, b = rng.normal(size=(6, 2)), rng.normal(size=(12, 2)), rng.normal(size=(12, 3)), np.zeros(12)
    assert len(lstm(X, W, U, b, b, return_sequences=False)) == 1
    assert len(lstm(X, W, U, b, b)) == 6


def test_c001_wants_one_hot():
    yhat = [0.1, 0.2, 0.7]
    assert cross_entropy([0, 0, 1], yhat) == pytest.approx(0.3567, abs=1e-4)
    # Broadcast over the classes, the number 2 counts every class twice: the loss ranks all predictions wrongly.
    right, wrong = cross_entropy([2, 2, 2], [0.01, 0.01, 0.98]), cross_entropy([2, 2, 2], [0.33, 0.34, 0.33])
    assert right > wrong


def test_c002a_needs_no_download():
    assert tokenise("Hello, world! This is a test sentence.") == [
        "Hello", ",", "world", "!", "This", "is", "a", "test", "sentence", ".",
    ]  # fmt: skip


def test_batch_first_false_attends_across_the_batch(rng):
    X = rng.normal(size=(2, 4, 3))
    other = X.copy()
    other[1] += 1.0
    assert attend(X, batch_first=False)[0] != attend(other, batch_first=False)[0]
    assert attend(X, batch_first=True)[0] == attend(other, batch_first=True)[0]
    # and a token no longer sees the rest of its own text
    later = X.copy()
    later[0, 3] += 1.0
    assert attend(X, batch_first=False)[0][0] == attend(later, batch_first=False)[0][0]
    assert attend(X, batch_first=True)[0][0] != attend(later, batch_first=True)[0][0]


def test_c002b_linear_gets_512():
    with pytest.raises(ValueError, match=r"takes 2048 .* 512 came"):
        linear_shape((4, 16, 512), (10, 2048))
    assert linear_shape((4, 16, 512), (10, 512)) == (4, 16, 10)


def test_c002b_hidden_dim_is_not_passed_on():
    assert str(512 * 2048 * 2 + 2048 + 512) in show_hidden_dim_of_002b()
    assert str(512 * 1024 * 2 + 1024 + 512) in show_hidden_dim_of_002b()


def test_order_is_lost_without_positions(rng):
    assert order_defect(rng.normal(size=(5, 4)), [4, 2, 0, 1, 3]) < 1e-14


def test_c002c_block_against_context():
    assert show_untrained_positions().startswith("896 of 1024")


def test_c002c_drops_the_tail():
    assert "44 tokens are dropped" in show_dropped_tail()


def test_c002d_is_cut_off():
    assert show_cut_off().endswith("SyntaxError")


def test_c002d_two_outputs_for_three_classes():
    assert "label 2 lies outside 0..1" in show_third_class()
    with pytest.raises(IndexError):
        cross_entropy([0, 0, 1], [0.5, 0.5])


def test_c004_cross_entropy_shape():
    with pytest.raises(ValueError, match="want targets"):
        torch_cross_entropy_shape((2, 3, 10000), (2, 3))
    assert torch_cross_entropy_shape((2, 10000, 3), (2, 3)) == (6, 10000)
    assert torch_cross_entropy_shape((6, 10000), (6,)) == (6, 10000)


def test_c004_dropout_stays_on():
    x = [1.0, 2.0, 3.0]
    assert dropout(x, [True, False, True], 0.1) != dropout(x, [True, True, False], 0.1)


def test_c004_target_is_never_used():
    assert show_target_is_never_used() == "the result depends on src; computed for nothing: tgt"


def test_c004_sees_the_future(rng):
    X = rng.normal(size=(3, 2))
    later = X.copy()
    later[2] += 1.0
    assert attention(X, X, X)[0] != attention(later, later, later)[0]
    assert attention(X, X, X, causal=True)[0] == attention(later, later, later, causal=True)[0]


def test_c004_printed_result_is_impossible():
    assert linear_shape((2, 3, 512), (10000, 512)) == (2, 3, 10000) != np.shape(PRINTED_RESULT_004)
    # three probabilities rounded to four digits sum to 1 within 0.00015; the first row misses by twice that
    miss = [abs(sum(row) - 1.0) for row in PRINTED_RESULT_004]
    assert miss[0] == pytest.approx(0.0003)
    assert miss[0] > 3 * 0.00005 > miss[1]
    assert "0.9997" in get("C-004").errata[7].show()


def test_c004_logits_are_no_probabilities():
    assert "sum -4.5" in show_logits_are_no_probabilities()
