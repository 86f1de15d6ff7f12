"""Parameters with their state, stacked for a step."""

from __future__ import annotations

import operator
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

import torch

from hf_l3rs.errors import UnsupportedSetupError
from hf_l3rs.optimizer.arithmetic import IN_PLACE, Tensors
from hf_l3rs.optimizer.fused import FusedStep
from hf_l3rs.optimizer.network import L3RSNetwork
from hf_l3rs.optimizer.parameters import is_sharded, refuse_sparse_gradients
from hf_l3rs.optimizer.step import Decision, LayerStack, LayerState, buffer_names, initial_buffers


# Key in `optimizer.state[p]` of the float32 copy of a low-precision parameter, where one is kept.
FLOAT32 = "float32"


class Binding:
    """
    The parameters of one group that have a gradient, on one device.

    The truth stays in `optimizer.state[p]`: the small per-layer tensors in it are rows of the binding's, so that a
    checkpoint sees every update, and a binding can be dropped and made anew from the state at any time.

    Args:
        params (`list[torch.Tensor]`): The layers' parameters.
        network ([`L3RSNetwork`]): The meta-weights.
        identity (`torch.Tensor` of shape `(num_layers, num_known_layers)` or wider):
            From [`~hf_l3rs.optimizer.layers.identify_layers`].
        state (`dict`): The optimizer's state; entries are created for parameters that have none.
        float32_copy (`bool`): Whether parameters of low precision get a float32 copy in the state.
        fused (`bool`): Whether steps are fused where they can be; where not, `plain_because` says why.

    Raises:
        UnsupportedSetupError: If a parameter is sharded.
    """

    def __init__(
        self,
        params: Tensors,
        network: L3RSNetwork,
        identity: torch.Tensor,
        state: MutableMapping[torch.Tensor, dict[str, Any]],
        float32_copy: bool,
        fused: bool,
    ) -> None:
        if any(map(is_sharded, params)):  # swapped in after the optimizer was bound, as FSDP2 does
            raise UnsupportedSetupError(
                "L3RS needs whole layers, but got sharded parameters; use DDP in place of FSDP or tensor parallelism."
            )
        self.params = params
        self.param_dtypes = [param.dtype for param in params]
        self.stack = LayerStack(network.config, params)
        self.decide = network.meta_weights().decider(identity, self.stack.sqrt_numel)
        self.is_low_precision = self.param_dtypes != self.stack.dtypes
        entries = [state[param] for param in params]
        self.state = self._stack_state(entries)
        self._copies = [self._float32_copy(*pair) for pair in zip(params, entries)] if float32_copy else None
        self._fused: FusedStep | None = None
        self.plain_because: str | None = None
        if fused:
            try:
                self._fused = FusedStep(self.stack, params, self.state)
            except UnsupportedSetupError as error:
                self.plain_because = str(error)

    def _stack_state(self, entries: Sequence[dict[str, Any]]) -> LayerState:
        """Stacks the state, as it is where the parameters are now, and leaves the rows in it."""
        stack, names = self.stack, buffer_names(self.stack.config)
        ema, steps = stack.initial_averages()
        rows = zip(self.params, stack.dtypes, entries, ema.unbind(), steps.unbind())
        for param, dtype, entry, ema_row, step_row in rows:
            if entry:
                ema_row.copy_(entry["ema"])
                step_row.copy_(entry["step"])
                entry.update({name: entry[name].to(param.device, dtype) for name in names})
            else:
                entry.update(initial_buffers(stack.config, param, dtype))
            entry["ema"], entry["step"] = ema_row, step_row
        return LayerState(steps, ema, {name: [entry[name] for entry in entries] for name in names})

    def _float32_copy(self, param: torch.Tensor, entry: dict[str, Any]) -> torch.Tensor | None:
        if param.dtype in (torch.float32, torch.float64):
            return None
        copy = entry.get(FLOAT32)
        entry[FLOAT32] = param.detach().float() if copy is None else copy.to(param.device)
        return entry[FLOAT32]

    def holds(self, params: Tensors) -> bool:
        """Whether the binding is of exactly these parameters, as and where they are now."""
        same = len(params) == len(self.params) and all(map(operator.is_, params, self.params))
        same = same and params[0].device == self.stack.device and [p.dtype for p in params] == self.param_dtypes
        return same and (self._fused is None or self._fused.holds())

    def step(self, group: Mapping[str, Any], num_training_steps: int, loss: torch.Tensor | None) -> Decision:
        """Takes one step of all layers, in place; see [`LayerStack.step`]."""
        if self._fused is not None:
            return self._fused.step(
                self.decide, loss=loss, k=group["step"], num_training_steps=num_training_steps, lr=group["lr"]
            )
        targets = self._targets()
        _, _, decision = self.stack.step(
            self.decide,
            targets,
            self._grads(),
            self.state,
            loss=loss,
            k=group["step"],
            num_training_steps=num_training_steps,
            arithmetic=IN_PLACE,
            lr=group["lr"],
        )
        if self.is_low_precision:
            torch._foreach_copy_(self.params, targets)
        return decision

    def _grads(self) -> Tensors:
        """The gradients in the type that the state has; the gradients themselves where that fits."""
        grads: Any = [param.grad for param in self.params]
        return [grad.to(dtype) for grad, dtype in zip(grads, self.stack.dtypes)] if self.is_low_precision else grads

    def _targets(self) -> Tensors:
        """What the update is added to: the parameters, or float32 copies if some are of low precision."""
        if not self.is_low_precision:
            return self.params
        targets = [param.to(dtype) for param, dtype in zip(self.params, self.stack.dtypes)]
        if self._copies is None:
            return targets
        return [
            target if copy is None else _refreshed(copy, param, target)
            for copy, param, target in zip(self._copies, self.params, targets)
        ]


def _refreshed(copy: torch.Tensor, param: torch.Tensor, exact: torch.Tensor) -> torch.Tensor:
    """Brings the copy up to date where somebody else has changed the parameter since: where it rounds to another."""
    return copy.copy_(torch.where(copy.to(param.dtype) == param, copy, exact))


class Bindings:
    """
    The bindings of an optimizer, made when a step needs them and kept while they hold.

    Args:
        network ([`L3RSNetwork`]): The meta-weights; bindings are made anew when they change.
        float32_copy, fused (`bool`): See [`Binding`].
    """

    def __init__(self, network: L3RSNetwork, float32_copy: bool, fused: bool) -> None:
        self.network, self.float32_copy, self.fused = network, float32_copy, fused
        self._made: dict[tuple[int, torch.device], Binding] = {}
        self._version = self._network_version()

    def of_group(
        self,
        index: int,
        group: Mapping[str, Any],
        identity: Mapping[str, torch.Tensor],
        state: MutableMapping[torch.Tensor, dict[str, Any]],
    ) -> list[Binding]:
        """
        Returns what the parameters of a group that have a gradient are bound to, device by device.

        Args:
            index (`int`): Of the group.
            group (`Mapping`): With `params` and `param_names`.
            identity (`Mapping[str, torch.Tensor]`): Its rows by name.
            state (`dict`): The optimizer's state.

        Raises:
            UnsupportedSetupError: If a gradient is sparse or a parameter is sharded.
        """
        by_device: dict[torch.device, Tensors] = {}
        for param in group["params"]:
            if param.grad is not None:
                by_device.setdefault(param.device, []).append(param)
        bindings = []
        for device, params in by_device.items():
            refuse_sparse_gradients(params)
            binding = self._made.get((index, device))
            if binding is None or not binding.holds(params):
                rows = {id(param): identity[name] for name, param in zip(group["param_names"], group["params"])}
                weights = torch.stack([rows[id(param)] for param in params])
                binding = self._made[index, device] = Binding(
                    params, self.network, weights, state, self.float32_copy, self.fused
                )
            bindings.append(binding)
        return bindings

    def clear(self) -> None:
        """Drops all bindings, because state or parameters were replaced."""
        self._made.clear()

    def notice_new_meta_weights(self) -> bool:
        """Drops all bindings if the network's weights were changed, and says whether they were."""
        version = self._network_version()
        is_new, self._version = version != self._version, version
        if is_new:
            self._made.clear()
        return is_new

    def _network_version(self) -> int:
        return sum(parameter._version for parameter in self.network.parameters())
