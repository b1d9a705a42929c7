"""What the row cache keeps of a row beside its tokens, by what the task asks: its label (of a text, or of two), its labels, or its spans
with the tags that stand for them.
"""

# pyright: reportUnknownParameterType=false
# (pyarrow's classes have no type stubs, so that naming them says something to readers only)

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc
from transformers import PreTrainedTokenizerBase

from engine.errors import StoreError
from engine.records import Example, Span, TaskKind, as_example
from engine.store import escape, unescape
from engine.text import Content, joined
from student.bio import Tagging, to_tags
from student.data import Tokenised, tokenise_counting

ROW_SCHEMA = pa.schema(
    [
        ("text", pa.string()),
        ("label", pa.int32()),
        ("tokens", pa.list_(pa.int32())),
        ("weight", pa.float32()),
        ("distribution", pa.list_(pa.float32())),
    ]
)


@dataclass(frozen=True, slots=True)
class Encoded:
    """Rows as columns of the cache."""

    columns: dict[str, Any]
    num_cut: int
    """Texts that are longer than the network reads."""
    taggings: Sequence[Tagging] = ()


class RowColumns(Protocol):
    """Made of the task's labels."""

    def __init__(self, labels: Sequence[str]) -> None: ...

    @property
    def schema(self) -> pa.Schema: ...

    @property
    def source(self) -> str:
        """The column of the samples table that says what a row is."""
        ...

    @property
    def texts(self) -> tuple[str, ...]:
        """The columns of both tables that hold the text, or the texts of a pair."""
        ...

    def stored(self, rows: Sequence[Example]) -> pa.Array:
        """These rows as that column would hold them."""
        ...

    def encode(self, texts: Sequence[Content], source: pa.Array, tokenizer: PreTrainedTokenizerBase, round: int) -> Encoded:
        """StoreError for what is none of the task's."""
        ...

    def examples(self, rows: pa.Table) -> list[Example]:
        """Of its columns `texts`, `label` and `source`."""
        ...


class LabelColumns:
    """A row's label is kept as its position among the task's."""

    schema = ROW_SCHEMA
    source = "label"
    texts = ("text",)

    def __init__(self, labels: Sequence[str]) -> None:
        self._names = tuple(labels)
        self._stored_names = pa.array([escape(label) for label in labels], pa.string())

    def stored(self, rows: Sequence[Example]) -> pa.Array:
        return pa.array([escape(row.label) for row in rows], pa.string())

    def encode(self, texts: Sequence[Content], source: pa.Array, tokenizer: PreTrainedTokenizerBase, round: int) -> Encoded:
        positions = pc.call_function("index_in", [source], pc.SetLookupOptions(self._stored_names))
        if positions.null_count:
            raise _unknown("label", source.filter(positions.is_null())[0].as_py(), round)
        found = tokenise_counting(tokenizer, texts)
        return Encoded({"label": positions, "tokens": pa.array(found.tokens, pa.list_(pa.int32())), **self._beside(found)}, found.num_cut)

    def _beside(self, found: Tokenised) -> dict[str, pa.Array]:
        """Columns beside the label and the tokens."""
        return {}

    def examples(self, rows: pa.Table) -> list[Example]:
        columns = (rows.column(name).to_pylist() for name in (*self.texts, "label"))
        return [as_example(joined(texts), self._names[label]) for *texts, label in zip(*columns, strict=True)]


class PairColumns(LabelColumns):
    """Beside the tokens of both texts, how many of them are of the first; null where the tokenizer does not tell."""

    schema = pa.schema([*ROW_SCHEMA, ("text_pair", pa.string()), ("first", pa.int32())])
    texts = ("text", "text_pair")

    def _beside(self, found: Tokenised) -> dict[str, pa.Array]:
        return {"first": pa.array(found.firsts, pa.int32())} if found.firsts else {}


class SetColumns:
    """Labels are kept as the tables store them, and as a distribution with a 1 for each. A row's label is a stratum: the first of its
    labels, or one more where there is none.
    """

    schema = pa.schema([*ROW_SCHEMA, ("labels", pa.list_(pa.string()))])
    source = "labels"
    texts = ("text",)

    def __init__(self, labels: Sequence[str]) -> None:
        self._positions = {label: position for position, label in enumerate(labels)}

    def stored(self, rows: Sequence[Example]) -> pa.Array:
        return pa.array([[escape(label) for label in row.labels] for row in rows], self.schema.field("labels").type)

    def encode(self, texts: Sequence[Content], source: pa.Array, tokenizer: PreTrainedTokenizerBase, round: int) -> Encoded:
        if source.null_count:
            raise StoreError(f"a row of round {round} has no labels, not even none; the samples table was changed")
        rows = [[unescape(label) for label in row] for row in source.to_pylist()]
        if unknown := [label for row in rows for label in row if label not in self._positions]:
            raise _unknown("label", unknown[0], round)
        positions = [[self._positions[label] for label in row] for row in rows]
        found = tokenise_counting(tokenizer, texts)
        columns = {
            "label": pa.array([min(row, default=len(self._positions)) for row in positions], pa.int32()),
            "tokens": pa.array(found.tokens, pa.list_(pa.int32())),
            "distribution": pa.array(has_labels(positions, len(self._positions)), pa.list_(pa.float32())),
            "labels": source,
        }
        return Encoded(columns, found.num_cut)

    def examples(self, rows: pa.Table) -> list[Example]:
        texts, labels = (rows.column(name).to_pylist() for name in ("text", "labels"))
        return [Example(text, "", labels=tuple(map(unescape, row))) for text, row in zip(texts, labels, strict=True)]


def has_labels(positions: Sequence[Sequence[int]], num_labels: int) -> list[list[float]]:
    """A distribution for each row, with a 1 for each of its labels."""
    return [[float(position in row) for position in range(num_labels)] for row in map(set, positions)]


class SpanColumns:
    """Types are kept as the tables store them. A row's label is a stratum: the type of its first span, or one more where there is none."""

    schema = pa.schema(
        [
            *ROW_SCHEMA,
            ("spans", pa.list_(pa.struct([("start", pa.int32()), ("end", pa.int32()), ("type", pa.string())]))),
            ("tags", pa.list_(pa.int32())),
            ("places", pa.list_(pa.int32())),  # two numbers a token
        ]
    )
    source = "spans"
    texts = ("text",)

    def __init__(self, labels: Sequence[str]) -> None:
        self._types = tuple(labels)

    def stored(self, rows: Sequence[Example]) -> pa.Array:
        spans = [[{"start": span.start, "end": span.end, "type": escape(span.type)} for span in row.spans] for row in rows]
        return pa.array(spans, self.schema.field("spans").type)

    def encode(self, texts: Sequence[Content], source: pa.Array, tokenizer: PreTrainedTokenizerBase, round: int) -> Encoded:
        if source.null_count:
            raise StoreError(f"a row of round {round} has no spans, not even none; the samples table was changed")
        rows = [_spans(row) for row in source.to_pylist()]
        for type in (span.type for row in rows for span in row):
            if type not in self._types:
                raise _unknown("type", type, round)
        found = tokenise_counting(tokenizer, texts, with_places=True)
        taggings = [to_tags(row, places, self._types) for row, places in zip(rows, found.places, strict=True)]
        columns = {
            "label": pa.array([self._types.index(row[0].type) if row else len(self._types) for row in rows], pa.int32()),
            "tokens": pa.array(found.tokens, pa.list_(pa.int32())),
            "spans": source,
            "tags": pa.array([tagging.tags for tagging in taggings], pa.list_(pa.int32())),
            "places": pa.array([places.ravel() for places in found.places], pa.list_(pa.int32())),
        }
        return Encoded(columns, found.num_cut, taggings)

    def examples(self, rows: pa.Table) -> list[Example]:
        texts, spans = (rows.column(name).to_pylist() for name in ("text", "spans"))
        return [Example(text, "", _spans(row)) for text, row in zip(texts, spans, strict=True)]


def _spans(row: Sequence[dict[str, Any]]) -> tuple[Span, ...]:
    return tuple(Span(span["start"], span["end"], unescape(span["type"])) for span in row)


def _unknown(what: str, name: str, round: int) -> StoreError:
    return StoreError(f"a row of round {round} has the {what} {name!r}, which is none of the task's; the samples table was changed")


ROW_COLUMNS: dict[TaskKind, type[RowColumns]] = {
    "classification": LabelColumns,
    "multi_label": SetColumns,
    "ner": SpanColumns,
    "pair": PairColumns,
}
"""By the kind of task."""
