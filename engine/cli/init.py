"""The command that writes a task file: `init`. It asks what it is not told, and checks each answer by what `reflux run` reads it with."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import msgspec
import typer

from engine.api import check_teacher
from engine.cli.interview import Interview
from engine.cli.shell import Json, note, output, print_json
from engine.cli.teach import check_student
from engine.config import METHODS, UNFIT, StudentConfig, TeacherConfig, load_config, resolve_model
from engine.errors import UserError
from engine.records import Example, Label, TaskKind
from engine.rundir import write_atomically
from engine.task.column_guess import Guess, guess_columns
from engine.task.label_set_files import LabelSetColumns, read_label_names, read_set_examples
from engine.task.row_split import PartName, scarce_labels, split_rows
from engine.task.task import find_pool, labels_of, load_task, read_examples
from engine.task.task_file import TaskDraft, render_task_file
from engine.views.display import inert, plain_table

MOST_DESCRIBED = 40
"""Labels whose descriptions are asked for; more are left to be written into the file."""
FEW_ROWS = 5
"""Validation rows of a label below which its score is mostly luck."""
MOST_LABELS = 1000
"""More are no labels, but another column."""
SMALL_ENCODER: Mapping[str, int | float] = {
    "batch_size": 32,
    "epochs": 3,
    "patience": 2,
    "min_steps": 12,
    "learning_rate": 1e-4,
    "head_learning_rate": 1e-2,
}
"""As in the quickstart, for MiniLM. By the published settings it has hardly begun to learn after thirty epochs of a few rows."""
PARTS: tuple[PartName, ...] = ("seed", "validation", "test")
METHOD_WORDS = {
    "hybrid": "the student's weaknesses steer the teacher; texts are labelled in a request of their own",
    "pgkd": "the student's report and hard rows steer the teacher, as published",
    "evokd": "the teacher analyses the student's mistakes, then writes, then labels, as published",
    "llm2llm": "variants of the rows that the student gets wrong",
    "pool": "active learning: the teacher labels your own unlabelled texts (--pool)",
    "attrprompt": "varied rows of each label, without looking at the student",
    "zerogen": "rows of each label, without looking at the student",
    "unguided": "the control of pgkd: its prompt without the student",
    "auggpt": "your rows in other words",
    "eda": "your rows with words dropped and swapped, without a teacher",
    "seed_only": "no teacher rows: what your rows alone are worth",
}


Files: TypeAlias = Mapping[PartName, Path]


@dataclass(frozen=True, slots=True)
class _Told:
    """What flags say of the columns; None of what they leave open."""

    kind: TaskKind | None
    text: str | None
    text_pair: str | None
    label: str | None
    separator: str | None


@dataclass(frozen=True, slots=True)
class _Layout:
    """How the user's files are read."""

    kind: TaskKind
    text: str
    text_pair: str | None
    label: str
    separator: str

    @property
    def keys(self) -> dict[str, str]:
        """Of DataConfig."""
        second = {} if self.text_pair is None else {"text_pair_column": self.text_pair}
        if self.kind != "multi_label":
            return {"text_column": self.text, **second, "label_column": self.label}
        separator = {} if self.separator == "|" else {"label_separator": self.separator}
        return {"text_column": self.text, "labels_column": self.label, **separator}

    def read(self, path: Path, names: Sequence[str] | None = None) -> list[Example]:
        """`names`: labels that may occur; None takes any."""
        if self.kind != "multi_label":
            return read_examples(path, self.text, self.label, names, text_pair_column=self.text_pair)
        columns = LabelSetColumns(self.text, self.label, self.separator)
        return read_set_examples(path, columns, read_label_names(path, columns) if names is None else names)

    def line(self, row: Example) -> dict[str, object]:
        """The row as a file has it that is read so."""
        second = {} if self.text_pair is None else {self.text_pair: row.text_pair}
        return {self.text: row.text, **second, self.label: row.labels if self.kind == "multi_label" else row.label}


@dataclass(frozen=True, slots=True)
class Rows:
    """The user's labelled rows, as the task file will name them."""

    layout: _Layout
    label_names: tuple[str, ...]
    files: Files
    """Where each part is read from; the seed's is the file that was given."""
    parts: Mapping[PartName, tuple[Example, ...]]
    cut: frozenset[PartName]
    """Parts that are cut out of the file that was given, and written beside the task file."""
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Written:
    """What `reflux init` has made."""

    file: str
    labels: int
    rows: dict[PartName, int]
    files: tuple[str, ...]
    """Parts of the data that were written beside the file."""
    notes: tuple[str, ...]
    next: str
    """The command that goes on."""


def init(
    file: Annotated[Path, typer.Argument(help="The task file to write.", metavar="FILE")] = Path("task.toml"),
    domain: Annotated[str | None, typer.Option(help="What the texts are, in a phrase; of pairs, what both are.")] = None,
    kind: Annotated[
        Literal["classification", "multi_label", "pair"] | None,
        typer.Option(help="One label a text, any number of them, or one label for two texts together; by the columns if not given."),
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Your labelled rows: .csv, .jsonl, .parquet, or the folder of a dataset.")] = None,
    validation: Annotated[Path | None, typer.Option(help="Labelled rows that score the student; cut out of --data if not given.")] = None,
    test: Annotated[Path | None, typer.Option(help="Labelled rows for the end; cut out of --data if not given.")] = None,
    pool: Annotated[Path | None, typer.Option(help="Texts without labels, if you have any.")] = None,
    text_column: Annotated[str | None, typer.Option(help="Column of the texts; guessed if not given.", metavar="NAME")] = None,
    text_pair_column: Annotated[
        str | None, typer.Option(help="Column of the second texts, where rows are pairs; guessed if not given.", metavar="NAME")
    ] = None,
    label_column: Annotated[str | None, typer.Option(help="Column of the labels; guessed if not given.", metavar="NAME")] = None,
    label_separator: Annotated[
        str | None, typer.Option(help="What stands between the labels of a row that are one string; | if not given.", metavar="TEXT")
    ] = None,
    describe: Annotated[
        list[str] | None, typer.Option(help="What belongs to a label, for the teacher; may be repeated.", metavar="LABEL=TEXT")
    ] = None,
    teacher: Annotated[str | None, typer.Option(help="Folder of a model, or its id on a hub.", metavar="MODEL")] = None,
    endpoint: Annotated[list[str] | None, typer.Option(help="A server that runs already and serves the teacher.", metavar="URL")] = None,
    encoder: Annotated[
        str | None, typer.Option(help="The student: minilm, a folder, or the id of an encoder on a hub.", metavar="MODEL")
    ] = None,
    method: Annotated[str | None, typer.Option(help=f"One of {', '.join(METHODS)}.", metavar="METHOD")] = None,
    rows_per_round: Annotated[int | None, typer.Option(min=1, help="Rows that the teacher is asked for in a round.")] = None,
    name: Annotated[str | None, typer.Option(help="Of the run; that of FILE if not given.", metavar="NAME")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of all random choices, the split of the data among them.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Write over what is there.")] = False,
    as_json: Json = False,
) -> None:
    """Write a task file for your own data: asks what no flag says, checks it, and splits one file of rows into the three that are needed.

    Example: reflux init shop.toml --data rows.csv --domain "messages to a shop" --teacher ./Qwen3-0.6B
    """
    interview = Interview.here()
    interview.require({"--domain": domain, "--data": data, "--teacher": teacher})
    place = _Place(file, force)
    place.check()
    phrase = interview.ask("--domain", domain, 'What are the texts, in a phrase? E.g. "messages to the help desk of a shop"', _phrase)
    told = _Told(kind, text_column, text_pair_column, label_column, label_separator)
    rows = _rows(interview, data, {"validation": validation, "test": test}, told, seed)
    descriptions = _descriptions(interview, rows, describe or [])
    keys = _data_keys(place, rows, pool)
    model = interview.ask("--teacher", teacher, "The teacher: folder of a model, or its id on a hub", lambda said: _teacher(said, endpoint))
    student = interview.ask("--encoder", encoder, "The student: minilm, the folder of an encoder, or its id on a hub", _encoder, "minilm")
    strategy = _strategy(interview, method, rows_per_round, rows.layout.kind, has_pool=pool is not None)
    draft = TaskDraft(
        name=_run_name(name or file.stem),
        seed=seed,
        domain=phrase,
        labels=tuple(Label(label, descriptions.get(label, "")) for label in rows.label_names),
        data=keys,
        teacher={"model": place.model(model), **({"endpoint": endpoint} if endpoint else {})},
        strategy=strategy,
        student={"encoder": place.model(student), **(SMALL_ENCODER if student == "minilm" else {})},
        kind=rows.layout.kind,
    )
    files = place.write(draft, rows)
    notes = rows.notes
    if undescribed := sum(not label.description for label in draft.labels):
        notes += (f"{undescribed} of {len(draft.labels)} labels have no description yet; one sentence each helps the teacher",)
    counts = {part: len(examples) for part, examples in rows.parts.items()}
    written = Written(str(file), len(draft.labels), counts, files, notes, f"reflux run {shlex.quote(str(file))}")
    if as_json:
        print_json(written)
    else:
        _tell(written, rows)


def _layout(interview: Interview, path: Path, guess: Guess, told: _Told) -> _Layout:
    """What was given, or seems clear, or is asked for. UserError for flags that contradict each other."""
    kind = _kind(interview, guess, told)
    if kind != "pair" and told.text_pair is not None:
        raise UserError(f"--text-pair-column {told.text_pair}: only pairs have a second text; leave it out, or give --kind pair")
    if kind != "multi_label" and told.separator is not None:
        raise UserError(f"--label-separator {told.separator}: only rows with several labels have one; leave it out, or --kind multi_label")
    first, second = guess.text, None
    if kind == "pair":
        first, second = guess.pair or (guess.text, None)
        if told.text is not None and told.text != first:
            first, second = told.text, None
    text = _column(interview, "--text-column", told.text, "first texts" if kind == "pair" else "texts", first, guess)
    text_pair = _column(interview, "--text-pair-column", told.text_pair, "second texts", second, guess) if kind == "pair" else None
    label = _column(interview, "--label-column", told.label, "labels", guess.label, guess)
    held = [column for column in (text, text_pair, label) if column is not None]
    if twice := next((column for column in held if held.count(column) > 1), None):
        raise UserError(f"{path}: the column {twice!r} cannot hold two things; name another for one of them")
    columns = f"texts in the column {text!r}" if text_pair is None else f"pairs of texts in the columns {text!r} and {text_pair!r}"
    note(f"{path}: {columns}, labels in {label!r}")
    return _Layout(kind, text, text_pair, label, told.separator or "|")


def _kind(interview: Interview, guess: Guess, told: _Told) -> TaskKind:
    """Only somebody who is there to be asked decides between texts and pairs where nothing was said."""
    if told.kind is not None:
        return told.kind
    if told.text_pair is not None:
        return "pair"
    if (told.label or guess.label) in guess.lists:
        return "multi_label"
    if guess.pair is None or not interview.has_listener:
        return "classification"
    question = f"Is the label of {guess.pair[0]} and {guess.pair[1]} together (pair), or of one text (classification)?"
    return interview.ask("--kind", None, question, _known_kind, "pair")


def _known_kind(answer: str) -> TaskKind:
    kinds: dict[str, TaskKind] = {"pair": "pair", "classification": "classification"}
    if answer not in kinds:
        raise UserError("pair or classification is needed")
    return kinds[answer]


def _rows(interview: Interview, data: Path | None, held_out: Mapping[PartName, Path | None], told: _Told, seed: int) -> Rows:
    """Read what was given; cut out of it what was not."""
    path, guess = interview.ask("--data", data and str(data), "Your labelled rows: a .csv, .jsonl or .parquet file", _guessed)
    layout = _layout(interview, path, guess, told)
    examples = layout.read(path)
    names = tuple(sorted({label for example in examples for label in labels_of(example)}))
    fewest = 1 if layout.kind == "multi_label" else 2
    if not names:
        raise UserError(f"{path}: no row has a label in the column {layout.label!r}; name another column with --label-column")
    if len(names) < fewest:
        raise UserError(
            f"{path}: all rows have the label {names[0]!r}; a student tells two labels or more apart. Add rows of another, or name another "
            "column with --label-column"
        )
    if len(names) > MOST_LABELS:
        raise UserError(
            f"{path}: the column {layout.label!r} has {len(names)} different values; expected {fewest} to {MOST_LABELS} labels. Name "
            "another column with --label-column"
        )
    _check_labels(path, layout.text, layout.label, names)
    files: dict[PartName, Path] = {"seed": path} | {part: file for part, file in held_out.items() if file is not None}
    parts: dict[PartName, tuple[Example, ...]] = {"seed": tuple(examples)}
    for part in ("validation", "test"):
        if part in files:
            parts[part] = tuple(layout.read(files[part], names))
    cut = frozenset[PartName]({"seed", "validation", "test"} - parts.keys())
    notes: list[str] = []
    if cut:
        cut |= {"seed"}
        split = split_rows(examples, cut, seed, apart_from=[row for part in parts if part != "seed" for row in parts[part]])
        parts |= split.rows
        if split.num_copies:
            notes.append(f"{split.num_copies} rows were left out of the split: their text was there already")
    if scarce := scarce_labels(parts["validation"], FEW_ROWS):
        notes.append(f"{len(scarce)} labels have fewer than {FEW_ROWS} validation rows, so that their scores are mostly luck")
    if all(name.lstrip("-").isdecimal() for name in names):
        notes.append("the labels are numbers: the teacher knows of them only what you describe")
    return Rows(layout, names, files, parts, cut, tuple(notes))


def _check_labels(path: Path, text_column: str, column: str, names: Sequence[str]) -> None:
    """UserError for labels that nobody means so."""
    if column in names and len(text_column.split()) > 2:
        raise UserError(f"{path}: {column!r} is the name of the column and one of its labels; does the file lack a first line with names?")
    alike: dict[str, list[str]] = {}
    for name in names:
        alike.setdefault(" ".join(name.casefold().split()), []).append(name)
    if same := next((found for found in alike.values() if len(found) > 1), None):
        raise UserError(f"{path}: labels that differ by spaces or capitals alone: {', '.join(map(repr, same))}; write each in one way")


def _guessed(answer: str) -> tuple[Path, Guess]:
    path = Path(answer).expanduser()
    if not answer:
        raise UserError("a file or folder is needed")
    return path, guess_columns(path)


def _column(interview: Interview, flag: str, given: str | None, holds: str, guessed: str | None, guess: Guess) -> str:
    """What was given, or seems clear, or is asked for."""
    return interview.ask(flag, given or guessed, f"Which column holds the {holds}? One of {', '.join(guess.names)}", str)


def _phrase(answer: str) -> str:
    if not 1 <= len(answer) <= 200:
        raise UserError("a phrase of 1 to 200 characters is needed")
    return answer


def _descriptions(interview: Interview, rows: Rows, given: Sequence[str]) -> dict[str, str]:
    """By label; those that are neither given nor answered are missing."""
    found: dict[str, str] = {}
    for said in given:
        label = max((name for name in rows.label_names if said.startswith(f"{name}=")), key=len, default=None)
        if label is None:
            raise UserError(f"--describe {said}: expected LABEL=TEXT with one of the labels {', '.join(rows.label_names[:10])}")
        found[label] = said[len(label) + 1 :].strip()
    if interview.has_listener and len(rows.label_names) <= MOST_DESCRIBED:
        note("What belongs to each label, and what does not? A sentence each; Enter leaves it to be written into the file.")
        for label in rows.label_names:
            if label not in found and (answer := interview.ask("--describe", None, f"  {label}", str)):
                found[label] = answer
    return found


def _data_keys(place: _Place, rows: Rows, pool: Path | None) -> dict[str, str | int]:
    files = {part: place.part(part) if part in rows.cut else rows.files[part] for part in PARTS}
    keys: dict[str, str | int] = {part: place.relative(path) for part, path in files.items()}
    if pool is not None:
        find_pool(pool, rows.layout.text, rows.layout.text_pair)
        keys["pool"] = place.relative(pool)
    return keys | rows.layout.keys


def _teacher(model: str, endpoint: Sequence[str] | None) -> str:
    """As it is found from here, if it is there."""
    if not model:
        raise UserError("the folder or id of a model is needed")
    config = TeacherConfig(model=resolve_model(model, Path.cwd()), endpoint=tuple(endpoint) if endpoint else None)
    check_teacher(config, note)
    return config.model


def _encoder(encoder: str) -> str:
    config = StudentConfig(encoder=resolve_model(encoder, Path.cwd()))
    check_student(config)
    return config.encoder


def _strategy(
    interview: Interview, method: str | None, rows_per_round: int | None, kind: TaskKind, *, has_pool: bool
) -> dict[str, str | int]:
    unfit = UNFIT.get(kind, {})
    if interview.has_listener and method is None:
        there = [(name, words) for name, words in METHOD_WORDS.items() if name not in unfit and (has_pool or name != "pool")]
        output.print(plain_table(("method", ""), there))

    def known(name: str) -> str:
        if name not in METHODS:
            raise UserError(f"no method {name!r}; there are {', '.join(METHODS)}")
        if name in unfit:
            raise UserError(f"the method {name} {unfit[name]}; choose another")
        if name == "pool" and not has_pool:
            raise UserError("the method pool labels texts of your own; give them with --pool")
        return name

    name = interview.ask("--method", method, "Method", known, "hybrid")
    field = METHODS[name].model_fields.get("rows_per_round")
    if field is None:
        return {"type": name}
    given = None if rows_per_round is None else str(rows_per_round)
    return {"type": name, "rows_per_round": interview.ask("--rows-per-round", given, "Rows a round", _count, str(field.default))}


def _count(answer: str) -> int:
    if not answer.isdecimal() or int(answer) < 1:
        raise UserError("a whole number from 1 on is needed")
    return int(answer)


def _run_name(wanted: str) -> str:
    """As a run may be called: `My task (2)` becomes `My-task-2`."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", wanted).strip("-._") or "task"


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the file is written, and parts of the data beside it."""

    file: Path
    may_replace: bool

    @property
    def _folder(self) -> Path:
        return self.file.resolve().parent

    def part(self, part: PartName) -> Path:
        return self._folder / f"{self.file.stem}-data" / f"{part}.jsonl"

    def check(self) -> None:
        if not self._folder.is_dir():
            raise UserError(f"{self.file}: there is no folder {self._folder}; make it first")
        taken = [path for path in (self.file, *map(self.part, PARTS)) if path.exists()]
        if taken and not self.may_replace:
            raise UserError(f"there already: {', '.join(map(str, taken))}; --force writes over that, or choose another FILE")

    def relative(self, path: Path) -> str:
        """To the file's folder; what lies far away is absolute."""
        relative = os.path.relpath(path.expanduser().absolute(), self._folder)
        return str(path.expanduser().absolute()) if relative.startswith("../../..") else relative

    def model(self, model: str) -> str:
        """A folder, which is absolute by now, as the file names it; an id as it is."""
        if not model.startswith("/"):
            return model
        relative = self.relative(Path(model))
        return relative if relative.startswith((".", "/")) else f"./{relative}"

    def write(self, draft: TaskDraft, rows: Rows) -> tuple[str, ...]:
        """The data first. The file gets its name when `reflux run` would take it; until then nothing is left of an attempt that fails."""
        parts = {self.part(part): rows.parts[part] for part in PARTS if part in rows.cut}
        temporary = self.file.with_name(f".{self.file.name}.tmp")
        new = [path for path in (*parts, temporary) if not path.exists()]
        try:
            for path, examples in parts.items():
                path.parent.mkdir(exist_ok=True)
                lines = [rows.layout.line(row) for row in examples]
                write_atomically(path, msgspec.json.Encoder().encode_lines(lines))
            write_atomically(temporary, render_task_file(draft).encode())
            config = load_config(temporary)
            load_task(config.task, config.seed)
            temporary.rename(self.file)
        except BaseException:
            for path in new:
                path.unlink(missing_ok=True)
            with suppress(OSError):
                self.part("seed").parent.rmdir()
            raise
        return tuple(map(str, parts))


def _tell(written: Written, rows: Rows) -> None:
    shown = [(part, count, str(rows.files.get(part, "")) if part not in rows.cut else "") for part, count in written.rows.items()]
    output.print(plain_table(("part", "rows", "from"), [(part, count, place or "cut from your file") for part, count, place in shown]))
    for text in written.notes:
        note(f"note: {text}")
    note(f"{written.file} is written, with {written.labels} labels; look it over. Next:")
    output.print(inert(written.next, max_chars=1000), soft_wrap=True)
