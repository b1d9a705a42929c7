"""What a run keeps on disk: the journal of the teacher's answers, the tables as Parquet segments, and SQL over them."""

from engine.store.compaction import Compacted, compact
from engine.store.query import Result, connect, explain_error, open_query, run_query, stored_as_json
from engine.store.schemas import SCHEMAS, Ending, Evaluation, unpack_calls, unpack_rejections, unpack_samples
from engine.store.store import Store
from engine.store.tables import (
    NewSamples,
    append_evaluation,
    read_calls,
    read_prompt,
    read_rejections,
    read_rounds,
    read_samples,
    read_texts,
    samples_since,
)
from engine.store.text import escape, unescape
from engine.store.yields import read_yields

__all__ = [
    "SCHEMAS",
    "Compacted",
    "Ending",
    "Evaluation",
    "NewSamples",
    "Result",
    "Store",
    "append_evaluation",
    "compact",
    "connect",
    "escape",
    "explain_error",
    "open_query",
    "read_calls",
    "read_prompt",
    "read_rejections",
    "read_rounds",
    "read_samples",
    "read_texts",
    "read_yields",
    "run_query",
    "samples_since",
    "stored_as_json",
    "unescape",
    "unpack_calls",
    "unpack_rejections",
    "unpack_samples",
]
