"""What wordings have brought, as far as it may decide what is asked next."""

from __future__ import annotations

from engine.rundir import RunDir
from engine.store.query import run_query
from engine.variants import Yield

_SQL = """
SELECT wording, sum(prompt_tokens + completion_tokens)::BIGINT AS tokens, sum(accepted)::BIGINT AS accepted
FROM variant_rounds WHERE round < $round GROUP BY wording ORDER BY wording
"""


def read_yields(run: RunDir, round: int) -> list[Yield]:
    """Of all rounds before this one, which are complete; what it has itself committed before a kill does not count."""
    return [Yield(**row) for row in run_query(run, _SQL, {"round": round}).to_pylist()]
