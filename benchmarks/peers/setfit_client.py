"""SetFit's own trainer: contrastive pairs, then a logistic head, with its defaults but for what the driver says."""

# The peer is installed in its own environment only.
# pyright: reportMissingImports=false

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from datasets import Dataset
from sentence_transformers import SentenceTransformer
from setfit import SetFitModel, Trainer, TrainingArguments
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score

PAIRS = 5
"""Pairs of each kind that a row is put into: with SetFit's own choice they grow with the square of the rows."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--encoder", required=True)
    parser.add_argument("--folder", type=Path, required=True)
    for option in ("num-labels", "batch-size", "max-length", "seed"):
        parser.add_argument(f"--{option}", type=int, required=True)
    options = parser.parse_args()
    sets = {name: Dataset.from_json(str(options.folder / f"{name}.jsonl")) for name in ("train", "test")}
    body = SentenceTransformer(options.encoder)
    body.max_seq_length = options.max_length
    model = SetFitModel(model_body=body, model_head=LogisticRegression(max_iter=1000))
    arguments = TrainingArguments(
        output_dir=str(options.folder / "checkpoints"),
        batch_size=options.batch_size,
        num_epochs=1,
        num_iterations=PAIRS,
        seed=options.seed,
        save_strategy="no",
        report_to="none",
        show_progress_bar=False,
    )
    trainer = Trainer(model=model, args=arguments, train_dataset=sets["train"])
    cpu, start = time.process_time(), time.perf_counter()
    trainer.train()
    train_s, cpu_s = time.perf_counter() - start, time.process_time() - cpu
    predicted = [int(label) for label in model.predict(sets["test"]["text"])]
    macro_f1 = f1_score(sets["test"]["label"], predicted, labels=range(options.num_labels), average="macro")
    result = {"train_s": train_s, "cpu_s": cpu_s, "macro_f1": float(macro_f1)}
    (options.folder / "result.json").write_text(json.dumps(result) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
