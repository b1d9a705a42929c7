"""Split the corpus into teacher, seed, validation and test rows: `python examples/quickstart/split.py` rewrites data/*.jsonl.

The teacher split is all that the quickstart's teacher is trained on. The other three stand for the user's real rows, and the teacher
never sees them. Rows that are near copies of each other always land in one split, so that no test row has a twin elsewhere.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from corpus import FOLDER, Utterance, near_copies, read_corpus

DATA = Path(__file__).parent / "data"
SEED = 20260
SIZES = {"seed": 12, "validation": 20, "test": 50}
"""Rows of each intent; all others go to the teacher."""


def split(corpus: Mapping[str, Sequence[Utterance]]) -> dict[str, list[tuple[str, Utterance]]]:
    """Split name -> (intent, message), shuffled; the same corpus gives the same splits."""
    texts = [row.text for rows in corpus.values() for row in rows]
    twins = {texts[i] for i, j, _ in near_copies(texts, texts) if i != j}
    splits: dict[str, list[tuple[str, Utterance]]] = {"teacher": [], **{name: [] for name in SIZES}}
    for intent, rows in corpus.items():
        generator = random.Random(f"{SEED} {intent}")
        # A row with a twin anywhere goes to the teacher's side, where a twin does no harm.
        single = [row for row in rows if row.text not in twins]
        splits["teacher"] += [(intent, row) for row in rows if row.text in twins]
        generator.shuffle(single)
        for name, size in SIZES.items():
            splits[name] += [(intent, single.pop()) for _ in range(size)]
        splits["teacher"] += [(intent, row) for row in single]
    for name, rows in splits.items():
        random.Random(f"{SEED} {name}").shuffle(rows)
    return splits


def main() -> None:
    DATA.mkdir(exist_ok=True)
    for name, rows in split(read_corpus(FOLDER)).items():
        lines = (
            json.dumps({"text": row.text, "label": intent, "spans": [asdict(span) for span in row.spans]}, ensure_ascii=False)
            for intent, row in rows
        )
        (DATA / f"{name}.jsonl").write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        print(f"{name:10} {len(rows)} rows")


if __name__ == "__main__":
    main()
