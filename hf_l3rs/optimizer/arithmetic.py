"""
Arithmetic on lists of tensors, one a layer, in three forms: in place for training, functional for `torch.func.vmap`,
and functional by foreach kernels for gradients through a step.

A method whose name ends in an underscore returns its result, and may write it over its first argument; everything else
is left alone. What it is given as a factor, summand or weight is one number, or one a layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch


Tensors = list[torch.Tensor]
Factors = Any  # float | Sequence[float] | Sequence[torch.Tensor]: torch declares less than it takes


class Arithmetic(Protocol):
    """What directions and the step are written in."""

    def add_(self, tensors: Tensors, summands: Factors) -> Tensors:
        """x + s"""

    def mul_(self, tensors: Tensors, factors: Factors) -> Tensors:
        """x s"""

    def lerp_(self, tensors: Tensors, ends: Tensors, weights: Factors) -> Tensors:
        """x + w (y - x)"""

    def addcmul_(self, tensors: Tensors, first: Tensors, second: Tensors, value: float = 1.0) -> Tensors:
        """x + v y z"""

    def reciprocal_(self, tensors: Tensors) -> Tensors:
        """1 / x"""

    def sqrt(self, tensors: Tensors) -> Tensors:
        """√x, in new memory"""

    def lerp(self, tensors: Tensors, ends: Tensors, weights: Factors) -> Tensors:
        """x + w (y - x), in new memory"""

    def sign(self, tensors: Tensors) -> Tensors:
        """1, 0 or -1, in new memory"""

    def norms(self, tensors: Tensors) -> torch.Tensor:
        """‖x‖, of shape `(num_layers,)`"""

    def are_all_set(self, flags: torch.Tensor) -> bool:
        """Whether all flags are known to be set; false where looking would wait for the device, or is impossible."""


class InPlace:
    """Foreach kernels, over the memory that is there, with no wait for the device."""

    def add_(self, tensors: Tensors, summands: Factors) -> Tensors:
        torch._foreach_add_(tensors, summands)
        return tensors

    def mul_(self, tensors: Tensors, factors: Factors) -> Tensors:
        torch._foreach_mul_(tensors, factors)
        return tensors

    def lerp_(self, tensors: Tensors, ends: Tensors, weights: Factors) -> Tensors:
        torch._foreach_lerp_(tensors, ends, weights)
        return tensors

    def addcmul_(self, tensors: Tensors, first: Tensors, second: Tensors, value: float = 1.0) -> Tensors:
        torch._foreach_addcmul_(tensors, first, second, value=value)
        return tensors

    def reciprocal_(self, tensors: Tensors) -> Tensors:
        torch._foreach_reciprocal_(tensors)
        return tensors

    def sqrt(self, tensors: Tensors) -> Tensors:
        return list(torch._foreach_sqrt(tensors))

    def lerp(self, tensors: Tensors, ends: Tensors, weights: Factors) -> Tensors:
        return list(torch._foreach_lerp(tensors, ends, weights))

    def sign(self, tensors: Tensors) -> Tensors:
        return list(torch._foreach_sign(tensors))

    def norms(self, tensors: Tensors) -> torch.Tensor:
        return torch.stack(torch._foreach_norm(tensors))

    def are_all_set(self, flags: torch.Tensor) -> bool:
        return _known_to_be_set(flags)


class Functional:
    """New tensors only, differentiable everywhere, the zero of a square root or a norm included."""

    def add_(self, tensors: Tensors, summands: Factors) -> Tensors:
        return [x + s for x, s in zip(tensors, _one_a_layer(summands, tensors))]

    def mul_(self, tensors: Tensors, factors: Factors) -> Tensors:
        return [x * s for x, s in zip(tensors, _one_a_layer(factors, tensors))]

    def lerp_(self, tensors: Tensors, ends: Tensors, weights: Factors) -> Tensors:
        return [torch.lerp(x, y, w) for x, y, w in zip(tensors, ends, _one_a_layer(weights, tensors))]

    def addcmul_(self, tensors: Tensors, first: Tensors, second: Tensors, value: float = 1.0) -> Tensors:
        return [torch.addcmul(x, y, z, value=value) for x, y, z in zip(tensors, first, second)]

    def reciprocal_(self, tensors: Tensors) -> Tensors:
        return [x.reciprocal() for x in tensors]

    def sqrt(self, tensors: Tensors) -> Tensors:
        return [(x + torch.finfo(x.dtype).tiny).sqrt() for x in tensors]  # the root of 0 has no derivative

    def lerp(self, tensors: Tensors, ends: Tensors, weights: Factors) -> Tensors:
        return self.lerp_(tensors, ends, weights)

    def sign(self, tensors: Tensors) -> Tensors:
        return [x.sign() for x in tensors]

    def norms(self, tensors: Tensors) -> torch.Tensor:
        return torch.stack([torch.linalg.vector_norm(x) for x in tensors])

    def are_all_set(self, flags: torch.Tensor) -> bool:
        return False


class AllAtOnce(Functional):
    """New tensors by foreach kernels: half the time of one operation a layer, graph included, but not for vmap."""

    def add_(self, tensors: Tensors, summands: Factors) -> Tensors:
        return list(torch._foreach_add(tensors, summands))

    def mul_(self, tensors: Tensors, factors: Factors) -> Tensors:
        return list(torch._foreach_mul(tensors, factors))

    def lerp_(self, tensors: Tensors, ends: Tensors, weights: Factors) -> Tensors:
        return list(torch._foreach_lerp(tensors, ends, weights))

    def addcmul_(self, tensors: Tensors, first: Tensors, second: Tensors, value: float = 1.0) -> Tensors:
        return list(torch._foreach_addcmul(tensors, first, second, value=value))

    def reciprocal_(self, tensors: Tensors) -> Tensors:
        return list(torch._foreach_reciprocal(tensors))

    def sqrt(self, tensors: Tensors) -> Tensors:
        return list(torch._foreach_sqrt(self.add_(tensors, [torch.finfo(x.dtype).tiny for x in tensors])))

    def sign(self, tensors: Tensors) -> Tensors:
        return list(torch._foreach_sign(tensors))

    def norms(self, tensors: Tensors) -> torch.Tensor:
        return torch.stack(torch._foreach_norm(tensors))

    def are_all_set(self, flags: torch.Tensor) -> bool:
        return _known_to_be_set(flags)


def _known_to_be_set(flags: torch.Tensor) -> bool:
    """Looking waits for no device only on the CPU."""
    return flags.device.type == "cpu" and bool(flags.all())


def _one_a_layer(factors: Factors, tensors: Tensors) -> Sequence[Any]:
    return factors if isinstance(factors, Sequence) else [factors] * len(tensors)


IN_PLACE, FUNCTIONAL, ALL_AT_ONCE = InPlace(), Functional(), AllAtOnce()
