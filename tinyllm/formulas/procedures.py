"""The documents' procedures, each as the smallest program that really does it."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence

from tinyllm.formulas.attention import softmax
from tinyllm.formulas.entry import Erratum, Formula, Matrix, literal, where
from tinyllm.formulas.evaluation import accuracy, f1, macro, precision, recall
from tinyllm.formulas.init import xavier_uniform_bound
from tinyllm.formulas.linear import linear
from tinyllm.formulas.losses import cross_entropy_of_logits

# --- P-PREP -----------------------------------------------------------------------------------------------------------


def clean(text: str) -> str:
    """P-PREP: HTML tags and special symbols become spaces, runs of white space one space.

    Parameters
    ----------
    text : str
        Raw or cleaned text.

    Returns
    -------
    str
    """
    kept = []
    inside_tag = False
    for i, c in enumerate(text):
        if c == "<" and i + 1 < len(text) and (text[i + 1].isalpha() or text[i + 1] in "/!"):
            inside_tag = True
        if inside_tag:
            kept.append(" ")
            inside_tag = c != ">"
        else:
            kept.append(c if c.isalnum() or c in ".,;:!?'-" else " ")
    return " ".join("".join(kept).split())


def tokenise(text: str) -> list[str]:
    """P-PREP: runs of letters, digits and apostrophes are words; any other mark stands alone.

    Parameters
    ----------
    text : str
        Raw or cleaned text.

    Returns
    -------
    list of str
    """
    tokens: list[str] = []
    inside_word = False
    for c in text:
        is_letter = c.isalnum() or c == "'"
        if is_letter and inside_word:
            tokens[-1] += c
        elif not c.isspace():
            tokens.append(c)
        inside_word = is_letter
    return tokens


def stem(word: str) -> str:
    """P-PREP: the first step of Porter's stemmer: sses -> ss, ies -> i, ss -> ss, s -> nothing.

    Parameters
    ----------
    word : str
        In lower case.

    Returns
    -------
    str

    Notes
    -----
    Source: Porter 1980, An algorithm for suffix stripping, step 1a.
    """
    for ending, becomes in (("sses", "ss"), ("ies", "i"), ("ss", "ss"), ("s", "")):
        if word.endswith(ending):
            return word[: len(word) - len(ending)] + becomes
    return word


def vocabulary(tokens: Sequence[str]) -> dict[str, int]:
    """P-PREP: a number for each distinct token, the most frequent first, equals in alphabetical order.

    Parameters
    ----------
    tokens : list of str
        All tokens of the corpus.

    Returns
    -------
    dict from token to id
    """
    count: dict[str, int] = {}
    for token in tokens:
        count[token] = count.get(token, 0) + 1
    return {token: i for i, token in enumerate(sorted(count, key=lambda token: (-count[token], token)))}


def prepare(texts: Sequence[str]) -> tuple[list[list[int]], dict[str, int]]:
    """P-PREP from end to end: clean, tokenise, stem, build the vocabulary, number the tokens.

    Parameters
    ----------
    texts : list of str
        What was collected.

    Returns
    -------
    ids : one list of ints per text
    vocabulary : dict from stem to id
    """
    stems = [[stem(token.lower()) for token in tokenise(clean(text))] for text in texts]
    ids = vocabulary([s for text in stems for s in text])
    return [[ids[s] for s in text] for text in stems], ids


# --- P-TRAIN ----------------------------------------------------------------------------------------------------------


@literal
def held_out_loss(W: Matrix, X: Matrix, labels: Sequence[int]) -> float:
    """Mean cross-entropy of the linear classifier softmax(W x).

    Parameters
    ----------
    W : (classes, n) floats
        Weights.
    X : (N, n) floats
        Examples.
    labels : (N,) ints
        Their classes.

    Returns
    -------
    float
    """
    return cross_entropy_of_logits([linear(x, W) for x in X], labels)


@literal
def train(
    X: Matrix,
    labels: Sequence[int],
    classes: int,
    W: Matrix | None = None,
    lr: float = 0.5,
    decay: float = 0.999,
    tolerance: float = 1e-5,
    max_epochs: int = 500,
) -> tuple[list[list[float]], list[float]]:
    """P-TRAIN: initialise, forward, loss, backward, update, adjust the learning rate, repeat until converged.

    The model is the smallest that classifies: softmax(W x). Its gradient is the mean of (p_c - y_c) x_i.

    Parameters
    ----------
    X : (N, n) floats
        Examples.
    labels : (N,) ints
        Their classes.
    classes : int
        How many classes there are.
    W : (classes, n) floats, optional
        Where to start; drawn by F-INIT when absent.
    lr, decay : float
        The rate is multiplied by `decay` after each pass.
    tolerance : float
        Converged when the loss falls by less than this from one pass to the next.
    max_epochs : int
        The end when it never converges.

    Returns
    -------
    W : (classes, n) floats
    losses : list of float, one per pass, before its update
    """
    n = len(X[0])
    if W is None:  # 1. initialise
        bound = xavier_uniform_bound(n, classes)
        draw = random.Random(0)
        W = [[draw.uniform(-bound, bound) for _ in range(n)] for _ in range(classes)]
    weights = [list(row) for row in W]
    losses: list[float] = []
    for _ in range(max_epochs):
        gradient = [[0.0] * n for _ in range(classes)]
        loss = 0.0
        for x, label in zip(X, labels, strict=True):
            p = softmax(linear(x, weights))  # 2. forward
            loss -= math.log(p[label]) / len(X)  # 3. loss
            for c in range(classes):  # 4. backward
                for i in range(n):
                    gradient[c][i] += (p[c] - (1.0 if c == label else 0.0)) * x[i] / len(X)
        losses.append(loss)
        for c in range(classes):  # 5. update
            for i in range(n):
                weights[c][i] -= lr * gradient[c][i]
        lr *= decay  # 6. adjust the learning rate
        if len(losses) > 1 and abs(losses[-2] - losses[-1]) < tolerance:  # 7. until converged
            break
    return weights, losses


# --- P-LOOP -----------------------------------------------------------------------------------------------------------

Chart = Mapping[str, Sequence[str]]


def printed_chart() -> dict[str, tuple[str, ...]]:
    """P-LOOP as printed: where each box of document 004's flow chart leads.

    Returns
    -------
    dict from box to the boxes after it
    """
    return {
        "preprocess": ("initialise",),
        "initialise": ("initialised?",),
        "initialised?": ("train", "initialise"),
        "train": ("trained?",),
        "trained?": ("predict", "train"),
        "predict": ("evaluate",),
        "evaluate": ("optimise",),
        "optimise": ("train",),
    }


def meant_chart() -> dict[str, tuple[str, ...]]:
    """P-LOOP as meant: the evaluation decides, and one of its answers is the end.

    Returns
    -------
    dict from box to the boxes after it
    """
    return {**printed_chart(), "evaluate": ("good enough?",), "good enough?": ("end", "optimise"), "end": ()}


def reachable(chart: Chart, start: str) -> set[str]:
    """Every box that some path from `start` comes to, `start` itself included.

    Parameters
    ----------
    chart : dict from box to the boxes after it
        The flow chart.
    start : str
        The first box.

    Returns
    -------
    set of str
    """
    seen = {start}
    waiting = [start]
    while waiting:
        for box in chart[waiting.pop()]:
            if box not in seen:
                seen.add(box)
                waiting.append(box)
    return seen


def can_end(chart: Chart, start: str) -> bool:
    """Whether some path from `start` comes to a box that leads nowhere further.

    Parameters
    ----------
    chart : dict from box to the boxes after it
        The flow chart.
    start : str
        The first box.

    Returns
    -------
    bool
    """
    return any(len(chart[box]) == 0 for box in reachable(chart, start))


@literal
def improvement_loop(
    X: Matrix, labels: Sequence[int], X_held: Matrix, labels_held: Sequence[int], classes: int, max_rounds: int = 20
) -> tuple[list[list[float]], list[float]]:
    """P-LOOP that ends: train, predict, evaluate on held-out data, optimise, train on, until it no longer helps.

    To optimise is here to train on from the best weights at half the learning rate.

    Parameters
    ----------
    X : (N, n) floats
        Examples.
    labels : (N,) ints
        Their classes.
    X_held, labels_held
        As X and labels; never trained on.
    classes : int
        How many classes there are.
    max_rounds : int
        The end when every round helps.

    Returns
    -------
    W : (classes, n) floats, the best found
    history : list of float, the held-out loss after each round
    """
    lr = 0.5
    best, _ = train(X, labels, classes, lr=lr, max_epochs=5)
    history = [held_out_loss(best, X_held, labels_held)]
    for _ in range(max_rounds):
        lr = lr / 2.0
        W, _ = train(X, labels, classes, W=best, lr=lr, max_epochs=20)
        loss = held_out_loss(W, X_held, labels_held)
        history.append(loss)
        if history[-2] - loss < 1e-3:
            break
        best = W
    return best, history


def show_chart_without_exit() -> str:
    """The printed chart followed to every box it can come to."""
    chart = printed_chart()
    boxes = reachable(chart, "preprocess")
    ends = sorted(box for box in boxes if not chart[box])
    return f"{len(boxes)} boxes can be reached, {len(ends)} of them end the work"


# --- P-TRANSFER -------------------------------------------------------------------------------------------------------


@literal
def transfer(
    X_large: Matrix,
    labels_large: Sequence[int],
    X_small: Matrix,
    labels_small: Sequence[int],
    classes: int,
    epochs: int = 3,
) -> tuple[float, float]:
    """P-TRANSFER: pre-train on much, fine-tune on little; against the same few passes from a fresh start.

    Parameters
    ----------
    X_large, labels_large
        The task with much data.
    X_small, labels_small
        A related task with little.
    classes : int
        Of both tasks.
    epochs : int
        Passes over the small task.

    Returns
    -------
    scratch, transferred : float
        Loss on the small task after fine-tuning from random weights, and from the pre-trained ones.
    """
    pretrained, _ = train(X_large, labels_large, classes)
    fine_tuned, _ = train(X_small, labels_small, classes, W=pretrained, max_epochs=epochs)
    scratch, _ = train(X_small, labels_small, classes, max_epochs=epochs)
    return held_out_loss(scratch, X_small, labels_small), held_out_loss(fine_tuned, X_small, labels_small)


# --- P-NEWS -----------------------------------------------------------------------------------------------------------

NEWS_CLASSES = ("politics", "economy", "sports")

NEWS_TRAIN = (
    ("the parliament passes the new law", 0),
    ("the president meets the minister", 0),
    ("voters choose a new parliament", 0),
    ("the minister defends the law", 0),
    ("the bank raises interest rates", 1),
    ("prices and rates rise again", 1),
    ("the market falls as prices rise", 1),
    ("shares of the bank fall", 1),
    ("the team wins the final match", 2),
    ("a late goal decides the match", 2),
    ("the coach praises the team", 2),
    ("the striker scores a goal", 2),
)
NEWS_TEST = (
    ("the minister loses voters", 0),
    ("the president signs the law", 0),
    ("the bank cuts rates", 1),
    ("shares and prices fall", 1),
    ("the striker wins the match", 2),
    ("the coach wants a new team", 2),
)


def bag_of_words(text: str, ids: Mapping[str, int]) -> list[float]:
    """How often each word of the vocabulary occurs, and a 1 at the end for the bias; unknown words are passed over."""
    x = [0.0] * len(ids) + [1.0]
    for token in tokenise(clean(text)):
        if stem(token) in ids:
            x[ids[stem(token)]] += 1.0
    return x


def news() -> dict[str, float]:
    """P-NEWS from end to end on eighteen made-up headlines: model, loss, training, prediction, evaluation.

    Returns
    -------
    dict
        ``train_loss``, and on six headlines that were not trained on ``accuracy``, and the means over the three classes
        of ``precision``, ``recall`` and ``f1``.
    """
    _, ids = prepare([text for text, _ in NEWS_TRAIN])
    X = [bag_of_words(text, ids) for text, _ in NEWS_TRAIN]
    W, losses = train(X, [label for _, label in NEWS_TRAIN], len(NEWS_CLASSES))
    truth = [label for _, label in NEWS_TEST]
    predicted = []
    for text, _ in NEWS_TEST:
        p = softmax(linear(bag_of_words(text, ids), W))
        predicted.append(p.index(max(p)))
    return {
        "train_loss": losses[-1],
        "accuracy": accuracy(truth, predicted),
        "precision": macro(precision, truth, predicted),
        "recall": macro(recall, truth, predicted),
        "f1": macro(f1, truth, predicted),
    }


TESTS = "tests/formulas/test_formulas_procedures.py::"

ENTRIES = (
    Formula(
        id="P-PREP",
        kind="procedure",
        title="Preparing the text",
        meaning=(
            "Collect; remove HTML tags and special symbols; split into words; cut off endings; number what is left. "
            "Language models of today keep the endings and most symbols, and split into pieces of words instead."
        ),
        where=where("000 3.1", "001 3.3", "002 3.1"),
        loops=(prepare, clean, tokenise, stem, vocabulary),
        library=("tinyllm.text.clean", "tinyllm.text.WordTokenizer", "tinyllm.text.PorterStemmer"),
        tests=(
            TESTS + "test_preparation_by_hand",
            TESTS + "test_vocabulary_numbers_every_token_once",
            "tests/formulas/test_library_equals_formulas.py::test_clean",
            "tests/text/test_text_porter.py::test_step_1a_is_the_loops",
        ),
        chapter="04",
        source="stemming: Porter 1980, An algorithm for suffix stripping, step 1a",
    ),
    Formula(
        id="P-TRAIN",
        kind="procedure",
        title="Training",
        latex=r"\theta_{t+1} = \theta_t - \eta_t \nabla_\theta L(\theta_t) \text{ until } |L_{t-1} - L_t| < \tau",
        meaning=(
            "Start somewhere; compute the loss; compute which way each parameter should go; go a little; lower the "
            "rate; and again, until the loss stands still. Here for the smallest classifier, with its gradient written "
            "out."
        ),
        where=where("000 3.1", "001 3.3", "004 3.2"),
        axes="N examples of n numbers, W (classes, n)",
        loops=(train, held_out_loss),
        library=("tinyllm.train.Trainer", "tinyllm.optim.SGD", "tinyllm.samples.training_loop"),
        tests=(
            TESTS + "test_gradient_of_train_is_the_finite_difference",
            TESTS + "test_training_converges_and_stops",
            "tests/formulas/test_library_equals_formulas.py::test_training_procedure",
            "tests/samples/test_sample_training_loop.py::test_c000_is_the_procedure",
            "tests/samples/test_sample_training_loop.py::test_c000_stops_when_converged",
        ),
        chapter="07",
    ),
    Formula(
        id="P-LOOP",
        kind="procedure",
        title="Train, evaluate, improve",
        meaning=(
            "Train, predict, evaluate; change something; train again. Meant is a loop that stops once the evaluation "
            "on data that was not trained on no longer gets better."
        ),
        where=where("004 2.2"),
        loops=(improvement_loop, meant_chart, can_end, reachable),
        as_printed=(printed_chart,),
        library=("tinyllm.samples.improvement_loop",),
        tests=(
            TESTS + "test_improvement_loop_ends",
            TESTS + "test_meant_chart_ends",
            "tests/samples/test_sample_improvement_loop.py::test_p_loop_walks_the_meant_chart",
            "tests/samples/test_sample_improvement_loop.py::test_p_loop_ends_when_it_gets_no_better",
        ),
        chapter="07",
        errata=(
            Erratum(
                fault="No path of the printed chart comes to an end: after the evaluation it always trains again.",
                remedy="The evaluation decides between going on and ending.",
                test=TESTS + "test_printed_chart_has_no_exit",
                show=show_chart_without_exit,
            ),
            Erratum(
                fault="The evaluation is drawn as a decision and has one way out.",
                remedy="A decision has two: good enough, or not.",
                test=TESTS + "test_printed_evaluation_decides_nothing",
            ),
        ),
    ),
    Formula(
        id="P-TRANSFER",
        kind="procedure",
        title="Pre-training and fine-tuning",
        meaning=(
            "Learn on a task with much data, and go on from there on a related one with little. It pays as far as the "
            "tasks share something."
        ),
        where=where("001 9.3", "002 2.3", "003 3.2"),
        axes="both tasks have the same inputs and classes",
        loops=(transfer,),
        library=("tinyllm.tasks.classification.ClassificationJob",),
        tests=(
            TESTS + "test_transfer_helps_on_a_related_task",
            TESTS + "test_transfer_from_the_opposite_task_hurts",
            "tests/tasks/test_classification.py::test_starting_from_another_classifier_keeps_its_body",
        ),
        chapter="12",
        source="Howard and Ruder 2018; Devlin et al. 2019, section 3.2",
    ),
    Formula(
        id="P-NEWS",
        kind="procedure",
        title="Classifying news: politics, economy, sports",
        meaning=(
            "The documents' worked case from end to end: model, loss, training, prediction, evaluation. Here words are "
            "counted and a linear layer decides, the honest baseline for anything larger."
        ),
        where=where("004 4.3"),
        axes="headlines, three classes",
        loops=(news, train),
        library=("tinyllm.tasks.topics.chatterbot_news", "tinyllm.tasks.classification.ClassificationJob"),
        tests=(
            TESTS + "test_news_beats_the_majority",
            "tests/tasks/test_classification.py::test_the_documents_classes_are_learnt_from_dialogues",
        ),
        chapter="12",
    ),
)
