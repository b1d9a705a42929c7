"""The teachers, how they draw their replies, and how they label."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from engine.config.section import Section


class TeacherConfig(Section):
    """The LLM that writes rows: a vLLM that this run starts and ends, or servers that run already."""

    model: str
    """A folder with a Hugging Face model, or a model id that vLLM can load."""
    endpoint: str | tuple[str, ...] | None = None
    """Base URL of a server that already runs (`http://host:8000/v1`), or a list of them, which share the work; None starts a vLLM for this
    run."""
    api_key_env: str = "REFLUX_API_KEY"
    """Environment variable with the key for `endpoint`; may be unset where the server wants none."""
    port: int | None = Field(default=None, ge=1, le=65535)
    """Port for our own server; None takes a free one."""
    max_model_len: int | None = Field(default=None, ge=64)
    """Context limit in tokens; None leaves it to the model."""
    kv_cache_gib: float = Field(default=1.0, gt=0)
    """Memory for the KV cache when the teacher runs on the CPU, in GiB."""
    gpu_memory_fraction: float = Field(default=0.7, gt=0, le=1)
    """Share of GPU memory for the teacher; the student needs the rest."""
    max_num_seqs: int | None = Field(default=None, ge=1)
    """Most replies the server writes at once; None takes 256 on the CPU, and leaves it to vLLM on a GPU."""
    eager: bool = True
    """Skip compilation: the server is there about 30 s earlier, and a large model is slower. Turn off for long runs on a GPU."""
    start_timeout_s: float = Field(default=900, gt=0)
    """Give up on a server that shows no new sign of life for this long while starting."""
    stall_timeout_s: float = Field(default=300, gt=0)
    """Restart a server of ours that has work and computes no token for this long."""
    extra_args: tuple[str, ...] = ()
    """More arguments for vLLM's server, as on its command line."""
    share: float = Field(default=1.0, ge=0)
    """Where there are several teachers: part of the assignments that this one writes, beside the others' shares. With 0 it only labels."""

    @property
    def endpoints(self) -> tuple[str, ...]:
        return (self.endpoint,) if isinstance(self.endpoint, str) else self.endpoint or ()


class SamplingConfig(Section):
    """How the teacher draws its replies."""

    temperature: float = Field(default=1.0, ge=0)
    """Of the teacher's draws: the higher, the more they differ, and the more of them are wrong. At 0 equal prompts bring equal rows, which
    are refused as duplicates."""
    top_p: float = Field(default=0.95, gt=0, le=1)
    """Tokens are drawn from the likeliest ones that have this probability together; 1 allows all."""
    max_tokens: int = Field(default=1024, ge=1)
    """Longest reply, in tokens: all rows of a request have to fit. One that is cut off is asked for again with twice as many, up to
    `max_tokens_bound`."""
    max_tokens_bound: int = Field(default=4096, ge=1)
    """Where that doubling ends; a reply that is cut off here too keeps its whole rows, and the others count as failed."""
    constrained: bool = True
    """Have the server constrain replies to the JSON schema of the rows. Parsing does not rely on it."""


class LabellingConfig(Section):
    """How texts are labelled that were written without a label, or that come from the pool."""

    texts_per_request: int | None = Field(default=None, ge=1)
    """Texts of one reply that are labelled, or marked, in one request. None labels all of them together, which spares prompts; small models
    lose count, and are better asked about one at a time."""
    soft: bool = False
    """Ask for the teacher's distribution over the labels, by the log-probabilities of short codes, one text a request. Rows then carry
    probabilities, which the student learns from (`student.soft_labels`). It wants a server that gives log-probabilities, as vLLM does."""
    min_agreement: float = Field(default=0.5, ge=0, le=1)
    """Rows whose label has less of the teacher's probability, or of several teachers' votes, are refused as `uncertain`. Without either it
    means nothing."""
    calibrate: Literal["seed", "validation", "none"] = "seed"
    """The real rows on which a teacher's probabilities are calibrated: it labels them before it labels anything else. `validation` shows
    their texts to the teacher, which a run records as a leak."""
    calibration_rows: int = Field(default=200, ge=1)
    """At most so many of those are labelled, of all classes alike."""
    top_logprobs: int = Field(default=20, ge=2, le=26)
    """Tokens of each place that the server tells of; vLLM gives 20 unless started with more (`--max-logprobs`). With 20, one call covers 20
    labels, and up to 200 take two tokens and as many further calls as there are likely first letters."""
    explore: float = Field(default=0.05, gt=0, le=1)
    """With more labels than one call covers: a first letter that has at least this probability, and was not the likeliest, gets a call
    of its own. Below it, its labels share what it has."""
