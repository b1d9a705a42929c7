"""The command as a user meets it: one clear message for wrong input, and nothing half-written."""

import json
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from engine.cli import app
from engine.config import RunConfig, load_config
from engine.errors import UserError
from engine.rundir import RunDir
from engine.runs.manifest import begin

ROWS = [{"text": f"{word} {label} text", "label": label} for word in ("first", "second", "third") for label in ("a", "b")]


@dataclass
class Place:
    """A folder with a complete task, whose teacher is a server that nobody ever asks."""

    folder: Path

    def write(self, name: str, content: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)

    def run(self, *options: str) -> str:
        """The UserError that `reflux run` ends with."""
        result = CliRunner().invoke(app, ["run", str(self.folder / "run.toml"), "--out", str(self.folder / "out"), *options])
        assert isinstance(result.exception, UserError), (result.output, result.exception)
        assert result.exception.exit_status == 2
        assert not (self.folder / "out").exists(), "something was written"
        return str(result.exception)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = Place(tmp_path)
    for split in ("seed", "validation", "test"):
        place.write(f"{split}.jsonl", "".join(json.dumps(row | {"text": f"{split} {row['text']}"}) + "\n" for row in ROWS))
    place.write(
        "run.toml",
        """
        name = "demo"
        [task]
        domain = "messages"
        labels = [{name = "a"}, {name = "b"}]
        [task.data]
        seed = "seed.jsonl"
        validation = "validation.jsonl"
        test = "test.jsonl"
        [teacher]
        model = "served"
        endpoint = "http://127.0.0.1:9/v1"
        """,
    )
    return place


def break_seed_label(place: Place) -> None:
    place.write("seed.jsonl", json.dumps(ROWS[0]) + "\n" + json.dumps(ROWS[1] | {"label": "zebra"}) + "\n")


def empty_a_class(place: Place) -> None:
    place.write("seed.jsonl", "".join(json.dumps(row) + "\n" for row in ROWS if row["label"] == "a"))


def remove_the_test_file(place: Place) -> None:
    (place.folder / "test.jsonl").unlink()


def misspell_a_key(place: Place) -> None:
    path = place.folder / "run.toml"
    path.write_text(path.read_text().replace("domain", "domian"))


def nothing(place: Place) -> None:
    pass


def make_teacher_without_weights(place: Place) -> None:
    place.write("teacher/config.json", '{"model_type": "qwen3"}')
    place.write("teacher/tokenizer.json", "{}")


def make_encoder_that_is_none(place: Place) -> None:
    place.write("encoder/notes.txt", "no model")


def make_causal_model(place: Place) -> None:
    place.write("encoder/config.json", '{"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"]}')
    place.write("encoder/model.safetensors", "")


OWN_SERVER = ("--set", "teacher.model='./teacher'")


@pytest.mark.parametrize(
    ("prepare", "options", "message"),
    [
        (break_seed_label, (), r"seed\.jsonl: row 2 has the unknown label 'zebra'; the task's labels are a, b"),
        (empty_a_class, (), r"no seed row for 1 of 2 labels \(b\)"),
        (remove_the_test_file, (), r"test\.jsonl: no such file"),
        (misspell_a_key, (), r"unknown key 'task\.domian'; did you mean 'domain'\?"),
        (nothing, ("--set", "strategy.rouns=3"), r"unknown key 'strategy\.rouns'; did you mean 'rounds'\?"),
        (nothing, ("--set", "rounds"), r"expected KEY=VALUE"),
        (nothing, ("--endpoint", "not a url"), r"'not a url' is no URL"),
        (make_encoder_that_is_none, ("--set", "student.encoder=./encoder"), r"student\.encoder: .*encoder"),
        (make_causal_model, ("--set", "student.encoder=./encoder"), r"student\.encoder: .*encoder"),
        (nothing, ("--set", "student.encoder=./nowhere"), r"student\.encoder: .*nowhere"),
    ],
)
def test_wrong_input_gets_one_message(place: Place, prepare: Callable[[Place], None], options: tuple[str, ...], message: str) -> None:
    prepare(place)
    assert re.search(message, place.run(*options))


def without_endpoint(place: Place) -> None:
    path = place.folder / "run.toml"
    path.write_text("\n".join(line for line in path.read_text().splitlines() if "endpoint" not in line).replace("served", "./teacher"))


def test_a_teacher_without_weights(place: Place) -> None:
    make_teacher_without_weights(place)
    without_endpoint(place)
    assert "it has no weights (*.safetensors)" in place.run()


def test_a_port_in_use(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    without_endpoint(place)
    monkeypatch.setattr("engine.api.check_model", print)  # the model would be looked at first
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert f"cannot use port {port}" in place.run("--set", f"teacher.port={port}")


@pytest.mark.parametrize("command", [["query", "nowhere", "select 1"], ["report", "nowhere"], ["compact", "nowhere"]])
def test_a_folder_that_is_no_run(command: list[str]) -> None:
    result = CliRunner().invoke(app, command)
    assert isinstance(result.exception, UserError)
    assert "nowhere is no run directory" in str(result.exception)


def test_errors_are_one_message_and_a_status(place: Place) -> None:
    break_seed_label(place)
    command = [sys.executable, "-m", "engine.cli", "run", str(place.folder / "run.toml"), "--out", str(place.folder / "out")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1


def all_commands() -> list[list[str]]:
    return [
        ["init"],
        ["run"],
        ["generate"],
        ["label"],
        ["teacher", "serve"],
        ["evaluate"],
        ["predict"],
        ["export-student"],
        ["serve-student"],
        ["query"],
        ["show"],
        ["replay"],
        ["report"],
        ["compact"],
    ]


@pytest.mark.parametrize("command", all_commands(), ids=" ".join)
def test_every_command_shows_an_example(command: list[str]) -> None:
    result = CliRunner().invoke(app, [*command, "--help"])
    assert result.exit_code == 0
    assert f"reflux {' '.join(command)}" in result.output.replace("\n", " ")


def test_the_folder_of_a_run_stands_for_its_configuration(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunDir(place.folder / "out")
    run.create()
    begin(run, load_config(place.folder / "run.toml"))
    (place.folder / "run.toml").unlink()
    taught: list[tuple[RunConfig, Path]] = []

    def teach(config: RunConfig, place: RunDir, _plain: bool) -> None:
        taught.append((config, place.root))

    monkeypatch.setattr("engine.cli.teach._teach", teach)
    monkeypatch.setattr("engine.cli.teach.summary_view", str)
    assert CliRunner().invoke(app, ["run", str(run.root), "--set", "engine.attempts=7"]).exit_code == 0
    ((config, root),) = taught
    assert (config.name, config.engine.attempts, root) == ("demo", 7, run.root)
    refused = CliRunner().invoke(app, ["run", str(run.root), "--out", "elsewhere"]).exception
    assert isinstance(refused, UserError)
    assert "is the folder of a run already; leave --out away" in str(refused)
