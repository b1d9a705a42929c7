"""The student's side of a run: learns each round's rows as they are completed, and reports where it is weak.

It meets the engine in the run directory only. A round goes: new rows -> train -> checkpoint -> evaluations row -> weakness report. The
report comes last: where it is, the rest is.

Invariants:
- Weights and watermark move together, so after a kill nothing is learned twice and nothing is skipped: the worker goes on from its last
  checkpoint, and one without a report is evaluated again, not trained again.
- Every seed is derived from the run's seed and the round, so a resumed run learns what an undisturbed one would have.
- Test rows are read once, when the engine has said its last word.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterable, Iterator, Sequence

from engine.config import RunConfig, restore_config
from engine.errors import StoreError
from engine.manifest import Manifest
from engine.records import Example, FinalReport, Finish, Sample, StudentScores, TaskSpec, WeaknessReport
from engine.rundir import RunDir, read_json, write_json
from engine.stopping import best_round
from engine.store import Evaluation, append_evaluation, read_rounds, samples_since, unpack_samples
from engine.task import load_task
from student.checkpoint import (
    Checkpoint,
    Progress,
    checkpoint_rounds,
    keep_checkpoints,
    load_checkpoint,
    publish,
    remove_leftovers,
    save_checkpoint,
)
from student.data import Rows, TokenCache, readable
from student.diagnosis import Mined, as_predictions, assign_folds, mine
from student.evaluation import ScoreCard, score
from student.hardware import choose_hardware
from student.inference import predict
from student.model import Student, new_student
from student.trainer import Training, train

POLL_S = 0.05
"""Between two looks at the rounds table's folder."""

log = logging.getLogger(__name__)


def work(run: RunDir) -> None:
    """Until the engine has finished and the final report is written. One worker at a time: UserError if another holds the run."""
    run.create()
    with run.lock("student"):
        remove_leftovers(run)
        worker = _restore(run)
        for round in completed_rounds(run, worker.progress.round):
            worker.learn(round)
        worker.finish(read_json(run.finish, Finish))


def completed_rounds(run: RunDir, last: int) -> Iterator[int]:
    """Each round after `last`, as soon as its rows are complete; ends when the engine has finished and all are given."""
    seen: frozenset[str] | None = None
    newest = last
    while True:
        # Asked before the listing: what was completed before the engine's last word is then in it.
        is_over = run.finish.exists()
        names = frozenset(path.name for path in run.table("rounds").iterdir())
        if names != seen:
            seen = names
            newest = max((record.round for record in read_rounds(run)), default=0)
        if last < newest:
            last += 1
            yield last
        elif is_over:
            return
        else:
            time.sleep(POLL_S)


class Worker:
    """One student between two rounds."""

    def __init__(self, run: RunDir, config: RunConfig, task: TaskSpec, student: Student) -> None:
        self._run = run
        self._config = config
        self._task = task
        self._student = student
        self._hardware = choose_hardware(config.student.device, config.student.precision)
        self._cache = TokenCache(student.tokenizer)
        self._validation = self._encode(task.validation)
        self._samples: list[Sample] = []
        self._predictions: list[Mined] = []
        self.progress = Progress(round=0, watermark=0, num_train_rows=0, epochs=0, train_s=0.0)

    def learn_seed(self) -> None:
        """Round 0."""
        if self._config.strategy.mining == "out_of_fold":
            self._predictions = self._cross_fit()
        self._train_and_report(0, watermark=0)

    def learn(self, round: int) -> None:
        """The rows of this round, and of all before it, are complete."""
        new = samples_since(self._run, self.progress.watermark, round)
        samples = unpack_samples(new.table)
        if self._config.strategy.mining == "out_of_fold":
            self._predictions += self._predict(self._student, _examples(samples), round)
        self._samples += samples
        if self._config.student.weights == "fresh":
            self._student = self._fresh_student(round)
        self._train_and_report(round, new.watermark)

    def resume(self, checkpoint: Checkpoint) -> None:
        """Go on behind this checkpoint; report on it if that has not happened yet."""
        self.progress, self._predictions = checkpoint.progress, checkpoint.predictions
        read = samples_since(self._run, 0, self.progress.round)
        if read.watermark != self.progress.watermark:
            raise StoreError(
                f"the student of round {self.progress.round} has learned up to segment {self.progress.watermark} of the samples table, "
                f"but the round now ends at segment {read.watermark}: the table in {self._run.root} has been changed"
            )
        self._samples = unpack_samples(read.table)
        log.info("going on after round %d", self.progress.round)
        if not self._run.report(self.progress.round).exists():
            self._report()
        self._prune()

    def finish(self, finish: Finish) -> None:
        """Scores on test and the model to take home; what an earlier worker has done of it stands."""
        if self._run.final_report.exists() and read_json(self._run.final_report, FinalReport).after.round == finish.best_round:
            return
        before = self._score_on_test(0)
        after = before if finish.best_round == 0 else self._score_on_test(finish.best_round)
        publish(self._run, finish.best_round)
        report = FinalReport(before, after, self._config.student.encoder, self._student.num_parameters, precision=self._hardware.precision)
        write_json(self._run.final_report, report)
        log.info("finished: macro F1 on test %.3f -> %.3f (round %d)", before.scores.macro_f1, after.scores.macro_f1, finish.best_round)

    @property
    def _rows(self) -> list[Example]:
        """Everything to learn from. Answers come back in no particular order; a student should not depend on it."""
        return [*self._task.seed, *_examples(sorted(self._samples, key=lambda sample: (sample.origin.round, sample.id)))]

    def _train_and_report(self, round: int, watermark: int) -> None:
        training = self._train(self._student, self._rows, round)
        self.progress = Progress(round, watermark, len(self._rows), training.epochs, training.train_s)
        save_checkpoint(self._run, self._student, self.progress, self._predictions)
        self._report()
        self._prune()

    def _report(self) -> None:
        """Evaluations row and weakness report of the student as it is."""
        progress, strategy = self.progress, self._config.strategy
        card = self._score(self._student, self._validation)
        append_evaluation(self._run, self._evaluation(card, progress.round, "validation", progress))
        match strategy.mining:
            case "out_of_fold":
                predictions = self._predictions
            case "train":
                predictions = self._predict(self._student, self._rows, progress.round)
            case "held_out":
                predictions = self._predict(self._student, self._task.validation, progress.round)
        blocks = mine(predictions, strategy.right, strategy.wrong, strategy.hard, self._config.seed, progress.round)
        report = WeaknessReport(
            round=progress.round,
            loss=card.loss,
            scores=card.scores,
            classes=card.classes,
            confusions=card.confusions,
            mining=strategy.mining,
            right=blocks.right,
            wrong=blocks.wrong,
            hard=blocks.hard,
            num_train_rows=progress.num_train_rows,
            train_s=progress.train_s,
            epochs=progress.epochs,
        )
        write_json(self._run.report(progress.round), report)
        log.info(
            "round %d: %d rows, %d epochs in %.1f s; on validation macro F1 %.3f, loss %.3f",
            *(progress.round, progress.num_train_rows, progress.epochs, progress.train_s),
            *(card.scores.macro_f1, card.loss),
        )

    def _prune(self) -> None:
        """Keep the checkpoints of round 0, of the best round so far, and of this one."""
        reports = [read_json(self._run.report(round), WeaknessReport) for round in range(self.progress.round + 1)]
        keep_checkpoints(self._run, {0, best_round(reports), self.progress.round})

    def _cross_fit(self) -> list[Mined]:
        """Seed rows as predicted by students of the other seed rows."""
        folds = assign_folds([row.label for row in self._rows], self._config.seed)
        predictions: list[Mined] = []
        for fold in sorted({fold for fold in folds if fold is not None}):
            inside = [row for row, number in zip(self._rows, folds, strict=True) if number == fold]
            outside = [row for row, number in zip(self._rows, folds, strict=True) if number != fold]
            student = self._fresh_student(0)
            self._train(student, outside, 0)
            predictions += self._predict(student, inside, 0)
        return predictions

    def _fresh_student(self, round: int) -> Student:
        return new_student(self._config.student, self._task.label_names, derive_seed(self._config.seed, round, "weights"))

    def _train(self, student: Student, rows: Sequence[Example], round: int) -> Training:
        seed = derive_seed(self._config.seed, round, "training")
        return train(student, self._encode(rows), self._validation, self._config.student, self._hardware, seed)

    def _predict(self, student: Student, rows: Sequence[Example], round: int) -> list[Mined]:
        predicted = predict(student, self._encode(rows).tokens, self._hardware, self._config.student.batch_size)
        return as_predictions(rows, predicted, self._task.label_names, round)

    def _score(self, student: Student, rows: Rows) -> ScoreCard:
        predicted = predict(student, rows.tokens, self._hardware, self._config.student.batch_size)
        return score(predicted, rows.labels, self._task.label_names)

    def _score_on_test(self, round: int) -> StudentScores:
        student, progress, _ = load_checkpoint(self._run, round)
        card = self._score(student, self._encode(self._task.test))
        append_evaluation(self._run, self._evaluation(card, round, "test", progress))
        return StudentScores(round, card.scores, card.classes, card.confusions)

    def _evaluation(self, card: ScoreCard, round: int, split: str, progress: Progress) -> Evaluation:
        return Evaluation(round, split, card.scores, card.classes, card.loss, progress.num_train_rows, progress.train_s, progress.epochs)

    def _encode(self, rows: Sequence[Example]) -> Rows:
        position = {name: index for index, name in enumerate(self._task.label_names)}
        return Rows(self._cache.tokenise([row.text for row in rows]), [position[row.label] for row in rows])


def derive_seed(seed: int, round: int, purpose: str) -> int:
    """Seeds of one run that share nothing; the same in every process."""
    return int.from_bytes(hashlib.blake2b(f"{seed} {round} {purpose}".encode(), digest_size=7).digest())


def _examples(samples: Iterable[Sample]) -> list[Example]:
    return [Example(readable(sample.text), sample.label) for sample in samples]


def _restore(run: RunDir) -> Worker:
    """A worker behind its last checkpoint, or behind round 0."""
    config = restore_config(read_json(run.run_json, Manifest).config)
    task = load_task(config.task, config.seed)
    rounds = checkpoint_rounds(run)
    if rounds:
        checkpoint = load_checkpoint(run, rounds[-1])
        worker = Worker(run, config, task, checkpoint.student)
        worker.resume(checkpoint)
    else:
        worker = Worker(run, config, task, new_student(config.student, task.label_names, derive_seed(config.seed, 0, "weights")))
        worker.learn_seed()
    return worker
