"""What L3RS accepts to train: named parameters in groups, and how long."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from hf_l3rs.errors import BindingError, ConfigError
from hf_l3rs.learned.layers import canonical_name, named_trainable_parameters
from hf_l3rs.learned.refusals import refuse_parameter
from hf_l3rs.validation import short


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
        names, tensors = [name for name, _ in pairs], [param for _, param in pairs]
        for name, param in pairs:
            refuse_parameter(name, param)
        named.append({**group, "params": tensors, "param_names": names})
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
    """Raises if two parameters have the same name, by which layers are told apart."""
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise BindingError(
            f"Two parameters are named {twice!r}, but L3RS tells layers apart by name; name all as in "
            "model.named_parameters(), and train one adapter of PEFT at a time."
        )


def check_lr(lr: float) -> None:
    if not isinstance(lr, (int, float)) or isinstance(lr, bool) or not 0 <= lr < math.inf:
        raise ConfigError(f"lr is a multiplier on the learned step and must be in [0, inf), got {lr!r}; try 1.0.")


def check_switches(**switches: bool) -> None:
    """Raises unless each is `True` or `False`: the text "false" would switch it on."""
    for name, value in switches.items():
        if not isinstance(value, bool):
            raise ConfigError(f"{name} must be True or False, got {short(value)}; leave it out for False.")


def check_num_training_steps(steps: int | None) -> None:
    if steps is not None and (not isinstance(steps, int) or isinstance(steps, bool) or steps < 1):
        raise ConfigError(f"num_training_steps must be a whole number of at least 1, got {steps!r}.")


def planned_steps(group: dict[str, Any]) -> int:
    """Returns the planned length K of a group's run; raises if nobody told it."""
    planned = group["num_training_steps"]
    if planned is None and group["lr"] != 0:  # DCP takes a step at lr = 0 to create the state, before any plan
        raise BindingError(
            "L3RS needs to know how many steps the run will have; call optimizer.bind(model, num_training_steps=...)."
        )
    return planned or 1
