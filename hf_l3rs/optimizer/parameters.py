"""A torch optimizer that knows its parameters by name and may get them after it was built."""

from __future__ import annotations

import copy
import math
import os
import weakref
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn

from hf_l3rs.errors import BindingError, ConfigError, UnsupportedSetupError
from hf_l3rs.optimizer.config import LayerSpec
from hf_l3rs.optimizer.layers import canonical_name, describe_layers, named_trainable_parameters
from hf_l3rs.validation import short


def is_sharded(param: torch.Tensor) -> bool:
    """Whether the tensor is a part of a layer, as FSDP2 and tensor parallelism make them."""
    return any(cls.__name__ == "DTensor" for cls in type(param).__mro__)


def refuse_parameter(name: str, param: torch.Tensor) -> None:
    """Refuses a parameter that is not the whole of a layer, as under FSDP, or not of real floating-point numbers."""
    if is_sharded(param) or name.endswith("_flat_param") or "_fsdp_wrapped_module" in name:
        raise UnsupportedSetupError(
            f"L3RS needs whole layers, but parameter {name!r} is sharded or flattened; use DDP in place of FSDP or "
            "tensor parallelism."
        )
    if not param.is_floating_point():
        raise UnsupportedSetupError(
            f"L3RS trains real floating-point parameters, but {name!r} is {param.dtype}; freeze it by "
            "requires_grad_(False), or convert it."
        )


def refuse_sharding(*active: str) -> None:
    """
    Refuses the `active` engines, of "DeepSpeed" and "FSDP", and those that Accelerate, which announces them by
    environment variables before anything is prepared, will use.
    """
    for engine in ("DeepSpeed", "FSDP"):
        announced = os.environ.get(f"ACCELERATE_USE_{engine.upper()}", "false").lower() in ("true", "1")
        if announced or engine in active:
            raise UnsupportedSetupError(
                f"L3RS does not support {engine}, which would replace the optimizer or cut layers into shards; run "
                "with DDP, that is without it (`accelerate launch --multi_gpu` or `torchrun`)."
            )


def refuse_sparse_modules(model: nn.Module) -> None:
    """Refuses embeddings in `model` that are not frozen and will have sparse gradients."""
    for name, module in model.named_modules():
        is_sparse = isinstance(module, (nn.Embedding, nn.EmbeddingBag)) and module.sparse
        if is_sparse and any(param.requires_grad for param in module.parameters()):
            raise UnsupportedSetupError(
                f"L3RS does not support sparse gradients, which the embedding {name or type(module).__name__!r} will "
                "have; build it with sparse=False, or freeze it."
            )


def refuse_sparse_gradients(params: list[torch.Tensor]) -> None:
    """Refuses gradients that a model without a sparse module has made sparse all the same."""
    if any(param.grad is not None and param.grad.is_sparse for param in params):
        raise UnsupportedSetupError(
            "L3RS does not support sparse gradients, got one; build the embedding with sparse=False."
        )


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


NamedParameters = Iterable[tuple[str, torch.Tensor]]


class LateBoundOptimizer(torch.optim.Optimizer):
    """
    The part of [`LearnedOptimizer`] that is about what is trained.

    Args:
        groups (`list[dict]`): From [`~hf_l3rs.optimizer.parameters.named_groups`]; empty to wait for `bind`.
        model (`nn.Module`, *optional*): The model whose trainable parameters these are.
        defaults (`dict`): As of `torch.optim.Optimizer`.
    """

    def __init__(self, groups: list[dict[str, Any]], model: nn.Module | None, defaults: dict[str, Any]) -> None:
        super().__init__(groups or [{"params": [], "param_names": []}], defaults)
        if groups:
            layers = self._layers_of(model, groups)
            self._check_layers(layers)
            self._take_layers(layers)
        if model is not None:
            self._follow(model)

    def _init_transient(self) -> None:
        self._model: weakref.ref[nn.Module] | None = None

    @property
    def is_bound(self) -> bool:
        """Whether the optimizer has parameters to train."""
        return any(group["params"] for group in self.param_groups)

    @property
    def follows_model(self) -> bool:
        """Whether what is trained is what is trainable in the optimizer's model, not a choice of the caller's."""
        return self._model is not None and len(self.param_groups) == 1

    def _bind_parameters(self, model: nn.Module | NamedParameters) -> None:
        """Takes what is trainable in `model`, and drops the state if that is not what was trained before."""
        module = model if isinstance(model, nn.Module) else None
        refuse_sharding()
        if module is not None:
            refuse_sparse_modules(module)
        groups = named_groups(model)
        if len(groups) != 1:
            got = f"{len(groups)} groups" if groups else "None"
            raise BindingError(
                f"L3RS is bound to a model or its named parameters, got {got}; pass one of those, or build the "
                "optimizer with the groups."
            )
        names, params = groups[0]["param_names"], groups[0]["params"]
        if not params:
            raise BindingError("Every parameter of the model is frozen, so there is nothing to train; unfreeze some.")
        check_names(names)
        current = [param for group in self.param_groups for param in group["params"]]
        if len(current) != len(params) or any(old is not new for old, new in zip(current, params)):
            if len(self.param_groups) != 1:
                raise BindingError("An optimizer with several parameter groups cannot be bound anew; build another.")
            layers = self._layers_of(module, groups)
            self._check_layers(layers)
            self.state.clear()
            self.param_groups[0].update(params=params, param_names=names)
            self._take_layers(layers)
        if module is not None:
            self._follow(module)

    def _follow(self, model: nn.Module) -> None:
        """Remembers the model, so that layers that are frozen or unfrozen later are noticed."""
        self._model = weakref.ref(model)

    def _current_model(self) -> nn.Module | None:
        return self._model() if self._model is not None else None

    def _layers_of(self, model: nn.Module | None, groups: list[dict[str, Any]]) -> tuple[LayerSpec, ...]:
        """Describes the layers in the groups; what is frozen in `model`, if known, helps to tell their roles."""
        trained = dict(all_named(groups))
        of_model = {} if model is None else {canonical_name(name): param for name, param in model.named_parameters()}
        layers = describe_layers({**of_model, **trained}.items())  # a group may be of something beside the model
        return tuple(layer for layer in layers if layer.name in trained)

    def _current_layers(self) -> tuple[LayerSpec, ...]:
        return self._layers_of(self._current_model(), self.param_groups)

    def _check_layers(self, layers: Sequence[LayerSpec]) -> None:
        """Raises if these layers are not to be trained; called where all are given, before anything is changed."""

    def _take_layers(self, layers: tuple[LayerSpec, ...]) -> None:
        """Called when other layers are trained than before."""

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """See [`LearnedOptimizer.add_param_group`]."""
        if "param_names" in param_group:
            param_group = {**param_group, "params": list(zip(param_group["param_names"], param_group["params"]))}
        (param_group,) = named_groups([param_group])
        names, params = param_group["param_names"], param_group["params"]
        check_names([*(name for name, _ in all_named(self.param_groups)), *names])
        super().add_param_group({**param_group, "params": list(zip(names, params))})
        self.param_groups[-1]["param_names"] = names

    def _rebind_to(self, saved_names: list[list[str] | None]) -> None:
        """
        Makes sure that the layers are those that a state is of: layers may have been frozen or unfrozen since the
        optimizer was bound.

        Args:
            saved_names (`list[list[str]]`): The names in the state, group by group.

        Raises:
            BindingError: If they are other layers.
        """
        own = [group["param_names"] for group in self.param_groups]
        if saved_names == own:
            return
        model = self._current_model()
        if model is not None:
            trainable = [canonical_name(name) for name, _ in named_trainable_parameters(model)]
            if saved_names == [trainable]:
                self._bind_parameters(model)
                return
        raise BindingError(
            f"The checkpoint is of {sum(len(names or ()) for names in saved_names)} layers, but the optimizer has "
            f"{sum(map(len, own))}, or they have other names; freeze and unfreeze the same layers as in the run that "
            "made it."
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> LateBoundOptimizer:
        twin = type(self).__new__(type(self))
        memo[id(self)] = twin
        twin.__setstate__(copy.deepcopy(self.__getstate__(), memo))
        return twin
