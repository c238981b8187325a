"""Questions whose answer stands in a text: made by rules from the standard library, or read from SQuAD's files."""

from __future__ import annotations

import ast
import json
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tinyllm.data.stdlib import read_code
from tinyllm.errors import DataError

_TOGETHER = 3  # functions in a text
_MOST_WORDS = 14  # of the first line of a docstring
_MOST_ARGUMENTS = 60  # characters


@dataclass(frozen=True)
class Question:
    """A question, the text that holds its answer, and the places where that begins; `group` as in `Pair`."""

    question: str
    text: str
    answers: tuple[str, ...]
    starts: tuple[int, ...]
    group: str


@dataclass(frozen=True)
class _Function:
    name: str
    arguments: str
    defaults: dict[str, str]
    does: str

    def __str__(self) -> str:
        return f"{self.name}({self.arguments}): {self.does}"


def from_stdlib() -> list[Question]:
    """Questions about functions of the standard library, grouped by package.

    A text shows three functions of one file: the name, the arguments, and the first line of the docstring. Three kinds
    of questions are put to it by rules, which is why a model gets on with them better than with people's:
    what a function does, what the default of an argument is, and which function takes an argument.
    """
    questions: list[Question] = []
    for document in read_code().documents:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the library's escape sequences are not the user's concern
            try:
                tree = ast.parse(document.text)
            except SyntaxError:
                continue
        functions = list({f.name: f for f in _functions(tree)}.values())
        for i in range(0, len(functions) - _TOGETHER + 1, _TOGETHER):
            questions += _ask(functions[i : i + _TOGETHER], document.group)
    return questions


def _functions(tree: ast.Module) -> Iterator[_Function]:
    """The public functions of a file that have a docstring and are short enough."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or node.name.startswith("_"):
            continue
        lines = (ast.get_docstring(node) or "").strip().splitlines()
        arguments = ast.unparse(node.args).removeprefix("self, ").removeprefix("self")
        if not lines or not 3 <= len(lines[0].split()) <= _MOST_WORDS or len(arguments) > _MOST_ARGUMENTS:
            continue
        places = node.args.posonlyargs + node.args.args
        defaults = dict(zip(places[len(places) - len(node.args.defaults) :], node.args.defaults, strict=True))
        named = {k: d for k, d in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True) if d is not None}
        texts = {a.arg: ast.unparse(d) for a, d in {**defaults, **named}.items()}
        yield _Function(node.name, arguments, texts, lines[0].rstrip("."))


def _ask(functions: list[_Function], group: str) -> Iterator[Question]:
    """Every question that three functions allow."""
    text, starts = "", []
    for function in functions:
        starts.append(len(text))
        text += f"{function}\n"
    text = text.rstrip("\n")

    def question(asked: str, answer: str, start: int) -> Question:
        return Question(asked, text, (answer,), (start,), group)

    for function, start in zip(functions, starts, strict=True):
        does = start + len(str(function)) - len(function.does)
        yield question(f"What does {function.name} do?", function.does, does)
        for argument, default in function.defaults.items():
            at = text.find(f"{argument}={default}", start + len(function.name), does)
            if at >= 0 and text[at - 1] in "( *":
                begin = at + len(argument) + 1
                yield question(f"What is the default of {argument} in {function.name}?", default, begin)
            if sum(argument in other.arguments for other in functions) == 1:
                yield question(f"Which function takes {argument}?", function.name, start)


def from_squad(path: Path) -> list[Question]:
    """Questions in SQuAD's form: ``data``, ``paragraphs`` with ``context`` and ``qas``; those without answer left out.

    Raises
    ------
    DataError
        For a file that cannot be read or has another form, and an answer that does not stand where the file says.
    """
    try:
        articles = json.loads(path.read_bytes().decode())["data"]
        found = []
        for number, article in enumerate(articles):
            for paragraph in article["paragraphs"]:
                text = paragraph["context"]
                for entry in paragraph["qas"]:
                    answers = tuple(answer["text"] for answer in entry["answers"])
                    starts = tuple(answer["answer_start"] for answer in entry["answers"])
                    for answer, start in zip(answers, starts, strict=True):
                        if text[start : start + len(answer)] != answer:
                            raise DataError(
                                f"{path}: the answer {answer[:40]!r} to {entry['question'][:60]!r} does not stand at "
                                f"character {start} of its text"
                            )
                    if answers:
                        group = article.get("title") or str(number)
                        found.append(Question(entry["question"], text, answers, starts, group))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} is not in SQuAD's form (JSON with data, paragraphs, qas): {error!r}") from error
    if not found:
        raise DataError(f"{path} holds no question with an answer")
    return found
