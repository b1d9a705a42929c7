"""Trains a student on several devices of this machine, a process each, by Hugging Face accelerate.

Invariants: the processes are of the team alone, and end with it or with the process that started it, however that ends; either all of them
finish a training and the student has what they learned, or the student is as it was and the error says which process failed. The next
training then starts new ones.

Student and moments travel as files in the checkpoint's own formats: what is saved and loaded is the same to the bit.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from safetensors.torch import load_file, save_file

from engine.config import StudentConfig
from engine.errors import RefluxError, StudentError
from student.data import Rows
from student.hardware import Hardware
from student.model import Student, load_student, save_student
from student.optimizer import Moments
from student.ranks import Ranks
from student.trainer import Training, train

STOP_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class _Job:
    """One training. The folder holds the student and perhaps its moments; the first process puts what it has learned there."""

    folder: Path
    rows: Rows | Sequence[Rows]
    validation: Rows
    config: StudentConfig
    seed: int


class Team:
    """Starts its processes with the first training. Use it as a context manager, or `close` it."""

    def __init__(self, hardware: Hardware, count: int) -> None:
        self._hardware, self._count = hardware, count
        self._processes: list[BaseProcess] = []
        self._connections: list[Connection] = []
        self._meeting: tempfile.TemporaryDirectory[str] | None = None
        """A file to meet at, in a folder of its own: no port that somebody else could take meanwhile."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def train(
        self,
        student: Student,
        rows: Rows | Sequence[Rows],
        validation: Rows,
        config: StudentConfig,
        seed: int,
        moments: Moments | None = None,
    ) -> Training:
        """As `student.trainer.train`. StudentError also if a process ends before its time."""
        with tempfile.TemporaryDirectory(prefix="reflux-team-") as name:
            folder = Path(name)
            save_student(student, folder / "given")
            if moments is not None:
                save_file(moments, folder / "given.safetensors")
            try:
                training = self._run(_Job(folder, rows, validation, config, seed))
            except BaseException:
                self.close()
                raise
            best = load_student(folder / "learned")
            student.model.load_state_dict(best.model.state_dict())
            if best.thresholds:
                student.model.config.thresholds = list(best.thresholds)
            student.model.eval()
            learned = folder / "learned.safetensors"
            return replace(training, moments=load_file(learned) if learned.exists() else None)

    def close(self) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.join(STOP_TIMEOUT_S)
            if process.is_alive():
                process.kill()
                process.join()
        for connection in self._connections:
            connection.close()
        if self._meeting is not None:
            self._meeting.cleanup()
        self._processes, self._connections, self._meeting = [], [], None

    def _run(self, job: _Job) -> Training:
        self._start()
        numbers = {connection: number for number, connection in enumerate(self._connections)}
        for number, connection in enumerate(self._connections):
            try:
                connection.send(job)
            except OSError:
                raise self._obituary(number) from None
        answers: dict[int, Training] = {}
        while len(answers) < self._count:
            for ready in wait([connection for connection, number in numbers.items() if number not in answers]):
                assert isinstance(ready, Connection)
                number = numbers[ready]
                try:
                    answer = ready.recv()
                except (EOFError, OSError):
                    raise self._obituary(number) from None
                if isinstance(answer, Exception):
                    raise answer
                answers[number] = answer
        return answers[0]

    def _start(self) -> None:
        if self._processes:
            return
        # Forked from a process that has loaded everything and done nothing: a team is there at once, the second time even sooner.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__])
        self._meeting = tempfile.TemporaryDirectory(prefix="reflux-meeting-")
        meeting = Path(self._meeting.name) / "store"
        for number in range(self._count):
            ours, theirs = context.Pipe()
            process = context.Process(
                target=_serve,
                args=(Ranks(number, self._count), self._hardware, meeting, max(1, torch.get_num_threads() // self._count), theirs),
                name=f"student-{number}",
                daemon=True,
            )
            process.start()
            theirs.close()
            self._processes.append(process)
            self._connections.append(ours)

    def _obituary(self, number: int) -> StudentError:
        process = self._processes[number]
        process.join(STOP_TIMEOUT_S)
        status = process.exitcode
        how = "still runs" if status is None else f"was killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
        return StudentError(
            f"process {number + 1} of the {self._count} that train together ended ({how}); its last words are above. Nothing of this "
            "training is kept: start the same command again to go on from the last checkpoint, or set student.devices = 1"
        )


def _serve(ranks: Ranks, hardware: Hardware, meeting: Path, num_threads: int, connection: Connection) -> None:
    """One process of a team: trains what it is given until its starter has gone."""
    threading.Thread(target=_end_with_parent, name="parent-watch", daemon=True).start()
    hardware = Hardware(_meet(ranks, hardware, meeting, num_threads), hardware.precision)
    while True:
        try:
            job: _Job = connection.recv()
        except (EOFError, OSError):
            return
        try:
            connection.send(_learn(job, hardware, ranks))
        except RefluxError as error:
            connection.send(error)


def _meet(ranks: Ranks, hardware: Hardware, meeting: Path, num_threads: int) -> torch.device:
    """Sets up accelerate's state, which holds the connections to the others; the device of this process."""
    from accelerate import PartialState

    torch.set_num_threads(num_threads)
    number, count = str(ranks.number), str(ranks.count)
    os.environ.setdefault("OMP_NUM_THREADS", str(num_threads))  # or accelerate sets another, and warns
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # a machine's own name may lead nowhere
    os.environ |= {"RANK": number, "LOCAL_RANK": number, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    is_cpu = hardware.device.type == "cpu"
    state = PartialState(cpu=is_cpu, init_method=meeting.as_uri(), rank=ranks.number, world_size=ranks.count)
    return (
        hardware.device if is_cpu or state.device is None else state.device
    )  # it numbers processors too, to which tensors would be moved again and again


def _learn(job: _Job, hardware: Hardware, ranks: Ranks) -> Training:
    student = load_student(job.folder / "given")
    given = job.folder / "given.safetensors"
    moments = load_file(given) if given.exists() else None
    training = train(student, job.rows, job.validation, job.config, hardware, job.seed, moments, ranks)
    if ranks.number == 0:
        student.model.to("cpu")  # pyright: ignore[reportArgumentType] -- transformers wraps `to`
        save_student(student, job.folder / "learned")
        if training.moments is not None:
            save_file(training.moments, job.folder / "learned.safetensors")
    return replace(training, moments=None)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    print("the process that started this one has gone; ending", file=sys.stderr, flush=True)
    os._exit(1)
