"""The documents' code samples: what each does, what is wrong in it, and a few lines that show it without running it."""

from __future__ import annotations

import ast
import builtins
import math

from tinyllm.formulas.attention import attention
from tinyllm.formulas.dropout import dropout
from tinyllm.formulas.entry import Erratum, Formula, Matrix, literal, where
from tinyllm.formulas.linear import dot
from tinyllm.formulas.losses import cross_entropy
from tinyllm.formulas.procedures import tokenise
from tinyllm.formulas.recurrent import lstm

# --- what PyTorch and Python do with shapes and names -----------------------------------------------------------------


def linear_shape(x: tuple[int, ...], weight: tuple[int, int]) -> tuple[int, ...]:
    """Shape that a linear layer makes of `x`: the last axis, which must be n_in, becomes n_out.

    Parameters
    ----------
    x : shape
        Shape of the input.
    weight : (n_out, n_in)
        Shape of the weights.

    Returns
    -------
    shape

    Raises
    ------
    ValueError
        When the last axis is not n_in.
    """
    if x[-1] != weight[1]:
        raise ValueError(f"the layer takes {weight[1]} numbers per position, {x[-1]} came")
    return (*x[:-1], weight[0])


def torch_cross_entropy_shape(logits: tuple[int, ...], target: tuple[int, ...]) -> tuple[int, int]:
    """(number of targets, number of classes) by PyTorch's rule: classes on axis 1, target without that axis.

    Parameters
    ----------
    logits : shape (N, V, ...)
        Shape of the scores.
    target : shape (N, ...)
        Shape of the true classes.

    Returns
    -------
    N, V : int

    Raises
    ------
    ValueError
        When the shapes do not fit.
    """
    wanted = (logits[0], *logits[2:])
    if target != wanted:
        raise ValueError(f"logits {logits} mean {logits[1]} classes and want targets {wanted}, {target} came")
    return math.prod(target), logits[1]


def undefined_names(source: str) -> set[str]:
    """Names that a piece of Python reads and never makes.

    Parameters
    ----------
    source : str
        The piece of Python.

    Returns
    -------
    set of str
    """
    read: set[str] = set()
    made = set(dir(builtins))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name):
            (read if isinstance(node.ctx, ast.Load) else made).add(node.id)
        elif isinstance(node, ast.ImportFrom | ast.Import):
            made.update((alias.asname or alias.name).split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ClassDef | ast.FunctionDef):
            made.add(node.name)
    return read - made


@literal
def attend(X: list[Matrix], batch_first: bool) -> list[list[list[float]]]:
    """Self-attention of a batch, along the axis that `batch_first` makes the sequence.

    Parameters
    ----------
    X : (B, T, C) floats
        A batch of texts.
    batch_first : bool
        False takes the *first* axis for time, as torch.nn.TransformerEncoder does unless told otherwise.

    Returns
    -------
    (B, T, C) floats
    """
    if batch_first:
        return [attention(x, x, x) for x in X]
    B, T = len(X), len(X[0])
    columns = []
    for t in range(T):
        column = [X[b][t] for b in range(B)]
        columns.append(attention(column, column, column))
    return [[columns[t][b] for t in range(T)] for b in range(B)]


# --- the faults, shown ------------------------------------------------------------------------------------------------


def error_of(action: str, *, source: str) -> str:
    """The name of the error that compiling `source` raises."""
    try:
        ast.parse(source)
    except SyntaxError as error:
        return f"{action}: {type(error).__name__}"
    return f"{action}: no error"


def show_class_without_body() -> str:
    """C-000: a class whose only line is a comment."""
    return error_of(
        "class with a comment for a body", source="class TransformerModel:\n    # ...\n\ntrain_dataset = ...\n"
    )


def show_undefined_in_training_loop() -> str:
    """C-000: names that its training loop needs and nothing makes."""
    loop = (
        "from torch import nn\nfrom torch.optim import Adam\ntrain_dataset = ...\n"
        "optimizer = Adam(model.parameters())\nloss_fn = nn.CrossEntropyLoss()\n"
        "for epoch in range(num_epochs):\n    for batch in train_dataloader:\n        outputs = model(batch)\n"
    )
    return "never defined: " + ", ".join(sorted(undefined_names(loop)))


def show_lstm_keeps_one_state() -> str:
    """C-001: an LSTM over four tokens, as the sample has it and as a language model needs it."""
    X = [[1.0], [0.5], [-1.0], [2.0]]
    W, U, b = [[0.5]] * 4, [[0.1]] * 4, [0.0] * 4
    all_states = lstm(X, W, U, b, b)
    last_state = lstm(X, W, U, b, b, return_sequences=False)
    return f"{len(X)} tokens: {len(last_state)} state, so {len(last_state)} prediction; meant are {len(all_states)}"


def show_one_hot_is_wanted() -> str:
    """C-001: a class number given where a one-hot row belongs."""
    yhat = [0.1, 0.2, 0.7]
    as_number = cross_entropy([2.0, 2.0, 2.0], yhat)  # broadcast over the classes
    as_one_hot = cross_entropy([0.0, 0.0, 1.0], yhat)
    return f"class 2, predicted with {yhat[2]}: {as_number:.3f} from the number, {as_one_hot:.3f} from one-hot"


def show_tokens_without_download() -> str:
    """C-002a: the sample's sentence, split by rules alone."""
    return " | ".join(tokenise("Hello, world! This is a test sentence."))


def show_batch_is_attended() -> str:
    """C-002b, C-004: whether a sample's output changes when *another* sample of the batch does."""
    first, second, other = [[1.0, 0.0], [0.0, 1.0]], [[1.0, 1.0], [0.0, 2.0]], [[3.0, -1.0], [2.0, 0.0]]
    changes = []
    for batch_first in (False, True):
        before = attend([first, second], batch_first)[0]
        after = attend([first, other], batch_first)[0]
        changes.append(max(abs(a - b) for x, y in zip(before, after, strict=True) for a, b in zip(x, y, strict=True)))
    return f"sample 0 moves by {changes[0]:.3f} when sample 1 changes (batch_first=False), by {changes[1]:.3f} (True)"


def show_linear_of_002b() -> str:
    """C-002b: the last layer meets the encoder's output."""
    try:
        linear_shape((4, 16, 512), (10, 2048))
    except ValueError as error:
        return str(error)
    return "it runs"


def show_hidden_dim_of_002b() -> str:
    """C-002b: parameters of one feed-forward for two hidden sizes, of which the sample passes neither on."""
    default, asked = (2 * 512 * hidden + hidden + 512 for hidden in (2048, 1024))
    return f"hidden 1024 means {asked} parameters; the sample has {default} whatever hidden_dim is (2048 by default)"


def show_untrained_positions() -> str:
    """C-002c: positions of GPT-2 that blocks of 128 tokens never reach."""
    context, block = 1024, 128
    return f"{context - block} of {context} positions are never trained"


def show_dropped_tail() -> str:
    """C-002c: what cutting a text into whole blocks leaves over."""
    tokens, block = 300, 128
    return f"{tokens} tokens give {tokens // block} blocks; {tokens % block} tokens are dropped"


def show_cut_off() -> str:
    """C-002d: the last line of 002's sample."""
    return error_of("'model ='", source="model =\n")


def show_third_class() -> str:
    """C-002d: three classes of news, and a head with the default of two."""
    yhat = [0.5, 0.5]
    return f"labels 0 1 2, outputs {len(yhat)}: label 2 lies outside 0..{len(yhat) - 1}"


def show_dropout_left_on() -> str:
    """C-004: the same hidden numbers, predicted twice with dropout on."""
    x = [1.0, 2.0, 3.0, 4.0]
    draws = ([True, True, False, True], [True, False, True, True])
    return " against ".join(str([round(y, 3) for y in dropout(x, keep, 0.1)]) for keep in draws)


def show_future_is_seen() -> str:
    """C-004: whether the first position's output changes with the last token."""
    before, after = [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], [[1.0, 0.0], [0.0, 1.0], [-2.0, 3.0]]
    moved = []
    for causal in (False, True):
        a, b = attention(before, before, before, causal=causal)[0], attention(after, after, after, causal=causal)[0]
        moved.append(max(abs(p - q) for p, q in zip(a, b, strict=True)))
    return f"position 0 moves by {moved[0]:.3f} without a mask, by {moved[1]:.3f} with a causal one"


def show_order_is_lost() -> str:
    """C-004: the words of a three-word text, reversed."""
    X = [[1.0, 0.0], [0.0, 1.0], [2.0, 1.0]]
    forwards, backwards = attention(X, X, X), attention(X[::-1], X[::-1], X[::-1])
    same = max(abs(a - b) for p, q in zip(forwards, backwards[::-1], strict=True) for a, b in zip(p, q, strict=True))
    return f"reversed words give the reversed vectors, to {same:.1e}"


def show_cross_entropy_of_004() -> str:
    """C-004: the loss meets (B, T, V) logits."""
    try:
        torch_cross_entropy_shape((2, 3, 10000), (2, 3))
    except ValueError as error:
        return str(error)
    return "it runs"


def show_target_is_never_used() -> str:
    """C-004: the decoder side of the forward pass, read for what the result depends on."""
    forward = "tgt = dropout(embedding(tgt))\noutput = encoder(src)\noutput = decoder(output)\nresult = output\n"
    needed, stale = {"result"}, set()
    for line in reversed(ast.parse(forward).body):
        assert isinstance(line, ast.Assign)
        target = line.targets[0].id  # type: ignore[attr-defined]
        if target in needed:
            needed = (needed - {target}) | {n.id for n in ast.walk(line.value) if isinstance(n, ast.Name)}
        else:
            stale.add(target)
    inputs = ", ".join(sorted(needed & {"src", "tgt"}))
    return f"the result depends on {inputs}; computed for nothing: {', '.join(sorted(stale))}"


PRINTED_RESULT_004 = ((0.4373, 0.4373, 0.1251), (0.3629, 0.3211, 0.3160))


def show_result_of_004() -> str:
    """C-004: the printed result against what the model would print."""
    model = linear_shape((2, 3, 512), (10000, 512))
    printed = (len(PRINTED_RESULT_004), len(PRINTED_RESULT_004[0]))
    sums = [round(sum(row), 4) for row in PRINTED_RESULT_004]
    off = round(3 * 0.00005, 5)
    return (
        f"printed {printed}, the model gives {model}; the rows sum to {sums[0]} and {sums[1]}, "
        f"where rounding three probabilities can shift the sum by {off:.5f}"
    )


def show_logits_are_no_probabilities() -> str:
    """C-004: what the last linear layer can give."""
    logits = [dot([2.0, -1.0], row) for row in ([1.0, 0.5], [-1.0, 1.0], [0.0, 3.0])]
    return f"a linear layer gives {logits}, sum {sum(logits)}"


TESTS = "tests/formulas/test_formulas_samples.py::"


def _faults(*rows: tuple) -> tuple[Erratum, ...]:
    """Errata from (fault, remedy, test name, show) rows."""
    return tuple(Erratum(fault, remedy, TESTS + test, show) for fault, remedy, test, show in rows)


SAMPLE_TESTS = "tests/samples/test_sample_"

ENTRIES = (
    Formula(
        id="C-000",
        kind="sample",
        title="Training loop of a Transformer (PyTorch)",
        meaning="Transformer, Adam, cross-entropy, and the loop: forward, loss, zero_grad, backward, step.",
        where=where("000 5"),
        library=("tinyllm.samples.training_loop",),
        tests=(
            TESTS + "test_every_fault_can_be_shown",
            SAMPLE_TESTS + "training_loop.py::test_c000_learns_more_than_the_frequencies",
            SAMPLE_TESTS + "training_loop.py::test_c000_is_the_procedure",
            SAMPLE_TESTS + "training_loop.py::test_c000_stops_when_converged",
        ),
        chapter="07",
        errata=_faults(
            (
                "Model, data and part of the loop are left out; a class with a comment for a body is no Python.",
                "The counterpart has a model and data.",
                "test_c000_does_not_parse",
                show_class_without_body,
            ),
            (
                "model, num_epochs and train_dataloader are used and never made (the data is train_dataset).",
                "The counterpart makes them.",
                "test_c000_undefined_names",
                show_undefined_in_training_loop,
            ),
        ),
    ),
    Formula(
        id="C-001",
        kind="sample",
        title="LSTM language model (Keras)",
        meaning="Embedding -> LSTM -> Dense(softmax), then compile, fit, evaluate.",
        where=where("001 5.1"),
        library=("tinyllm.samples.lstm_language_model",),
        tests=(
            TESTS + "test_every_fault_can_be_shown",
            SAMPLE_TESTS + "lstm_language_model.py::test_c001_predicts_at_every_position",
        ),
        chapter="14",
        errata=_faults(
            (
                "The LSTM returns its last state only, so there is one prediction per sequence.",
                "One prediction per position: every state goes on (return_sequences=True).",
                "test_c001_one_prediction_per_sequence",
                show_lstm_keeps_one_state,
            ),
            (
                "CategoricalCrossentropy takes one-hot targets; token numbers are not.",
                "A cross-entropy that takes class numbers.",
                "test_c001_wants_one_hot",
                show_one_hot_is_wanted,
            ),
        ),
    ),
    Formula(
        id="C-002a",
        kind="sample",
        title="Splitting into words (NLTK)",
        meaning="word_tokenize on one sentence.",
        where=where("002 5.1"),
        loops=(tokenise,),
        library=("tinyllm.samples.word_tokenize",),
        tests=(
            TESTS + "test_every_fault_can_be_shown",
            SAMPLE_TESTS + "word_tokenize.py::test_c002a_words_of_the_sentence",
        ),
        chapter="04",
        errata=_faults(
            (
                "It needs a download before it runs (and a newer NLTK needs punkt_tab, not the punkt it fetches).",
                "Splitting by rules needs none.",
                "test_c002a_needs_no_download",
                show_tokens_without_download,
            ),
        ),
    ),
    Formula(
        id="C-002b",
        kind="sample",
        title="Transformer encoder and its initialisation (PyTorch)",
        meaning="An encoder of six layers with eight heads and a linear layer for ten classes; sizes 512 and 2048.",
        where=where("002 5.2"),
        axes="as meant: ids (B, T) -> logits (B, T, 10), ten classes at each position",
        loops=(attend,),
        library=("tinyllm.samples.encoder_classifier",),
        tests=(
            TESTS + "test_every_fault_can_be_shown",
            SAMPLE_TESTS + "encoder_classifier.py::test_c002b_runs_at_its_sizes",
            SAMPLE_TESTS + "encoder_classifier.py::test_c002b_hidden_dim_reaches_the_feed_forward",
            SAMPLE_TESTS + "encoder_classifier.py::test_c002b_texts_of_a_batch_do_not_meet",
            SAMPLE_TESTS + "encoder_classifier.py::test_c002b_order_leaves_a_trace",
            "tests/formulas/test_formulas_samples_torch.py::test_c002b_as_printed_fails",
            "tests/samples/test_samples_torch.py::test_encoder_equals_torch",
        ),
        chapter="06",
        errata=_faults(
            (
                "batch_first is False, so a batch (B, T, C) attends across its samples.",
                "Attention along time.",
                "test_batch_first_false_attends_across_the_batch",
                show_batch_is_attended,
            ),
            (
                "fc takes hidden_dim = 2048 numbers and gets 512: the sample cannot run.",
                "The last layer takes the encoder's channels.",
                "test_c002b_linear_gets_512",
                show_linear_of_002b,
            ),
            (
                "hidden_dim never reaches the feed-forward, whose default happens to be 2048.",
                "hidden_dim is the feed-forward's inner size.",
                "test_c002b_hidden_dim_is_not_passed_on",
                show_hidden_dim_of_002b,
            ),
            (
                "No embedding and no positions: token numbers do not fit, and order leaves no trace.",
                "Embedding plus positions before the encoder.",
                "test_order_is_lost_without_positions",
                show_order_is_lost,
            ),
        ),
    ),
    Formula(
        id="C-002c",
        kind="sample",
        title="GPT-2 pre-training (transformers)",
        meaning="GPT-2 and its tokenizer, a text cut into blocks, a collator with mlm=False, a trainer.",
        where=where("002 5.3"),
        library=("tinyllm.samples.gpt2_pretraining",),
        tests=(
            TESTS + "test_every_fault_can_be_shown",
            SAMPLE_TESTS + "gpt2_pretraining.py::test_c002c_learns",
            SAMPLE_TESTS + "gpt2_pretraining.py::test_c002c_block_is_the_context",
            SAMPLE_TESTS + "gpt2_pretraining.py::test_c002c_parts_documents",
            SAMPLE_TESTS + "gpt2_pretraining.py::test_c002c_at_the_documents_sizes",
        ),
        chapter="07",
        errata=_faults(
            (
                "Blocks of 128 tokens in a model of 1,024 positions: most positions are never trained.",
                "Block and context are one number.",
                "test_c002c_block_against_context",
                show_untrained_positions,
            ),
            (
                "TextDataset cuts across documents and drops the tail; it is gone from transformers since version 5.",
                "Blocks are drawn from the whole text.",
                "test_c002c_drops_the_tail",
                show_dropped_tail,
            ),
        ),
    ),
    Formula(
        id="C-002d",
        kind="sample",
        title="BERT fine-tuning for classification (transformers)",
        meaning="A pre-trained BERT with a classification head, training arguments, a trainer.",
        where=where("002 5.4", "003 5.1"),
        library=("tinyllm.samples.bert_classification",),
        tests=(
            TESTS + "test_every_fault_can_be_shown",
            "tests/samples/test_sample_bert_classification.py::test_c002d_learns_three_classes",
        ),
        chapter="12",
        errata=_faults(
            (
                "002's text breaks off at 'model ='.",
                "003 has the sample whole.",
                "test_c002d_is_cut_off",
                show_cut_off,
            ),
            (
                "003 does not say how many classes there are, and the head has two.",
                "num_labels is given.",
                "test_c002d_two_outputs_for_three_classes",
                show_third_class,
            ),
        ),
    ),
    Formula(
        id="C-004",
        kind="sample",
        title="A Transformer language model, trained and used (PyTorch)",
        meaning="Embedding, encoder of two layers, linear layer to 10,000 words; ten epochs of Adam; a prediction.",
        where=where("004 5.2", "004 5.4"),
        axes="as meant: ids (B, T) -> logits (B, T, V), each position predicting the next token",
        loops=(attend,),
        library=("tinyllm.samples.transformer_language_model",),
        tests=(
            TESTS + "test_every_fault_can_be_shown",
            SAMPLE_TESTS + "transformer_language_model.py::test_c004_learns_and_predicts",
            SAMPLE_TESTS + "transformer_language_model.py::test_c004_texts_of_a_batch_do_not_meet",
            SAMPLE_TESTS + "transformer_language_model.py::test_c004_never_looks_ahead",
            SAMPLE_TESTS + "transformer_language_model.py::test_c004_order_leaves_a_trace",
            SAMPLE_TESTS + "transformer_language_model.py::test_c004_dropout_is_on_in_training_alone",
            SAMPLE_TESTS + "transformer_language_model.py::test_c004_hidden_dim_and_dropout_reach_the_encoder",
            SAMPLE_TESTS + "transformer_language_model.py::test_c004_at_the_documents_sizes",
            "tests/formulas/test_formulas_samples_torch.py::test_c004_as_printed_fails",
            "tests/formulas/test_formulas_samples_torch.py::test_c004_as_printed_mixes_the_batch",
            "tests/samples/test_samples_torch.py::test_encoder_equals_torch",
        ),
        chapter="07",
        errata=_faults(
            (
                "batch_first is False, so a batch attends across its samples.",
                "Attention along time.",
                "test_batch_first_false_attends_across_the_batch",
                show_batch_is_attended,
            ),
            (
                "CrossEntropyLoss gets (B, T, V) where it wants the classes on axis 1: the first step fails.",
                "tinyllm's cross_entropy has the classes on the last axis.",
                "test_c004_cross_entropy_shape",
                show_cross_entropy_of_004,
            ),
            (
                "It predicts without eval(), so dropout stays on and the same input gives different results.",
                "model.eval() before predicting.",
                "test_c004_dropout_stays_on",
                show_dropout_left_on,
            ),
            (
                "tgt is embedded and never used.",
                "A decoder-only model takes one text; the target is the same text, one place further.",
                "test_c004_target_is_never_used",
                show_target_is_never_used,
            ),
            (
                "There is no causal mask: each position sees the token it is to predict.",
                "A causal mask.",
                "test_c004_sees_the_future",
                show_future_is_seen,
            ),
            (
                "There are no positions: the order of the words leaves no trace.",
                "Positions are added to the embeddings.",
                "test_order_is_lost_without_positions",
                show_order_is_lost,
            ),
            (
                "hidden_dim is taken and never used; the feed-forward has PyTorch's 2,048.",
                "hidden_dim is the feed-forward's inner size.",
                "test_c002b_hidden_dim_is_not_passed_on",
                show_hidden_dim_of_002b,
            ),
            (
                "The printed result, two rows of three numbers, cannot come from a model that gives (2, 3, 10000).",
                "The counterpart prints what it computed.",
                "test_c004_printed_result_is_impossible",
                show_result_of_004,
            ),
            (
                "The result is called a probability distribution; the model ends in a linear layer.",
                "softmax of the logits.",
                "test_c004_logits_are_no_probabilities",
                show_logits_are_no_probabilities,
            ),
        ),
    ),
)
