"""What may come: any string Python can hold (lone surrogates and NUL among them), any count, any moment to the microsecond."""

from __future__ import annotations

from hypothesis import strategies as st

from engine.records import Alternative

any_text = st.text(st.one_of(st.characters(), st.sampled_from("\0\ud800\udfff\ufdd0d'\"<>;")))
counts = st.integers(0, 2**31)
seconds = st.integers(0, 2**51).map(lambda microseconds: microseconds / 1_000_000)
logprobs = st.lists(st.lists(st.builds(Alternative, any_text, st.floats(-9999.0, 0.0)), max_size=3).map(tuple), max_size=2).map(tuple)
