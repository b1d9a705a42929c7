"""The duplicate gates over a run: what a resumed run waits until they know its rows, what they hold, how fast they judge, how well.

    python -m benchmarks.store.duplicates --run DIR

How well is measured on copies of known rows, altered in ways that a teacher's rows differ in, and on rows that are no copies. The truth
is the Jaccard index of the four-character pieces, of each row with every row it is judged against.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
from numpy.typing import NDArray

from benchmarks.store.texts import TextSource
from engine.config import GatesConfig
from engine.gates.gates import Gatekeeper, comparable
from engine.gates.near_duplicates import NearDuplicates
from engine.records import Candidate, RejectionReason
from engine.rundir import RunDir
from engine.store import read_texts
from engine.text import Content

JUDGED_ROWS = 50_000
HELD_OUT_ROWS = 2_000
ROWS_OF_A_REPLY = 8
ACCURACY_ROWS = 20_000
COPIES_OF_A_KIND = 300
_LETTERS = "abcdefghijklmnopqrstuvwxyz"

Alter = Callable[[list[str], random.Random, Sequence[str]], list[str]]


def _typos(count: int) -> Alter:
    def alter(words: list[str], generator: random.Random, _: Sequence[str]) -> list[str]:
        text = " ".join(words)
        for _number in range(count):
            place, letter = generator.randrange(len(text)), generator.choice(_LETTERS)
            text = text[:place] + generator.choice([letter, letter + text[place], ""]) + text[place + 1 :]
        return text.split()

    return alter


def _other_words(count: int) -> Alter:
    def alter(words: list[str], generator: random.Random, vocabulary: Sequence[str]) -> list[str]:
        places = generator.sample(range(len(words)), count)
        return [generator.choice(vocabulary) if place in places else word for place, word in enumerate(words)]

    return alter


def _without_word(words: list[str], generator: random.Random, _: Sequence[str]) -> list[str]:
    place = generator.randrange(len(words))
    return words[:place] + words[place + 1 :]


def _politer(words: list[str], generator: random.Random, _: Sequence[str]) -> list[str]:
    return generator.choice([["hello,", *words], [*words, "please"], ["hi", "there,", *words, "thank", "you"]])


def _turned_round(words: list[str], generator: random.Random, _: Sequence[str]) -> list[str]:
    place = generator.randrange(1, len(words))
    return words[place:] + words[:place]


ALTERATIONS: dict[str, Alter] = {
    "1 letter": _typos(1),
    "3 letters": _typos(3),
    "6 letters": _typos(6),
    "1 word left out": _without_word,
    "greeting or please": _politer,
    "halves exchanged": _turned_round,
    "1 other word": _other_words(1),
    "2 other words": _other_words(2),
    "4 other words": _other_words(4),
}


class Query(NamedTuple):
    kind: str
    text: str


def measure_gates(run: RunDir, judged_rows: int = JUDGED_ROWS) -> dict[str, Any]:
    """Memory is that of this process: nothing else may have been done in it."""
    source = TextSource(seed=2)
    held_out = [source.row().text for _ in range(HELD_OUT_ROWS)]
    judged = [_candidate(source.row().text) for _ in range(judged_rows)]
    similarity = GatesConfig().similarity
    exact, figures = _measure_gate(run, held_out, None)
    exact_figures = figures | _measure_judging(exact, judged)
    del exact
    near, figures = _measure_gate(run, held_out, similarity)
    near_figures = figures | {"index_mb": NearDuplicates(similarity).num_bytes / 1e6} | _measure_judging(near, judged)
    return {"similarity": similarity, "exact": exact_figures, "near": near_figures}


def _measure_gate(run: RunDir, held_out: Sequence[str], similarity: float | None) -> tuple[Gatekeeper, dict[str, float]]:
    num_rows = 0

    def known() -> Iterator[Content]:
        nonlocal num_rows
        for num_rows, text in enumerate(read_texts(run), start=1):  # noqa: B007 -- the last number is the count
            yield text

    before, started, cpu = psutil.Process().memory_info().rss, time.perf_counter(), time.process_time()
    gate = Gatekeeper([_candidate("").label], 1000, known=known(), held_out=held_out, similarity=similarity)
    grown = psutil.Process().memory_info().rss - before
    figures = {"known_rows": num_rows, "rebuild_s": time.perf_counter() - started, "rebuild_cpu_s": time.process_time() - cpu}
    return gate, figures | {"rss_growth_mb": grown / 1e6, "rss_bytes_per_row": grown / num_rows}


def _measure_judging(gate: Gatekeeper, rows: Sequence[Candidate]) -> dict[str, float]:
    started, cpu = time.perf_counter(), time.process_time()
    admitted = 0
    for start in range(0, len(rows), ROWS_OF_A_REPLY):
        admitted += gate.judge(rows[start : start + ROWS_OF_A_REPLY]).count(None)
    wall_s, cpu_s = time.perf_counter() - started, time.process_time() - cpu
    return {"judged_rows": len(rows), "admitted": admitted, "rows_per_s": len(rows) / wall_s, "cpu_us_per_row": cpu_s / len(rows) * 1e6}


def measure_accuracy(texts: Sequence[str], copies_of_a_kind: int = COPIES_OF_A_KIND) -> dict[str, Any]:
    """Half of the copies are of rows of the run, half of rows that are held out."""
    generator, source, similarity = random.Random(4), TextSource(seed=4), GatesConfig().similarity
    vocabulary = source.words
    rows = generator.sample(texts, min(len(texts), ACCURACY_ROWS))
    num_held_out = len(rows) // 10
    # Held-out and known rows by turns, so that each kind has as many of both.
    originals = [row for pair in zip(rows[:num_held_out], rows[num_held_out : 2 * num_held_out], strict=True) for row in pair]
    queries: list[Query] = []
    for kind, alter in ALTERATIONS.items():
        for original in originals[len(queries) : len(queries) + copies_of_a_kind]:
            altered = original
            while comparable(altered) == comparable(original):
                altered = " ".join(alter(original.split(), generator, vocabulary))
            queries.append(Query(kind, altered))
    queries += [Query("no copy", source.row().text) for _ in range(copies_of_a_kind)]
    gate = Gatekeeper(
        [_candidate("").label],
        1000,
        known=rows[num_held_out:],
        held_out=rows[:num_held_out],
        similarity=similarity,
        remembered_rows=len(rows),
    )
    refusals = [gate.judge([_candidate(query.text)])[0] for query in queries]
    likeness = _likeness([*rows, *(query.text for query in queries)], len(rows))
    is_refused = np.array([refusal is not None and refusal.reason is not RejectionReason.DUPLICATE for refusal in refusals])
    is_alike = likeness >= similarity
    kinds = np.array([query.kind for query in queries])
    return {
        "rows": len(rows),
        "queries": len(queries),
        "recall": _share(is_refused, is_alike),
        "precision": _share(is_alike, is_refused),
        "precision_within_0.05": _share(likeness >= similarity - 0.05, is_refused),
        "recall_by_likeness": {
            f"{low:.2f} to {high:.2f}": _share(is_refused, (likeness >= low) & (likeness < high))
            for low, high in ((0.5, 0.6), (0.6, 0.65), (0.65, 0.7), (0.7, 0.75), (0.75, 0.8), (0.8, 0.9), (0.9, 1.01))
        },
        "by_alteration": {
            kind: {
                "mean_likeness": float(likeness[kinds == kind].mean()),
                "alike": float(is_alike[kinds == kind].mean()),
                "refused": float(is_refused[kinds == kind].mean()),
            }
            for kind in dict.fromkeys(kinds.tolist())
        },
    }


def _likeness(texts: Sequence[str], num_known: int) -> NDArray[np.float64]:
    """Of each text past the known ones, with the one before it that is most alike."""
    pieces = [_pieces(text) for text in texts]
    counts = np.array([len(found) for found in pieces])
    owners: defaultdict[str, list[int]] = defaultdict(list)
    for row, found in enumerate(pieces):
        for piece in found:
            owners[piece].append(row)
    rows_with = {piece: np.array(rows) for piece, rows in owners.items()}
    most: list[float] = []
    for row in range(num_known, len(texts)):
        shared = np.bincount(np.concatenate([rows_with[piece] for piece in pieces[row]]), minlength=len(texts))[:row]
        most.append(float((shared / (counts[:row] + counts[row] - shared)).max()))
    return np.array(most)


def _pieces(text: str) -> set[str]:
    padded = f" {comparable(text)} "
    return {padded[start : start + 4] for start in range(len(padded) - 3)}


def _share(part: NDArray[np.bool_], of: NDArray[np.bool_]) -> float | None:
    return float(part[of].mean()) if of.any() else None


def _candidate(text: str) -> Candidate:
    return Candidate(raw=text, text=text, label="a")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="a run directory with samples")
    parser.add_argument("--judged-rows", type=int, default=JUDGED_ROWS)
    parser.add_argument("--copies", type=int, default=COPIES_OF_A_KIND, help="altered copies of each kind")
    options = parser.parse_args()
    run = RunDir(options.run)
    speed = measure_gates(run, options.judged_rows)
    accuracy = measure_accuracy([text for text in islice(read_texts(run), 2 * ACCURACY_ROWS) if isinstance(text, str)], options.copies)
    print(json.dumps(speed | {"accuracy": accuracy}))


if __name__ == "__main__":
    main()
