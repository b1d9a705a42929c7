"""Label a stream of rows, or mark their spans: window in, window out, in order. Holds one window at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from engine.text import parts
from student.predictions import AnyPredictions, SetPredictions, TextPredictor, labels_only
from student.row_reader import Chunk
from student.row_writer import Answers, Write


@dataclass(frozen=True, slots=True)
class Tally:
    """What there was to say of the rows. `rows` counts all; the others are among them."""

    rows: int = 0
    cut: int = 0
    """Longer than the student reads."""
    empty: int = 0
    """Nothing but white space, in one text of a pair too: they have a label, as any text has."""
    problems: int = 0
    """Could not be labelled."""
    first_problem: str = ""

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.rows + other.rows,
            self.cut + other.cut,
            self.empty + other.empty,
            self.problems + other.problems,
            self.first_problem or other.first_problem,
        )


def label_rows(
    predictor: TextPredictor,
    chunks: Iterable[Chunk],
    write: Write,
    *,
    batch_size: int = 64,
    probabilities: bool = False,
    on_rows: Callable[[int], None] = lambda _: None,
) -> Tally:
    """`on_rows` hears how many rows each window had, when it is written."""
    tally = Tally()
    for chunk in chunks:
        answers, found = _label(predictor, chunk, batch_size, probabilities)
        write(chunk, answers)
        tally += found
        on_rows(found.rows)
    return tally


def _label(predictor: TextPredictor, chunk: Chunk, batch_size: int, probabilities: bool) -> tuple[Answers, Tally]:
    rows = [row for row in range(len(chunk.texts)) if row not in chunk.problems]
    texts = [chunk.texts[row] for row in rows]
    predictions = predictor.predict_texts(texts, batch_size)
    answered = [(answer, confidence) for answer, confidence in predictions.best()]
    best = dict(zip(rows, answered, strict=True))
    everything = dict(zip(rows, _probabilities(predictions), strict=True)) if probabilities else {}
    order = range(len(chunk.texts))
    answers = Answers(
        predicted=[best[row][0] if row in best else None for row in order],
        confidence=[best[row][1] if row in best else None for row in order],
        probabilities=[everything.get(row) for row in order] if probabilities else None,
        problem=[chunk.problems.get(row) for row in order],
    )
    empty = sum(not all(map(str.strip, parts(text))) for text in texts)
    first = chunk.problems[min(chunk.problems)] if chunk.problems else ""
    return answers, Tally(len(order), predictions.num_cut, empty, len(chunk.problems), first)


def _probabilities(predictions: AnyPredictions) -> list[dict[str, float]]:
    return (predictions if isinstance(predictions, SetPredictions) else labels_only(predictions)).probabilities()
