"""The student's side of a run: learns each round's rows as they are completed, and reports where it is weak.

It meets the engine in the run directory only. A round goes: new rows -> train -> checkpoint -> evaluations row -> weakness report. The
report comes last: where it is, the rest is.

Invariants:
- Weights and watermark move together, so after a kill nothing is learned twice and nothing is skipped: the worker goes on from its last
  checkpoint, and one without a report is evaluated again, not trained again.
- Every seed is derived from the run's seed and the round, so a resumed run learns what an undisturbed one would have.
- Where the engine asks ahead (`loop.max_staleness`), all rounds that are complete are learned at once, and reported on as the last of them.
- What a round costs beside its training is what it brings; an incremental update trains on that and a bounded replay, too.
- Test rows are read once, when the engine has said its last word.
"""

# pyright: reportUnknownParameterType=false
# (pyarrow's classes have no type stubs, so that naming them says something to readers only)

from __future__ import annotations

import hashlib
import logging
import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from types import TracebackType
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from engine.config import RunConfig, restore_config
from engine.errors import StoreError
from engine.records import Example, Finish, TaskSpec, as_example, content_of
from engine.reports import FinalReport, PoolRow, StudentScores, WeaknessReport
from engine.rundir import RunDir, read_json, write_json
from engine.runs.manifest import Manifest
from engine.store import Evaluation, append_evaluation, read_rejections, samples_since
from engine.task.task import draw_texts, load_task
from student.audit import NO_NOISE, audit
from student.card import render_card
from student.checkpoint import (
    Checkpoint,
    DamagedCheckpointError,
    Progress,
    check_checkpoint,
    checkpoint_rounds,
    keep_checkpoints,
    load_checkpoint,
    publish,
    remove_leftovers,
    save_checkpoint,
)
from student.data import Rows
from student.diagnosis import MAX_LEARNED_ROWS, Mined, assign_folds, mine, plan_renewal, stratum
from student.evaluation import ScoreCard
from student.hardware import choose_hardware, count_devices
from student.inference import LogProbabilities, predict
from student.kinds import kind_of
from student.mined import MinedLog
from student.model import Student, new_student
from student.optimizer import Moments
from student.replay import draw_replay
from student.rounds import completed_rounds
from student.rowcache import RowCache
from student.slices import Vocabulary
from student.team import Team
from student.trainer import Training, train
from student.uncertainty import POOL_ROWS, least_sure, unasked

AUDITED_ROWS = 50_000
"""That an audit looks at; it draws further."""
RENEWED_ROWS = 4 * MAX_LEARNED_ROWS
"""In a run with more, so few predictions are old that none is ever made again."""

log = logging.getLogger(__name__)


def work(run: RunDir) -> None:
    """Until the engine has finished and the final report is written. One worker at a time: UserError if another holds the run."""
    run.create()
    with run.lock("student"):
        remove_leftovers(run)
        with restore(run) as worker:
            for round in completed_rounds(run, worker.progress.round, at_once=worker.learns_at_once):
                worker.learn(round)
            worker.finish(read_json(run.finish, Finish))


class Worker:
    """One student between two rounds. Leaving it as a context manager ends the processes that train together, if there are several."""

    def __init__(self, run: RunDir, config: RunConfig, task: TaskSpec, student: Student) -> None:
        self._run = run
        self._config = config
        self._task = task
        self._student = student
        self._hardware = choose_hardware(config.student.device, config.student.precision)
        devices = count_devices(config.student.devices, self._hardware, config.student.batch_size)
        self._team = Team(self._hardware, devices) if devices > 1 else None
        self._kind = kind_of(task.kind, task.label_names)
        self._cache = RowCache(run.student / "rows", student.tokenizer, task.label_names, task.kind, tells_apart=student.tells_apart)
        strategy = config.strategy
        self._mined = MinedLog(run.student / "mined", strategy.right, strategy.hard + strategy.wrong)
        self._validation = self._encode(task.validation, "validation")
        self._vocabulary = Vocabulary()
        self._moments: Moments | None = None
        self._updated = range(0)
        """Numbers of the rows that the last round brought, and those learned at once with it."""
        self._best: tuple[float, int] | None = None
        """Lowest validation loss so far, and its round."""
        self._previous = 0
        """The round of the checkpoint before the last."""
        self.progress = Progress(round=0, watermark=0, num_train_rows=0, epochs=0, train_s=0.0)

    @property
    def learns_at_once(self) -> bool:
        return self._config.loop.max_staleness > 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._team is not None:
            self._team.close()

    def learn_seed(self) -> None:
        """Round 0."""
        self._mined.restore(-1)
        self._updated = self._cache.add_seed(self._task.seed)
        if self._config.strategy.mining == "out_of_fold":
            self._mined.add(0, self._cross_fit())
        self._kind.meet(self._vocabulary, self._cache.rows(self._updated))
        self._train_and_report(0, watermark=0)

    def learn(self, round: int) -> None:
        """The rows of this round, and of all before it, are complete; those that have not been learned yet are."""
        new = samples_since(self._run, self.progress.watermark, round)
        first = len(self._cache)
        self._add_rounds(self.progress.round + 1, round, new.table)
        self._updated = range(first, len(self._cache))
        if self._config.strategy.mining == "out_of_fold":
            self._mined.add(round, [*self._renew(round), *self._predict_numbers(self._updated, round)])
        self._kind.meet(self._vocabulary, self._cache.rows(self._updated))
        if self._config.student.weights == "fresh":
            self._student = self._fresh_student(round)
        self._train_and_report(round, new.watermark)

    def resume(self, checkpoint: Checkpoint) -> None:
        """Go on behind this checkpoint; report on it if that has not happened yet."""
        self.progress, self._moments = checkpoint.progress, checkpoint.moments
        round = self.progress.round
        read = samples_since(self._run, 0, round)
        if read.watermark != self.progress.watermark:
            raise StoreError(
                f"the student of round {round} has learned up to segment {self.progress.watermark} of the samples table, "
                f"but the round now ends at segment {read.watermark}: the table in {self._run.root} has been changed"
            )
        num_rows = len(self._task.seed) + len(read.table)
        if not self._cache.restore(round) or len(self._cache) != num_rows:
            self._cache.clear()
            self._cache.add_seed(self._task.seed)
            self._add_rounds(1, round, read.table)
        before = [number for number in self._run.reported_rounds() if number < round]
        self._updated = range(self._cache.first_of(before[-1] + 1 if before else 0), len(self._cache))
        self._mined.restore(round)
        self._kind.meet(self._vocabulary, self._cache.rows(range(len(self._cache))))
        self._previous = max((number for number in checkpoint_rounds(self._run) if number < round), default=0)
        log.info("going on after round %d", round)
        reports = [read_json(self._run.report(number), WeaknessReport) for number in before]
        if reports:
            self._best = min((report.loss, report.round) for report in reports)
        if self._run.report(round).exists():
            self._note_loss(read_json(self._run.report(round), WeaknessReport).loss)
        else:
            self._report()
        self._prune()

    def _add_rounds(self, first: int, last: int, samples: pa.Table) -> None:
        rounds = samples.column("round").to_numpy()
        for number in range(first, last + 1):
            self._cache.add_samples(number, samples.filter(rounds == number))

    def finish(self, finish: Finish) -> None:
        """Scores on test and the model to take home; what an earlier worker has done of it stands."""
        if self._run.final_report.exists() and read_json(self._run.final_report, FinalReport).after.round == finish.best_round:
            return
        before = self._score_on_test(0)
        after = before if finish.best_round == 0 else self._score_on_test(finish.best_round)
        report = FinalReport(before, after, self._config.student.encoder, self._student.num_parameters, precision=self._hardware.precision)
        publish(self._run, finish.best_round, render_card(self._run, report, self._student.max_length))
        self._audit(finish.best_round)
        write_json(self._run.final_report, report)
        log.info("finished: macro F1 on test %.3f -> %.3f (round %d)", before.scores.macro_f1, after.scores.macro_f1, finish.best_round)

    def _audit(self, best_round: int) -> None:
        """Of the rows that there are, whether the kept student has learned the last of them or not."""
        num_seed, num_rows = len(self._task.seed), len(self._cache)
        drawn = random.Random(self._config.seed).sample(range(num_seed, num_rows), min(AUDITED_ROWS, num_rows - num_seed))
        student, progress, _ = load_checkpoint(self._run, best_round)
        found = audit(
            self._task.seed,
            self._cache.examples(sorted(drawn)),
            self._task.validation,
            self._mined.read(self.progress.round, AUDITED_ROWS),
            self._predict(self._task.validation, self._validation, best_round, student, progress.num_train_rows),
            self._config.gates.similarity,
            self._config.seed,
            without_noise=NO_NOISE.get(self._task.kind, ""),
        )
        write_json(self._run.audit, found)

    def _train_and_report(self, round: int, watermark: int) -> None:
        training = self._update(round)
        self._moments = training.moments
        self._previous = self.progress.round
        self.progress = Progress(round, watermark, len(self._cache), training.epochs, training.train_s)
        save_checkpoint(self._run, self._student, self.progress, self._moments)
        self._report()
        self._prune()

    def _update(self, round: int) -> Training:
        """Teach this round's student what the round wants it to learn."""
        config = self._config.student
        if config.update == "full" or round == 0:
            return self._train(self._student, self._cache.rows(range(len(self._cache))), round, self._moments)
        if not self._updated:
            return Training(0, 0, 0.0, self._moments)
        epochs = [self._cache.rows(self._lesson(round, epoch)) for epoch in range(1, config.epochs + 1)]
        return self._train(self._student, epochs, round, self._moments)

    def _lesson(self, round: int, epoch: int) -> Sequence[int]:
        """Numbers of the rows in an epoch of an incremental update."""
        config = self._config.student
        if not any(number % config.replay_every == 0 for number in range(self._report_before(round) + 1, round + 1)):
            return self._updated
        num_strata, num_seed = self._kind.num_strata, len(self._task.seed)
        generator = np.random.default_rng(derive_seed(self._config.seed, round, f"replay {epoch}"))
        replayed = draw_replay(self._cache.labels, num_strata, num_seed, self._updated.start, config, generator)
        return [*replayed.tolist(), *self._updated]

    def _report(self) -> None:
        """Evaluations row and weakness report of the student as it is."""
        progress, strategy = self.progress, self._config.strategy
        predicted = self._answers(self._student, self._validation)
        card = self._kind.score(predicted, self._task.validation, self._validation, self._student.thresholds)
        append_evaluation(self._run, self._evaluation(card, progress.round, "validation", progress))
        match strategy.mining:
            case "out_of_fold":
                predictions = self._mined.of(progress.round) if strategy.is_judged_by_last_round else self._mined.newest
            case "train":
                is_full = self._config.student.update == "full" or progress.round == 0
                learned = range(len(self._cache)) if is_full else self._lesson(progress.round, 1)
                predictions = self._predict_numbers(learned, progress.round)
            case "held_out":
                predictions = self._predict(self._task.validation, self._validation, progress.round)
            case "none":
                predictions = []
        blocks = mine(predictions, strategy.right, strategy.wrong, strategy.hard, self._config.seed, progress.round)
        before = read_json(self._run.report(self._report_before(progress.round)), WeaknessReport) if progress.round else None
        found = self._kind.review(
            predicted,
            self._task.validation,
            self._validation,
            card,
            self._student.thresholds,
            mined=[prediction.row for prediction in predictions],
            vocabulary=self._vocabulary,
            before=before,
        )
        report = WeaknessReport(
            round=progress.round,
            loss=card.loss,
            scores=card.scores,
            classes=card.classes,
            confusions=found.confusions,
            mining=strategy.mining,
            right=blocks.right,
            wrong=blocks.wrong,
            hard=blocks.hard,
            num_train_rows=progress.num_train_rows,
            train_s=progress.train_s,
            epochs=progress.epochs,
            weaknesses=found.weaknesses,
            slices=found.slices,
            changes=found.changes,
            intervals=card.intervals,
            calibration=card.calibration,
            uncertain=self._uncertain(),
            hits="".join("01"[hit] for hit in found.hits.tolist()),
        )
        write_json(self._run.report(progress.round), report)
        self._note_loss(card.loss)
        log.info(
            "round %d: %d rows, %d epochs in %.1f s; on validation macro F1 %.3f, loss %.3f",
            *(progress.round, progress.num_train_rows, progress.epochs, progress.train_s),
            *(card.scores.macro_f1, card.loss),
        )

    def _uncertain(self) -> tuple[PoolRow, ...] | None:
        """For the next round, if the method asks about what this student is least sure of; () when all of the pool has been asked about."""
        strategy, task, round = self._config.strategy, self._task, self.progress.round
        if strategy.type != "pool" or strategy.pick != "uncertain" or task.pool is None:
            return None
        drawn = draw_texts(task.pool, POOL_ROWS, derive_seed(self._config.seed, round, "pool"))
        refused = (content_of(row) for row in read_rejections(self._run, pc.field("round") <= round))
        learned = (row.content for row in self._cache.examples(range(len(self._cache))))
        texts = unasked(drawn, chain(learned, refused, (row.content for rows in (task.validation, task.test) for row in rows)))
        # Rows have to be labelled to be encoded; what is said here of the label is not looked at.
        examples = [as_example(text, task.seed[0].label) for text in texts]
        mined = self._predict(examples, self._encode(examples), round) if examples else []
        # As many rounds may be asked before the next report comes.
        return least_sure([prediction.row for prediction in mined], (1 + self._config.loop.max_staleness) * strategy.rows_per_round)

    def _report_before(self, round: int) -> int:
        """The round of the report before that of this one, which is not the first."""
        return max(number for number in self._run.reported_rounds() if number < round)

    def _note_loss(self, loss: float) -> None:
        this = (loss, self.progress.round)
        self._best = this if self._best is None else min(self._best, this)

    def _prune(self) -> None:
        """Keep the checkpoints of round 0, of the best round so far, of this one, and of the one before in case this one gets damaged."""
        assert self._best is not None, "a round is reported on before its checkpoint is the last"
        keep_checkpoints(self._run, {0, self._best[1], self._previous, self.progress.round})

    def _cross_fit(self) -> list[Mined]:
        """Seed rows as predicted by students of the other seed rows."""
        folds = assign_folds([stratum(row) for row in self._task.seed], self._config.seed)
        predictions: list[Mined] = []
        for fold in sorted({fold for fold in folds if fold is not None}):
            inside = [row for row, number in enumerate(folds) if number == fold]
            outside = [row for row, number in enumerate(folds) if number != fold]
            student = self._fresh_student(0)
            self._train(student, self._cache.rows(outside), 0)
            predictions += self._predict(self._cache.examples(inside), self._cache.rows(inside), 0, student, len(outside))
        return predictions

    def _renew(self, round: int) -> list[Mined]:
        """Predictions that have become old, made again by a stand-in for the student; it learns half of what this round learns at most."""
        if self._updated.start > RENEWED_ROWS or self._config.strategy.is_judged_by_last_round:
            return []
        is_full = self._config.student.update == "full"
        budget = (len(self._cache) if is_full else len(self._updated)) // 2
        predictions = self._mined.read(round - 1, RENEWED_ROWS)
        renewal = plan_renewal(predictions, budget, derive_seed(self._config.seed, round, "renewal"))
        if renewal is None:
            return []
        student = self._fresh_student(round)
        self._train(student, self._encode(renewal.learn), round)
        old = [predictions[index] for index in renewal.old]
        examples = [prediction.row.example for prediction in old]
        renewed = self._predict(examples, self._encode(examples), round, student, len(renewal.learn))
        return [replace(new, round=prediction.round) for new, prediction in zip(renewed, old, strict=True)]

    def _fresh_student(self, round: int) -> Student:
        return make_student(self._config, self._task, round)

    def _train(self, student: Student, rows: Rows | Sequence[Rows], round: int, moments: Moments | None = None) -> Training:
        seed = derive_seed(self._config.seed, round, "training")
        if self._team is not None:
            return self._team.train(student, rows, self._validation, self._config.student, seed, moments)
        return train(student, rows, self._validation, self._config.student, self._hardware, seed, moments)

    def _predict_numbers(self, numbers: Sequence[int], round: int) -> list[Mined]:
        return self._predict(self._cache.examples(numbers), self._cache.rows(numbers), round)

    def _predict(
        self, examples: Sequence[Example], rows: Rows, round: int, student: Student | None = None, learned: int | None = None
    ) -> list[Mined]:
        """By a student that has learned `learned` rows; where none is given, by this one as it is."""
        student = student or self._student
        predicted = self._answers(student, rows)
        num_learned = self.progress.num_train_rows if learned is None else learned
        return self._kind.mined(predicted, examples, rows, round, num_learned, student.thresholds)

    def _answers(self, student: Student, rows: Rows) -> LogProbabilities:
        return predict(student, rows.tokens, self._hardware, self._config.student.batch_size, rows.firsts)

    def _score_on_test(self, round: int) -> StudentScores:
        student, progress, _ = load_checkpoint(self._run, round)
        rows = self._encode(self._task.test, "test")
        predicted = self._answers(student, rows)
        card = self._kind.score(predicted, self._task.test, rows, student.thresholds)
        append_evaluation(self._run, self._evaluation(card, round, "test", progress))
        return StudentScores(round, card.scores, card.classes, card.confusions, card.intervals, card.calibration)

    def _evaluation(self, card: ScoreCard, round: int, split: str, progress: Progress) -> Evaluation:
        return Evaluation(round, split, card.scores, card.classes, card.loss, progress.num_train_rows, progress.train_s, progress.epochs)

    def _encode(self, rows: Sequence[Example], name: str = "") -> Rows:
        encoded = self._kind.encode(self._student.tokenizer, rows, name)
        return encoded if self._student.tells_apart else encoded.without_firsts()


def make_student(config: RunConfig, task: TaskSpec, round: int) -> Student:
    """One that has learned nothing; another one each round."""
    return new_student(config.student, task.label_names, derive_seed(config.seed, round, "weights"), task.kind)


def derive_seed(seed: int, round: int, purpose: str) -> int:
    """Seeds of one run that share nothing; the same in every process."""
    return int.from_bytes(hashlib.blake2b(f"{seed} {round} {purpose}".encode(), digest_size=7).digest())


def restore(run: RunDir) -> Worker:
    """A worker behind its last checkpoint that is as it was written and has none damaged before it, or behind round 0."""
    config = restore_config(read_json(run.run_json, Manifest).config)
    task = load_task(config.task, config.seed)
    _discard_damaged(run)
    rounds = checkpoint_rounds(run)
    if rounds:
        checkpoint = load_checkpoint(run, rounds[-1])
        worker = Worker(run, config, task, checkpoint.student)
        worker.resume(checkpoint)
    else:
        worker = Worker(run, config, task, make_student(config, task, 0))
        worker.learn_seed()
    return worker


def _discard_damaged(run: RunDir) -> None:
    """The first checkpoint that is damaged, and those after it: learned again from the one before, they come out the same."""
    rounds = checkpoint_rounds(run)
    for place, round in enumerate(rounds):
        try:
            check_checkpoint(run, round)
        except DamagedCheckpointError as error:
            before = f"the student of round {rounds[place - 1]}" if place else "the seed"
            log.warning("%s; going on from %s, and learning the rounds after it again", error, before)
            keep_checkpoints(run, rounds[:place])
            return
