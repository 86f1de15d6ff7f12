"""A saved state on its way into an optimizer: what is refused here cannot fail inside a step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from hf_l3rs.errors import BindingError
from hf_l3rs.optimizer.config import L3RSConfig
from hf_l3rs.optimizer.features import EMA_CHANNELS
from hf_l3rs.optimizer.parameters import all_named, check_lr, check_num_training_steps
from hf_l3rs.optimizer.step import FLOAT32, buffer_names
from hf_l3rs.validation import short


def check_groups(state_dict: Any, fingerprint: str) -> None:
    """
    Checks the parts of a state that do not depend on the layers.

    Args:
        state_dict (`dict`): What is to be loaded.
        fingerprint (`str`): Of the meta-weights that it must have been made with.

    Raises:
        BindingError: If it is not a state of an L3RS with these meta-weights.
        ConfigError: If `lr` or `num_training_steps` of a group is out of its range.
    """
    groups = state_dict.get("param_groups") if isinstance(state_dict, Mapping) else None
    are_groups = isinstance(groups, list) and groups and all(isinstance(group, Mapping) for group in groups)
    if groups is None or not are_groups or not isinstance(state_dict.get("state"), Mapping):
        raise BindingError(
            "A state of L3RS has state and param_groups, but this has not; pass what optimizer.state_dict() gave."
        )
    other = {group.get("fingerprint") for group in groups} - {fingerprint}
    if other:
        raise BindingError(
            f"The checkpoint was made with meta-weights {other.pop()}, but this L3RS is {fingerprint}; load the L3RS "
            "that the run was started with."
        )
    for group in groups:
        missing = sorted({"params", "lr", "step", "num_training_steps"} - set(group))
        if missing:
            raise BindingError(
                f"A parameter group of the state lacks {', '.join(missing)}; pass what optimizer.state_dict() gave."
            )
        _check_layers(group["params"], group.get("param_names"))
        check_lr(group["lr"])
        check_num_training_steps(group["num_training_steps"])
        step = group["step"]
        if not isinstance(step, int) or isinstance(step, bool) or step < 0:
            raise BindingError(
                f"The state's step must be a whole number of at least 0, got {step!r}; load an earlier one."
            )


def _check_layers(params: Any, names: Any) -> None:
    are_names = names is None or (isinstance(names, list) and isinstance(params, list) and len(names) == len(params))
    if not isinstance(params, list) or not are_names:
        raise BindingError(
            f"A parameter group of the state has params {short(params)} for layers {short(names)}, but must have one "
            "for each; pass what optimizer.state_dict() gave."
        )


def check_state_dict(state_dict: Any, groups: list[dict[str, Any]], config: L3RSConfig, float32_copy: bool) -> None:
    """
    Checks that a state fits the layers of `groups` and can be stepped on.

    Raises:
        BindingError: If something is missing, surplus, misshapen or not a number; the message names the layer.
    """
    keys = [key for group in state_dict["param_groups"] for key in group["params"]]
    known = {"step", "ema", *buffer_names(config)}
    for key, (name, param) in zip(keys, all_named(groups)):
        entry = state_dict["state"].get(key)
        if not entry:  # a layer that never had a gradient
            continue
        names = set(entry) if isinstance(entry, Mapping) else {short(entry)}
        if FLOAT32 in names and float32_copy:
            names.discard(FLOAT32)
        if names != known:
            raise BindingError(
                f"The checkpoint has {', '.join(sorted(map(str, names))) or 'nothing'} for layer {name!r}, but this "
                f"L3RS keeps {', '.join(sorted(known))}; load a checkpoint of the same L3RS"
                f"{' with float32_copy=True' if FLOAT32 in names else ''}."
            )
        shapes = {"step": (), "ema": (len(EMA_CHANNELS), len(config.ema_decays))}
        for buffer, value in entry.items():
            _check_buffer(name, buffer, value, shapes.get(buffer, tuple(param.shape)))


def _check_buffer(layer: str, buffer: str, value: Any, shape: tuple[int, ...]) -> None:
    if not isinstance(value, torch.Tensor) or tuple(value.shape) != shape:
        got = tuple(value.shape) if isinstance(value, torch.Tensor) else repr(value)
        raise BindingError(
            f"The checkpoint has {buffer} of layer {layer!r} of shape {got}, but the model has it of {shape}; load it "
            "into the model that it was made with."
        )
    if not bool(torch.isfinite(value).all()):
        raise BindingError(
            f"The checkpoint has {buffer} of layer {layer!r} with values that are not numbers, so it is damaged; load "
            "an earlier one."
        )
    if buffer == "step" and float(value) < 0:
        raise BindingError(
            f"The checkpoint has step {float(value):g} for layer {layer!r}, but it must be at least 0; load an "
            "earlier one."
        )


def exact_state(state_dict: dict[str, Any], groups: list[dict[str, Any]]) -> dict[torch.Tensor, dict[str, Any]]:
    """
    Returns the buffers of a state by parameter, copied and in their own types: torch would bring those of
    low-precision parameters to low precision, too.
    """
    keys = [key for group in state_dict["param_groups"] for key in group["params"]]
    params = [param for group in groups for param in group["params"]]
    return {
        param: {
            name: value.detach().to("cpu" if name == "step" else param.device, copy=True)
            for name, value in state_dict["state"][key].items()
        }
        for key, param in zip(keys, params)
        if state_dict["state"].get(key)
    }
