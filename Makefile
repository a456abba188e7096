# `make help` lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN := $(BIN)/python -m src

.DEFAULT_GOAL := help
.PHONY: help install quickstart test test-fast lint format bench bench-prediction bench-pretrain bench-equivalence bench-recipes stress tensorboard clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1|\2/' | column -t -s '|'

$(BIN)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[offline,onnx,dev]'
	@touch $@

install: $(BIN)/.installed  ## a virtual environment in .venv, with the tested versions

quickstart: install  ## fine-tune on real reviews with real weights, on a CPU; then test
	$(RUN) fit --config configs/quickstart.yaml
	$(RUN) test --ckpt_path best

test: install  ## all tests
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal

test-fast: install  ## the tests that are not marked slow
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal -m "not slow"

lint: install  ## style, types, and that imports go one way
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: install  ## rewrite in the project's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: install  ## training and start-up beside the Hugging Face Trainer, into docs/results.md (an hour)
	$(BIN)/python -m benchmarks.speed.training
	$(BIN)/python -m benchmarks.speed.start

bench-prediction: install  ## prediction beside transformers.pipeline, into docs/results.md (10 minutes)
	$(BIN)/python -m benchmarks.speed.prediction

bench-pretrain: install  ## pre-training beside the Hugging Face Trainer, into docs/results.md (12 minutes)
	$(BIN)/python -m benchmarks.speed.pretraining

bench-equivalence: install  ## accuracy and loss curves beside the Hugging Face Trainer, into docs/experiments/recipes.md (6 hours)
	$(BIN)/python -m benchmarks.recipes --recipes hf_trainer hf_expert tutorial grouped short --labels 1000 \
	  --baseline hf_trainer --plot loss --section equivalence --title "Beside the Hugging Face Trainer"

bench-recipes: install  ## accuracy by recipe, labels and seed, into docs/experiments/recipes.md (days)
	$(BIN)/python -m benchmarks.recipes --section recipes-val

stress: install  ## kill 200 runs and compare them; let every write fail; thousands of damaged files; Ray (hours)
	$(BIN)/python -m benchmarks.stress
	FAULTS=all $(BIN)/python -m pytest tests/faults --hypothesis-profile stress
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[ray]'
	$(BIN)/python -m pytest tests/inference/test_ray_engine.py

tensorboard: install  ## the curves of all runs
	$(BIN)/tensorboard --logdir lightning_logs

clean:  ## remove the environment and the caches, keep the runs
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache *.egg-info
