"""How rows are asked for, in which wordings, and what they have to pass."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from engine.config.section import Section

VariantName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,39}$")]


class EngineConfig(Section):
    """How requests reach the servers. Nothing here has to be set: the engine finds out what each server can take."""

    concurrency: int | None = Field(default=None, ge=1)
    """Replies that each server writes at once. None finds out, from what the server tells of itself and from what it gets done."""
    requests_per_second: int | None = Field(default=None, ge=1)
    """A ceiling for servers shared with others; None sets none."""
    requests_per_minute: int | None = Field(default=None, ge=1)
    """The same by the minute, for providers that count so; both may be set."""
    request_timeout_s: float = Field(default=600, gt=0)
    """For one attempt, until the whole answer is there."""
    stall_timeout_s: float = Field(default=60, gt=0)
    """For one attempt, between two pieces of an answer that has begun."""
    attempts: int = Field(default=4, ge=1)
    """Times a request is sent before it ends as a Failure."""
    server_patience_s: float = Field(default=120, ge=0)
    """How long a server that we did not start may be away before the run stops (it resumes); with several, the others go on meanwhile."""


class LoopConfig(Section):
    """How teacher and student take turns."""

    max_staleness: int = Field(default=0, ge=0)
    """Complete rounds that may wait for a report while the teacher writes the next one. 0 is the published lock-step: teacher and student
    wait for each other. With more, the teacher goes on against the newest report while the student learns, and the student learns all
    rounds that are complete at once."""
    teacher_cores: float | None = Field(default=None, gt=0, lt=1)
    """Share of the processor's cores for a vLLM of ours on the CPU; the student, if it is not on a GPU, gets the others. None takes half
    where both compute at the same time (`max_staleness` above 0), and all of them in turns."""


class GatesConfig(Section):
    """What teacher rows have to pass, besides being well formed. What is refused is kept with its reason (table `rejections`)."""

    scripts: bool = True
    """Refuse rows that are mainly written in a script (Latin, Chinese, ...) that no seed row is mainly written in."""
    near_duplicates: bool = True
    """Refuse rows that are much like a row of the seed or of this run, or like one of validation or test. Exact copies always are."""
    similarity: float = Field(default=0.7, ge=0.5, le=1)
    """From which share of common four-character pieces on two texts are near duplicates. At 0.7 a message of eight words with one word
    dropped, moved or misspelt mostly is one, with one word changed every second time; at 0.8 few of the changed ones are."""
    remembered_rows: int = Field(default=1_000_000, ge=1000)
    """Of more rows the newest this many are compared with. They take 200 bytes each, from the start."""


class VariantsConfig(Section):
    """Other wordings of templates, which share each round's assignments with the ordinary ones."""

    policy: Literal["even", "bandit"] = "bandit"
    """`even` gives all wordings of a template as many assignments. `bandit` gives more to those that brought more accepted rows for their
    tokens in the rounds before."""
    templates: dict[str, Annotated[dict[VariantName, Path], Field(min_length=1)]] = Field(default={})
    """By template (`"pgkd/generate"`), a file for each variant's name. The ordinary template takes part too, as `default`."""

    @model_validator(mode="after")
    def _default_is_taken(self) -> VariantsConfig:
        for template, files in self.templates.items():
            if "default" in files:
                raise ValueError(
                    f"{template}: the ordinary template takes part as `default`, so no variant has that name; choose another, or put your "
                    "own in its place by a folder (prompts)"
                )
        return self
