"""What is told of a student, by itself or beside another: plain values for strategies, people and programs.

Invariant: a report holds no text of a validation or test row, for a prompt may show any of it. Its examples are mined rows; only where a
run mines on validation rows (`held_out`, recorded as a leak) are they such. A Comparison is another matter: it shows the rows it was asked
about, to who asked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from engine.records import Example, Span
from engine.text import Content


@dataclass(frozen=True, slots=True)
class ClassScore:
    """Scores of one label on a set of rows; where spans are marked, of one type of entity, found when its type and both ends are right."""

    label: str
    precision: float
    recall: float
    f1: float
    support: int
    """Rows of the label (also where a row has several), entities of the type; 0 says that its scores, which are 0 then, mean nothing."""


@dataclass(frozen=True, slots=True)
class Scores:
    """How well a student does on a set of rows."""

    accuracy: float
    """Share of the rows that are right; where spans are marked, or texts have several labels, of texts in which every span or label is
    found and none is made up."""
    macro_f1: float
    """Mean over the labels, or over the types of entities."""
    weighted_f1: float
    num_rows: int
    mcc: float = 0.0
    """Matthews correlation: 1 is perfect, 0 is chance. 0 where spans are marked, or texts have several labels, of which it says nothing."""
    micro_f1: float | None = None
    """Over all spans, as CoNLL counts, or all labels together; None where a text has one label, for there it is the accuracy."""
    has_sets: bool = False
    """Whether a text may have several labels."""

    @property
    def counted(self) -> Literal["rows", "labels", "entities"]:
        """What F1, and the support of a label or type, is of."""
        return "rows" if self.micro_f1 is None else "labels" if self.has_sets else "entities"


@dataclass(frozen=True, slots=True)
class Interval:
    """Where a score would lie in 95 of 100 draws of as many rows."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Intervals:
    """Of Scores."""

    accuracy: Interval
    macro_f1: Interval
    weighted_f1: Interval
    mcc: Interval
    micro_f1: Interval | None = None


@dataclass(frozen=True, slots=True)
class Calibration:
    """Whether a student is right as often as it is confident: of rows; where spans are marked, of the spans that it names."""

    confidence: float
    """Mean of the probabilities it gave to what it predicted; above the accuracy it is overconfident."""
    ece: float
    """Expected calibration error: by how much confidence and accuracy differ, on average over rows sorted into bins by confidence."""
    temperature: float
    """By which the logits are best divided; above 1 for an overconfident student."""
    ece_scaled: float
    """With that temperature, on the same rows."""
    precision: float | None = None
    """Share of the spans that are right, to hold the confidence against; None where that is the accuracy."""


@dataclass(frozen=True, slots=True)
class MinedRow:
    """A row the student predicted, right or wrong."""

    text: str
    label: str
    """Empty for tasks that mark spans, or whose texts may have several labels, as is `predicted`."""
    predicted: str
    confidence: float
    """Softmax probability of `predicted`; where spans are marked, that of the tag of the token of which the student was least sure; of
    several labels, that of the label, given or left out, of which it was least sure."""
    spans: tuple[Span, ...] = ()
    predicted_spans: tuple[Span, ...] = ()
    labels: tuple[str, ...] = ()
    """Where a text may have several; in the task's order, as are the predicted ones."""
    predicted_labels: tuple[str, ...] = ()
    text_pair: str | None = None
    """The second text of a pair; None where the row is no pair."""

    @property
    def content(self) -> Content:
        return self.text if self.text_pair is None else (self.text, self.text_pair)

    @property
    def example(self) -> Example:
        """The row itself."""
        return Example(self.text, self.label, self.spans, self.labels, self.text_pair)

    @property
    def is_right(self) -> bool:
        return self.label == self.predicted and self.spans == self.predicted_spans and self.labels == self.predicted_labels


@dataclass(frozen=True, slots=True)
class PoolRow:
    """A text of the unlabelled pool, with the student's guess."""

    text: str
    predicted: str
    confidence: float
    """Softmax probability of `predicted`."""
    text_pair: str | None = None
    """The second text, of a pool of pairs."""

    @property
    def content(self) -> Content:
        return self.text if self.text_pair is None else (self.text, self.text_pair)


@dataclass(frozen=True, slots=True)
class Confusion:
    """`count` rows of `label` were predicted as `predicted`, or entities of the one type as the other; of several labels, `label` was
    missed in so many rows in which `predicted` was wrongly said.
    """

    label: str
    predicted: str
    count: int
    examples: tuple[MinedRow, ...] = ()
    """Mined rows that were mistaken so, most confident first; none where none was mined."""


@dataclass(frozen=True, slots=True)
class Weakness:
    """Rows of one label, or entities of one type, that the student misses. No label and no type has two weaknesses."""

    name: str
    """`pair:LABEL>OTHER` if most of them are taken for one other label or type. If they are scattered, `class:LABEL`; of types
    `boundary:TYPE` if most are found with a wrong end, else `type:TYPE` (not found, made up, or some of everything)."""
    labels: tuple[str, ...]
    """The label or type, and for a pair the one it is taken for."""
    missed: int
    num_rows: int
    """On validation: `missed` of `num_rows` rows of the label. Of a type: of its entities, with the stretches that are no entity and were
    taken for one, each of which counts in both. Where a row may have several labels, rows count in both for which the label was made up
    while none was missed for it."""
    at_least: float
    """The share that is missed, at the lower end of its interval of 95 %: what the weakness is, if these rows were lucky ones."""
    examples: tuple[MinedRow, ...]
    """Mined rows of this kind, most confident first."""


@dataclass(frozen=True, slots=True)
class Slice:
    """Validation rows that have something in common, against all others."""

    name: str
    """`length:short`, `length:long`, `words:rare` or `words:unseen`; of entities `entity:long`, `entity:unseen` or `entity:first`."""
    meaning: str
    """In words, with the bounds."""
    num_rows: int
    """Or entities, in a slice of them."""
    accuracy: float
    rest_accuracy: float
    p_value: float
    """Of so much less accuracy than the rest by chance (Fisher's exact test, one-sided)."""
    of: int = 4
    """How many slices a report looks at."""

    @property
    def is_weak(self) -> bool:
        """Beyond what chance gives once in a hundred reports."""
        return self.p_value < 0.01 / self.of


@dataclass(frozen=True, slots=True)
class Change:
    """How the same validation rows fared under the previous report's student and under this one."""

    name: str
    """`all`, or what the weakness of a label or type was called before, or `class:LABEL` or `type:TYPE` if it had none."""
    num_rows: int
    """Of the label; texts with an entity of the type."""
    before: float
    """Share of the rows that was right."""
    after: float
    fixed: int
    """Rows that were wrong and are right."""
    broken: int
    """Rows that were right and are wrong."""
    p_value: float
    """Of so uneven a change by chance (McNemar's exact test); those of labels are adjusted for how many there are."""

    @property
    def is_real(self) -> bool:
        return self.p_value < 0.05


@dataclass(frozen=True, slots=True)
class WeaknessReport:
    """What the student knows and does not know after a round; round 0 is the student of the seed rows alone."""

    round: int
    loss: float
    """Mean cross-entropy on validation, of the kept checkpoint; where spans are marked, of a text's tokens and then of texts."""
    scores: Scores
    """On validation."""
    classes: tuple[ClassScore, ...]
    confusions: tuple[Confusion, ...]
    """On validation, most frequent first, without the diagonal."""
    mining: str
    """Where `right`, `wrong` and `hard` were mined: `train`, `out_of_fold` or `held_out`; `none` for a method that looks at no mistakes."""
    right: tuple[MinedRow, ...]
    wrong: tuple[MinedRow, ...]
    hard: tuple[MinedRow, ...]
    """The most confident mistakes, most confident first. `wrong` does not repeat them."""
    num_train_rows: int
    train_s: float
    epochs: int
    weaknesses: tuple[Weakness, ...] = ()
    """The surest first: by `at_least`, so that a label missed once in two rows does not stand above one missed forty times in a hundred."""
    slices: tuple[Slice, ...] = ()
    """Those with rows, the least likely to be chance first."""
    changes: tuple[Change, ...] = ()
    """Since the previous round: of all rows first, then of labels with any, the least likely to be chance first."""
    intervals: Intervals | None = None
    calibration: Calibration | None = None
    uncertain: tuple[PoolRow, ...] | None = None
    """What the student is least sure of in the unlabelled pool, the least sure first, without what has been asked about; as many as the
    method asks for in the rounds that may answer one report, fewer where the pool ends. None where nobody looked: only `pool` wants it."""
    hits: str = ""
    """A character for each validation row, in their order: 1 right, 0 wrong."""


@dataclass(frozen=True, slots=True)
class StudentScores:
    """One student on the test rows, read once."""

    round: int
    scores: Scores
    classes: tuple[ClassScore, ...]
    confusions: tuple[Confusion, ...]
    intervals: Intervals | None = None
    calibration: Calibration | None = None


@dataclass(frozen=True, slots=True)
class FinalReport:
    """The student's last word: the seed student and the kept one on test."""

    before: StudentScores
    after: StudentScores
    encoder: str
    num_parameters: int
    precision: str


@dataclass(frozen=True, slots=True)
class ClassNoise:
    """Rows of one label that seem to be of another."""

    label: str
    share: float
    """Of its rows."""
    suspected: int
    num_rows: int
    instead: str
    """What most of them seem to be."""


@dataclass(frozen=True, slots=True)
class LabelNoise:
    """Labels that the students who had not seen the rows confidently contradict: an estimate, not a verdict."""

    num_rows: int
    """Rows with an out-of-fold prediction by a student that knew enough."""
    suspected: int
    clean_share: float | None
    """The share of validation rows that would be suspected by the same rule: about so many are only hard. None where there are none."""
    classes: tuple[ClassNoise, ...]
    """Labels with any, the largest share first."""
    suspects: tuple[MinedRow, ...]
    """The surest ones, the surest first."""

    @property
    def share(self) -> float:
        return self.suspected / self.num_rows


@dataclass(frozen=True, slots=True)
class Copy:
    """A teacher row and the row it resembles; both texts of a pair in one line."""

    text: str
    original: str
    similarity: float
    """Share of common four-character pieces, as the gate counts them (case, spacing and punctuation do not matter)."""


@dataclass(frozen=True, slots=True)
class Copies:
    """Teacher rows that are nearly another row."""

    num_rows: int
    """Teacher rows looked at: all, or a draw where there are more than can be compared in a few seconds."""
    similarity: float
    """From which on a row counts as a copy."""
    of_seed: int
    of_teacher: int
    """Of another row looked at, neither of which is a copy of the seed. A pair counts once."""
    examples: tuple[Copy, ...]
    """The most alike first."""


@dataclass(frozen=True, slots=True)
class ClassDrift:
    label: str
    real: int
    synthetic: int
    """Rows of the label."""
    separability: float | None
    """As in Drift, of this label's rows; None where there are too few."""


@dataclass(frozen=True, slots=True)
class Drift:
    """How teacher rows differ from real ones (validation). Totals only: nothing here quotes a real row."""

    num_real: int
    num_synthetic: int
    separability: float | None
    """How well a linear model on words and neighbouring words tells real from teacher rows of the same labels that it has not seen, as area
    under the ROC curve: 0.5 not at all, 1.0 always. None where there are too few rows."""
    p_value: float | None
    """Of so large a separability by chance, if there were no difference."""
    mix_distance: float
    """Share of rows that would need another label for both to have the same mix of labels (total variation)."""
    real_words: float
    synthetic_words: float
    """Median length of a row."""
    length_distance: float
    """Largest difference between the two distributions of lengths (Kolmogorov-Smirnov): 0 equal, 1 disjoint."""
    new_words: float
    """Share of the words in teacher rows that stand in no real row."""
    missing_words: float
    """Share of the words in real rows that stand in no teacher row: what the student was never taught."""
    classes: tuple[ClassDrift, ...]
    """The most different first."""


@dataclass(frozen=True, slots=True)
class Audit:
    """The training rows of a finished run, looked at as a whole. None where a part has nothing to look at."""

    noise: LabelNoise | None
    """None also where `without_noise` says why nobody looked."""
    copies: Copies | None
    drift: Drift | None
    audit_s: float
    without_noise: str = ""
    """Why label noise was not looked for; empty where it was, or there was nothing to look at."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One score of two students on the same rows."""

    name: str
    first: float
    second: float
    interval: Interval
    """Of second - first, by drawing the same rows for both."""
    p_value: float
    """Of so large a difference, in either direction, by chance."""

    @property
    def is_real(self) -> bool:
        return self.p_value < 0.05


@dataclass(frozen=True, slots=True)
class ClassDifference:
    label: str
    support: int
    first: float
    second: float
    """F1."""
    fixed: int
    """Rows of the label that the first student gets wrong and the second right."""
    broken: int
    p_value: float
    """Of so uneven a change by chance (McNemar), adjusted for the number of labels."""

    @property
    def is_real(self) -> bool:
        return self.p_value < 0.05


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A row of which two students say different things; both texts of a pair in one line."""

    text: str
    label: str
    first: str
    first_confidence: float
    second: str
    second_confidence: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two students on the same rows."""

    num_rows: int
    agreed: int
    """Rows of which both say the same."""
    fixed: int
    broken: int
    """As in ClassDifference, over all rows."""
    p_value: float
    """Of so uneven a count of the two by chance (McNemar's exact test)."""
    differences: tuple[Difference, ...]
    """Macro F1, accuracy, weighted F1, MCC."""
    classes: tuple[ClassDifference, ...]
    """Labels with rows, the least likely to be chance first."""
    gained: tuple[Disagreement, ...]
    """Examples that the second gets right and the first wrong, the surest of the first's mistakes first."""
    lost: tuple[Disagreement, ...]
    """The other way round."""
    verdict: str
    """What it means, in a sentence."""
