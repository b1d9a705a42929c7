"""What became of each entity of a text, and what a student took for one that is none. Pure: spans in, mistakes out."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from scipy.stats import binomtest

from engine.records import Span
from engine.reports import ClassScore, Confusion, MinedRow, Weakness
from student.resampling import CONFIDENCE
from student.weaknesses import NUM_EXAMPLES


class Mistake(NamedTuple):
    """Types of an entity and of what it was taken for. Of one type twice: its ends are wrong."""

    type: str
    """Empty where there is no entity: it was made up."""
    guess: str
    """Empty where nothing was named that overlaps it: it was missed."""


def find_mistakes(truth: Sequence[Span], guesses: Sequence[Span]) -> list[Mistake]:
    """One of each entity that was not found exactly, and one of each guess that overlaps no entity.

    An entity was taken for the guess with its very ends, else for one of its type, else for the one that covers most of it.
    """
    mistakes: list[Mistake] = []
    for span in truth:
        if span in guesses:
            continue
        near = [guess for guess in guesses if _overlap(span, guess) > 0]
        taken = max(near, key=lambda guess: (_ends(guess) == _ends(span), guess.type == span.type, _overlap(span, guess)), default=None)
        mistakes.append(Mistake(span.type, taken.type if taken else ""))
    mistakes += [Mistake("", guess.type) for guess in guesses if not any(_overlap(span, guess) > 0 for span in truth)]
    return mistakes


def confusions_of(mistakes: Iterable[Mistake], mined: Iterable[MinedRow] = ()) -> tuple[Confusion, ...]:
    """Of one type with another, most frequent first; with mined rows of which the same was said."""
    counts = Counter(mistake for mistake in mistakes if mistake.type and mistake.guess and mistake.type != mistake.guess)
    examples = _by_mistake(mined)
    found = [Confusion(*mistake, count, tuple(examples[mistake][:NUM_EXAMPLES])) for mistake, count in sorted(counts.items())]
    return tuple(sorted(found, key=lambda confusion: -confusion.count))


def find_span_weaknesses(
    classes: Sequence[ClassScore], mistakes: Iterable[Mistake], mined: Iterable[MinedRow] = ()
) -> tuple[Weakness, ...]:
    """Of each type with mistakes one, the surest first. What was made up counts for the type that it was taken for."""
    counts = Counter(mistakes)
    examples = _by_mistake(mined)
    weaknesses = [weakness for row in classes if (weakness := _weakness(row.label, row.support, counts, examples)) is not None]
    return tuple(sorted(weaknesses, key=lambda weakness: (-weakness.at_least, -weakness.missed, weakness.name)))


def _weakness(type: str, support: int, counts: Counter[Mistake], examples: dict[Mistake, list[MinedRow]]) -> Weakness | None:
    made_up = counts[Mistake("", type)]
    kinds = [(mistake, count) for mistake, count in counts.items() if mistake.type == type or mistake == ("", type)]
    missed = sum(count for _, count in kinds)
    if not missed:
        return None
    most, count = max(kinds, key=lambda kind: (kind[1], kind[0]))
    is_most = 2 * count > missed and most.type and most.guess
    if not is_most:
        name, labels = f"type:{type}", (type,)
    elif most.guess == type:
        name, labels = f"boundary:{type}", (type,)
    else:
        name, labels = f"pair:{type}>{most.guess}", (type, most.guess)
    rows = examples[most] if is_most else [row for mistake, _ in kinds for row in examples[mistake]]
    num_rows = support + made_up
    return Weakness(
        name=name,
        labels=labels,
        missed=missed,
        num_rows=num_rows,
        at_least=float(binomtest(missed, num_rows).proportion_ci(CONFIDENCE, method="wilson").low),
        examples=tuple(sorted(dict.fromkeys(rows), key=lambda row: -row.confidence)[:NUM_EXAMPLES]),
    )


def _by_mistake(mined: Iterable[MinedRow]) -> defaultdict[Mistake, list[MinedRow]]:
    """The rows with each, most confident first; none twice for one."""
    rows: defaultdict[Mistake, list[MinedRow]] = defaultdict(list)
    for row in sorted(mined, key=lambda row: -row.confidence):
        for mistake in dict.fromkeys(find_mistakes(row.spans, row.predicted_spans)):
            rows[mistake].append(row)
    return rows


def _overlap(one: Span, other: Span) -> int:
    return min(one.end, other.end) - max(one.start, other.start)


def _ends(span: Span) -> tuple[int, int]:
    return span.start, span.end
