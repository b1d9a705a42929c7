"""Lessons in all the project's other prompts: each method's turns, labels by batch and by code, and everything again for entities.

Where no text of the corpus is the answer, one is made of it: a rephrasing is a message of the same label that shares most words, a
sub-topic is a stretch of words that stands in the message to be written, and an analysis names the labels that were mistaken for each
other, in one of several wordings. Which lesson teaches which template stands in `TAUGHT`; a test holds it against `prompts/`.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from lessons import HERE, Lesson, LessonMaker, MarkedRow

from engine.config import load_config
from engine.labels.label_codes import label_codes
from engine.labels.marking import write_inline
from engine.records import Example, Label, Span, TaskSpec
from engine.reports import ClassScore, MinedRow, Scores, WeaknessReport
from engine.strategies.attributes import draw_profiles
from engine.strategies.forms import form_of
from engine.strategy_config import HybridConfig

Turns: TypeAlias = tuple[tuple[str, str], ...]
Ask: TypeAlias = tuple[Mapping[str, Any], str]
"""What the end of a prompt is rendered with, and the answer."""

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
ENTITY_ANALYSES = (
    "It misses {label} such as {words}.",
    "It does not see where {label} ends.",
    "{label} at the beginning of a text.",
    "Texts with several entities, of which it sees one.",
)


class MethodLessons(LessonMaker):
    """An endless supply, determined by the seed."""

    def __init__(self, rows: Sequence[MarkedRow], seed: int) -> None:
        super().__init__(rows, seed)
        self._codes = [
            {"code": code, "name": label.name, "description": label.description}
            for code, label in zip(label_codes(len(self._labels), TOP_LOGPROBS), self._labels, strict=True)
        ]
        self._code_of = {coded["name"]: coded["code"] for coded in self._codes}
        ner = load_config(HERE / "ner.toml").task
        self._types = [Label(label.name, label.description) for label in ner.labels]
        task = TaskSpec("ner", ner.domain, tuple(self._types), (), (), (), marking=ner.marking)
        self._entity_values = dict(form_of(task).values)
        self._by_type: defaultdict[str, list[MarkedRow]] = defaultdict(list)
        self._by_types: defaultdict[frozenset[str], list[MarkedRow]] = defaultdict(list)
        for row in self.rows:
            for type in {span[2] for span in row.spans}:
                self._by_type[type].append(row)
            self._by_types[frozenset(span[2] for span in row.spans)].append(row)
        self._near: dict[tuple[MarkedRow, bool], list[MarkedRow]] = {}
        self._words = {row: _words(row.text) for row in self.rows}

    def of(self, template: str) -> Lesson:
        """A lesson in one template."""
        return Lesson(template, TAUGHT[template](self))

    def method_lessons(self) -> Iterator[Lesson]:
        """Whole chats, as the project will send them."""
        while True:
            yield self.of(self._drawn())

    def method_drills(self) -> Iterator[Lesson]:
        """The same without the system turn, where the taxonomy stands: most of what is read is the same every time."""
        while True:
            lesson = self.of(self._drawn())
            yield Lesson(lesson.kind, lesson.turns[1:])

    def _drawn(self) -> str:
        return self._random.choices([*SHARES], [*SHARES.values()])[0]

    # Prompts whose last lines differ: several questions behind one beginning, which is read once.

    def _chat(self, template: str, common: Mapping[str, Any], asks: Sequence[Ask]) -> Turns:
        opening = self._library.open(template, common)
        shared = len(opening.messages[-1][1])
        turns: list[tuple[str, str]] = []
        for number, (values, answer) in enumerate(asks):
            messages = opening.finish({**common, **values}).messages
            turns += messages if number == 0 else [("user", messages[-1][1][shared:].lstrip("\n"))]
            turns.append(("assistant", answer))
        return tuple(turns)

    def _times(self, *choices: int) -> range:
        return range(self._random.choice(choices))

    # Labels.

    def _label_values(self) -> dict[str, Any]:
        return {"kind": "classification", "domain": self._domain, "labels": self._labels}

    def labels(self) -> Turns:
        asks = [({"text": self._vary(row)}, json.dumps({"label": row.label})) for row in self._some_rows(8, 16, 24)]
        return self._chat("labelling/label", self._label_values(), asks)

    def codes(self) -> Turns:
        asks = [({"text": self._vary(row)}, self._code_of[row.label]) for row in self._some_rows(16, 24, 32)]
        return self._chat("labelling/code", {"kind": "classification", "domain": self._domain, "labels": self._codes}, asks)

    def batches(self) -> Turns:
        count = self._random.choice((2, 4, 6, 8, 8))
        asks: list[Ask] = []
        for _ in self._times(2, 4):
            rows = [self._random.choice(self.rows) for _ in range(count)]
            asks.append(({"texts": [self._vary(row) for row in rows]}, _numbered([{"label": row.label} for row in rows])))
        return self._chat("labelling/batch", {**self._label_values(), "num_texts": count}, asks)

    # Rows of a label.

    def unguided(self) -> Turns:
        count = self._random.choice((4, 8, 8))
        examples = [Example(row.text, row.label) for row in self._random.sample(self.rows, self._random.choice((0, 4, 8)))]
        focuses = [self._focus()[:1] for _ in self._times(1, 3)]
        wanted = [[focus[0]] * count if focus else [self._label() for _ in range(count)] for focus in focuses]
        asks = [({"focus": focus, "num_rows": count}, self._answer(labels)) for focus, labels in zip(focuses, wanted, strict=True)]
        return self._chat("unguided/generate", {**self._label_values(), "examples": examples, "num_rows": count}, asks)

    def rephrasings(self) -> Turns:
        count = self._random.choice((2, 4, 4))
        asks: list[Ask] = []
        for _ in self._times(2, 4, 6):
            row = self._random.choice(self.rows)
            asks.append(({"row": row}, _texts([self._vary(near) for near in self._alike(row, count)])))
        return self._chat("auggpt/rephrase", {**self._label_values(), "num_rows": count}, asks)

    def variants(self) -> Turns:
        count = self._random.choice((2, 4, 4))
        asks: list[Ask] = []
        for _ in self._times(2, 4, 6):
            row = self._random.choice(self.rows)
            mined = MinedRow(row.text, row.label, self._other(row.label), 0.5)
            asks.append(({"row": mined}, _texts([self._vary(near) for near in self._alike(row, count)])))
        return self._chat("llm2llm/variants", {**self._label_values(), "num_rows": count}, asks)

    def values(self) -> Turns:
        asks = [self._values_ask(label) for label in self._random.sample([None, *self._label_names()], self._random.choice((2, 4)))]
        return self._chat("attrprompt/values", self._label_values(), asks)

    def _values_ask(self, label: str | None) -> Ask:
        count = self._random.choice((4, 8, 8))
        rows = [] if label is None else self._random.sample(self._by_label[label], count)
        topics = self._random.sample(STYLES, count) if label is None else dict.fromkeys(self._topic(row) for row in rows)
        return {"label": label, "num_values": count}, json.dumps([*topics], ensure_ascii=False)

    def with_attributes(self) -> Turns:
        count = self._random.choice((4, 8))
        asks: list[Ask] = []
        for _ in self._times(1, 2, 3):
            label = self._label()
            rows = [self._deal(label) for _ in range(count)]
            answer = json.dumps([{"text": row.text, "label": label} for row in rows], ensure_ascii=False)
            asks.append(({"label": label, "num_rows": count, "profiles": self._profiles(rows, with_topics=True)}, answer))
        return self._chat("attrprompt/write", {**self._label_values(), "num_rows": count}, asks)

    def hybrid(self) -> Turns:
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
        return self._chat("hybrid/write", common, asks)

    def analysis(self) -> Turns:
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
        turns = self._chat("evokd/analyse", {**self._label_values(), **shown}, [({}, json.dumps(said, ensure_ascii=False))])
        hard, easy = [label for label, _, _ in confused], [row.label for row in report.right] or names
        return turns + self._writing("evokd/write", self._label_values(), hard, easy, self._deal)

    def _writing(
        self, template: str, common: Mapping[str, Any], hard: Sequence[str], easy: Sequence[str], deal: Callable[[str], MarkedRow]
    ) -> Turns:
        count = self._random.choice((4, 8, 8))
        num_hard = self._random.choice((count // 2, count // 2, count // 2, 0, count))
        labels = [("hard", self._random.choice(hard)) for _ in range(num_hard)]
        labels += [("easy", self._random.choice(easy)) for _ in range(count - num_hard)]
        answer = [{"kind": kind, "text": self._vary(deal(label))} for kind, label in labels]
        numbers = {"num_rows": count, "num_hard": num_hard, "num_easy": count - num_hard}
        return self._chat(template, {**common, **numbers}, [({}, json.dumps(answer, ensure_ascii=False))])

    def _patterns(self, wordings: Sequence[str], confused: Sequence[tuple[str, str, str]], at_most: int) -> list[str]:
        drawn = self._random.sample(confused, min(len(confused), at_most))
        said: list[str] = []
        for label, predicted, text in drawn:
            words = [word for word in text.split() if len(word) > 4] or text.split()
            said.append(self._random.choice(wordings).format(label=label, predicted=predicted, words=self._random.choice(words)))
        return [*dict.fromkeys(said)]

    # Entities.

    def _entity_chat(self, name: str, common: Mapping[str, Any], asks: Sequence[Ask]) -> Turns:
        return self._chat(f"ner/{name}", {**self._entity_values, **common}, asks)

    def entity_labels(self) -> Turns:
        rows = [self._swapped(row) for row in self._some_rows(6, 10, 14)]
        asks = [({"text": row.text}, json.dumps({"text": _tagged(row)}, ensure_ascii=False)) for row in rows]
        return self._entity_chat("labelling/label", {}, asks)

    def entity_batches(self) -> Turns:
        count = self._random.choice((2, 4, 8))
        asks: list[Ask] = []
        for _ in self._times(1, 2, 3):
            rows = [self._swapped(self._random.choice(self.rows)) for _ in range(count)]
            asks.append(({"texts": [row.text for row in rows]}, _numbered([{"text": _tagged(row)} for row in rows])))
        return self._entity_chat("labelling/batch", {"num_texts": count}, asks)

    def entity_rows_of_type(self) -> Turns:
        count = self._random.choice((4, 8, 8))
        types = [self._type() for _ in self._times(1, 2, 4)]
        asks = [({"label": type, "num_rows": count}, self._marked([self._deal_type(type) for _ in range(count)])) for type in types]
        return self._entity_chat("zerogen/generate", {"num_rows": count}, asks)

    def entity_unguided(self) -> Turns:
        count = self._random.choice((4, 8, 8))
        asks = [self._entity_ask(self._entity_focus()[:1], count) for _ in self._times(1, 2, 4)]
        return self._entity_chat("unguided/generate", {"examples": self._entity_examples(), "num_rows": count}, asks)

    def entity_report_rows(self) -> Turns:
        count, report = self._random.choice((4, 8, 8)), self.entity_report()
        asks = [self._entity_ask(self._entity_focus(), count) for _ in self._times(1, 4, 6)]
        return self._entity_chat("pgkd/generate", {"examples": self._entity_examples(), "report": report, "num_rows": count}, asks)

    def _entity_ask(self, focus: tuple[str, ...], count: int) -> Ask:
        types = [focus[0]] * count if focus else [self._type() for _ in range(count)]
        weakness = self._random.choice(("type", "boundary")) if len(focus) == 1 else "confusion"
        answer = self._marked([self._deal_type(type) for type in types])
        return {"focus": focus, "weakness": weakness, "num_rows": count}, answer

    def entity_hybrid(self) -> Turns:
        count, with_labels, report = self._random.choice((4, 8, 8)), self._random.random() < 0.2, self.entity_report()
        asks: list[Ask] = []
        for _ in self._times(1, 3, 5):
            focus, is_easy = self._entity_focus() or (self._type(),), self._random.random() < 0.25
            rows = [self._deal_type(focus[0]) for _ in range(count)]
            mistakes = () if is_easy else self._entity_mistakes(self._by_type[focus[0]], self._random.choice((0, 1, 3)))
            profiles = self._profiles(rows) if self._random.random() < 0.8 else []
            texts = [row if profiles else self._swapped(row) for row in rows]
            answer = self._marked(texts, vary=False) if with_labels else _texts([row.text for row in texts])
            ask = {"focus": focus, "weakness": "type", "is_easy": is_easy, "mistakes": mistakes, "profiles": profiles, "num_rows": count}
            asks.append((ask, answer))
        common = {"examples": self._entity_examples(), "report": report, "with_labels": with_labels, "num_rows": count}
        return self._entity_chat("hybrid/write", common, asks)

    def entity_rephrasings(self) -> Turns:
        return self._entity_variants("auggpt/rephrase", _example)

    def entity_variants(self) -> Turns:
        return self._entity_variants("llm2llm/variants", self._mistaken)

    def _entity_variants(self, template: str, shown: Callable[[MarkedRow], object]) -> Turns:
        """Of the very types of the original, or they would be refused."""
        count = self._random.choice((2, 4, 4))
        asks: list[Ask] = []
        for _ in self._times(2, 3, 5):
            row = self._random.choice(self._by_type[self._type()])
            among = self._by_types[frozenset(span[2] for span in row.spans)]
            answer = self._marked(self._alike(row, count, among))
            asks.append(({"row": shown(row), "num_rows": count}, answer))
        return self._entity_chat(template, {"num_rows": count}, asks)

    def entity_values(self) -> Turns:
        asks: list[Ask] = []
        for type in self._random.sample([None, *self._type_names()], self._random.choice((2, 3))):
            count = self._random.choice((4, 8, 8))
            rows = [] if type is None else self._random.sample(self._by_type[type], count)
            topics = self._random.sample(STYLES, count) if type is None else dict.fromkeys(self._topic(row) for row in rows)
            asks.append(({"label": type, "num_values": count}, json.dumps([*topics], ensure_ascii=False)))
        return self._entity_chat("attrprompt/values", {}, asks)

    def entity_attributes(self) -> Turns:
        count = self._random.choice((4, 8))
        asks: list[Ask] = []
        for _ in self._times(1, 2, 3):
            type = self._type()
            rows = [self._deal_type(type) for _ in range(count)]
            values = {"label": type, "num_rows": count, "profiles": self._profiles(rows, with_topics=True)}
            asks.append((values, self._marked(rows, vary=False)))
        return self._entity_chat("attrprompt/write", {"num_rows": count}, asks)

    def entity_analysis(self) -> Turns:
        report = self.entity_report()
        wrong = [*report.wrong, *report.hard][:8]
        examples = [] if report.right or wrong else self._entity_examples()
        patterns = self._random.choice((3, 5, 5))
        missed = [
            (span.type, span.type, row.text[span.start : span.end])
            for row in wrong
            for span in row.spans
            if span not in row.predicted_spans
        ]
        missed = missed or [(type, type, self._random.choice(self._entities[type])) for type in self._random.sample(self._type_names(), 3)]
        said = self._patterns(ENTITY_ANALYSES, missed, patterns)
        shown = {"examples": examples, "right": report.right, "wrong": wrong, "patterns": patterns}
        turns = self._entity_chat("evokd/analyse", shown, [({}, json.dumps(said, ensure_ascii=False))])
        hard = [type for type, _, _ in missed]
        return turns + self._writing("ner/evokd/write", self._entity_values, hard, self._type_names(), self._deal_type)

    def entity_report(self) -> WeaknessReport:
        """As a tagger of entities might have; its mistakes are made up."""
        level = self._random.random()
        classes: list[ClassScore] = []
        for name in self._type_names():
            precision, recall = (min(1.0, max(0.0, self._random.gauss(0.3 + 0.65 * level, 0.2))) for _ in range(2))
            f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
            classes.append(ClassScore(name, precision, recall, f1, self._random.choice((20, 40, 60, 100))))
        marked = [row for row in self.rows if row.spans]
        shown = self._random.sample(marked, self._random.choice((0, 4, 8)))
        right = [MinedRow(row.text, "", "", 0.5, _spans(row), _spans(row)) for row in shown]
        wrong, hard = (self._entity_mistakes(marked, self._random.choice((0, 4, 8))) for _ in range(2))
        mean = sum(score.f1 for score in classes) / len(classes)
        return WeaknessReport(
            round=0,
            loss=0.2,
            scores=Scores(mean, mean, mean, 320),
            classes=tuple(classes),
            confusions=(),
            mining="train",
            right=tuple(right),
            wrong=wrong,
            hard=hard,
            num_train_rows=100,
            train_s=1.0,
            epochs=1,
        )

    def _entity_mistakes(self, rows: Sequence[MarkedRow], count: int) -> tuple[MinedRow, ...]:
        return tuple(self._mistaken(row) for row in self._random.sample(rows, count))

    def _mistaken(self, row: MarkedRow) -> MinedRow:
        """One of its entities is missed, cut, or taken for another type."""
        spans = _spans(row)
        missed = self._random.randrange(len(spans))
        span = spans[missed]
        guesses = [
            (),
            (Span(span.start, span.end, self._random.choice([name for name in self._type_names() if name != span.type])),),
            (Span(span.start, max(span.start + 1, span.end - self._random.randint(1, 4)), span.type),),
        ]
        return MinedRow(row.text, "", "", 0.6, spans, (*spans[:missed], *self._random.choice(guesses), *spans[missed + 1 :]))

    # Material.

    def _some_rows(self, *sizes: int) -> list[MarkedRow]:
        return [self._random.choice(self.rows) for _ in self._times(*sizes)]

    def _label_names(self) -> list[str]:
        return [label.name for label in self._labels]

    def _type_names(self) -> list[str]:
        return [type.name for type in self._types]

    def _type(self) -> str:
        return self._random.choice(self._type_names())

    def _other(self, label: str) -> str:
        return self._random.choice([name for name in self._label_names() if name != label])

    def _entity_focus(self) -> tuple[str, ...]:
        return tuple(self._random.sample(self._type_names(), self._random.choices((0, 1, 2), (0.15, 0.6, 0.25))[0]))

    def _entity_examples(self) -> list[Example]:
        return [_example(row) for row in self._random.sample(self.rows, self._random.choice((0, 4, 8)))]

    def _deal_type(self, type: str) -> MarkedRow:
        deck = self._decks.setdefault(f"type {type}", [])
        if not deck:
            deck += self._by_type[type]
            self._random.shuffle(deck)
        return deck.pop()

    def _marked(self, rows: Sequence[MarkedRow], *, vary: bool = True) -> str:
        return _texts([_tagged(self._swapped(row) if vary else row) for row in rows])

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


def _spans(row: MarkedRow) -> tuple[Span, ...]:
    return tuple(Span(*span) for span in row.spans)


def _example(row: MarkedRow) -> Example:
    return Example(row.text, "", _spans(row))


def _tagged(row: MarkedRow) -> str:
    return write_inline(row.text, _spans(row))


def _texts(texts: Sequence[str]) -> str:
    return json.dumps([{"text": text} for text in texts], ensure_ascii=False)


def _numbered(answers: Sequence[Mapping[str, str]]) -> str:
    return json.dumps([{"number": number, **answer} for number, answer in enumerate(answers, start=1)], ensure_ascii=False)


TAUGHT: Mapping[str, Callable[[MethodLessons], Turns]] = {
    "pgkd/generate": lambda maker: maker.with_report().turns,
    "zerogen/generate": lambda maker: maker.class_conditional().turns,
    "labelling/label": MethodLessons.labels,
    "labelling/code": MethodLessons.codes,
    "labelling/batch": MethodLessons.batches,
    "unguided/generate": MethodLessons.unguided,
    "auggpt/rephrase": MethodLessons.rephrasings,
    "llm2llm/variants": MethodLessons.variants,
    "attrprompt/values": MethodLessons.values,
    "attrprompt/write": MethodLessons.with_attributes,
    "hybrid/write": MethodLessons.hybrid,
    "evokd/analyse": MethodLessons.analysis,
    "ner/labelling/label": MethodLessons.entity_labels,
    "ner/labelling/batch": MethodLessons.entity_batches,
    "ner/zerogen/generate": MethodLessons.entity_rows_of_type,
    "ner/unguided/generate": MethodLessons.entity_unguided,
    "ner/pgkd/generate": MethodLessons.entity_report_rows,
    "ner/hybrid/write": MethodLessons.entity_hybrid,
    "ner/auggpt/rephrase": MethodLessons.entity_rephrasings,
    "ner/llm2llm/variants": MethodLessons.entity_variants,
    "ner/attrprompt/values": MethodLessons.entity_values,
    "ner/attrprompt/write": MethodLessons.entity_attributes,
    "ner/evokd/analyse": MethodLessons.entity_analysis,
}
"""By template."""

LATER_TURNS: Mapping[str, str] = {"evokd/write": "evokd/analyse", "ner/evokd/write": "ner/evokd/analyse"}
"""Templates that go on with a conversation, and the one whose lessons they are in."""

SHARES: Mapping[str, float] = {
    "pgkd/generate": 1.5,
    "zerogen/generate": 1.0,
    "labelling/label": 1.5,
    "labelling/code": 2.0,
    "labelling/batch": 1.5,
    "unguided/generate": 0.7,
    "auggpt/rephrase": 0.7,
    "llm2llm/variants": 0.5,
    "attrprompt/values": 0.3,
    "attrprompt/write": 0.7,
    "hybrid/write": 1.2,
    "evokd/analyse": 1.0,
    "ner/labelling/label": 1.0,
    "ner/labelling/batch": 1.0,
    "ner/zerogen/generate": 0.6,
    "ner/unguided/generate": 0.6,
    "ner/pgkd/generate": 0.8,
    "ner/hybrid/write": 0.7,
    "ner/auggpt/rephrase": 0.4,
    "ner/llm2llm/variants": 0.4,
    "ner/attrprompt/values": 0.2,
    "ner/attrprompt/write": 0.4,
    "ner/evokd/analyse": 0.7,
}
"""How often each is drawn."""
