PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt

# A commit's number is the turn of the slow tests; a clone without history has none, and takes the day's.
SHARES := 24
TURN = $(shell if [ "$$(git rev-parse --is-shallow-repository 2>/dev/null)" = false ]; \
	then git rev-list --count HEAD; else echo $$(($$(date +%s) / 86400)); fi)

# Tests start hundreds of processes, which find the sources compiled.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo train-demo test share slow lint clean

# Each installation leaves a stamp, so that a second call starts at once.
$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed-demo: $(VENV)/bin/python pyproject.toml constraints.txt
	$(PIP) -e ".[onnx]"
	touch $@

$(VENV)/installed-train: $(VENV)/bin/python pyproject.toml constraints.txt
	$(PIP) -e ".[train]"
	touch $@

$(VENV)/installed-test: $(VENV)/bin/python pyproject.toml constraints.txt
	$(PIP) -e ".[test]"
	touch $@

train-demo: $(VENV)/installed-train  ## train RepNets' example, fold it, print accuracy and latency
	rm -rf build/train-demo
	$(BIN)/reparamkit train repnets_toy --data digits --epochs 10 --out build/train-demo

demo: $(VENV)/installed-demo  ## fold mobileone_s0 to ONNX and print the report
	$(BIN)/reparamkit fold mobileone_s0 -o mobileone_s0.onnx

test: $(VENV)/installed-test  ## install what the tests need and run them
	$(BIN)/python -m pytest -q -n 2 --dist worksteal

share: $(VENV)/installed-test  ## the tests, and the share of the slow ones that is this commit's turn
	$(BIN)/python -m pytest -q -n 2 --dist worksteal --slow-share $(TURN)/$(SHARES)

slow: $(VENV)/installed-test  ## all of the slow tests
	$(BIN)/python -m pytest -q -n 2 --dist worksteal -m slow

lint: $(VENV)/installed-test  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.PHONY: docs dist bench
bench: $(VENV)/installed-test  ## docs/benchmarks.md, on an idle machine
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.benchmarks.page

docs: $(VENV)/installed-test  ## the pages that are written from the sources, and the site in build/site
	$(BIN)/python -m tests.picture
	$(BIN)/python -m tests.cli_page
	$(BIN)/python -m tests.four_ways
	PATH="$(CURDIR)/$(BIN):$$PATH" NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

# The wheel is built from the sdist; a second one from this tree has to hold the same. What lies in build/lib
# from another time would go into that one.
TRIAL := build/dist-trial
dist: $(VENV)/installed-test  ## sdist and wheel, tried in an environment that holds nothing else
	rm -rf dist $(TRIAL) build/lib build/bdist* build/from-tree *.egg-info
	$(BIN)/python -m build --outdir dist .
	$(BIN)/python -m build --wheel --outdir build/from-tree .
	$(PYTHON) -m venv $(TRIAL)
	$(TRIAL)/bin/pip install --quiet --disable-pip-version-check -c constraints.txt dist/*.whl
	$(TRIAL)/bin/python -P tests/dist_trial.py dist build/from-tree

clean:
	rm -rf $(VENV) build dist *.egg-info
