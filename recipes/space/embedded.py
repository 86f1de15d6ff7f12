"""What the app has at hand without a network: released L3RSs, base models, tasks, searched learning rates."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache, lru_cache

from torch import nn

from hf_l3rs import L3RSArtifact, L3RSConfig, L3RSNetwork
from hf_l3rs.errors import BindingError, ConfigError
from hf_l3rs.evaluation.benchmark import draw_task
from hf_l3rs.hub.artifact import released_names
from hf_l3rs.optimizer.fit import MINIMUM_FIT, Fit, measure_fit
from hf_l3rs.optimizer.layers import describe_layers, named_trainable_parameters
from hf_l3rs.tasks.distribution import Task, TaskDistribution
from hf_l3rs.validation import Range
from recipes.demo import SEED, embedded_tasks, searched_rates


# The embedded models as people know them, and as files call them.
MODELS = {"ResNet": "resnet", "ViT": "vit"}

# What the sliders allow. A run of the longest takes some ten seconds of one core.
HORIZONS = Range(low=5, high=100)
TASKS = Range(low=1, high=16)
DEFAULT_HORIZON = 20

# Test images of an evaluation: enough for a smooth curve, few enough for seconds.
EVALUATION_SIZE = 1000


@dataclass(frozen=True)
class Stage:
    """
    An embedded model with what is needed to fine-tune it.

    Args:
        model (`nn.Module`): Its state is overwritten by every run.
        tasks ([`~hf_l3rs.tasks.distribution.TaskDistribution`]): On images that no released L3RS saw.
        rates (`dict[str, dict[int, float]]`): What a search found on validation tasks, by optimizer and horizon.
    """

    model: nn.Module
    tasks: TaskDistribution
    rates: dict[str, dict[int, float]]

    def draw(self, number: int, horizon: int) -> Task:
        """
        Returns an unseen task: two new heads and other batches are two tasks.

        Args:
            number (`int`): From 1; tasks of README's tables.
            horizon (`int`): Steps of the run.

        Raises:
            ConfigError: If one of the two is out of its range.
        """
        for name, value, allowed in (("task", number, TASKS), ("horizon", horizon, HORIZONS)):
            if not isinstance(value, int) or value not in allowed:
                raise ConfigError(f"The {name} must be a whole number in {allowed}, got {value!r}.")
        return draw_task(self.tasks, SEED, number - 1, horizon)

    def rate(self, optimizer: str, horizon: int) -> float:
        """Returns the learning rate that was best in runs of the nearest length that was searched."""
        searched = self.rates[optimizer]
        return searched[min(searched, key=lambda steps: abs(math.log(steps / horizon)))]


@cache
def load_stage(model: str) -> Stage:
    """
    Loads an embedded model and its tasks, once; seconds.

    Args:
        model (`str`): A key of MODELS.

    Raises:
        ConfigError: If it is none.
    """
    if model not in MODELS:
        raise ConfigError(f"The model must be one of {', '.join(MODELS)}, got {model!r}.")
    setup = embedded_tasks(MODELS[model], EVALUATION_SIZE)
    return Stage(setup.model, setup.tasks, searched_rates(MODELS[model]))


@lru_cache(maxsize=8)
def load_network(l3rs: str) -> L3RSNetwork:
    """Loads an L3RS by the name of a released one, from a folder, or by a Hub id."""
    return L3RSArtifact.from_pretrained(l3rs).network


def model_of(config: L3RSConfig, otherwise: str) -> str:
    """Returns the embedded model that an L3RS is made for; `otherwise` if that is none of them, or it is for all."""
    fitting = [name for name in MODELS if _fit(config, load_stage(name).model).share >= MINIMUM_FIT]
    return otherwise if otherwise in fitting or not fitting else fitting[0]


@cache
def offered() -> list[str]:
    """Returns the released L3RSs that fit an embedded model, those that were made for one of them first."""
    fits = {}
    for name in released_names():
        config = load_network(name).config
        fits[name] = sum(_fit(config, load_stage(model).model).share >= MINIMUM_FIT for model in MODELS)
    return sorted((name for name, count in fits.items() if count), key=lambda name: fits[name])


def _fit(config: L3RSConfig, model: nn.Module) -> Fit:
    return measure_fit(describe_layers(named_trainable_parameters(model)), config)


def horizon_of(config: L3RSConfig) -> int:
    """Returns the longest run that an L3RS was meta-trained for, as far as the app goes."""
    longest = config.num_training_steps or DEFAULT_HORIZON
    return max(int(HORIZONS.low or 1), min(longest, int(HORIZONS.high or longest)))


def check_fit(config: L3RSConfig, model: nn.Module) -> None:
    """
    Refuses an L3RS that is not made for a model, as the optimizer does.

    Raises:
        BindingError: If it knows less than half of the model's parameters.
    """
    fit = _fit(config, model)
    if fit.share < MINIMUM_FIT:
        raise BindingError(
            f"This L3RS {fit.describe()}, and so is not made for this model; choose the model that it was made for, "
            "or an L3RS for any model, such as l3rs-universal-start."
        )
