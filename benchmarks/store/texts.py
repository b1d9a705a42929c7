"""Any number of messages to a help desk: what may follow what word is taken from the quickstart's teacher texts."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

_CORPUS = Path(__file__).parents[2] / "examples" / "quickstart" / "data" / "teacher.jsonl"
_MIN_WORDS, _MAX_WORDS = 8, 30
"""Shorter ones would come twice; of a million of these, nearly none does."""
_END = ""


class Row(NamedTuple):
    text: str
    label: str


class TextSource:
    """The same seed makes the same rows."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._first: list[Row] = []
        self._next: defaultdict[str, list[str]] = defaultdict(list)
        for line in _CORPUS.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            words = row["text"].split()
            self._first.append(Row(words[0], row["label"]))
            for word, following in zip(words, [*words[1:], _END], strict=True):
                self._next[word].append(following)

    @property
    def words(self) -> list[str]:
        return [*self._next]

    def row(self) -> Row:
        choose = self._random.choice
        while True:
            word, label = choose(self._first)
            words: list[str] = []
            while word != _END and len(words) <= _MAX_WORDS:
                words.append(word)
                word = choose(self._next[word])
            if _MIN_WORDS <= len(words) <= _MAX_WORDS:
                return Row(" ".join(words), label)
