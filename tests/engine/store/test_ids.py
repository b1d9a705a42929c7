# pyright: reportUnknownParameterType=false
# (pyarrow's classes have no type stubs)

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.store import ids as module
from engine.store.ids import Ids

# Few first halves, so that many ids share theirs.
hex_ids = st.one_of(
    st.integers(0, 2**128 - 1).map(lambda number: f"{number:032x}"),
    st.tuples(st.sampled_from(["0" * 16, "a" * 16, "f" * 16]), st.integers(0, 3)).map(lambda parts: f"{parts[0]}{parts[1]:016x}"),
)
batches = st.lists(st.tuples(st.booleans(), st.lists(hex_ids, max_size=6)), max_size=6)


@given(batches, hex_ids)
def test_each_id_has_the_place_in_which_it_came(batches: list[tuple[bool, list[str]]], other: str) -> None:
    ids = Ids()
    places: dict[str, int] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MAX_RECENT", 4)
        for as_column, batch in batches:
            new = [id for id in dict.fromkeys(batch) if id not in places]
            places.update({id: place for place, id in enumerate(new, start=len(places))})
            if as_column:
                ids.add_column(pa.chunked_array([new[:1], new[1:]], pa.string()))
            else:
                ids.add(new)
    assert {id: ids.position(id) for id in places} == places
    assert len(ids) == len(places)
    assert (other in ids) == (other in places)


def test_short_ids_are_themselves() -> None:
    ids = Ids()
    ids.add_column(pa.chunked_array([["a1"]]))
    ids.add(["b2"])
    assert [ids.position(id) for id in ("a1", "b2", "c3")] == [0, 1, None]
