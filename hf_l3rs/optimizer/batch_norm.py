"""The momentum of batch norm's statistics: torch's 0.1 averages over some ten steps, too many for a short run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def batch_norms(model: nn.Module) -> list[_BatchNorm]:
    """Returns the layers of a model that keep running statistics."""
    return [layer for layer in model.modules() if isinstance(layer, _BatchNorm) and layer.track_running_stats]


def set_momentum(norms: Sequence[_BatchNorm], momentum: float | None) -> None:
    if momentum is not None:
        for norm in norms:
            norm.momentum = momentum


@contextmanager
def temporary_momentum(norms: Sequence[_BatchNorm], momentum: float | None) -> Iterator[None]:
    """[`set_momentum`] for a while: others train the same model, too."""
    before = [norm.momentum for norm in norms]
    set_momentum(norms, momentum)
    try:
        yield
    finally:
        for norm, own in zip(norms, before):
            norm.momentum = own
