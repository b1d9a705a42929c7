"""How it stands with a run, seen from outside: by its status file, its locks and its tables. Disturbs nobody who works on it."""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass, replace

import psutil

from engine.errors import UserError
from engine.records import Finish
from engine.reports import WeaknessReport
from engine.rundir import RunDir, open_run, read_json
from engine.runs.inventory import State, find_state
from engine.runs.manifest import Manifest, stored_config
from engine.status import Stage, Status, read_status
from engine.watching.scoreboard import open_scoreboard


@dataclass(frozen=True, slots=True)
class Standing:
    """At one moment."""

    status: Status
    """Its `state` is what is found now, not what was written last."""
    heartbeat_age_s: float | None
    """Since the engine wrote; None if it never did, as in runs of earlier versions."""
    holders: tuple[str, ...]
    """Who works on the run."""


class Observer:
    """Looks at one run, again and again."""

    def __init__(self, run: RunDir) -> None:
        """UserError if it is no run."""
        if not run.run_json.exists() and run.tables.is_dir() and run.journal.is_dir():
            raise UserError(f"{run.root}: this run has never begun; `reflux run CONFIG` begins it")
        self._run = open_run(run.root)
        self._of_tables: Status | None = None

    def look(self) -> Standing:
        """StoreError if the run has no status, and its tables cannot be read."""
        # The locks first: who ends in between has written its last word before it lets go.
        holders = self._run.holders()
        written = read_status(self._run.status)
        state = _stage(find_state(self._run, holders), holders, written)
        status = replace(written or self._read_tables(), state=state)
        if not state.has_heartbeat:
            status = replace(
                status, phase=self._phase(status), tokens_per_s=0.0, limit=None, round_left=None, run_left=None, cost_at_end=None, pids={}
            )
        age_s = max(0.0, time.time() - written.updated_at) if written else None
        return Standing(status, age_s, tuple(holders))

    def _phase(self, status: Status) -> str:
        if status.state is Stage.FINISHED and self._run.finish.exists():
            return read_json(self._run.finish, Finish).reason
        if status.state is Stage.WORKING:
            return "at work, and tells nothing of it, as `reflux replay` does"
        return f"{status.phase}; then its process ended without a word" if status.state is Stage.DIED else status.phase

    def _read_tables(self) -> Status:
        """Of a run without a status, once: whoever works on it writes one."""
        if self._of_tables is None:
            manifest = read_json(self._run.run_json, Manifest)
            board = open_scoreboard(self._run, stored_config(self._run, manifest), manifest.wall_s)
            for number in self._run.reported_rounds():
                board.reported(read_json(self._run.report(number), WeaknessReport))
            self._of_tables = replace(board.status(Stage.STOPPED, "nobody works on it"), wall_s=manifest.wall_s, servers=())
        return self._of_tables


def _stage(state: State, holders: list[str], written: Status | None) -> Stage:
    if state is State.FINISHED:
        return Stage.FINISHED
    if "engine" in holders:
        return written.state if written and written.state.has_heartbeat and _is_alive(written) else Stage.WORKING
    return Stage.DIED if written is not None and written.state.is_under_way else Stage.STOPPED


def _is_alive(written: Status) -> bool:
    """As far as can be told from here."""
    if written.host != socket.gethostname():
        return True
    return "engine" in written.pids and psutil.pid_exists(written.pids["engine"])
