"""From the configuration's files to a TaskSpec: reads the real rows and checks them before anything starts.

What files may be is told in `engine.task.row_files`. Every mistake is a UserError that names file, row and what was expected.
"""

# pyright: reportUnknownParameterType=false
# (pyarrow's classes have no type stubs, so that naming them says something to readers only)

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from engine.config import TaskConfig
from engine.errors import UserError
from engine.records import ONE_LABEL, Example, Label, Pool, TaskSpec, as_example
from engine.task.label_set_files import LabelSetColumns, read_set_examples
from engine.task.row_files import Columns, count_rows, data_files, read_batches
from engine.task.span_files import SpanColumns, read_marked_examples
from engine.text import Content, joined, parts

_MAX_SHOWN = 5
"""Unknown labels or empty classes named in one message."""


def load_task(config: TaskConfig, seed: int) -> TaskSpec:
    """Read seed, validation and test rows; the same configuration and seed give the same TaskSpec. The pool is only looked at.

    Raises UserError for a missing or unreadable file, a row without text or label, or with entities marked wrongly, a label or type outside
    the taxonomy, or one without seed rows.
    """
    data = config.data
    names = [label.name for label in config.labels]
    seed_rows, validation, test = (read_rows(config, path) for path in (data.seed, data.validation, data.test))
    _require_every_label(seed_rows, names, data.seed, "entity type" if config.kind == "ner" else "label")
    if data.seed_rows_per_class is not None:
        seed_rows = (_draw if config.kind in ONE_LABEL else _draw_each)(seed_rows, names, data.seed_rows_per_class, seed)
    return TaskSpec(
        kind=config.kind,
        domain=config.domain,
        labels=tuple(Label(label.name, label.description) for label in config.labels),
        seed=tuple(seed_rows),
        validation=tuple(validation),
        test=tuple(test),
        pool=None if data.pool is None else find_pool(data.pool, data.text_column, config.text_pair_column),
        marking=config.marking,
        allow_none=config.allow_none,
    )


def read_rows(config: TaskConfig, path: Path) -> list[Example]:
    """Real rows of the task's kind; UserError as above."""
    data, names = config.data, dict.fromkeys(label.name for label in config.labels)
    if config.kind == "ner":
        return read_marked_examples(path, names, SpanColumns(data.text_column, data.spans_column, data.tokens_column, data.tags_column))
    if config.kind == "multi_label":
        columns = LabelSetColumns(data.text_column, data.labels_column, data.label_separator)
        return read_set_examples(path, columns, names, allow_none=config.allow_none)
    return read_examples(path, data.text_column, data.label_column, names, text_pair_column=config.text_pair_column)


def read_examples(
    path: Path,
    text_column: str = "text",
    label_column: str = "label",
    label_names: Collection[str] | None = None,
    *,
    text_pair_column: str | None = None,
) -> list[Example]:
    """Labelled rows; label ids become the names that the dataset gives them. `label_names`: those that may occur; None takes any.
    `text_pair_column`: of the second texts, where rows are pairs.
    """
    rows: list[Example] = []
    columns = Columns(_text_columns(text_column, text_pair_column), (label_column,))
    for file in data_files(path):
        found = (row for batch in read_batches(file, columns) for row in zip(*map(_values, batch.columns), strict=True))
        for number, (*texts, label) in enumerate(found, start=1):
            for column, text in zip(columns.texts, texts, strict=True):
                if not text or not text.strip():
                    raise UserError(f"{file}: row {number} has no {_missing(column, text_pair_column)}")
            if not label:
                raise UserError(f"{file}: row {number} has no label; give it one, or leave the row out")
            if label_names is not None and label not in label_names:
                raise UserError(
                    f"{file}: row {number} has the unknown label {label!r}; the task's labels are {_shown(label_names)}. Correct the row "
                    "or leave it out; a further label needs rows in the seed, too, from which the student learns it"
                )
            rows.append(as_example(joined([*map(str, texts)]), label))
    if not rows:
        raise UserError(f"{path}: no rows; expected one at least, with a text and its label")
    return rows


def _text_columns(text_column: str, text_pair_column: str | None) -> tuple[str, ...]:
    return (text_column,) if text_pair_column is None else (text_column, text_pair_column)


def _missing(column: str, text_pair_column: str | None) -> str:
    """In words, what an empty cell of this column lacks."""
    if column == text_pair_column:
        return f"second text (column {column!r}); each row of a task of pairs has two"
    return "text; give it one, or leave the row out"


def read_contents(path: Path, text_column: str, text_pair_column: str | None = None) -> Iterator[list[Content]]:
    """The texts of a file, or its pairs, in their order, some thousands at a time; a null is an empty text."""
    columns = Columns(_text_columns(text_column, text_pair_column))
    for file in data_files(path):
        for batch in read_batches(file, columns):
            columns_here = ([text or "" for text in column.to_pylist()] for column in batch.columns)
            yield [*map(joined, zip(*columns_here, strict=True))]


def find_pool(path: Path, text_column: str, text_pair_column: str | None = None) -> Pool:
    """Look whether the pool is there, has texts, and how many. It is not loaded: memory holds one batch of it at a time."""
    columns = Columns(_text_columns(text_column, text_pair_column))
    pool = Pool(str(path), text_column, sum(count_rows(file, columns) for file in data_files(path)), text_pair_column)
    if not any(all(map(str.strip, parts(content))) for contents in pool_texts(pool) for content in contents):
        what = f"no texts in the column {text_column!r}; expected a real text a row"
        if text_pair_column is not None:
            what = f"no row with texts in the columns {text_column!r} and {text_pair_column!r}; expected a real pair of texts a row"
        raise UserError(f"{path}: {what}")
    return pool


def pool_texts(pool: Pool) -> Iterator[list[Content]]:
    """As `read_contents`."""
    return read_contents(Path(pool.path), pool.text_column, pool.text_pair_column)


def draw_texts(pool: Pool, count: int, seed: int) -> list[Content]:
    """So many texts of the pool, or all, in an order drawn by the seed; in memory are no more."""
    places = random.Random(f"{seed} pool").sample(range(pool.num_rows), min(count, pool.num_rows))
    wanted = set(places)
    found: dict[int, Content] = {}
    place = 0
    for texts in pool_texts(pool):
        found.update((place + offset, text) for offset, text in enumerate(texts) if place + offset in wanted)
        place += len(texts)
    return [found[place] for place in places if place in found]


def _values(column: pa.Array) -> list[str | None]:
    return column.to_pylist()


def _shown(names: Collection[str]) -> str:
    return ", ".join([*names][:_MAX_SHOWN]) + (" …" if len(names) > _MAX_SHOWN else "")


def labels_of(row: Example) -> tuple[str, ...]:
    """Its label or labels, or the types of its entities, one for each."""
    return (row.label,) if row.label else row.labels or tuple(span.type for span in row.spans)


def _require_every_label(rows: list[Example], names: list[str], path: Path, what: str) -> None:
    there = {label for row in rows for label in labels_of(row)}
    empty = [name for name in names if name not in there]
    if empty:
        shown = ", ".join(empty[:_MAX_SHOWN])
        raise UserError(f"{path}: no seed row for {len(empty)} of {len(names)} {what}s ({shown}); each {what} needs at least one")


def _draw(rows: list[Example], names: list[str], per_class: int, seed: int) -> list[Example]:
    by_label: defaultdict[str, list[Example]] = defaultdict(list)
    for row in rows:
        by_label[row.label].append(row)
    generator = random.Random(f"seed rows {seed}")
    return [row for name in names for row in generator.sample(by_label[name], min(per_class, len(by_label[name])))]


def _draw_each(rows: Sequence[Example], names: Sequence[str], per_name: int, seed: int) -> list[Example]:
    """Few rows in which each label or type occurs so often, as far as it does: drawn for the rarest first, as common ones come with others.
    As many have none, if there are such rows.
    """
    drawn = random.Random(f"seed rows {seed}").sample(rows, len(rows))
    total = Counter(label for row in rows for label in labels_of(row))
    chosen: dict[int, Example] = {}
    counts: Counter[str] = Counter()
    for name in sorted(names, key=lambda name: total[name]):
        for place, row in enumerate(drawn):
            if counts[name] >= per_name:
                break
            if place not in chosen and name in labels_of(row):
                chosen[place] = row
                counts.update(labels_of(row))
    without = [row for row in drawn if not labels_of(row)]
    return [*chosen.values(), *without[:per_name]]
