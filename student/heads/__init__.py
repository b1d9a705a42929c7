"""What stands on the encoder and says the answer. A new kind of answer is a new small file here and a line in `HEADS`."""

from student.heads.head import Head, LogProbabilities, Objective, Targets
from student.heads.single_label import SingleLabel

HEADS: dict[str, Head] = {"classification": SingleLabel()}
"""By the kind of task."""

__all__ = ["HEADS", "Head", "LogProbabilities", "Objective", "SingleLabel", "Targets"]
