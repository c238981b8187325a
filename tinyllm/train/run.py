"""The main job: from a corpus to a run folder with a trained GPT, and its continuation after an interruption."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from tinyllm.data import Batches
from tinyllm.errors import CheckpointError, ConfigError, DataError
from tinyllm.generation import generate
from tinyllm.metrics import perplexity
from tinyllm.models import GPT, GPTConfig
from tinyllm.models.ngram import baselines
from tinyllm.optim import EMA, AdamW, schedules
from tinyllm.safetensors import replacing
from tinyllm.text import Tokenizer, load_tokenizer
from tinyllm.threads import get_num_threads, set_num_threads
from tinyllm.train import checkpoint
from tinyllm.train.console import Console
from tinyllm.train.folder import NewFolder
from tinyllm.train.prepare import Prepared, prepare
from tinyllm.train.report import bits_per_character, draw_loss, read_log
from tinyllm.train.settings import Settings
from tinyllm.train.task import NextToken
from tinyllm.train.trainer import Plan, Trainer, append_log, mean_loss

SETTINGS = "settings.toml"


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, after the run's state was saved in `folder`."""

    def __init__(self, folder: Path, step: int) -> None:
        super().__init__(f"interrupted after step {step:,}; go on with: tinyllm resume {folder}")
        self.folder, self.step = folder, step


def train(settings: Settings, out: str | Path | None = None, console: Console | None = None) -> dict[str, Any]:
    """Train a GPT as the settings say and leave it in a new folder.

    Parameters
    ----------
    settings : Settings
    out : str or Path, optional
        The run folder, which must not exist; without it ``runs/<data>-<n>``.
    console : Console, optional
        Where progress is shown.

    Returns
    -------
    dict
        ``run`` (the folder), ``data`` and ``characters`` (held out), ``loss`` (nats per token), ``bits_per_char``,
        ``perplexity``, ``baselines``, ``parameters``, ``sample``, ``steps``, ``seconds``, ``tokens_per_second``,
        ``peak_bytes`` and more.

    Raises
    ------
    TinyLLMError
        For whatever the user can mend: data, settings, disk, a learning rate that is too high.
    Interrupted
        After Ctrl-C, when all is saved.
    """
    with _threads(settings.threads):
        with NewFolder(out, Path(settings.data).stem) as new:
            prepared = prepare(settings, console=console)
            model = make_model(settings, prepared.tokenizer)
            trainer = make_trainer(settings, prepared, model, new.path, console)
            if console:
                console.say(str(prepared.corpus))
                console.say(f"{prepared.train}\n{prepared.held_out}")
                console.progress("counting n-grams")
            header = _header(settings, prepared, model)
            trainer.at.log_bytes += append_log(new.path, {"run": header})
            try:
                prepared.tokenizer.save(new.path)
            except OSError as error:
                raise CheckpointError(f"{new.path}: cannot be written: {error.strerror or error}") from error
            _write_settings(new.path, settings)
            trainer.save()
            trainer.folder = new.place()
        return _work(settings, prepared, trainer, model, console)


def resume(
    folder: str | Path, steps: int | None = None, data: str | None = None, console: Console | None = None
) -> dict[str, Any]:
    """Go on with a run from its last checkpoint, as if it had never stopped.

    Parameters
    ----------
    folder : str or Path
        The run folder.
    steps : int, optional
        Another number of steps in all; the learning rate follows the schedule of the new number.
    data : str, optional
        Where the text lies now; it must be the same text.
    console : Console, optional
        Where progress is shown.

    Returns
    -------
    dict
        As `train`.

    Raises
    ------
    CheckpointError
        For a folder without a whole checkpoint.
    DataError
        If the text is no longer the one that the run began with.
    """
    folder = Path(folder)
    state = checkpoint.load(folder / checkpoint.FILE)
    if data is None and state["extra"]["settings"]["data"] == "-":
        raise ConfigError(
            f"{folder} was trained on standard input: name the same text with --data (- to pipe it again)"
        )
    changed = {name: value for name, value in (("steps", steps), ("data", data)) if value is not None}
    settings = Settings.make(state["extra"]["settings"], changed)
    done = state["progress"]["step"]
    if settings.steps < done:
        raise ConfigError(f"{folder} has {done:,} steps behind it: --steps must not be fewer, got {settings.steps:,}")
    prepared = prepare(settings, load_tokenizer(folder), console)
    if prepared.fingerprint != state["extra"]["fingerprint"]:
        raise DataError(
            f"the text of {settings.data} is not the one that {folder} was trained on; name the old one with --data, "
            "or train anew"
        )
    model = make_model(settings, prepared.tokenizer)
    trainer = make_trainer(settings, prepared, model, folder, console)
    trainer.resume(state)
    trainer.extra = _extra(settings, prepared)
    _write_settings(folder, settings)
    if console:
        console.say(f"going on with {folder} after step {done:,} of {settings.steps:,}")
    with _threads(settings.threads):
        return _work(settings, prepared, trainer, model, console)


@contextmanager
def _threads(n: int) -> Iterator[None]:
    """Within it, `n` threads share the work."""
    before = get_num_threads()
    set_num_threads(n)
    try:
        yield
    finally:
        set_num_threads(before)


def _write_settings(folder: Path, settings: Settings) -> None:
    """For people, and for `--config`; resuming reads the checkpoint."""
    with replacing(folder / SETTINGS) as file:
        file.write(settings.to_toml().encode())


def make_model(settings: Settings, tokenizer: Tokenizer) -> GPT:
    """A new model as the settings say."""
    config = GPTConfig(
        vocab_size=tokenizer.vocab_size,
        n_positions=settings.block_size,
        n_embd=settings.n_embd,
        n_layer=settings.n_layer,
        n_head=settings.n_head,
        initializer_range=settings.init_std,
        embd_pdrop=settings.dropout,
        attn_pdrop=settings.dropout,
        resid_pdrop=settings.dropout,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    model = GPT(config, rng=np.random.default_rng(settings.seed))
    model.transformer.checkpoint_blocks = settings.checkpoint_activations == "yes"
    model.to(settings.device)
    return model


def make_trainer(
    settings: Settings, prepared: Prepared, model: GPT, folder: Path | None, console: Console | None
) -> Trainer:
    """A trainer of the model as the settings say, which writes to the folder if there is one."""
    n, T = len(prepared.train.tokens), settings.block_size
    if n <= T:
        raise DataError(
            f"the training text has {n} tokens: too few for one block of {T} and the token after it; "
            f"lower block_size to at most {max(2, n - 1)}, or give more text"
        )
    task = NextToken(model)
    batches = Batches(prepared.train.tokens, settings.batch_size, T + 1, settings.seed)
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    plan = Plan(
        steps=settings.steps,
        rate=schedules.cosine(settings.lr, settings.warmup_steps, settings.steps, min(settings.final_lr, settings.lr)),
        clip=settings.clip,
        accumulate=settings.accumulate,
        seed=settings.seed,
        eval_every=settings.eval_every,
        patience=settings.patience,
    )

    def sample(step: int) -> str:
        return _sample(model, prepared.tokenizer, settings.sample_tokens, seed=(settings.seed, step))

    return Trainer(
        task,
        batches,
        AdamW(groups, lr=settings.lr, betas=(settings.beta1, settings.beta2)),
        plan,
        folder=folder,
        watched=prepared.watched.name.replace(" ", "-"),
        held_out=lambda: task.windows(prepared.watched.tokens, settings.batch_size, settings.eval_windows),
        sample=sample if settings.sample_tokens else None,
        extra=_extra(settings, prepared),
        saved=model.save_pretrained,
        console=console,
        ema=EMA(parameters, settings.ema) if settings.ema else None,
    )


def _extra(settings: Settings, prepared: Prepared) -> dict[str, Any]:
    """What a checkpoint holds of the job beside the trainer's own state."""
    return {"settings": settings.as_dict(), "fingerprint": prepared.fingerprint}


def _sample(model: GPT, tokenizer: Tokenizer, n: int, seed: tuple[int, int]) -> str:
    """A text of n tokens after a new line, or after the end of another text."""
    start = [tokenizer.eos_token_id] if tokenizer.eos_token_id is not None else tokenizer.encode("\n")
    prompt = np.array([start], dtype=np.int64)  # (1, T)
    ids = generate(model, prompt, max_new_tokens=n, temperature=0.8, rng=np.random.default_rng(seed))
    return tokenizer.decode(np.asarray(ids)[0, len(start) :])


def _header(settings: Settings, prepared: Prepared, model: GPT) -> dict[str, Any]:
    """The first record of the log: the data, the model, and the losses to beat."""
    vocab_size = prepared.tokenizer.vocab_size
    lines = dict(baselines(prepared.train.tokens, prepared.held_out.tokens, vocab_size))
    same = prepared.watched is prepared.held_out
    watched = lines if same else dict(baselines(prepared.train.tokens, prepared.watched.tokens, vocab_size))
    return {
        "data": prepared.corpus.name,
        "python": prepared.corpus.python,
        "parameters": model.num_parameters(),
        "vocab_size": vocab_size,
        "baselines": lines,
        "watched": prepared.watched.name,
        "watched_baselines": watched,
        **{
            part.name: {"tokens": len(part.tokens), "characters": part.characters, "replaced": part.replaced}
            for part in (prepared.train, prepared.watched, prepared.held_out)
        },
    }


def _work(
    settings: Settings, prepared: Prepared, trainer: Trainer, model: GPT, console: Console | None
) -> dict[str, Any]:
    """Train to the end, judge the model on the held-out text, and write what is derived."""
    folder = trainer.folder
    assert folder
    try:
        trainer.run()
        if trainer.interrupted:
            draw_loss(folder)
            raise KeyboardInterrupt
        trainer.use_best()
        model.save_pretrained(folder)
        if console:
            console.progress("reading the whole held-out text")
        task = NextToken(model)
        loss = mean_loss(task, task.windows(prepared.held_out.tokens, settings.batch_size))
        result = _result(settings, prepared, trainer, model, loss)
        append_log(folder, {"result": result})
        if console:
            console.progress(f"drawing {folder / 'loss.png'}")
        draw_loss(folder)
    except KeyboardInterrupt:
        raise Interrupted(folder, trainer.at.step) from None
    except CheckpointError as error:
        raise CheckpointError(
            f"{error}\nwhat was saved before is whole: when the cause is mended, `tinyllm resume {folder}`"
        ) from error
    return result


def _result(settings: Settings, prepared: Prepared, trainer: Trainer, model: GPT, loss: float) -> dict[str, Any]:
    """What `train` returns and the log ends with; `loss` is that of the whole held-out text."""
    folder = trainer.folder
    assert folder
    return {
        "run": str(folder),
        "data": prepared.held_out_corpus,
        "characters": prepared.held_out.characters,
        "loss": loss,
        "bits_per_char": bits_per_character(loss, prepared.held_out.tokens_per_character),
        "perplexity": perplexity(loss, 1),
        "tokens_per_char": prepared.held_out.tokens_per_character,
        "baselines": read_log(folder)[0]["run"]["baselines"],
        "parameters": model.num_parameters(),
        "sample": _sample(model, prepared.tokenizer, 300, seed=(settings.seed, settings.steps)),
        "steps": trainer.at.step,
        "best_step": trainer.at.best_step,
        "seconds": trainer.at.seconds,
        "tokens_per_second": trainer.at.tokens / trainer.at.seconds,
        "peak_bytes": _peak_bytes(),
    }


def _peak_bytes() -> int | None:
    """The most memory that this process has held, where the system tells."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
