"""What is done with a run folder afterwards: writing text, judging a text, telling what is in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tinyllm.errors import ConfigError, DataError, TokenizerError
from tinyllm.generation import Step, generate
from tinyllm.generation.text import text_of
from tinyllm.metrics import perplexity
from tinyllm.models import GPT, from_pretrained
from tinyllm.models.gpt import GPTConfig
from tinyllm.models.places import locate, tokenizer_of
from tinyllm.text import Tokenizer, load_tokenizer
from tinyllm.train import checkpoint
from tinyllm.train.console import Console
from tinyllm.train.families import make_objective
from tinyllm.train.job import matrices_of_blocks, task_of
from tinyllm.train.prepare import prepare, read, tokens_of
from tinyllm.train.report import bits_per_character, read_log
from tinyllm.train.settings import Settings
from tinyllm.train.trainer import LOG, mean_loss, shards

_BATCH = 16  # windows evaluated at once,
_LOGITS = 2**25  # unless they have more logits than this


def open_run(folder: str | Path) -> tuple[Any, Tokenizer]:
    """The model and the tokenizer of a folder, if they belong together.

    Raises
    ------
    CheckpointError, ConfigError
        For a model that is missing, damaged or of an unknown kind.
    TokenizerError
        For a tokenizer that is missing, damaged or another model's.
    """
    folder = locate(folder)
    model = from_pretrained(folder)
    rows = getattr(model.config, "vocab_size", None) or model.config.tgt_vocab_size
    tokenizer = load_tokenizer(tokenizer_of(folder, rows))
    # A model from elsewhere may have rows to spare, for a round number; a run of ours has none.
    ours = (Path(folder) / checkpoint.FILE).exists()
    if tokenizer.vocab_size > rows or (ours and tokenizer.vocab_size != rows):
        raise TokenizerError(
            f"{folder}: the tokenizer has {tokenizer.vocab_size} tokens and the model {rows}: "
            "the tokenizer belongs to another model"
        )
    return model.eval(), tokenizer


def complete(
    folder: str | Path,
    prompt: str,
    max_new_tokens: int = 200,
    temperature: float = 0.8,
    top_k: int | None = None,
    top_p: float | None = None,
    stop: Sequence[str] = (),
    seed: int | None = None,
    *,
    draft: str | Path | None = None,
    told: list[dict[str, Any]] | None = None,
    **more: Any,
) -> Iterator[str]:
    """Continue a prompt, or turn it into another text; the text comes in pieces, as it is made.

    Parameters
    ----------
    folder : str or Path
        The run folder.
    prompt : str
        What is continued. An empty one asks for the beginning of a text.
    max_new_tokens, temperature, top_k, top_p
        As for `tinyllm.generate`.
    stop : sequence of str
        The text ends before the first of these strings.
    seed : int, optional
        The same one gives the same text; without it every text is another.
    draft : str or Path, optional
        The run folder of a smaller model of the same vocabulary, which guesses ahead.
    told : list, optional
        Where each new token is told of: ``id``, ``token`` (its text), ``logprob``, and with `top_logprobs` ``top``, the
        likeliest tokens and their log-probabilities. Of beams, once the text is whole.
    **more
        Further settings of `tinyllm.generate`: `num_beams`, `min_p`, `repetition_penalty`, `top_logprobs`, ...

    Yields
    ------
    str

    Raises
    ------
    TinyLLMError
        For a folder that cannot be used, or a prompt that the tokenizer cannot write.
    """
    if max_new_tokens < 1:
        raise ConfigError(f"max_new_tokens must be at least 1, got {max_new_tokens}")
    if seed is not None and seed < 0:
        raise ConfigError(f"seed must be at least 0, got {seed}")
    if "" in stop:
        raise ConfigError("a stop text must not be empty")
    model, tokenizer = open_run(folder)
    if hasattr(model, "encode"):
        from tinyllm.tasks.use import Reader

        reader = Reader.open(folder)
        ids, end = reader.ids(prompt), model.config.eos_token_id  # (1, S)
        max_new_tokens = reader.most(max_new_tokens)
    elif hasattr(model, "new_cache"):
        start = tokenizer.encode(prompt) if prompt else _beginning(tokenizer)
        ids, end = np.array([start], dtype=np.int64), tokenizer.eos_token_id  # (1, T)
    else:
        raise ConfigError(f"{folder} holds a {type(model).__name__}, which does not continue texts")
    options: dict[str, Any] = {"temperature": temperature, "top_k": top_k, "top_p": top_p} | more
    options |= {"max_new_tokens": max_new_tokens, "eos_token_id": end, "rng": np.random.default_rng(seed)}
    if draft is not None:
        options["draft_model"] = open_run(draft)[0]
    if told is None and options.get("num_beams", 1) == 1:
        tokens = generate(model, ids, stream=True, **options)
    else:
        tokens = _watched(_steps(model, ids, options), tokenizer, told)
    return _until(text_of(tokens, tokenizer), stop)


def _steps(model: Any, ids: np.ndarray, options: dict[str, Any]) -> Iterator[Step]:
    """The new tokens of one text with their log-probabilities; of beams, those of the best text."""
    if options.get("num_beams", 1) == 1:
        return generate(model, ids, stream=True, details=True, **options)
    best = generate(model, ids, details=True, **options)
    count = best.logprobs.shape[1]
    new = best.ids[:1, best.ids.shape[1] - count :]
    return iter([Step(new[:, i], best.logprobs[:1, i]) for i in range(count)])


def _watched(steps: Iterator[Step], tokenizer: Tokenizer, told: list[dict[str, Any]] | None) -> Iterator[np.ndarray]:
    """The tokens of the steps; each is told of on the way."""
    for step in steps:
        if told is not None:
            assert step.logprobs is not None
            token = int(step.ids[0])
            about = {"id": token, "token": tokenizer.decode([token]), "logprob": float(step.logprobs[0])}
            if step.top_ids is not None and step.top_logprobs is not None:
                pairs = zip(step.top_ids[0].tolist(), step.top_logprobs[0].tolist(), strict=True)
                about["top"] = [[tokenizer.decode([i]), logprob] for i, logprob in pairs]
            told.append(about)
        yield step.ids


def _beginning(tokenizer: Tokenizer) -> list[int]:
    """What stands before the first token of a text."""
    if ids := tokenizer.encode(""):  # of a tokenizer that puts a token before every text
        return ids
    if tokenizer.eos_token_id is not None:
        return [tokenizer.eos_token_id]
    try:
        return tokenizer.encode("\n")
    except TokenizerError:
        raise ConfigError(
            "the prompt is empty, and this model knows no token that begins a text: give a --prompt"
        ) from None


def _until(pieces: Iterator[str], stop: Sequence[str]) -> Iterator[str]:
    """`pieces` up to the first stop string; what might be the beginning of one is held back."""
    text, done = "", 0
    for piece in pieces:
        text += piece
        found = [place for place in (text.find(s, max(0, done - len(s))) for s in stop) if place >= 0]
        if found:
            yield text[done : min(found)]
            return
        held = max((k for s in stop for k in range(1, len(s)) if text.endswith(s[:k])), default=0)
        safe = len(text) - held
        if safe > done:
            yield text[done:safe]
            done = safe
    yield text[done:]


def evaluate(folder: str | Path, data: str | None = None, console: Console | None = None) -> dict[str, Any]:
    """The loss of a run on its held-out text, or on another text.

    Parameters
    ----------
    folder : str or Path
        The run folder.
    data : str, optional
        Another corpus, as for training; all of it is read.
    console : Console, optional
        Where progress is shown.

    Returns
    -------
    dict
        ``loss`` (nats per token), ``bits_per_char``, ``perplexity``, ``tokens``, ``characters``, ``text``.

    Raises
    ------
    TinyLLMError
        For a folder or a text that cannot be used.
    """
    folder = Path(folder)
    if task_of(folder):
        from tinyllm.tasks.use import evaluate as evaluate_task

        return evaluate_task(folder, data, console)
    model, tokenizer = open_run(folder)
    resumable = (folder / checkpoint.FILE).exists()
    extra = checkpoint.load(folder / checkpoint.FILE)["extra"] if resumable else {}
    settings = Settings.make(extra.get("settings", {}))
    if data is not None:
        part = tokens_of(read(settings, data, console), tokenizer, data)
    elif not resumable:
        raise ConfigError(f"{folder} does not say what it was trained on: name a text with --data")
    elif settings.data == "-":
        raise ConfigError(f"{folder} was trained on standard input: name a text with --data")
    else:
        prepared = prepare(settings, tokenizer, console)
        if prepared.fingerprint != extra["fingerprint"].partition(" ")[0]:  # a teacher's may follow
            raise DataError(
                f"the text of {settings.data} is not the one that {folder} was trained on, so what was held out is not "
                "known: name a text with --data"
            )
        part = prepared.held_out
    if console:
        console.say(str(part))
        console.progress("reading it")
    objective = make_objective(model, tokenizer, settings)
    context = getattr(model, "context_length", None) or settings.block_size
    batch = max(1, min(_BATCH, _LOGITS // (context * model.config.vocab_size)))
    loss = mean_loss(objective, objective.windows(part.tokens, batch), objective.count)
    return {
        "loss": loss,
        "bits_per_char": bits_per_character(loss, part.tokens_per_character),
        "perplexity": perplexity(loss, 1),
        "tokens": len(part.tokens),
        "characters": part.characters,
        "replaced": part.replaced,
        "text": part.name,
    }


def describe(folder: str | Path) -> dict[str, Any]:
    """What a run folder holds.

    Returns
    -------
    dict
        ``parameters``, ``vocab_size``, ``flops_per_token`` (``forward`` and ``training``), ``steps``, ``loss``,
        ``step_bytes`` (about what the arrays of a training step need), ``peak_bytes`` (the most memory that the process
        of the training held) and more; None where a folder does not tell.
    """
    folder = Path(folder)
    model, tokenizer = open_run(folder)
    forward = flops_per_token(model.config) if isinstance(model, GPT) else None
    facts: dict[str, Any] = {
        "run": str(folder),
        "model": f"{type(model).__name__}: {_sizes(model.config)}",
        "tokenizer": type(tokenizer).__name__,
        "vocab_size": tokenizer.vocab_size,
        "parameters": model.num_parameters(),
        "parameter_bytes": sum(p.data.nbytes for p in model.parameters()),
        "flops_per_token": {"forward": forward, "training": 3 * forward} if forward else None,
    }
    task: str | None = None
    metrics: dict[str, float] | None = None
    steps = total = data = loss = bits = peak = tokens = step = None
    if (folder / checkpoint.FILE).exists():
        state = checkpoint.load(folder / checkpoint.FILE)
        settings = state["extra"]["settings"]
        task = settings.get("task", "language-model")
        steps, total, data = state["progress"]["step"], settings["steps"], settings["data"]
        tokens = state["progress"]["tokens"]
        step = step_bytes(model, Settings.make(settings)) if isinstance(model, GPT) else None
    if (folder / LOG).exists():
        results = [record["result"] for record in read_log(folder) if "result" in record]
        if results:
            metrics = results[-1].get("metrics")
            loss, bits, peak = (results[-1].get(name) for name in ("loss", "bits_per_char", "peak_bytes"))
    told = {"task": task, "data": data, "steps": steps, "steps_planned": total, "tokens_trained": tokens}
    judged = {} if metrics is None else {"metrics": metrics}
    return facts | told | judged | {"loss": loss, "bits_per_char": bits, "step_bytes": step, "peak_bytes": peak}


# A model's sizes, and what configurations call them.
_SIZES = {
    "layers": ("n_layer", "num_hidden_layers", "num_layers", "num_encoder_layers"),
    "heads": ("n_head", "num_attention_heads", "nhead"),
    "channels": ("n_embd", "hidden_size", "d_model"),
    "context": ("n_positions", "max_position_embeddings"),
}


def _sizes(config: Any) -> str:
    """As much of "4 layers, 4 heads, 128 channels, context 64" as a configuration tells."""
    found = []
    for what, names in _SIZES.items():
        value = next((getattr(config, name) for name in names if getattr(config, name, None) is not None), None)
        if value is not None:
            found.append(f"context {value}" if what == "context" else f"{value} {what}")
    return ", ".join(found)


def flops_per_token(config: GPTConfig) -> int:
    """Multiplications and additions of a forward pass per token of a full window, those of matrix products alone.

    A (m, n) matrix costs 2 m n per token, scores and their weighted sum 2 T C each; masked scores are counted.

    References
    ----------
    Kaplan et al., "Scaling laws for neural language models", 2020, section 2.1.
    """
    C, T = config.n_embd, config.n_positions
    inner = config.inner
    block = 2 * (3 * C * C + C * C + 2 * C * inner) + 2 * 2 * T * C
    return config.n_layer * block + 2 * C * config.vocab_size


# Numbers kept for backward per token and channel of a block: the inputs of two norms (2), of four matrix products
# (1 + 1 + 1 + 4) and of the activation (4), q, k, v and the result of attention (4), and a gradient on its way.
_KEPT = 18


def step_bytes(model: GPT, settings: Settings) -> int:
    """About the memory of a training step: parameters, the optimiser's moments, gradients, activations."""
    config = model.config
    P, C, V = model.num_parameters(), config.n_embd, config.vocab_size
    tokens = settings.batch_size * settings.block_size // settings.accumulate
    pieces = shards(tokens, P, settings.threads)
    gradients = 1 if pieces == settings.accumulate == 1 else pieces + 1  # and their sum
    if settings.checkpoint_activations == "yes":
        kept = (config.n_layer + _KEPT) * C
    else:
        kept = config.n_layer * _KEPT * C
    moments = 2 * P  # AdamW's; Muon keeps one
    if settings.optimizer == "muon":
        moments -= sum(p.size for p in matrices_of_blocks(model))
    return 4 * ((1 + gradients) * P + moments + tokens * (kept + 2 * V))
