"""A student that learns for a fixed time: python -m benchmarks.loop.scripted_student SECONDS RUN

Keeps the protocol of the run directory: learns all rounds that are complete when it is free, then reports on them.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from engine.config import restore_config
from engine.records import Finish
from engine.reports import ClassScore, FinalReport, Scores, StudentScores, WeaknessReport
from engine.rundir import RunDir, read_json, write_json
from engine.runs.manifest import Manifest
from engine.store import read_rounds
from engine.task.task import load_task

POLL_S = 0.01


def main(seconds: float, run: RunDir) -> None:
    config = restore_config(read_json(run.run_json, Manifest).config)
    labels = load_task(config.task, config.seed).label_names
    write_json(run.report(0), make_report(0, labels))
    last = 0
    while True:
        is_over = run.finish.exists()
        newest = max((record.round for record in read_rounds(run)), default=0)
        if newest > last:
            time.sleep(seconds)
            last = newest
            write_json(run.report(last), make_report(last, labels))
        elif is_over:
            break
        else:
            time.sleep(POLL_S)
    reports = [make_report(round, labels) for round in (0, read_json(run.finish, Finish).best_round)]
    before, after = (StudentScores(report.round, report.scores, report.classes, ()) for report in reports)
    write_json(run.final_report, FinalReport(before, after, "none", 0, "none"))


def make_report(round: int, labels: tuple[str, ...]) -> WeaknessReport:
    """Better each round, so that patience never ends the run."""
    f1 = 1 - 0.5 / (round + 1)
    return WeaknessReport(
        round=round,
        loss=1 - f1,
        scores=Scores(f1, f1, f1, 10 * len(labels)),
        classes=tuple(ClassScore(label, f1, f1, f1, 10) for label in labels),
        confusions=(),
        mining="train",
        right=(),
        wrong=(),
        hard=(),
        num_train_rows=0,
        train_s=0.0,
        epochs=1,
    )


if __name__ == "__main__":
    main(float(sys.argv[1]), RunDir(Path(sys.argv[2])))
