"""Methods of teaching by name. To add one: a file with a class that keeps `strategy.Strategy`, and a line here."""

from collections.abc import Callable
from typing import Any

from engine.strategies.pgkd import Pgkd
from engine.strategies.strategy import Answer, Ask, Strategy, Written

STRATEGIES: dict[str, Callable[[Any, Any, Any, int], Strategy]] = {
    "pgkd": Pgkd,
}

__all__ = ["STRATEGIES", "Answer", "Ask", "Strategy", "Written"]
