"""
Gradients are clipped in a `Trainer` as the L3RS was meta-trained with, whatever the user's `max_grad_norm` is.

No event lies between backward and clipping, and the arguments are the user's: replaced ones would be saved with every
checkpoint, and outlive a run that an exception or the stop button ends. So the Trainer's two methods that read
`max_grad_norm` are taken over, for those Trainers whose optimizer is an L3RS.
"""

from __future__ import annotations

import functools
import logging
import math
from typing import Any

import torch
from torch import nn
from transformers import Trainer, TrainingArguments

from hf_l3rs.integration.unwrap import unwrap_optimizer


logger = logging.getLogger(__name__)


@functools.cache
def take_over_clipping() -> None:
    """Makes every Trainer, from now on, clip the gradients of an L3RS as in its meta-training, and no others."""
    clip, measure = Trainer._clip_grad_norm, Trainer._get_grad_norm

    @functools.wraps(clip)
    def clip_grad_norm(self: Trainer, model: nn.Module) -> Any:
        own = unwrap_optimizer(self.optimizer)
        return clip(self, model) if own is None else _clip(self, model, own.config.max_grad_norm)

    @functools.wraps(measure)
    def get_grad_norm(self: Trainer, model: nn.Module, grad_norm: Any = None) -> Any:
        own = unwrap_optimizer(self.optimizer)
        if own is not None and grad_norm is None:  # the user's max_grad_norm is 0, so nothing was clipped yet
            grad_norm = _clip(self, model, own.config.max_grad_norm)
        return measure(self, model, grad_norm=grad_norm)

    Trainer._clip_grad_norm, Trainer._get_grad_norm = clip_grad_norm, get_grad_norm  # type: ignore[method-assign]


def _clip(trainer: Trainer, model: nn.Module, max_norm: float | None) -> torch.Tensor:
    """Returns the norm of all gradients, which are clipped to `max_norm`, or left alone where that is `None`."""
    if max_norm is not None:
        return trainer.accelerator.clip_grad_norm_(model.parameters(), max_norm)
    trainer.accelerator.unscale_gradients()
    # clipping to infinity would make every gradient NaN where one is not finite
    return nn.utils.get_total_norm([param.grad for param in model.parameters() if param.grad is not None])


def tell_clipping(args: TrainingArguments, trained_with: float | None) -> None:
    """Logs whether the user's `max_grad_norm` is not what is used: a warning if the user chose it."""
    given = args.max_grad_norm
    if given == trained_with or (trained_with is None and (not given or math.isinf(given))):
        return
    logger.log(
        logging.INFO if given == type(args).max_grad_norm else logging.WARNING,
        "This L3RS was meta-trained with max_grad_norm=%s, which train() uses in place of %s; to change it, set "
        "max_grad_norm in the L3RS's config.",
        trained_with,
        given,
    )
