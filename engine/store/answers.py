"""The answers in the calls table, found by their request's id without being held in memory.

Knows where each call stands in the table, and keeps the row groups that were read last: a resumed round asks in about the order in which
it was written. Compaction keeps that order, so a place stays a place whatever files the rows are in.
"""

# pyright: reportUnknownParameterType=false
# (pyarrow's classes have no type stubs, so that naming them says something to readers only)

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import pyarrow as pa

from engine.errors import StoreError
from engine.store.ids import Ids
from engine.store.schemas import ANSWER_COLUMNS, SCHEMAS, Answered, unpack_answers
from engine.store.segments import Segment, committed, open_segment, read_table, retry_moved

_SCHEMA = SCHEMAS["calls"]
_MAX_ROW_GROUPS = 4
_MAX_ANSWERS = 256
"""One answer is asked for several times: by whoever replays it, and for each of its rows."""


class CommittedCalls:
    """Opening reads all ids (blocking). One thread adds; another may look up meanwhile."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ids = Ids()
        self._ids.add_column(read_table(folder, _SCHEMA, ["request_id"]).column(0))
        self._row_groups: list[tuple[Segment, int]] = []
        self._starts: list[int] = []
        """The place of each row group's first row."""
        self._num_rows = 0
        self._load = lru_cache(_MAX_ROW_GROUPS)(_read_row_group)
        self._answer = lru_cache(_MAX_ANSWERS)(self._read)

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._ids

    def add(self, request_ids: Sequence[str]) -> None:
        """After the rows were committed, in their order."""
        self._ids.add(request_ids)

    def find(self, request_id: str) -> Answered | None:
        """None if the call is not committed. Reads a row group (some ms) where none of the last ones has it."""
        place = self._ids.position(request_id)
        return None if place is None else self._answer(place)

    def _read(self, place: int) -> Answered:
        def read() -> Answered:
            if place >= self._num_rows:
                self._survey()
            index = bisect_right(self._starts, place) - 1
            try:
                rows = self._load(*self._row_groups[index])
            except FileNotFoundError:
                self._survey()
                raise
            return unpack_answers(rows.slice(place - self._starts[index], 1))[0]

        return retry_moved(read)

    def _survey(self) -> None:
        self._row_groups, self._starts, self._num_rows = [], [], 0
        for segment in committed(self._folder):
            with open_segment(segment, _SCHEMA) as file:
                for number in range(file.num_row_groups):
                    self._row_groups.append((segment, number))
                    self._starts.append(self._num_rows)
                    self._num_rows += file.metadata.row_group(number).num_rows


def _read_row_group(segment: Segment, number: int) -> pa.Table:
    with open_segment(segment, _SCHEMA) as file:
        try:
            return file.read_row_group(number, columns=[*ANSWER_COLUMNS])
        except (pa.ArrowException, OSError) as error:
            raise StoreError(f"cannot read {segment.path}: {error}") from error
