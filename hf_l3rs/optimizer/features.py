"""What the network sees of each layer: pure functions, in the order of `L3RSConfig.features` (paper, fig. 2)."""

from __future__ import annotations

from typing import NamedTuple

import torch

from hf_l3rs.optimizer.config import STRUCTURE, L3RSConfig


# A norm or loss enters as log(x) / scale with x kept within these bounds: no log of 0, no outlier beyond the bounds.
FLOOR, CEILING = 1e-8, 1e4
NORM_SCALE, LOSS_SCALE = 5.0, 2.0

# Rows of a layer's EMA bank. "weight" averages the constant 1, so that bank / weight is the bias-corrected average.
EMA_CHANNELS = ("loss", "grad_norm", "param_norm", "weight")


class Features(NamedTuple):
    """What is measured at one step."""

    step: int  # k, from 1
    time_coefficients: torch.Tensor  # from the function of this name
    ema: torch.Tensor  # the EMA banks, (num_layers, 4, num_decays), channels as EMA_CHANNELS
    measures: torch.Tensor  # from `log_measures`


def num_features(config: L3RSConfig) -> int:
    counts = {
        "relative_time": len(config.relative_times),
        "absolute_time": len(config.absolute_times),
        "direction_norms": len(config.directions),
    }
    return sum(counts.get(group, len(config.ema_decays)) for group in config.features if group != STRUCTURE)


def log_measures(loss: torch.Tensor | None, norms: torch.Tensor, sqrt_numel: torch.Tensor) -> torch.Tensor:
    """
    Returns bounded logarithms, `(num_layers, 3 + num_directions)`: of the loss, and of the RMS per element of the
    gradient, the parameter and every direction. A loss that is not a number gives 0, such a norm the upper bound.
    """
    losses = sqrt_numel.new_ones(()) if loss is None else loss.to(sqrt_numel)
    losses = losses.nan_to_num(nan=1.0, posinf=1.0, neginf=1.0)
    values = torch.cat((losses.expand(len(norms))[:, None], norms / sqrt_numel[:, None]), dim=1)
    logs = values.nan_to_num(nan=CEILING).clamp(FLOOR, CEILING).log() / NORM_SCALE
    logs[:, 0].mul_(NORM_SCALE / LOSS_SCALE)
    return logs


def ema_inputs(measures: torch.Tensor) -> torch.Tensor:
    """Returns what goes into the EMA banks (ξ of eq. 2), `(num_layers, 4)`, columns as EMA_CHANNELS."""
    return torch.nn.functional.pad(measures[:, :3], (0, 1), value=1.0)


def stack_features(config: L3RSConfig, raw: Features) -> torch.Tensor:
    """Returns the network's input, group by group, of shape `(num_layers, num_features)`, each roughly within ±4."""
    averages = raw.ema[:, :3] / raw.ema[:, 3:].clamp_min(1e-30)  # 0 before anything was averaged
    slopes, offsets = raw.time_coefficients
    times = torch.tanh(offsets.add(slopes, alpha=raw.step)).expand(len(averages), -1)
    relative, absolute = times.split((len(config.relative_times), len(config.absolute_times)), dim=1)
    columns = {
        "relative_time": relative,
        "absolute_time": absolute,
        "loss": averages[:, 0],
        "grad_norm": averages[:, 1],
        "param_norm": averages[:, 2],
        "direction_norms": raw.measures[:, 3:],
    }
    groups = [columns[group] for group in config.features if group != STRUCTURE]  # that comes with the embedding
    return torch.cat(groups or [averages[:, 0, :0]], dim=1)


def time_coefficients(config: L3RSConfig, num_training_steps: int, like: torch.Tensor) -> torch.Tensor:
    """Returns slopes and offsets, `(2, num_times)`, of `10 (k/K - c)` and `k/c - 1`: features are tanh of those."""
    relative = [(10 / num_training_steps, -10 * center) for center in config.relative_times]
    absolute = [(1 / scale, -1.0) for scale in config.absolute_times]
    return like.new_tensor([*relative, *absolute]).view(-1, 2).t().contiguous()
