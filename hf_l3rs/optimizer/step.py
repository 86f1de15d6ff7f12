"""The update of all layers at once: eq. 1, in place for training, or as a pure function of state and meta-weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch

from hf_l3rs.optimizer.arithmetic import Arithmetic, Tensors
from hf_l3rs.optimizer.averaging import AVERAGE, FAST, average_iterates, averaging_weights
from hf_l3rs.optimizer.config import LONG_RUN, L3RSConfig
from hf_l3rs.optimizer.directions import DIRECTIONS
from hf_l3rs.optimizer.features import (
    EMA_CHANNELS,
    Features,
    ema_inputs,
    log_measures,
    stack_features,
    time_coefficients,
)
from hf_l3rs.optimizer.layers import REFERENCE_FAN_IN, fan_in, is_matrix
from hf_l3rs.optimizer.network import Choice


# A direction is divided by its norm, but by no less than this, so that a zero direction gives a zero update.
TINY = 1e-12

# Under the reference "relative", a parameter counts as no smaller than this per element: one that is zero moves, too.
LEAST_RMS = 0.02

# Features of shape `(num_layers, num_features)` -> what the network decides. It knows the layers' embeddings.
Decide = Callable[[torch.Tensor], Choice]


def state_dtype(parameter: torch.Tensor) -> torch.dtype:
    """The type that a parameter's state and update are computed in: float64 stays, everything else is float32."""
    return torch.float64 if parameter.dtype == torch.float64 else torch.float32


class LayerState(NamedTuple):
    """
    What the layers remember from step to step.

    Args:
        steps (`torch.Tensor` of shape `(num_layers,)`, on the CPU): Updates that each layer has had.
        ema (`torch.Tensor` of shape `(num_layers, 4, num_decays)`): The averages of eq. 2, channels as EMA_CHANNELS.
        buffers (`Mapping[str, list[torch.Tensor]]`): See [`initial_buffers`], by their keys, one tensor a layer.
    """

    steps: torch.Tensor
    ema: torch.Tensor
    buffers: Mapping[str, Tensors]


class Decision(NamedTuple):
    """
    What was decided in one step.

    Args:
        mixture (`torch.Tensor` of shape `(num_layers, num_directions)`): μ.
        update_norms (`torch.Tensor` of shape `(num_layers,)`): λ, times the learning rate.
        sqrt_numel (`torch.Tensor` of shape `(num_layers,)`): Roots of the layers' numbers of elements.
        is_usable (`torch.Tensor` of shape `(num_layers,)`, bool, *optional*):
            Whether the layer's gradient was a number; `None` if all are known to be.
    """

    mixture: torch.Tensor
    update_norms: torch.Tensor
    sqrt_numel: torch.Tensor
    is_usable: torch.Tensor | None


class Outcome(NamedTuple):
    """
    What [`LayerStack.decide`] returns.

    Args:
        ema (`torch.Tensor` of shape `(num_layers, 4, num_decays)`): The state's, brought up to date.
        decision ([`Decision`]): For who wants to know.
        shares (`torch.Tensor` of shape `(num_layers, num_directions)`): μ(l)_p / ‖d_p(l)‖.
        averaging (`torch.Tensor` of shape `(num_layers, 2)` or `(num_layers, 0)`): As the network's [`Choice`] has it.
    """

    ema: torch.Tensor
    decision: Decision
    shares: torch.Tensor
    averaging: torch.Tensor


class LayerStack:
    """
    The layers that one step updates, all on one device. Holds what does not change from step to step.

    Args:
        config ([`L3RSConfig`]): Directions, features and their constants.
        layers (`Sequence[torch.Tensor]`): The layers' parameters; only their shapes, types and device are used.
    """

    def __init__(self, config: L3RSConfig, layers: Sequence[torch.Tensor]) -> None:
        self.config = config
        self.device = layers[0].device
        self.dtypes = [state_dtype(layer) for layer in layers]
        self.dtype = torch.float64 if all(dtype == torch.float64 for dtype in self.dtypes) else torch.float32
        # the largest norm whose square, as Adam's second moment has it, is a number
        self.max_norm = torch.finfo(self.dtype).max ** 0.5
        numel = torch.tensor([max(layer.numel(), 1) for layer in layers], dtype=self.dtype)
        self.sqrt_numel = numel.sqrt().to(self.device)
        self.reference_norm = config.base_step * self._reference_sizes([layer.shape for layer in layers])
        gains = 1 - torch.tensor(config.ema_decays, dtype=self.dtype, device=self.device)
        self.gains = gains.expand(len(layers), len(EMA_CHANNELS), -1)
        self._time_coefficients: dict[int, torch.Tensor] = {}

    def _reference_sizes(self, shapes: Sequence[Sequence[int]]) -> torch.Tensor:
        """What the reference step is a multiple of, as far as it is known beforehand."""
        if self.config.step_reference == "rms":
            return self.sqrt_numel
        if self.config.step_reference == "fan_in":
            widths = [REFERENCE_FAN_IN / fan_in(shape) if is_matrix(shape) else 1.0 for shape in shapes]
            return self.sqrt_numel * self.sqrt_numel.new_tensor(widths)
        return torch.ones_like(self.sqrt_numel)

    def initial_state(self, params: Sequence[torch.Tensor]) -> LayerState:
        """Returns the state before the first step of layers with these parameters."""
        ema, steps = self.initial_averages()
        each = [initial_buffers(self.config, param, dtype) for param, dtype in zip(params, self.dtypes)]
        return LayerState(steps, ema, {name: [own[name] for own in each] for name in buffer_names(self.config)})

    def initial_averages(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns `ema` and `steps` of the state before the first step."""
        return torch.zeros(self.gains.shape, dtype=self.dtype, device=self.device), torch.zeros(len(self.gains))

    def step(
        self,
        decide: Decide,
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
        Takes one step: θ(l) ← θ(l) − lr λ(l) Σ_p μ(l)_p d_p(l)/‖d_p(l)‖ (paper, eq. 1).

        Args:
            decide (`Callable`): The network with the layers' embeddings, see [`~hf_l3rs.L3RSNetwork.decider`].
            params (`list[torch.Tensor]`): θ, in the types of the state.
            grads (`list[torch.Tensor]`): Their gradients; never written.
            state ([`LayerState`]): Of the step before, or [`~LayerStack.initial_state`].
            loss (`torch.Tensor`, *optional*): Training loss, 0-dimensional; neutral if absent or not a number.
            k (`int`): Steps of the run, this one included, from 1.
            num_training_steps (`int`): The planned length K of the run.
            arithmetic ([`~hf_l3rs.optimizer.arithmetic.Arithmetic`]):
                `IN_PLACE` writes parameters and state where they are; `FUNCTIONAL` returns new ones, works under
                `torch.func.vmap`, and lets gradients through.
            lr (`float`, *optional*, defaults to `1.0`): Multiplier on λ.
            feature_gradient (`bool`, *optional*, defaults to `True`):
                Whether gradients flow through what the network sees, or only through what it decides.

        Returns:
            `tuple[list[torch.Tensor], LayerState, Decision]`: Parameters and state after the step, and the decision.
        """
        config = self.config
        grad_norms = self._norms(grads, arithmetic)
        is_usable = self.usable(grad_norms, arithmetic)
        if is_usable is not None:  # a layer whose gradient is not a number takes it as zero
            grads = [torch.where(flag, grad, 0.0) for flag, grad in zip(is_usable.unbind(), grads)]
            grad_norms = torch.where(is_usable, grad_norms, 0.0)
        (steps,) = arithmetic.add_([state.steps], 1.0)

        norms = [grad_norms, self._norms(params, arithmetic)]
        directions, buffers = [], dict[str, Tensors]()
        for name in config.directions:  # d_p(l), and ‖d_p(l)‖
            direction, own = DIRECTIONS[name].update(config, grads, state.buffers, steps.double(), arithmetic)
            directions.append(direction)
            norms.append(grad_norms if direction is grads else self._norms(direction, arithmetic))
            buffers.update(own)

        ema, decision, shares, averaging = self.decide(
            decide, torch.stack(norms, dim=1), is_usable, state.ema, loss=loss, k=k,
            num_training_steps=num_training_steps, arithmetic=arithmetic, lr=lr, feature_gradient=feature_gradient,
        )  # fmt: skip
        if config.normalize_mixture:
            directions, shares = self._unit_mixture(directions, shares, arithmetic)
        coefficients = -decision.update_norms[:, None] * shares
        moved = state.buffers[FAST] if config.averaging else params
        for direction, column in zip(directions, coefficients.unbind(1)):
            moved = arithmetic.addcmul_(moved, direction, list(column.unbind()))  # θ ← θ − lr λ Σ_p μ_p d_p/‖d_p‖
        if not config.averaging:
            return moved, LayerState(steps, ema, buffers), decision
        weights = averaging_weights(averaging, steps)
        params, own = average_iterates(params, moved, state.buffers[AVERAGE], weights, is_usable, arithmetic)
        return params, LayerState(steps, ema, {**buffers, **own}), decision

    def usable(self, grad_norms: torch.Tensor, arithmetic: Arithmetic) -> torch.Tensor | None:
        """Returns which layers' gradients are numbers, and not too large to be squared; `None` if all are known to."""
        is_usable = grad_norms <= self.max_norm
        return None if arithmetic.are_all_set(is_usable) else is_usable

    def decide(
        self,
        decide: Decide,
        measured: torch.Tensor,
        is_usable: torch.Tensor | None,
        ema: torch.Tensor,
        *,
        loss: torch.Tensor | None,
        k: int,
        num_training_steps: int,
        arithmetic: Arithmetic,
        lr: float = 1.0,
        feature_gradient: bool = True,
    ) -> Outcome:
        """
        Asks the network what to do with layers of which everything was measured; other arguments as of `step`.

        Args:
            measured (`torch.Tensor` of shape `(num_layers, 2 + num_directions)`): ‖g(l)‖, ‖θ(l)‖ and ‖d_p(l)‖.
            is_usable (`torch.Tensor` of shape `(num_layers,)`, *optional*): The layers that move; the others stay.
            ema (`torch.Tensor` of shape `(num_layers, 4, num_decays)`): Of the state.
        """
        lr = lr * self.annealing(k, num_training_steps)
        lam, gains = lr * self.reference_norm, self.gains  # lr × reference of λ(l), 1 − γ
        if is_usable is not None:  # the others keep their parameter and averages
            lam, gains = torch.where(is_usable, lam, 0.0), torch.where(is_usable[:, None, None], gains, 0.0)
        if self.config.step_reference == "relative":
            lam = lam * torch.hypot(measured[:, 1], LEAST_RMS * self.sqrt_numel).detach()
        measures = log_measures(loss, measured, self.sqrt_numel)
        if not feature_gradient:
            measures = measures.detach()
        inputs = ema_inputs(measures)[:, :, None].expand_as(ema)  # ξ
        (ema,) = arithmetic.lerp_([ema], [inputs], [gains])  # a ← γ a + (1 − γ) ξ (eq. 2)
        times = self.time_coefficients(num_training_steps)
        mixture, factor, averaging = decide(stack_features(self.config, Features(k, times, ema, measures)))
        shares = mixture / measured[:, 2:].clamp_min(TINY)  # μ(l)_p / ‖d_p(l)‖
        return Outcome(ema, Decision(mixture, lam * factor, self.sqrt_numel, is_usable), shares, averaging)

    def annealing(self, k: int, num_training_steps: int) -> float:
        """Returns what λ is multiplied by at step k: in long runs steps must vanish, as those of SGD do."""
        trained = self.config.num_training_steps
        if not self.config.anneal_long_runs or trained is None or num_training_steps <= LONG_RUN * trained:
            return 1.0
        return min(1.0, trained / k)

    def time_coefficients(self, num_training_steps: int) -> torch.Tensor:
        """Returns [`~hf_l3rs.optimizer.features.time_coefficients`], made anew only when the plan changes."""
        if num_training_steps not in self._time_coefficients:
            coefficients = time_coefficients(self.config, num_training_steps, self.sqrt_numel)
            self._time_coefficients = {num_training_steps: coefficients}
        return self._time_coefficients[num_training_steps]

    def _norms(self, tensors: Tensors, arithmetic: Arithmetic) -> torch.Tensor:
        return arithmetic.norms(tensors).to(self.dtype)

    def _unit_mixture(
        self, directions: list[Tensors], shares: torch.Tensor, arithmetic: Arithmetic
    ) -> tuple[list[Tensors], torch.Tensor]:
        """
        Mixes the directions into one, and returns it with the shares, of shape `(num_layers, 1)`, that bring its norm
        to one; shares of the directions are of shape `(num_layers, num_directions)`.
        """
        mixed = [torch.zeros_like(tensor) for tensor in directions[0]]
        for direction, column in zip(directions, shares.unbind(1)):
            mixed = arithmetic.addcmul_(mixed, direction, list(column.unbind()))
        return [mixed], self._norms(mixed, arithmetic).clamp_min(TINY).reciprocal()[:, None]


def buffer_names(config: L3RSConfig) -> list[str]:
    """Returns the keys of all buffers that a layer has."""
    own = [name for direction in config.directions for name in DIRECTIONS[direction].buffers]
    return [*own, FAST, AVERAGE] if config.averaging else own


def initial_buffers(config: L3RSConfig, param: torch.Tensor, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Returns the buffers of a layer before its first step: zeros, but for the iterates, which are the parameter."""
    return {
        name: param.detach().to(dtype, copy=True) if name in (FAST, AVERAGE) else torch.zeros_like(param, dtype=dtype)
        for name in buffer_names(config)
    }
