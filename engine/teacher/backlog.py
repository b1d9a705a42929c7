"""Who is asked next: requests that wait for a place at a server.

Order: a higher priority first; within one, by prompt. Sorting puts the texts with the longest common prefix side by side, whatever a
strategy lets its prompts share, so a server's prefix cache computes each common part once. The order is walked as a lift walks its floors:
on from the prompt that left last, and at the end from the beginning again. Draws of one prompt lie side by side, and leave together.

Nobody starves: whoever waited for `MAX_OVERTAKEN` others to leave waits only for those who came earlier, and the walk goes on from there.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import OrderedDict
from typing import Generic, NamedTuple, Protocol, TypeVar

from engine.records import Request

MAX_OVERTAKEN = 4096
"""Requests of its priority that may leave, before it matters how long one has waited. More than wait at most times, so that common prefixes
stay together: with more, the order is that of arrival."""


class Waiting(Protocol):
    """What can wait here."""

    @property
    def request(self) -> Request: ...
    @property
    def priority(self) -> int: ...
    @property
    def is_single(self) -> bool:
        """Whether it must not leave together with others."""
        ...


W = TypeVar("W", bound=Waiting)


class _Place(NamedTuple, Generic[W]):
    """Sorts by prompt, then seed; numbers are never equal, so that those who wait are not compared."""

    texts: tuple[str, ...]
    seed: int
    number: int
    arrived: int
    """How many of its priority had left when it came."""
    who: W


class _Floor(Generic[W]):
    """Those of one priority."""

    def __init__(self) -> None:
        self.places: list[_Place[W]] = []
        """Sorted."""
        self.arrivals: OrderedDict[int, _Place[W]] = OrderedDict()
        """By number; the oldest first."""
        self.num_left = 0
        self.next_texts: tuple[str, ...] = ()
        self.next_seed = 0

    def start(self) -> int:
        """Where in `places` the next to leave stands."""
        oldest = next(iter(self.arrivals.values()))
        if self.num_left - oldest.arrived >= MAX_OVERTAKEN:
            return bisect_left(self.places, oldest)
        index = bisect_left(self.places, (self.next_texts, self.next_seed))
        return index if index < len(self.places) else 0


class Backlog(Generic[W]):
    """Taken in one by one, given out in draws of one prompt."""

    def __init__(self) -> None:
        self._floors: dict[int, _Floor[W]] = {}
        self._places: dict[int, _Place[W]] = {}
        self._num_added = 0

    def __len__(self) -> int:
        return len(self._places)

    def add(self, who: W) -> None:
        floor = self._floors.get(who.priority)
        if floor is None:
            floor = self._floors[who.priority] = _Floor()
            self._floors = dict(sorted(self._floors.items(), reverse=True))
        self._num_added += 1
        request = who.request
        texts = tuple([message.content for message in request.messages])
        place = _Place(texts, request.sampling.seed, self._num_added, floor.num_left, who)
        insort(floor.places, place)
        floor.arrivals[place.number] = place
        self._places[id(who)] = place

    def discard(self, who: W) -> None:
        """Forget one that waits no longer; it may have left."""
        place = self._places.pop(id(who), None)
        if place is not None:
            floor = self._floors[who.priority]
            del floor.places[bisect_left(floor.places, place)]
            del floor.arrivals[place.number]

    def take(self, most: int) -> list[W]:
        """The next: one request, or up to `most` draws of one prompt with consecutive seeds. Empty if nobody waits."""
        floor = next((floor for floor in self._floors.values() if floor.places), None)
        if floor is None:
            return []
        start = floor.start()
        end = start + 1
        places = floor.places
        while end < len(places) and end - start < most and _follows(places[end - 1].who, places[end].who):
            end += 1
        leaving = places[start:end]
        del places[start:end]
        for place in leaving:
            del floor.arrivals[place.number]
            del self._places[id(place.who)]
        floor.num_left += len(leaving)
        floor.next_texts, floor.next_seed = leaving[-1].texts, leaving[-1].seed
        return [place.who for place in leaving]


def _follows(one: Waiting, other: Waiting) -> bool:
    """Whether `other` is the next draw of the same prompt, asked in the same way."""
    a, b = one.request.sampling, other.request.sampling
    return (
        b.seed == a.seed + 1
        and one.request.prompt_hash == other.request.prompt_hash
        and not (one.is_single or other.is_single)
        and (a.temperature, a.top_p, a.max_tokens, a.json_schema) == (b.temperature, b.top_p, b.max_tokens, b.json_schema)
        and (a.regex, a.top_logprobs) == (b.regex, b.top_logprobs)
        and one.request.model == other.request.model
    )
