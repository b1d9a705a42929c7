"""A student as a folder to take home: the Hugging Face folder as it is, and graphs for onnxruntime beside it, for where there is no torch.

Invariants: the folder appears under its name when it is complete, loads again, and each graph in it predicts what the student predicts;
else nothing is there. Weights are safetensors.

    config.json, model.safetensors, tokenizer.json, tokenizer_config.json, README.md
    onnx/model.onnx          float32
    onnx/model_int8.onnx     weights in int8, activations quantised as they come
"""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

import numpy as np
import torch

from engine.errors import ExportError, UserError
from engine.records import TaskKind
from engine.text import Content
from student.checkpoint import STATE
from student.data import collate, tokenise_counting
from student.hardware import Hardware
from student.model import Student, load_student
from student.onnx_predictor import INSTALL, ONNX_FILES, OnnxPredictor
from student.predictions import AnyPredictions, SetPredictions, SpanPredictions
from student.predictor import Predictor
from student.span_evaluation import spans_of

Format: TypeAlias = Literal["onnx", "onnx-int8"]

MAX_DIFFERENCE = 1e-3
"""Of a probability in float32. The same sums in another order differ by some millionths; a graph that is wrong, by tenths."""
MIN_SAME_LABELS = {"onnx": 0.999, "onnx-int8": 0.9}
"""Share of rows whose label, or of several labels and of spans, those that may not change. Rounded weights change it where the student was
nearly undecided: with MiniLM on sixteen intents, half of them easily confused, on 2 to 6 rows of 100 at the same score (agreement in the
files of `make bench-inference` and `make bench-cost`)."""
OPSET = 17
_CARRIED = ("*.json", "model*.safetensors", "*.txt", "*.model", "README.md")
"""What a student's folder consists of. Nothing else is taken along, weights in formats that run code when loaded least of all."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far a graph predicts what the student in torch, in float32, predicts."""

    backend: Format
    file: str
    megabytes: float
    num_rows: int
    same_labels: float
    """Share of the rows. Of a student that marks spans, or gives a text several labels: of those that either of the two names, those that
    both name.
    """
    max_difference: float
    """Of the probability of any label of any row, or any tag of any token."""
    mean_difference: float
    per_channel: bool | None = None
    """Of int8: whether each column of a matrix has a scale of its own. The better of the two was taken. None for float32."""


@dataclass(frozen=True, slots=True)
class Exported:
    folder: str
    labels: tuple[str, ...]
    max_length: int
    graphs: tuple[Agreement, ...]


def export_student(
    source: Path, target: Path, formats: Sequence[Format], texts: Sequence[Content], card: str | None = None, *, is_measured: bool = False
) -> Exported:
    """`texts` are what a graph is compared with the student on. `card` takes the place of the README.md in `source`. `is_measured`: a graph
    of rounded weights is written however far it agrees, for who wants to know what it is worth.

    Raises UserError if there is no student in `source`, something is in `target`, or a library is missing; ExportError if a graph cannot be
    made, or does not agree.
    """
    student = load_student(source)
    _require_free(target)
    if formats:
        _require_libraries()
        if not texts:
            raise UserError("no rows to compare predictions on; give a file with texts as --data")
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        _copy(source, temporary, card)
        graphs = _write_graphs(student, temporary, formats, texts, is_measured=is_measured)
        _describe(graphs, temporary / "README.md")
        load_student(temporary)
        if target.exists():
            target.rmdir()
        temporary.rename(target)
    except OSError as error:
        raise UserError(f"cannot write {target}: {error.strerror or error}") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Exported(str(target), student.labels, student.max_length, tuple(graphs))


def _require_free(target: Path) -> None:
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise UserError(f"{target} is there already; choose another folder, or remove it first")


def _require_libraries() -> None:
    missing = [name for name in ("onnx", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"exporting to ONNX needs {' and '.join(missing)}; {INSTALL}")


def _copy(source: Path, target: Path, card: str | None) -> None:
    target.mkdir(parents=True)
    for path in sorted({path for pattern in _CARRIED for path in source.glob(pattern)}):
        shutil.copyfile(path, target / path.name)
    (target / STATE).unlink(missing_ok=True)
    if card is not None:
        (target / "README.md").write_text(card, encoding="utf-8")


def _write_graphs(
    student: Student, folder: Path, formats: Sequence[Format], texts: Sequence[Content], *, is_measured: bool
) -> list[Agreement]:
    if not formats:
        return []
    (folder / "onnx").mkdir()
    hardware = Hardware(torch.device("cpu"), "float32")
    expected = Predictor(student, hardware).predict_texts(texts)
    _trace(student, folder / ONNX_FILES["onnx"])
    exact = _compare(folder, "onnx", texts, expected)
    _require(exact, student.kind)
    found: list[Agreement] = []
    if "onnx-int8" in formats:
        found.append(_quantise(folder, texts, expected))
        if not is_measured:
            _require(found[0], student.kind)
    if "onnx" in formats:
        found.insert(0, exact)
    else:
        (folder / ONNX_FILES["onnx"]).unlink()
    return found


def _describe(graphs: Sequence[Agreement], card: Path) -> None:
    """Add to the model card what the graphs are, and how well they agree."""
    if not graphs or not card.exists():
        return
    lines = [
        f"| `{graph.file}` | {graph.megabytes} MB | {graph.same_labels:.2%} on {graph.num_rows} rows | {graph.max_difference:.2g} |"
        for graph in graphs
    ]
    section = [
        "\n## Without torch\n",
        "Graphs for onnxruntime: `reflux predict path/to/this/folder texts.csv --backend onnx` (or `onnx-int8`).\n",
        "| graph | size | says the same as the student | largest difference of a probability |",
        "|---|---|---|---|",
        *lines,
    ]
    with card.open("a", encoding="utf-8") as file:
        file.write("\n".join(section) + "\n")


def _trace(student: Student, file: Path) -> None:
    """The exporter that traces. The newer one, by torch.export, makes the same graphs in more than ten times the time."""
    # Padding and batches of more than one row have to be in the example, or the tracer takes them for what never comes.
    texts: list[Content] = ["a", "a longer example"] if student.kind != "pair" else [("a", "b"), ("a longer example", "and a second")]
    tokens, _, _, firsts = tokenise_counting(student.tokenizer, texts)
    example = collate(tokens, student.padding, torch.device("cpu"), firsts if student.tells_apart else None)
    model = cast(Any, student.model).cpu().eval()
    attention = model.config._attn_implementation
    inner = {0: "rows", 1: "tokens"}
    axes = dict.fromkeys(example, inner) | {"logits": inner if student.kind == "ner" else {0: "rows"}}
    try:
        # The plain formula for attention gives the plainest graph.
        model.set_attn_implementation("eager")
        with warnings.catch_warnings(), torch.inference_mode():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                model,
                (example,),
                str(file),
                input_names=list(example),
                output_names=["logits"],
                dynamic_axes=axes,
                opset_version=OPSET,
                dynamo=False,
            )
    except Exception as error:  # whatever an architecture does that the tracer does not know
        raise ExportError(f"{student.model.config.model_type} cannot be exported to ONNX: {_first_line(error)}") from error
    finally:
        model.set_attn_implementation(attention)


def _quantise(folder: Path, texts: Sequence[Content], expected: AnyPredictions) -> Agreement:
    """Both ways, of which the one stays that is nearer to the student."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    source, final = folder / ONNX_FILES["onnx"], folder / ONNX_FILES["onnx-int8"]
    tried: list[tuple[Agreement, bytes]] = []
    for per_channel in (True, False):
        with _quiet():
            # Seven bits: with eight, processors without VNNI overflow, and predict something else than this one.
            quantize_dynamic(source, final, per_channel=per_channel, reduce_range=True, weight_type=QuantType.QInt8)
        tried.append((_compare(folder, "onnx-int8", texts, expected, per_channel), final.read_bytes()))
    best, content = min(tried, key=lambda trial: (-trial[0].same_labels, trial[0].mean_difference))
    final.write_bytes(content)
    return best


def _compare(
    folder: Path, backend: Format, texts: Sequence[Content], expected: AnyPredictions, per_channel: bool | None = None
) -> Agreement:
    # Through the folder, as its user will: words and labels are compared too.
    found = OnnxPredictor.load(folder, backend).predict_texts(texts)
    if found.labels != expected.labels:
        raise ExportError(f"the exported labels are {found.labels}, the student's {expected.labels}")
    differences = np.abs(np.exp(found.log_probabilities) - np.exp(expected.log_probabilities))
    if isinstance(expected, SpanPredictions):
        # Special tokens and white space are never asked, so that what the student says of them is arbitrary.
        differences = differences[np.concatenate([places[:, 0] < places[:, 1] for places in expected.places])]
    file = folder / ONNX_FILES[backend]
    return Agreement(
        backend,
        ONNX_FILES[backend],
        round(file.stat().st_size / 1e6, 1),
        len(texts),
        _share_of_same(found, expected),
        float(differences.max(initial=0.0)),
        float(differences.mean()) if differences.size else 0.0,
        per_channel,
    )


def _share_of_same(found: AnyPredictions, expected: AnyPredictions) -> float:
    """Of the rows, or of the spans or labels that either of them names."""
    if isinstance(found, SetPredictions) and isinstance(expected, SetPredictions):
        num_labels = found.said.sum() + expected.said.sum()
        return float(2 * (found.said & expected.said).sum() / num_labels) if num_labels else 1.0
    if not isinstance(found, SpanPredictions) or not isinstance(expected, SpanPredictions):
        return float((found.log_probabilities.argmax(axis=1) == expected.log_probabilities.argmax(axis=1)).mean())
    pairs = [({*spans_of(one)}, {*spans_of(other)}) for one, other in zip(found.decoded(), expected.decoded(), strict=True)]
    num_spans = sum(len(one) + len(other) for one, other in pairs)
    return sum(2 * len(one & other) for one, other in pairs) / num_spans if num_spans else 1.0


def _require(found: Agreement, kind: TaskKind) -> None:
    least = MIN_SAME_LABELS[found.backend]
    things = {"multi_label": "labels are the same", "ner": "spans are the same"}.get(kind, "rows keep their label")
    problem = ""
    # What is no number compares as false: asked for what should be, it fails.
    if not found.same_labels >= least:
        problem = f"on {found.num_rows} rows only {found.same_labels:.1%} of the {things}, expected {least:.1%}"
    elif found.backend == "onnx" and not found.max_difference <= MAX_DIFFERENCE:
        problem = f"a probability differs by {found.max_difference:.4f}, expected {MAX_DIFFERENCE} at most"
    if problem:
        advice = "leave out --int8" if found.backend == "onnx-int8" else "use the folder with torch"
        raise ExportError(f"{found.file} does not predict what the student predicts: {problem}; nothing was written, {advice}")


@contextmanager
def _quiet() -> Generator[None]:
    """Without onnxruntime's advice to optimise the graph before, which it does itself when it loads one."""
    root = logging.getLogger()
    refuse = logging.Filter("nothing is called so")
    root.addFilter(refuse)
    try:
        yield
    finally:
        root.removeFilter(refuse)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
