"""One page: its template, its style, and the policy under which a browser shows it.

Invariant: whatever came from a teacher, a file or a label reaches the page through `shown` and Jinja's escaping. Should something slip
through, the policy still lets no script run and nothing be loaded: it allows one style, by its hash, and nothing else.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import time
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from engine.cost.words import amount
from engine.errors import UserError
from engine.html_report.findings import shown
from engine.html_report.svg import Sheet
from engine.rundir import write_atomically


def render_page(template: str, title: str, sheet: Sheet, content: dict[str, Any]) -> str:
    """The whole HTML file. `sheet` has drawn all plots in the content."""
    css = (Path(__file__).parent / "style.css").read_text(encoding="utf-8") + sheet.css
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    fixed = {
        "title": shown(title),
        "css": Markup(css),  # noqa: S704 - our own file, and what matplotlib says of its shapes
        "policy": f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'",
        "version": importlib.metadata.version("reflux"),
        "now": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
    }
    return _environment().get_template(template).render(content | fixed)


def write_page(path: Path, html: str) -> None:
    """Complete or not at all; UserError where nothing can be written."""
    if path.is_dir() or not path.parent.is_dir():
        why = "is a folder" if path.is_dir() else f"cannot be written: there is no folder {path.parent}"
        raise UserError(f"{path} {why}; give the name of a file in a folder that is there")
    write_atomically(path, html.encode("utf-8", "replace"))


def decimal(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def signed(value: float | None) -> str:
    return "" if value is None else f"{value:+.3f}"


def precise(value: float | None) -> str:
    """For what is small."""
    return "" if value is None else f"{value:+.2g}"


def percent(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


def grouped(value: float | None) -> str:
    """Whole, with thousands apart."""
    return "" if value is None else f"{value:,.0f}"


def duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return (
        f"{seconds:.1f} s"
        if seconds < 10
        else f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for write in (shown, decimal, signed, precise, percent, grouped, duration):
        environment.filters[write.__name__] = write
    environment.filters["priced"] = amount
    return environment
