# `make help` lists the targets. PYTHON, VENV and PIP_ARGS can be set: make setup PYTHON=python3.12
PYTHON ?= python3
VENV ?= .venv
PIP_ARGS ?=
CONFIG ?= digits
RUN ?= runs/digits
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help setup demo gd-vs-sgd train eval test check format bench bench-data bench-regions bench-scaling bench-parallel clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.installed ## Make the environment in .venv
$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install $(PIP_ARGS) --editable '.[dev]'
	touch $@

demo: setup ## Train on the embedded digits, evaluate, and show where the results are
	$(BIN)/mlpcli train digits > $(VENV)/.demo
	@cat $(VENV)/.demo
	$(BIN)/mlpcli eval "$$(head -n 1 $(VENV)/.demo)"
	@echo
	@echo "The results are in $$(head -n 1 $(VENV)/.demo):" && ls "$$(head -n 1 $(VENV)/.demo)"

# What differs is the optimizer and the size of the batch alone. One thread each: their seconds can be compared.
PAIRED := training.epochs=100 training.keep_checkpoints=26 training.threads=1 --quiet
gd-vs-sgd: setup ## Train GD and SGD on digits, compare them at equal work, and draw their paths on the loss surface
	$(BIN)/mlpcli train digits_gd name=gd $(PAIRED) > $(VENV)/.gd
	$(BIN)/mlpcli train digits_gd name=sgd 'optimizer={name: sgd, lr: 0.1}' training.batch_size=32 $(PAIRED) > $(VENV)/.sgd
	$(BIN)/mlpcli compare "$$(head -n 1 $(VENV)/.gd)" "$$(head -n 1 $(VENV)/.sgd)" \
		-o gd-vs-sgd.html --landscape gd-vs-sgd.svg
	@echo
	@echo "The runs are in $$(head -n 1 $(VENV)/.gd) and $$(head -n 1 $(VENV)/.sgd)."
	@echo "The comparison with its curves is in gd-vs-sgd.html, and the paths are in gd-vs-sgd.svg."

train: setup ## Train CONFIG=path or starter
	$(BIN)/mlpcli train $(CONFIG)

eval: setup ## Evaluate RUN=run directory or checkpoint
	$(BIN)/mlpcli eval $(RUN)

test: setup ## Run all tests
	$(BIN)/python -m pytest --numprocesses auto --dist loadgroup

check: setup ## Format, lint, types and tests: what CI runs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest --numprocesses auto --dist loadgroup

format: setup ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

$(VENV)/.bench: $(VENV)/.installed
	$(BIN)/python -m pip install $(PIP_ARGS) --editable '.[dev,bench]'
	touch $@

bench: $(VENV)/.bench ## Measure start-up, memory, evaluation, diagnostics, and training against other libraries
	$(BIN)/python bench/startup.py
	$(BIN)/python bench/memory.py
	$(BIN)/python bench/evaluation.py
	$(BIN)/python bench/diagnostics.py
	$(BIN)/python bench/report.py
	$(BIN)/python bench/sweep.py
	$(BIN)/python bench/peers.py --json peers.json
	$(BIN)/python bench/peers.py --optimizers adam --only mlpcli jax torch-eager products

bench-data: $(VENV)/.bench ## Measure tables, augmentation, predictions, and the table starters against scikit-learn
	$(BIN)/python bench/table.py
	$(BIN)/python bench/augmentation.py
	$(BIN)/python bench/predict.py
	$(BIN)/python bench/table_accuracy.py table_classification 3
	$(BIN)/python bench/table_accuracy.py table_regression 3

bench-regions: $(VENV)/.installed ## Measure how fast planes and lines are cut into regions
	$(BIN)/python bench/regions.py --json regions.json

bench-scaling: $(VENV)/.bench ## Measure how the time grows with samples, width and depth
	$(BIN)/python bench/scaling.py --json scaling.json

bench-parallel: $(VENV)/.installed ## Measure what a second process gains, and predict what more would
	$(BIN)/python bench/parallel.py --json parallel.json

clean: ## Remove the environment and caches; runs/ and data/ stay
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
