"""The base model of tasks: how it is loaded, which of its parts are trained, and where inner loops start (θ0)."""

from __future__ import annotations

import copy
import json
import logging
import math
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from huggingface_hub import hf_hub_download
from torch import nn

from hf_l3rs.errors import ArtifactError, ConfigError, reason
from hf_l3rs.hub.connection import hub_answers, hub_errors, refuse_missing_path
from hf_l3rs.optimizer.layers import canonical_name, describe_layers
from hf_l3rs.tasks.pools import derive_seed
from hf_l3rs.validation import short


if TYPE_CHECKING:
    from transformers import PreTrainedModel

logger = logging.getLogger(__name__)

State = Mapping[str, torch.Tensor]  # θ0, or any other weights of a model, as a state dictionary

ALL, HEAD = "all", "head"
_PART = re.compile(r"(last|lora):([1-9][0-9]{0,3})")
# Names of blocks: `layers.3`, `blocks.6.0`, `stages.2.layers.0`.
_BLOCK = re.compile(r"(?:.*?\.)??\d+(?:(?:\.(?:layers|blocks))?\.\d+)?(?=\.)")
# The query and value projections of attention, as in the paper.
_ATTENTION = ("query.weight", "value.weight", "qkv.weight")
_CONVOLUTION = ("conv.weight",)

_CONFIG_NAME = "config.json"


def load_image_classifier(
    name_or_path: str, num_labels: int | None = None, revision: str | None = None
) -> PreTrainedModel:
    """Loads an image-classification model in float32, with a new head of `num_labels` classes or its own."""
    from transformers import AutoModelForImageClassification

    options = _locate(name_or_path, revision)
    if num_labels is not None:
        options |= {"num_labels": num_labels, "ignore_mismatched_sizes": True}
    try:
        with _quiet_transformers():
            model, report = AutoModelForImageClassification.from_pretrained(
                name_or_path, dtype=torch.float32, trust_remote_code=False, output_loading_info=True, **options
            )
    except Exception as error:  # a damaged model raises errors of every kind
        raise ArtifactError(
            f"{name_or_path!r} cannot be loaded as an image classifier ({reason(error)}); give the Hub id or the "
            "folder of an image-classification model of transformers, complete and undamaged."
        ) from error
    _check_weights(name_or_path, model, report, new_head=num_labels is not None)
    model.config._commit_hash = options.get("revision")  # save_pretrained leaves it out
    return model


def resolved_commit(model: nn.Module) -> str | None:
    """Returns the commit of the Hub that a model was loaded from; `None` for a folder."""
    return getattr(getattr(model, "config", None), "_commit_hash", None)


def _locate(name: str, revision: str | None) -> dict[str, Any]:
    """Returns how to load a model: from one commit, whatever is pushed meanwhile, and from the cache if need be."""
    if os.path.isdir(name):
        _check_config(name, Path(name, _CONFIG_NAME))
        return {}
    refuse_missing_path(name)
    local_files_only = not hub_answers(name)
    with hub_errors(name, revision, _CONFIG_NAME):
        file = Path(hf_hub_download(name, _CONFIG_NAME, revision=revision, local_files_only=local_files_only))
    _check_config(name, file)
    return {"revision": file.parent.name, "local_files_only": local_files_only}


def _check_config(name: str, file: Path) -> None:
    """Refuses what transformers would load although it is no model: it fills in whatever is missing."""
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ArtifactError(
            f"{name!r} has no readable {_CONFIG_NAME} ({reason(error)}), so it is no model of transformers; save or "
            "download it again."
        ) from error
    if isinstance(config, dict) and {"format_version", "directions"} <= set(config):
        raise ArtifactError(
            f"{name!r} is an L3RS, not a model to fine-tune; give its base model ({config.get('base_model')})."
        )


def _check_weights(name: str, model: nn.Module, report: dict[str, Any], new_head: bool) -> None:
    """A new head is made anew in any case; everything else must come from the checkpoint."""
    head = tuple(f"{module}." for module in head_modules(model)) if new_head else ()
    trunk = [key for key, _ in model.named_parameters() if not key.startswith(head)]
    missing = sorted(set(report["missing_keys"]).intersection(trunk))
    misshapen = sorted({key for key, *_ in report["mismatched_keys"]}.intersection(trunk))
    if misshapen or len(missing) == len(trunk):
        problem = "has none of its weights"
        if misshapen:
            problem = f"has {misshapen[0]} in a shape that its config rules out"
        raise ArtifactError(f"{name!r} {problem}: weights and config are of different models; download both again.")
    if missing:
        counts, names = f"{len(missing)} of {len(trunk)}", ", ".join(missing)
        logger.warning("%r lacks %s weights; random ones stand in for %s.", name, counts, names)
    for key, tensor in model.state_dict().items():
        if not torch.isfinite(tensor).all():
            raise ArtifactError(f"{name!r} has values that are not numbers in {key}; save or download it again.")


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    from transformers.utils import logging as transformers_logging

    verbosity, has_bar = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if has_bar:
            transformers_logging.enable_progress_bar()


def check_trainable(value: str) -> None:
    """Raises unless `value` names a choice of layers: `all`, `head`, `last:N` or `lora:N` with N from 1."""
    if value not in (ALL, HEAD) and not _PART.fullmatch(value):
        raise ConfigError(
            f"ModelArguments.trainable must be {ALL}, {HEAD}, last:N for the last N blocks and the head, such as "
            f"last:2, or lora:N for adapters of rank N and the head, such as lora:8; got {short(value)}."
        )


def freeze(model: nn.Module, trainable: str) -> None:
    """
    Freezes all but the chosen layers of a model, in place, as `ModelArguments.trainable` says. The running statistics
    of their batch norm go on being updated, as in the Trainer.
    """
    if trainable == ALL:
        return
    if not head_modules(model):
        raise ConfigError(
            f"The model has no parameter named classifier, head, fc or score, so that trainable={trainable} finds no "
            f"head to train; set it to {ALL}."
        )
    part = _PART.fullmatch(trainable)
    if part and part[1] == "lora":
        _add_adapters(model, int(part[2]))  # it freezes everything else
    else:
        model.requires_grad_(False)
    described = describe_layers(model.named_parameters())
    start = _start_of_last_blocks(model, int(part[2])) if part and part[1] == "last" else len(described)
    for index, (layer, parameter) in enumerate(zip(described, model.parameters())):
        if layer.is_head or index >= start:
            parameter.requires_grad_()


def _start_of_last_blocks(model: nn.Module, count: int) -> int:
    """Returns the index of the first parameter of the last `count` blocks, in the order of the model's parameters."""
    blocks: dict[str, int] = {}
    described = describe_layers(model.named_parameters())
    for index, (layer, (name, _)) in enumerate(zip(described, model.named_parameters())):
        found = _BLOCK.match(canonical_name(name))
        if found and not layer.is_head:
            blocks.setdefault(found[0], index)
    # a stage's own layers, such as downsampling, are no block
    starts = sorted(start for block, start in blocks.items() if not any(b.startswith(f"{block}.") for b in blocks))
    if count > len(starts):
        allowed = f"last:1 to last:{len(starts)}, {HEAD} or {ALL}" if starts else f"{HEAD} or {ALL}"
        raise ConfigError(
            f"The model has {len(starts)} numbered blocks, but trainable is last:{count}; use {allowed}."
        )
    return starts[-count]


def head_modules(model: nn.Module) -> set[str]:
    """Returns the names of the modules that a model's head consists of."""
    named = list(model.named_parameters())
    return {name.rpartition(".")[0] for layer, (name, _) in zip(describe_layers(named), named) if layer.is_head}


def compare_trainable(meta_training: Mapping[str, Any], trainable: str) -> None:
    """Warns where other layers are fine-tuned than an artefact's `meta_training` names; it leaves `all` out."""
    own = meta_training.get("trainable", ALL)
    if meta_training and own != trainable:
        logger.warning(
            "This L3RS was meta-trained with trainable=%s, and is now used with trainable=%s; set it to %s to measure "
            "the L3RS at what it is made for.",
            *(own, trainable, own),
        )


def adapted_modules(model: nn.Module) -> list[str]:
    """Returns the modules that get an adapter: query and value projections, or else the dense convolutions."""
    for roles in (_ATTENTION, _CONVOLUTION):
        layers = zip(describe_layers(model.named_parameters()), model.named_parameters())
        names = [name.rpartition(".")[0] for layer, (name, _) in layers if layer.role in roles]
        names = [name for name in names if getattr(model.get_submodule(name), "groups", 1) == 1]
        if names:
            return names
    return []


def _add_adapters(model: nn.Module, rank: int) -> None:
    """Puts LoRA adapters into a model, in place, unscaled and without dropout. They alone are trainable then."""
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise ConfigError(
            f'trainable=lora:{rank} needs the package peft, which is not installed; run pip install "hf_l3rs[peft]".'
        ) from error
    names = adapted_modules(model)
    if not names:
        raise ConfigError(
            f"The model has neither query and value projections nor convolutions for trainable=lora:{rank} to adapt; "
            "set it to all, head or last:N."
        )
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=rank, target_modules=names, lora_dropout=0.0), model)


class InitialStates:
    """Draws θ0 for a model: its weights as they are now, with a new head and new adapters for each seed."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        # a state dictionary refers to the weights of its model, which an inner loop may be about to train
        self.state: State = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        self._head = {name: model.get_submodule(name) for name in head_modules(model)}
        if not self._head:
            raise ConfigError(
                "The model has no parameter named classifier, head, fc or score, so its head cannot be renewed; give "
                "a model with such a head."
            )

    def draw(self, seed: int) -> State:
        """Returns the state that this seed stands for. Tensors that are the same for all seeds are shared."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "initial state"))
            drawn: dict[str, torch.Tensor] = {}
            for name, module in self._head.items():
                drawn |= {f"{name}.{key}": tensor for key, tensor in _reinitialised(self.model, module).items()}
            for name, tensor in self.state.items():  # adapters, as PEFT initialises them
                if ".lora_A." in name:
                    drawn[name] = nn.init.kaiming_uniform_(torch.empty_like(tensor), a=math.sqrt(5))
                elif ".lora_B." in name:
                    drawn[name] = torch.zeros_like(tensor)
            return {**self.state, **drawn}


def _reinitialised(model: nn.Module, module: nn.Module) -> State:
    """The state of a copy of `module`, initialised as the model's own class initialises it."""
    module = copy.deepcopy(module)
    initialise = getattr(model, "_init_weights", None)
    for part in module.modules():
        reset = initialise or getattr(part, "reset_parameters", None)
        if reset is not None:
            reset(part) if initialise else reset()
    return {name: tensor.detach() for name, tensor in module.state_dict().items()}
