"""What flows through Reflux: small frozen values with no behaviour beyond facts derived from their fields.

WeaknessReport -> Assignment -> Request -> Completion | Failure -> Candidate -> Sample | Rejection

What is made for every request and row is a struct of msgspec (`msgspec.structs.replace` copies one with changes), the rest a dataclass: a
struct is filled in C, and with `gc=False` the garbage collector does not look at it, which is safe where nothing can refer to itself. That
took 14 % off the processor time of a completion.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, NamedTuple, TypeAlias

import msgspec

from engine.text import Content

TaskKind: TypeAlias = Literal["classification", "multi_label", "ner", "pair"]
"""Whether a text gets one label, any number of them, the entities in it are marked, or two texts together get one label."""
ONE_LABEL: frozenset[TaskKind] = frozenset({"classification", "pair"})
"""Kinds whose rows have one label each."""
Marking: TypeAlias = Literal["inline", "json"]
"""Whether entities stand between tags in the text, or in a list beside it."""


@dataclass(frozen=True, slots=True)
class Label:
    """One class of the taxonomy."""

    name: str
    description: str


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of a text that is an entity of one type."""

    start: int
    end: int
    """Characters of the text, the end not included."""
    type: str


class Annotation(msgspec.Struct, frozen=True, gc=False):
    """What is known of a row beside its label."""

    spans: tuple[Span, ...] = ()
    """In the order of the text, without overlaps; for tasks that mark spans."""
    agreement: float | None = None
    """How far whoever labelled the row agreed on it, from 0 to 1; None where it was labelled once, without probabilities."""
    probabilities: tuple[float, ...] | None = None
    """The teacher's distribution over the labels, in the task's order, in single precision; None where it was not asked for."""
    labels: tuple[str, ...] | None = None
    """In the task's order, each once, maybe none; for tasks whose texts have any number of labels, None for others."""
    text_pair: str | None = None
    """The second text, for tasks whose rows are pairs; None for others."""


@dataclass(frozen=True, slots=True)
class Example:
    """A text, or a pair of them, with the label, the labels or the spans that somebody (a person, or the teacher) gave it."""

    text: str
    label: str
    """Empty for tasks whose texts have several labels, or marked spans."""
    spans: tuple[Span, ...] = ()
    labels: tuple[str, ...] = ()
    """In the task's order, each once; for tasks whose texts have any number of them."""
    text_pair: str | None = None
    """The second text of a pair; None where the row is no pair."""

    @property
    def content(self) -> Content:
        return self.text if self.text_pair is None else (self.text, self.text_pair)


def as_example(content: Content, label: str) -> Example:
    return Example(content, label) if isinstance(content, str) else Example(content[0], label, text_pair=content[1])


@dataclass(frozen=True, slots=True)
class Pool:
    """Real texts, or pairs of them, without labels. They stay where they lie, for there may be more of them than memory holds."""

    path: str
    """As in the configuration: a file, a folder, or `folder:split`."""
    text_column: str
    num_rows: int
    text_pair_column: str | None = None
    """With the second texts, where rows are pairs."""


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """The learning problem: what is classified, into which labels, and the real rows that are there.

    `seed` is all a strategy and the student may learn from. `validation` scores the student and steers the loop. `test` is read once,
    at the end of a run. The engine holds validation and test only to refuse teacher rows that copy them.
    """

    kind: TaskKind
    domain: str
    labels: tuple[Label, ...]
    """Of texts; where spans are marked, the types of entities."""
    seed: tuple[Example, ...]
    validation: tuple[Example, ...]
    test: tuple[Example, ...]
    pool: Pool | None = None
    marking: Marking = "inline"
    """How the teacher is asked to mark spans, where the task has any."""
    allow_none: bool = True
    """Whether a text may have no label at all, where it may have several."""

    @property
    def label_names(self) -> tuple[str, ...]:
        return tuple(label.name for label in self.labels)


class Message(msgspec.Struct, frozen=True, gc=False):
    """One turn of a chat, in the words of the OpenAI protocol."""

    role: Literal["system", "user", "assistant"]
    content: str


class SamplingParams(msgspec.Struct, frozen=True, gc=False):
    """How the teacher draws; names and meanings are vLLM's."""

    temperature: float
    top_p: float
    max_tokens: int
    seed: int
    json_schema: str | None = None
    """Constrains the output to JSON of this schema, itself given as JSON text; None leaves it free."""
    regex: str | None = None
    """Constrains the output to what this matches as a whole; beside it there is no schema."""
    top_logprobs: int = 0
    """Of each token written, so many of the likeliest come with their probability; 0 asks for none."""


class Request(msgspec.Struct, frozen=True, gc=False):
    """One question to the teacher. Equal content is the same request: a resumed run replays its answer instead of asking again.

    Two draws of one prompt differ in `sampling.seed`.
    """

    model: str
    messages: tuple[Message, ...]
    sampling: SamplingParams
    prompt_hash: str = ""
    """`hash_messages` of the messages; made here unless given by who knows it already."""
    id: str = ""
    """32 hex digits over everything that is sent; made here, whatever is given."""

    def __post_init__(self) -> None:
        # Once, and at once: each is read many times on a request's way.
        if not self.prompt_hash:
            msgspec.structs.force_setattr(self, "prompt_hash", hash_messages(self.messages))
        msgspec.structs.force_setattr(self, "id", _digest(_ENCODER.encode((self.model, self.prompt_hash, _sent(self.sampling)))))


class _Sent(msgspec.Struct, gc=False):
    """What every request sends of its sampling. What is not asked for is not sent, and no part of an id: so those of requests without
    log-probabilities stay as they were before there were any.
    """

    temperature: float
    top_p: float
    max_tokens: int
    seed: int
    json_schema: str | None


def _sent(sampling: SamplingParams) -> SamplingParams | _Sent:
    if sampling.regex is None and not sampling.top_logprobs:
        return _Sent(sampling.temperature, sampling.top_p, sampling.max_tokens, sampling.seed, sampling.json_schema)
    return sampling


_ENCODER = msgspec.json.Encoder()


def hash_messages(messages: tuple[Message, ...]) -> str:
    """32 hex digits."""
    return _digest(_ENCODER.encode(messages))


def _digest(content: bytes) -> str:
    # SHA-256, cut: processors compute it in hardware, so that a prompt takes 2 microseconds.
    return hashlib.sha256(content).hexdigest()[:32]


class FinishReason(StrEnum):
    """How a completion ended."""

    STOP = "stop"
    """The teacher ended its turn."""
    LENGTH = "length"
    """`max_tokens` cut it off; what is there may still hold whole rows."""


class Usage(msgspec.Struct, frozen=True, gc=False):
    """Tokens as the server counted them. Draws that travelled in one request share its count."""

    prompt_tokens: int
    completion_tokens: int


class Timings(msgspec.Struct, frozen=True, gc=False):
    """Wall clock of one request; `latency_s` is that of the attempt that counted, from sent to answered."""

    started_at: float
    """Seconds since the epoch when the first attempt left."""
    latency_s: float
    attempts: int


class Alternative(NamedTuple):
    """A token that could have been written at one place of an answer."""

    token: str
    logprob: float
    """Natural logarithm of its probability there, as the server tells it: temperature is not in it; what constrained the answer is, with
    vLLM, so that what was not allowed has none (-9999)."""


class Completion(msgspec.Struct, frozen=True, gc=False):
    """The teacher answered."""

    request_id: str
    text: str
    finish_reason: FinishReason
    usage: Usage
    timings: Timings
    logprobs: tuple[tuple[Alternative, ...], ...] = ()
    """For each token: the one that was written, then the others that are likeliest; empty where they were not asked for."""


class FailureReason(StrEnum):
    """Why a request ended without an answer."""

    TIMEOUT = "timeout"
    """No answer within the time limit, in any attempt."""
    CONNECTION = "connection"
    """The connection was refused or broke, in every attempt."""
    OVERLOADED = "overloaded"
    """The server refused work (429, 503), in every attempt."""
    REFUSED = "refused"
    """The server called the request wrong (other 4xx); the same request would be refused again."""
    SERVER_ERROR = "server_error"
    """The server broke on it (other 5xx), in every attempt."""
    BAD_REPLY = "bad_reply"
    """The answer was not what the protocol promises, in every attempt."""


class Failure(msgspec.Struct, frozen=True, gc=False):
    """The teacher did not answer, for good."""

    request_id: str
    reason: FailureReason
    detail: str
    timings: Timings


Outcome: TypeAlias = Completion | Failure


class Assignment(msgspec.Struct, frozen=True, gc=False):
    """One piece of teaching work: write `num_rows` rows that answer one weakness."""

    id: str
    """Unique within a run and the same in every resumed run, e.g. `r0002-a0013`."""
    number: int
    """Within its round, from 0. Those with neighbouring numbers and equal prompts travel to the teacher as draws of one request."""
    round: int
    report: int
    """Round of the weakness report it answers."""
    weakness: str
    """What it works on, for people and tables, e.g. `class:cancel_order` or `pair:cancel_order>change_order`; `none` if unguided."""
    focus: tuple[str, ...]
    """Labels the rows should come from: none (the teacher chooses), one class, or (true, mistaken for)."""
    num_rows: int
    replays: str | None = None
    """The request of an earlier round that is asked again; None for what is asked for the first time (see `engine.replay`)."""


class Origin(msgspec.Struct, frozen=True, gc=False):
    """Where a row comes from; stamped on it when it is made."""

    round: int
    report: int
    assignment: str
    weakness: str
    strategy: str
    template: str
    """Template name and content hash, e.g. `pgkd/generate@1f2e3d4c`."""
    prompt_hash: str
    teacher: str
    request_id: str
    replays: str | None = None
    """Of an earlier round: the rejected row that was judged again, or the request that was asked again; None for what is no replay."""


class RejectionReason(StrEnum):
    """Why a row that the teacher wrote was refused, or what was written was no row."""

    SCHEMA = "schema"
    """Not an object with a text and a label, or with what else was asked for, such as a second text; of several labels one twice."""
    UNKNOWN_LABEL = "unknown_label"
    """The label is not in the taxonomy."""
    SPANS = "spans"
    """Marked entities that overlap, are empty, are of a type outside the taxonomy, or do not stand in the text."""
    UNLABELLED = "unlabelled"
    """A text, and no label for it from the request that was to label it."""
    DISAGREEMENT = "disagreement"
    """The label given to the text is not the one it was asked for."""
    UNCERTAIN = "uncertain"
    """Who labelled the text is not sure enough of any label, or not of the one it was asked for."""
    EMPTY = "empty"
    """No text but white space; of a pair, one of the two."""
    TOO_LONG = "too_long"
    """More characters than the task allows, in one text."""
    SCRIPT = "script"
    """The text is mainly written in a script that no seed row is mainly written in: the teacher slipped into another language."""
    DUPLICATE = "duplicate"
    """The text (ignoring case, spaces and punctuation) is already a row of this run or of the seed."""
    NEAR_DUPLICATE = "near_duplicate"
    """The text is much like a row of this run or of the seed."""
    LEAKAGE = "leakage"
    """The text is a row of validation or test (ignoring case, spaces and punctuation), or much like one."""
    SURPLUS = "surplus"
    """A row past the number asked for. Counted apart: it was never requested."""


class Candidate(msgspec.Struct, frozen=True, gc=False):
    """A row as parsed from a completion, before any gate. `problem` is set when what stood there was no row, or is not to become one."""

    raw: str
    text: str = ""
    label: str = ""
    problem: str | None = None
    reason: RejectionReason = RejectionReason.SCHEMA
    """What a problem counts as."""
    weakness: str = ""
    """What the row answers where that is not its assignment's, e.g. `easy`."""
    annotation: Annotation | None = None


class Sample(msgspec.Struct, frozen=True, gc=False):
    """An accepted row. Its id is the request's and its place in the reply: a replay makes the same one."""

    id: str
    text: str
    label: str
    origin: Origin
    annotation: Annotation | None = None
    """None where nothing is known beside the label."""


class Rejection(msgspec.Struct, frozen=True, gc=False):
    """A refused row, kept with the reason and the raw text."""

    id: str
    reason: RejectionReason
    detail: str
    raw: str
    text: str
    label: str
    origin: Origin
    annotation: Annotation | None = None


def content_of(row: Candidate | Sample | Rejection) -> Content:
    """Its text, or both where it is a pair."""
    text_pair = row.annotation and row.annotation.text_pair
    return row.text if text_pair is None else (row.text, text_pair)


class RowCounts(msgspec.Struct, frozen=True, gc=False):
    """Rows of one call, round or run. `requested = accepted + rejected + failed`; surplus rows stand beside it."""

    requested: int = 0
    accepted: int = 0
    rejected: int = 0
    failed: int = 0
    """Asked for, but never written: the call failed, or its reply ended early."""
    surplus: int = 0
    """Written past the number asked for; in the rejections table with that reason, not in `rejected`."""

    @property
    def is_balanced(self) -> bool:
        return self.requested == self.accepted + self.rejected + self.failed

    def __add__(self, other: RowCounts) -> RowCounts:
        return RowCounts(
            self.requested + other.requested,
            self.accepted + other.accepted,
            self.rejected + other.rejected,
            self.failed + other.failed,
            self.surplus + other.surplus,
        )


class Call(msgspec.Struct, frozen=True, gc=False):
    """One request from beginning to end, with everything needed to read or repeat it; a row of the calls table."""

    request: Request
    origin: Origin
    outcome: Outcome
    rows: RowCounts


@dataclass(frozen=True, slots=True)
class RoundRecord:
    """What one round asked and what came back; its presence says that the round's rows are complete and may be learned from."""

    round: int
    report: int
    assignments: int
    calls: int
    rows: RowCounts
    prompt_tokens: int
    completion_tokens: int
    generation_s: float
    """Seconds from the first request to the last commit, of the process that finished the round."""
    blocks: Mapping[str, int] = field(default_factory=dict)
    """How many rows each block of the prompt really had, e.g. `{"examples": 16, "wrong": 9}`."""
    limited_s: Mapping[str, float] = field(default_factory=dict)
    """For how many seconds what was short, e.g. `{"compute": 2.1, "supply": 0.4}` (`engine.watching.bottleneck`); of that same process."""
    peak_tokens_per_s: float = 0.0
    """Output tokens at the servers' best, over two seconds."""

    @property
    def is_ahead(self) -> bool:
        """Asked by an older report than that on the round before; as all rounds but the first are where no student reports."""
        return self.report != self.round - 1


@dataclass(frozen=True, slots=True)
class Totals:
    """What completed rounds have asked and got together, over all the processes that worked on them."""

    rounds: int
    calls: int
    rows: RowCounts
    prompt_tokens: int
    completion_tokens: int
    generation_s: float

    @classmethod
    def of(cls, rounds: Sequence[RoundRecord]) -> Totals:
        return cls(
            rounds=len(rounds),
            calls=sum(record.calls for record in rounds),
            rows=sum((record.rows for record in rounds), RowCounts()),
            prompt_tokens=sum(record.prompt_tokens for record in rounds),
            completion_tokens=sum(record.completion_tokens for record in rounds),
            generation_s=sum(record.generation_s for record in rounds),
        )

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True)
class Finish:
    """The engine's last word to the student: no more rows will come."""

    best_round: int
    """Whose student is kept: the one with the lowest validation loss."""
    rounds: int
    """Rounds that were completed."""
    reason: str
