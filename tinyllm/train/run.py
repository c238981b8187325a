"""From settings to a run folder with a trained model, and its continuation after an interruption, for every job."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tinyllm.errors import CheckpointError, ConfigError, DataError
from tinyllm.optim import EMA, schedules
from tinyllm.safetensors import replacing
from tinyllm.threads import get_num_threads, set_num_threads
from tinyllm.train import checkpoint
from tinyllm.train.console import Console
from tinyllm.train.folder import NewFolder
from tinyllm.train.job import Job, prepare_job
from tinyllm.train.report import draw_loss, read_log
from tinyllm.train.settings import Settings
from tinyllm.train.trainer import Plan, Trainer, append_log

SETTINGS = "settings.toml"


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, after the run's state was saved in `folder`."""

    def __init__(self, folder: Path, step: int) -> None:
        super().__init__(f"interrupted after step {step:,}; go on with: tinyllm resume {folder}")
        self.folder, self.step = folder, step


def train(settings: Settings, out: str | Path | None = None, console: Console | None = None) -> dict[str, Any]:
    """Train a model as the settings say and leave it in a new folder.

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
        ``run`` (the folder), ``task``, ``model``, ``data`` (held out), ``loss`` (nats per token), ``baselines``,
        ``parameters``, ``sample``, ``steps``, ``seconds``, ``tokens_per_second``, ``peak_bytes``, and what the task
        measures besides: for a language model ``characters``, ``bits_per_char``, ``perplexity``.

    Raises
    ------
    TinyLLMError
        For whatever the user can mend: data, settings, disk, a learning rate that is too high.
    Interrupted
        After Ctrl-C, when all is saved.
    """
    with _threads(settings.threads):
        name = Path(settings.data).stem if settings.task == "language-model" else settings.task
        with NewFolder(out, name) as new:
            job = prepare_job(settings, console=console)
            trainer = make_trainer(job, new.path, console)
            if console:
                console.say(job.about())
            trainer.at.log_bytes += append_log(new.path, {"run": {"task": settings.task, **job.header(console)}})
            try:
                job.save(new.path)
            except OSError as error:
                raise CheckpointError(f"{new.path}: cannot be written: {error.strerror or error}") from error
            _write_settings(new.path, settings)
            trainer.save()
            trainer.folder = new.place()
        return _work(job, trainer, console)


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
    job = prepare_job(settings, folder, console)
    if job.fingerprint != state["extra"]["fingerprint"]:
        what = f"the text of {settings.data}" + (f", or the teacher {settings.teacher}," if settings.teacher else "")
        raise DataError(
            f"{what} is not the one that {folder} was trained on; name the old one with --data, or train anew"
        )
    trainer = make_trainer(job, folder, console)
    trainer.resume(state)
    trainer.extra = _extra(job)
    _write_settings(folder, settings)
    if console:
        console.say(f"going on with {folder} after step {done:,} of {settings.steps:,}")
    with _threads(settings.threads):
        return _work(job, trainer, console)


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


def make_trainer(job: Job, folder: Path | None = None, console: Console | None = None) -> Trainer:
    """A trainer of the job's model as its settings say, which writes to the folder if there is one."""
    settings = job.settings
    plan = Plan(
        steps=settings.steps,
        rate=schedules.cosine(settings.lr, settings.warmup_steps, settings.steps, min(settings.final_lr, settings.lr)),
        clip=settings.clip,
        accumulate=settings.accumulate,
        seed=settings.seed,
        eval_every=settings.eval_every,
        patience=settings.patience,
        count=job.count,
        begin=job.begin,
    )
    return Trainer(
        job.objective,
        job.batches(),
        job.optimizer(),
        plan,
        folder=folder,
        watched=job.watched.replace(" ", "-"),
        held_out=job.watched_batches,
        sample=job.sample if settings.sample_tokens else None,
        extra=_extra(job),
        saved=job.model.save_pretrained,
        console=console,
        ema=EMA(list(job.model.parameters()), settings.ema) if settings.ema else None,
    )


def _extra(job: Job) -> dict[str, Any]:
    """What a checkpoint holds of the job beside the trainer's own state."""
    return {"settings": job.settings.as_dict(), "fingerprint": job.fingerprint}


def _work(job: Job, trainer: Trainer, console: Console | None) -> dict[str, Any]:
    """Train to the end, judge the model on the held-out data, and write what is derived."""
    folder = trainer.folder
    assert folder
    try:
        trainer.run()
        if trainer.interrupted:
            draw_loss(folder)
            raise KeyboardInterrupt
        trainer.use_best()
        job.model.save_pretrained(folder)
        if console:
            console.progress("reading all that was held out")
        result = _result(job, trainer, folder)
        append_log(folder, {"result": result})
        if console:
            console.progress(f"drawing {folder / 'loss.png'}")
        draw_loss(folder)
        job.pictures(folder, result)
    except KeyboardInterrupt:
        raise Interrupted(folder, trainer.at.step) from None
    except CheckpointError as error:
        raise CheckpointError(
            f"{error}\nwhat was saved before is whole: when the cause is mended, `tinyllm resume {folder}`"
        ) from error
    return result


def _result(job: Job, trainer: Trainer, folder: Path) -> dict[str, Any]:
    """What `train` returns and the log ends with."""
    baselines = read_log(folder)[0]["run"]["baselines"]
    return {
        "run": str(folder),
        "task": job.settings.task,
        "model": type(job.model).__name__,
        **job.judge(baselines),
        "baselines": baselines,
        "parameters": job.model.num_parameters(),
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
