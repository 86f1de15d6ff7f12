"""The base optimizers whose update directions are mixed: each a pure update of a state."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch

from hf_l3rs.optimizer.arithmetic import FUNCTIONAL, Arithmetic, Tensors
from hf_l3rs.optimizer.config import L3RSConfig


# The quintic iteration of Muon's authors: five rounds bring singular values from [0.002, 1] to about [0.7, 1.2].
COEFFICIENTS, NUM_ROUNDS = (3.4445, -4.7750, 2.0315), 5

# Added to the norm that a matrix is divided by first, so that a zero matrix stays zero.
EPS = 1e-7


def orthogonalise(tensors: Tensors) -> Tensors:
    """
    Brings the singular values of matrices near one. Matrices of one shape go through the iteration together.

    Args:
        tensors (`list[torch.Tensor]`):
            Matrices, and kernels of shape `(out, in, ...)`, which count as matrices of `out` rows. Vectors and
            scalars, which have no singular values, come back as they are.

    Returns:
        `list[torch.Tensor]`: New tensors of the same shapes.
    """
    results = list(tensors)
    by_shape: dict[tuple[int, int], list[int]] = {}
    for index, tensor in enumerate(tensors):
        if tensor.ndim > 1 and tensor.numel():
            by_shape.setdefault((len(tensor), tensor[0].numel()), []).append(index)
    for indices in by_shape.values():
        stacked = torch.stack([tensors[index].flatten(1) for index in indices])
        for index, matrix in zip(indices, _newton_schulz(stacked).unbind()):
            results[index] = matrix.view_as(tensors[index])
    return results


def _newton_schulz(matrices: torch.Tensor) -> torch.Tensor:
    """X ← a X + (b A + c A²) X with A = X Xᵀ, on matrices of shape `(num_matrices, rows, columns)`."""
    a, b, c = COEFFICIENTS
    is_tall = matrices.shape[1] > matrices.shape[2]  # A is then the larger of the two products
    x = matrices.mT if is_tall else matrices
    # + the tiniest number: the root of zero has no derivative
    norms = (x.square().sum(dim=(1, 2), keepdim=True) + torch.finfo(x.dtype).tiny).sqrt()
    x = x / (norms + EPS)
    for _ in range(NUM_ROUNDS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if is_tall else x).contiguous()


Buffers = Mapping[str, Tensors]
Update = Callable[[L3RSConfig, Tensors, Buffers, torch.Tensor, Arithmetic], tuple[Tensors, Buffers]]


class Direction(NamedTuple):
    """
    A base optimizer d_p (paper, eq. 1).

    Args:
        buffers (`tuple[str, ...]`):
            Keys in `optimizer.state[p]` of its buffers, each of the parameter's shape, initially zero.
        update (`Callable`):
            `(config, grads, buffers, steps, arithmetic) -> (directions, buffers)`: takes lists with one tensor a layer
            and returns such lists, the buffers brought up to date. Gradients are never written, and may be returned,
            as may buffers. `steps`, of shape `(num_layers,)`, counts each layer's updates, this one included; it is
            float64 and on the CPU, so that reading it waits for no device.
    """

    buffers: tuple[str, ...]
    update: Update


def _adam(
    config: L3RSConfig, grads: Tensors, buffers: Buffers, steps: torch.Tensor, arithmetic: Arithmetic
) -> tuple[Tensors, Buffers]:
    """m̂ / (sqrt(v̂) + ε)"""
    beta1, beta2 = config.adam_betas
    averages = arithmetic.lerp_(buffers["adam_exp_avg"], grads, 1 - beta1)
    squares = _squares(beta2, grads, buffers["adam_exp_avg_sq"], arithmetic)
    directions = _corrected_quotients(averages, squares, steps, config, arithmetic)
    return directions, {"adam_exp_avg": averages, "adam_exp_avg_sq": squares}


def _adabelief(
    config: L3RSConfig, grads: Tensors, buffers: Buffers, steps: torch.Tensor, arithmetic: Arithmetic
) -> tuple[Tensors, Buffers]:
    """
    m̂ / (sqrt(ŝ) + ε), s being the running mean of (g − m)² (arXiv 2010.07468): Adam that trusts a gradient that is
    as was foreseen. The ε within s is left out, so that the state of what never had a gradient stays zero.
    """
    beta1, beta2 = config.adam_betas
    averages = arithmetic.lerp_(buffers["adabelief_exp_avg"], grads, 1 - beta1)
    surprises = arithmetic.add_(FUNCTIONAL.mul_(averages, -1.0), grads)  # g − m
    squares = _squares(beta2, surprises, buffers["adabelief_exp_avg_sq"], arithmetic)
    directions = _corrected_quotients(averages, squares, steps, config, arithmetic)
    return directions, {"adabelief_exp_avg": averages, "adabelief_exp_avg_sq": squares}


def _corrected_quotients(
    averages: Tensors, squares: Tensors, steps: torch.Tensor, config: L3RSConfig, arithmetic: Arithmetic
) -> Tensors:
    """
    m̂ / (sqrt(v̂) + ε). Both bias corrections are folded into the denominator, which saves a pass over memory, and the
    quotient is made in the denominator's: on a CPU, new memory of the model's size costs more than the arithmetic.
    """
    beta1, beta2 = config.adam_betas
    corrections = 1 - beta1**steps
    reciprocals = _reciprocal_roots(squares, corrections / (1 - beta2**steps).sqrt(), config, corrections, arithmetic)
    return arithmetic.mul_(reciprocals, averages)


def _rmsprop(
    config: L3RSConfig, grads: Tensors, buffers: Buffers, steps: torch.Tensor, arithmetic: Arithmetic
) -> tuple[Tensors, Buffers]:
    """g / (sqrt(v̂) + ε): Adam without its first moment, for iterates that are averaged themselves."""
    beta2 = config.adam_betas[1]
    squares = _squares(beta2, grads, buffers["rmsprop_exp_avg_sq"], arithmetic)
    reciprocals = _reciprocal_roots(squares, (1 - beta2**steps).rsqrt(), config, torch.ones_like(steps), arithmetic)
    return arithmetic.mul_(reciprocals, grads), {"rmsprop_exp_avg_sq": squares}


def _squares(beta2: float, grads: Tensors, squares: Tensors, arithmetic: Arithmetic) -> Tensors:
    """v ← β v + (1 − β) g²"""
    squares = arithmetic.mul_(squares, beta2)
    return arithmetic.addcmul_(squares, grads, grads, value=1 - beta2)


def _reciprocal_roots(
    squares: Tensors, factors: torch.Tensor, config: L3RSConfig, eps_factors: torch.Tensor, arithmetic: Arithmetic
) -> Tensors:
    """1 / (f sqrt(v) + ε f'), with one f and one f' a layer."""
    denominators = arithmetic.sqrt(squares)
    denominators = arithmetic.mul_(denominators, factors.tolist())
    denominators = arithmetic.add_(denominators, (config.adam_eps * eps_factors).tolist())
    return arithmetic.reciprocal_(denominators)


def _sgd(
    config: L3RSConfig, grads: Tensors, buffers: Buffers, steps: torch.Tensor, arithmetic: Arithmetic
) -> tuple[Tensors, Buffers]:
    """The gradient itself."""
    return grads, {}


def _momentum(
    config: L3RSConfig, grads: Tensors, buffers: Buffers, steps: torch.Tensor, arithmetic: Arithmetic
) -> tuple[Tensors, Buffers]:
    """The running mean of the gradients; its scale, bias correction included, is lost to the normalisation."""
    averages = arithmetic.lerp_(buffers["momentum_exp_avg"], grads, 1 - config.momentum)
    return averages, {"momentum_exp_avg": averages}


def _muon(
    config: L3RSConfig, grads: Tensors, buffers: Buffers, steps: torch.Tensor, arithmetic: Arithmetic
) -> tuple[Tensors, Buffers]:
    """The running mean of the gradients, a step ahead (Nesterov), with all its singular values near one."""
    beta1, _ = config.adam_betas
    averages = arithmetic.lerp_(buffers["muon_exp_avg"], grads, 1 - beta1)
    ahead = arithmetic.lerp(averages, grads, 1 - beta1)
    return orthogonalise(ahead), {"muon_exp_avg": averages}


def _sign(
    config: L3RSConfig, grads: Tensors, buffers: Buffers, steps: torch.Tensor, arithmetic: Arithmetic
) -> tuple[Tensors, Buffers]:
    """The sign of the running mean of the gradients (Signum, arXiv 1802.04434): Adam's step with half of its state."""
    beta1, _ = config.adam_betas
    averages = arithmetic.lerp_(buffers["sign_exp_avg"], grads, 1 - beta1)
    return arithmetic.sign(averages), {"sign_exp_avg": averages}


# The paper's main runs mix Adam and SGD (figs. 4 and 5). An entry here is all that another direction needs.
DIRECTIONS: dict[str, Direction] = {
    "adam": Direction(("adam_exp_avg", "adam_exp_avg_sq"), _adam),
    "sgd": Direction((), _sgd),
    "momentum": Direction(("momentum_exp_avg",), _momentum),
    "rmsprop": Direction(("rmsprop_exp_avg_sq",), _rmsprop),
    "muon": Direction(("muon_exp_avg",), _muon),
    "sign": Direction(("sign_exp_avg",), _sign),
    "adabelief": Direction(("adabelief_exp_avg", "adabelief_exp_avg_sq"), _adabelief),
}
