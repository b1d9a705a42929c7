"""Lessons in the prompts of all methods about entities, which are marked in the texts. Mistakes of a student are made up."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from label_lessons import STYLES, LabelLessons, numbered_json, texts_json
from lessons import HERE, Ask, Chats, MarkedRow

from engine.config import load_config
from engine.labels.marking import write_inline
from engine.records import Example, Label, Span, TaskSpec
from engine.reports import MinedRow, Scores, WeaknessReport
from engine.strategies.forms import form_of

ENTITY_ANALYSES = (
    "It misses {label} such as {words}.",
    "It does not see where {label} ends.",
    "{label} at the beginning of a text.",
    "Texts with several entities, of which it sees one.",
)


class EntityLessons(LabelLessons):
    """An endless supply, determined by the seed."""

    def __init__(self, rows: Sequence[MarkedRow], seed: int) -> None:
        super().__init__(rows, seed)
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

    def _entity_chats(self, name: str, common: Mapping[str, Any], asks: Sequence[Ask]) -> Chats:
        return self._chats(f"ner/{name}", {**self._entity_values, **common}, asks)

    def entity_labels(self) -> Chats:
        rows = [self._swapped(row) for row in self._some_rows(12, 20)]
        asks = [({"text": row.text}, json.dumps({"text": _tagged(row)}, ensure_ascii=False)) for row in rows]
        return self._entity_chats("labelling/label", {}, asks)

    def entity_batches(self) -> Chats:
        count = self._random.choice((2, 4, 8))
        asks: list[Ask] = []
        for _ in self._times(1, 2, 3):
            rows = [self._swapped(self._random.choice(self.rows)) for _ in range(count)]
            asks.append(({"texts": [row.text for row in rows]}, numbered_json([{"text": _tagged(row)} for row in rows])))
        return self._entity_chats("labelling/batch", {"num_texts": count}, asks)

    def entity_rows_of_type(self) -> Chats:
        count = self._random.choice((4, 8, 8))
        types = [self._type() for _ in self._times(1, 2, 4)]
        asks = [({"label": type, "num_rows": count}, self._marked([self._deal_type(type) for _ in range(count)])) for type in types]
        return self._entity_chats("zerogen/generate", {"num_rows": count}, asks)

    def entity_unguided(self) -> Chats:
        count = self._random.choice((4, 8, 8))
        asks = [self._entity_ask(self._entity_focus()[:1], count) for _ in self._times(1, 2, 4)]
        return self._entity_chats("unguided/generate", {"examples": self._entity_examples(), "num_rows": count}, asks)

    def entity_report_rows(self) -> Chats:
        count, report = self._random.choice((4, 8, 8)), self.entity_report()
        asks = [self._entity_ask(self._entity_focus(), count) for _ in self._times(1, 4, 6)]
        return self._entity_chats("pgkd/generate", {"examples": self._entity_examples(), "report": report, "num_rows": count}, asks)

    def _entity_ask(self, focus: tuple[str, ...], count: int) -> Ask:
        types = [focus[0]] * count if focus else [self._type() for _ in range(count)]
        weakness = self._random.choice(("type", "boundary")) if len(focus) == 1 else "confusion"
        answer = self._marked([self._deal_type(type) for type in types])
        return {"focus": focus, "weakness": weakness, "num_rows": count}, answer

    def entity_hybrid(self) -> Chats:
        count, with_labels, report = self._random.choice((4, 8, 8)), self._random.random() < 0.2, self.entity_report()
        asks: list[Ask] = []
        for _ in self._times(1, 3, 5):
            focus, is_easy = self._entity_focus() or (self._type(),), self._random.random() < 0.25
            rows = [self._deal_type(focus[0]) for _ in range(count)]
            mistakes = () if is_easy else self._entity_mistakes(self._by_type[focus[0]], self._random.choice((0, 1, 3)))
            profiles = self._profiles(rows) if self._random.random() < 0.8 else []
            texts = [row if profiles else self._swapped(row) for row in rows]
            answer = self._marked(texts, vary=False) if with_labels else texts_json([row.text for row in texts])
            ask = {"focus": focus, "weakness": "type", "is_easy": is_easy, "mistakes": mistakes, "profiles": profiles, "num_rows": count}
            asks.append((ask, answer))
        common = {"examples": self._entity_examples(), "report": report, "with_labels": with_labels, "num_rows": count}
        return self._entity_chats("hybrid/write", common, asks)

    def entity_rephrasings(self) -> Chats:
        return self._entity_variants("auggpt/rephrase", _example)

    def entity_variants(self) -> Chats:
        return self._entity_variants("llm2llm/variants", self._mistaken)

    def _entity_variants(self, template: str, shown: Callable[[MarkedRow], object]) -> Chats:
        """Of the very types of the original, or they would be refused."""
        count = self._random.choice((2, 4, 4))
        asks: list[Ask] = []
        for _ in self._times(2, 3, 5):
            row = self._random.choice(self._by_type[self._type()])
            among = self._by_types[frozenset(span[2] for span in row.spans)]
            answer = self._marked(self._alike(row, count, among))
            asks.append(({"row": shown(row), "num_rows": count}, answer))
        return self._entity_chats(template, {"num_rows": count}, asks)

    def entity_values(self) -> Chats:
        asks: list[Ask] = []
        for type in self._random.sample([None, *self._type_names()], self._random.choice((2, 3))):
            count = self._random.choice((4, 8, 8))
            rows = [] if type is None else self._random.sample(self._by_type[type], count)
            topics = self._random.sample(STYLES, count) if type is None else dict.fromkeys(self._topic(row) for row in rows)
            asks.append(({"label": type, "num_values": count}, json.dumps([*topics], ensure_ascii=False)))
        return self._entity_chats("attrprompt/values", {}, asks)

    def entity_attributes(self) -> Chats:
        count = self._random.choice((4, 8))
        asks: list[Ask] = []
        for _ in self._times(1, 2, 3):
            type = self._type()
            rows = [self._deal_type(type) for _ in range(count)]
            values = {"label": type, "num_rows": count, "profiles": self._profiles(rows, with_topics=True)}
            asks.append((values, self._marked(rows, vary=False)))
        return self._entity_chats("attrprompt/write", {"num_rows": count}, asks)

    def entity_analysis(self) -> Chats:
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
        (analysis,) = self._entity_chats("evokd/analyse", shown, [({}, json.dumps(said, ensure_ascii=False))])
        hard = [type for type, _, _ in missed]
        writing = self._writing("ner/evokd/write", self._entity_values, hard, self._type_names(), self._deal_type)
        return tuple((*analysis, *turns) for turns in writing)

    def entity_report(self) -> WeaknessReport:
        """As a tagger of entities might have; its mistakes are made up."""
        level = self._random.random()
        classes = self._class_scores(self._type_names(), 0.3 + 0.65 * level, (20, 40, 60, 100))
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

    def _type_names(self) -> list[str]:
        return [type.name for type in self._types]

    def _type(self) -> str:
        return self._random.choice(self._type_names())

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
        return texts_json([_tagged(self._swapped(row) if vary else row) for row in rows])


def _spans(row: MarkedRow) -> tuple[Span, ...]:
    return tuple(Span(*span) for span in row.spans)


def _example(row: MarkedRow) -> Example:
    return Example(row.text, "", _spans(row))


def _tagged(row: MarkedRow) -> str:
    return write_inline(row.text, _spans(row))
