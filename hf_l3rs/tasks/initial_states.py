"""Where the inner loop starts: θ0, a pretrained checkpoint with the head, and the adapters, that the task needs."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import nn

from hf_l3rs.errors import ConfigError
from hf_l3rs.learned.layers import describe_layers
from hf_l3rs.tasks.lora import new_adapters
from hf_l3rs.tasks.seeds import derive_seed
from hf_l3rs.tasks.task import State


RANDOM = "random"


def head_modules(model: nn.Module) -> set[str]:
    """Returns the names of the modules that a model's head consists of."""
    named = list(model.named_parameters())
    return {name.rpartition(".")[0] for layer, (name, _) in zip(describe_layers(named), named) if layer.is_head}


class InitialStates:
    """
    Draws θ0 for a model: one of several checkpoints or a random initialisation, with a new head or the checkpoint's.

    Args:
        model (`nn.Module`): The model whose states are drawn; its own weights are not changed.
        states (`Sequence[Mapping[str, torch.Tensor] | str]`):
            State dictionaries of the model, drawn with equal probability; they are copied. `"random"` initialises all
            weights anew.
        new_head (`bool`, *optional*, defaults to `True`):
            Whether the head is initialised anew for each draw, as the Trainer's users do.

    Raises:
        ConfigError: If a state is not one of the model, or the model has no head that could be renewed.
    """

    def __init__(self, model: nn.Module, states: Sequence[State | str], new_head: bool = True) -> None:
        if not states:
            raise ConfigError("There is no initial state to draw from; name at least one checkpoint, or 'random'.")
        for number, state in enumerate(states, start=1):
            if state != RANDOM if isinstance(state, str) else _shapes(state) != _shapes(model.state_dict()):
                raise ConfigError(
                    f"Initial state {number} of {len(states)} does not fit the base model; give checkpoints of the "
                    f"same architecture and number of classes, or {RANDOM!r}."
                )
        self.model = model
        self.states = [state if isinstance(state, str) else _copy(state) for state in states]
        self.new_head = new_head
        head = head_modules(model)
        if new_head and not head:
            raise ConfigError(
                "The model has no parameter named classifier, head, fc or score, so its head cannot be renewed; "
                "set new_head to false."
            )
        self._head_modules = {name: model.get_submodule(name) for name in head}

    def draw(self, seed: int) -> State:
        """Returns the state that this seed stands for. Tensors that are the same for all seeds are shared."""
        index = derive_seed(seed, "checkpoint") % len(self.states)
        state = self.states[index]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "initial state"))
            if isinstance(state, str):
                state = {name: tensor.detach() for name, tensor in _reinitialised(self.model, self.model).items()}
                return {**state, **new_adapters(state)}
            head: dict[str, torch.Tensor] = {}
            for name, module in self._head_modules.items() if self.new_head else ():
                tensors = _reinitialised(self.model, module)
                head.update({f"{name}.{key}": tensor for key, tensor in tensors.items()})
            return {**state, **head, **new_adapters(state)}


def _shapes(state: State) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in state.items()}


def _copy(state: State) -> State:
    """A state dictionary refers to the weights of its model, which an inner loop may be about to train."""
    return {name: tensor.detach().clone() for name, tensor in state.items()}


def _reinitialised(model: nn.Module, module: nn.Module) -> State:
    """The state of a copy of `module`, initialised as the model's own class initialises it."""
    module = copy.deepcopy(module)
    initialise = getattr(model, "_init_weights", None)
    for part in module.modules():
        reset = initialise or getattr(part, "reset_parameters", None)
        if reset is not None:
            reset(part) if initialise else reset()
        forget = getattr(part, "reset_running_stats", None)
        if forget is not None:  # of batch norm, which models' own initialisation leaves as they are
            forget()
    return {name: tensor.detach() for name, tensor in module.state_dict().items()}
