"""One explicit Arrow schema a table, and the way from records to Arrow and back.

Nothing is inferred from rows. Each schema carries its table's name and version, and a segment of another version is refused, not guessed
at. What is packed comes back equal; `started_at` does to the microsecond. Strings are stored as `engine.store.text` says.
"""

# pyright: reportUnknownParameterType=false
# (pyarrow's classes have no type stubs, so that naming them says something to readers only)

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from engine.records import (
    Call,
    ClassScore,
    Completion,
    Failure,
    FailureReason,
    FinishReason,
    Message,
    Origin,
    Outcome,
    Rejection,
    Request,
    RoundRecord,
    RowCounts,
    Sample,
    SamplingParams,
    Scores,
    Timings,
    Usage,
)
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


def _required(name: str, kind: pa.DataType) -> pa.Field:
    return pa.field(name, kind, nullable=False)


def _schema(table: str, fields: Iterable[pa.Field]) -> pa.Schema:
    return pa.schema(fields, metadata={VERSION_KEY: f"{table} 1".encode()})


_TEXT, _INT, _FLOAT = pa.string(), pa.int64(), pa.float64()
_ROW_FIELDS = [_required(name, _TEXT) for name in ("id", "text", "label")]
_ORIGIN_FIELDS = [
    *(_required(name, _INT) for name in ("round", "report")),
    *(_required(name, _TEXT) for name in ("assignment", "weakness", "strategy", "template", "prompt_hash", "teacher", "request_id")),
]
_ROW_COUNT_FIELDS = [_required(f"rows_{name}", _INT) for name in ("requested", "accepted", "rejected", "failed", "surplus")]
_SCORE_FIELDS = [*(_required(name, _FLOAT) for name in ("accuracy", "macro_f1", "weighted_f1")), _required("num_rows", _INT)]
_MESSAGE = pa.struct([_required("role", _TEXT), _required("content", _TEXT)])
_CLASS_SCORE = pa.struct(
    [_required("label", _TEXT), *(_required(name, _FLOAT) for name in ("precision", "recall", "f1")), _required("support", _INT)]
)

SCHEMAS: Mapping[str, pa.Schema] = {
    "samples": _schema("samples", [*_ROW_FIELDS, *_ORIGIN_FIELDS]),
    "rejections": _schema("rejections", [*_ROW_FIELDS, *(_required(name, _TEXT) for name in ("reason", "detail", "raw")), *_ORIGIN_FIELDS]),
    "calls": _schema(
        "calls",
        [
            *_ORIGIN_FIELDS,
            _required("model", _TEXT),
            _required("messages", pa.list_(_required("item", _MESSAGE))),
            *(_required(name, _FLOAT) for name in ("temperature", "top_p")),
            *(_required(name, _INT) for name in ("max_tokens", "seed")),
            pa.field("json_schema", _TEXT),
            _required("outcome", _TEXT),
            *(pa.field(name, _TEXT) for name in ("text", "finish_reason", "failure_reason", "failure_detail")),
            *(pa.field(name, _INT) for name in ("prompt_tokens", "completion_tokens")),
            _required("started_at", pa.timestamp("us", tz="UTC")),
            _required("latency_s", _FLOAT),
            _required("attempts", _INT),
            *_ROW_COUNT_FIELDS,
        ],
    ),
    "rounds": _schema(
        "rounds",
        [
            *(_required(name, _INT) for name in ("round", "report", "assignments", "calls")),
            *_ROW_COUNT_FIELDS,
            *(_required(name, _INT) for name in ("prompt_tokens", "completion_tokens")),
            _required("generation_s", _FLOAT),
            _required("blocks", pa.map_(_TEXT, _required("value", _INT))),
        ],
    ),
    "evaluations": _schema(
        "evaluations",
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


def pack_samples(samples: Iterable[Sample]) -> pa.Table:
    return _table("samples", ({"id": row.id, "text": row.text, "label": row.label, **_origin(row.origin)} for row in samples))


def unpack_samples(table: pa.Table) -> list[Sample]:
    return [Sample(row["id"], row["text"], row["label"], _read_origin(row)) for row in _rows(table)]


def pack_rejections(rejections: Iterable[Rejection]) -> pa.Table:
    return _table(
        "rejections",
        (
            {
                "id": rejection.id,
                "text": rejection.text,
                "label": rejection.label,
                "reason": rejection.reason.value,
                "detail": rejection.detail,
                "raw": rejection.raw,
                **_origin(rejection.origin),
            }
            for rejection in rejections
        ),
    )


def pack_calls(calls: Iterable[Call]) -> pa.Table:
    return _table("calls", (_pack_call(call) for call in calls))


def unpack_calls(table: pa.Table) -> list[Call]:
    return [_unpack_call(row) for row in _rows(table)]


def pack_rounds(rounds: Iterable[RoundRecord]) -> pa.Table:
    return _table(
        "rounds",
        (
            {
                "round": record.round,
                "report": record.report,
                "assignments": record.assignments,
                "calls": record.calls,
                **_row_counts(record.rows),
                "prompt_tokens": record.prompt_tokens,
                "completion_tokens": record.completion_tokens,
                "generation_s": record.generation_s,
                "blocks": [(escape(name), count) for name, count in record.blocks.items()],
            }
            for record in rounds
        ),
    )


def unpack_rounds(table: pa.Table) -> list[RoundRecord]:
    return [
        RoundRecord(
            round=row["round"],
            report=row["report"],
            assignments=row["assignments"],
            calls=row["calls"],
            rows=_read_row_counts(row),
            prompt_tokens=row["prompt_tokens"],
            completion_tokens=row["completion_tokens"],
            generation_s=row["generation_s"],
            blocks={unescape(name): count for name, count in row["blocks"]},
        )
        for row in _rows(table)
    ]


def pack_evaluations(evaluations: Iterable[Evaluation]) -> pa.Table:
    return _table(
        "evaluations",
        (
            {
                "round": evaluation.round,
                "split": evaluation.split,
                "accuracy": evaluation.scores.accuracy,
                "macro_f1": evaluation.scores.macro_f1,
                "weighted_f1": evaluation.scores.weighted_f1,
                "num_rows": evaluation.scores.num_rows,
                "loss": evaluation.loss,
                "num_train_rows": evaluation.num_train_rows,
                "train_s": evaluation.train_s,
                "epochs": evaluation.epochs,
                "classes": [
                    {
                        "label": escape(score.label),
                        "precision": score.precision,
                        "recall": score.recall,
                        "f1": score.f1,
                        "support": score.support,
                    }
                    for score in evaluation.classes
                ],
            }
            for evaluation in evaluations
        ),
    )


def _pack_call(call: Call) -> dict[str, Any]:
    assert call.origin.request_id == call.outcome.request_id, "a call and its answer are of one request"
    sampling, timings = call.request.sampling, call.outcome.timings
    return {
        **_origin(call.origin),
        "model": call.request.model,
        "messages": [{"role": message.role, "content": escape(message.content)} for message in call.request.messages],
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_tokens": sampling.max_tokens,
        "seed": sampling.seed,
        "json_schema": sampling.json_schema,
        **_outcome(call.outcome),
        "started_at": round(timings.started_at * 1_000_000),
        "latency_s": timings.latency_s,
        "attempts": timings.attempts,
        **_row_counts(call.rows),
    }


def _unpack_call(row: Mapping[str, Any]) -> Call:
    sampling = SamplingParams(
        temperature=row["temperature"],
        top_p=row["top_p"],
        max_tokens=row["max_tokens"],
        seed=row["seed"],
        json_schema=row["json_schema"],
    )
    messages = tuple(Message(message["role"], unescape(message["content"])) for message in row["messages"])
    return Call(Request(row["model"], messages, sampling), _read_origin(row), _read_outcome(row), _read_row_counts(row))


def _outcome(outcome: Outcome) -> dict[str, Any]:
    match outcome:
        case Completion():
            return {
                "outcome": "completed",
                "text": outcome.text,
                "finish_reason": outcome.finish_reason.value,
                "prompt_tokens": outcome.usage.prompt_tokens,
                "completion_tokens": outcome.usage.completion_tokens,
            }
        case Failure():
            return {"outcome": "failed", "failure_reason": outcome.reason.value, "failure_detail": outcome.detail}


def _read_outcome(row: Mapping[str, Any]) -> Outcome:
    timings = Timings(row["started_at"] / 1_000_000, row["latency_s"], row["attempts"])
    if row["outcome"] == "failed":
        return Failure(row["request_id"], FailureReason(row["failure_reason"]), row["failure_detail"], timings)
    usage = Usage(row["prompt_tokens"], row["completion_tokens"])
    return Completion(row["request_id"], row["text"], FinishReason(row["finish_reason"]), usage, timings)


def _origin(origin: Origin) -> dict[str, Any]:
    return {field.name: getattr(origin, field.name) for field in _ORIGIN_FIELDS}


def _read_origin(row: Mapping[str, Any]) -> Origin:
    return Origin(**{field.name: row[field.name] for field in _ORIGIN_FIELDS})


def _row_counts(rows: RowCounts) -> dict[str, Any]:
    return {field.name: getattr(rows, field.name.removeprefix("rows_")) for field in _ROW_COUNT_FIELDS}


def _read_row_counts(row: Mapping[str, Any]) -> RowCounts:
    return RowCounts(**{field.name.removeprefix("rows_"): row[field.name] for field in _ROW_COUNT_FIELDS})


def _table(name: str, rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Columns that a row does not name are null. Strings inside lists are escaped by the caller."""
    escaped = [{key: escape(value) if isinstance(value, str) else value for key, value in row.items()} for row in rows]
    return pa.Table.from_pylist(escaped, schema=SCHEMAS[name])


def _rows(table: pa.Table) -> list[dict[str, Any]]:
    """Plain values; moments as microseconds since the epoch, which a float of seconds survives (a datetime costs a time zone each)."""
    for index, field in enumerate(table.schema):
        if pa.types.is_timestamp(field.type):
            table = table.set_column(index, field.name, table.column(index).cast(pa.int64()))
    return [{key: unescape(value) if isinstance(value, str) else value for key, value in row.items()} for row in table.to_pylist()]
