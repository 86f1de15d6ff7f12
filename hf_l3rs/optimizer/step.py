"""The step of all layers at once, eq. 1: as a function ([`LayerStack`]), and on an optimizer's state ([`Binding`])."""

from __future__ import annotations

import operator
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any, NamedTuple

import torch

from hf_l3rs.optimizer import features
from hf_l3rs.optimizer.config import LONG_RUN, L3RSConfig
from hf_l3rs.optimizer.directions import DIRECTIONS, IN_PLACE, Arithmetic, Tensors, buffer_names
from hf_l3rs.optimizer.layers import fan_in
from hf_l3rs.optimizer.network import L3RSNetwork, LayersNetwork
from hf_l3rs.optimizer.parameters import FLOAT32, refuse_parameter, refuse_sparse_gradients


# A direction is divided by its norm, but by no less than this, so that a zero direction gives a zero update.
TINY = 1e-12

# Under the reference "relative", a parameter counts as no smaller than this per element: one that is zero moves, too.
LEAST_RMS = 0.02

# The fan-in of a matrix, and the number of trained parameters, above which the config's exponents shrink steps.
REFERENCE_FAN_IN, REFERENCE_SIZE = 64, 100_000


class LayerState(NamedTuple):
    """What the layers keep from step to step."""

    steps: torch.Tensor  # each layer's number of updates, (num_layers,), on the CPU
    ema: torch.Tensor  # the averages of eq. 2, (num_layers, 4, num_decays)
    buffers: Mapping[str, Tensors]  # of the directions


class Decision(NamedTuple):
    """What was decided in one step."""

    mixture: torch.Tensor  # μ, (num_layers, num_directions)
    update_norms: torch.Tensor  # λ times the learning rate, (num_layers,)
    sqrt_numel: torch.Tensor  # the roots of the layers' numbers of elements, (num_layers,)
    is_usable: torch.Tensor | None  # whether each gradient was a number, (num_layers,); `None`: all are


class LayerStack:
    """
    What does not change from step to step: shapes, types and the one device of the layers. `num_trained` is the run's
    number of trained parameters, for `config.size_exponent`; by default those of `layers`.
    """

    def __init__(self, config: L3RSConfig, layers: Sequence[torch.Tensor], num_trained: int | None = None) -> None:
        self.config = config
        self.device = layers[0].device
        # of state and update: float64 stays, everything else is float32
        self.dtypes = [torch.float64 if layer.dtype == torch.float64 else torch.float32 for layer in layers]
        self.dtype = torch.float64 if all(dtype == torch.float64 for dtype in self.dtypes) else torch.float32
        # the largest norm whose square, as Adam's second moment has it, is a number
        self.max_norm = torch.finfo(self.dtype).max ** 0.5
        numel = torch.tensor([max(layer.numel(), 1) for layer in layers], dtype=self.dtype)
        self.sqrt_numel = numel.sqrt().to(self.device)
        self.reference = config.base_step * self._reference_factors(layers, num_trained)
        gains = 1 - torch.tensor(config.ema_decays, dtype=self.dtype, device=self.device)
        self.gains = gains.expand(len(layers), len(features.EMA_CHANNELS), -1)
        self._time_coefficients: dict[int, torch.Tensor] = {}

    def _reference_factors(self, layers: Sequence[torch.Tensor], num_trained: int | None) -> torch.Tensor:
        is_relative = self.config.step_reference == "relative"
        factors = torch.ones_like(self.sqrt_numel) if is_relative else self.sqrt_numel
        if self.config.width_exponent:
            widths = [fan_in(layer.shape) if layer.ndim == 2 else 1 for layer in layers]
            shares = [min(1.0, REFERENCE_FAN_IN / width) ** self.config.width_exponent for width in widths]
            factors = factors * factors.new_tensor(shares)
        if self.config.size_exponent:
            size = num_trained if num_trained is not None else sum(layer.numel() for layer in layers)
            factors = factors * min(1.0, REFERENCE_SIZE / max(size, 1)) ** self.config.size_exponent
        return factors

    def initial_state(self, params: Sequence[torch.Tensor]) -> LayerState:
        """Returns the state before the first step of layers with these parameters: zeros."""
        each = list(zip(params, self.dtypes))
        buffers = {
            name: [torch.zeros_like(param, dtype=dtype) for param, dtype in each] for name in buffer_names(self.config)
        }
        return LayerState(*self.initial_averages(), buffers)

    def initial_averages(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns `steps` and `ema` of the state before the first step."""
        return torch.zeros(len(self.gains)), torch.zeros(self.gains.shape, dtype=self.dtype, device=self.device)

    def step(
        self,
        network: LayersNetwork,
        params: Tensors,
        grads: Tensors,
        state: LayerState,
        *,
        loss: torch.Tensor | None,
        k: int,
        num_training_steps: int,
        arithmetic: Arithmetic,
        lr: float = 1.0,
        feature_gradient: bool = True,
    ) -> tuple[Tensors, LayerState, Decision]:
        """
        Takes step `k`, from 1: θ(l) ← θ(l) − lr λ(l) Σ_p μ(l)_p d_p(l)/‖d_p(l)‖ (paper, eq. 1).

        `params` are in the types of the state, and `grads` are never written. Without `feature_gradient` gradients
        flow only through what the network decides, not through what it sees.
        """
        grad_norms = arithmetic.norms(grads).to(self.dtype)
        is_usable = self._usable(grad_norms)
        if is_usable is not None:  # a layer whose gradient is not a number takes it as zero
            grads = [torch.where(flag, grad, 0.0) for flag, grad in zip(is_usable.unbind(), grads)]
            grad_norms = torch.where(is_usable, grad_norms, 0.0)
        (steps,) = arithmetic.add_([state.steps], 1.0)

        norms = [grad_norms, arithmetic.norms(params).to(self.dtype)]
        directions, buffers = [], dict[str, Tensors]()
        for name in self.config.directions:  # d_p(l), and ‖d_p(l)‖
            direction, own = DIRECTIONS[name].update(self.config, grads, state.buffers, steps.double(), arithmetic)
            directions.append(direction)
            norms.append(grad_norms if direction is grads else arithmetic.norms(direction).to(self.dtype))
            buffers.update(own)

        measured = torch.stack(norms, dim=1)
        measures = features.log_measures(loss, measured, self.sqrt_numel)
        if not feature_gradient:
            measures = measures.detach()
        gains = self.gains if is_usable is None else torch.where(is_usable[:, None, None], self.gains, 0.0)
        inputs = features.ema_inputs(measures)[:, :, None].expand_as(state.ema)  # ξ
        (ema,) = arithmetic.lerp_([state.ema], [inputs], [gains])  # a ← γ a + (1 − γ) ξ (eq. 2)
        times = self._times(num_training_steps)
        mixture, factor = network(features.stack_features(self.config, features.Features(k, times, ema, measures)))

        reference = self._reference_steps(measured[:, 1], k, num_training_steps, lr)
        update_norms = (reference if is_usable is None else torch.where(is_usable, reference, 0.0)) * factor
        coefficients = -update_norms[:, None] * (mixture / measured[:, 2:].clamp_min(TINY))  # − lr λ μ_p/‖d_p‖
        for direction, column in zip(directions, coefficients.unbind(1)):
            params = arithmetic.addcmul_(params, direction, list(column.unbind()))
        return params, LayerState(steps, ema, buffers), Decision(mixture, update_norms, self.sqrt_numel, is_usable)

    def _usable(self, grad_norms: torch.Tensor) -> torch.Tensor | None:
        """Whose gradients can be squared; `None` if all can. A GPU is not asked: it would have to be waited for."""
        is_usable = grad_norms <= self.max_norm
        return None if is_usable.device.type == "cpu" and bool(is_usable.all()) else is_usable

    def _reference_steps(self, param_norms: torch.Tensor, k: int, num_training_steps: int, lr: float) -> torch.Tensor:
        """lr times what the network's factor multiplies to give λ."""
        trained = self.config.num_training_steps
        if self.config.anneal_long_runs and trained is not None and num_training_steps > LONG_RUN * trained:
            lr *= min(1.0, trained / k)  # in long runs steps must vanish, as those of SGD do
        reference = lr * self.reference
        if self.config.step_reference == "relative":
            reference = reference * torch.hypot(param_norms, LEAST_RMS * self.sqrt_numel).detach()
        return reference

    def _times(self, num_training_steps: int) -> torch.Tensor:
        if num_training_steps not in self._time_coefficients:
            coefficients = features.time_coefficients(self.config, num_training_steps, self.sqrt_numel)
            self._time_coefficients = {num_training_steps: coefficients}
        return self._time_coefficients[num_training_steps]


class Binding:
    """
    The parameters of one group that have a gradient, on one device. The small tensors in `optimizer.state[p]`
    are rows of the binding's: a checkpoint sees every update, and a binding can be made anew from the state.
    """

    def __init__(
        self,
        params: Tensors,
        network: L3RSNetwork,
        identity: torch.Tensor,
        state: MutableMapping[torch.Tensor, dict[str, Any]],
        num_trained: int,
        float32_copy: bool,
    ) -> None:
        self.params = params
        self.param_dtypes = [param.dtype for param in params]
        self.stack = LayerStack(network.config, params, num_trained)
        self.network = network.for_layers(identity, self.stack.sqrt_numel)
        self.is_low_precision = self.param_dtypes != self.stack.dtypes
        entries = [state[param] for param in params]
        self.state = self._stacked_state(entries)
        self._copies = [_float32_copy(*pair) for pair in zip(params, entries)] if float32_copy else None

    def _stacked_state(self, entries: Sequence[dict[str, Any]]) -> LayerState:
        """Stacks the state where the parameters are now, and leaves the rows in it."""
        steps, ema = self.stack.initial_averages()
        names = buffer_names(self.stack.config)
        rows = zip(self.params, self.stack.dtypes, entries, steps.unbind(), ema.unbind())
        for param, dtype, entry, step_row, ema_row in rows:
            if entry:
                step_row.copy_(entry["step"])
                ema_row.copy_(entry["ema"])
                own = {name: entry[name].to(param.device, dtype) for name in names}
            else:
                own = {name: torch.zeros_like(param, dtype=dtype) for name in names}
            entry.update(own, step=step_row, ema=ema_row)
        return LayerState(steps, ema, {name: [entry[name] for entry in entries] for name in names})

    def holds(self, params: Tensors) -> bool:
        """Whether the binding is of exactly these parameters, as and where they are now."""
        same = len(params) == len(self.params) and all(map(operator.is_, params, self.params))
        return same and params[0].device == self.stack.device and [p.dtype for p in params] == self.param_dtypes

    def step(self, group: Mapping[str, Any], num_training_steps: int, loss: torch.Tensor | None) -> Decision:
        targets, grads = self.params, [param.grad for param in self.params]
        if self.is_low_precision:
            targets = self._targets()
            grads = [grad.to(dtype) for grad, dtype in zip(grads, self.stack.dtypes)]  # type: ignore[union-attr]
        _, _, decision = self.stack.step(
            self.network,
            targets,
            grads,  # type: ignore[arg-type]
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

    def _targets(self) -> Tensors:
        """What the update is added to: the parameters in the types of the state, or their float32 copies."""
        exact = [param.to(dtype) for param, dtype in zip(self.params, self.stack.dtypes)]
        if self._copies is None:
            return exact
        trios = zip(self._copies, self.params, exact)
        return [own if copy is None else _refreshed(copy, param, own) for copy, param, own in trios]


def _float32_copy(param: torch.Tensor, entry: dict[str, Any]) -> torch.Tensor | None:
    """The copy in the state, made if there is none; `None` where the parameter needs none."""
    if param.dtype in (torch.float32, torch.float64):
        return None
    copy = entry.get(FLOAT32)
    entry[FLOAT32] = param.detach().float() if copy is None else copy.to(param.device)
    return entry[FLOAT32]


def _refreshed(copy: torch.Tensor, param: torch.Tensor, exact: torch.Tensor) -> torch.Tensor:
    """Brings the copy up to date where somebody else has changed the parameter since: where it rounds to another."""
    return copy.copy_(torch.where(copy.to(param.dtype) == param, copy, exact))


class Bindings:
    """The bindings of an optimizer, made when a step needs them, and kept until parameters or meta-weights change."""

    def __init__(self, network: L3RSNetwork, float32_copy: bool) -> None:
        self.network, self.float32_copy = network, float32_copy
        self._made: dict[tuple[int, torch.device], Binding] = {}
        self._version = self._network_version()

    def of_groups(
        self,
        groups: Sequence[dict[str, Any]],
        identity: Mapping[str, torch.Tensor],
        state: MutableMapping[torch.Tensor, dict[str, Any]],
    ) -> list[list[Binding]]:
        """Returns for each group the bindings of its parameters that have a gradient, device by device."""
        bound: list[list[Binding]] = []
        for index, group in enumerate(groups):
            by_device: dict[torch.device, Tensors] = {}
            for param in group["params"]:
                if param.grad is not None:
                    by_device.setdefault(param.device, []).append(param)
            for device, params in by_device.items():
                refuse_sparse_gradients(params)
                made = self._made.get((index, device))
                if made is None or not made.holds(params):
                    names = {id(param): name for name, param in zip(group["param_names"], group["params"])}
                    for param in params:  # swapped in after the optimizer was bound, as FSDP2 does
                        refuse_parameter(names[id(param)], param)
                    known = torch.stack([identity[names[id(param)]] for param in params])
                    num_trained = sum(param.numel() for each in groups for param in each["params"])
                    made = Binding(params, self.network, known, state, num_trained, self.float32_copy)
                    self._made[index, device] = made
            bound.append([self._made[index, device] for device in by_device])
        return bound

    def clear(self) -> None:
        self._made.clear()

    def notice_new_meta_weights(self) -> bool:
        """Drops all bindings if the network's weights were changed, and returns whether they were."""
        version = self._network_version()
        is_new, self._version = version != self._version, version
        if is_new:
            self._made.clear()
        return is_new

    def _network_version(self) -> int:
        return sum(parameter._version for parameter in self.network.parameters())
