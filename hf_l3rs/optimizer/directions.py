"""The base optimizers whose update directions are mixed: each a pure update of a state."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch


if TYPE_CHECKING:
    from hf_l3rs.optimizer.config import L3RSConfig

Tensors = list[torch.Tensor]


class Arithmetic:
    """
    Foreach kernels: in place for training, or in new tensors with gradients through them. A method whose name ends in
    an underscore may write its result over its first argument. Factors and weights are one number, or one a layer.
    """

    def __init__(self, in_place: bool) -> None:
        self.in_place = in_place

    def _run(self, name: str, tensors: Tensors, *args: Any, **kwargs: Any) -> Tensors:
        if self.in_place:
            getattr(torch, f"_foreach_{name}_")(tensors, *args, **kwargs)
            return tensors
        return list(getattr(torch, f"_foreach_{name}")(tensors, *args, **kwargs))

    add_ = functools.partialmethod(_run, "add")  # x + s
    mul_ = functools.partialmethod(_run, "mul")  # x s
    lerp_ = functools.partialmethod(_run, "lerp")  # x + w (y - x)
    addcmul_ = functools.partialmethod(_run, "addcmul")  # x + v y z, of a number v that is named value
    reciprocal_ = functools.partialmethod(_run, "reciprocal")  # 1 / x

    def lerp(self, tensors: Tensors, ends: Tensors, weights: Any) -> Tensors:  # in new memory
        return list(torch._foreach_lerp(tensors, ends, weights))

    def sqrt(self, tensors: Tensors) -> Tensors:  # in new memory
        if not self.in_place:  # the root of 0 has no derivative
            tensors = self.add_(tensors, [torch.finfo(x.dtype).tiny for x in tensors])
        return list(torch._foreach_sqrt(tensors))

    def norms(self, tensors: Tensors) -> torch.Tensor:  # (num_layers,)
        return torch.stack(torch._foreach_norm(tensors))


IN_PLACE, FUNCTIONAL = Arithmetic(in_place=True), Arithmetic(in_place=False)

Buffers = Mapping[str, Tensors]
Moved = tuple[Tensors, Buffers]  # the directions, and the buffers brought up to date
Update = Callable[["L3RSConfig", Tensors, Buffers, torch.Tensor, Arithmetic], Moved]


class Direction(NamedTuple):
    """
    A base optimizer d_p (paper, eq. 1).

    Args:
        buffers (`tuple[str, ...]`):
            Keys in `optimizer.state[p]` of its buffers, each of the parameter's shape, initially zero.
        update (`Callable`):
            `(config, grads, buffers, steps, arithmetic) -> (directions, buffers)`, in lists with one tensor a layer;
            gradients are never written. `steps`, `(num_layers,)`, counts each layer's updates, this one included; it
            is float64 and on the CPU. A gradient of zero should give a direction of zero.
    """

    buffers: tuple[str, ...]
    update: Update


def _adam(config: L3RSConfig, grads: Tensors, buffers: Buffers, steps: torch.Tensor, arithmetic: Arithmetic) -> Moved:
    """m̂ / (sqrt(v̂) + ε), with both bias corrections in the denominator, whose memory the quotient takes."""
    beta1, beta2 = config.adam_betas
    averages = arithmetic.lerp_(buffers["adam_exp_avg"], grads, 1 - beta1)
    squares = arithmetic.mul_(buffers["adam_exp_avg_sq"], beta2)
    squares = arithmetic.addcmul_(squares, grads, grads, value=1 - beta2)
    correction = 1 - beta1**steps
    denominators = arithmetic.sqrt(squares)
    denominators = arithmetic.mul_(denominators, (correction / (1 - beta2**steps).sqrt()).tolist())
    denominators = arithmetic.add_(denominators, (config.adam_eps * correction).tolist())
    directions = arithmetic.mul_(arithmetic.reciprocal_(denominators), averages)
    return directions, {"adam_exp_avg": averages, "adam_exp_avg_sq": squares}


def _sgd(config: L3RSConfig, grads: Tensors, buffers: Buffers, steps: torch.Tensor, arithmetic: Arithmetic) -> Moved:
    """The gradient itself."""
    return grads, {}


def _muon(config: L3RSConfig, grads: Tensors, buffers: Buffers, steps: torch.Tensor, arithmetic: Arithmetic) -> Moved:
    """The running mean of the gradients, a step ahead (Nesterov), with all its singular values near one."""
    beta1, _ = config.adam_betas
    averages = arithmetic.lerp_(buffers["muon_exp_avg"], grads, 1 - beta1)
    ahead = arithmetic.lerp(averages, grads, 1 - beta1)
    return orthogonalise(ahead), {"muon_exp_avg": averages}


# The quintic iteration of Muon's authors: five rounds bring singular values from [0.002, 1] to about [0.7, 1.2].
COEFFICIENTS, NUM_ROUNDS = (3.4445, -4.7750, 2.0315), 5

# Added to the norm that a matrix is divided by first, so that a zero matrix stays zero.
EPS = 1e-7

# Kernels thinner than this, or longer than this many times their width, gain nothing from orthogonalisation.
MIN_SIDE, MAX_ASPECT = 4, 128


def is_matrix_for_muon(shape: Sequence[int]) -> bool:
    """Whether Muon takes a parameter of this shape, by timm's rule; a kernel has a row for each output channel."""
    if len(shape) < 2 or 1 in shape[:2]:  # vectors, depthwise kernels, position embeddings
        return False
    rows, columns = shape[0], math.prod(shape[1:])
    return min(rows, columns) >= MIN_SIDE and max(rows, columns) <= MAX_ASPECT * min(rows, columns)


def orthogonalise(tensors: Tensors) -> Tensors:
    """Brings the singular values of matrices, and of kernels that Muon takes, near one; leaves the rest as it is."""
    results = list(tensors)
    by_shape: dict[tuple[int, int], list[int]] = {}
    for index, tensor in enumerate(tensors):
        if tensor.numel() and (tensor.ndim == 2 or is_matrix_for_muon(tensor.shape)):
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


# The paper's main runs mix Adam and SGD (figs. 4 and 5). An entry here is all that another direction needs.
DIRECTIONS: dict[str, Direction] = {
    "adam": Direction(("adam_exp_avg", "adam_exp_avg_sq"), _adam),
    "sgd": Direction((), _sgd),
    "muon": Direction(("muon_exp_avg",), _muon),
}


def buffer_names(config: L3RSConfig) -> list[str]:
    """Returns the keys of all buffers that a layer has."""
    return [name for direction in config.directions for name in DIRECTIONS[direction].buffers]
