"""All sections of a run, and what one of them rules out in another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from engine.config.generation import EngineConfig, GatesConfig, LoopConfig, VariantsConfig
from engine.config.section import Section
from engine.config.spending import BudgetConfig, CostConfig, StopConfig
from engine.config.strategy import METHODS, PgkdConfig, StrategyConfig
from engine.config.student import StudentConfig
from engine.config.task import TaskConfig
from engine.config.teacher import LabellingConfig, SamplingConfig, TeacherConfig
from engine.records import ONE_LABEL, TaskKind

UNFIT: dict[TaskKind, dict[str, str]] = {
    "multi_label": {"eda": "borrows words from rows of the same label, of which a text may have several"},
    "ner": {"eda": "moves and drops words, and would tear entities"},
}
"""Methods that cannot write rows for a kind of task, and why."""


class RunConfig(Section):
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
