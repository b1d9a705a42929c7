"""The teacher's lessons: chats in exactly the words that the project's own templates render, answered from the teacher split.

Seed, validation and test rows never enter: the only rows read here are those of `data/teacher.jsonl`. Entities are swapped for others
of their type in half of the rows, so that the teacher learns that an order number can be any number.
"""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from engine.config import load_config
from engine.records import Example, Label
from engine.reports import ClassScore, MinedRow, Scores, WeaknessReport
from prompts import PromptLibrary

HERE = Path(__file__).parent
ROWS_ASKED = (4, 8, 8, 8, 16, 24)
"""How many rows a lesson asks for, drawn evenly."""
FEW_ROWS = (1, 2, 4, 8)
"""The same where a lesson asks several times."""
Chats: TypeAlias = tuple[tuple[tuple[str, str], ...], ...]
"""Of (role, content) turns."""
Ask: TypeAlias = tuple[Mapping[str, Any], str]
"""What the end of a prompt is rendered with, and the answer."""


@dataclass(frozen=True, slots=True)
class MarkedRow:
    """A row of the teacher split; spans are (start, end, type)."""

    text: str
    label: str
    spans: tuple[tuple[int, int, str], ...]


@dataclass(frozen=True, slots=True)
class Lesson:
    """Chats that begin alike, which are learned together. The teacher learns what the assistant says and only reads the rest."""

    kind: str
    chats: Chats


def read_rows(path: Path) -> list[MarkedRow]:
    rows: list[MarkedRow] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        value: dict[str, Any] = json.loads(line)
        rows.append(MarkedRow(value["text"], value["label"], tuple((span["start"], span["end"], span["type"]) for span in value["spans"])))
    return rows


class LessonMaker:
    """An endless supply of lessons, all of them determined by the seed."""

    def __init__(self, rows: Sequence[MarkedRow], seed: int) -> None:
        task = load_config(HERE / "quickstart.toml").task
        self._domain = task.domain
        self._labels = [Label(label.name, label.description) for label in task.labels]
        self._library = PromptLibrary()
        self._random = random.Random(seed)
        self.rows = list(rows)
        self._decks: dict[str, list[MarkedRow]] = {}
        self._by_label: defaultdict[str, list[MarkedRow]] = defaultdict(list)
        self._entities: defaultdict[str, list[str]] = defaultdict(list)
        for row in self.rows:
            self._by_label[row.label].append(row)
            for start, end, kind in row.spans:
                self._entities[kind].append(row.text[start:end])

    def class_conditional(self) -> Chats:
        """`zerogen/generate`: rows of one label."""
        sizes = [self._random.choice(ROWS_ASKED)] if self._random.random() < 0.3 else [self._random.choice(FEW_ROWS) for _ in range(8)]
        return tuple(self._rows_of(self._label(), size) for size in sizes)

    def _rows_of(self, label: str, num_rows: int) -> tuple[tuple[str, str], ...]:
        prompt = self._render("zerogen/generate", label=label, num_rows=num_rows)
        return (*prompt, ("assistant", self._answer([label] * num_rows)))

    def with_report(self) -> Chats:
        """`pgkd/generate`: rows that answer a weakness report, with a focus on one class, on a confused pair, or on nothing."""
        report = self.report()
        examples = [Example(row.text, row.label) for row in self._random.sample(self.rows, self._random.choice((0, 4, 8, 8)))]
        # Without a focus the teacher chooses: labels with a low F1 come more often.
        weights = [(1.02 - score.f1) ** 2 for score in report.classes]
        chats: list[tuple[tuple[str, str], ...]] = []
        for _ in range(self._random.choice((1, 4, 6))):
            focus, num_rows = self._focus(), self._random.choice((8, 8, *FEW_ROWS))
            wanted = [focus[0]] * num_rows if focus else self._random.choices([label.name for label in self._labels], weights, k=num_rows)
            prompt = self._render("pgkd/generate", examples=examples, num_rows=num_rows, report=report, focus=focus)
            chats.append((*prompt, ("assistant", self._answer(wanted))))
        return tuple(chats)

    def labelling(self) -> Chats:
        """`labelling/label`: one label for one text."""
        rows = [self._random.choice(self.rows) for _ in range(self._random.choice((16, 32)))]
        asks = [({"text": self._vary(row)}, json.dumps({"label": row.label})) for row in rows]
        return self._chats("labelling/label", self._label_values(), asks)

    def lessons(self) -> Iterator[Lesson]:
        """Of the three kinds without end, as the project will ask them."""
        makers = {"class_conditional": self.class_conditional, "with_report": self.with_report, "labelling": self.labelling}
        while True:
            kind = self._random.choices([*makers], (0.35, 0.35, 0.3))[0]
            yield Lesson(kind, makers[kind]())

    def _chats(self, template: str, common: Mapping[str, Any], asks: Sequence[Ask]) -> Chats:
        """One for each question; only the last lines of their prompts differ."""
        opening = self._library.open(template, common)
        return tuple((*opening.finish({**common, **values}).messages, ("assistant", answer)) for values, answer in asks)

    def _label_values(self) -> dict[str, Any]:
        return {"kind": "classification", "domain": self._domain, "labels": self._labels}

    def _render(self, template: str, **values: Any) -> tuple[tuple[str, str], ...]:
        return self._library.render(template, {**self._label_values(), **values}).messages

    def _label(self) -> str:
        return self._random.choice(self._labels).name

    def _focus(self) -> tuple[str, ...]:
        """One class, a pair of them, or, now and then, nothing."""
        size = self._random.choices((0, 1, 2), (0.1, 0.45, 0.45))[0]
        return tuple(label.name for label in self._random.sample(self._labels, size))

    def _answer(self, labels: Sequence[str]) -> str:
        rows = [{"text": self._vary(self._deal(label)), "label": label} for label in labels]
        return json.dumps(rows, ensure_ascii=False)

    def _deal(self, label: str) -> MarkedRow:
        """Rows of a label come like cards from a deck: each once before any comes again."""
        deck = self._decks.setdefault(label, [])
        if not deck:
            deck += self._by_label[label]
            self._random.shuffle(deck)
        return deck.pop()

    def _vary(self, row: MarkedRow) -> str:
        return self._swapped(row).text

    def _swapped(self, row: MarkedRow) -> MarkedRow:
        """In half of the cases with other entities of the same types in its places."""
        if not row.spans or self._random.random() < 0.5:
            return row
        parts: list[str] = []
        spans: list[tuple[int, int, str]] = []
        position = length = 0
        for start, end, kind in row.spans:
            entity = self._random.choice(self._entities[kind])
            parts += [row.text[position:start], entity]
            length += start - position + len(entity)
            spans.append((length - len(entity), length, kind))
            position = end
        return MarkedRow("".join(parts) + row.text[position:], row.label, tuple(spans))

    def report(self) -> WeaknessReport:
        """Scores and mined rows such as a student might have: texts of the teacher split, mistakes made up."""
        names = [label.name for label in self._labels]
        level = self._random.random()
        classes = self._class_scores(names, 0.4 + 0.55 * level, (20, 20, 30, 50))
        accuracy = sum(score.recall for score in classes) / len(classes)

        def mined(count: int, right: bool) -> tuple[MinedRow, ...]:
            rows = self._random.sample(self.rows, count)
            return tuple(MinedRow(row.text, row.label, row.label if right else self._random.choice(names), 0.5) for row in rows)

        def size() -> int:
            return self._random.choice((0, 4, 4, 8))

        return WeaknessReport(
            round=0,
            loss=1.0,
            scores=Scores(accuracy, accuracy, accuracy, 320),
            classes=tuple(classes),
            confusions=(),
            mining="train",
            right=mined(size(), right=True),
            wrong=mined(size(), right=False),
            hard=mined(size(), right=False),
            num_train_rows=100,
            train_s=1.0,
            epochs=1,
        )

    def _class_scores(self, names: Sequence[str], level: float, supports: Sequence[int]) -> list[ClassScore]:
        """Around `level`."""
        classes: list[ClassScore] = []
        for name in names:
            precision, recall = (min(1.0, max(0.0, self._random.gauss(level, 0.2))) for _ in range(2))
            f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
            classes.append(ClassScore(name, precision, recall, f1, self._random.choice(supports)))
        return classes
