"""The hand-designed optimizers that an L3RS is measured against, each with the learning rates that are searched."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import nn
from torch.nn.utils import skip_init
from torch.optim.lr_scheduler import LRScheduler

from hf_l3rs.errors import ConfigError
from hf_l3rs.evaluation import rivals
from hf_l3rs.evaluation.averaged import AveragedLearner
from hf_l3rs.evaluation.combined import atmo, muon_beside_adam
from hf_l3rs.evaluation.manifest import installed_version
from hf_l3rs.evaluation.recalibration import RecalibratedLearner
from hf_l3rs.evaluation.schedule_free import ScheduleFreeLearner
from hf_l3rs.evaluation.schedules import make_scheduler
from hf_l3rs.evaluation.trained_part import TrainedPart
from hf_l3rs.hub.results import OPTIMIZER_NAME
from hf_l3rs.optimizer.network import L3RSNetwork
from hf_l3rs.tasks.inner_loop import ModelLearner, inner_optimizer
from hf_l3rs.validation import list_choices


# Eleven rates over two and a half decades, about a factor 1.8 apart.
ADAPTIVE_RATES = (1e-4, 2e-4, 4e-4, 7e-4, 1.2e-3, 2e-3, 3.5e-3, 6e-3, 1e-2, 1.8e-2, 3e-2)
SGD_RATES = tuple(rate * 10 for rate in ADAPTIVE_RATES)
MUON_RATES = tuple(rate * 3 for rate in ADAPTIVE_RATES)
ATMO_RATES = tuple(rate * 2 for rate in ADAPTIVE_RATES)  # of which Adam has half

# An L3RS that is evaluated as those rivals are whose authors ask for statistics of batch norm that are taken again.
RECALIBRATED = f"{OPTIMIZER_NAME}, recalibrated"

# Share of the steps over which the learning rate rises, before it falls linearly.
WARMUP = 0.1

# Learning rate of the head in that of the trunk, where both are tried together.
HEAD_RATIO = 10.0

Built = tuple[torch.optim.Optimizer, LRScheduler | None]
Make = Callable[[TrainedPart, float], torch.optim.Optimizer]


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


def is_recalibrated(rival: Contender | Baseline) -> bool:
    """Whether batch norm's statistics are taken again before its evaluations, as its authors ask."""
    return issubclass(rival.learner, RecalibratedLearner)


def recalibrated(contender: Contender) -> Contender:
    """Returns the contender with batch norm's statistics taken again before evaluations, if it is not so anyway."""
    if is_recalibrated(contender):
        return contender
    if contender.learner is ModelLearner:
        return replace(contender, learner=RecalibratedLearner)
    # what the learner does beside that, such as averaging, it goes on doing
    bases = (RecalibratedLearner, contender.learner)
    return replace(contender, learner=type(f"Recalibrated{contender.learner.__name__}", bases, {}))


@dataclass(frozen=True)
class Baseline:
    """
    A hand-designed optimizer, whose learning rate has to be tuned unless a single one is named.

    Args:
        name (`str`): In tables and plots.
        make (`Callable`): `(trained_part, learning_rate) -> optimizer`.
        schedule (`str`, *optional*, defaults to `"constant"`):
            How the learning rate goes over the run: any of [`~hf_l3rs.evaluation.schedules.SCHEDULES`].
        warmup (`float`, *optional*, defaults to 0.0): Share of the steps over which it rises before that.
        head_only (`bool`, *optional*, defaults to `False`): Whether only the head is trained (paper, fig. 3).
        head_ratio (`float`, *optional*, defaults to 1.0): Learning rate of the head, in that of the rest.
        learning_rates (`tuple[float, ...]`, *optional*): What is searched; one for what needs no tuning.
        package (`str`, *optional*): The package that it comes from where that is not torch; its version is recorded.
        max_grad_norm (`float`, *optional*): As of [`Contender`].
        learner (`type`, *optional*): As of [`Contender`].
        passes (`int`, *optional*, defaults to 1): As of [`Contender`].
    """

    name: str
    make: Make
    schedule: str = "constant"
    warmup: float = 0.0
    head_only: bool = False
    head_ratio: float = 1.0
    learning_rates: tuple[float, ...] = ADAPTIVE_RATES
    package: str | None = None
    max_grad_norm: float | None = None
    learner: type[ModelLearner] = ModelLearner
    passes: int = 1

    @property
    def is_tuning_free(self) -> bool:
        """Whether it takes part with one learning rate, its authors' or users' default."""
        return len(self.learning_rates) == 1

    def at(self, learning_rate: float) -> Contender:
        """Returns the baseline with this learning rate."""

        def build(model: nn.Module, num_training_steps: int) -> Built:
            optimizer = self.make(TrainedPart(model, self.head_only, self.head_ratio), learning_rate)
            return optimizer, make_scheduler(optimizer, self.schedule, num_training_steps, self.warmup)

        return Contender(
            self.name, build, learning_rate, self.identity, self.max_grad_norm, self.learner, passes=self.passes
        )

    def example(self) -> torch.optim.Optimizer:
        """Returns an optimizer of a layer of its own, at the first learning rate."""
        return self.make(TrainedPart(skip_init(nn.Linear, 1, 1)), self.learning_rates[0])  # draws no random number

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What its runs depend on beside name and learning rate, such as decays, as plain JSON values."""
        optimizer = self.example()
        settings = {
            name: str(value) if value == math.inf else value  # JSON has no infinity
            for name, value in optimizer.defaults.items()
            if name != "lr"
        }
        kind = f"{type(optimizer).__module__}.{type(optimizer).__qualname__}"
        younger = {  # than rows that were measured without them, and are known by the rest
            "schedule": self.schedule if self.schedule not in ("constant", "cosine") else None,
            "warmup": self.warmup,
            "head_ratio": self.head_ratio if self.head_ratio != 1 else None,
            "max_grad_norm": self.max_grad_norm,
            "passes": self.passes if self.passes > 1 else None,
        }
        return {
            "class": kind,
            **settings,
            "cosine": self.schedule == "cosine",
            "head_only": self.head_only,
            **({} if self.package is None else {"version": installed_version(self.package)}),
            **{name: value for name, value in younger.items() if value},
        }


def _torch(kind: Any, **settings: Any) -> Make:
    return lambda part, learning_rate: kind(part.groups(learning_rate), lr=learning_rate, **settings)


def _scheduled(baseline: Baseline, *parts: str) -> Iterator[Baseline]:
    """A baseline with each schedule, of each part of the model that is trained."""
    of_part: dict[str, dict[str, Any]] = {
        "": {},
        ", head only": {"head_only": True},
        ", head 10x": {"head_ratio": HEAD_RATIO},
    }
    for part in parts:
        for schedule, warmup in (("constant", 0.0), ("cosine", 0.0), ("linear", WARMUP)):
            name = f"{baseline.name} {schedule}{part}"
            yield replace(baseline, name=name, schedule=schedule, warmup=warmup, **of_part[part])


_ADAM = _torch(torch.optim.Adam)
_LARGE_BATCH = rivals.lamb.package

# The same search for all of them.
_TUNED = (
    *_scheduled(Baseline("Adam", _ADAM), "", ", head only", ", head 10x"),
    *_scheduled(Baseline("AdamW", _torch(torch.optim.AdamW, weight_decay=0.01)), "", ", head only"),
    *_scheduled(Baseline("SGD", _torch(torch.optim.SGD, momentum=0.9), learning_rates=SGD_RATES), "", ", head only"),
    *_scheduled(Baseline("Muon", muon_beside_adam, learning_rates=MUON_RATES), ""),  # a head has nothing for it
    *_scheduled(Baseline("LAMB", rivals.lamb, package=_LARGE_BATCH), "", ", head only"),
    *_scheduled(Baseline("LARS", rivals.lars, package=_LARGE_BATCH, learning_rates=SGD_RATES), "", ", head only"),
    *_scheduled(Baseline("ATMO", atmo, learning_rates=ATMO_RATES), "", ", head only"),
)
_SCHEDULE_FREE = Baseline(
    "Schedule-free AdamW",
    rivals.schedule_free_adamw,
    package=rivals.schedule_free_adamw.package,
    learner=ScheduleFreeLearner,
)
# With the schedule that their authors recommend.
_TUNING_FREE = (
    Baseline("Adam at 1e-3", _ADAM, learning_rates=(1e-3,)),
    Baseline(
        "Trainer's default",  # of transformers.TrainingArguments
        _torch(torch.optim.AdamW, weight_decay=0.0),
        schedule="linear",
        max_grad_norm=1.0,
        learning_rates=(5e-5,),
    ),
    replace(_SCHEDULE_FREE, name="Schedule-free AdamW at 2.5e-3", learning_rates=(2.5e-3,)),
    Baseline("Prodigy", rivals.prodigy, schedule="cosine", package=rivals.prodigy.package, learning_rates=(1.0,)),
    Baseline("LDoG", rivals.ldog, package=rivals.DOG_PACKAGE, learner=AveragedLearner, learning_rates=(1.0,)),
    Baseline(
        "DAdaptAdam",
        rivals.d_adapt_adam,
        schedule="cosine",
        package=rivals.d_adapt_adam.package,
        learning_rates=(1.0,),
    ),
)

BASELINES: dict[str, Baseline] = {
    baseline.name: baseline
    for baseline in (
        *_TUNED,
        _SCHEDULE_FREE,
        replace(_SCHEDULE_FREE, name="Schedule-free AdamW, head only", head_only=True),
        *_TUNING_FREE,
    )
}


def is_tuning_free(optimizer: str) -> bool:
    """Returns whether rows of this name are of a baseline that needs no tuning."""
    return optimizer in BASELINES and BASELINES[optimizer].is_tuning_free


def select_baselines(names: Sequence[str]) -> list[Baseline]:
    """
    Returns baselines by name.

    Raises:
        ConfigError: If a name is unknown, or the package of a baseline is not installed.
    """
    for name in names:
        if name not in BASELINES:
            raise ConfigError(f"Baselines must be one of {list_choices(BASELINES, name)}, got {name!r}.")
    baselines = [BASELINES[name] for name in names]
    for baseline in baselines:
        baseline.example()  # what is not installed is found out now
    return baselines


def l3rs_contender(network: L3RSNetwork, name: str = OPTIMIZER_NAME) -> Contender:
    """Returns an L3RS as it ships, with nothing tuned and gradients clipped as in its meta-training."""

    def build(model: nn.Module, num_training_steps: int) -> Built:
        return inner_optimizer(model, network, num_training_steps), None

    identity = {"fingerprint": network.fingerprint(), "max_grad_norm": network.config.max_grad_norm}
    return Contender(name, build, identity=identity, max_grad_norm=network.config.max_grad_norm)
