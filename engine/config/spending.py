"""What a run may take, when it no longer pays, and what things cost."""

from __future__ import annotations

from pydantic import Field

from engine.config.section import Section


class BudgetConfig(Section):
    """A run stops before it would go beyond any of these; what is under way is finished, and its round learned."""

    teacher_tokens: int | None = Field(default=None, ge=1)
    """Of prompts and replies together, as the servers count them."""
    accepted_rows: int | None = Field(default=None, ge=1)
    """Teacher rows that passed the gates, of all rounds together."""
    seconds: float | None = Field(default=None, gt=0)
    """Wall time that processes work on the run, server start and training included; the pauses between two starts do not count."""
    gpu_seconds: float | None = Field(default=None, gt=0)
    """Those seconds for each GPU that the teacher's servers hold (`cost.gpus`), busy or not."""
    money: float | None = Field(default=None, gt=0)
    """In `cost.currency`: what those seconds cost by the prices in `[cost]`, and the energy by `cost.watts`."""


class StopConfig(Section):
    """When going on no longer pays: judged by the same validation rows before and after, at the upper end of the gain's interval. So a run
    ends when a gain worth having could not have been missed by chance; few validation rows show little, and let it go on.
    """

    window: int = Field(default=3, ge=1)
    """Rounds over which the gain is looked at."""
    min_gain: float | None = Field(default=None, ge=0, lt=1)
    """Stop when they have surely gained less than this, in the share of validation rows that are right (0.01: one in a hundred); None never
    does."""
    min_gain_per_1000_tokens: float | None = Field(default=None, ge=0)
    """The same by 1,000 teacher tokens of those rounds."""
    confidence: float = Field(default=0.95, ge=0.5, lt=1)
    """That the rounds have gained less than that: the level of the interval, one-sided. Lower stops earlier, and more often by mistake."""


class CostConfig(Section):
    """Prices. What a run takes is counted in hours of GPUs and in kWh anyway; it is told in money where these say what that costs."""

    gpu_hour_price: float | None = Field(default=None, ge=0)
    """Of one of the teacher's GPUs for an hour, from the start of its server to its end, busy or not."""
    machine_hour_price: float | None = Field(default=None, ge=0)
    """Of the machine without its GPUs for an hour that processes work on the run: what a rented one without GPUs costs."""
    kwh_price: float | None = Field(default=None, ge=0)
    """Of a kWh. The energy is measured where GPUs (NVML) or processors (RAPL) tell of theirs."""
    currency: str = Field(default="USD", min_length=1, max_length=12)
    """In which all prices are; it is shown beside them, and nothing is converted."""
    watts: float | None = Field(default=None, gt=0)
    """What all machines of the run draw together, where nothing measures it; None leaves the energy unknown there."""
    gpus: float | None = Field(default=None, ge=0)
    """GPUs that all the teacher's servers hold together. None takes what servers of ours are started with, and one for each of
    `teacher.endpoint`."""
