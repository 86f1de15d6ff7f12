"""The hand-designed optimizers that an L3RS is measured against, each with the learning rates that are searched."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from hf_l3rs.errors import ConfigError
from hf_l3rs.evaluation.manifest import installed_version
from hf_l3rs.evaluation.recalibration import RecalibratedLearner
from hf_l3rs.evaluation.schedule_free import ScheduleFreeLearner, schedule_free_adamw
from hf_l3rs.learned.layers import describe_layers, named_trainable_parameters
from hf_l3rs.learned.network import L3RSNetwork
from hf_l3rs.learned.optimizer import LearnedOptimizer
from hf_l3rs.tasks.inner_loop import ModelLearner


# Eleven rates over two and a half decades, about a factor 1.8 apart.
ADAPTIVE_RATES = (1e-4, 2e-4, 4e-4, 7e-4, 1.2e-3, 2e-3, 3.5e-3, 6e-3, 1e-2, 1.8e-2, 3e-2)
SGD_RATES = tuple(rate * 10 for rate in ADAPTIVE_RATES)

Built = tuple[torch.optim.Optimizer, LRScheduler | None]


@dataclass(frozen=True)
class Contender:
    """
    An optimizer that takes part in a comparison.

    Args:
        name (`str`): In tables and plots.
        build (`Callable`):
            `(model, num_training_steps) -> (optimizer, scheduler or None)`, both fresh. Any torch optimizer will do.
        learning_rate (`float`, *optional*): For the record.
        identity (`Mapping`, *optional*):
            What its runs depend on beside name and learning rate, as plain JSON values: rows of contenders of one name
            but different identities are never mixed.
        max_grad_norm (`float`, *optional*): Global gradient norm to clip to.
        learner (`type`, *optional*, defaults to [`~hf_l3rs.tasks.inner_loop.ModelLearner`]):
            Trains the model with the optimizer; another one for optimizers that ask for more than a step.
        passes (`int`, *optional*, defaults to 1):
            How many times the run's batches are trained on, in their order; `num_training_steps` of `build` counts
            every one. More than one is no rival, as everybody else sees them once.
    """

    name: str
    build: Callable[[nn.Module, int], Built]
    learning_rate: float | None = None
    identity: Mapping[str, Any] = field(default_factory=dict, hash=False)
    max_grad_norm: float | None = None
    learner: type[ModelLearner] = ModelLearner
    passes: int = 1


def recalibrated(contender: Contender) -> Contender:
    """Returns the contender with batch norm's statistics taken again before evaluations, if it is not so anyway."""
    if issubclass(contender.learner, RecalibratedLearner):
        return contender
    return replace(contender, learner=RecalibratedLearner)


@dataclass(frozen=True)
class Baseline:
    """
    A hand-designed optimizer whose learning rate has to be tuned.

    Args:
        name (`str`): In tables and plots.
        make (`Callable`): `(parameters, learning_rate) -> optimizer`.
        cosine (`bool`, *optional*, defaults to `False`):
            Whether the learning rate falls to zero along a half cosine over the run; constant otherwise.
        head_only (`bool`, *optional*, defaults to `False`): Whether only the head is trained (paper, fig. 3).
        learning_rates (`tuple[float, ...]`, *optional*): What is searched.
        package (`str`, *optional*): The package that it comes from where that is not torch; its version is recorded.
        learner (`type`, *optional*): As of [`Contender`].
        passes (`int`, *optional*, defaults to 1): As of [`Contender`].
    """

    name: str
    make: Callable[[list[nn.Parameter], float], torch.optim.Optimizer]
    cosine: bool = False
    head_only: bool = False
    learning_rates: tuple[float, ...] = ADAPTIVE_RATES
    package: str | None = None
    learner: type[ModelLearner] = ModelLearner
    passes: int = 1

    def at(self, learning_rate: float) -> Contender:
        """Returns the baseline with this learning rate."""

        def build(model: nn.Module, num_training_steps: int) -> Built:
            optimizer = self.make(_parameters(model, self.head_only), learning_rate)
            if not self.cosine:
                return optimizer, None
            schedule = LambdaLR(optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * step / num_training_steps)))
            return optimizer, schedule

        return Contender(self.name, build, learning_rate, self.identity, learner=self.learner, passes=self.passes)

    def example(self) -> torch.optim.Optimizer:
        """Returns an optimizer of a parameter of its own, at the first learning rate."""
        return self.make([nn.Parameter(torch.zeros(1, 1))], self.learning_rates[0])

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What its runs depend on beside name and learning rate, such as decays, as plain JSON values."""
        optimizer = self.example()
        settings = {name: value for name, value in optimizer.defaults.items() if name != "lr"}
        kind = f"{type(optimizer).__module__}.{type(optimizer).__qualname__}"
        identity = {"class": kind, **settings, "cosine": self.cosine, "head_only": self.head_only}
        if self.package is not None:
            identity["version"] = installed_version(self.package)
        if self.passes > 1:  # rows of a single pass were measured before there were more
            identity["passes"] = self.passes
        return identity


def _parameters(model: nn.Module, head_only: bool) -> list[nn.Parameter]:
    named = named_trainable_parameters(model)
    if not head_only:
        return [parameter for _, parameter in named]
    roles = {layer.name: layer.role for layer in describe_layers(named)}
    return [parameter for name, parameter in named if roles[name].startswith("head.")]


def _torch(kind: Any, **settings: Any) -> Callable[[list[nn.Parameter], float], torch.optim.Optimizer]:
    return lambda parameters, learning_rate: kind(parameters, lr=learning_rate, **settings)


_ALL = (
    Baseline("Adam constant", _torch(torch.optim.Adam)),
    Baseline("Adam cosine", _torch(torch.optim.Adam), cosine=True),
    Baseline("Adam at 1e-3", _torch(torch.optim.Adam), learning_rates=(1e-3,)),
    Baseline("Adam constant, head only", _torch(torch.optim.Adam), head_only=True),
    Baseline("Adam cosine, head only", _torch(torch.optim.Adam), cosine=True, head_only=True),
    Baseline("AdamW cosine", _torch(torch.optim.AdamW, weight_decay=0.01), cosine=True),
    Baseline("SGD constant", _torch(torch.optim.SGD, momentum=0.9), learning_rates=SGD_RATES),
    Baseline("SGD cosine", _torch(torch.optim.SGD, momentum=0.9), cosine=True, learning_rates=SGD_RATES),
    Baseline("Schedule-free AdamW", schedule_free_adamw, package="schedulefree", learner=ScheduleFreeLearner),
)

BASELINES: dict[str, Baseline] = {baseline.name: baseline for baseline in _ALL}


def select_baselines(names: Sequence[str]) -> list[Baseline]:
    """
    Returns baselines by name.

    Raises:
        ConfigError: If a name is unknown, or the package of a baseline is not installed.
    """
    unknown = [name for name in names if name not in BASELINES]
    if unknown:
        raise ConfigError(f"Unknown baselines {', '.join(unknown)}; known are {', '.join(BASELINES)}.")
    baselines = [BASELINES[name] for name in names]
    for baseline in baselines:
        baseline.example()  # what is not installed is found out now
    return baselines


def l3rs_contender(network: L3RSNetwork, name: str = "L3RS") -> Contender:
    """Returns an L3RS as it ships, with nothing tuned and gradients clipped as in its meta-training."""

    def build(model: nn.Module, num_training_steps: int) -> Built:
        named = named_trainable_parameters(model)
        return LearnedOptimizer(
            named, network=network, num_training_steps=num_training_steps, synchronize_loss=False, quiet=True
        ), None

    identity = {"fingerprint": network.fingerprint(), "max_grad_norm": network.config.max_grad_norm}
    return Contender(name, build, identity=identity, max_grad_norm=network.config.max_grad_norm)
