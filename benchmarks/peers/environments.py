"""The peers' virtual environments, one each, for their pins exclude one another: `.bench/NAME`.

    python -m benchmarks.peers.environments [NAME ...]

makes those named, or all. What is ready is kept; a new list of pins, or another Python, makes an environment anew. pip's words are in
`.bench/NAME.log`.
"""

from __future__ import annotations

import argparse
import hashlib
import platform
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
ENVIRONMENTS = ROOT / ".bench"
REQUIREMENTS = Path(__file__).parent / "requirements"
NAMES = tuple(sorted(path.stem for path in REQUIREMENTS.glob("*.txt")))

COMMAND = "python -m benchmarks.peers.environments"


class PeerError(RuntimeError):
    """A peer could not be installed or did not do its work: the message says which, and ends in the peer's own last words."""


def python_of(name: str) -> Path:
    """The interpreter of a peer's environment. PeerError if that is not ready, or of other pins than those of now."""
    if not _is_ready(name):
        raise PeerError(f"the environment of {name} is not ready; make it with: {COMMAND} {name}")
    return ENVIRONMENTS / name / "bin" / "python"


def make(name: str) -> bool:
    """Whether anything had to be done. PeerError if it could not be; the next attempt begins anew."""
    if _is_ready(name):
        return False
    ENVIRONMENTS.mkdir(exist_ok=True)
    folder, log = ENVIRONMENTS / name, ENVIRONMENTS / f"{name}.log"
    pip = [str(folder / "bin" / "python"), "-m", "pip", "--no-input", "--disable-pip-version-check"]
    commands = (
        [sys.executable, "-m", "venv", "--clear", str(folder)],
        # The list is complete; what pip would add by itself, `pip check` misses.
        [*pip, "install", "--no-deps", "-r", str(REQUIREMENTS / f"{name}.txt")],
        [*pip, "check"],
    )
    with log.open("w", encoding="utf-8") as output:
        for command in commands:
            if subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, check=False).returncode:
                raise PeerError(f"{name} could not be installed; all of pip's output is in {log}\n{last_lines(log)}")
    _marker(name).write_text(_wanted(name), encoding="ascii")
    return True


def last_lines(log: Path, count: int = 15) -> str:
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-count:])


def _marker(name: str) -> Path:
    return ENVIRONMENTS / name / "made-from"


def _is_ready(name: str) -> bool:
    marker = _marker(name)
    return marker.is_file() and marker.read_text(encoding="ascii") == _wanted(name)


def _wanted(name: str) -> str:
    pins = hashlib.sha256((REQUIREMENTS / f"{name}.txt").read_bytes()).hexdigest()
    return f"Python {platform.python_version()}, pins {pins}\n"


def main() -> int:
    parser = argparse.ArgumentParser(prog=COMMAND, description="Make the peers' virtual environments.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(NAMES)}; all of them if none is named")
    names: list[str] = parser.parse_args().names
    if unknown := set(names) - set(NAMES):
        parser.error(f"no such peer: {', '.join(sorted(unknown))}; there are: {', '.join(NAMES)}")
    failures: list[PeerError] = []
    for name in names or NAMES:
        began_at = time.monotonic()
        print(f"{name:16}", end="", flush=True)
        try:
            print(f"made in {time.monotonic() - began_at:.0f} s" if make(name) else "ready")
        except PeerError as error:
            failures.append(error)
            print("FAILED")
    for error in failures:
        print(f"\nerror: {error}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
