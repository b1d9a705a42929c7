"""The truth about a run: what the server was asked and answered, and what the engine has acknowledged, life by life.

A life is one process of the engine, from its start to its death. In flight at a death is what that life had asked for and not acknowledged.
What a later life asks for again is laid at the door of the last life that had asked for it.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from benchmarks.torture.subject import digest_text
from engine.records import Message, Request, SamplingParams


class _Schema(msgspec.Struct):
    schema: msgspec.Raw


class _ResponseFormat(msgspec.Struct):
    json_schema: _Schema


class _Body(msgspec.Struct):
    model: str
    messages: tuple[Message, ...]
    temperature: float
    top_p: float
    max_tokens: int
    seed: int
    n: int = 1
    response_format: _ResponseFormat | None = None


class Ledger:
    """Stands behind a scripted server (`engine.testing.server.Ledger`). Requests are named by their ids."""

    def __init__(self) -> None:
        self.life = 0
        self.acknowledged: dict[str, str] = {}
        """The digest of the answer that was acknowledged first, by request."""
        self.answers: dict[str, set[str]] = {}
        """Digests of all answers to a request."""
        self.in_flight: dict[int, frozenset[str]] = {}
        """At the death of each life."""
        self.asked_again: dict[int, set[str]] = {}
        self._last_asked: dict[str, int] = {}
        """The last life that asked."""

    @property
    def requests(self) -> frozenset[str]:
        """All that were asked."""
        return frozenset(self._last_asked)

    def asked(self, body: bytes) -> None:
        for request_id in _request_ids(body):
            before = self._last_asked.get(request_id, self.life)
            if before != self.life:
                self.asked_again.setdefault(before, set()).add(request_id)
            self._last_asked[request_id] = self.life

    def answered(self, body: bytes, texts: Sequence[str]) -> None:
        for request_id, text in zip(_request_ids(body), texts, strict=True):
            self.answers.setdefault(request_id, set()).add(digest_text(text))

    def acknowledge(self, line: str) -> None:
        request_id, digest = line.split()
        self.acknowledged.setdefault(request_id, digest)

    def died(self) -> None:
        """The present life is over, and all that it sent or said has come in."""
        asked = {request_id for request_id, life in self._last_asked.items() if life == self.life}
        self.in_flight[self.life] = frozenset(asked - self.acknowledged.keys())
        self.life += 1

    def asked_again_beyond_in_flight(self, life: int) -> set[str]:
        return self.asked_again.get(life, set()) - self.in_flight[life]


_decoder = msgspec.json.Decoder(_Body)


def _request_ids(body: bytes) -> list[str]:
    """As the engine names them, for each of the draws that travelled together."""
    asked = _decoder.decode(body)
    schema = None if asked.response_format is None else bytes(asked.response_format.json_schema.schema).decode()
    return [
        Request(asked.model, asked.messages, SamplingParams(asked.temperature, asked.top_p, asked.max_tokens, seed, schema)).id
        for seed in range(asked.seed, asked.seed + asked.n)
    ]
