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
.DEFAULT_GOAL := test
.PHONY: install test test-slow test-gpu quality style demo space docs meta-train evaluate readme benchmark clean

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

# README's table and the pictures, from the rows that recipes/results holds.
readme: $(VENV)/.installed
	$(BIN)/python -m recipes.readme

benchmark: $(VENV)/.installed
	$(BIN)/python -m recipes.benchmark_step
	$(BIN)/python -m recipes.benchmark_meta_training

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
