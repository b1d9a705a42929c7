"""Writes a run's rows as a dataset folder: data files and their card, complete or not there at all.

While it reads, the run's tables may grow but are not compacted or pruned; it sees what was committed when it began.
"""

# pyright: reportUnknownParameterType=false
# (pyarrow's classes have no type stubs, so that naming them says something to readers only)

from __future__ import annotations

import importlib.metadata
import re
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from engine.errors import StoreError, UserError
from engine.export.card import Facts, Split, render_card
from engine.export.place import check_target, new_folder
from engine.export.rows import RowSource, open_rows, schema
from engine.export.shards import Format, write_shards
from engine.records import RoundRecord, TaskKind
from engine.rundir import RunDir, read_json, write_atomically
from engine.runs.manifest import Manifest
from engine.runs.purpose import is_done
from engine.runs.retention import Part, Use, freed_parts, require
from engine.store import SCHEMAS, read_rounds
from engine.store.segments import read_table

_LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]*")
_LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]+)*")


@dataclass(frozen=True, slots=True)
class Options:
    """What to write."""

    format: Format = "parquet"
    where: str | None = None
    """A condition in SQL over the columns of samples; None takes all rows."""
    with_rejections: bool = False
    """Write the refused rows too, as a configuration of their own; `where` is not about them."""
    with_unfinished: bool = False
    """Take rows of a round in progress."""
    license: str | None = None
    """As the hub names it, e.g. `cc-by-4.0`."""
    languages: tuple[str, ...] = ()
    """Codes, e.g. `en`."""
    overwrite: bool = False
    """Replace an earlier export."""


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written."""

    folder: str
    files: tuple[str, ...]
    """Relative to the folder."""
    rows: int
    rejections: int
    rounds: int
    """Completed ones."""
    classes: dict[str, int]
    """Rows by label, of which a row may have several; where entities are marked, entities by type."""
    num_bytes: int


def export(run: RunDir, folder: Path, options: Options | None = None) -> Exported:
    """UserError if nothing can be written from this run, to this folder, or with these options; StoreError if a disk refuses. Either way
    no folder is left.
    """
    options = options or Options()
    require(run, Use.EXPORT)
    if options.with_rejections:
        require(run, Use.EXPORT_REJECTIONS)
    _check(options)
    check_target(folder, overwrite=options.overwrite)
    with _undisturbed(run), new_folder(folder, overwrite=options.overwrite) as new:
        spill = new / ".spill"
        rounds = read_rounds(run)
        manifest = read_json(run.run_json, Manifest)
        kind: TaskKind = manifest.config["task"]["kind"]
        last_round = None if options.with_unfinished else max((record.round for record in rounds), default=0)
        with open_rows(run, kind, spill, last_round, options.where) as source:
            counts, columns = _Counts(), schema("samples", kind)
            batches = _counted(source.batches("samples"), counts, _COUNTED[kind])
            files = write_shards(new / "data", "train", columns, batches, options.format)
            if not files:
                raise UserError(_nothing(run, len(rounds), options))
            splits = [Split("default", "data/train-*", columns, counts.rows)]
            if options.with_rejections and (split := _write_rejections(source, kind, new, options.format)) is not None:
                splits.append(split)
            facts = _facts(run, manifest, rounds, source, options, splits, counts.values)
        _remove_spill(spill)
        write_atomically(new / "README.md", render_card(facts).encode(errors="replace"))
        written = sorted(path for path in new.rglob("*") if path.is_file())
        return Exported(
            folder=str(folder),
            files=tuple(str(path.relative_to(new)) for path in written),
            rows=counts.rows,
            rejections=sum(split.num_rows for split in splits[1:]),
            rounds=len(rounds),
            classes=dict(counts.values),
            num_bytes=sum(path.stat().st_size for path in written),
        )


def _check(options: Options) -> None:
    if options.license is not None and not _LICENSE.fullmatch(options.license):
        raise UserError(
            f"{options.license!r} is no name of a licence; expected one as the hub writes it, e.g. cc-by-4.0, apache-2.0 or other"
        )
    if wrong := [language for language in options.languages if not _LANGUAGE.fullmatch(language)]:
        raise UserError(f"{wrong[0]!r} is no code of a language; expected one such as en or pt-BR")


def _nothing(run: RunDir, num_rounds: int, options: Options) -> str:
    if options.where is not None:
        return f"no row of {run.root} fulfils --where {options.where!r}; nothing was written"
    if num_rounds == 0 and not options.with_unfinished:
        return f"{run.root} has completed no round yet; --with-unfinished takes the rows that are there"
    return f"{run.root} has no accepted rows; nothing was written"


def _write_rejections(source: RowSource, kind: TaskKind, folder: Path, format: Format) -> Split | None:
    """None if there are none."""
    counts, columns = _Counts(), schema("rejections", kind)
    batches = _counted(source.batches("rejections"), counts, _reasons)
    files = write_shards(folder / "rejections", "train", columns, batches, format)
    return Split("rejections", "rejections/train-*", columns, counts.rows) if files else None


def _reasons(batch: pa.RecordBatch) -> pa.Array:
    return batch.column("reason")


def _labels(batch: pa.RecordBatch) -> pa.Array:
    return batch.column("label")


def _types(batch: pa.RecordBatch) -> pa.Array:
    """Of all entities in the batch."""
    return batch.column("spans").flatten().field("type")


def _every_label(batch: pa.RecordBatch) -> pa.Array:
    return batch.column("labels").flatten()


_COUNTED: Mapping[TaskKind, Callable[[pa.RecordBatch], pa.Array]] = {
    "classification": _labels,
    "multi_label": _every_label,
    "ner": _types,
    "pair": _labels,
}


@dataclass(slots=True)
class _Counts:
    """What has been written so far."""

    rows: int = 0
    values: Counter[str] = field(default_factory=Counter[str])


def _counted(batches: Iterable[pa.RecordBatch], counts: _Counts, values: Callable[[pa.RecordBatch], pa.Array]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        counts.rows += batch.num_rows
        for found in pc.call_function("value_counts", [values(batch)]).to_pylist():
            counts.values[found["values"]] += found["counts"]
        yield batch


def _facts(
    run: RunDir,
    manifest: Manifest,
    rounds: Sequence[RoundRecord],
    source: RowSource,
    options: Options,
    splits: list[Split],
    classes: Counter[str],
) -> Facts:
    evaluations = read_table(run.table("evaluations"), SCHEMAS["evaluations"], columns=["round", "split", "macro_f1"]).to_pylist()
    scores = {split: {row["round"]: row["macro_f1"] for row in evaluations if row["split"] == split} for split in ("validation", "test")}
    return Facts(
        manifest=manifest,
        splits=splits,
        classes=classes,
        rounds=rounds,
        scores=scores["validation"],
        tests=dict(sorted(scores["test"].items())) if run.summary.exists() else {},
        rejections=None if Part.REJECTIONS in freed_parts(run) else source.count("rejections", "reason"),
        makers=source.count("samples", "strategy", "template", "teacher"),
        where=options.where,
        is_finished=is_done(run),
        has_student=not run.purpose.exists(),
        has_unfinished=options.with_unfinished and not run.finish.exists(),
        license=options.license,
        languages=options.languages,
        version=importlib.metadata.version("reflux"),
    )


def _remove_spill(folder: Path) -> None:
    """DuckDB empties it, and leaves the folder."""
    if folder.exists():
        folder.rmdir()


@contextmanager
def _undisturbed(run: RunDir) -> Generator[None]:
    """Keeps compaction and pruning away, which would delete files that are being read."""
    with ExitStack() as stack:
        # A run that may only be read has no lock to take; nor can anybody here delete from it.
        with suppress(StoreError):
            stack.enter_context(run.lock("compaction"))
        yield
