"""What a run keeps on disk: the journal of the teacher's answers, the tables as Parquet segments, and SQL over them."""

from engine.store.compaction import Compacted, compact
from engine.store.query import connect, run_query
from engine.store.schemas import SCHEMAS, Ending, Evaluation, unpack_calls, unpack_samples
from engine.store.store import Store, Totals
from engine.store.tables import NewSamples, append_evaluation, read_calls, read_rounds, read_samples, read_texts, samples_since
from engine.store.text import escape, unescape

__all__ = [
    "SCHEMAS",
    "Compacted",
    "Ending",
    "Evaluation",
    "NewSamples",
    "Store",
    "Totals",
    "append_evaluation",
    "compact",
    "connect",
    "escape",
    "read_calls",
    "read_rounds",
    "read_samples",
    "read_texts",
    "run_query",
    "samples_since",
    "unescape",
    "unpack_calls",
    "unpack_samples",
]
