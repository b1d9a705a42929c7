"""Every row that the student may learn from, tokenised once: an Arrow file a round, memory-mapped. Where a task marks spans, the tags and
places of a row's tokens lie beside them.

Invariants: rows are numbered from 0 in the order seed, round 1, round 2, …, and within a round by their ids, whatever order they came in;
a file that has its name is complete. What a round costs is what it adds. The files are a cache: where they are of another tokenizer or
gone, they are made again from the tables.
"""

# pyright: reportUnknownParameterType=false
# (pyarrow's classes have no type stubs, so that naming them says something to readers only)

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from engine.errors import StoreError
from engine.records import Example, TaskKind
from engine.rundir import write_atomically
from engine.store import unescape
from engine.text import Content, joined, parts, readable
from student.data import Rows
from student.row_columns import ROW_COLUMNS
from student.tagging_losses import tagging_losses

_KEY = b"reflux.tokens"
"""Of a file's metadata: what the tokens depend on."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Part:
    """The rows of one file, as views of it."""

    first: int
    table: pa.Table
    lists: dict[str, tuple[NDArray[np.int32], NDArray[np.int32]]]
    """Columns of lists: their values, and where each row's end, behind a 0."""

    def slices(self, name: str, places: Sequence[int]) -> list[NDArray[np.int32]]:
        values, ends = self.lists[name]
        return [values[ends[place] : ends[place + 1]] for place in places]


class RowCache:
    """One a worker; `labels` are the task's, `kind` as in TaskSpec."""

    def __init__(
        self,
        folder: Path,
        tokenizer: PreTrainedTokenizerBase,
        labels: Sequence[str],
        kind: TaskKind = "classification",
        *,
        tells_apart: bool = False,
    ) -> None:
        """`tells_apart` as of Student."""
        self._folder = folder
        self._tokenizer = tokenizer
        self._tells_apart = tells_apart
        self._columns = ROW_COLUMNS[kind](labels)
        self._version = _version(tokenizer, labels)
        self._parts: list[_Part] = []
        self._firsts = np.zeros(0, np.int64)
        self.labels: NDArray[np.int32] = np.zeros(0, np.int32)
        """Of all rows, or the strata that they count for; so that a draw of some need not look at each."""

    def __len__(self) -> int:
        return len(self.labels)

    def restore(self, round: int) -> bool:
        """Map what an earlier worker has written of rounds up to this one; False, and nothing is mapped, where that is not all there."""
        for number in range(round + 1):
            if not self._map(number):
                self.clear()
                return False
        return True

    def clear(self) -> None:
        """Forget all rows, to be given them again from the seed on."""
        self._parts.clear()
        self._firsts, self.labels = np.zeros(0, np.int64), np.zeros(0, np.int32)

    def first_of(self, round: int) -> int:
        """The number of the round's first row."""
        return self._parts[round].first

    def add_seed(self, rows: Iterable[Example]) -> range:
        """Round 0; to be followed by the others in order."""
        rows = list(rows)
        return self._add(0, [row.content for row in rows], self._columns.stored(rows), {})

    def add_samples(self, round: int, samples: pa.Table) -> range:
        """Rows of the samples table, as the store gives them. The numbers they get. StoreError for a label or type outside the task."""
        samples = samples.sort_by([("round", "ascending"), ("id", "ascending")])
        columns = (map(unescape, self._strings(samples, name, round)) for name in self._columns.texts)
        texts = [*map(joined, zip(*columns, strict=True))]
        extras = {
            ours: samples.column(theirs).combine_chunks()
            for ours, theirs in (("weight", "agreement"), ("distribution", "label_probabilities"))
        }
        return self._add(round, texts, samples.column(self._columns.source).combine_chunks(), extras)

    def _strings(self, samples: pa.Table, name: str, round: int) -> list[str]:
        column = samples.column(name)
        if column.null_count:
            raise StoreError(f"a row of round {round} has no {name}; the samples table was changed")
        return column.to_pylist()

    def rows(self, numbers: Iterable[int]) -> Rows:
        tokens: list[NDArray[np.int32]] = []
        tags: list[NDArray[np.int32]] = []
        token_places: list[NDArray[np.int32]] = []
        weights: list[float | None] = []
        distributions: list[list[float] | None] = []
        firsts: list[int] = []
        numbers = np.fromiter(numbers, np.int64)
        for part, places in self._places(numbers):
            tokens += part.slices("tokens", places)
            if "tags" in part.lists:
                tags += part.slices("tags", places)
                token_places += [flat.reshape(-1, 2) for flat in part.slices("places", places)]
            if self._tells_apart:
                firsts += part.table.column("first").take(pa.array(places)).to_pylist()
            for name, values in (("weight", weights), ("distribution", distributions)):
                column = part.table.column(name)
                values += [None] * len(places) if column.null_count == len(column) else column.take(pa.array(places)).to_pylist()
        return Rows(
            tokens,
            self.labels[numbers].tolist(),
            None if _all_none(weights) else [1.0 if weight is None else weight for weight in weights],
            None if _all_none(distributions) else distributions,
            *((tags, token_places) if "tags" in self._columns.schema.names else (None, None)),
            firsts if self._tells_apart else None,
        )

    def examples(self, numbers: Iterable[int]) -> list[Example]:
        numbers = np.fromiter(numbers, np.int64)
        shown = [*dict.fromkeys((*self._columns.texts, "label", self._columns.source))]
        return [
            example
            for part, places in self._places(numbers)
            for example in self._columns.examples(part.table.select(shown).take(pa.array(places)))
        ]

    def _places(self, numbers: NDArray[np.int64]) -> Iterable[tuple[_Part, list[int]]]:
        """Runs of neighbours in one file, with their places in it."""
        if not len(numbers):
            return
        parts = np.searchsorted(self._firsts, numbers, side="right") - 1
        cuts = (np.diff(parts).nonzero()[0] + 1).tolist()
        for start, end in zip([0, *cuts], [*cuts, len(numbers)], strict=True):
            part = self._parts[int(parts[start])]
            yield part, (numbers[start:end] - part.first).tolist()

    def _add(self, round: int, texts: Sequence[Content], source: pa.Array, extras: dict[str, pa.Array]) -> range:
        encoded = self._columns.encode(texts, source, self._tokenizer, round)
        longest = self._tokenizer.model_max_length
        if encoded.num_cut:
            log.warning("round %d: %d of %d texts are longer than %d tokens and are cut there", round, encoded.num_cut, len(texts), longest)
        strings = [[readable(parts(text)[place]) for text in texts] for place in range(len(self._columns.texts))]
        for loss in tagging_losses(strings[0], encoded.taggings, longest):
            log.warning("round %d: %s", round, loss)
        kept = {name: pa.array(column, pa.string()) for name, column in zip(self._columns.texts, strings, strict=True)}
        columns = {**kept, **extras, **encoded.columns}
        schema = self._columns.schema
        arrays = [columns[field.name].cast(field.type) if field.name in columns else pa.nulls(len(texts), field.type) for field in schema]
        table = pa.Table.from_arrays(arrays, schema=schema.with_metadata({_KEY: self._version}))
        content = pa.BufferOutputStream()
        with pa.ipc.new_file(content, table.schema) as writer:
            writer.write_table(table)
        self._folder.mkdir(exist_ok=True)
        write_atomically(self._path(round), content.getvalue().to_pybytes())
        first = len(self)
        if not self._map(round):
            raise StoreError(f"{self._path(round)} cannot be read back")
        return range(first, len(self))

    def _map(self, round: int) -> bool:
        try:
            table = pa.ipc.open_file(pa.memory_map(str(self._path(round)))).read_all()
        except (pa.ArrowException, OSError):
            return False
        if (table.schema.metadata or {}).get(_KEY) != self._version or table.schema.names != self._columns.schema.names:
            return False
        lists = {name: _list_views(table.column(name)) for name in ("tokens", "tags", "places") if name in table.schema.names}
        self._parts.append(_Part(len(self), table, lists))
        self._firsts = np.append(self._firsts, len(self))
        self.labels = np.concatenate([self.labels, table.column("label").to_numpy()])
        return True

    def _path(self, round: int) -> Path:
        return self._folder / f"{round:04d}.arrow"


def _version(tokenizer: PreTrainedTokenizerBase, labels: Sequence[str]) -> bytes:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    vocabulary = repr(sorted(tokenizer.get_vocab().items())) if backend is None else backend.to_str()
    content = repr((vocabulary, tokenizer.model_max_length, tuple(labels)))
    return hashlib.sha256(content.encode()).hexdigest().encode()


def _list_views(column: pa.ChunkedArray) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    lists = column.combine_chunks()
    # An empty table has no chunk, and its combination an offset or none.
    return lists.values.to_numpy(), lists.offsets.to_numpy() if len(lists) else np.zeros(1, np.int32)


def _all_none(values: Iterable[object]) -> bool:
    return all(value is None for value in values)
