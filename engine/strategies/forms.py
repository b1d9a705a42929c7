"""The kinds of task as a method meets them: what its prompts know of one, how rows are asked for and read, and what a weakness is about.

A method is written once. A task whose texts, or pairs of texts, get a label or several has the templates by their plain names, which say
what differs between them by `kind`; one that marks entities has those of the same names under `ner/`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from msgspec.structs import replace

from engine.labels.marking import list_entities, write_inline
from engine.parsing import parse_marked_rows, parse_pair_rows, parse_pairs, parse_rows, parse_set_rows, parse_texts
from engine.prompting import Prompter, marked_rows_schema, pair_rows_schema, pairs_schema, rows_schema, set_rows_schema, texts_schema
from engine.records import Annotation, Candidate, Example, Marking, RejectionReason, Span, TaskSpec
from engine.reports import MinedRow
from engine.strategies.focus import BOUNDARY, CLASS, TYPE, Focus
from engine.strategies.labelling import Labeller
from engine.strategies.marker import Marker
from engine.strategies.set_labeller import SetLabeller
from engine.strategies.text_labeller import TextLabeller
from engine.task.task import labels_of


class Form(Protocol):
    """Of one task."""

    values: Mapping[str, Any]
    """What every template of the task knows."""
    single: str
    """What a weakness of one label, or one type, is called before its name: see `focus.Focus`."""

    def template(self, name: str) -> str: ...

    def rows_schema(self, num_rows: int) -> str:
        """Of rows that say themselves what they are."""
        ...

    def parse_rows(self, reply: str) -> list[Candidate]: ...

    def texts_schema(self, num_rows: int, kinds: tuple[str, ...] = ()) -> str:
        """Of rows that say only what is to be labelled, and perhaps which of `kinds` it is."""
        ...

    def parse_texts(self, reply: str, kinds: tuple[str, ...] = ()) -> list[Candidate]: ...

    def variants_schema(self, num_rows: int) -> str:
        """Of rows that are what another one is."""
        ...

    def parse_variants(self, reply: str, original: Example | MinedRow) -> list[Candidate]: ...

    def missed_in(self, row: MinedRow) -> tuple[str, ...]:
        """What the student got wrong in a mined row: (label, what it took it for), or types of entities."""
        ...

    def shows(self, row: MinedRow, focus: Focus) -> bool:
        """Whether it is a mistake of this very weakness."""
        ...

    def labeller(self, prompter: Prompter) -> TextLabeller[Any]: ...


class _TextForm:
    """What is labelled is a text."""

    def texts_schema(self, num_rows: int, kinds: tuple[str, ...] = ()) -> str:
        return texts_schema(num_rows, kinds)

    def parse_texts(self, reply: str, kinds: tuple[str, ...] = ()) -> list[Candidate]:
        return parse_texts(reply, kinds)


class LabelForm(_TextForm):
    """Texts with one label each."""

    single = CLASS

    def __init__(self, task: TaskSpec) -> None:
        self._task = task
        self.values: Mapping[str, Any] = {"kind": task.kind, "domain": task.domain, "labels": task.labels}

    def template(self, name: str) -> str:
        return name

    def rows_schema(self, num_rows: int) -> str:
        return rows_schema(self._task.label_names, num_rows)

    def parse_rows(self, reply: str) -> list[Candidate]:
        return parse_rows(reply)

    def variants_schema(self, num_rows: int) -> str:
        return self.texts_schema(num_rows)

    def parse_variants(self, reply: str, original: Example | MinedRow) -> list[Candidate]:
        return [replace(candidate, label=original.label) for candidate in self.parse_texts(reply)]

    def missed_in(self, row: MinedRow) -> tuple[str, ...]:
        return row.label, row.predicted

    def shows(self, row: MinedRow, focus: Focus) -> bool:
        return row.label == focus.labels[0] != row.predicted and focus.labels[1:] in ((), (row.predicted,))

    def labeller(self, prompter: Prompter) -> TextLabeller[Any]:
        return Labeller(self._task, prompter, self.values)


class PairForm(LabelForm):
    """Pairs of texts with one label each."""

    def rows_schema(self, num_rows: int) -> str:
        return pair_rows_schema(self._task.label_names, num_rows)

    def parse_rows(self, reply: str) -> list[Candidate]:
        return parse_pair_rows(reply)

    def texts_schema(self, num_rows: int, kinds: tuple[str, ...] = ()) -> str:
        return pairs_schema(num_rows, kinds)

    def parse_texts(self, reply: str, kinds: tuple[str, ...] = ()) -> list[Candidate]:
        return parse_pairs(reply, kinds)


class SetForm(_TextForm):
    """Texts with any number of labels each."""

    single = CLASS

    def __init__(self, task: TaskSpec) -> None:
        self._task = task
        self._known = dict.fromkeys(task.label_names)
        self.values: Mapping[str, Any] = {
            "kind": task.kind,
            "domain": task.domain,
            "labels": task.labels,
            "allow_none": task.allow_none,
        }

    def template(self, name: str) -> str:
        return name

    def rows_schema(self, num_rows: int) -> str:
        return set_rows_schema(self._task.label_names, num_rows, allow_none=self._task.allow_none)

    def parse_rows(self, reply: str) -> list[Candidate]:
        return parse_set_rows(reply, self._known, allow_none=self._task.allow_none)

    def variants_schema(self, num_rows: int) -> str:
        return texts_schema(num_rows)

    def parse_variants(self, reply: str, original: Example | MinedRow) -> list[Candidate]:
        annotation = Annotation(labels=original.labels)
        return [candidate if candidate.problem else replace(candidate, annotation=annotation) for candidate in parse_texts(reply)]

    def missed_in(self, row: MinedRow) -> tuple[str, ...]:
        """What was made up stands behind what was missed."""
        return (*_without(row.labels, row.predicted_labels), *_without(row.predicted_labels, row.labels))

    def shows(self, row: MinedRow, focus: Focus) -> bool:
        missed, made_up = _without(row.labels, row.predicted_labels), _without(row.predicted_labels, row.labels)
        if focus.kind == self.single:
            return focus.labels[0] in (*missed, *made_up)
        return focus.labels[0] in missed and focus.labels[1] in made_up

    def labeller(self, prompter: Prompter) -> TextLabeller[Any]:
        return SetLabeller(self._task, prompter, self.values)


class SpanForm(_TextForm):
    """Texts in which entities are marked."""

    single = TYPE

    def __init__(self, task: TaskSpec) -> None:
        self._task = task
        self._marking: Marking = task.marking
        self._types = dict.fromkeys(task.label_names)
        self.values: Mapping[str, Any] = {
            "domain": task.domain,
            "labels": task.labels,
            "marking": task.marking,
            "tag": write_inline("…", (Span(0, 1, task.label_names[0]),)),
            "tagged": write_inline,
            "listed": list_entities,
        }

    def template(self, name: str) -> str:
        return f"ner/{name}"

    def rows_schema(self, num_rows: int) -> str:
        return marked_rows_schema(self._task.label_names, self._marking, num_rows)

    def parse_rows(self, reply: str) -> list[Candidate]:
        return parse_marked_rows(reply, self._types, self._marking)

    def variants_schema(self, num_rows: int) -> str:
        return self.rows_schema(num_rows)

    def parse_variants(self, reply: str, original: Example | MinedRow) -> list[Candidate]:
        """One with other types of entities than the original is a disagreement."""
        wanted = {span.type for span in original.spans}
        return [_with_types(candidate, wanted) for candidate in self.parse_rows(reply)]

    def missed_in(self, row: MinedRow) -> tuple[str, ...]:
        """In the order of the text; what was made up stands behind what was missed."""
        missed = [span for span in row.spans if span not in row.predicted_spans]
        made_up = [span for span in row.predicted_spans if span not in row.spans]
        return tuple(dict.fromkeys(span.type for span in (*missed, *made_up)))

    def shows(self, row: MinedRow, focus: Focus) -> bool:
        type = focus.labels[0]
        if focus.kind == self.single:
            return type in self.missed_in(row)
        taken_for = type if focus.kind == BOUNDARY else focus.labels[1]
        return any(
            span.type == type and guess.type == taken_for and span != guess and span.start < guess.end and guess.start < span.end
            for span in row.spans
            for guess in row.predicted_spans
        )

    def labeller(self, prompter: Prompter) -> TextLabeller[Any]:
        return Marker(self._task, prompter, self.values)


_FORMS: Mapping[str, Callable[[TaskSpec], Form]] = {"classification": LabelForm, "multi_label": SetForm, "ner": SpanForm, "pair": PairForm}


def form_of(task: TaskSpec) -> Form:
    return _FORMS[task.kind](task)


def _without(labels: tuple[str, ...], others: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(label for label in labels if label not in others)


def _with_types(candidate: Candidate, wanted: set[str]) -> Candidate:
    found = {span.type for span in (candidate.annotation or Annotation()).spans}
    if candidate.problem is not None or found == wanted:
        return candidate
    asked, marked = (", ".join(map(repr, sorted(types))) or "no entity" for types in (wanted, found))
    return replace(candidate, problem=f"asked for {asked}, marked {marked}", reason=RejectionReason.DISAGREEMENT)


def focus_labels(row: Example) -> tuple[str, ...]:
    """What a request about this row asks for: its label or labels, or its types of entities."""
    return tuple(dict.fromkeys(label for label in labels_of(row) if label))
