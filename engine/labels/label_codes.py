"""Short codes for labels, so that one or two tokens say which label a teacher means, and their log-probabilities how sure it is.

A code is a letter, a letter and a digit, or letter, digit and letter: nearly every tokenizer splits between letters and digits, and so
writes a code as one token a character. A server tells the likeliest tokens of each place only (vLLM: 20, `--max-logprobs`), so no place has
more characters than that. With 20, one token tells 20 labels apart, two tell 200, three 4,000.

What follows for the number of calls: up to 20 labels, one call shows the whole distribution. With more it shows how likely each first
character is, and what stands behind the one that was written; labels behind another character take a further call (see `soft_labels`).
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import groupby, islice, product

from engine.errors import UserError

_ALPHABETS = (string.ascii_uppercase, string.digits)
"""For odd places and for even ones."""
_MAX_LENGTH = 3


@lru_cache
def label_codes(num_labels: int, most_a_place: int) -> tuple[str, ...]:
    """A code for each label: sorted, of one length, with at most so many characters at a place. UserError where they are not enough."""
    codes: tuple[str, ...] = ()
    for length in range(1, _MAX_LENGTH + 1):
        places = [_ALPHABETS[place % 2][:most_a_place] for place in range(length)]
        codes = tuple("".join(characters) for characters in islice(product(*places), num_labels))
        if len(codes) == num_labels:
            return codes
    raise UserError(
        f"{num_labels} labels are too many for soft labels: with {most_a_place} log-probabilities a token there are {len(codes)} codes; "
        "raise labelling.top_logprobs (and the server's --max-logprobs), or set labelling.soft = false"
    )


@lru_cache
def starts(codes: tuple[str, ...]) -> Mapping[str, range]:
    """For each beginning of a code, the empty one and the whole among them: the places of the codes that begin so."""
    return {
        start: range(places[0], places[-1] + 1)
        for length in range(len(codes[0]) + 1)
        for start, group in groupby(range(len(codes)), key=lambda place: codes[place][:length])
        for places in [list(group)]
    }


@lru_cache
def matching(codes: tuple[str, ...]) -> str:
    """A regular expression that matches these codes and nothing else."""
    if len(codes[0]) == 1:
        return _one_of(codes)
    rests = {head: tuple(code[1:] for code in group) for head, group in groupby(codes, key=lambda code: code[0])}
    parts = [_one_of(list(heads)) + matching(rest) for rest, heads in groupby(rests, key=rests.__getitem__)]
    return parts[0] if len(parts) == 1 else f"({'|'.join(parts)})"


def _one_of(characters: Sequence[str]) -> str:
    """They follow one another in the alphabet."""
    return characters[0] if len(characters) == 1 else f"[{characters[0]}-{characters[-1]}]"
