"""How the learned optimizer is found inside what Accelerate makes of it."""

from __future__ import annotations

from typing import Any

from accelerate.optimizer import AcceleratedOptimizer

from hf_l3rs.learned.optimizer import LearnedOptimizer


def unwrap_optimizer(optimizer: Any) -> LearnedOptimizer | None:
    """Returns the [`L3RS`] inside whatever Accelerate wrapped around it, or `None` if it is another optimizer."""
    while isinstance(optimizer, AcceleratedOptimizer):
        optimizer = optimizer.optimizer
    return optimizer if isinstance(optimizer, LearnedOptimizer) else None
