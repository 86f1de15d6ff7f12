"""Low-rank adapters (LoRA, arXiv 2106.09685) as what tasks fine-tune, made by PEFT in the base model itself."""

from __future__ import annotations

import math

import torch
from torch import nn

from hf_l3rs.errors import ConfigError
from hf_l3rs.learned.layers import describe_layers
from hf_l3rs.tasks.task import State


# The query and value projections of attention, as in the paper.
_ATTENTION = ("query.weight", "value.weight", "qkv.weight")
_CONVOLUTION = ("conv.weight",)


def adapted_modules(model: nn.Module) -> list[str]:
    """
    Returns the names of the modules that get an adapter: query and value projections, or in a model that has none all
    convolutions of one group.
    """
    layers = list(zip(describe_layers(model.named_parameters()), (name for name, _ in model.named_parameters())))
    for roles in (_ATTENTION, _CONVOLUTION):
        names = [name.rpartition(".")[0] for layer, name in layers if layer.role in roles]
        names = [name for name in names if getattr(model.get_submodule(name), "groups", 1) == 1]
        if names:
            return names
    return []


def add_adapters(model: nn.Module, rank: int) -> None:
    """
    Puts a LoRA into a model, in place: `lora_alpha` is the rank, so that adapters are not scaled, and there is no
    dropout. The adapters alone are trainable then.

    Args:
        model (`nn.Module`): What is to be fine-tuned.
        rank (`int`): Of the adapters.

    Raises:
        ConfigError: If peft is not installed, or the model has no layer to adapt.
    """
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


def new_adapters(state: State) -> State:
    """
    Draws the adapters in a state anew, as PEFT initialises them: A at random, B zero, so that the model starts out as
    it was.

    Args:
        state (`Mapping[str, torch.Tensor]`): Of a model, with or without adapters.

    Returns:
        `Mapping[str, torch.Tensor]`: The adapters alone.
    """
    drawn = {}
    for name, tensor in state.items():
        if ".lora_A." in name:
            drawn[name] = nn.init.kaiming_uniform_(torch.empty_like(tensor), a=math.sqrt(5))
        elif ".lora_B." in name:
            drawn[name] = torch.zeros_like(tensor)
    return drawn
