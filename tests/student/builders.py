"""A student small enough for tests, a task that it can learn, and run directories as an engine leaves them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from engine.config import RunConfig
from engine.records import Example, Finish, Origin, RoundRecord, RowCounts, Sample
from engine.rundir import RunDir, write_json
from engine.runs.manifest import begin
from engine.store.schemas import pack_rounds, pack_samples
from engine.store.segments import write_segment

LABELS = ("fruit", "tool", "beast")
WORDS = {
    "fruit": ("apple", "pear", "plum", "cherry"),
    "tool": ("hammer", "saw", "chisel", "drill"),
    "beast": ("wolf", "bear", "otter", "heron"),
}
FILLERS = ("the", "a", "one", "old", "small", "bright", "please", "again")


def make_texts(label: str, count: int, offset: int = 0) -> list[str]:
    """Texts of words of the class among fillers; different ones for different numbers."""
    return [make_text(WORDS[label], number) for number in range(offset, offset + count)]


def make_text(words: Sequence[str], number: int) -> str:
    rest = [words[number // 3 % 4], "again"] * (number % 3) + ["the"] * (number // 64)
    return " ".join([FILLERS[number % 8], words[number % 4], FILLERS[number // 8 % 8], *rest])


def make_rows(per_class: int, offset: int = 0) -> list[Example]:
    return [Example(text, label) for label in LABELS for text in make_texts(label, per_class, offset)]


def make_tokenizer() -> PreTrainedTokenizerFast:
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = [*specials, *FILLERS, *(word for words in WORDS.values() for word in words)]
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(vocabulary)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))  # pyright: ignore[reportAttributeAccessIssue]
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=64, **dict(zip(names, specials, strict=True)))


def make_encoder(folder: Path, *, mean_pooled: bool = False) -> Path:
    """A random BERT of two layers, the same each time."""
    import torch

    tokenizer = make_tokenizer()
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=48,
        initializer_range=0.3,  # with the usual one, so small a network says the same of every text
    )
    with torch.random.fork_rng():
        torch.manual_seed(7)
        BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if mean_pooled:
        (folder / "1_Pooling").mkdir()
        (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_mean_tokens": True}), encoding="utf-8")
    return folder


def make_config(folder: Path, encoder: Path, **sections: dict[str, Any]) -> RunConfig:
    """A configuration over real files with 2 seed, 6 validation and 6 test rows a class."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in (("seed", make_rows(2)), ("validation", make_rows(6, 100)), ("test", make_rows(6, 200))):
        lines = "".join(json.dumps({"text": row.text, "label": row.label}) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    student = {
        "encoder": str(encoder),
        "batch_size": 8,
        "epochs": 3,
        "min_steps": 6,
        "learning_rate": 2e-3,
        "head_learning_rate": 5e-2,
        "precision": "float32",
        "device": "cpu",
        **sections.get("student", {}),
    }
    return RunConfig.model_validate(
        {
            "name": "test",
            "task": {
                "domain": "things",
                "labels": [{"name": label} for label in LABELS],
                "data": {name: folder / f"{name}.jsonl" for name in ("seed", "validation", "test")},
            },
            "teacher": {"model": "nobody"},
            "student": student,
            "strategy": sections.get("strategy", {}),
            "loop": sections.get("loop", {}),
        }
    )


def make_run(root: Path, config: RunConfig) -> RunDir:
    run = RunDir(root)
    run.create()
    begin(run, config)
    return run


def make_sample(number: int, text: str, label: str, round: int) -> Sample:
    origin = Origin(round, round - 1, f"r{round:04d}-a0000", "none", "pgkd", "pgkd/generate@0", "0" * 32, "nobody", f"{number:032x}")
    return Sample(f"{number:032x}-0", text, label, origin)


def complete_round(run: RunDir, round: int, rows: Sequence[Example]) -> None:
    """What the engine does when a round's rows are complete. Samples lie in the order in which answers happen to come back."""
    samples = [make_sample(1000 * round + number, row.text, row.label, round) for number, row in enumerate(rows)]
    if samples:
        write_segment(run.table("samples"), pack_samples(reversed(samples)))
    counts = RowCounts(requested=len(rows), accepted=len(rows))
    write_segment(run.table("rounds"), pack_rounds([RoundRecord(round, round - 1, 1, 1, counts, 10, 10, 0.1)]))


def finish(run: RunDir, best_round: int, rounds: int) -> None:
    write_json(run.finish, Finish(best_round, rounds, "test"))
