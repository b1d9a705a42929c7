"""A student worker without a model: keeps the protocol of the run directory, and reports ever better scores.

python fake_student.py [--die-at ROUND] [--complain MESSAGE] [--at-once] [--kills NUMBER] [--gates FOLDER] RUN

With --kills, so many such processes are killed when they would report on a round. With --gates, a report is held back by the named pipe in
FOLDER that is named for its round, where there is one, until somebody opens it for writing.
"""

import argparse
import os
import signal
import sys
import time
from pathlib import Path

from engine.records import Finish
from engine.reports import ClassScore, FinalReport, MinedRow, Scores, StudentScores, WeaknessReport
from engine.rundir import RunDir, read_json, write_json
from engine.store import read_rounds, samples_since

LABELS = ("cancel", "change", "track")


def make_report(run: RunDir, round: int) -> WeaknessReport:
    f1 = 1 - 0.5 / (round + 1)
    wrong = (MinedRow("a mined text", "cancel", "change", 0.7),)
    return WeaknessReport(
        round=round,
        loss=1 / (round + 1),
        scores=Scores(f1, f1, f1, 9),
        classes=tuple(ClassScore(label, f1, f1, f1, 3) for label in LABELS),
        confusions=(),
        mining="train",
        right=(),
        wrong=wrong,
        hard=(),
        num_train_rows=6 + samples_since(run, 0, round).table.num_rows,
        train_s=0.0,
        epochs=1,
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--die-at", type=int)
    parser.add_argument("--complain")
    parser.add_argument("--at-once", action="store_true")
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--gates", type=Path)
    parser.add_argument("run", type=Path)
    options = parser.parse_args()
    if options.complain:
        print(f"error: {options.complain}", file=sys.stderr)
        sys.exit(2)
    run = RunDir(options.run)
    while True:
        last = max(run.reported_rounds(), default=-1)
        rounds = [round for round in [0, *(record.round for record in read_rounds(run))] if round > last]
        if rounds:
            round = rounds[-1] if options.at_once else rounds[0]
            if round == options.die_at:
                sys.exit("out of chalk")
            if round and (number := len(list(run.logs.glob("killed-*")))) < options.kills:
                (run.logs / f"killed-{number}").touch()
                os.kill(os.getpid(), signal.SIGKILL)
            if options.gates and (gate := options.gates / str(round)).exists():
                gate.open().close()
            write_json(run.report(round), make_report(run, round))
        elif run.finish.exists():
            finish = read_json(run.finish, Finish)
            before, after = (
                StudentScores(round, make_report(run, round).scores, make_report(run, round).classes, ())
                for round in (0, finish.best_round)
            )
            write_json(run.final_report, FinalReport(before, after, "none", 0, "none"))
            return
        else:
            time.sleep(0.02)


if __name__ == "__main__":
    main()
