"""Renders what many assignments share once a round: their prompts differ in the last lines, or not at all."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any

from engine.prompting import Opening, Prompt, Prompter
from engine.records import Assignment
from engine.strategies.forms import Form


class RoundPrompts:
    """Prompts of one template; holds those of one round."""

    def __init__(self, prompter: Prompter, form: Form, template: str) -> None:
        self._prompter = prompter
        self._values = form.values
        self._template = form.template(template)
        self._round = 0
        self._openings: dict[int, Opening] = {}
        self._prompts: dict[tuple[int, Hashable], Prompt] = {}

    def get(
        self,
        assignment: Assignment,
        common: Callable[[], Mapping[str, Any]],
        last: Mapping[str, Any],
        schema: Callable[[int], str],
        key: Hashable | None,
    ) -> Prompt:
        """`common`: values of what the round's prompts share; `last`: of the block that ends them, the same for an equal `key`. Both
        know `num_rows` besides, and what every template of the task knows. `schema`: of so many rows.

        A prompt that only a few assignments share has no key and is not kept: a round may have a million of them.
        """
        if assignment.round != self._round:
            self._round, self._openings, self._prompts = assignment.round, {}, {}
        num_rows = assignment.num_rows
        if num_rows not in self._openings:
            self._openings[num_rows] = self._prompter.open(self._template, {**self._values, **common(), "num_rows": num_rows})
        if (prompt := self._prompts.get((num_rows, key))) is None:
            prompt = self._openings[num_rows].finish({**self._values, **last, "num_rows": num_rows}, schema(num_rows))
            if key is not None:
                self._prompts[num_rows, key] = prompt
        return prompt
