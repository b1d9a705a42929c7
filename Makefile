# The verbs of this project, the same for people and CI. `make quickstart` and `make test` set up what they need.
.DEFAULT_GOAL := help
.PHONY: bench-loop help setup quickstart test test-slow test-fast check format bench-engine bench-roofline bench-knee bench-prefix bench-store bench-inference bench-quickstart bench-student bench-real-data bench-structured bench-cost bench-dashboard bench-bulk docs lock methods teacher torture
export PYTHON ?= python3
SEED ?= 1
SEED_ROWS ?= 2
BIN := .venv/bin
# One thread a worker: workers that compute on all cores at once slow each other down tenfold.
FAST_TESTS := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not e2e and not gpu" -n auto --dist loadfile

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

setup: .venv/ready ## make .venv with everything, once (GPU=1 for the GPU build of vLLM)

.venv/ready: requirements/setup.sh requirements/cpu.txt requirements/dev.txt pyproject.toml
	@bash requirements/setup.sh

quickstart: .venv/ready ## teach a small model with a local LLM, on this machine (SEED=n another draw, SEED_ROWS=n real rows an intent)
	@$(BIN)/reflux run examples/quickstart/quickstart.toml --out runs/quickstart --seed $(SEED) --set task.data.seed_rows_per_class=$(SEED_ROWS) --again

test: .venv/ready ## all tests, the real vLLM included: alone first, then the others on all cores
	$(BIN)/python -m pytest -m "(e2e or gpu) and not slow"
	$(FAST_TESTS)

test-slow: .venv/ready ## the example folder's other task files on the real vLLM (five minutes)
	$(BIN)/python -m pytest -m slow

test-fast: .venv/ready ## the tests that need no vLLM
	$(FAST_TESTS)

check: .venv/ready ## lint, format, types, floors
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

format: .venv/ready ## mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench-engine: .venv/ready ## what a request costs the client, beside its peers (sets up their environments in .bench/)
	$(BIN)/python -m benchmarks.peers.environments openai datatrove curator data_designer litellm distilabel
	$(BIN)/python -m benchmarks.engine

bench-roofline: .venv/ready ## output tokens/s through the engine / LLM.generate, on the real vLLM
	$(BIN)/python -m benchmarks.roofline

bench-knee: .venv/ready ## how near the engine comes to the best fixed concurrency, without being told one
	$(BIN)/python -m benchmarks.knee --vllm

bench-prefix: .venv/ready ## what the order of requests is worth to the server's prefix cache
	$(BIN)/python -m benchmarks.prefix

torture: .venv/ready ## kill the engine 200 times, fill its disk, and count what is lost, doubled or torn (about ten minutes)
	$(BIN)/python -m benchmarks.torture --kills 200 --out benchmarks/results/torture.json

bench-store: .venv/ready ## rows/s through journal and segments, memory, layout, duplicate gates
	$(BIN)/python -m benchmarks.store

bench-inference: .venv/ready ## how fast a student predicts in torch and ONNX, and the F1 each keeps (STUDENT=runs/quickstart; else one is trained)
	$(BIN)/python -m benchmarks.inference $(if $(STUDENT),--student $(STUDENT))

bench-student: .venv/ready ## how fast a student learns beside its peers, and what an update costs (DATA=folder of the data sets)
	-$(BIN)/python -m benchmarks.peers.environments setfit
	$(BIN)/python -m benchmarks.student $(if $(DATA),--data $(DATA))

bench-real-data: .venv/ready ## what a student learns from public data beside a plain Trainer (DATA=folder of the data sets; resumes)
	$(BIN)/python -m benchmarks.real_data $(if $(DATA),--data $(DATA))

bench-quickstart: .venv/ready ## the quickstart over three seeds: gain and time, written to benchmarks/results/
	$(BIN)/python -m benchmarks.quickstart

bench-structured: .venv/ready ## constrained output against free: schema failures, tokens/s, rows per 1,000 tokens
	$(BIN)/python -m benchmarks.structured

bench-cost: .venv/ready ## teacher without a student beside the student: time, money, scores, break-even, on a quickstart run
	$(BIN)/python -m benchmarks.cost

bench-dashboard: .venv/ready ## what watching costs a run
	$(BIN)/python -m benchmarks.dashboard

bench-loop: .venv/ready ## what it is worth that the teacher writes while the student learns (half an hour)
	$(BIN)/python -m benchmarks.loop

methods: .venv/ready ## what each method makes of the same teacher tokens, five seeds each, on both tasks (an hour and a half on 2 cores; resumes)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.methods --jobs 2
	$(BIN)/python -m benchmarks.methods.chart

bench-bulk: .venv/ready ## a million rows in bulk, killed three times on the way (about ten minutes)
	$(BIN)/python -m benchmarks.bulk

docs: .venv/ready ## remake docs/reference from the code
	$(BIN)/python -m engine.reference

lock: .venv/ready ## remake the pinned lists in requirements/
	$(BIN)/python requirements/lock.py

teacher: .venv/ready ## retrain the quickstart's teacher from scratch, then measure it (over an hour on 2 cores without a GPU)
	$(BIN)/python examples/quickstart/split.py
	$(BIN)/python examples/quickstart/train_teacher.py
	$(BIN)/python examples/quickstart/measure_teacher.py
