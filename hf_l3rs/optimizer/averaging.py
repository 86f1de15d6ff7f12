"""
Averaged iterates that need no modes: schedule-free learning (arXiv 2405.15682) whose weights the network decides.

Beside its parameter y, at which gradients are taken, a layer keeps a fast iterate z, which the updates move, and their
average x: z ← z − update, x ← x + c (z − x), y ← z + a (x − z). In place of a switch to x for evaluation, and of batch
norm statistics of another point than that, the network brings a to one where the run ends (ours).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from hf_l3rs.optimizer.arithmetic import Arithmetic, Tensors


FAST, AVERAGE = "fast", "average"  # keys in the state of z and x, which are where the parameter is at first

# An untrained network has a = 0.9, schedule-free's interpolation.
NEARNESS_LOGIT = 2.2

# exp(±6): from an average that hardly moves to one that is where the fast iterate is.
POWER_LIMIT = 6.0


def averaging_weights(outputs: torch.Tensor, steps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Turns what the network says into weights.

    Args:
        outputs (`torch.Tensor` of shape `(num_layers, 2)`): Of the network; zeros give schedule-free's own weights.
        steps (`torch.Tensor` of shape `(num_layers,)`): The layers' updates, this one included.

    Returns:
        `tuple[torch.Tensor, torch.Tensor]`: c = p / (p + steps − 1), which weighs the i-th iterate by a polynomial of
        degree p − 1 in i, uniformly where p = exp(output) = 1; and a, in (0, 1). Both of shape `(num_layers,)`.
    """
    power, nearness = outputs.unbind(1)
    power = power.clamp(-POWER_LIMIT, POWER_LIMIT).exp()
    return power / (power + (steps.to(power) - 1)), torch.sigmoid(nearness + NEARNESS_LOGIT)


def average_iterates(
    params: Tensors,
    fast: Tensors,
    average: Tensors,
    weights: tuple[torch.Tensor, torch.Tensor],
    is_usable: torch.Tensor | None,
    arithmetic: Arithmetic,
) -> tuple[Tensors, Mapping[str, Tensors]]:
    """
    Averages the fast iterate, and returns the parameters, between the two, with the buffers of the state.

    Args:
        params (`list[torch.Tensor]`): y before the step.
        fast (`list[torch.Tensor]`): z after the update.
        average (`list[torch.Tensor]`): x before the step.
        weights (`tuple[torch.Tensor, torch.Tensor]`): c and a.
        is_usable (`torch.Tensor` of shape `(num_layers,)`, *optional*): The layers that move; the others stay.
        arithmetic ([`~hf_l3rs.optimizer.arithmetic.Arithmetic`]): In place or functional.
    """
    towards_fast, towards_average = weights
    there = torch.ones_like(towards_fast)
    if is_usable is not None:
        towards_fast, towards_average, there = (
            torch.where(is_usable, each, 0.0) for each in (towards_fast, towards_average, there)
        )
    average = arithmetic.lerp_(average, fast, list(towards_fast.unbind()))
    params = arithmetic.lerp_(params, fast, list(there.unbind()))
    params = arithmetic.lerp_(params, average, list(towards_average.unbind()))
    return params, {FAST: fast, AVERAGE: average}
