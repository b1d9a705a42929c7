# pyright: reportUnknownParameterType=false
# (pyarrow's classes have no type stubs)

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from engine.records import (
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
from engine.store.schemas import (
    SCHEMAS,
    Ending,
    Evaluation,
    RowBuffer,
    pack_calls,
    pack_evaluations,
    pack_prompts,
    pack_rejections,
    pack_rounds,
    pack_samples,
    unpack_answers,
    unpack_calls,
    unpack_prompts,
    unpack_rejections,
    unpack_rounds,
    unpack_samples,
)
from engine.store.text import escape, unescape
from tests.engine.store.builders import make_call, make_evaluation, make_rejection, make_sample
from tests.engine.store.strategies import any_text, counts, logprobs, seconds

origins = st.builds(Origin, counts, counts, any_text, any_text, any_text, any_text, any_text, any_text, any_text)
shares = st.floats(0, 1)
places = st.integers(0, 2**31 - 1)
annotations = st.none() | st.builds(
    Annotation,
    st.lists(st.builds(Span, places, places, any_text), max_size=2).map(tuple),
    st.none() | shares,
    st.none() | st.lists(st.floats(0, 1, width=32), max_size=3).map(tuple),
    st.none() | st.lists(any_text, max_size=3).map(tuple),
    st.none() | any_text,
)
samples = st.builds(Sample, any_text, any_text, any_text, origins, annotations)
rejections = st.builds(Rejection, any_text, st.sampled_from(RejectionReason), any_text, any_text, any_text, any_text, origins, annotations)
evaluations = st.builds(
    Evaluation,
    counts,
    any_text,
    st.builds(Scores, shares, shares, shares, counts),
    st.lists(st.builds(ClassScore, any_text, shares, shares, shares, counts), max_size=3).map(tuple),
    st.none() | seconds,
    counts,
    seconds,
    counts,
)
row_counts = st.builds(RowCounts, counts, counts, counts, counts, counts)
timings = st.builds(Timings, seconds, seconds, counts)
outcomes = st.one_of(
    st.builds(Completion, any_text, any_text, st.sampled_from(FinishReason), st.builds(Usage, counts, counts), timings, logprobs),
    st.builds(Failure, any_text, st.sampled_from(FailureReason), any_text, timings),
)
sendable = st.text(st.characters(codec="utf-8"))
requests = st.builds(
    Request,
    sendable,
    st.lists(st.builds(Message, st.sampled_from(["system", "user", "assistant"]), sendable), max_size=3).map(tuple),
    st.builds(
        SamplingParams,
        st.floats(0, 2),
        st.floats(0, 1),
        counts,
        st.integers(-(2**63), 2**63 - 1),
        st.none() | sendable,
        st.none() | sendable,
        st.integers(0, 26),
    ),
)


@st.composite
def calls(draw: st.DrawFn) -> Call:
    outcome: Outcome = draw(outcomes)
    request = draw(requests)
    origin = replace(draw(origins), request_id=outcome.request_id, prompt_hash=request.prompt_hash)
    return Call(request, origin, outcome, draw(row_counts))


def through_parquet(table: pa.Table) -> pa.Table:
    file = io.BytesIO()
    pq.write_table(table, file, compression="zstd")
    return pq.read_table(file)


@given(any_text)
@example("\ufdd0d83d")
@example("\ud83d\ude00")
def test_any_string_becomes_unicode_and_comes_back(text: str) -> None:
    stored = escape(text)
    stored.encode("utf-8")
    assert unescape(stored) == text


def test_ordinary_text_is_stored_as_it_is() -> None:
    for text in ("", "naïve café", r"C:\new\ud800", "\0", "😀", "ﷺ"):
        assert escape(text) == text


@given(st.lists(samples, max_size=3))
@example([make_sample(text="'; DROP TABLE samples; --"), make_sample(text="<script>alert(1)</script>"), make_sample(text="\0\ud800")])
def test_samples_come_back_as_they_were(rows: list[Sample]) -> None:
    assert unpack_samples(through_parquet(pack_samples(rows))) == rows


@given(st.lists(rejections, max_size=3))
@example([replace(make_rejection(), raw="\x1b[2J<b>\0\udfff")])
def test_rejections_come_back_as_they_were(rows: list[Rejection]) -> None:
    assert unpack_rejections(through_parquet(pack_rejections(rows))) == rows


@given(st.lists(evaluations, max_size=3))
def test_what_an_evaluation_says_is_in_its_row(rows: list[Evaluation]) -> None:
    found = through_parquet(pack_evaluations(rows)).to_pylist()
    plain = ("round", "loss", "num_train_rows", "train_s", "epochs")
    for row, evaluation in zip(found, rows, strict=True):
        assert {name: row[name] for name in plain} == {name: getattr(evaluation, name) for name in plain}
        assert unescape(row["split"]) == evaluation.split
        assert row["macro_f1"] == evaluation.scores.macro_f1
        assert [(unescape(score["label"]), score["support"]) for score in row["classes"]] == [
            (score.label, score.support) for score in evaluation.classes
        ]


def test_ten_megabytes_of_text_come_back_as_they_were() -> None:
    text = "x" * 5_000_000 + "\0é\ud800" + "y" * 5_000_000
    assert unpack_samples(through_parquet(pack_samples([make_sample(text=text)])))[0].text == text


@settings(suppress_health_check=[HealthCheck.too_slow])  # on a machine with other work
@given(st.lists(calls(), max_size=3))
def test_calls_come_back_as_they_were(rows: list[Call]) -> None:
    prompts = unpack_prompts(through_parquet(pack_prompts([call.request for call in rows])))
    assert unpack_calls(through_parquet(pack_calls(rows)), prompts) == rows


@given(st.lists(st.tuples(calls(), st.lists(st.sampled_from([None, "accepted", *RejectionReason]), max_size=3)), max_size=3))
def test_a_stored_call_knows_its_answer_and_how_its_rows_ended(rows: list[tuple[Call, list[Ending | None]]]) -> None:
    packed = pack_calls([call for call, _ in rows], [endings for _, endings in rows])
    answers = unpack_answers(through_parquet(packed))
    assert answers == [(call.outcome, tuple(endings), call.origin.round) for call, endings in rows]


@given(
    st.lists(
        st.builds(
            RoundRecord,
            *[counts] * 4,
            row_counts,
            counts,
            counts,
            seconds,
            st.dictionaries(any_text, counts),
            st.dictionaries(any_text, seconds),
            seconds,
        ),
        max_size=3,
    )
)
def test_rounds_come_back_as_they_were(rows: list[RoundRecord]) -> None:
    assert unpack_rounds(through_parquet(pack_rounds(rows))) == rows


def test_a_json_schema_is_kept_as_it_was_sent() -> None:
    # Constrained decoding writes properties in the order in which they stand.
    schema = '{"properties": {"text": {}, "label": {}}}'
    call = make_call()
    call = replace(call, request=replace(call.request, sampling=replace(call.request.sampling, json_schema=schema)))
    prompts = {call.request.prompt_hash: call.request.messages}
    assert unpack_calls(pack_calls([call]), prompts)[0].request.sampling.json_schema == schema


def test_rejections_and_evaluations_hold_every_value() -> None:
    (rejection,) = pack_rejections([make_rejection()]).to_pylist()
    assert {key: rejection[key] for key in ("id", "reason", "detail", "raw", "label", "round")} == {
        "id": "a1-1",
        "reason": "duplicate",
        "detail": "of the seed",
        "raw": '{"text": ""}',
        "label": "refund",
        "round": 1,
    }
    (evaluation,) = pack_evaluations([make_evaluation()]).to_pylist()
    assert evaluation == {
        "round": 1,
        "split": "validation",
        "accuracy": 0.6,
        "macro_f1": 0.5,
        "weighted_f1": 0.55,
        "mcc": 0.45,
        "num_rows": 20,
        "loss": 1.25,
        "num_train_rows": 40,
        "train_s": 3.0,
        "epochs": 7,
        "classes": [{"label": "refund", "precision": 0.5, "recall": 0.25, "f1": 1 / 3, "support": 10}],
    }


def test_a_call_with_the_answer_to_another_request_is_refused() -> None:
    call = make_call("a1")
    with pytest.raises(AssertionError, match="of one request"):
        pack_calls([replace(call, origin=replace(call.origin, request_id="a2"))])


def test_no_row_makes_an_empty_table_of_the_same_schema() -> None:
    assert pack_samples([]).schema.equals(SCHEMAS["samples"], check_metadata=True)


@given(st.lists(origins, min_size=1, max_size=3), st.lists(st.tuples(st.integers(0, 2), any_text), max_size=12), st.integers(0, 12))
def test_rows_keep_their_origin_whatever_rows_stand_beside_them(shared: list[Origin], rows: list[tuple[int, str]], count: int) -> None:
    samples = [Sample(f"a1-{place}", text, "refund", shared[number % len(shared)]) for place, (number, text) in enumerate(rows)]
    count = min(count, len(samples))
    buffer = RowBuffer("samples")
    buffer.add(samples)
    assert unpack_samples(buffer.pack(count)) == samples[:count]
    buffer.drop(count)
    assert len(buffer) == len(samples) - count
    assert unpack_samples(buffer.pack(len(buffer))) == samples[count:]
