"""What students said of rows that they had not seen: a file for each round that predicted some, written once.

A round's file holds its new rows, and whichever earlier ones were predicted again then; of a row the latest prediction counts. Invariant:
memory holds the predictions of the students that had learned most, as many as a report draws from, so that a round costs what it adds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from engine.rundir import read_json, write_json
from engine.text import Content
from student.diagnosis import Mined


class MinedLog:
    """`num_right` and `num_wrong` are what a report wants of each kind."""

    def __init__(self, folder: Path, num_right: int, num_wrong: int) -> None:
        self._folder = folder
        self._kinds = {True: _Newest(num_right), False: _Newest(num_wrong)}

    def restore(self, round: int) -> None:
        """Take up what an earlier worker has written of rounds up to this one, and delete what it wrote of later ones: they are learned
        again, perhaps others of them at once.
        """
        for path in self._folder.glob("[0-9]*.json"):
            if int(path.stem) > round:
                path.unlink()
        for number, predictions in reversed([*self._files(round)]):
            self._take(number, predictions)

    def add(self, round: int, predictions: Sequence[Mined]) -> None:
        """All that a round predicted, at once; rounds come in order."""
        self._folder.mkdir(exist_ok=True)
        write_json(self._path(round), predictions)
        self._take(round, predictions)

    @property
    def newest(self) -> list[Mined]:
        """By the students that had learned most: at least as many of each kind as are wanted, where there are so many."""
        return [*self._kinds[True], *self._kinds[False]]

    def of(self, round: int) -> list[Mined]:
        """What was said of the rows of one round when they were new; none where it predicted none."""
        path = self._path(round)
        return [mined for mined in read_json(path, list[Mined]) if mined.round == round] if path.exists() else []

    def read(self, round: int, most: int) -> list[Mined]:
        """The latest prediction of each row, by the order of rounds up to this one; of the newest that come to `most` rows."""
        latest: dict[tuple[int, Content], Mined] = {}
        for _, predictions in self._files(round):
            for mined in reversed(predictions):
                latest.setdefault((mined.round, mined.row.content), mined)
            if len(latest) >= most:
                break
        return list(latest.values())[:most][::-1]

    def _files(self, round: int) -> Iterator[tuple[int, list[Mined]]]:
        """The newest first."""
        for number in range(round, -1, -1):
            # A round that predicted nothing, as where mining is not out of fold, has no file.
            if self._path(number).exists():
                yield number, read_json(self._path(number), list[Mined])

    def _take(self, round: int, predictions: Sequence[Mined]) -> None:
        for mined in predictions:
            if mined.round != round:
                for kind in self._kinds.values():
                    kind.discard(mined)
        for is_right, kind in self._kinds.items():
            kind.add([mined for mined in predictions if mined.is_right is is_right])

    def _path(self, round: int) -> Path:
        return self._folder / f"{round:04d}.json"


class _Newest:
    """Predictions of the students that had learned most, of as few of these as together made `count`."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._by_learned: dict[int, dict[tuple[int, Content], Mined]] = {}

    def __iter__(self) -> Iterator[Mined]:
        return (mined for group in self._by_learned.values() for mined in group.values())

    def add(self, predictions: Sequence[Mined]) -> None:
        for mined in predictions:
            self._by_learned.setdefault(mined.learned, {})[mined.round, mined.row.text] = mined
        num_rows = sum(map(len, self._by_learned.values()))
        for learned in sorted(self._by_learned):
            num_rows -= len(self._by_learned[learned])
            if num_rows < max(self._count, 1):
                return
            del self._by_learned[learned]

    def discard(self, mined: Mined) -> None:
        for group in self._by_learned.values():
            group.pop((mined.round, mined.row.content), None)
