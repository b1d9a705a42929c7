"""The configuration of a run: a section for each part of the system, which receives its own and never the whole tree."""

from engine.config.files import change_config, dump_config, load_config, resolve_model, restore_config
from engine.config.generation import EngineConfig, GatesConfig, LoopConfig, VariantsConfig
from engine.config.run import UNFIT, RunConfig
from engine.config.spending import BudgetConfig, CostConfig, StopConfig
from engine.config.strategy import (
    METHODS,
    AttrpromptConfig,
    AuggptConfig,
    EdaConfig,
    EvokdConfig,
    HybridConfig,
    Llm2llmConfig,
    PgkdConfig,
    PoolConfig,
    SeedOnlyConfig,
    StrategyConfig,
    UnguidedConfig,
    ZerogenConfig,
)
from engine.config.student import StudentConfig
from engine.config.task import TEXT_PAIR_COLUMN, DataConfig, LabelConfig, TaskConfig
from engine.config.teacher import LabellingConfig, SamplingConfig, TeacherConfig

__all__ = [
    "METHODS",
    "TEXT_PAIR_COLUMN",
    "UNFIT",
    "AttrpromptConfig",
    "AuggptConfig",
    "BudgetConfig",
    "CostConfig",
    "DataConfig",
    "EdaConfig",
    "EngineConfig",
    "EvokdConfig",
    "GatesConfig",
    "HybridConfig",
    "LabelConfig",
    "LabellingConfig",
    "Llm2llmConfig",
    "LoopConfig",
    "PgkdConfig",
    "PoolConfig",
    "RunConfig",
    "SamplingConfig",
    "SeedOnlyConfig",
    "StopConfig",
    "StrategyConfig",
    "StudentConfig",
    "TaskConfig",
    "TeacherConfig",
    "UnguidedConfig",
    "VariantsConfig",
    "ZerogenConfig",
    "change_config",
    "dump_config",
    "load_config",
    "resolve_model",
    "restore_config",
]
