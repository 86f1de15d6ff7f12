"""A torch optimizer that knows its parameters by name and may get them after it was built."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn

from hf_l3rs.errors import BindingError
from hf_l3rs.learned.config import LayerSpec
from hf_l3rs.learned.layers import canonical_name, describe_layers, named_trainable_parameters
from hf_l3rs.learned.parameters import all_named, check_names, named_groups
from hf_l3rs.learned.refusals import refuse_sharding, refuse_sparse_modules


NamedParameters = Iterable[tuple[str, torch.Tensor]]


class LateBoundOptimizer(torch.optim.Optimizer):
    """
    The part of [`LearnedOptimizer`] that is about what is trained.

    Args:
        groups (`list[dict]`): From [`~hf_l3rs.learned.parameters.named_groups`]; empty to wait for `bind`.
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
