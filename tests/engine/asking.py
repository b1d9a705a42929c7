"""What tests of asking a teacher are built from."""

from __future__ import annotations

from engine.prompting import rows_schema
from engine.records import Completion, FailureReason, FinishReason, Message, Request, SamplingParams, Timings, Usage
from engine.teacher import TeacherError

LABELS = ("card_lost", "card_stolen")


def make_request(seed: int = 0, *, model: str = "scripted", num_rows: int | None = 3) -> Request:
    """Requests with different seeds are different; without a number of rows the answer's form is free."""
    schema = None if num_rows is None else rows_schema(LABELS, num_rows)
    messages = (Message("system", "You write rows."), Message("user", "Write some."))
    return Request(model, messages, SamplingParams(temperature=1.0, top_p=0.95, max_tokens=64, seed=seed, json_schema=schema))


def make_completion(request: Request, text: str = "[]") -> Completion:
    return Completion(request.id, text, FinishReason.STOP, Usage(7, 5), Timings(0.0, 0.25, 1))


def dropped() -> TeacherError:
    return TeacherError(FailureReason.CONNECTION, "the connection dropped")


def overloaded(retry_after_s: float | None = None) -> TeacherError:
    return TeacherError(FailureReason.OVERLOADED, "too busy", retry_after_s=retry_after_s)


def refused() -> TeacherError:
    return TeacherError(FailureReason.REFUSED, "no such thing")
