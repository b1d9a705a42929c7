"""Lessons in the prompts of all methods about labels: what each of them asks, one text or several to be labelled, labels by code.

Where no text of the corpus is the answer, one is made of it: a rephrasing is a message of the same label that shares most words, a
sub-topic is a stretch of words that stands in the message to be written, and an analysis names the labels that were mistaken for each
other, in one of several wordings.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lessons import Ask, Chats, LessonMaker, MarkedRow

from engine.config import HybridConfig
from engine.labels.label_codes import label_codes
from engine.records import Example
from engine.reports import MinedRow
from engine.strategies.attributes import draw_profiles

TOP_LOGPROBS = 20
NEIGHBOURS = 12
"""Messages that share most words with one, of which its rephrasings are drawn."""
STYLES = ("plain", "colloquial", "polite", "upset", "roundabout", "as a question", "carelessly typed", "short", "formal", "friendly",
          "angry", "in a hurry", "with an order number", "with a date")  # fmt: skip
ANALYSES = (
    "Texts of {label} that read like {predicted}.",
    "It takes {label} for {predicted} when both are near.",
    "Words such as {words} make it say {predicted} instead of {label}.",
    "{label} without its usual words.",
    "It looks for {predicted} where the customer means {label}.",
)


class LabelLessons(LessonMaker):
    """An endless supply, determined by the seed."""

    def __init__(self, rows: Sequence[MarkedRow], seed: int) -> None:
        super().__init__(rows, seed)
        self._codes = [
            {"code": code, "name": label.name, "description": label.description}
            for code, label in zip(label_codes(len(self._labels), TOP_LOGPROBS), self._labels, strict=True)
        ]
        self._code_of = {coded["name"]: coded["code"] for coded in self._codes}
        self._near: dict[tuple[MarkedRow, bool], list[MarkedRow]] = {}
        self._words = {row: _words(row.text) for row in self.rows}

    def _times(self, *choices: int) -> range:
        return range(self._random.choice(choices))

    # Labels.

    def codes(self) -> Chats:
        asks = [({"text": self._vary(row)}, self._code_of[row.label]) for row in self._some_rows(24, 48)]
        return self._chats("labelling/code", {"kind": "classification", "domain": self._domain, "labels": self._codes}, asks)

    def batches(self) -> Chats:
        count = self._random.choice((2, 4, 6, 8, 8))
        asks: list[Ask] = []
        for _ in self._times(2, 4):
            rows = [self._random.choice(self.rows) for _ in range(count)]
            asks.append(({"texts": [self._vary(row) for row in rows]}, numbered_json([{"label": row.label} for row in rows])))
        return self._chats("labelling/batch", {**self._label_values(), "num_texts": count}, asks)

    # Rows of a label.

    def unguided(self) -> Chats:
        count = self._random.choice((4, 8, 8))
        examples = [Example(row.text, row.label) for row in self._random.sample(self.rows, self._random.choice((0, 4, 8)))]
        focuses = [self._focus()[:1] for _ in self._times(1, 3)]
        wanted = [[focus[0]] * count if focus else [self._label() for _ in range(count)] for focus in focuses]
        asks = [({"focus": focus, "num_rows": count}, self._answer(labels)) for focus, labels in zip(focuses, wanted, strict=True)]
        return self._chats("unguided/generate", {**self._label_values(), "examples": examples, "num_rows": count}, asks)

    def rephrasings(self) -> Chats:
        count = self._random.choice((2, 4, 4))
        asks: list[Ask] = []
        for _ in self._times(2, 4, 6):
            row = self._random.choice(self.rows)
            asks.append(({"row": row}, texts_json([self._vary(near) for near in self._alike(row, count)])))
        return self._chats("auggpt/rephrase", {**self._label_values(), "num_rows": count}, asks)

    def variants(self) -> Chats:
        count = self._random.choice((2, 4, 4))
        asks: list[Ask] = []
        for _ in self._times(2, 4, 6):
            row = self._random.choice(self.rows)
            mined = MinedRow(row.text, row.label, self._other(row.label), 0.5)
            asks.append(({"row": mined}, texts_json([self._vary(near) for near in self._alike(row, count)])))
        return self._chats("llm2llm/variants", {**self._label_values(), "num_rows": count}, asks)

    def values(self) -> Chats:
        asks = [self._values_ask(label) for label in self._random.sample([None, *self._label_names()], self._random.choice((2, 4)))]
        return self._chats("attrprompt/values", self._label_values(), asks)

    def _values_ask(self, label: str | None) -> Ask:
        count = self._random.choice((4, 8, 8))
        rows = [] if label is None else self._random.sample(self._by_label[label], count)
        topics = self._random.sample(STYLES, count) if label is None else dict.fromkeys(self._topic(row) for row in rows)
        return {"label": label, "num_values": count}, json.dumps([*topics], ensure_ascii=False)

    def with_attributes(self) -> Chats:
        count = self._random.choice((4, 8))
        asks: list[Ask] = []
        for _ in self._times(1, 2, 3):
            label = self._label()
            rows = [self._deal(label) for _ in range(count)]
            answer = json.dumps([{"text": row.text, "label": label} for row in rows], ensure_ascii=False)
            asks.append(({"label": label, "num_rows": count, "profiles": self._profiles(rows, with_topics=True)}, answer))
        return self._chats("attrprompt/write", {**self._label_values(), "num_rows": count}, asks)

    def hybrid(self) -> Chats:
        count, with_labels = self._random.choice((4, 8, 8)), self._random.random() < 0.2
        report = self.report()
        examples = [Example(row.text, row.label) for row in self._random.sample(self.rows, self._random.choice((0, 4, 8)))]
        asks: list[Ask] = []
        for _ in self._times(1, 4, 6):
            focus, is_easy = self._focus() or (self._label(),), self._random.random() < 0.25
            rows = [self._deal(focus[0]) for _ in range(count)]
            predicted = focus[1] if len(focus) == 2 else self._other(focus[0])
            shown = 0 if is_easy else self._random.choice((0, 1, 3))
            mistakes = [MinedRow(row.text, row.label, predicted, 0.7) for row in self._random.sample(self._by_label[focus[0]], shown)]
            profiles = self._profiles(rows) if self._random.random() < 0.8 else []
            texts = [row.text if profiles else self._vary(row) for row in rows]
            answer = [{"text": text, "label": focus[0]} if with_labels else {"text": text} for text in texts]
            ask = {"focus": focus[:1] if is_easy else focus, "weakness": "class", "is_easy": is_easy, "mistakes": mistakes}
            asks.append(({**ask, "profiles": profiles, "num_rows": count}, json.dumps(answer, ensure_ascii=False)))
        common = {**self._label_values(), "examples": examples, "report": report, "with_labels": with_labels, "num_rows": count}
        return self._chats("hybrid/write", common, asks)

    def analysis(self) -> Chats:
        """EvoKD's first two turns, as one chat."""
        report, names = self.report(), self._label_names()
        wrong = [*report.wrong, *report.hard][:8]
        examples = [] if report.right or wrong else [Example(row.text, row.label) for row in self._random.sample(self.rows, 8)]
        patterns = self._random.choice((3, 5, 5))
        confused = [(row.label, row.predicted, row.text) for row in wrong if row.label != row.predicted]
        if not confused:
            drawn = [self._random.choice(self._by_label[label]) for label in self._random.sample(names, 4)]
            confused = [(row.label, self._other(row.label), row.text) for row in drawn]
        said = self._patterns(ANALYSES, confused, patterns)
        shown = {"examples": examples, "right": report.right, "wrong": wrong, "patterns": patterns}
        (analysis,) = self._chats("evokd/analyse", {**self._label_values(), **shown}, [({}, json.dumps(said, ensure_ascii=False))])
        hard, easy = [label for label, _, _ in confused], [row.label for row in report.right] or names
        return tuple((*analysis, *turns) for turns in self._writing("evokd/write", self._label_values(), hard, easy, self._deal))

    def _writing(
        self, template: str, common: Mapping[str, Any], hard: Sequence[str], easy: Sequence[str], deal: Callable[[str], MarkedRow]
    ) -> Chats:
        return tuple(chat for _ in self._times(1, 2, 3) for chat in self._written(template, common, hard, easy, deal))

    def _written(
        self, template: str, common: Mapping[str, Any], hard: Sequence[str], easy: Sequence[str], deal: Callable[[str], MarkedRow]
    ) -> Chats:
        count = self._random.choice((4, 8, 8))
        num_hard = self._random.choice((count // 2, count // 2, count // 2, 0, count))
        labels = [("hard", self._random.choice(hard)) for _ in range(num_hard)]
        labels += [("easy", self._random.choice(easy)) for _ in range(count - num_hard)]
        answer = [{"kind": kind, "text": self._vary(deal(label))} for kind, label in labels]
        numbers = {"num_rows": count, "num_hard": num_hard, "num_easy": count - num_hard}
        return self._chats(template, {**common, **numbers}, [({}, json.dumps(answer, ensure_ascii=False))])

    def _patterns(self, wordings: Sequence[str], confused: Sequence[tuple[str, str, str]], at_most: int) -> list[str]:
        drawn = self._random.sample(confused, min(len(confused), at_most))
        said: list[str] = []
        for label, predicted, text in drawn:
            words = [word for word in text.split() if len(word) > 4] or text.split()
            said.append(self._random.choice(wordings).format(label=label, predicted=predicted, words=self._random.choice(words)))
        return [*dict.fromkeys(said)]

    # Material.

    def _some_rows(self, *sizes: int) -> list[MarkedRow]:
        return [self._random.choice(self.rows) for _ in self._times(*sizes)]

    def _label_names(self) -> list[str]:
        return [label.name for label in self._labels]

    def _other(self, label: str) -> str:
        return self._random.choice([name for name in self._label_names() if name != label])

    def _alike(self, row: MarkedRow, count: int, among: Sequence[MarkedRow] | None = None) -> list[MarkedRow]:
        """Messages of its label (or of these) that share most words with it, itself not."""
        key = row, among is None
        if key not in self._near:
            words = self._words[row]
            others = [other for other in (self._by_label[row.label] if among is None else among) if other.text != row.text] or [row]
            likeness = {other: len(words & self._words[other]) / len(words | self._words[other]) for other in others}
            self._near[key] = sorted(others, key=lambda other: -likeness[other])[:NEIGHBOURS]
        near = self._near[key]
        return self._random.sample(near, count) if len(near) >= count else self._random.choices(near, k=count)

    def _topic(self, row: MarkedRow) -> str:
        """A few neighbouring words of the message; an entity in it, if there is one."""
        if row.spans and self._random.random() < 0.6:
            start, end, _ = self._random.choice(row.spans)
            return row.text[start:end]
        words = row.text.strip(" .!?").split()
        size = min(len(words), self._random.choice((2, 3)))
        start = self._random.randint(0, len(words) - size)
        return " ".join(words[start : start + size]).strip(",.;:!?")

    def _profiles(self, rows: Sequence[MarkedRow], *, with_topics: bool = False) -> list[str]:
        """Lines that ask for just these messages. Lengths and questions can be told from a text; other styles mean nothing here."""
        lines: list[str] = []
        for row in rows:
            style = "as a question" if row.text.rstrip().endswith("?") else self._random.choice(STYLES)
            lengths = HybridConfig().lengths
            sentences = len(re.findall(r"[.!?]+(?:\s|$)", row.text))
            length = lengths[0] if len(row.text.split()) <= 5 else lengths[2] if sentences > 1 else lengths[1]
            attributes = [("length", [length]), ("style", [style]), *([("about", [self._topic(row)])] if with_topics else [])]
            lines += draw_profiles(attributes, 1, "")
        return lines


def _words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", text.lower()))


def texts_json(texts: Sequence[str]) -> str:
    return json.dumps([{"text": text} for text in texts], ensure_ascii=False)


def numbered_json(answers: Sequence[Mapping[str, str]]) -> str:
    return json.dumps([{"number": number, **answer} for number, answer in enumerate(answers, start=1)], ensure_ascii=False)
