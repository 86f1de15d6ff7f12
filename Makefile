# make test       code quality and the tests that need neither a GPU nor patience
# make demo       the library at work, in minutes on a CPU
#
# Everything runs in .venv, made on the first call. Another build of torch, for example for CUDA 12.6:
#   make test TORCH="torch==2.13.0 --index-url https://download.pytorch.org/whl/cu126"

PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV ?= .venv
BIN := $(VENV)/bin
SOURCES := hf_l3rs recipes tests
# Folder of the four idx files of Fashion-MNIST, for `make data`.
FASHION_MNIST ?= /usr/share/datasets/fashion-mnist

.DEFAULT_GOAL := test
.PHONY: install test test-slow test-gpu quality style demo data pretrain meta-train benchmark clean

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(TORCH)
	$(BIN)/python -m pip install --quiet -e ".[dev]"
	touch $@

install: $(VENV)/.installed

test: quality
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow and not gpu"

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
	$(BIN)/python recipes/demo.py

data: $(VENV)/.installed
	$(BIN)/python recipes/data/build_fashion_mnist.py $(FASHION_MNIST)

pretrain: $(VENV)/.installed
	$(BIN)/python recipes/pretrain.py --architecture resnet --output_dir recipes/base_models/resnet-tiny-fashion
	$(BIN)/python recipes/pretrain.py --architecture vit --output_dir recipes/base_models/vit-tiny-fashion

meta-train: $(VENV)/.installed
	$(BIN)/accelerate launch recipes/meta_train.py recipes/configs/resnet_tiny_fashion.yaml

benchmark: $(VENV)/.installed
	$(BIN)/python recipes/meta_evaluate.py recipes/configs/evaluate_resnet_tiny_fashion.yaml

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
