from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from engine.cli import app
from engine.errors import UserError
from engine.rehearsal import as_text, check_prompts, make_up_report, rehearse
from engine.rundir import write_json
from tests.engine.strategies.schooling import LABELS, make_config, make_task, report_on

TASK = """
name = "demo"
[task]
domain = "messages"
labels = [{{name = "a", description = "the \\u001b[31m first"}}, {{name = "b"}}]
[task.data]
seed = "rows.jsonl"
validation = "rows.jsonl"
test = "rows.jsonl"
[teacher]
model = "org/teacher"
[strategy]
type = "{method}"
rows_per_round = 12
rows_per_call = 4
"""


def write_task(folder: Path, method: str = "evokd") -> Path:
    rows = [{"text": f"row {number}", "label": label} for number in range(3) for label in ("a", "b")]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    path = folder / "run.toml"
    path.write_text(TASK.format(method=method), encoding="utf-8")
    return path


def show(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["prompts", "show", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_what_would_be_sent_is_printed_turn_by_turn(tmp_path: Path) -> None:
    text = show("evokd", "--task", write_task(tmp_path))
    assert "# evokd, round 1, assignment 0 of 3: 4 rows, weakness batch" in text
    assert [f"## turn {number} of 3:" in text for number in (1, 2, 3)] == [True] * 3
    assert "model org/teacher, temperature 1, top_p 0.95, max_tokens 1024, seed " in text
    assert 'schema {"type": "array"' in text
    assert "\x1b" not in text


def test_another_method_than_the_files_is_shown_with_its_defaults(tmp_path: Path) -> None:
    path = write_task(tmp_path)
    assert "assignment 0 of 1: 32 rows" in show("pgkd", "--task", path)
    assert "assignment 0 of 2: 16 rows" in show("pgkd", "--task", path, "--set", "strategy.rows_per_call=16")


def test_programs_get_every_field(tmp_path: Path) -> None:
    shown = json.loads(show("hybrid", "--task", write_task(tmp_path, "hybrid"), "--json", "--assignment", 2))
    assert (shown["method"], shown["num_assignments"], shown["assignment"]["number"]) == ("hybrid", 3, 2)
    assert [turn["template"].partition("@")[0] for turn in shown["turns"]] == ["hybrid/write", "labelling/batch"]
    assert shown["turns"][0]["sampling"]["temperature"] == 1.0
    assert [message["role"] for message in shown["turns"][0]["messages"]] == ["system", "user"]


def test_the_report_of_a_run_is_answered_by_the_round_after_it(tmp_path: Path) -> None:
    report = report_on(tmp_path, make_task(tmp_path / "task"), 4)
    write_json(tmp_path / "0004.json", report)
    text = show("pgkd", "--task", write_task(tmp_path), "--report", tmp_path / "0004.json")
    assert "# pgkd, round 5" in text
    assert '"text": "seed row' in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("pgdk",), "no method 'pgdk'; there are pgkd, evokd"),
        (("evokd", "--assignment", "3"), "round 1 of evokd has no assignment 3; it has 3, counted from 0"),
        (("seed_only",), "it has none: it asks the teacher nothing"),
        (("pool",), "strategy.type = pool labels rows of task.data.pool"),
        (("evokd", "--set", "prompts=nowhere"), "nowhere is no folder"),
    ],
)
def test_wrong_input_gets_one_message(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    result = CliRunner().invoke(app, ["prompts", "show", *arguments, "--task", str(write_task(tmp_path))])
    assert isinstance(result.exception, UserError)
    assert message in str(result.exception)


def test_templates_of_the_users_own_are_shown(tmp_path: Path) -> None:
    (tmp_path / "mine" / "evokd").mkdir(parents=True)
    (tmp_path / "mine" / "evokd" / "write.jinja").write_text("{% block user %}Write {{ num_hard }} nasty ones.{% endblock %}")
    text = show("evokd", "--task", write_task(tmp_path), "--set", "prompts=mine")
    assert "<user>\nWrite 2 nasty ones.\n" in text
    assert "Which patterns in a text" in text


@pytest.mark.parametrize("method", ["evokd", "seed_only"])
def test_a_wrong_template_is_found_before_anything_starts(tmp_path: Path, method: str) -> None:
    task = make_task(tmp_path / "task")
    (tmp_path / "mine" / "labelling").mkdir(parents=True)
    (tmp_path / "mine" / "labelling" / "batch.jinja").write_text("{% block user %}{{ lables }}{% endblock %}")
    check_prompts(make_config(method), task)
    if method == "seed_only":
        check_prompts(make_config(method, prompts=tmp_path / "mine"), task)
    else:
        with pytest.raises(UserError, match="prompt labelling/batch: 'lables' is undefined"):
            check_prompts(make_config(method, prompts=tmp_path / "mine"), task)


def test_a_made_up_report_is_of_seed_rows_and_as_large_as_asked(tmp_path: Path) -> None:
    task = make_task(tmp_path)
    report = make_up_report(make_config("pgkd", hard=2, wrong=3, right=100), task)
    assert (len(report.hard), len(report.wrong), len(report.right)) == (2, 3, 9)
    assert {row.text for row in (*report.hard, *report.wrong, *report.right)} <= {row.text for row in task.seed}
    assert all((row.label == row.predicted) == (row in report.right) for row in (*report.hard, *report.wrong, *report.right))


def test_the_published_counts(tmp_path: Path) -> None:
    """PGKD: 16 examples, 16 right, 16 wrong, 16 hard (last), 32 rows in one request (methods: arXiv 2411.05045)."""
    task = make_task(tmp_path, seed_per_class=30)
    config = make_config("pgkd", rows_per_round=32, rows_per_call=32)
    rehearsal = rehearse(config, task, make_up_report(config, task))
    (turn,) = rehearsal.turns
    text = "\n".join(message.content for message in turn.messages)
    headings = ("You write training rows", "Labels:", "Examples:", "Write 32 new rows that improve", "Reply with a JSON list",
                "The student on validation rows", "gets these right", "gets these wrong", "most confident in these")  # fmt: skip
    places = [text.index(heading) for heading in headings]
    assert places == sorted(places)
    blocks = [text[start:end].count('{"text"') for start, end in zip(places, [*places[1:], None], strict=True)]
    assert blocks == [0, 0, 16, 0, 0, 0, 16, 16, 16]
    assert text[places[5] : places[6]].count("0.50 0.50 0.50 2") == len(LABELS)
    assert as_text(rehearsal).startswith("# pgkd, round 1, assignment 0 of 1: 32 rows")
