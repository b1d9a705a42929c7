"""What became of dead letters, counted by how they had ended."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

from engine.crew import Tally
from engine.records import RowCounts

Kind: TypeAlias = Literal["judged", "asked"]


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of dead letters that had ended in the same way."""

    kind: Kind
    ended: str
    """As what they had ended: the reason."""
    letters: int
    """Rows judged, or assignments asked."""
    rows: RowCounts
    """Of judged ones those that pass; the others stay what they are."""


@dataclass(slots=True)
class Fates:
    """While they are counted; `tally` has what is in the tables."""

    tally: Tally = field(default_factory=Tally)
    _fates: dict[tuple[Kind, str], Fate] = field(default_factory=dict[tuple[Kind, str], Fate])

    def add(self, kind: Kind, ended: str, letters: int, rows: RowCounts) -> None:
        fate = self._fates.get((kind, ended), Fate(kind, ended, 0, RowCounts()))
        self._fates[kind, ended] = replace(fate, letters=fate.letters + letters, rows=fate.rows + rows)

    def listed(self) -> tuple[Fate, ...]:
        """What was judged first, then what was asked; the most frequent first."""
        return tuple(sorted(self._fates.values(), key=lambda fate: (fate.kind != "judged", -fate.letters, fate.ended)))
