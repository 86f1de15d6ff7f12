"""What an optimizer is given: named parameters in groups, options and states. What is refused is so before a step."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from hf_l3rs.errors import BindingError, ConfigError, UnsupportedSetupError
from hf_l3rs.optimizer.config import L3RSConfig
from hf_l3rs.optimizer.directions import buffer_names
from hf_l3rs.optimizer.features import EMA_CHANNELS
from hf_l3rs.optimizer.layers import canonical_name, named_trainable_parameters
from hf_l3rs.validation import short


NamedParameters = Iterable[tuple[str, torch.Tensor]]

# Key in `optimizer.state[p]` of the float32 copy of a low-precision parameter, where one is kept.
FLOAT32 = "float32"


def refuse_parameter(name: str, param: torch.Tensor) -> None:
    is_sharded = any(cls.__name__ == "DTensor" for cls in type(param).__mro__)
    if is_sharded or name.endswith("_flat_param") or "_fsdp_wrapped_module" in name:
        raise UnsupportedSetupError(
            f"L3RS needs whole layers, but parameter {name!r} is sharded or flattened; use DDP in place of FSDP or "
            "tensor parallelism."
        )
    if not param.is_floating_point():
        raise UnsupportedSetupError(
            f"L3RS trains real floating-point parameters, but {name!r} is {param.dtype}; freeze or convert it."
        )


def refuse_sharding(deepspeed: bool = False, fsdp: bool = False) -> None:
    """Refuses engines that are on, or that Accelerate announces by environment variables before it prepares any."""
    for engine, is_on in (("DeepSpeed", deepspeed), ("FSDP", fsdp)):
        if is_on or os.environ.get(f"ACCELERATE_USE_{engine.upper()}", "false").lower() in ("true", "1"):
            raise UnsupportedSetupError(
                f"L3RS does not support {engine}, which would replace the optimizer or cut layers into shards; use "
                "DDP (`accelerate launch --multi_gpu` or `torchrun`)."
            )


def refuse_sparse_modules(model: nn.Module) -> None:
    for name, module in model.named_modules():
        is_sparse = isinstance(module, (nn.Embedding, nn.EmbeddingBag)) and module.sparse
        if is_sparse and any(param.requires_grad for param in module.parameters()):
            raise UnsupportedSetupError(
                f"L3RS does not support sparse gradients, which the embedding {name or type(module).__name__!r} will "
                "have; build it with sparse=False, or freeze it."
            )


def refuse_sparse_gradients(params: list[torch.Tensor]) -> None:
    if any(param.grad is not None and param.grad.is_sparse for param in params):
        raise UnsupportedSetupError("L3RS does not support sparse gradients; build the embedding with sparse=False.")


def named_groups(params: Any) -> list[dict[str, Any]]:
    """Brings whatever `L3RS(params)` allows to groups with `params` and canonical `param_names`."""
    if params is None:
        return []
    if isinstance(params, nn.Module):
        params = named_trainable_parameters(params)
    items = _listed(params)
    groups = items if items and all(isinstance(item, dict) for item in items) else [{"params": items}]
    named = []
    for group in groups:
        members = group.get("params")
        pairs = _listed(members.named_parameters() if isinstance(members, nn.Module) else members)
        for pair in pairs:
            if not _is_named(pair):
                raise _nameless(pair)
        pairs = [(canonical_name(name), param) for name, param in pairs if param.requires_grad]
        for name, param in pairs:
            refuse_parameter(name, param)
        own = {"params": [param for _, param in pairs], "param_names": [name for name, _ in pairs]}
        named.append({**group, **own})
    return named


def _listed(params: Any) -> list[Any]:
    if isinstance(params, str) or not isinstance(params, Iterable):
        raise _nameless(params)
    return list(params)


def _is_named(pair: Any) -> bool:
    is_pair = isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], str)
    return is_pair and getattr(pair[1], "requires_grad", None) is not None


def _nameless(got: Any) -> BindingError:
    kinds = ", ".join(type(part).__name__ for part in got) if isinstance(got, tuple) else ""
    return BindingError(
        f"L3RS needs the names of the parameters, got {type(got).__name__}{f' ({kinds})' if kinds else ''}; pass the "
        "model or model.named_parameters(), or groups with those as params; for optimizer_cls_and_kwargs of a Trainer "
        "there is L3RSFactory."
    )


def all_named(groups: list[dict[str, Any]]) -> list[tuple[str, torch.Tensor]]:
    return [pair for group in groups for pair in zip(group["param_names"], group["params"])]


def check_names(names: list[str]) -> None:
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise BindingError(
            f"Two parameters are named {twice!r}, but L3RS tells layers apart by name; name all as in "
            "model.named_parameters(), and train one adapter of PEFT at a time."
        )


# What each option of an optimizer must be: type, least and greatest value, what is said of others, and the fix.
_NUMBER = (int, float)
_OPTIONS: dict[str, tuple[tuple[type, ...], float, float, str, str]] = {
    "lr": (_NUMBER, 0, sys.float_info.max, "is a multiplier on the learned step and must be in [0, inf)", "try 1.0"),
    "num_training_steps": ((int,), 1, math.inf, "must be a whole number of at least 1", "give the steps of the run"),
    "minimum_fit": (_NUMBER, 0, 1, "is a share of the parameters and must be in [0, 1]", "0 refuses nothing"),
    "float32_copy": ((bool,), 0, 1, "must be True or False", "leave it out for False"),
}


def check_options(**options: Any) -> None:
    """Raises for the first option that is not allowed; a plan of `None` is."""
    for name, value in options.items():
        kinds, low, high, rule, fix = _OPTIONS[name]
        is_of_kind = isinstance(value, kinds) and isinstance(value, bool) == (bool in kinds)
        if not (is_of_kind and low <= value <= high) and (name, value) != ("num_training_steps", None):
            raise ConfigError(f"{name} {rule}, got {short(value)}; {fix}.")


def planned_steps(group: dict[str, Any]) -> int:
    """Returns the planned length K of a group's run."""
    planned = group["num_training_steps"]
    if planned is None and group["lr"] != 0:  # DCP takes a step at lr = 0 to create the state, before any plan
        raise BindingError(
            "L3RS needs to know how many steps the run will have; call optimizer.bind(model, num_training_steps=...)."
        )
    return planned or 1


def check_groups(state_dict: Any, fingerprint: str) -> None:
    """Checks what of a state does not depend on the layers."""
    groups = state_dict.get("param_groups") if isinstance(state_dict, Mapping) else None
    are_groups = isinstance(groups, list) and groups and all(isinstance(group, Mapping) for group in groups)
    if groups is None or not are_groups or not isinstance(state_dict.get("state"), Mapping):
        raise _unusable("A state of L3RS has state and param_groups, but this has not")
    other = {group.get("fingerprint") for group in groups} - {fingerprint}
    if other:
        raise BindingError(
            f"The checkpoint was made with meta-weights {other.pop()}, but this L3RS is {fingerprint}; load the L3RS "
            "that the run was started with."
        )
    for group in groups:
        missing = sorted({"params", "lr", "step", "num_training_steps"} - set(group))
        if missing:
            raise _unusable(f"A parameter group of the state lacks {', '.join(missing)}")
        params, names, step = group["params"], group.get("param_names"), group["step"]
        are_lists = isinstance(params, list) and isinstance(names, (list, type(None)))
        if not are_lists or (names is not None and len(names) != len(params)):
            raise _unusable(f"A state's group has params {short(params)} for layers {short(names)}, not one for each")
        check_options(lr=group["lr"], num_training_steps=group["num_training_steps"])
        if not isinstance(step, int) or isinstance(step, bool) or step < 0:
            raise _unusable(f"The state's step must be a whole number of at least 0, got {step!r}")


def check_state_dict(state_dict: Any, groups: list[dict[str, Any]], config: L3RSConfig, float32_copy: bool) -> None:
    """Checks that a state fits the layers of `groups` and can be stepped on."""
    keys = [key for group in state_dict["param_groups"] for key in group["params"]]
    known = {"step", "ema", *buffer_names(config)}
    shapes = {"step": (), "ema": (len(EMA_CHANNELS), len(config.ema_decays))}
    for key, (layer, param) in zip(keys, all_named(groups)):
        entry = state_dict["state"].get(key)
        if not entry:  # a layer that never had a gradient
            continue
        names = set(entry) if isinstance(entry, Mapping) else {short(entry)}
        if FLOAT32 in names and float32_copy:
            names.discard(FLOAT32)
        if names != known:
            raise BindingError(
                f"The checkpoint has {', '.join(sorted(map(str, names))) or 'nothing'} for layer {layer!r}, but this "
                f"L3RS keeps {', '.join(sorted(known))}; load a checkpoint of the same L3RS"
                f"{' with float32_copy=True' if FLOAT32 in names else ''}."
            )
        for name, value in entry.items():
            shape, what = shapes.get(name, tuple(param.shape)), f"The checkpoint has {name} of layer {layer!r}"
            if not isinstance(value, torch.Tensor) or tuple(value.shape) != shape:
                got = tuple(value.shape) if isinstance(value, torch.Tensor) else repr(value)
                raise _unusable(f"{what} of shape {got}, but the model has it of {shape}")
            if not bool(torch.isfinite(value).all()):
                raise _unusable(f"{what} with values that are not numbers")
            if name == "step" and float(value) < 0:
                raise _unusable(f"The checkpoint has step {float(value):g} for layer {layer!r}, less than 0")


def _unusable(what: str) -> BindingError:
    return BindingError(f"{what}; pass what optimizer.state_dict() gave for the same model, or an earlier checkpoint.")


def exact_state(state_dict: dict[str, Any], groups: list[dict[str, Any]]) -> dict[torch.Tensor, dict[str, Any]]:
    """Returns the buffers of a state by parameter, copied and in their own types, which torch would cast."""
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
