"""The hand-designed optimizers that an L3RS is measured against, each with the learning rates that are searched."""

from __future__ import annotations

import math
import pkgutil
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import nn
from torch.nn.utils import skip_init
from torch.optim.lr_scheduler import LRScheduler

from hf_l3rs.errors import ConfigError, reason
from hf_l3rs.evaluation.rivals import PROBE_L2, ScheduleFreeLearner, muon_beside_adam, schedule_free_adamw
from hf_l3rs.hub.results import OPTIMIZER_NAME
from hf_l3rs.optimizer.layers import named_trainable_parameters
from hf_l3rs.optimizer.network import L3RSNetwork
from hf_l3rs.tasks.inner_loop import ModelLearner, inner_optimizer
from hf_l3rs.validation import list_choices, short


# Eleven rates over two and a half decades, about a factor 1.8 apart.
ADAPTIVE_RATES = (1e-4, 2e-4, 4e-4, 7e-4, 1.2e-3, 2e-3, 3.5e-3, 6e-3, 1e-2, 1.8e-2, 3e-2)
SGD_RATES = tuple(rate * 10 for rate in ADAPTIVE_RATES)
MUON_RATES = tuple(rate * 3 for rate in ADAPTIVE_RATES)

SCHEDULES = ("constant", "cosine", "linear")  # of `transformers.get_scheduler`, without warm-up

Built = tuple[torch.optim.Optimizer, LRScheduler | None]
Make = Callable[[nn.Module, float], torch.optim.Optimizer]

_DOTTED = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")


@dataclass(frozen=True)
class Contender:
    """
    An optimizer that takes part in a comparison.

    Args:
        name (`str`): In tables and plots.
        build (`Callable`, *optional*):
            `(model, num_training_steps) -> (optimizer, scheduler or None)`, both fresh. `None` takes no step at all.
        learning_rate (`float`, *optional*): For the record.
        identity (`Mapping`, *optional*):
            What its runs depend on beside name and learning rate, as plain JSON values: rows of contenders of one name
            but different identities are never mixed.
        max_grad_norm (`float`, *optional*): Global gradient norm to clip to.
        learner (`type`, *optional*, defaults to [`~hf_l3rs.tasks.inner_loop.ModelLearner`]):
            Trains the model with the optimizer; another one for optimizers that ask for more than a step.
        starts_at_probe (`bool`, *optional*, defaults to `False`):
            Whether the head is a linear probe of the run's own images before the first step.
    """

    name: str
    build: Callable[[nn.Module, int], Built] | None
    learning_rate: float | None = None
    identity: Mapping[str, Any] = field(default_factory=dict, hash=False)
    max_grad_norm: float | None = None
    learner: type[ModelLearner] = ModelLearner
    starts_at_probe: bool = False


@dataclass(frozen=True)
class Baseline:
    """
    A hand-designed optimizer, whose learning rate is searched unless there is a single one or none. One of your own,
    in `my_rivals.py`, is measured by `baselines: [my_rivals.adamax]` in the settings of an evaluation:

    ```python
    adamax = Baseline("Adamax cosine", lambda model, rate: torch.optim.Adamax(model.parameters(), lr=rate), "cosine")
    ```
    """

    name: str  # in tables and plots
    make: Make | None  # `(model, learning_rate) -> optimizer`; `None` takes no step
    schedule: str = "constant"  # how the learning rate goes over the run: one of SCHEDULES
    learning_rates: tuple[float, ...] = ADAPTIVE_RATES
    package: str | None = None  # where it comes from if that is not torch; its version is recorded
    max_grad_norm: float | None = None  # this and the following are those of [`Contender`]
    learner: type[ModelLearner] = ModelLearner
    starts_at_probe: bool = False

    @property
    def is_tuning_free(self) -> bool:
        """Whether it takes part with one learning rate, its authors' or users' default, or with none."""
        return len(self.learning_rates) <= 1

    def at(self, learning_rate: float | None) -> Contender:
        """Returns the baseline with this learning rate."""

        def build(model: nn.Module, num_training_steps: int) -> Built:
            from transformers import get_scheduler

            optimizer = self._optimizer(model, learning_rate)
            if self.schedule == "constant":
                return optimizer, None
            return optimizer, get_scheduler(self.schedule, optimizer, 0, num_training_steps)

        options = (self.max_grad_norm, self.learner, self.starts_at_probe)
        return Contender(self.name, build if self.make else None, learning_rate, self.identity, *options)

    def _optimizer(self, model: nn.Module, learning_rate: float | None) -> torch.optim.Optimizer:
        """A fresh optimizer, or an error that says whose it is."""
        try:
            optimizer = self.make(model, learning_rate)  # type: ignore[misc, arg-type]
            if not isinstance(optimizer, torch.optim.Optimizer):
                raise TypeError(f"it gives {short(optimizer)}")
            return optimizer
        except TypeError as error:
            raise ConfigError(
                f"The baseline {self.name} makes no torch.optim.Optimizer of (parameters, lr=...): {reason(error)}; "
                "give a class or function that does, or a Baseline."
            ) from error

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What its runs depend on beside name and learning rate, such as decays, as plain JSON values."""
        probe = {"probe_l2": PROBE_L2} if self.starts_at_probe else {}
        if self.make is None:
            return probe
        optimizer = self._optimizer(skip_init(nn.Linear, 8, 8), self.learning_rates[0])  # draws no random number
        settings = {name: value for name, value in optimizer.defaults.items() if name != "lr"}
        return {
            "class": f"{type(optimizer).__module__}.{type(optimizer).__qualname__}",
            **{
                name: str(value) if value == math.inf else value for name, value in settings.items()
            },  # JSON has no infinity
            "schedule": self.schedule,
            "max_grad_norm": self.max_grad_norm,
            **({} if self.package is None else {"version": installed_version(self.package)}),
            **probe,
        }


def of_parameters(kind: Callable[..., torch.optim.Optimizer], **settings: Any) -> Make:
    """Returns what makes optimizers of a class of torch's form, of all parameters that are trained."""
    return lambda model, rate: kind([each for _, each in named_trainable_parameters(model)], lr=rate, **settings)


_ADAM = of_parameters(torch.optim.Adam)
_ADAMW = of_parameters(torch.optim.AdamW, weight_decay=0.01)
_TRAINER = of_parameters(torch.optim.AdamW, weight_decay=0.0)  # of transformers.TrainingArguments
_SGD = of_parameters(torch.optim.SGD, momentum=0.9)
_FREE = Baseline("Schedule-free AdamW", schedule_free_adamw, package="schedulefree", learner=ScheduleFreeLearner)
_ALL = (
    *(Baseline(f"Adam {schedule}", _ADAM, schedule) for schedule in SCHEDULES),
    *(Baseline(f"AdamW {schedule}", _ADAMW, schedule) for schedule in SCHEDULES),
    *(Baseline(f"SGD {schedule}", _SGD, schedule, SGD_RATES) for schedule in SCHEDULES),
    *(Baseline(f"Muon {schedule}", muon_beside_adam, schedule, MUON_RATES) for schedule in SCHEDULES),
    _FREE,
    Baseline("LP-FT", _ADAMW, "cosine", starts_at_probe=True),
    Baseline("Linear probe", None, learning_rates=(), starts_at_probe=True),
    Baseline("Adam at 1e-3", _ADAM, learning_rates=(1e-3,)),
    Baseline("Trainer's default", _TRAINER, "linear", learning_rates=(5e-5,), max_grad_norm=1.0),
    replace(_FREE, name="Schedule-free AdamW at 2.5e-3", learning_rates=(2.5e-3,)),
)
BASELINES: dict[str, Baseline] = {baseline.name: baseline for baseline in _ALL}


def check_baseline_name(name: str) -> None:
    """Checks that a name can be one of a baseline, without importing anything."""
    if name not in BASELINES and not _DOTTED.fullmatch(name):
        raise ConfigError(
            f"Baselines must be among {list_choices(BASELINES, name)}, or the dotted path of one of your own, such as "
            f"torch.optim.RAdam; got {name!r}."
        )


def select_baselines(names: Sequence[str]) -> list[Baseline]:
    """Returns baselines by name, as [`find_baseline`] does, and checks that their packages are installed."""
    baselines = [find_baseline(name) for name in names]
    for name, count in Counter(each.name for each in baselines).items():
        if count > 1:
            raise ConfigError(f"Two baselines have the name {name!r}; give one of them another name.")
    for baseline in baselines:
        _ = baseline.identity  # what is not installed is found out now
    return baselines


def find_baseline(name: str) -> Baseline:
    """
    Returns a baseline by name: a key of BASELINES, or the dotted path of a [`Baseline`] or of a class or function that
    is called as `kind(parameters, lr=learning_rate)`, whose learning rate is searched as Adam's.
    """
    check_baseline_name(name)
    if name in BASELINES:
        return BASELINES[name]
    try:
        found = pkgutil.resolve_name(name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"The baseline {name} cannot be imported ({reason(error)}); install its package, or set PYTHONPATH to the "
            "folder of its module."
        ) from error
    return found if isinstance(found, Baseline) else Baseline(name, of_parameters(found))


def is_tuning_free(optimizer: str) -> bool:
    """Returns whether rows of this name are of a baseline that needs no tuning."""
    return optimizer in BASELINES and BASELINES[optimizer].is_tuning_free


def installed_version(package: str) -> str | None:
    """Returns the version of a package, or `None` where it runs from a source tree that was never installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def l3rs_contender(network: L3RSNetwork, name: str = OPTIMIZER_NAME) -> Contender:
    """Returns an L3RS as it ships, with nothing tuned and gradients clipped as in its meta-training."""
    norm = network.config.max_grad_norm
    identity = {"fingerprint": network.fingerprint(), "max_grad_norm": norm}
    return Contender(
        name, lambda model, steps: (inner_optimizer(model, network, steps), None), None, identity, max_grad_norm=norm
    )
