"""What the network sees of each layer: pure functions, in the order of `L3RSConfig.features` (paper, fig. 2)."""

from __future__ import annotations

from typing import NamedTuple

import torch

from hf_l3rs.config import L3RSConfig


# A norm or loss enters as log(x) / scale with x kept within these bounds: no log of 0, no outlier beyond the bounds.
FLOOR, CEILING = 1e-8, 1e4
NORM_SCALE, LOSS_SCALE = 5.0, 2.0

# Rows of a layer's EMA bank. "weight" averages the constant 1, so that bank / weight is the bias-corrected average.
EMA_CHANNELS = ("loss", "grad_norm", "param_norm", "weight")


class Features(NamedTuple):
    """
    The raw material of the features at one step.

    Args:
        step (`int`): Steps taken, this one included: k, from 1.
        num_training_steps (`int`): Planned length K of the run.
        time_constants (`torch.Tensor` of shape `(num_times,)`): From [`time_constants`], on the layers' device.
        ema (`torch.Tensor` of shape `(num_layers, 4, num_decays)`): The layers' EMA banks, channels as EMA_CHANNELS.
        direction_rms (`torch.Tensor` of shape `(num_layers, num_directions)`): RMS per element of each direction.
    """

    step: int
    num_training_steps: int
    time_constants: torch.Tensor
    ema: torch.Tensor
    direction_rms: torch.Tensor


def log_scale(value: torch.Tensor, scale: float = NORM_SCALE) -> torch.Tensor:
    """Returns `log(value) / scale` with `value` bounded; what is not a number counts as the upper bound."""
    return value.nan_to_num(nan=CEILING).clamp(FLOOR, CEILING).log() / scale


def feature_names(config: L3RSConfig) -> list[str]:
    """Returns the name of every column of [`stack_features`], in order."""
    columns = {
        "relative_time": [f"relative_time_{center:g}" for center in config.relative_times],
        "absolute_time": [f"absolute_time_{scale:g}" for scale in config.absolute_times],
        "direction_norms": [f"direction_norm_{name}" for name in config.directions],
    }
    for channel in EMA_CHANNELS[:3]:
        columns[channel] = [f"{channel}_ema_{decay:g}" for decay in config.ema_decays]
    return [column for group in config.features for column in columns[group]]


def num_features(config: L3RSConfig) -> int:
    """Returns the number of columns of [`stack_features`]."""
    return len(feature_names(config))


def ema_inputs(
    loss: torch.Tensor | None,
    grad_norms: torch.Tensor,
    param_norms: torch.Tensor,
    sqrt_numel: torch.Tensor,
) -> torch.Tensor:
    """
    What a step feeds into the EMA banks (ξ of eq. 2): logarithms of the loss and of the norms' RMS per element (ours).

    Args:
        loss (`torch.Tensor`, *optional*): 0-dimensional training loss; without one, the neutral value 0 goes in.
        grad_norms (`torch.Tensor` of shape `(num_layers,)`): Euclidean norms of the gradients.
        param_norms (`torch.Tensor` of shape `(num_layers,)`): Euclidean norms of the parameters before the step.
        sqrt_numel (`torch.Tensor` of shape `(num_layers,)`): Square roots of the layers' numbers of elements.

    Returns:
        `torch.Tensor` of shape `(num_layers, 4)`, columns as EMA_CHANNELS.
    """
    inputs = torch.ones(
        len(sqrt_numel),
        len(EMA_CHANNELS),
        dtype=sqrt_numel.dtype,
        device=sqrt_numel.device,
    )
    if loss is None:
        inputs[:, 0].zero_()
    else:
        inputs[:, 0] = log_scale(loss.to(sqrt_numel), LOSS_SCALE)
    inputs[:, 1:3] = log_scale(torch.stack((grad_norms, param_norms), dim=1) / sqrt_numel[:, None])
    return inputs


def stack_features(config: L3RSConfig, raw: Features) -> torch.Tensor:
    """
    Computes the network's input.

    Args:
        config ([`L3RSConfig`]): Which features, with which constants.
        raw ([`Features`]): What was measured at this step.

    Returns:
        `torch.Tensor` of shape `(num_layers, num_features)`, columns as [`feature_names`], each roughly within ±4.
    """
    averages = raw.ema[:, :3] / raw.ema[:, 3:]
    centers, inverse_scales = raw.time_constants.split((len(config.relative_times), len(config.absolute_times)))
    num_layers = len(raw.ema)
    columns = {
        "relative_time": relative_time(raw.step / raw.num_training_steps, centers).expand(num_layers, -1),
        "absolute_time": absolute_time(raw.step, inverse_scales).expand(num_layers, -1),
        "loss": averages[:, 0],
        "grad_norm": averages[:, 1],
        "param_norm": averages[:, 2],
        "direction_norms": log_scale(raw.direction_rms),
    }
    return torch.cat([columns[group] for group in config.features] or [averages[:, 0, :0]], dim=1)


def time_constants(config: L3RSConfig, like: torch.Tensor) -> torch.Tensor:
    """Returns the centres and the inverse scales of the time features, placed as `like`: built once, not each step."""
    return like.new_tensor((*config.relative_times, *(1 / scale for scale in config.absolute_times)))


def relative_time(progress: float, centers: torch.Tensor) -> torch.Tensor:
    """Where in the planned run the step stands: `tanh(10 (k/K - c))` for each centre c (ours)."""
    return torch.tanh(10 * (progress - centers))


def absolute_time(step: int, inverse_scales: torch.Tensor) -> torch.Tensor:
    """How many steps were taken, whatever the plan: `tanh(k/c - 1)` for each scale c (ours)."""
    return torch.tanh(step * inverse_scales - 1)
