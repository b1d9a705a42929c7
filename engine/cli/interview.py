"""Questions to somebody at a terminal, in the place of flags that were not given."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from rich.prompt import Prompt

from engine.cli.shell import messages, note
from engine.errors import UserError
from engine.views.display import inert

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Interview:
    """`has_listener`: False where nobody could answer; then all that has no default must have been given."""

    has_listener: bool

    @classmethod
    def here(cls) -> Interview:
        return cls(sys.stdin.isatty() and messages.is_terminal)

    def require(self, flags: Mapping[str, object]) -> None:
        """UserError that names those without a value, where they cannot be asked for."""
        missing = [flag for flag, given in flags.items() if given is None]
        if missing and not self.has_listener:
            raise UserError(f"missing: {', '.join(missing)}; without a terminal nothing is asked, so give them on the command line")

    def ask(self, flag: str, given: str | None, question: str, check: Callable[[str], T], default: str | None = None) -> T:
        """What `check` makes of what was given, or of the answer. An answer that it refuses is asked for again; what was given, not."""
        if given is not None:
            return check(given)
        if not self.has_listener:
            if default is None:
                raise UserError(f"missing: {flag}; without a terminal nothing is asked, so give it on the command line. {question}")
            return check(default or "")
        while True:
            try:
                return check(self._read(question, default).strip())
            except UserError as error:
                note(f"  {error}")

    def _read(self, question: str, default: str | None) -> str:
        try:
            return Prompt.ask(inert(question), console=messages, default=default or "", show_default=bool(default))
        except EOFError:
            raise UserError("there came no answer; nothing was written") from None
