"""EDA, easy data augmentation: seed rows with words dropped, swapped and borrowed. No teacher is asked.

A variant is an answer all the same, given by a program: it is journalled, judged by the gates and counted like the teacher's rows, at no
tokens. EDA's synonyms need a dictionary of the language; here a word is borrowed from another row of the same label instead, which
works in any language. A text without spaces is varied by its characters.
"""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from engine.prompting import Prompt, Prompter, texts_schema
from engine.records import Assignment, Message, TaskSpec, hash_messages
from engine.reports import WeaknessReport
from engine.strategies.planning import Turns, assign, num_requests
from engine.strategies.strategy import Ask, Written, written_of
from engine.strategy_config import EdaConfig
from engine.text import readable

NAME = "eda/vary@1"


class Eda:
    name = "eda"

    def __init__(self, config: EdaConfig, task: TaskSpec, prompter: Prompter, seed: int) -> None:
        self._config = config
        self.rows_per_round = config.rows_per_round
        self._seed = seed
        self._turns = Turns(task.seed, num_requests(config.rows_per_round, config.rows_per_call), seed)
        self._words: defaultdict[str, list[str]] = defaultdict(list)
        for row in task.seed:
            self._words[row.label] += split(row.text)

    def plan(self, round: int, report: WeaknessReport, earlier: Sequence[WeaknessReport] = ()) -> Iterator[Assignment]:
        work = [("none", (row.label,)) for row in self._turns.rows(round)]
        return assign(round, report, work, self._config.rows_per_round, self._config.rows_per_call)

    async def carry_out(self, assignment: Assignment, report: WeaknessReport, ask: Ask) -> list[Written]:
        row = self._turns.row(assignment.round, assignment.number)
        generator = random.Random(f"{self._seed} eda {assignment.id}")
        texts = [vary(row.text, self._words[row.label], self._config.change, generator) for _ in range(assignment.num_rows)]
        messages = (Message("user", readable(row.text)),)
        answer = await ask(Prompt(NAME, messages, texts_schema(len(texts)), hash_messages(messages), reply=json.dumps(texts)))
        return [written_of(row.label, answer, assignment.num_rows)]

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
