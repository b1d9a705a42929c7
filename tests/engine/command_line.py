"""Commands as a user gives them, in this process."""

from __future__ import annotations

from typer.testing import CliRunner, Result

from engine.cli import app
from engine.errors import UserError


def call(*arguments: object) -> Result:
    """Of one that succeeds."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, (result.output, result.exception)
    return result


def refused(*arguments: object) -> str:
    """What is said of wrong input."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert isinstance(result.exception, UserError), (result.output, result.exception)
    return str(result.exception)
