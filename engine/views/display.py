"""What the command line shows people, drawn with rich. Text of teachers and files is hostile: it is shown as it is, never as markup, and
its control characters are made visible.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from engine.cost.cost import Cost
from engine.cost.words import COST_COLUMNS, cost_line, cost_rows
from engine.labels.marking import write_inline
from engine.records import Completion, Failure, FinishReason, Outcome, RoundRecord, RowCounts
from engine.replay import Replayed
from engine.reports import FinalReport, Scores, WeaknessReport
from engine.runs.provenance import CallStory, Row, Story
from engine.runs.summary import Summary
from engine.text import whole
from engine.watching.bottleneck import Limit, combine

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_BAR_WIDTH = 24
SHORT: Mapping[str, str] = {
    Limit.COMPUTE: "the server's computing",
    Limit.QUEUE: "the server's batch size (max_num_seqs)",
    Limit.MEMORY: "the server's KV cache",
    Limit.CONCURRENCY: "the number of requests at once that was set",
    Limit.CEILING: "the requests by time that were set",
    Limit.CLIENT: "the engine's processor",
    Limit.PARSING: "parsing and gates",
    Limit.STORAGE: "the disk",
    Limit.SUPPLY: "too few requests (rounds that begin and end)",
}
"""What was short, in words."""


def inert(value: object, max_chars: int = 300) -> Text:
    """A value as text that can neither style the terminal nor move its cursor."""
    text = "" if value is None else str(value)
    shown = text if len(text) <= max_chars else text[: max_chars - 1] + "…"
    return Text(_CONTROL.sub(lambda found: repr(found[0])[1:-1] if found[0] != "\n" else "⏎", shown))


def inert_json(text: str) -> bytes:
    """JSON text as a terminal may show it: what could move its cursor is spelt `\\u009b`, which means the same."""
    spelt = _CONTROL.sub(lambda found: found[0] if found[0] == "\n" else f"\\u{ord(found[0]):04x}", text)
    return spelt.encode()


def bar(share: float, width: int = _BAR_WIDTH) -> str:
    """A bar for a share of 1, in eighths of a character."""
    eighths = round(max(0.0, min(1.0, share)) * width * 8)
    return "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()


def plain_table(columns: Sequence[str], rows: Iterable[Sequence[object]], title: str | None = None) -> Table:
    """Columns of numbers are set to the right."""
    material = [list(row) for row in rows]
    table = Table(
        title=title, title_justify="left", title_style="bold", header_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0)
    )
    for index, name in enumerate(columns):
        numeric = bool(material) and all(isinstance(row[index], int | float) or row[index] is None for row in material)
        table.add_column(inert(name), justify="right" if numeric else "left", overflow="fold")
    for row in material:
        table.add_row(*(inert(f"{value:.3f}" if isinstance(value, float) else value) for value in row))
    return table


def result_table(columns: Sequence[str], is_number: Sequence[bool], rows: Iterable[Sequence[str | None]]) -> Table:
    """What a query brings, each value as it was written; what is null is dimmed."""
    table = Table(header_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name, is_right in zip(columns, is_number, strict=True):
        table.add_column(inert(name), justify="right" if is_right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text("null", style="dim") if value is None else inert(value) for value in row))
    return table


def summary_view(summary: Summary) -> RenderableType:
    """The end of a run: scores before and after, where the rows went, what it took, where the files are."""
    before, after = summary.student.before, summary.student.after
    scores = Table(title="Student on test", title_justify="left", title_style="bold", header_style="bold", box=None, padding=(0, 2, 0, 0))
    for name, justify in (("", "left"), ("before", "right"), ("after", "right"), ("change", "right"), ("", "left")):
        scores.add_column(name, justify=justify)  # pyright: ignore[reportArgumentType]
    for name, first, last in _score_lines(before.test, after.test):
        scores.add_row(name, f"{first:.3f}", f"{last:.3f}", f"{last - first:+.3f}", bar(last))
    scores.add_row("training rows", str(summary.curve.rows_by(before.round)), str(summary.curve.rows_by(after.round)), "", "")
    scores.add_row("round", str(before.round), str(after.round), "", f"of {summary.rounds}; stopped: {summary.stopped}", style="dim")
    took = Table.grid(padding=(0, 2, 0, 0))
    for name, value in (
        ("Rows", row_counts(summary.rows)),
        (
            "Teacher",
            f"{summary.teacher.calls} calls, {_tokens(summary.teacher.prompt_tokens)} prompt and "
            f"{_tokens(summary.teacher.completion_tokens)} completion tokens",
        ),
        (
            "Time",
            f"{_seconds(summary.wall_s)}: teacher writing {_seconds(summary.teacher.generation_s)}, "
            f"student learning {_seconds(summary.student.train_s)}",
        ),
        ("Speed", speed_line(summary.teacher.tokens_per_s, summary.teacher.roofline_share, summary.teacher.limited_s)),
        *([("Cost", cost_line(summary.cost))] if summary.cost else []),
        ("Student", summary.files["student"]),
        ("Tables", summary.files["tables"]),
        ("Figures", summary.files["summary"]),
    ):
        took.add_row(Text(name, style="bold"), inert(value))
    notes = [Text(f"Leaks: {leak}", style="yellow") for leak in summary.leaks]
    return Group("", scores, "", took, *notes)


def speed_line(tokens_per_s: float, roofline_share: float, limited_s: Mapping[str, float]) -> str:
    """How fast the teacher wrote, and why not faster."""
    total = sum(limited_s.values())
    shares = [(limit, seconds / total) for limit, seconds in limited_s.items() if total and seconds / total >= 0.1]
    reasons = ", ".join(f"{SHORT.get(limit, limit)} {share:.0%}" for limit, share in shares)
    # Rounds that took less than two seconds know of no best.
    share = f", {roofline_share:.0%} of the servers' best two seconds" if roofline_share else ""
    rate = f"{tokens_per_s:,.0f} tokens/s{share}"
    return f"{rate}; limited by {reasons}" if reasons else rate


def speed_view(rounds: Sequence[RoundRecord]) -> Text:
    """The same of rounds that are done."""
    flow = combine(rounds)
    return inert(f"Speed: {speed_line(flow.tokens_per_s, flow.roofline_share, flow.limited_s)}", max_chars=1000)


def cost_view(cost: Cost) -> RenderableType:
    """In all, and of each row, point and thousand tokens; then what is not in it."""
    return Group(plain_table(COST_COLUMNS, cost_rows(cost), title="Cost"), *(inert(f"Cost: {note}", max_chars=1000) for note in cost.notes))


def row_counts(rows: RowCounts) -> str:
    surplus = f" (and {rows.surplus} not asked for)" if rows.surplus else ""
    return f"{rows.requested} asked = {rows.accepted} accepted + {rows.rejected} rejected + {rows.failed} failed{surplus}"


def rounds_view(rounds: Sequence[RoundRecord], reports: Sequence[WeaknessReport]) -> Table:
    """The run by round, with the student's validation score after it: none where it learns the round with a later one, or has not yet."""
    records = {record.round: record for record in rounds}
    told = {report.round: report for report in reports}
    is_ahead = bool(reports) and any(record.is_ahead for record in rounds)
    lines: list[Sequence[object]] = []
    for round in sorted(records.keys() | told.keys()):
        record, report = records.get(round), told.get(round)
        counts = record.rows if record else RowCounts()
        asked = (counts.requested, counts.accepted, counts.rejected, counts.failed, record.completion_tokens if record else 0)
        learned = (report.num_train_rows, report.loss, report.scores.macro_f1, bar(report.scores.macro_f1)) if report else (None,) * 4
        lines.append((round, *([record and record.report] if is_ahead else []), *asked, *learned))
    columns = ("asked", "accepted", "rejected", "failed", "tokens", "train rows", "val. loss", "val. macro F1", "")
    return plain_table(("round", *(["by report"] if is_ahead else []), *columns), lines, title="By round")


def classes_view(final: FinalReport) -> Table:
    """F1 by label on test, before and after, the weakest first."""
    before = {score.label: score for score in final.before.classes}
    lines = [
        (score.label, before[score.label].f1, score.f1, score.precision, score.recall, score.support, bar(score.f1))
        for score in sorted(final.after.classes, key=lambda score: score.f1)
    ]
    columns = ("label", "F1 before", "F1 after", "precision", "recall", "rows", "")
    return plain_table(columns, lines, title="By label on test")


def replayed_view(replayed: Replayed) -> RenderableType:
    """What became of dead letters, by how they had ended."""
    names = {"judged": "judged again", "asked": "asked again"}
    lines: list[Sequence[object]] = []
    for fate in replayed.fates:
        rows = fate.rows
        stays = fate.letters - rows.accepted if fate.kind == "judged" else None
        lines.append((names[fate.kind], fate.ended, fate.letters, rows.accepted, stays, rows.rejected, rows.failed))
    columns = ("", "had ended as", "rows or calls", "accepted", "stay as they are", "rejected", "failed")
    return plain_table(columns, lines) if lines else inert("nothing in this run could end otherwise")


def story_view(story: Story) -> RenderableType:
    """A row from the weakness to the reply; the prompt and the reply in full."""
    origin, call = story.origin, story.call
    facts = Table.grid(padding=(0, 2, 0, 0))
    for name, value in (*_row_facts(story), *_asking_facts(story), *(_call_facts(call) if call else [("Call", "not committed yet")])):
        facts.add_row(Text(name, style="bold"), inert(value, max_chars=sys.maxsize))
    title = f"{'Row' if story.row else 'Request'} {story.id}: {_ending(story)}"
    parts: list[RenderableType] = [Text(title, style="bold"), "", facts]
    for message in story.prompt:
        parts += ["", Text(f"Prompt {origin.prompt_hash}, {message.role}", style="bold"), _in_full(message.content)]
    if call is not None and isinstance(call.outcome, Completion):
        parts += ["", Text("Reply", style="bold"), _in_full(call.outcome.text)]
    if story.siblings:
        lines = [
            (row.id.rpartition("-")[2], row.ending, label_words(row.label, row.labels), _in_one_line(row) or row.raw)
            for row in story.siblings
        ]
        title = "Other rows of the call" if story.row else "Rows of the call"
        parts += ["", plain_table(("place", "ended", "label", "text"), lines, title=title)]
    if story.calls:
        others = [
            (
                other.request_id,
                other.template,
                _outcome(other.outcome),
                other.sampling.max_tokens,
                other.sampling.seed,
                other.rows.requested,
            )
            for other in story.calls
        ]
        columns = ("request", "template", "came back", "max. tokens", "seed", "rows asked")
        parts += ["", plain_table(columns, others, title=f"Other calls of the assignment {inert(origin.assignment).plain}")]
    return Group(*parts)


def _row_facts(story: Story) -> list[tuple[str, object]]:
    row = story.row
    if row is None:
        return []
    refusal = [("Refused", row.detail), ("Written", row.raw)] if row.detail is not None else []
    second = [("Second text", row.text_pair)] if row.text_pair is not None else []
    labels = [("Labels", label_words("", row.labels))] if row.labels is not None else [("Label", row.label)]
    return [*(labels if row.label or not row.spans else []), ("Text", _marked(row)), *second, *refusal]


def label_words(label: str, labels: Sequence[str] | None) -> str:
    """One label, or several in a few words."""
    return label if labels is None else ", ".join(labels) or "no label"


def _in_one_line(row: Row) -> str:
    return _marked(row) if row.text_pair is None else whole(row.content)


def _marked(row: Row) -> str:
    """The text, with its entities between tags."""
    return write_inline(row.text, row.spans) if row.spans else row.text


def _asking_facts(story: Story) -> list[tuple[str, object]]:
    origin, answers, teacher = story.origin, story.answers, story.teacher
    said = [f"{score.label}: F1 {score.f1:.3f}, precision {score.precision:.3f}, recall {score.recall:.3f}" for score in answers.classes]
    said += [f"{item.count} of {item.label} taken for {item.predicted}" for item in answers.confusions]
    overall = f"macro F1 {answers.scores.macro_f1:.3f} on {answers.scores.num_rows} rows" if answers.scores else "report is not there"
    flags = [" ".join(server["command"]) if "command" in server else json.dumps(server) for server in teacher.servers]
    return [
        ("Answers", f"{answers.weakness}, of the report on round {answers.report} ({'; '.join([overall, *said])})"),
        ("Round", f"{origin.round}{'' if story.is_complete else ', not complete yet'}; assignment {origin.assignment}"),
        *([("Replays", origin.replays)] if origin.replays else []),
        *([("Replayed by", ", ".join(story.replayed_by))] if story.replayed_by else []),
        ("Strategy", f"{origin.strategy}, template {origin.template}"),
        ("Teacher", f"{teacher.model} ({teacher.configured})"),
        *(("Server", line) for line in dict.fromkeys(flags)),
        ("Versions", ", ".join(f"{name} {version}" for name, version in teacher.versions.items())),
    ]


def _call_facts(call: CallStory) -> list[tuple[str, object]]:
    sampling, timings = call.sampling, call.outcome.timings
    drawn = f"temperature {sampling.temperature:g}, top_p {sampling.top_p:g}, at most {sampling.max_tokens} tokens, seed {sampling.seed}"
    started = datetime.fromtimestamp(timings.started_at, UTC).isoformat(sep=" ", timespec="seconds")
    took = f"{timings.attempts} attempt{'' if timings.attempts == 1 else 's'}, {timings.latency_s:.2f} s, from {started}"
    detail = f": {call.outcome.detail}" if isinstance(call.outcome, Failure) else ""
    return [
        ("Request", call.request_id),
        ("Sampling", drawn),
        *([("JSON schema", sampling.json_schema)] if sampling.json_schema else []),
        *([("Codes", f"{sampling.regex}, {sampling.top_logprobs} log-probabilities a token")] if sampling.regex else []),
        ("Came back", f"{_outcome(call.outcome)}{detail}; {took}"),
        ("Rows", row_counts(call.rows)),
    ]


def _outcome(outcome: Outcome) -> str:
    if isinstance(outcome, Failure):
        return f"failed ({outcome.reason})"
    # An answer by a code is as long as the code, and ends so.
    ended = "cut off by max_tokens" if outcome.finish_reason is FinishReason.LENGTH and not outcome.logprobs else "whole"
    return f"{ended}, {outcome.usage.prompt_tokens} prompt and {outcome.usage.completion_tokens} completion tokens"


def _ending(story: Story) -> str:
    if story.row is not None:
        return story.row.ending if story.row.ending == "accepted" else f"rejected as {story.row.ending}"
    return _outcome(story.call.outcome) if story.call else "not committed yet"


def _in_full(text: str) -> Text:
    """With its line breaks."""
    return Text("\n").join(inert(line, max_chars=sys.maxsize) for line in text.split("\n"))


def print_error(console: Console, message: str) -> None:
    """The message with its own line breaks; what it quotes stays inert."""
    lines = Text("\n").join(inert(line, max_chars=2000) for line in message.split("\n"))
    console.print(Text.assemble(("error: ", "bold red"), lines), soft_wrap=True)


def _score_lines(before: Scores, after: Scores) -> list[tuple[str, float, float]]:
    return [
        ("accuracy", before.accuracy, after.accuracy),
        ("macro F1", before.macro_f1, after.macro_f1),
        ("weighted F1", before.weighted_f1, after.weighted_f1),
    ]


def _tokens(count: int) -> str:
    return f"{count:,}"


def _seconds(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} min"
