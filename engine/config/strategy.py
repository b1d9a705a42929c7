"""What each method of teaching can be told: one section a method, told apart by `type`.

Defaults are those of the publications. Every method runs in rounds and says which rows the student is to mine for it; a method that looks
at no mistakes mines none.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import Discriminator, Field, Tag

from engine.config.section import Section

Mining: TypeAlias = Literal["out_of_fold", "train", "held_out", "none"]


class _Strategy(Section):
    is_judged_by_last_round: ClassVar[bool] = False
    """Whether out of fold only the rows of the last round are mined, and not also earlier ones where it has few of a kind."""


class _Method(_Strategy):
    rounds: int = Field(default=10, ge=1)
    """At most this many rounds; `patience`, `[budget]` and `[stop]` may end the run before."""
    patience: int | None = Field(default=5, ge=1)
    """Stop after this many rounds without a lower validation loss; None always runs all rounds."""
    reset_patience: bool = True
    """Start counting again at each improvement; False counts all rounds without one."""
    rows_per_round: int = Field(default=32, ge=1)
    """Rows that the teacher is asked for in a round, not those that pass the gates. Published methods ask for few; a local teacher writes
    hundreds in the time that the student takes to learn them."""
    rows_per_call: int = Field(default=8, ge=1)
    """Rows asked for in one request; a round is split into as many requests as that takes."""


class _Unsighted(_Method):
    """Shows the teacher nothing of the student."""

    mining: ClassVar[Mining] = "none"
    right: ClassVar[int] = 0
    wrong: ClassVar[int] = 0
    hard: ClassVar[int] = 0


class _Sighted(_Method):
    right: int = Field(default=16, ge=0)
    """Rows shown that the student gets right, drawn evenly from the classes."""
    wrong: int = Field(default=16, ge=0)
    """Rows shown that the student gets wrong, drawn evenly from the classes; `hard` ones are not among them."""
    hard: int = Field(default=16, ge=0)
    """Rows shown that the student gets wrong and is surest of."""
    mining: Literal["out_of_fold", "train", "held_out"] = "out_of_fold"
    """Where right, wrong and hard rows come from. `held_out` shows validation rows to the teacher and so leaks them into training."""


class PgkdConfig(_Sighted):
    """PGKD (Di Palo et al., EMNLP 2024, arXiv 2411.05045)."""

    type: Literal["pgkd"] = "pgkd"
    rows_per_call: int = Field(default=32, ge=1)
    focus: bool | None = None
    """Name one weakness (a class or a confused pair) in each request. None does so where a round has a request for every label, and
    leaves the choice to the teacher, as published, where it has fewer."""
    examples: int = Field(default=16, ge=0)
    """Labelled seed rows shown; 0 shows none, which leaves the teacher to its own idea of the texts."""


class EvokdConfig(_Sighted):
    """EvoKD (Liu et al., LREC-COLING 2024, arXiv 2403.06414): weakness analysis, texts, labels, each a turn of its own.

    The student is judged by the last round's rows before it learns them, which is what `mining = "out_of_fold"` means. Its published way of
    learning, a batch several times (`epochs`) with a review now and then, is the student's: `weights = "continue"`, `update =
    "incremental"`, `replay_every`. With these +Init is left behind as published, too; by default its rows stay among those learned.
    """

    is_judged_by_last_round: ClassVar[bool] = True

    type: Literal["evokd"] = "evokd"
    patience: int | None = Field(default=None, ge=1)
    right: int = Field(default=64, ge=0)
    """Rows of the last batch that the student got right, and that the report holds; each analysis is shown some of them (`shown`)."""
    wrong: int = Field(default=64, ge=0)
    """The same of those that it got wrong."""
    hard: int = Field(default=0, ge=0)
    shown: int = Field(default=8, ge=1)
    """Rows that were right, and as many that were wrong, shown in one analysis; each draws its own."""
    patterns: int = Field(default=5, ge=1)
    """Patterns that an analysis may name."""
    easy_share: float = Field(default=0.5, ge=0, le=1)
    """Share of the texts that the student should get right; they keep it from forgetting."""
    first_batch: Literal["seed", "unguided"] = "seed"
    """Which rows are judged first: the seed's, or those of a first round that is asked without looking at the student."""
    init_rounds: int = Field(default=0, ge=0)
    """+Init: rounds of AugGPT rows before the others. They are near to the seed: mind `gates.near_duplicates`."""


class HybridConfig(_Sighted):
    """PGKD's report, hard rows and taxonomy with EvoKD's separate labelling and easy rows; asks for each weakness by what it is worth."""

    type: Literal["hybrid"] = "hybrid"
    rows_per_round: int = Field(default=256, ge=1)
    right: int = Field(default=8, ge=0)
    wrong: int = Field(default=8, ge=0)
    hard: int = Field(default=8, ge=0)
    examples: int = Field(default=8, ge=0)
    """Labelled seed rows shown."""
    mistakes: int = Field(default=3, ge=0)
    """Of the very weakness that a request is about, mined rows shown."""
    labelling: Literal["separate", "none"] = "separate"
    """`separate` has texts written without labels, and labels them in a request of its own; `none` takes the label of who wrote the row."""
    disagreement: Literal["refuse", "keep"] = "refuse"
    """What becomes of a text whose separate label is not the one it was asked for: refused, or kept with the label it got."""
    easy_share: float = Field(default=0.25, ge=0, lt=1)
    """Share of the requests that want typical rows, of all classes alike."""
    lengths: tuple[str, ...] = ("a few words", "one sentence", "two or three sentences")
    """Each row is asked for in one of these lengths, so that rows differ; say them as to a writer. An empty list asks for none."""
    styles: tuple[str, ...] = ("plain", "colloquial", "polite", "upset", "roundabout", "as a question", "carelessly typed")
    """The same for its style. The defaults are those of messages that people write; replace them for other texts."""
    min_gain: float = Field(default=0.02, ge=0, le=1)
    """By how much a weakness has to fall to count as moved: 1 - F1 of a class, or the share of a class's rows that are mistaken so."""
    rest_after: int | None = Field(default=3, ge=1)
    """A weakness that has not moved by `min_gain` in so many reports is not asked for in as many rounds; None never lets one rest."""


class UnguidedConfig(_Unsighted):
    """The control: PGKD's prompt without a word about the student."""

    type: Literal["unguided"] = "unguided"
    rows_per_call: int = Field(default=32, ge=1)
    focus: bool | None = None
    """Name one label in each request, all alike; None as for PGKD."""
    examples: int = Field(default=16, ge=0)
    """Labelled seed rows shown, as PGKD shows them, so that the two differ by the student's report alone."""


class ZerogenConfig(_Unsighted):
    """ZeroGen: one label a request, no examples, no feedback."""

    type: Literal["zerogen"] = "zerogen"


class AuggptConfig(_Unsighted):
    """AugGPT: seed rows in other words. What comes of it is near to the seed: mind `gates.near_duplicates`."""

    type: Literal["auggpt"] = "auggpt"
    rows_per_call: int = Field(default=4, ge=1)
    """Rephrasings of one seed row in one request."""


class AttrpromptConfig(_Unsighted):
    """AttrPrompt: rows of given length, style and sub-topic. The teacher is asked for sub-topics of each label, and for styles, first."""

    type: Literal["attrprompt"] = "attrprompt"
    lengths: tuple[str, ...] = ("a few words", "one sentence", "two or three sentences")
    """Each row is asked for in one of these lengths; say them as to a writer. An empty list asks for none."""
    styles: tuple[str, ...] | None = None
    """The same for its style; None has the teacher name styles that fit the domain, once a round."""
    num_values: int = Field(default=8, ge=1)
    """Sub-topics of a label, and styles, asked for in each round."""


class Llm2llmConfig(_Method):
    """LLM2LLM: variants of the seed rows that the student gets wrong, and of no others. It wants `student.weights = "fresh"`."""

    type: Literal["llm2llm"] = "llm2llm"
    rows_per_call: int = Field(default=4, ge=1)
    """Variants of one seed row in one request."""
    mining: Literal["train", "out_of_fold"] = "train"
    """`train` as published; a student that has learned the seed by heart has nothing wrong there."""
    wrong: int = Field(default=1000, ge=1)
    """Wrong rows that the report holds; those of the seed among them are used."""
    right: ClassVar[int] = 0
    hard: ClassVar[int] = 0


class EdaConfig(_Unsighted):
    """EDA: words of seed rows dropped, swapped and borrowed, without a teacher. What comes of it is near to the seed: mind
    `gates.near_duplicates`.
    """

    type: Literal["eda"] = "eda"
    rows_per_call: int = Field(default=4, ge=1)
    """Variants of one seed row at a time."""
    change: float = Field(default=0.3, gt=0, le=1)
    """Share of a row's words that is changed."""


class PoolConfig(_Unsighted):
    """Active learning: the teacher labels rows of `task.data.pool` that the student is least sure of."""

    type: Literal["pool"] = "pool"
    pick: Literal["uncertain", "random"] = "uncertain"
    """`random` is the control. Where no student has looked at the pool rows are drawn at random too, and their `weakness` says so."""
    rows_per_call: int = Field(default=1, ge=1)
    """Texts labelled in one request."""


class SeedOnlyConfig(_Strategy):
    """No teacher rows at all: what the seed alone is worth."""

    type: Literal["seed_only"] = "seed_only"
    rounds: ClassVar[int] = 0
    patience: ClassVar[int | None] = None
    reset_patience: ClassVar[bool] = True
    rows_per_round: ClassVar[int] = 0
    mining: ClassVar[Mining] = "none"
    right: ClassVar[int] = 0
    wrong: ClassVar[int] = 0
    hard: ClassVar[int] = 0


METHODS: dict[str, type[_Strategy]] = {
    str(section.model_fields["type"].default): section
    for section in (
        PgkdConfig,
        EvokdConfig,
        HybridConfig,
        UnguidedConfig,
        ZerogenConfig,
        AuggptConfig,
        AttrpromptConfig,
        Llm2llmConfig,
        EdaConfig,
        PoolConfig,
        SeedOnlyConfig,
    )
}


def _method(value: Any) -> Any:
    """A section without `type` is PGKD's."""
    return value.get("type", "pgkd") if isinstance(value, dict) else getattr(value, "type", None)


StrategyConfig: TypeAlias = Annotated[
    Annotated[PgkdConfig, Tag("pgkd")]
    | Annotated[EvokdConfig, Tag("evokd")]
    | Annotated[HybridConfig, Tag("hybrid")]
    | Annotated[UnguidedConfig, Tag("unguided")]
    | Annotated[ZerogenConfig, Tag("zerogen")]
    | Annotated[AuggptConfig, Tag("auggpt")]
    | Annotated[AttrpromptConfig, Tag("attrprompt")]
    | Annotated[Llm2llmConfig, Tag("llm2llm")]
    | Annotated[EdaConfig, Tag("eda")]
    | Annotated[PoolConfig, Tag("pool")]
    | Annotated[SeedOnlyConfig, Tag("seed_only")],
    Discriminator(_method),
]
