"""What a scripted teacher answers where it is asked for a code with log-probabilities: as vLLM would, without a model.

Like vLLM's, the probabilities are of what the expression allows; as many tokens are told as were asked for, those that are not allowed
at -9999. Knows the regular expressions that `engine.labels.label_codes.matching` writes, and no others.
"""

from __future__ import annotations

import hashlib
import math
from functools import lru_cache

from engine.records import Alternative

_SURE, _UNSURE = 0.9, 0.4
"""Of the character that is written."""
_NOT_ALLOWED = -9999.0


@lru_cache
def codes_of(regex: str) -> tuple[str, ...]:
    """All that it matches."""
    codes, rest = _alternatives(regex)
    assert not rest, f"{regex!r} is no expression of label codes"
    return codes


def score(regex: str, top_logprobs: int, seed: str, *, is_sure: bool = True) -> tuple[str, tuple[tuple[Alternative, ...], ...]]:
    """A code, and for each of its characters what else might have stood there. The same for the same `seed`, which is hex digits."""
    codes = codes_of(regex)
    code = codes[_number(seed, "code") % len(codes)]
    places: list[tuple[Alternative, ...]] = []
    for place, character in enumerate(code):
        possible = dict.fromkeys(other[place] for other in codes if other.startswith(code[:place]))
        others = sorted((other for other in possible if other != character), key=lambda other: _number(seed, f"{place} {other}"))
        written = (_SURE if is_sure else _UNSURE) if others else 1.0
        # Each half of what is left, the last two alike: they sum to all of it.
        shares = [(1.0 - written) / 2 ** min(rank, len(others) - 1) for rank in range(1, len(others) + 1)]
        likeliest = [Alternative(token, math.log(share)) for token, share in zip((character, *others), (written, *shares), strict=True)]
        likeliest += [Alternative(f"word{number}", _NOT_ALLOWED) for number in range(top_logprobs - len(likeliest))]
        places.append(tuple(likeliest[: max(1, top_logprobs)]))
    return code, tuple(places)


def _number(seed: str, name: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:4])


def _alternatives(regex: str) -> tuple[tuple[str, ...], str]:
    """What the expression matches up to the `|` or `)` that ends it, and what stands behind."""
    found: tuple[str, ...] = ()
    current: tuple[str, ...] = ("",)
    while regex and regex[0] != ")":
        if regex[0] == "|":
            found, current, regex = (*found, *current), ("",), regex[1:]
        elif regex[0] == "(":
            inner, regex = _alternatives(regex[1:])
            regex = regex[1:]
            current = tuple(head + tail for head in current for tail in inner)
        elif regex[0] == "[":
            first, last, regex = regex[1], regex[3], regex[5:]
            current = tuple(head + chr(code) for head in current for code in range(ord(first), ord(last) + 1))
        else:
            current, regex = tuple(head + regex[0] for head in current), regex[1:]
    return (*found, *current), regex
