"""One explicit Arrow schema a table, and the way from records to Arrow and back.

Nothing is inferred from rows. Each schema carries its table's name and version, and a segment of a version that cannot be read is refused,
not guessed at. What is packed comes back equal; `started_at` does to the microsecond. Strings are stored as `engine.store.text` says.
"""

# pyright: reportUnknownParameterType=false
# (pyarrow's classes have no type stubs, so that naming them says something to readers only)

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from operator import attrgetter
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa

from engine.records import (
    Alternative,
    Annotation,
    Call,
    Completion,
    Failure,
    FailureReason,
    FinishReason,
    Message,
    Origin,
    Outcome,
    Rejection,
    RejectionReason,
    Request,
    RoundRecord,
    RowCounts,
    Sample,
    SamplingParams,
    Span,
    Timings,
    Usage,
)
from engine.reports import ClassScore, Scores
from engine.store.columns import Columns, array, lists, table, texts, values
from engine.store.text import escape, unescape

VERSION_KEY = b"reflux"
"""Of a schema's metadata: the table's name and the version of its columns."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One student on the rows of one split; `round` and `split` name it. A row of the evaluations table."""

    round: int
    split: str
    scores: Scores
    classes: tuple[ClassScore, ...]
    loss: float | None
    """Mean cross-entropy on the split; None where it was not computed."""
    num_train_rows: int
    train_s: float
    epochs: int


Ending: TypeAlias = RejectionReason | Literal["accepted"]
"""How a row ended: as a Sample, or as a Rejection for a reason."""


class Answered(NamedTuple):
    """What the calls table knows of one request."""

    outcome: Outcome
    endings: tuple[Ending | None, ...]
    """How each row of the reply ended, by its place there; None for a place that none ended at."""
    round: int


def _required(name: str, kind: pa.DataType) -> pa.Field:
    return pa.field(name, kind, nullable=False)


def _schema(table: str, version: int, fields: Iterable[pa.Field]) -> pa.Schema:
    return pa.schema(fields, metadata={VERSION_KEY: f"{table} {version}".encode()})


_TEXT, _INT, _FLOAT = pa.string(), pa.int64(), pa.float64()
_ROW_FIELDS = [_required(name, _TEXT) for name in ("id", "text", "label")]
_ORIGIN_FIELDS = [
    *(_required(name, _INT) for name in ("round", "report")),
    *(_required(name, _TEXT) for name in ("assignment", "weakness", "strategy", "template", "prompt_hash", "teacher", "request_id")),
    pa.field("replays", _TEXT),
]
_ROW_COUNT_FIELDS = [_required(f"rows_{name}", _INT) for name in ("requested", "accepted", "rejected", "failed", "surplus")]
_SCORE_FIELDS = [
    *(_required(name, _FLOAT) for name in ("accuracy", "macro_f1", "weighted_f1")),
    pa.field("mcc", _FLOAT),
    _required("num_rows", _INT),
]
_SPAN = pa.struct([_required("start", pa.int32()), _required("end", pa.int32()), _required("type", _TEXT)])
_ANNOTATION_FIELDS = [
    pa.field("spans", pa.list_(_required("item", _SPAN))),
    pa.field("agreement", _FLOAT),
    pa.field("label_probabilities", pa.list_(_required("item", pa.float32()))),
    pa.field("labels", pa.list_(_required("item", _TEXT))),
    pa.field("text_pair", _TEXT),
]
_MESSAGE = pa.struct([_required("role", _TEXT), _required("content", _TEXT)])
_MESSAGES = pa.list_(_required("item", _MESSAGE))
_ENDINGS = pa.list_(pa.field("item", _TEXT))
_LOGPROBS = pa.list_(_required("item", pa.list_(_required("item", pa.struct([_required("token", _TEXT), _required("logprob", _FLOAT)])))))
_CLASS_SCORE = pa.struct(
    [_required("label", _TEXT), *(_required(name, _FLOAT) for name in ("precision", "recall", "f1")), _required("support", _INT)]
)

SCHEMAS: Mapping[str, pa.Schema] = {
    "samples": _schema("samples", 5, [*_ROW_FIELDS, *_ORIGIN_FIELDS, *_ANNOTATION_FIELDS]),
    "rejections": _schema(
        "rejections",
        5,
        [*_ROW_FIELDS, *(_required(name, _TEXT) for name in ("reason", "detail", "raw")), *_ORIGIN_FIELDS, *_ANNOTATION_FIELDS],
    ),
    "calls": _schema(
        "calls",
        4,
        [
            *_ORIGIN_FIELDS,
            _required("model", _TEXT),
            *(_required(name, _FLOAT) for name in ("temperature", "top_p")),
            *(_required(name, _INT) for name in ("max_tokens", "seed")),
            pa.field("json_schema", _TEXT),
            pa.field("regex", _TEXT),
            pa.field("top_logprobs", _INT),
            _required("outcome", _TEXT),
            *(pa.field(name, _TEXT) for name in ("text", "finish_reason", "failure_reason", "failure_detail")),
            *(pa.field(name, _INT) for name in ("prompt_tokens", "completion_tokens")),
            _required("started_at", pa.timestamp("us", tz="UTC")),
            _required("latency_s", _FLOAT),
            _required("attempts", _INT),
            *_ROW_COUNT_FIELDS,
            _required("endings", _ENDINGS),
            pa.field("logprobs", _LOGPROBS),
        ],
    ),
    "prompts": _schema("prompts", 1, [_required("prompt_hash", _TEXT), _required("messages", _MESSAGES)]),
    "rounds": _schema(
        "rounds",
        2,
        [
            *(_required(name, _INT) for name in ("round", "report", "assignments", "calls")),
            *_ROW_COUNT_FIELDS,
            *(_required(name, _INT) for name in ("prompt_tokens", "completion_tokens")),
            _required("generation_s", _FLOAT),
            _required("blocks", pa.map_(_TEXT, _required("value", _INT))),
            _required("limited_s", pa.map_(_TEXT, _required("value", _FLOAT))),
            _required("peak_tokens_per_s", _FLOAT),
        ],
    ),
    "evaluations": _schema(
        "evaluations",
        2,
        [
            _required("round", _INT),
            _required("split", _TEXT),
            *_SCORE_FIELDS,
            pa.field("loss", _FLOAT),
            _required("num_train_rows", _INT),
            _required("train_s", _FLOAT),
            _required("epochs", _INT),
            _required("classes", pa.list_(_required("item", _CLASS_SCORE))),
        ],
    ),
}


_OLDEST_READ: Mapping[str, int] = {"samples": 1, "rejections": 1, "calls": 2, "evaluations": 1}
"""Versions since which a table has only got columns that may be null."""


def is_readable(schema: pa.Schema, found: bytes) -> bool:
    """Whether rows of the version that is named so can be read by this schema."""
    name, version = schema.metadata[VERSION_KEY].decode().split()
    found_name, _, found_version = found.decode(errors="replace").rpartition(" ")
    return found_name == name and found_version in map(str, range(_OLDEST_READ.get(name, int(version)), int(version) + 1))


def as_present(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """Rows of any version that can be read, with the columns of this one; what they do not have is null."""
    for field in schema:
        if field.name not in rows.column_names:
            rows = rows.append_column(field, pa.nulls(len(rows), field.type))
    return rows.select(schema.names).replace_schema_metadata(schema.metadata)


_ROW_VALUES: Mapping[str, tuple[str, ...]] = {
    "samples": ("id", "text", "label"),
    "rejections": ("id", "text", "label", "reason", "detail", "raw"),
}


class RowBuffer:
    """Samples, or rejections, that wait for their segment: their values end to end in one list.

    Python's garbage collector looks through all objects that stay, again and again; a list of records took a third of the store's time.
    One thread adds; another may pack and drop meanwhile.
    """

    def __init__(self, table: Literal["samples", "rejections"]) -> None:
        self.table = table
        self._names = (*_ROW_VALUES[table], "origin", "annotation")
        self._read = attrgetter(*self._names)
        self._values: list[Any] = []

    def __len__(self) -> int:
        return len(self._values) // len(self._names)

    def add(self, rows: Iterable[Sample] | Iterable[Rejection]) -> None:
        self._values += chain.from_iterable(map(self._read, rows))

    def pack(self, count: int) -> pa.Table:
        """The first rows."""
        width = len(self._names)
        columns = {name: self._values[place : count * width : width] for place, name in enumerate(self._names)}
        return table(SCHEMAS[self.table], {**columns, **_shared_origins(columns["origin"]), **_annotations(columns["annotation"])})

    def drop(self, count: int) -> None:
        del self._values[: count * len(self._names)]


def pack_samples(samples: Iterable[Sample]) -> pa.Table:
    return _pack_rows("samples", samples)


def unpack_samples(rows: pa.Table) -> list[Sample]:
    columns = (values(rows, name) for name in _ROW_VALUES["samples"])
    return [Sample(*row) for row in zip(*columns, _read_origins(rows), _read_annotations(rows), strict=True)]


def pack_rejections(rejections: Iterable[Rejection]) -> pa.Table:
    return _pack_rows("rejections", rejections)


def unpack_rejections(rows: pa.Table) -> list[Rejection]:
    ids, contents, labels, reasons, details, raws = (values(rows, name) for name in _ROW_VALUES["rejections"])
    parts = (map(RejectionReason, reasons), details, raws, contents, labels, _read_origins(rows), _read_annotations(rows))
    return [Rejection(*row) for row in zip(ids, *parts, strict=True)]


def _pack_rows(table: Literal["samples", "rejections"], rows: Iterable[Sample] | Iterable[Rejection]) -> pa.Table:
    buffer = RowBuffer(table)
    buffer.add(rows)
    return buffer.pack(len(buffer))


def pack_prompts(requests: Sequence[Request]) -> pa.Table:
    messages = [message for request in requests for message in request.messages]
    items = pa.StructArray.from_arrays(
        [texts([getattr(message, field.name) for message in messages]) for field in _MESSAGE], fields=[*_MESSAGE]
    )
    prompts = lists((request.messages for request in requests), _MESSAGES, items)
    return table(SCHEMAS["prompts"], {**_columns(requests, "prompt_hash"), "messages": prompts})


def unpack_prompts(rows: pa.Table) -> dict[str, tuple[Message, ...]]:
    """The messages of each prompt, by its hash."""
    return {
        prompt_hash: tuple(Message(message["role"], unescape(message["content"])) for message in messages)
        for prompt_hash, messages in zip(values(rows, "prompt_hash"), values(rows, "messages"), strict=True)
    }


def pack_calls(calls: Sequence[Call], endings: Sequence[Sequence[Ending | None]] | None = None) -> pa.Table:
    """`endings` of each call's rows, as in `Answered`; None where no call has rows."""
    origins, outcomes = [call.origin for call in calls], [call.outcome for call in calls]
    for call, origin, outcome in zip(calls, origins, outcomes, strict=True):
        assert origin.request_id == outcome.request_id, "a call and its answer are of one request"
        assert origin.prompt_hash == call.request.prompt_hash, "a call and its origin are of one prompt"
    samplings, timings = [call.request.sampling for call in calls], [outcome.timings for outcome in outcomes]
    endings = endings or [()] * len(calls)
    columns = {
        **_origins(origins),
        "model": [call.request.model for call in calls],
        "temperature": [sampling.temperature for sampling in samplings],
        "top_p": [sampling.top_p for sampling in samplings],
        "max_tokens": [sampling.max_tokens for sampling in samplings],
        "seed": [sampling.seed for sampling in samplings],
        "json_schema": [sampling.json_schema for sampling in samplings],
        "regex": [sampling.regex for sampling in samplings],
        "top_logprobs": [sampling.top_logprobs or None for sampling in samplings],
        **_outcomes(outcomes),
        "started_at": [round(timing.started_at * 1_000_000) for timing in timings],
        "latency_s": [timing.latency_s for timing in timings],
        "attempts": [timing.attempts for timing in timings],
        **_row_counts([call.rows for call in calls]),
        "endings": lists(endings, _ENDINGS, texts([ending for rows in endings for ending in rows])),
        "logprobs": _pack_logprobs(outcomes),
    }
    return table(SCHEMAS["calls"], columns)


def unpack_calls(rows: pa.Table, prompts: Mapping[str, tuple[Message, ...]]) -> list[Call]:
    """`prompts` has the messages of every prompt hash in the rows, as `unpack_prompts` gives them."""
    samplings = [
        SamplingParams(*row[:-1], top_logprobs=row[-1] or 0) for row in zip(*(values(rows, name) for name in _SAMPLING), strict=True)
    ]
    parts = zip(values(rows, "model"), values(rows, "prompt_hash"), samplings, strict=True)
    requests = [Request(model, prompts[prompt_hash], sampling) for model, prompt_hash, sampling in parts]
    outcomes = [answered.outcome for answered in unpack_answers(rows)]
    return [Call(*row) for row in zip(requests, _read_origins(rows), outcomes, _read_row_counts(rows), strict=True)]


def unpack_answers(rows: pa.Table) -> list[Answered]:
    """Of rows of the calls table that have the columns in `ANSWER_COLUMNS`; those of earlier versions may lack the later ones."""
    if missing := [name for name in ANSWER_COLUMNS if name not in rows.column_names]:
        for name in missing:
            rows = rows.append_column(SCHEMAS["calls"].field(name), pa.nulls(len(rows), SCHEMAS["calls"].field(name).type))
    return [
        _read_answer(dict(zip(ANSWER_COLUMNS, row, strict=True)))
        for row in zip(*(values(rows, name) for name in ANSWER_COLUMNS), strict=True)
    ]


def pack_rounds(rounds: Iterable[RoundRecord]) -> pa.Table:
    rounds = list(rounds)
    columns = {
        **_columns(rounds, "round", "report", "assignments", "calls"),
        **_columns(rounds, "prompt_tokens", "completion_tokens", "generation_s", "peak_tokens_per_s"),
        **_row_counts([record.rows for record in rounds]),
        "blocks": [[(escape(name), count) for name, count in record.blocks.items()] for record in rounds],
        "limited_s": [[(escape(name), seconds) for name, seconds in record.limited_s.items()] for record in rounds],
    }
    return table(SCHEMAS["rounds"], columns)


def unpack_rounds(rows: pa.Table) -> list[RoundRecord]:
    columns = {name: values(rows, name) for name in rows.column_names}
    return [
        RoundRecord(
            round=columns["round"][index],
            report=columns["report"][index],
            assignments=columns["assignments"][index],
            calls=columns["calls"][index],
            rows=counts,
            prompt_tokens=columns["prompt_tokens"][index],
            completion_tokens=columns["completion_tokens"][index],
            generation_s=columns["generation_s"][index],
            blocks={unescape(name): count for name, count in columns["blocks"][index]},
            limited_s={unescape(name): seconds for name, seconds in columns["limited_s"][index]},
            peak_tokens_per_s=columns["peak_tokens_per_s"][index],
        )
        for index, counts in enumerate(_read_row_counts(rows))
    ]


def pack_evaluations(evaluations: Iterable[Evaluation]) -> pa.Table:
    evaluations = list(evaluations)
    scores = ("label", "precision", "recall", "f1", "support")
    columns = {
        **_columns(evaluations, "round", "split", "loss", "num_train_rows", "train_s", "epochs"),
        **_columns([evaluation.scores for evaluation in evaluations], *(field.name for field in _SCORE_FIELDS)),
        "classes": [
            [{name: getattr(score, name) for name in scores} | {"label": escape(score.label)} for score in evaluation.classes]
            for evaluation in evaluations
        ],
    }
    return table(SCHEMAS["evaluations"], columns)


_SAMPLING = ("temperature", "top_p", "max_tokens", "seed", "json_schema", "regex", "top_logprobs")
_COMPLETED = ("text", "finish_reason", "prompt_tokens", "completion_tokens")
_FAILED = ("failure_reason", "failure_detail")
ANSWER_COLUMNS = ("request_id", "round", "outcome", *_COMPLETED, *_FAILED, "started_at", "latency_s", "attempts", "endings", "logprobs")


def _outcomes(outcomes: Sequence[Outcome]) -> Columns:
    completions = [outcome if isinstance(outcome, Completion) else None for outcome in outcomes]
    failures = [outcome if isinstance(outcome, Failure) else None for outcome in outcomes]
    return {
        "outcome": ["failed" if outcome is None else "completed" for outcome in completions],
        "text": [outcome and outcome.text for outcome in completions],
        "finish_reason": [outcome and outcome.finish_reason for outcome in completions],
        "prompt_tokens": [outcome and outcome.usage.prompt_tokens for outcome in completions],
        "completion_tokens": [outcome and outcome.usage.completion_tokens for outcome in completions],
        "failure_reason": [outcome and outcome.reason for outcome in failures],
        "failure_detail": [outcome and outcome.detail for outcome in failures],
    }


def _read_answer(row: Mapping[str, Any]) -> Answered:
    endings: tuple[Ending | None, ...] = tuple(_read_ending(ending) for ending in row["endings"])
    timings = Timings(row["started_at"] / 1_000_000, row["latency_s"], row["attempts"])
    if row["outcome"] == "failed":
        failure = Failure(row["request_id"], FailureReason(row["failure_reason"]), row["failure_detail"], timings)
        return Answered(failure, endings, row["round"])
    usage = Usage(row["prompt_tokens"], row["completion_tokens"])
    logprobs = _read_logprobs(row["logprobs"] or ())
    completion = Completion(row["request_id"], row["text"], FinishReason(row["finish_reason"]), usage, timings, logprobs)
    return Answered(completion, endings, row["round"])


def _pack_logprobs(outcomes: Sequence[Outcome]) -> pa.Array:
    found = [outcome.logprobs if isinstance(outcome, Completion) else () for outcome in outcomes]
    if not any(found):
        return pa.nulls(len(outcomes), _LOGPROBS)
    return pa.array(
        [
            [[{"token": escape(token), "logprob": logprob} for token, logprob in place] for place in logprobs] if logprobs else None
            for logprobs in found
        ],
        _LOGPROBS,
    )


def _read_logprobs(places: Iterable[Iterable[Mapping[str, Any]]]) -> tuple[tuple[Alternative, ...], ...]:
    return tuple(tuple(Alternative(unescape(other["token"]), other["logprob"]) for other in place) for place in places)


def _read_ending(ending: str | None) -> Ending | None:
    match ending:
        case None | "accepted":
            return ending
        case _:
            return RejectionReason(ending)


def _columns(rows: Sequence[object], *names: str) -> Columns:
    """Of attributes that are called like their columns."""
    return {name: list(map(attrgetter(name), rows)) for name in names}


def _origins(origins: Sequence[Origin]) -> Columns:
    return _columns(origins, *(field.name for field in _ORIGIN_FIELDS))


def _shared_origins(origins: Sequence[Origin]) -> Columns:
    """The rows of a call stand together and share theirs: it is packed once and repeated."""
    identities = np.fromiter(map(id, origins), np.int64, len(origins))
    is_first = np.diff(identities, prepend=-1) != 0
    shared = _origins([origins[place] for place in is_first.nonzero()[0].tolist()])
    places = pa.array(is_first.cumsum() - 1)
    return {name: array(column, SCHEMAS["samples"].field(name).type).take(places) for name, column in shared.items()}


def _read_origins(rows: pa.Table) -> list[Origin]:
    return [Origin(*row) for row in zip(*(values(rows, field.name) for field in _ORIGIN_FIELDS), strict=True)]


def _annotations(annotations: Sequence[Annotation | None]) -> Columns:
    if not any(annotations):
        return {field.name: pa.nulls(len(annotations), field.type) for field in _ANNOTATION_FIELDS}
    return {
        "spans": [_pack_spans(annotation.spans) if annotation else None for annotation in annotations],
        "agreement": [annotation and annotation.agreement for annotation in annotations],
        "label_probabilities": [annotation and annotation.probabilities for annotation in annotations],
        "labels": [_pack_labels(annotation.labels) if annotation else None for annotation in annotations],
        "text_pair": [annotation and annotation.text_pair for annotation in annotations],
    }


def _pack_labels(labels: Sequence[str] | None) -> list[str] | None:
    return None if labels is None else [escape(label) for label in labels]


def _pack_spans(spans: Iterable[Span]) -> list[dict[str, Any]]:
    return [{"start": span.start, "end": span.end, "type": escape(span.type)} for span in spans]


def _read_annotations(rows: pa.Table) -> Iterable[Annotation | None]:
    columns = [rows.column(field.name) for field in _ANNOTATION_FIELDS]
    if columns[0].null_count == len(rows):  # a row with an annotation has a list of spans, be it an empty one
        return repeat(None, len(rows))
    return (
        None
        if spans is None
        else Annotation(
            _read_spans(spans),
            agreement,
            None if probabilities is None else tuple(probabilities),
            None if labels is None else tuple(map(unescape, labels)),
            None if text_pair is None else unescape(text_pair),
        )
        for spans, agreement, probabilities, labels, text_pair in zip(*(column.to_pylist() for column in columns), strict=True)
    )


def _read_spans(spans: Iterable[Mapping[str, Any]]) -> tuple[Span, ...]:
    return tuple(Span(span["start"], span["end"], unescape(span["type"])) for span in spans)


def _row_counts(counts: Sequence[RowCounts]) -> Columns:
    return {field.name: list(map(attrgetter(field.name.removeprefix("rows_")), counts)) for field in _ROW_COUNT_FIELDS}


def _read_row_counts(rows: pa.Table) -> list[RowCounts]:
    return [RowCounts(*row) for row in zip(*(values(rows, field.name) for field in _ROW_COUNT_FIELDS), strict=True)]
