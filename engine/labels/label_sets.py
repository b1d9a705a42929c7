"""Any number of labels of one text: known ones, each once, in the task's order. What is none is a LabelSetError, which says why."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from engine.records import RejectionReason

_MAX_SHOWN = 100


class LabelSetError(ValueError):
    """A label is unknown, stands there twice, or there is none where there has to be one."""

    def __init__(self, problem: str, reason: RejectionReason = RejectionReason.SCHEMA) -> None:
        super().__init__(problem)
        self.reason = reason


def label_set(labels: Sequence[str], known: Collection[str], *, allow_none: bool = True) -> tuple[str, ...]:
    """The same labels in the order of `known`."""
    if not labels and not allow_none:
        raise LabelSetError("no label, and the task wants one at least")
    unknown = next((label for label in labels if label not in known), None)
    if unknown is not None:
        raise LabelSetError(f"label {unknown[:_MAX_SHOWN]!r}", RejectionReason.UNKNOWN_LABEL)
    given = set(labels)
    if len(given) < len(labels):
        twice = next(label for place, label in enumerate(labels) if label in labels[:place])
        raise LabelSetError(f"label {twice[:_MAX_SHOWN]!r} more than once")
    return tuple([label for label in known if label in given])
