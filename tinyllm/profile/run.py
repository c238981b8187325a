"""The profile of what `tinyllm train` does: with the settings of a run, of a file, or the defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tinyllm.errors import ConfigError
from tinyllm.profile.steps import Profile, profile
from tinyllm.threads import get_num_threads, set_num_threads
from tinyllm.train import Console, Settings, checkpoint
from tinyllm.train.job import prepare_job
from tinyllm.train.run import make_trainer
from tinyllm.train.settings import read_toml

PICTURE = "roofline.png"


def profile_training(
    source: str | Path | None = None,
    steps: int = 10,
    data: str | None = None,
    out: str | Path | None = None,
    console: Console | None = None,
) -> tuple[Profile, dict[str, Any]]:
    """Profile training steps of a new model and draw its roofline.

    Parameters
    ----------
    source : str or Path, optional
        A run folder or a TOML file of settings; without it the defaults of `tinyllm train`.
    steps : int
        How many are measured.
    data : str, optional
        Another text than that of the settings.
    out : str or Path, optional
        Where the picture goes; by default ``roofline.png`` in the run folder, beside the file, or here.
    console : Console, optional
        Where progress is shown.

    Returns
    -------
    Profile
    dict
        ``source``, ``model`` and ``picture``: what was profiled, and where it was drawn.

    Raises
    ------
    TinyLLMError
        For settings, a run or a text that cannot be used, and a picture that cannot be written.
    """
    if steps < 1:
        raise ConfigError(f"steps must be at least 1, got {steps}")
    settings, folder = _settings(source)
    if data is not None:
        settings = Settings.make(settings.as_dict(), {"data": data})
    if settings.data == "-" and data is None:
        raise ConfigError(f"{source} was trained on standard input: name a text with --data")
    before = get_num_threads()
    set_num_threads(settings.threads)
    try:
        job = prepare_job(settings, folder, console)
        trainer = make_trainer(job)
        if console:
            console.progress("compiling, then measuring")
        found = profile(trainer, steps)
    finally:
        set_num_threads(before)
    about = (
        f"{settings.n_layer} layers, C={settings.n_embd}, T={settings.block_size}, B={settings.batch_size}, "
        f"V={job.model.config.vocab_size}"
    )
    picture = Path(out) if out else (folder or Path(source or ".").parent) / PICTURE
    draw(found, picture, f"A training step, {about}: percent of its time")
    return found, {"source": str(source or "the defaults"), "model": about, "picture": str(picture)}


def draw(found: Profile, path: str | Path, title: str = "") -> Path:
    """Write the roofline picture of a profile."""
    from tinyllm.viz import save_figure
    from tinyllm.viz.roofline import Point, roofline

    points = [Point(row.op, row.flops, row.bytes, row.seconds, row.step_share) for row in found.rows]
    return save_figure(roofline(points, found.limits.flops, found.limits.bytes, title), path)


def _settings(source: str | Path | None) -> tuple[Settings, Path | None]:
    """The settings that a run or a file holds, and the run folder if it is one."""
    if source is None:
        return Settings(), None
    path = Path(source)
    if path.is_dir():
        return Settings.make(checkpoint.load(path / checkpoint.FILE)["extra"]["settings"]), path
    if not path.exists():
        raise ConfigError(f"{path} does not exist: name a run folder or a TOML file of settings")
    return Settings.make(read_toml(path)), None
