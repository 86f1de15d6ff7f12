"""What the app runs, without a network: an L3RS watched over a fine-tuning run, and its race against Adam."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache, lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pandas as pd
from PIL import Image
from torch import nn

from hf_l3rs import L3RSArtifact, L3RSConfig, L3RSNetwork
from hf_l3rs.errors import ConfigError
from hf_l3rs.evaluation.baselines import BASELINES, Contender, l3rs_contender
from hf_l3rs.evaluation.benchmark import draw_task, measure
from hf_l3rs.hub.artifact import released_names
from hf_l3rs.markdown import markdown_table
from hf_l3rs.optimizer.fit import MINIMUM_FIT, Fit, measure_fit, refuse_misfit
from hf_l3rs.optimizer.layers import describe_layers, named_trainable_parameters
from hf_l3rs.tasks.distribution import Task, TaskDistribution
from hf_l3rs.validation import Range
from recipes.demo import SEED, embedded_tasks, searched_rates
from recipes.trajectories import describe_behaviour, directions_of, plot_trajectories, record_trajectory


# The embedded models as people know them, and as files call them.
MODELS = {"ResNet": "resnet", "ViT": "vit"}

# What the sliders allow. A run of the longest takes some ten seconds of one core.
HORIZONS, TASKS = Range(low=5, high=100), Range(low=1, high=16)

# Test images of an evaluation, and evaluations along a run: enough for a smooth curve, few enough for seconds.
EVALUATION_SIZE, NUM_EVALUATIONS = 1000, 12

UNTUNED, TUNED = "Adam at 1e-3", "Adam cosine"


class Stage(NamedTuple):
    """An embedded model, tasks on images that no released L3RS saw, and Adam's searched rates by length of run."""

    model: nn.Module
    tasks: TaskDistribution
    rates: dict[int, float]


@cache
def load_stage(model: str) -> Stage:
    """Loads an embedded model, a key of MODELS, and its tasks; seconds."""
    if model not in MODELS:
        raise ConfigError(f"The model must be one of {', '.join(MODELS)}, got {model!r}.")
    setup = embedded_tasks(MODELS[model], EVALUATION_SIZE)
    return Stage(setup.model, setup.tasks, searched_rates(MODELS[model])[TUNED])


@lru_cache(maxsize=8)
def load_network(l3rs: str) -> L3RSNetwork:
    """Loads an L3RS by the name of a released one, from a folder, or by a Hub id."""
    return L3RSArtifact.from_pretrained(l3rs).network


def fitting_models(config: L3RSConfig) -> list[str]:
    """Returns the embedded models that an L3RS can fine-tune."""
    return [name for name in MODELS if _fit(config, load_stage(name).model).share >= MINIMUM_FIT]


def _fit(config: L3RSConfig, model: nn.Module) -> Fit:
    return measure_fit(describe_layers(named_trainable_parameters(model)), config)


@cache
def offered() -> dict[str, str]:
    """Returns each released L3RS that fits an embedded model, with that model; those made for one of them first."""
    fitting = {name: fitting_models(load_network(name).config) for name in released_names()}
    return {name: fitting[name][0] for name in sorted(fitting, key=lambda name: len(fitting[name])) if fitting[name]}


def prepare(l3rs: str, model: str, horizon: int, task: int) -> tuple[L3RSNetwork, Stage, Task]:
    """Returns what a run needs. Another number of a task is another new head, other batches and other test images."""
    for name, value, allowed in (("task", task, TASKS), ("horizon", horizon, HORIZONS)):
        if not isinstance(value, int) or value not in allowed:
            raise ConfigError(f"The {name} must be a whole number in {allowed}, got {value!r}.")
    network, stage = load_network(l3rs), load_stage(model)
    refuse_misfit(_fit(network.config, stage.model), MINIMUM_FIT)
    return network, stage, draw_task(stage.tasks, SEED, task - 1, horizon)


@lru_cache(maxsize=16)
def look(l3rs: str, model: str, horizon: int, task: int) -> tuple[Image.Image, str]:
    """Returns the picture of λ and μ of every layer over a run, and what it shows in words; about two seconds."""
    network, stage, drawn = prepare(l3rs, model, horizon, task)
    table = record_trajectory(stage.model, network, drawn)
    *shown, last = directions_of(table)
    text = f"The base step is {network.config.base_step:g} per element. {describe_behaviour(table)}"
    text += f" What is left of 1 beside {' and '.join(shown)} is the share of {last}." if shown else ""
    with TemporaryDirectory() as folder:
        path = Path(folder, "trajectories.png")
        plot_trajectories(table, path, f"{Path(l3rs).name} on the {model}, a run of {horizon} steps")
        with Image.open(path) as image:
            image.load()
    return image, text


def race(l3rs: str, model: str, horizon: int, task: int) -> Iterator[tuple[pd.DataFrame, str]]:
    """
    Fine-tunes with the L3RS, with Adam as it comes, and with Adam at the rate that was best in runs of about this
    length: same new head, same batches, same test images. Yields after each the curves (`step`, `loss`, `optimizer`)
    and a table of the ends, the best first.
    """
    network, stage, drawn = prepare(l3rs, model, horizon, task)
    rate = stage.rates[min(stage.rates, key=lambda steps: abs(math.log(steps / horizon)))]
    contenders: dict[str, Contender] = {
        "L3RS": l3rs_contender(network),
        UNTUNED: BASELINES[UNTUNED].at(1e-3),
        f"{TUNED}, {rate:g}": BASELINES[TUNED].at(rate),
    }
    rows, ends = [], []
    for name, contender in contenders.items():
        evaluations = measure(stage.model, contender, drawn, range(0, horizon, math.ceil(horizon / NUM_EVALUATIONS)))
        rows += [(step, each.loss, name) for step, each in evaluations.items() if each.loss < math.inf]
        loss, accuracy = evaluations[horizon]
        ends.append((loss, name, "diverged" if math.isinf(loss) else f"{loss:.3f}", f"{100 * accuracy:.1f} %"))
        lines = [line for _, *line in sorted(ends)]
        table = markdown_table((f"after {horizon} steps", "test loss", "accuracy"), lines, ("left", "right", "right"))
        yield pd.DataFrame(rows, columns=["step", "loss", "optimizer"]), table
