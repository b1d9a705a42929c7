"""Which wording of a template each assignment is asked in: the ordinary one, or a variant that the user compares with it.

Knows names and counts, nothing of prompts. What is decided follows from the run's seed, the round, the assignment's number, and what
completed rounds brought, so that a resumed run decides the same.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from prompts import VARIANT

DEFAULT = "default"
"""The ordinary template, where it stands beside variants."""
MAX_BLOCK = 4
"""Neighbouring assignments that share a wording: equal prompts travel to the teacher as draws of one request only side by side. In longer
blocks a wording would get whole classes to itself, as plans go through the classes in turn."""


class Yield(NamedTuple):
    """What the assignments that a wording had a part in have brought, all turns of them together."""

    wording: str
    """Name and version, as of `engine.prompting.Prompt`."""
    tokens: int
    """Of prompts and replies."""
    accepted: int


class Allotment:
    """Gives each assignment a wording of each template it uses.

    `even`: all get as many blocks, in an order drawn anew for each turn of all of them, over the rounds. `bandit`: Thompson sampling
    (Thompson 1933; Russo et al., "A Tutorial on Thompson Sampling", 2018, arXiv 1707.02038): for each block, a rate of accepted rows for
    tokens is drawn from what is believed of each wording, and the best drawn gets it. So the better ones get more, and the others as much
    as is needed to be sure of it. Accepted rows are taken as a Poisson count, with as much belief beforehand as one row at the rate of all
    wordings together; rows of one reply are less scattered than that, so the bandit errs on the side of trying. Until every wording
    has been tried, it goes evenly.
    """

    def __init__(self, policy: Literal["even", "bandit"], seed: int, requests_per_round: int, only: str | None = None) -> None:
        """`only`: the variant that all is said in, where there is one of that name."""
        self.learns = policy == "bandit"
        self._seed = seed
        self._requests = requests_per_round
        self._only = only
        self._known: dict[str, Yield] = {}

    def learn(self, yields: Iterable[Yield]) -> None:
        """Of all rounds before the next; what was known before is forgotten."""
        self._known = {known.wording: known for known in yields}

    def choose(self, wordings: Sequence[str], round: int, number: int) -> int:
        """The place of one of these, named as `Yield.wording`, the ordinary one first; for the assignment of this number in the round."""
        if self._only is not None:
            return next((place for place, name in enumerate(wordings) if variant_of(name) == self._only), 0)
        size = max(1, min(MAX_BLOCK, self._requests // (2 * len(wordings))))
        template, block = wordings[0].partition("@")[0], number // size
        if self.learns and all(name in self._known for name in wordings):
            return self._draw([self._known[name] for name in wordings], f"{self._seed} {template} {round} {block}")
        blocks_per_round = -(-self._requests // size)
        cycle, turn = divmod((round - 1) * blocks_per_round + block, len(wordings))
        return random.Random(f"{self._seed} {template} {cycle}").sample(range(len(wordings)), len(wordings))[turn]

    def _draw(self, known: Sequence[Yield], seed: str) -> int:
        generator = random.Random(seed)
        tokens_of_a_row = sum(one.tokens for one in known) / max(1, sum(one.accepted for one in known))
        rates = [generator.gammavariate(1 + one.accepted, 1 / max(1.0, tokens_of_a_row + one.tokens)) for one in known]
        return max(range(len(rates)), key=rates.__getitem__)


def variant_of(wording: str) -> str:
    """The variant's name in that of a wording (`pgkd/generate:short@5a6b7c8d`)."""
    return wording.partition("@")[0].partition(VARIANT)[2] or DEFAULT
