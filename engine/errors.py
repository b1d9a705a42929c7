"""Errors that stop a run. A bad reply or row is no error but data: it ends as a Failure or a Rejection in a table.

RefluxError
├── UserError (also ValueError)     something given to us is wrong; exit status 2, nothing half-written
│   └── PreflightError              this machine lacks something the run needs
├── ExportError                     a student cannot leave in that form, or would be another there; exit status 1, nothing written
└── MachineError (also RuntimeError)  something that should run has broken; exit status 1, the run resumes
├── ServerError                 the teacher's server did not start, or died
├── StudentError                the student worker died
└── StoreError                  the run directory could not be written or read
"""

from __future__ import annotations


class RefluxError(Exception):
    """Root of all errors that are shown to the user as one message, without a traceback."""

    exit_status = 1


class UserError(RefluxError, ValueError):
    """Something given to us is wrong: the message says what, what was expected, and what to do."""

    exit_status = 2


class PreflightError(UserError):
    """This machine lacks something the run needs."""


class ExportError(RefluxError):
    """A student cannot be exported in this form, or would not predict there what it predicts here; nothing is written."""


class MachineError(RefluxError, RuntimeError):
    """Something that should run has broken; the run can be resumed with the same command."""


class ServerError(MachineError):
    """The teacher's server did not start, died, or cannot be reached."""


class StudentError(MachineError):
    """The student worker died; its log says why."""


class StoreError(MachineError):
    """The run directory could not be written or read."""
