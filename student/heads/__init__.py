"""What stands on the encoder and says the answer. A new kind of answer is a new small file here and a line in `HEADS`."""

from student.heads.head import Head, LogProbabilities, Objective, Targets, cross_entropy
from student.heads.multi_label import MultiLabel
from student.heads.single_label import SingleLabel
from student.heads.token import TokenTags, mean_token_loss

HEADS: dict[str, Head] = {head.kind: head for head in (SingleLabel(), SingleLabel("pair"), TokenTags(), MultiLabel())}
"""By the kind of task."""

__all__ = [
    "HEADS",
    "Head",
    "LogProbabilities",
    "MultiLabel",
    "Objective",
    "SingleLabel",
    "Targets",
    "TokenTags",
    "cross_entropy",
    "mean_token_loss",
]
