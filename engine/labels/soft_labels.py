"""A teacher's distribution over labels, read off the log-probabilities of the tokens that spell their codes (`label_codes`).

What is not known is not made up: probability on tokens that are no code is `missing`, and the rest is scaled to 1. Where the answer is
constrained to codes, vLLM's probabilities are of what is allowed, and nothing is missing: a distribution then says which label the
teacher would give if it gave one. Labels behind a character that was never looked behind share its probability alike; `unexplored` says
which of those are worth another call.

Probabilities are calibrated by one temperature a teacher, fitted on real rows with known labels. Large teachers are too sure of
themselves, and a temperature moves how sure they are without moving which label they would give.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from engine.labels.label_codes import starts
from engine.records import Completion

Tables = Mapping[str, Mapping[str, float]]
"""Behind the beginning of a code: the probability of each token that goes on with one."""

_FLOOR = 1e-4
"""Stands for a label that was not among the likeliest, where temperatures are compared: else one such row would decide."""
_TEMPERATURES = np.geomspace(0.25, 8.0, 161)
_PRIOR_SPREAD = 0.5
"""Standard deviation of a teacher's log-temperature, before any row is looked at: two rows move it little, two hundred decide."""


@dataclass(frozen=True, slots=True)
class SoftLabel:
    probabilities: tuple[float, ...]
    """In the order of the codes; they sum to 1."""
    missing: float
    """Share of the teacher's probability that was on no label's code, or on none that the server told of."""


def read_tables(codes: tuple[str, ...], completions: Sequence[Completion]) -> Tables:
    """What calls about one text tell together: the first as the teacher would answer, then others that were made to go behind some
    beginning, and so tell nothing of what stands before it.
    """
    known = starts(codes)
    tables: dict[str, dict[str, float]] = {}
    for completion in completions:
        start = ""
        for place in completion.logprobs:
            if start not in tables:
                table = tables[start] = {}
                for token, logprob in place:
                    # Tokenizers have "A" and " A"; both mean it.
                    if (character := token.strip()) and start + character in known:
                        table[character] = table.get(character, 0.0) + math.exp(logprob)
            start += place[0].token.strip() if place else ""
            if len(known.get(start, ())) < 2:
                break  # a whole code, or none
    return tables


def read_soft_label(codes: tuple[str, ...], tables: Tables) -> SoftLabel | None:
    """None where no code was among the likeliest tokens."""
    known = starts(codes)
    masses = np.zeros(len(codes))
    for start, mass in _ends(tables):
        masses[known[start].start : known[start].stop] += mass / len(known[start])
    seen = float(masses.sum())
    if seen < _FLOOR:
        return None
    return SoftLabel(tuple((masses / seen).tolist()), max(0.0, 1.0 - seen))


def unexplored(codes: tuple[str, ...], tables: Tables, least: float) -> list[str]:
    """Beginnings of at least this probability behind which several labels stand that nothing is known of; the likeliest first."""
    known = starts(codes)
    worth = {start: mass for start, mass in _ends(tables) if mass >= least and len(known[start]) > 1}
    return sorted(worth, key=lambda start: -worth[start])


def _ends(tables: Tables, start: str = "", mass: float = 1.0) -> list[tuple[str, float]]:
    """Beginnings that nothing is known behind, with their probability. One of no text at all is none."""
    if start in tables:
        return [end for token, share in tables[start].items() for end in _ends(tables, start + token, mass * share)]
    return [(start, mass)] if start else []


def temper(probabilities: Sequence[float], temperature: float) -> tuple[float, ...]:
    """Flatter above 1, steeper below."""
    if temperature == 1.0:
        return tuple(probabilities)
    raised = np.asarray(probabilities) ** (1.0 / temperature)
    return tuple((raised / raised.sum()).tolist())


def fit_temperature(distributions: Sequence[Sequence[float]], truths: Sequence[int]) -> float:
    """The temperature under which the true labels (by their places) are likeliest; 1 without any row."""
    if not distributions:
        return 1.0
    logits = np.log(np.maximum(np.asarray(distributions), _FLOOR))
    true = logits[np.arange(len(truths)), truths]
    losses = [
        float((np.log(np.exp(logits / temperature).sum(axis=1)) - true / temperature).sum())
        + math.log(temperature) ** 2 / (2 * _PRIOR_SPREAD**2)
        for temperature in _TEMPERATURES
    ]
    return float(_TEMPERATURES[int(np.argmin(losses))])


def mean(distributions: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """In single precision, as rows keep it."""
    return tuple(np.mean(np.asarray(distributions), axis=0).astype(np.float32).tolist())
