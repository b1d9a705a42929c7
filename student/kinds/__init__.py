"""What a kind of task asks of the worker: how its rows are encoded, and how a student's answers are judged. A new kind is a new small file
here, a head that answers, and a line in `KINDS`.
"""

from collections.abc import Sequence

from student.kinds.classification import Classification
from student.kinds.kind import Kind, Review
from student.kinds.multi_label import MultiLabel
from student.kinds.ner import Ner

KINDS: dict[str, type[Kind]] = {"classification": Classification, "multi_label": MultiLabel, "ner": Ner, "pair": Classification}


def kind_of(name: str, labels: Sequence[str]) -> Kind:
    """Of a task with these labels; `name` as in `TaskSpec`."""
    return KINDS[name](tuple(labels))


__all__ = ["KINDS", "Classification", "Kind", "MultiLabel", "Ner", "Review", "kind_of"]
