"""EDA, easy data augmentation: seed rows with words dropped, swapped and borrowed. No teacher is asked.

A variant is an answer all the same, given by a program: it is journalled, judged by the gates and counted like the teacher's rows, at no
tokens. EDA's synonyms need a dictionary of the language; here a word is borrowed from another row of the same label instead, which
works in any language. A text without spaces is varied by its characters. Of a pair one text is varied, and borrows from the same side of
other pairs.
"""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from engine.config import EdaConfig
from engine.prompting import Prompt, Prompter
from engine.records import Assignment, Example, Message, TaskSpec, hash_messages
from engine.reports import WeaknessReport
from engine.strategies.forms import form_of
from engine.strategies.planning import Turns, assign, num_requests
from engine.strategies.strategy import Ask, Written
from engine.strategies.text_labeller import as_shown
from engine.text import Content, parts, readable, whole

NAME = "eda/vary@1"


class Eda:
    name = "eda"

    def __init__(self, config: EdaConfig, task: TaskSpec, prompter: Prompter, seed: int) -> None:
        self._config = config
        self.rows_per_round = config.rows_per_round
        self._seed = seed
        self._turns = Turns(task.seed, num_requests(config.rows_per_round, config.rows_per_call), seed)
        self._form = form_of(task)
        self._words: defaultdict[tuple[str, int], list[str]] = defaultdict(list)
        """By label, and side of a pair."""
        for row in task.seed:
            for side, text in enumerate(parts(row.content)):
                self._words[row.label, side] += split(text)

    def plan(self, round: int, report: WeaknessReport, earlier: Sequence[WeaknessReport] = ()) -> Iterator[Assignment]:
        work = [("none", (row.label,)) for row in self._turns.rows(round)]
        return assign(round, report, work, self._config.rows_per_round, self._config.rows_per_call)

    async def carry_out(self, assignment: Assignment, report: WeaknessReport, ask: Ask) -> list[Written]:
        row = self._turns.row(assignment.round, assignment.number)
        generator = random.Random(f"{self._seed} eda {assignment.id}")
        texts = [as_shown(self._vary(row, generator)) for _ in range(assignment.num_rows)]
        messages = (Message("user", readable(whole(row.content))),)
        schema = self._form.variants_schema(len(texts))
        answer = await ask(Prompt(NAME, messages, schema, hash_messages(messages), reply=json.dumps(texts)))
        return [Written(answer, tuple(self._form.parse_variants(answer.text, row)), assignment.num_rows)]

    def _vary(self, row: Example, generator: random.Random) -> Content:
        content = row.content
        if isinstance(content, str):
            return vary(content, self._words[row.label, 0], self._config.change, generator)
        side = generator.randrange(2)
        varied = vary(content[side], self._words[row.label, side], self._config.change, generator)
        return (varied, content[1]) if side == 0 else (content[0], varied)

    def blocks(self, round: int, report: WeaknessReport) -> Mapping[str, int]:
        return {"rows": len(set(self._turns.rows(round)))}


def split(text: str) -> list[str]:
    words = text.split()
    return words if len(words) > 1 else list(text.strip())


def vary(text: str, words: Sequence[str], change: float, generator: random.Random) -> str:
    """The text with a share `change` of its words (one at least) dropped, swapped, replaced by one of `words`, or followed by one."""
    pieces = split(text)
    joint = " " if len(text.split()) > 1 else ""
    for _ in range(max(1, round(len(pieces) * change))):
        place = generator.randrange(len(pieces))
        match generator.choice(("drop", "swap", "replace", "insert")):
            case "drop" if len(pieces) > 1:
                del pieces[place]
            case "swap":
                other = generator.randrange(len(pieces))
                pieces[place], pieces[other] = pieces[other], pieces[place]
            case "insert":
                pieces.insert(place, generator.choice(words))
            case _:
                pieces[place] = generator.choice(words)
    return joint.join(pieces)
