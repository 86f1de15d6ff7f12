"""Rivals that are two of torch's optimizers at once: Muon beside Adam, and the fixed mixture of Adam and SGD."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from hf_l3rs.errors import ConfigError
from hf_l3rs.evaluation.trained_part import TrainedPart


class Combined(torch.optim.Optimizer):
    """
    Several optimizers that take their steps one after another with the same gradients, of parameters of their own or
    of the same ones. Schedulers see the groups of all; state and checkpoints are those of each.

    Args:
        optimizers (`Sequence[torch.optim.Optimizer]`): Fresh ones, of different classes.
        settings: What a run depends on beside their defaults; for [`~hf_l3rs.evaluation.baselines.Baseline.identity`].
    """

    def __init__(self, optimizers: Sequence[torch.optim.Optimizer], **settings: Any) -> None:
        groups = [group for optimizer in optimizers for group in optimizer.param_groups]
        parameters = dict.fromkeys(parameter for group in groups for parameter in group["params"])
        defaults = {
            type(optimizer).__name__: {name: value for name, value in optimizer.defaults.items() if name != "lr"}
            for optimizer in optimizers
        }
        super().__init__(list(parameters), {**defaults, **settings})
        self.optimizers = list(optimizers)
        self.param_groups = groups

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Takes a step of each; returns the closure's loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for optimizer in self.optimizers:
            optimizer.step()
        return loss


def muon_beside_adam(part: TrainedPart, learning_rate: float) -> torch.optim.Optimizer:
    """
    Returns torch's Muon for the hidden weights, with its defaults, and Adam for all else: embeddings, norms, biases
    and head.

    Muon takes matrices, and torch's takes nothing else. Kernels of convolutions are shown to it as matrices with a
    row for each output channel, as its author does (kellerjordan.github.io/posts/muon): a convolutional network has
    hardly another hidden weight. Updates are scaled to the size of Adam's (`match_rms_adamw`, arXiv 2502.16982), so
    that one learning rate does for both.

    Args:
        part ([`TrainedPart`]): What is trained.
        learning_rate (`float`): Of both.

    Raises:
        ConfigError: If torch has no Muon, or no hidden weight is trained, which would leave Adam alone.
    """
    try:
        from torch.optim import Muon
    except ImportError as error:
        raise ConfigError(
            f"Muon needs torch 2.9 or newer, got {torch.__version__}; upgrade it, or name another baseline."
        ) from error
    hidden = part.hidden_weights
    if not hidden:
        raise ConfigError(
            "Muon needs hidden weights, of linear layers or convolutions, and none is trained here, so that it would "
            "be Adam alone; name another baseline."
        )
    matrices = [nn.Parameter(weight.detach().view(len(weight), -1)) for weight in hidden]  # of the same memory

    def show_gradients(*_: Any) -> None:
        for weight, matrix in zip(hidden, matrices):
            matrix.grad = None if weight.grad is None else weight.grad.reshape(matrix.shape)

    muon = Muon(matrices, lr=learning_rate, adjust_lr_fn="match_rms_adamw")
    muon.register_step_pre_hook(show_gradients)
    of_muon = set(map(id, hidden))
    rest = [parameter for parameter in part.parameters if id(parameter) not in of_muon]
    return Combined([muon, torch.optim.Adam(rest, lr=learning_rate)])


# Of Adam's and of SGD's update.
ATMO_WEIGHTS = (0.5, 0.5)


def atmo(part: TrainedPart, learning_rate: float) -> torch.optim.Optimizer:
    """
    Returns ATMO's fixed mixture d = λ_a d_Adam + λ_s d_SGD (Landro et al., doi 10.3390/a14060186), halves of both at
    one learning rate. Neither direction depends on the weights, so that two steps one after another are their sum.

    Args:
        part ([`TrainedPart`]): What is trained.
        learning_rate (`float`): Of the mixture.
    """
    of_adam, of_sgd = ATMO_WEIGHTS
    adam = torch.optim.Adam(part.parameters, lr=of_adam * learning_rate)
    sgd = torch.optim.SGD(part.parameters, lr=of_sgd * learning_rate, momentum=0.9)
    return Combined([adam, sgd], weights=list(ATMO_WEIGHTS))
