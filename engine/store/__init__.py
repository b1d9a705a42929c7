"""What a run keeps on disk: the journal of the teacher's answers, the tables as Parquet segments, and SQL over them."""

from engine.store.query import connect, run_query
from engine.store.schemas import SCHEMAS, Evaluation, unpack_calls, unpack_samples
from engine.store.store import Ending, Store, Totals
from engine.store.tables import NewSamples, append_evaluation, read_rounds, read_samples, samples_since
from engine.store.text import escape, unescape

__all__ = [
    "SCHEMAS",
    "Ending",
    "Evaluation",
    "NewSamples",
    "Store",
    "Totals",
    "append_evaluation",
    "connect",
    "escape",
    "read_rounds",
    "read_samples",
    "run_query",
    "samples_since",
    "unescape",
    "unpack_calls",
    "unpack_samples",
]
