"""Small values for the engine's tests."""

from pathlib import Path

from engine.config import DataConfig, LabelConfig, TaskConfig
from engine.records import Example, Label, TaskSpec
from engine.reports import ClassScore, Confusion, MinedRow, Scores, Weakness, WeaknessReport

LABELS = ("cancel", "change", "track")


def make_task(labels: tuple[str, ...] = LABELS, seed_per_class: int = 2) -> TaskSpec:
    def rows(split: str, count: int) -> tuple[Example, ...]:
        return tuple(Example(f"{split} text {number} about {label}", label) for number in range(count) for label in labels)

    return TaskSpec(
        kind="classification",
        domain="messages to a help desk",
        labels=tuple(Label(label, f"all about {label}") for label in labels),
        seed=rows("seed", seed_per_class),
        validation=rows("validation", 3),
        test=rows("test", 3),
    )


def make_task_config() -> TaskConfig:
    """Of a run whose rows are handed to it: the files are nowhere."""
    nowhere = Path("unused.jsonl")
    return TaskConfig(
        domain="messages",
        labels=tuple(LabelConfig(name=label) for label in LABELS),
        data=DataConfig(seed=nowhere, validation=nowhere, test=nowhere),
    )


def make_report(
    round: int = 0,
    *,
    loss: float = 1.0,
    f1: dict[str, float] | None = None,
    confusions: tuple[Confusion, ...] = (),
    wrong: int = 1,
    weaknesses: tuple[Weakness, ...] = (),
    hits: str = "",
) -> WeaknessReport:
    scores = f1 or dict.fromkeys(LABELS, 0.5)
    mean = sum(scores.values()) / len(scores)
    return WeaknessReport(
        round=round,
        loss=loss,
        scores=Scores(mean, mean, mean, 30),
        classes=tuple(ClassScore(label, value, value, value, 10) for label, value in scores.items()),
        confusions=confusions,
        mining="out_of_fold",
        right=(MinedRow("a right text", "track", "track", 0.9),),
        wrong=tuple(MinedRow(f"a wrong text {number}", "cancel", "change", 0.6) for number in range(wrong)),
        hard=(MinedRow("a hard text", "change", "cancel", 0.99),),
        num_train_rows=6,
        train_s=0.1,
        epochs=1,
        weaknesses=weaknesses,
        hits=hits,
    )
