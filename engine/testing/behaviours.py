"""What a scripted server can be told to do, and what a single request meets because of it. Knows nothing of sockets.

EVERY counts requests for completions (3: every third). The behaviours strike in the order in which they are given, and the first that ends
a request ends it.

    instant               answers at once
    latency:SECONDS       answers after that time
    status:CODE:EVERY     refuses with this status; 429 and 503 say Retry-After: 1
    reset:EVERY           drops the connection
    malformed:EVERY       answers with something that is no JSON
    truncated:EVERY       ends in the middle of the rows, as if max_tokens had run out
    badjson:EVERY         a good reply whose text is none: rows amid talk, half a list, or rows of the wrong type
    unsure:EVERY          an answer by a code, whose log-probabilities are spread over many
    drip:SECONDS:EVERY    the reply's body comes in small pieces, spread over that time
    stall:EVERY           half of the reply's body comes, and never the rest
    die:AFTER             vanishes, with all connections, at the first request after so many
    slowstart:SECONDS     answers 503 to everything until so long after it began to listen
    overload:MAX          answers 503 with Retry-After: 1 to what would make more than so many sequences in flight (n choices are n)
    context:MAX_TOKENS    answers 400 where the prompt and max_tokens together are longer
    vllm:KNEE:TOKENS_PER_S[:MAX_RUNNING[:KV_TOKENS]]
                          answers when a model of vLLM has generated as many tokens (see `engine.testing.token_rate`)
    tokens:LEAST:MOST     how many of them an answer has, drawn from what was asked; never more than max_tokens, and just those
                          with ignore_eos (default 32:128)
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Generic, TypeVar, cast

from engine.teacher.metrics import ServerGauges
from engine.testing.token_rate import TokenRateModel

Job = TypeVar("Job", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Parameter:
    """A number that a behaviour takes."""

    name: str
    least: float = 1
    most: float = math.inf
    is_whole: bool = True
    is_optional: bool = False
    """It and all after it may be left out."""

    def read(self, text: str) -> float:
        """ValueError, saying what would be right."""
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not self.least <= number <= self.most or number == math.inf or (self.is_whole and number % 1):
            kind = "a whole number" if self.is_whole else "a number"
            limits = f"of at least {self.least:g}" if self.most == math.inf else f"from {self.least:g} to {self.most:g}"
            raise ValueError(f"{self.name} is {kind} {limits}, not {text!r}")
        return number


EVERY = Parameter("EVERY")
SECONDS = Parameter("SECONDS", least=0, is_whole=False)
PARAMETERS: dict[str, tuple[Parameter, ...]] = {
    "instant": (),
    "latency": (SECONDS,),
    "status": (Parameter("CODE", 200, 599), EVERY),
    "reset": (EVERY,),
    "malformed": (EVERY,),
    "truncated": (EVERY,),
    "badjson": (EVERY,),
    "unsure": (EVERY,),
    "drip": (SECONDS, EVERY),
    "stall": (EVERY,),
    "die": (Parameter("AFTER", least=0),),
    "slowstart": (SECONDS,),
    "overload": (Parameter("MAX", least=0),),
    "context": (Parameter("MAX_TOKENS"),),
    "vllm": (
        Parameter("KNEE"),
        Parameter("TOKENS_PER_S", least=0.001, is_whole=False),
        Parameter("MAX_RUNNING", is_optional=True),
        Parameter("KV_TOKENS", is_optional=True),
    ),
    "tokens": (Parameter("LEAST"), Parameter("MOST")),
}
OF_THE_SERVER = ("slowstart", "overload", "context", "vllm", "tokens")
"""Told at most once: they are about the server as a whole, not about every so many requests."""
DEFAULT_TOKENS = (32, 128)


@dataclass(frozen=True, slots=True)
class Behaviour:
    """One way to behave, with its numbers as in the module's table."""

    name: str
    numbers: tuple[float, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Behaviour:
        """ValueError, saying what would be right, if there is no such behaviour."""
        name, *numbers = text.split(":")
        parameters = PARAMETERS.get(name)
        if parameters is None:
            raise ValueError(f"{text!r} is no behaviour; there are: {', '.join(PARAMETERS)}")
        if not sum(not parameter.is_optional for parameter in parameters) <= len(numbers) <= len(parameters):
            raise ValueError(f"{text!r} is no behaviour; the form is {_form(name, parameters)}")
        try:
            behaviour = cls(name, tuple(parameter.read(number) for parameter, number in zip(parameters, numbers, strict=False)))
        except ValueError as error:
            raise ValueError(f"{text!r} is no behaviour; {error}") from None
        if name == "tokens" and behaviour.numbers[0] > behaviour.numbers[1]:
            raise ValueError(f"{text!r} is no behaviour; LEAST is more than MOST")
        return behaviour

    def strikes(self, number: int) -> bool:
        """Whether request `number`, counted from 1, is one of every so many."""
        return number % self.numbers[-1] == 0


class Ending(Enum):
    """What a request comes to, in the end."""

    ANSWER = auto()
    STATUS = auto()
    """It is refused, with the treatment's status."""
    RESET = auto()
    MALFORMED = auto()
    DEATH = auto()
    """The whole server's."""


@dataclass(frozen=True, slots=True)
class Treatment:
    """What one request meets. After `wait_s` it ends; the rest is about an answer."""

    ending: Ending = Ending.ANSWER
    wait_s: float = 0.0
    status: int = 200
    is_truncated: bool = False
    is_garbled: bool = False
    """Its text is not the JSON that was asked for."""
    drip_s: float | None = None
    is_stalled: bool = False
    is_unsure: bool = False
    """Of the code it answers by."""


PLAIN = Treatment()


@dataclass(frozen=True, slots=True)
class Behaviours:
    """All that a server was told, sorted by whom it concerns."""

    of_requests: tuple[Behaviour, ...] = ()
    start_s: float = 0.0
    max_in_flight: float = math.inf
    """Sequences."""
    max_context_tokens: float = math.inf
    token_rate: TokenRateModel | None = None
    """None if answers do not wait for tokens."""
    output_tokens: tuple[int, int] = DEFAULT_TOKENS

    @classmethod
    def parse(cls, texts: Iterable[str]) -> Behaviours:
        """ValueError if one of them is none, or two contradict each other."""
        behaviours = [Behaviour.parse(text) for text in texts]
        of_server: dict[str, Sequence[float]] = {}
        for behaviour in behaviours:
            if behaviour.name in of_server:
                raise ValueError(f"{behaviour.name} is told twice")
            if behaviour.name in OF_THE_SERVER:
                of_server[behaviour.name] = behaviour.numbers
        if "tokens" in of_server and "vllm" not in of_server:
            raise ValueError("tokens is about the answers of vllm, which was not told")
        least, most = of_server.get("tokens", DEFAULT_TOKENS)
        return cls(
            of_requests=tuple(behaviour for behaviour in behaviours if behaviour.name not in ("instant", *OF_THE_SERVER)),
            start_s=of_server.get("slowstart", (0.0,))[0],
            max_in_flight=of_server.get("overload", (math.inf,))[0],
            max_context_tokens=of_server.get("context", (math.inf,))[0],
            token_rate=_token_rate(*of_server["vllm"]) if "vllm" in of_server else None,
            output_tokens=(int(least), int(most)),
        )

    def draw_tokens(self, name: str, max_tokens: int | None, *, is_exact: bool) -> int:
        """How long the answer is that has this name (hex digits)."""
        if is_exact and max_tokens is not None:
            return max_tokens
        least, most = self.output_tokens
        return min(least + int(name, 16) % (most - least + 1), most if max_tokens is None else max_tokens)

    def treat(self, number: int) -> Treatment:
        """What request `number`, counted from 1, meets."""
        if not self.of_requests:
            return PLAIN
        wait_s = 0.0
        drip_s: float | None = None
        struck: set[str] = set()
        for behaviour in self.of_requests:
            name, numbers = behaviour.name, behaviour.numbers
            if name == "latency":
                wait_s += numbers[0]
            elif name == "die":
                if number > numbers[0]:
                    return Treatment(Ending.DEATH, wait_s)
            elif behaviour.strikes(number):
                match name:
                    case "status":
                        return Treatment(Ending.STATUS, wait_s, int(numbers[0]))
                    case "reset":
                        return Treatment(Ending.RESET, wait_s)
                    case "malformed":
                        return Treatment(Ending.MALFORMED, wait_s)
                    case "drip":
                        drip_s = numbers[0]
                    case _:
                        struck.add(name)
        return Treatment(
            wait_s=wait_s,
            is_truncated="truncated" in struck,
            is_garbled="badjson" in struck,
            drip_s=drip_s,
            is_stalled="stall" in struck,
            is_unsure="unsure" in struck,
        )


def _token_rate(knee: float, tokens_per_s: float, max_running: float = 1_000_000, kv_tokens: float = math.inf) -> TokenRateModel:
    return TokenRateModel(knee=knee, tokens_per_s=tokens_per_s, max_running=int(max_running), kv_tokens=kv_tokens)


class Generation(Generic[Job]):
    """A token-rate model on this machine's clock, and the jobs whose sequences it generates; calls `finish` when all of a job's are."""

    def __init__(self, model: TokenRateModel, finish: Callable[[Job], None]) -> None:
        self._model = model
        self._finish = finish
        self._left: dict[Job, set[int]] = {}
        """Places of the sequences that are not finished."""
        self._started = time.monotonic()
        self._timer: asyncio.TimerHandle | None = None
        self._wakes_at = math.inf

    def submit(self, job: Job, prompt_tokens: int, output_tokens: Sequence[int]) -> bool:
        """All of its sequences or none are taken. False if it is refused for now; ValueError if it never fits."""
        left = self._left[job] = set[int]()
        try:
            for index, tokens in enumerate(output_tokens):
                if not self._model.submit((job, index), prompt_tokens, tokens, self._now()):
                    self.cancel(job)
                    return False
                left.add(index)
        except ValueError:
            self.cancel(job)
            raise
        self._schedule()
        return True

    def cancel(self, job: Job) -> None:
        """Nothing happens if it is not under way."""
        if (left := self._left.pop(job, None)) is not None:
            for index in left:
                self._model.cancel((job, index), self._now())
            self._schedule()

    def set_capacity(self, factor: float) -> None:
        self._model.set_capacity(factor, self._now())
        self._schedule()

    def gauges(self) -> ServerGauges:
        self._schedule()  # brings the model up to this moment
        return self._model.gauges()

    def _now(self) -> float:
        # Not the loop's time: uvloop's stands still within a turn and counts whole milliseconds.
        return time.monotonic() - self._started

    def _schedule(self) -> None:
        now = self._now()
        event = self._model.next_event(now)
        if event is None or event >= self._wakes_at:
            return  # waking too early costs nothing, and spares moving the timer at each start and end
        if self._timer is not None:
            self._timer.cancel()
        self._wakes_at = event
        self._timer = asyncio.get_running_loop().call_later(max(event - now, 0.0), self._wake)

    def _wake(self) -> None:
        self._timer, self._wakes_at = None, math.inf
        for job, index in cast(list[tuple[Job, int]], self._model.advance(self._now())):
            # What was cancelled at the very moment of its end is not there any more.
            if (left := self._left.get(job)) is not None:
                left.discard(index)
                if not left:
                    del self._left[job]
                    self._finish(job)
        self._schedule()


def garble(text: str, name: str) -> str:
    """Rows in a form that nobody asked for; which one is drawn from the answer's name (hex digits)."""
    match int(name, 16) % 3:
        case 0:
            return f"Sure, here is what you asked for:\n\n{text}\n\nShall I write more?"
        case 1:
            return text[: len(text) * 2 // 3]
        case _:
            return '[{"text": 17, "label": null}, "row", [], 4.5]'


def _form(name: str, parameters: Iterable[Parameter]) -> str:
    form, tail = name, ""
    for parameter in parameters:
        form += f"[:{parameter.name}" if parameter.is_optional else f":{parameter.name}"
        tail += "]" if parameter.is_optional else ""
    return form + tail
