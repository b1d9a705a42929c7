"""Methods of teaching by name. To add one: a file with a class that keeps `strategy.Strategy`, and a line here."""

from collections.abc import Callable
from typing import Any

from engine.config import RunConfig
from engine.prompting import Prompter
from engine.records import TaskSpec
from engine.strategies.attrprompt import Attrprompt
from engine.strategies.auggpt import Auggpt
from engine.strategies.eda import Eda
from engine.strategies.evokd import Evokd
from engine.strategies.hybrid import Hybrid
from engine.strategies.llm2llm import Llm2llm
from engine.strategies.pgkd import Pgkd
from engine.strategies.pool import PoolLabelling
from engine.strategies.seed_only import SeedOnly
from engine.strategies.strategy import Answer, Ask, Strategy, Written
from engine.strategies.unguided import Unguided
from engine.strategies.zerogen import Zerogen

STRATEGIES: dict[str, Callable[[Any, Any, Any, int], Strategy]] = {
    "pgkd": Pgkd,
    "evokd": Evokd,
    "hybrid": Hybrid,
    "unguided": Unguided,
    "zerogen": Zerogen,
    "auggpt": Auggpt,
    "attrprompt": Attrprompt,
    "llm2llm": Llm2llm,
    "eda": Eda,
    "pool": PoolLabelling,
    "seed_only": SeedOnly,
}
"""Each is made of its section of the configuration, the task, the prompter and the run's seed."""


def make_strategy(config: RunConfig, task: TaskSpec, prompter: Prompter) -> Strategy:
    """The one that the configuration names. Blocking: it may read files."""
    return STRATEGIES[config.strategy.type](config.strategy, task, prompter, config.seed)


__all__ = ["STRATEGIES", "Answer", "Ask", "Strategy", "Written", "make_strategy"]
