"""The layers that one step updates, stacked: what lets a step run without a loop over layers."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

import torch

from hf_l3rs.errors import UnsupportedSetupError
from hf_l3rs.learned.config import L3RSConfig
from hf_l3rs.learned.directions import DIRECTIONS
from hf_l3rs.learned.features import EMA_CHANNELS, time_coefficients
from hf_l3rs.learned.network import L3RSNetwork
from hf_l3rs.learned.refusals import is_sharded


# A direction is divided by its norm, but by no less than this, so that a zero direction gives a zero update.
TINY = 1e-12


def state_dtype(parameter: torch.Tensor) -> torch.dtype:
    """The type that a parameter's state and update are computed in: float64 stays, everything else is float32."""
    return torch.float64 if parameter.dtype == torch.float64 else torch.float32


class LayerBank:
    """
    The layers of one parameter group that have a gradient, with their state stacked.

    The truth stays in `optimizer.state[p]`: the small per-layer tensors in it are rows of the bank's, so that a
    checkpoint sees every update, and a bank can be dropped and built anew from the state at any time.

    Args:
        params (`list[torch.Tensor]`): The layers' parameters, all on one device.
        embedding_weights (`torch.Tensor` of shape `(num_layers, num_known_layers)`):
            From [`~hf_l3rs.learned.layers.match_layers`].
        network ([`L3RSNetwork`]): The meta-weights.
        state (`dict`): The optimizer's state; entries are created for parameters that have none.

    Raises:
        UnsupportedSetupError: If the parameters lie on several devices, or a gradient is sparse.
    """

    def __init__(
        self,
        params: list[torch.Tensor],
        embedding_weights: torch.Tensor,
        network: L3RSNetwork,
        state: Mapping[torch.Tensor, dict[str, Any]],
    ) -> None:
        self.params = params
        self.device = params[0].device
        self.dtypes = [state_dtype(param) for param in params]
        self.dtype = torch.float64 if all(dtype == torch.float64 for dtype in self.dtypes) else torch.float32
        self.is_low_precision = any(param.dtype != dtype for param, dtype in zip(params, self.dtypes))
        self._refuse_unsupported()
        config = network.config
        numel = torch.tensor([max(param.numel(), 1) for param in params], dtype=self.dtype)
        self.sqrt_numel = numel.sqrt().to(self.device)
        reference = self.sqrt_numel if config.step_reference == "rms" else torch.ones_like(self.sqrt_numel)
        self.reference_norm = config.base_step * reference
        self.decays = torch.tensor(config.ema_decays, dtype=self.dtype, device=self.device)
        self._time_coefficients: tuple[int, torch.Tensor] | None = None
        self.network = network.place(self.device, self.dtype)
        self.embeddings = network.embed(embedding_weights).to(self.device, self.dtype)
        self._stack_state(config, state)

    def _refuse_unsupported(self) -> None:
        if any(map(is_sharded, self.params)):  # swapped in after the optimizer was bound, as FSDP2 does
            raise UnsupportedSetupError(
                "L3RS needs whole layers, but got sharded parameters; use DDP in place of FSDP or tensor parallelism."
            )
        devices = {str(param.device) for param in self.params}
        if len(devices) > 1:
            raise UnsupportedSetupError(
                f"L3RS needs the whole model on one device, got parameters on {', '.join(sorted(devices))}; load it "
                "without device_map, and use several GPUs through DDP."
            )
        if any(param.grad is not None and param.grad.is_sparse for param in self.params):
            raise UnsupportedSetupError(
                "L3RS does not support sparse gradients, got one; build the embedding with sparse=False."
            )

    def _stack_state(self, config: L3RSConfig, state: Mapping[torch.Tensor, dict[str, Any]]) -> None:
        buffer_names = [name for direction in config.directions for name in DIRECTIONS[direction].buffers]
        ema_shape = (len(EMA_CHANNELS), len(config.ema_decays))
        entries = [state[param] for param in self.params]
        for param, dtype, entry in zip(self.params, self.dtypes, entries):
            if not entry:
                entry["step"] = torch.zeros(())
                entry["ema"] = torch.zeros(ema_shape, dtype=dtype, device=param.device)
                for name in buffer_names:
                    entry[name] = torch.zeros_like(param, dtype=dtype, memory_format=torch.preserve_format)
        self.ema = torch.stack([entry["ema"].to(self.device, self.dtype) for entry in entries])
        self.steps = torch.stack([entry["step"].to("cpu", torch.float32) for entry in entries])
        self.buffers = {name: [entry[name] for entry in entries] for name in buffer_names}
        for entry, ema, step in zip(entries, self.ema, self.steps):
            entry["ema"], entry["step"] = ema, step

    def holds(self, params: list[torch.Tensor]) -> bool:
        """Whether the bank is of exactly these parameters, where they are now."""
        same = len(params) == len(self.params) and all(map(operator.is_, params, self.params))
        return same and params[0].device == self.device

    def grads(self) -> list[torch.Tensor]:
        """Returns the layers' gradients in the type that the state has; the gradients themselves where that fits."""
        if not self.is_low_precision:
            return [param.grad for param in self.params]  # type: ignore[misc]
        return [param.grad.to(dtype) for param, dtype in zip(self.params, self.dtypes)]  # type: ignore[union-attr]

    def targets(self) -> list[torch.Tensor]:
        """Returns what the update is added to: the parameters, or float32 copies if some are of low precision."""
        if not self.is_low_precision:
            return self.params
        return [param.to(dtype) for param, dtype in zip(self.params, self.dtypes)]

    def norms(self, tensors: list[torch.Tensor]) -> torch.Tensor:
        """Returns the Euclidean norm of each layer's tensor, of shape `(num_layers,)`."""
        return torch.stack(torch._foreach_norm(tensors)).to(self.dtype)

    def time_coefficients(self, num_training_steps: int) -> torch.Tensor:
        """Returns [`~hf_l3rs.learned.features.time_coefficients`], made anew only when the plan changes."""
        if self._time_coefficients is None or self._time_coefficients[0] != num_training_steps:
            coefficients = time_coefficients(self.network.config, num_training_steps, self.sqrt_numel)
            self._time_coefficients = num_training_steps, coefficients
        return self._time_coefficients[1]

    def update_ema(self, inputs: torch.Tensor) -> None:
        """a ← γ a + (1 − γ) ξ for all layers, channels and decays (eq. 2); inputs of shape `(num_layers, 4)`."""
        self.ema.lerp_(
            inputs[:, :, None].expand_as(self.ema),
            (1 - self.decays).expand_as(self.ema),
        )

    def unit_mixture(
        self, directions: list[list[torch.Tensor]], weights: torch.Tensor
    ) -> tuple[list[list[torch.Tensor]], torch.Tensor]:
        """
        Mixes the directions into one, and returns it with the weights, of shape `(num_layers, 1)`, that bring its norm
        to one; weights of the directions are of shape `(num_layers, num_directions)`.
        """
        first, *others = zip(directions, weights.unbind(1))
        mixed = list(torch._foreach_mul(first[0], list(first[1].unbind())))
        for direction, column in others:
            torch._foreach_addcmul_(mixed, direction, list(column.unbind()))
        return [mixed], self.norms(mixed).clamp_min(TINY).reciprocal()[:, None]
