from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import engine
from engine import errors
from engine.errors import PreflightError
from engine.machine import preflight
from engine.machine.preflight import GIB, Machine, check_machine, container_headroom, examine

GOOD = Machine(
    python=(3, 11),
    system="Linux",
    architecture="x86_64",
    cpu_flags=frozenset({"avx2", "avx512f"}),
    available_memory=16 * GIB,
    folder="/runs/x",
    free_disk=50 * GIB,
    free_tmp=50 * GIB,
    shared_memory=GIB,
    has_gpu=False,
    vllm="cpu",
)


def test_a_good_machine_has_nothing_to_say() -> None:
    assert list(check_machine(GOOD)) == []
    assert list(check_machine(GOOD, setup=True)) == []


@pytest.mark.parametrize(
    ("machine", "said"),
    [
        (GOOD._replace(python=(3, 10)), "Python 3.11 to 3.13 is needed; this is 3.10"),
        (GOOD._replace(python=(3, 14)), "Python 3.11 to 3.13 is needed; this is 3.14"),
        (GOOD._replace(system="Darwin"), "Reflux runs on Linux (also in Docker or WSL 2); this is Darwin"),
        (GOOD._replace(cpu_flags=frozenset({"sse2"})), "this processor has no AVX2"),
        (GOOD._replace(available_memory=2 * GIB), "2.0 GiB of memory are available; 3.0 GiB are needed"),
        (GOOD._replace(free_disk=GIB // 2), "the disk of /runs/x has 0.5 GiB free; 1.0 GiB are needed"),
        (GOOD._replace(free_tmp=0), "the disk for temporary files has 0.0 GiB free"),
        (GOOD._replace(shared_memory=None), "/dev/shm has less than 32 MiB free"),
        (GOOD._replace(shared_memory=2**20), "/dev/shm has less than 32 MiB free"),
        (GOOD._replace(vllm=None), "vLLM is not installed"),
        (GOOD._replace(vllm="gpu"), "the installed vLLM needs a GPU, and there is none"),
    ],
)
def test_each_thing_missing_is_one_line(machine: Machine, said: str) -> None:
    with pytest.raises(PreflightError) as caught:
        check_machine(machine)
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)


def test_all_that_is_missing_is_said_at_once() -> None:
    with pytest.raises(PreflightError) as caught:
        check_machine(GOOD._replace(python=(3, 9), free_disk=0, available_memory=0))
    assert len(str(caught.value).splitlines()) == 3


def test_another_system_is_all_that_is_said_of_it() -> None:
    findings = examine(GOOD._replace(system="Windows", available_memory=0), setup=True, serve=True)
    assert len(findings.problems) == 1


@pytest.mark.parametrize(
    ("machine", "said"),
    [
        (GOOD._replace(cpu_flags=frozenset({"avx2"})), "no AVX-512"),
        (GOOD._replace(architecture="aarch64", cpu_flags=frozenset()), "this machine is aarch64"),
    ],
)
def test_what_is_only_a_pity_is_a_warning(machine: Machine, said: str) -> None:
    [warning] = check_machine(machine)
    assert said in warning


def test_an_installation_needs_more_disk_and_no_vllm_yet() -> None:
    check_machine(GOOD._replace(vllm=None), setup=True)
    check_machine(GOOD._replace(free_disk=2 * GIB))
    with pytest.raises(PreflightError):
        check_machine(GOOD._replace(free_disk=2 * GIB), setup=True)


def test_an_endpoint_elsewhere_needs_no_server_here() -> None:
    machine = GOOD._replace(vllm=None, cpu_flags=frozenset({"sse2"}), shared_memory=None, available_memory=GIB)
    assert list(check_machine(machine, serve=False)) == []


def test_with_a_gpu_the_processor_does_not_matter() -> None:
    assert list(check_machine(GOOD._replace(has_gpu=True, vllm="gpu", cpu_flags=frozenset({"sse2"})))) == []


def test_this_machine_is_seen(tmp_path: Path) -> None:
    machine = Machine.here(tmp_path / "not" / "there" / "yet")
    assert machine.python == sys.version_info[:2]
    assert machine.available_memory > 0
    assert machine.free_disk > 0
    assert machine.folder == str(tmp_path / "not" / "there" / "yet")


def write_group(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(content)


def test_the_tightest_limit_of_a_container_counts(tmp_path: Path) -> None:
    write_group(tmp_path / "a", memory__max="1000\n", memory__current="900\n", memory__stat="anon 1\ninactive_file 50\n")
    write_group(tmp_path / "a" / "b", memory__max="max\n", memory__current="10\n")
    assert container_headroom(tmp_path, "0::/a/b\n") == 150


def test_limits_of_the_older_kind_count_too(tmp_path: Path) -> None:
    write_group(
        tmp_path / "memory" / "x", memory__limit_in_bytes="1000", memory__usage_in_bytes="400", memory__stat="total_inactive_file 0\n"
    )
    (tmp_path / "memory" / "memory.limit_in_bytes").write_text("9223372036854771712")  # how it says "none"
    (tmp_path / "memory" / "memory.usage_in_bytes").write_text("400")
    assert container_headroom(tmp_path, "9:name=systemd:/\n4:memory:/x\n0::/\n") == 600


def test_inside_a_container_the_named_group_may_be_out_of_sight(tmp_path: Path) -> None:
    write_group(tmp_path / "root", memory__max="1000", memory__current="400")
    assert container_headroom(tmp_path / "root", "0::/somewhere/else\n") == 600


def test_no_limit_is_none(tmp_path: Path) -> None:
    assert container_headroom(tmp_path, "0::/a\n") is None
    assert container_headroom(tmp_path, "") is None


def run_preflight(*arguments: str) -> subprocess.CompletedProcess[str]:
    """As `make` does: from the project's folder, with nothing installed."""
    root = Path(engine.__file__).parents[1]
    return subprocess.run(
        [sys.executable, "-S", "-m", "engine.machine.preflight", *arguments], cwd=root, capture_output=True, text=True, check=False
    )


def test_the_command_runs_on_the_standard_library_alone(tmp_path: Path) -> None:
    done = run_preflight(str(tmp_path))
    assert done.returncode in (0, 2), done.stderr  # what it finds is this machine's affair
    assert "Traceback" not in done.stderr


def test_the_command_ends_with_status_2_and_the_problems(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(Machine, "here", lambda _folder: GOOD._replace(python=(3, 9)))  # pyright: ignore
    assert preflight.main([]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("Python 3.11 to 3.13 is needed")


@pytest.mark.parametrize("module", [engine, errors, preflight])
def test_an_old_python_can_read_it(module: object) -> None:
    source = Path(str(getattr(module, "__file__", ""))).read_text(encoding="utf-8")
    tree = ast.parse(source, feature_version=(3, 8))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in imported} - set(sys.stdlib_module_names) <= {"engine"}
