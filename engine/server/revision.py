"""Which weights a teacher of ours has: a name such as `Qwen3-8B` stands for others after the next download."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from engine.config import TeacherConfig

_WHOLE_BYTES = 2**30
_PIECE_BYTES = 2**20


def find_revision(teacher: TeacherConfig) -> str | None:
    """The commit of a model from a hub, once it has been loaded; a digest of the weights in a folder. None if neither can be told.

    Blocks for seconds: up to a GiB is read.
    """
    for flag, value in zip(teacher.extra_args, teacher.extra_args[1:], strict=False):
        if flag == "--revision":
            return value
    model = Path(teacher.model)
    if model.is_dir():
        return _weights_digest(sorted(model.glob("*.safetensors")))
    from huggingface_hub import try_to_load_from_cache  # a second to import, and most runs have a folder

    # The hub's cache names the folder of a model by its revision.
    cached = None if model.is_absolute() else try_to_load_from_cache(teacher.model, "config.json")
    return Path(cached).parent.name if isinstance(cached, str) else None


def _weights_digest(files: Sequence[Path]) -> str | None:
    """Of more than a GiB only names, sizes, and the first MiB of each file, where the tensors are listed, and the last."""
    if not files:
        return None
    digest = hashlib.sha256()
    sizes = [file.stat().st_size for file in files]
    is_whole = sum(sizes) <= _WHOLE_BYTES
    for path, size in zip(files, sizes, strict=True):
        with path.open("rb") as file:
            if is_whole:
                while piece := file.read(_PIECE_BYTES):
                    digest.update(piece)
            else:
                digest.update(f"{path.name} {size}\n".encode())
                digest.update(file.read(_PIECE_BYTES))
                file.seek(max(0, size - _PIECE_BYTES))
                digest.update(file.read(_PIECE_BYTES))
    return f"sha256 {digest.hexdigest()[:16]} ({'of its weights' if is_whole else 'of parts of its weights'})"
