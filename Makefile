# make test       code quality and the tests that need neither a GPU nor patience
# make demo       the library at work, in minutes on a CPU
#
# Everything runs in .venv, made on the first call. Another build of torch, for example for CUDA 12.6:
#   make test TORCH="torch==2.13.0 --index-url https://download.pytorch.org/whl/cu126"

PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV ?= .venv
BIN := $(VENV)/bin
# Two single-threaded processes are the fastest way to use two cores; with GPUs, `accelerate launch` takes their place.
TORCHRUN := OMP_NUM_THREADS=1 $(BIN)/torchrun --standalone --nproc_per_node 2
EVALUATE := $(TORCHRUN) -m recipes.evaluate
META_TRAIN := $(TORCHRUN) -m recipes.meta_train
SOURCES := hf_l3rs recipes tests
# For `make test-versions`. Of pyenv's Pythons the floor is taken even where it is not the active one.
LOWEST_PYTHON ?= $(firstword $(wildcard $(HOME)/.pyenv/versions/3.10.*/bin/python) python3.10)
NEWEST_PYTHON ?= $(PYTHON)
NEWEST_TORCH ?= torch
VERSIONS_TESTS ?= tests/optimizer tests/trainer tests/hub tests/tasks tests/tasks tests/meta/test_checkpoint.py
VERSIONS_PYTEST := -m pytest -m "not slow and not gpu" $(VERSIONS_TESTS)

.DEFAULT_GOAL := test
.PHONY: install test test-slow test-gpu test-versions test-lowest test-newest quality style demo space docs \
	pretrain meta-train evaluate ablations readme benchmark clean

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(TORCH)
	$(BIN)/python -m pip install --quiet -e ".[dev]"
	touch $@

install: $(VENV)/.installed

test: quality
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal -m "not slow and not gpu"

test-slow: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "slow and not gpu"

test-gpu: $(VENV)/.installed
	$(BIN)/python -m pytest -m gpu

# The oldest and the newest releases that pyproject.toml allows, each in an environment of its own. PyPI's torch for Linux
# brings CUDA along: 3 GB to download and 6 GB on the disk for each.
test-versions: test-lowest test-newest

.venv-lowest/.installed: pyproject.toml tests/lowest.txt
	$(LOWEST_PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet -c tests/lowest.txt -e ".[peft]" "pytest>=8"
	touch $@

test-lowest: .venv-lowest/.installed
	OMP_NUM_THREADS=1 .venv-lowest/bin/python $(VERSIONS_PYTEST)

# What is newest changes from day to day, so pip looks each time.
test-newest:
	test -x .venv-newest/bin/python || $(NEWEST_PYTHON) -m venv .venv-newest
	.venv-newest/bin/python -m pip install --quiet --upgrade --upgrade-strategy eager $(NEWEST_TORCH) -e ".[peft]" "pytest>=8"
	OMP_NUM_THREADS=1 .venv-newest/bin/python $(VERSIONS_PYTEST)

quality: $(VENV)/.installed
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy

style: $(VENV)/.installed
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

demo: $(VENV)/.installed
	$(BIN)/python -m recipes.demo

# A look inside the released optimizers and a race against Adam, in the browser.
space: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet -e ".[space]"
	$(BIN)/python -m recipes.space.app

# The documentation site, outputs/docs/index.html; no network once the packages are there.
docs: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet -e ".[docs]"
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m recipes.docs.build outputs/docs

pretrain: $(VENV)/.installed
	$(BIN)/python recipes/pretrain.py --architecture resnet --output_dir recipes/base_models/resnet-tiny-fashion
	$(BIN)/python recipes/pretrain.py --architecture vit --output_dir recipes/base_models/vit-tiny-fashion

meta-train: $(VENV)/.installed
	$(META_TRAIN) recipes/configs/resnet_tiny_fashion.yaml
	$(META_TRAIN) recipes/configs/vit_tiny_fashion.yaml
	$(BIN)/python recipes/base_models/build_zoo.py --only trained
	$(META_TRAIN) recipes/configs/universal_start.yaml

# The evaluation of the cards and README, about an hour on two cores; interrupted, it goes on where it was.
evaluate: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet -e ".[rivals]"
	$(BIN)/python recipes/data/build_digits.py outputs/digits
	$(EVALUATE) recipes/configs/resnet_tiny_fashion.yaml --only in_domain other_domain
	$(EVALUATE) recipes/configs/vit_tiny_fashion.yaml --only in_domain

# What each part of an L3RS brings: two dozen short meta-trainings; interrupted, it goes on where it was.
ablations: $(VENV)/.installed
	$(TORCHRUN) -m recipes.ablations recipes/configs/ablations.yaml

# README's table and the pictures, from the rows that recipes/results holds.
readme: $(VENV)/.installed
	$(BIN)/python -m recipes.readme

benchmark: $(VENV)/.installed
	$(BIN)/python -m recipes.benchmark_step
	$(BIN)/python -m recipes.benchmark_meta_training

clean:
	rm -rf $(VENV) .venv-lowest .venv-newest build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
