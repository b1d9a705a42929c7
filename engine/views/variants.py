"""What each wording of a template brought to a run, for people and programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table

from engine.rundir import RunDir
from engine.store import run_query
from engine.views.display import plain_table


@dataclass(frozen=True, slots=True)
class VariantFigures:
    """Of the assignments that a wording had a part in, all their turns together; see `engine.store.views`."""

    template: str
    variant: str
    """`default` is the ordinary template."""
    wording: str
    """Name and version, as every row and call has it."""
    rounds: int
    """In which it was used."""
    assignments: int
    requested: int
    accepted: int
    rejected: int
    failed: int
    surplus: int
    prompt_tokens: int
    completion_tokens: int
    reasons: dict[str, int]
    """Rejected rows by reason."""
    rows_per_1000_tokens: float | None
    """Accepted ones; None where no token was used."""
    gain: float | None
    """Its share of what the student gained in macro F1 on validation; None before the student has said so."""
    gain_per_1000_tokens: float | None


def read_variants(run: RunDir) -> list[VariantFigures]:
    """Of every template that was used, the ordinary wording first; committed rows only. May be asked while the run goes on."""
    rows = run_query(run, "SELECT * FROM variants").to_pylist()
    return [VariantFigures(**row | {"reasons": dict(row["reasons"])}) for row in rows]


def compared(figures: Sequence[VariantFigures]) -> list[VariantFigures]:
    """Those of templates that were used in more than one wording."""
    templates = [one.template for one in figures]
    return [one for one in figures if templates.count(one.template) > 1]


def variants_view(figures: Sequence[VariantFigures]) -> Table:
    """One line a wording."""
    columns = ("template", "variant", "requests", "asked", "accepted", "rejected", "failed", "tokens", "rows / 1,000 tokens", "gain",
               "gain / 1,000 tokens", "rejected by reason")  # fmt: skip
    lines = [
        (
            *(one.template, one.variant, one.assignments, one.requested, one.accepted, one.rejected, one.failed),
            one.prompt_tokens + one.completion_tokens,
            *(one.rows_per_1000_tokens, one.gain, "" if one.gain_per_1000_tokens is None else f"{one.gain_per_1000_tokens:+.5f}"),
            ", ".join(f"{reason} {count}" for reason, count in sorted(one.reasons.items(), key=lambda item: -item[1])),
        )
        for one in figures
    ]
    return plain_table(columns, lines, title="By wording (gain: of macro F1 on validation, shared out by accepted rows: no measurement)")
