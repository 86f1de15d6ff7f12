"""The base optimizers whose update directions are mixed: each a pure foreach update of a state."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch

from hf_l3rs.learned.config import L3RSConfig


State = Mapping[str, list[torch.Tensor]]
Update = Callable[[L3RSConfig, list[torch.Tensor], State, torch.Tensor], list[torch.Tensor]]


class Direction(NamedTuple):
    """
    A base optimizer d_p (paper, eq. 1).

    Args:
        buffers (`tuple[str, ...]`):
            Keys in `optimizer.state[p]` of its buffers, each of the parameter's shape, initially zero.
        update (`Callable`):
            `(config, grads, buffers, steps) -> directions`: updates the buffers in place from the gradients, which it
            must not write, and returns one tensor a layer. It may return the gradients themselves, or buffers.
            `steps`, of shape `(num_layers,)`, counts each layer's updates, this one included; it is float64 and on the
            CPU, so that reading it waits for no device.
    """

    buffers: tuple[str, ...]
    update: Update


def _adam(config: L3RSConfig, grads: list[torch.Tensor], buffers: State, steps: torch.Tensor) -> list[torch.Tensor]:
    """
    m̂ / (sqrt(v̂) + ε). Both bias corrections are folded into the denominator, which saves a pass over memory, and the
    quotient is made in place: on a CPU, new memory of the model's size costs more than the arithmetic.
    """
    beta1, beta2 = config.adam_betas
    averages, squares = buffers["adam_exp_avg"], buffers["adam_exp_avg_sq"]
    torch._foreach_lerp_(averages, grads, 1 - beta1)
    torch._foreach_mul_(squares, beta2)
    torch._foreach_addcmul_(squares, grads, grads, value=1 - beta2)
    directions = list(torch._foreach_sqrt(squares))
    corrections = 1 - beta1**steps
    torch._foreach_mul_(directions, (corrections / (1 - beta2**steps).sqrt()).tolist())
    torch._foreach_add_(directions, (config.adam_eps * corrections).tolist())
    torch._foreach_reciprocal_(directions)
    torch._foreach_mul_(directions, averages)
    return directions


def _sgd(config: L3RSConfig, grads: list[torch.Tensor], buffers: State, steps: torch.Tensor) -> list[torch.Tensor]:
    """The gradient itself."""
    return grads


def _momentum(
    config: L3RSConfig, grads: list[torch.Tensor], buffers: State, steps: torch.Tensor
) -> list[torch.Tensor]:
    """The running mean of the gradients; its scale, bias correction included, is lost to the normalisation."""
    averages = buffers["momentum_exp_avg"]
    torch._foreach_lerp_(averages, grads, 1 - config.momentum)
    return averages


# The paper's main runs mix Adam and SGD (figs. 4 and 5). An entry here is all that another direction needs.
DIRECTIONS: dict[str, Direction] = {
    "adam": Direction(("adam_exp_avg", "adam_exp_avg_sq"), _adam),
    "sgd": Direction((), _sgd),
    "momentum": Direction(("momentum_exp_avg",), _momentum),
}
