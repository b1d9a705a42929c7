# pyright: reportUnknownParameterType=false
# (pyarrow's classes have no type stubs, so that naming them says something to readers only)

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from engine.errors import StoreError
from engine.store.schemas import pack_samples
from student.data import tokenise
from student.rowcache import RowCache
from tests.student.builders import LABELS, make_rows, make_sample, make_tokenizer

SEED = make_rows(2)


def make_cache(folder: Path, **changes: Any) -> RowCache:
    tokenizer = make_tokenizer()
    for name, value in changes.items():
        setattr(tokenizer, name, value)
    return RowCache(folder / "rows", tokenizer, LABELS)


def samples(round: int, count: int = 3) -> pa.Table:
    """In no particular order."""
    rows = [make_sample(10 * round + number, f"the apple {round} \ud800", "fruit", round) for number in range(count)]
    return pack_samples(reversed(rows))


def test_rows_are_numbered_in_the_order_learned(tmp_path: Path) -> None:
    cache = make_cache(tmp_path)
    assert cache.add_seed(SEED) == range(6)
    assert cache.add_samples(1, samples(1)) == range(6, 9)
    assert cache.add_samples(2, samples(2, 0)) == range(9, 9)
    assert cache.add_samples(3, samples(3, 1)) == range(9, 10)
    assert cache.examples([9, 0, 6]) == [
        cache.examples([9])[0],
        SEED[0],
        cache.examples([7])[0],
    ]
    assert cache.examples([9])[0].text == "the apple 3 ?"
    rows = cache.rows([9, 1, 0])
    assert [list(tokens) for tokens in rows.tokens] == tokenise(make_tokenizer(), ["the apple 3 ?", SEED[1].text, SEED[0].text])
    assert rows.labels == [0, 0, 0]
    assert (rows.weights, rows.distributions) == (None, None)
    assert cache.labels.tolist() == [LABELS.index(row.label) for row in SEED] + [0] * 4


def test_a_later_worker_maps_what_is_there(tmp_path: Path) -> None:
    first = make_cache(tmp_path)
    first.add_seed(SEED)
    first.add_samples(1, samples(1))
    second = make_cache(tmp_path)
    assert second.restore(1)
    assert second.examples(range(9)) == first.examples(range(9))
    assert second.first_of(1) == 6
    # A round that was begun before a kill is taken in again.
    assert second.add_samples(2, samples(2)) == range(9, 12)


def test_tokens_of_another_tokenizer_are_not_taken(tmp_path: Path) -> None:
    make_cache(tmp_path).add_seed(SEED)
    assert make_cache(tmp_path).restore(0)
    assert not make_cache(tmp_path, model_max_length=4).restore(0)
    assert not make_cache(tmp_path).restore(1)


def test_weights_and_distributions_come_along_where_the_table_has_them(tmp_path: Path) -> None:
    cache = make_cache(tmp_path)
    cache.add_seed(SEED[:1])
    table = samples(1, 2).drop_columns(["agreement", "label_probabilities"])
    table = table.append_column("agreement", pa.array([0.5, None], pa.float64()))
    cache.add_samples(1, table.append_column("label_probabilities", pa.array([[0.5, 0.25, 0.25], None])))
    rows = cache.rows([0, 2, 1])
    # Of the two the second came first.
    assert rows.weights == [1.0, 0.5, 1.0]
    assert rows.distributions is not None
    assert [None if row is None else list(row) for row in rows.distributions] == [None, [0.5, 0.25, 0.25], None]


def test_a_label_outside_the_task_is_said_so(tmp_path: Path) -> None:
    cache = make_cache(tmp_path)
    with pytest.raises(StoreError, match="label 'mineral', which is none of the task's"):
        cache.add_samples(1, pack_samples([make_sample(1, "a text", "mineral", 1)]))


def test_texts_that_are_cut_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = make_cache(tmp_path)
    cache.add_samples(1, pack_samples([make_sample(1, "apple " * 100, "fruit", 1), make_sample(2, "", "fruit", 1)]))
    assert "1 of 2 texts are longer than 64 tokens and are cut there" in caplog.text
    assert [len(tokens) for tokens in cache.rows([0, 1]).tokens] == [64, 2]


def test_tokens_are_views_of_the_file(tmp_path: Path) -> None:
    cache = make_cache(tmp_path)
    cache.add_seed(SEED)
    tokens = cache.rows([0]).tokens[0]
    assert isinstance(tokens, np.ndarray)
    assert not tokens.flags.owndata
