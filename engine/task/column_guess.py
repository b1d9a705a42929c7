"""Which column of somebody's file holds the texts, or the two texts of a pair, and which the labels: by their names, and by what stands in
them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from engine.errors import UserError
from engine.task.row_files import Columns, candidate_columns, data_files, list_columns, read_batches

TEXT_NAMES = (
    *("text", "sentence", "utterance", "message", "query", "question", "content", "body", "review", "comment"),
    *("description", "document", "title", "input", "prompt"),
)  # fmt: skip
LABEL_NAMES = (
    *("label", "labels", "label_text", "label_name", "intent", "class", "category", "topic", "target", "sentiment", "tag", "type"),
    *("queue", "output", "y"),
)  # fmt: skip
"""As people call these columns, the likeliest first; upper and lower case are alike."""
PAIR_NAMES = (
    *(("text", "text_pair"), ("premise", "hypothesis"), ("sentence1", "sentence2"), ("question1", "question2"), ("text1", "text2")),
    *(("sentence_a", "sentence_b"), ("text_a", "text_b"), ("query", "passage"), ("query", "document"), ("question", "passage")),
    *(("question", "answer"), ("question", "sentence"), ("question", "context"), ("claim", "evidence"), ("text", "text2")),
)  # fmt: skip
"""The same of both columns of a pair."""
_LABEL_SHARE = 0.5
"""A column with more different values than this share of its rows names rows, not classes."""


@dataclass(frozen=True, slots=True)
class Guess:
    """What a file seems to hold; None where it could be one as well as another."""

    text: str | None
    label: str | None
    names: tuple[str, ...]
    """All columns that could be either."""
    pair: tuple[str, str] | None = None
    """The columns that seem to be both texts of a pair, if there are such."""
    lists: tuple[str, ...] = ()
    """Columns of lists, which could hold several labels a row."""


def guess_columns(path: Path) -> Guess:
    """Looks at the first some thousand rows of the file or folder. UserError if it cannot be read, or has no two such columns."""
    file = data_files(path)[0]
    names, lists = candidate_columns(file), list_columns(file)
    if not names or len(names) + len(lists) < 2:
        raise UserError(f"{path}: a column with texts and one with labels are needed; it has {', '.join(names) or 'none that could be'}")
    batch = next(iter(read_batches(file, Columns((), tuple(names)))), None)
    if batch is None:
        raise UserError(f"{path}: no rows; expected one at least, with a text and its label")
    values: dict[str, list[str]] = {name: [value for value in batch.column(name).to_pylist() if value] for name in names}
    text = _by_name(names, TEXT_NAMES) or _longest(values)
    rest = [name for name in names if name != text]
    label = _by_name([*rest, *lists], LABEL_NAMES) or _only_repeating({name: values[name] for name in rest})
    return Guess(text, label or (lists[0] if len(lists) == 1 else None), (*names, *lists), _pair(names), tuple(lists))


def _pair(names: list[str]) -> tuple[str, str] | None:
    found = {name.strip().lower(): name for name in reversed(names)}
    return next(((found[first], found[second]) for first, second in PAIR_NAMES if first in found and second in found), None)


def _by_name(names: list[str], known: tuple[str, ...]) -> str | None:
    found = {name.strip().lower(): name for name in reversed(names)}
    return next((found[name] for name in known if name in found), None)


def _longest(values: dict[str, list[str]]) -> str | None:
    """The column whose values have the most words, if there is one that has more than one word on average."""
    words = {name: sum(len(value.split()) for value in column) / len(column) for name, column in values.items() if column}
    best = max(words, key=lambda name: words[name], default=None)
    return best if best is not None and words[best] > 1.5 else None


def _only_repeating(values: dict[str, list[str]]) -> str | None:
    """The one column that has at least two values, and these many times; where no other is left, one with a single value."""
    if len(values) == 1 and all(len(set(column)) == 1 for column in values.values()):
        return next(iter(values))
    repeating = [name for name, column in values.items() if 2 <= len(Counter(column)) <= _LABEL_SHARE * len(column)]
    return repeating[0] if len(repeating) == 1 else None
