"""Rivals from the packages of their authors, and what makes them. They need `pip install hf_l3rs[rivals]`."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import torch

from hf_l3rs.errors import ConfigError
from hf_l3rs.evaluation.trained_part import TrainedPart


@dataclass(frozen=True)
class Packaged:
    """
    Makes optimizers of a class that another package has, which is imported when the first is made.

    Args:
        package (`str`): As pip knows it.
        module (`str`): That has the class.
        optimizer (`str`): The class.
        settings (`dict`, *optional*): Beside the learning rate; what is not here is at its authors' default.

    Raises:
        ConfigError: On the call, if the package is not installed.
    """

    package: str
    module: str
    optimizer: str
    settings: dict[str, Any] = field(default_factory=dict, hash=False)

    def __call__(self, part: TrainedPart, learning_rate: float) -> torch.optim.Optimizer:
        kind = imported(self.package, self.module, self.optimizer)
        return kind(part.groups(learning_rate), lr=learning_rate, **self.settings)


def imported(package: str, module: str, name: str) -> Any:
    """
    Returns what a module of an optional package has under a name.

    Raises:
        ConfigError: If the package is not installed.
    """
    try:
        return getattr(import_module(module), name)
    except ImportError as error:
        raise ConfigError(
            f"{name} needs the package {package}, which cannot be imported; install it with `pip install "
            "hf_l3rs[rivals]`, or name another baseline."
        ) from error


schedule_free_adamw = Packaged("schedulefree", "schedulefree", "AdamWScheduleFree")
prodigy = Packaged("prodigyopt", "prodigyopt", "Prodigy")
d_adapt_adam = Packaged("dadaptation", "dadaptation", "DAdaptAdam")
lamb = Packaged("pytorch-optimizer", "pytorch_optimizer", "Lamb")
lars = Packaged("pytorch-optimizer", "pytorch_optimizer", "LARS", {"trust_coefficient": 0.1})

DOG_PACKAGE = "dog-optimizer"

# LDoG's first step in norms of a layer, by whether the model has batch norm: what its authors recommend.
LDOG_FIRST_STEPS = {False: 1e-6, True: 1e-4}


def ldog(part: TrainedPart, learning_rate: float) -> torch.optim.Optimizer:
    """
    Returns layer-wise DoG (Ivgi et al., arXiv 2302.12022), with the first step that its authors recommend for the kind
    of model, to be trained by [`~hf_l3rs.evaluation.averaged.AveragedLearner`].

    Args:
        part ([`TrainedPart`]): What is trained.
        learning_rate (`float`): 1 if nothing is tuned.

    Raises:
        ConfigError: If its package is not installed.
    """
    kind = imported(DOG_PACKAGE, "dog", "LDoG")
    return kind(part.parameters, lr=learning_rate, reps_rel=LDOG_FIRST_STEPS[part.has_batch_norm])
