"""Which earlier rows a student sees again beside the new ones. Pure: labels and numbers in, row numbers out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.config import StudentConfig

_LEAST = 1e-9
"""Weight of a row of a class that needs none: it is drawn where nothing else is left."""


def draw_replay(
    labels: NDArray[np.int32], num_labels: int, num_seed: int, num_earlier: int, config: StudentConfig, generator: np.random.Generator
) -> NDArray[np.int64]:
    """Numbers of earlier rows, in order, none twice. `labels` are of all rows: the seed, the other earlier ones, the new ones."""
    new = labels[num_earlier:]
    count = min(round(config.replay_ratio * len(new)), num_earlier)
    from_seed = min(round(config.replay_seed_share * count), num_seed)
    from_teacher = min(count - from_seed, num_earlier - num_seed)
    # Where the teacher has not written so many, the seed fills up.
    from_seed = min(count - from_teacher, num_seed)
    weights: NDArray[np.float64] | None = None
    if config.replay_order == "balanced":
        wanted = (len(new) + count) / num_labels - np.bincount(new, minlength=num_labels)
        present = np.bincount(labels[:num_earlier], minlength=num_labels)
        weights = (np.maximum(wanted, 0) / np.maximum(present, 1))[labels[:num_earlier]] + _LEAST
    parts = [
        start + _draw(end - start, drawn, None if weights is None else weights[start:end], generator)
        for start, end, drawn in ((0, num_seed, from_seed), (num_seed, num_earlier, from_teacher))
    ]
    return np.sort(np.concatenate(parts))


def _draw(size: int, count: int, weights: NDArray[np.float64] | None, generator: np.random.Generator) -> NDArray[np.int64]:
    """Numbers below `size`, none twice; by weight, the largest of which comes first most often (Efraimidis and Spirakis, 2006)."""
    if count >= size:
        return np.arange(size)
    if weights is None:
        return generator.choice(size, count, replace=False, shuffle=False)
    return np.argpartition(generator.exponential(size=size) / weights, count)[:count]
