"""Every row that the student may learn from, tokenised once: an Arrow file a round, memory-mapped.

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
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from engine.errors import StoreError
from engine.records import Example
from engine.rundir import write_atomically
from engine.store import escape, unescape
from engine.text import readable
from student.data import Rows, tokenise_counting

_SCHEMA = pa.schema(
    [
        ("text", pa.string()),
        ("label", pa.int32()),
        ("tokens", pa.list_(pa.int32())),
        ("weight", pa.float32()),
        ("distribution", pa.list_(pa.float32())),
    ]
)
_KEY = b"reflux.tokens"
"""Of a file's metadata: what the tokens depend on."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Part:
    """The rows of one file, as views of it."""

    first: int
    table: pa.Table
    tokens: NDArray[np.int32]
    ends: NDArray[np.int32]
    """Where each row's tokens end, behind a 0."""


class RowCache:
    """One a worker; `labels` are the task's, and a row's label is kept as its position there."""

    def __init__(self, folder: Path, tokenizer: PreTrainedTokenizerBase, labels: Sequence[str]) -> None:
        self._folder = folder
        self._tokenizer = tokenizer
        self._names = tuple(labels)
        self._stored_names = pa.array([escape(label) for label in labels], pa.string())
        self._version = _version(tokenizer, labels)
        self._parts: list[_Part] = []
        self._firsts = np.zeros(0, np.int64)
        self.labels: NDArray[np.int32] = np.zeros(0, np.int32)
        """Of all rows; so that a draw of some need not look at each."""

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
        return self._add(0, [row.text for row in rows], pa.array([escape(row.label) for row in rows], pa.string()), {})

    def add_samples(self, round: int, samples: pa.Table) -> range:
        """Rows of the samples table, as the store gives them. The numbers they get. StoreError for a label outside the task."""
        samples = samples.sort_by([("round", "ascending"), ("id", "ascending")])
        texts = [unescape(text) for text in samples.column("text").to_pylist()]
        extras = {
            ours: samples.column(theirs).combine_chunks()
            for ours, theirs in (("weight", "agreement"), ("distribution", "label_probabilities"))
        }
        return self._add(round, texts, samples.column("label").combine_chunks(), extras)

    def rows(self, numbers: Iterable[int]) -> Rows:
        tokens: list[NDArray[np.int32]] = []
        weights: list[float | None] = []
        distributions: list[list[float] | None] = []
        numbers = np.fromiter(numbers, np.int64)
        for part, places in self._places(numbers):
            tokens += [part.tokens[part.ends[place] : part.ends[place + 1]] for place in places]
            for name, values in (("weight", weights), ("distribution", distributions)):
                column = part.table.column(name)
                values += [None] * len(places) if column.null_count == len(column) else column.take(pa.array(places)).to_pylist()
        return Rows(
            tokens,
            self.labels[numbers].tolist(),
            None if _all_none(weights) else [1.0 if weight is None else weight for weight in weights],
            None if _all_none(distributions) else distributions,
        )

    def examples(self, numbers: Iterable[int]) -> list[Example]:
        numbers = np.fromiter(numbers, np.int64)
        texts = [text for part, places in self._places(numbers) for text in part.table.column("text").take(pa.array(places)).to_pylist()]
        return [Example(text, self._names[label]) for text, label in zip(texts, self.labels[numbers].tolist(), strict=True)]

    def _places(self, numbers: NDArray[np.int64]) -> Iterable[tuple[_Part, list[int]]]:
        """Runs of neighbours in one file, with their places in it."""
        if not len(numbers):
            return
        parts = np.searchsorted(self._firsts, numbers, side="right") - 1
        cuts = (np.diff(parts).nonzero()[0] + 1).tolist()
        for start, end in zip([0, *cuts], [*cuts, len(numbers)], strict=True):
            part = self._parts[int(parts[start])]
            yield part, (numbers[start:end] - part.first).tolist()

    def _add(self, round: int, texts: Sequence[str], labels: pa.Array, extras: dict[str, pa.Array]) -> range:
        texts = [readable(text) for text in texts]
        positions = pc.call_function("index_in", [labels], pc.SetLookupOptions(self._stored_names))
        if positions.null_count:
            unknown = labels.filter(positions.is_null())[0].as_py()
            raise StoreError(
                f"a row of round {round} has the label {unknown!r}, which is none of the task's; the samples table was changed"
            )
        tokens, num_cut = tokenise_counting(self._tokenizer, texts)
        if num_cut:
            longest = self._tokenizer.model_max_length
            log.warning("round %d: %d of %d texts are longer than %d tokens and are cut there", round, num_cut, len(texts), longest)
        columns: dict[str, Any] = {
            "text": pa.array(texts, pa.string()),
            "label": positions,
            "tokens": pa.array(tokens, pa.list_(pa.int32())),
            **extras,
        }
        arrays = [columns[field.name].cast(field.type) if field.name in columns else pa.nulls(len(texts), field.type) for field in _SCHEMA]
        table = pa.Table.from_arrays(arrays, schema=_SCHEMA.with_metadata({_KEY: self._version}))
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
        if (table.schema.metadata or {}).get(_KEY) != self._version or table.schema.names != _SCHEMA.names:
            return False
        lists = table.column("tokens").combine_chunks()
        # An empty table has no chunk, and its combination an offset or none.
        ends = lists.offsets.to_numpy() if len(lists) else np.zeros(1, np.int32)
        self._parts.append(_Part(len(self), table, lists.values.to_numpy(), ends))
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


def _all_none(values: Iterable[object]) -> bool:
    return all(value is None for value in values)
