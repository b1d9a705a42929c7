"""What the student is to tell apart, and where the real rows lie."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, model_validator

from engine.config.section import Name, Section
from engine.records import ONE_LABEL, Marking, TaskKind

TEXT_PAIR_COLUMN = "text_pair"
"""Where a task of pairs does not say how the column of its second texts is called."""


class LabelConfig(Section):
    """A class of texts, or a type of entities."""

    name: Name
    """What the student predicts; any characters."""
    description: str = ""
    """One sentence for the teacher: what belongs here and what does not."""


class DataConfig(Section):
    """The real rows: where they lie, and in which columns. Rows are never copied; a run remembers what they were, and refuses others."""

    seed: Path
    """Real labelled rows that the student starts from and the teacher is shown: a .jsonl, .csv or .parquet file, or a folder with a
    Hugging Face dataset (`folder:split` where it has several splits). So are the other three."""
    validation: Path
    """Real rows that score the student after each round. Never shown to the teacher, never trained on."""
    test: Path
    """Real rows read once, at the end."""
    pool: Path | None = None
    """Real texts without labels; None if there are none. They are read when needed, and may be more than memory holds."""
    text_column: str = Field(default="text", min_length=1)
    """The column with the texts, in all files; a file for `kind = "ner"` may have `tokens_column` instead."""
    text_pair_column: str | None = Field(default=None, min_length=1)
    """For `kind = "pair"`: the column with the second text of each row. None takes `text_pair`; for other kinds there is none."""
    label_column: str = Field(default="label", min_length=1)
    """The column with each row's one label: its name, or an id with the names in the dataset's own features (ClassLabel)."""
    labels_column: str = Field(default="labels", min_length=1)
    """For `kind = "multi_label"`: lists of label names or ids, empty for a text without labels; or strings that hold the labels of a row
    one after another, or as a JSON list."""
    label_separator: str = Field(default="|", min_length=1)
    """What stands between the labels in such a string. White space around a label is not part of it."""
    tokens_column: str = Field(default="tokens", min_length=1)
    """For `kind = "ner"`: the column with each text as a list of tokens, to which `tags_column` says what they are."""
    tags_column: str = Field(default="tags", min_length=1)
    """For `kind = "ner"`: IOB2 tags (`B-PER`) of the tokens, or numbers with the names in the dataset's own features."""
    spans_column: str = Field(default="spans", min_length=1)
    """For `kind = "ner"`, where a file has no tokens: `start`, `end` and `type` of each entity, in characters of the text. A file without
    has the entities between tags in the text (`to <place>Bern</place>`)."""
    seed_rows_per_class: int | None = Field(default=None, ge=1)
    """Draw this many seed rows of each class (by the run's seed), or so few that each entity type occurs that often; None takes all."""


class TaskConfig(Section):
    """What the student is to tell apart."""

    kind: TaskKind = "classification"
    """`classification` gives each text one label, `multi_label` any number of them; `pair` gives one label to two texts together; `ner`
    marks the entities in a text, and `labels` are their types."""
    domain: Name
    """What the texts are, in a phrase: "messages to the help desk of an online shop". Of pairs, what both are, the first one first: "a
    question to a shop, and a passage of its terms". It stands in every prompt."""
    labels: tuple[LabelConfig, ...] = Field(min_length=1)
    data: DataConfig
    max_text_chars: int = Field(default=2000, ge=1)
    """Teacher rows of more characters are refused as too long; real rows may have any length. Raise it where your own texts are longer."""
    marking: Marking = "inline"
    """How the teacher is asked to mark entities. `inline`, between tags in the text, says which of several places is meant, and writes
    each text once; `json`, in a list beside the text, has the types constrained too."""

    allow_none: bool = True
    """For `kind = "multi_label"`: a text may have no label at all. If not, rows without one are mistakes in your files, and refused from
    the teacher."""

    @property
    def text_pair_column(self) -> str | None:
        """Of the second texts; None where rows are no pairs."""
        return (self.data.text_pair_column or TEXT_PAIR_COLUMN) if self.kind == "pair" else None

    @model_validator(mode="after")
    def _there_is_a_choice(self) -> TaskConfig:
        if self.kind in ONE_LABEL and len(self.labels) < 2:
            raise ValueError("task.labels has one label, and a text could have no other; give at least two")
        return self

    @model_validator(mode="after")
    def _second_texts_are_of_pairs(self) -> TaskConfig:
        if self.kind != "pair" and self.data.text_pair_column is not None:
            raise ValueError(
                f"task.data.text_pair_column = {self.data.text_pair_column}, but task.kind = {self.kind} classifies one text; "
                'set kind = "pair", or leave the column out'
            )
        if self.text_pair_column == self.data.text_column:
            raise ValueError(
                f"task.data.text_column and text_pair_column are both {self.data.text_column!r}; the texts of a pair stand in two columns"
            )
        return self

    @model_validator(mode="after")
    def _labels_differ(self) -> TaskConfig:
        names = [label.name for label in self.labels]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"label names must differ; given more than once: {', '.join(twice)}")
        return self
