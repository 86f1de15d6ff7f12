"""Tasks to fine-tune on: what they are, how they are drawn, and how their distribution is built from settings."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import combinations
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn

from hf_l3rs.errors import ConfigError, DataError
from hf_l3rs.tasks.images import load_image_processor, open_image_pool
from hf_l3rs.tasks.model import InitialStates, State, freeze, load_image_classifier, resolved_commit
from hf_l3rs.tasks.pools import Batch, Images, StreamedImagePool, Transform, View, derive_seed, generator
from hf_l3rs.tasks.seen_data import splits_overlap
from hf_l3rs.tasks.task_arguments import SHARES, DatasetArguments, ModelArguments, TaskArguments


if TYPE_CHECKING:
    from transformers.image_processing_utils import BaseImageProcessor

logger = logging.getLogger(__name__)

EVALUATION_BATCH_SIZE = 256  # images of one forward pass; it bounds the memory, and changes only the rounding
GOLDEN_RATIO = (math.sqrt(5) - 1) / 2  # its multiples modulo 1 are spread evenly over [0, 1)


class Task(NamedTuple):
    """T = (θ0, the K training batches, the evaluation set). The model's own weights are not θ0."""

    source: str  # name of the data set
    seed: int  # everything random in the task, dropout included, is derived from it
    initial_state: State  # θ0
    batches: Sequence[Batch]  # at least K
    evaluation: Sequence[Batch]  # the evaluation set, in parts that fit the memory
    num_training_steps: int  # the horizon K
    num_classes: int
    model: nn.Module  # what is fine-tuned; its weights may be overwritten


@dataclass(frozen=True)
class Horizon:
    """How many steps K tasks have: log-uniform from `minimum` to `maximum`."""

    minimum: int
    maximum: int
    spread: bool = False  # the tasks of a generation evenly over that range, so that none has short runs only

    def __post_init__(self) -> None:
        if not 1 <= self.minimum <= self.maximum:
            raise ConfigError(f"Horizons must satisfy 1 <= minimum <= maximum, got {self.minimum} and {self.maximum}.")

    def draw(self, seed: int, generation: int, pair: int, rng: torch.Generator) -> int:
        """Returns the K of one task, with one draw from `rng`, whatever the settings."""
        share = torch.rand((), generator=rng).item()
        if self.spread:
            start = torch.rand((), generator=generator(seed, "horizon", generation)).item()
            share = (start + pair * GOLDEN_RATIO) % 1
        return round(self.minimum * math.exp(math.log(self.maximum / self.minimum) * share))


@dataclass(frozen=True)
class TaskSource:
    """A data set that tasks are drawn from: training batches from one pool, evaluation sets from other images."""

    name: str
    batches: Images
    evaluation: Images

    @cached_property
    def class_ids(self) -> list[int]:
        """The pool labels of the classes that have images for both, sorted."""
        return sorted(set(self.batches.labels.unique().tolist()) & set(self.evaluation.labels.unique().tolist()))


class TaskDistribution:
    """Draws tasks of one model: data set, classes, θ0, one of the batch sizes, batches, evaluation set and horizon."""

    def __init__(
        self,
        sources: Sequence[TaskSource],
        initial_states: InitialStates,
        *,
        num_classes: int,
        batch_size: int | Sequence[int],
        evaluation_size: int,
        horizon: Horizon,
        augmentations: Sequence[str] = (),
    ) -> None:
        self.sources, self.initial_states = list(sources), initial_states
        self.num_classes, self.evaluation_size = num_classes, evaluation_size
        self.batch_sizes = (batch_size,) if isinstance(batch_size, int) else tuple(batch_size)
        self.horizon, self.augmentations = horizon, tuple(augmentations)
        for source in sources:
            self._check(source)

    @property
    def models(self) -> list[nn.Module]:
        return [self.initial_states.model]

    def draw(self, seed: int, generation: int, pair: int) -> Task:
        """Draws a task, which depends on the run's seed, meta-iteration and sample alone. No image is decoded."""
        task_seed = derive_seed(seed, "task", generation, pair)
        rng = generator(task_seed, "data")
        weights = torch.ones(len(self.sources), dtype=torch.float64)
        source = self.sources[int(torch.multinomial(weights, 1, generator=rng))]
        num_steps = self.horizon.draw(seed, generation, pair, rng)
        label_map, transform = self._draw_labels(source, rng), self._draw_transform(source, rng)
        # of a generator of its own, so that the number of sizes changes no other draw
        choice = torch.randint(len(self.batch_sizes), (), generator=generator(task_seed, "batch_size"))
        batch_size = self.batch_sizes[int(choice)]
        batches = _shuffled_batches(_rows(source.batches, label_map), batch_size * num_steps, batch_size, rng)
        held_out = _rows(source.evaluation, label_map)
        held_out = held_out[torch.randperm(len(held_out), generator=rng)[: self.evaluation_size]]
        return Task(
            source=source.name,
            seed=task_seed,
            initial_state=self.initial_states.draw(task_seed),
            batches=View(source.batches, batches.unbind(), label_map, transform),
            evaluation=View(source.evaluation, held_out.split(EVALUATION_BATCH_SIZE), label_map, transform),
            num_training_steps=num_steps,
            num_classes=self.num_classes,
            model=self.initial_states.model,
        )

    def with_horizon(self, horizon: Horizon) -> TaskDistribution:
        """Returns the same distribution with another horizon; images and initial states are shared."""
        twin = copy.copy(self)
        twin.horizon = horizon
        return twin

    def _draw_labels(self, source: TaskSource, rng: torch.Generator) -> torch.Tensor:
        """Which classes the task has and which label each gets; -1 for the classes it has not."""
        known = source.class_ids
        chosen = sorted(torch.randperm(len(known), generator=rng)[: self.num_classes].tolist())
        labels = torch.arange(self.num_classes)
        if "label_permutation" in self.augmentations:
            labels = labels[torch.randperm(self.num_classes, generator=rng)]
        label_map = torch.full((len(source.batches.class_names),), -1)
        label_map[torch.tensor([known[index] for index in chosen])] = labels
        return label_map

    def _draw_transform(self, source: TaskSource, rng: torch.Generator) -> Transform:
        """Draws all of them whatever is asked for, so that one augmentation does not change another's draw."""
        turns = int(torch.randint(4, (), generator=rng))
        inverted = bool(torch.randint(2, (), generator=rng))
        channels = tuple(torch.randperm(source.batches.num_channels, generator=rng).tolist())
        return Transform(
            quarter_turns=turns if "rotation" in self.augmentations else 0,
            inverted=inverted and "inversion" in self.augmentations,
            channels=channels if "channel_permutation" in self.augmentations else None,
        )

    def _check(self, source: TaskSource) -> None:
        batches, evaluation, known = source.batches, source.evaluation, source.class_ids
        if (batches.class_names, batches.num_channels) != (evaluation.class_names, evaluation.num_channels):
            raise DataError(
                f"Data set {source.name!r} has other classes or channels for evaluation than for batches; name splits "
                "of the same kind."
            )
        if len(known) < self.num_classes:
            raise DataError(
                f"Data set {source.name!r} has {len(known)} classes with training and evaluation images, but tasks "
                f"need {self.num_classes}; lower num_classes or choose other classes."
            )
        wanted = (("batches", batches, max(self.batch_sizes)), ("evaluation", evaluation, self.evaluation_size))
        for part, pool, needed in wanted:
            counts = torch.bincount(pool.labels, minlength=len(pool.class_names))[known]
            least = int(counts.sort().values[: self.num_classes].sum())
            if least < needed:
                raise DataError(
                    f"A task of {self.num_classes} classes of data set {source.name!r} may have only {least} images "
                    f"for {part}, but needs {needed}; lower the size or add images."
                )


def _rows(pool: Images, label_map: torch.Tensor) -> torch.Tensor:
    return (label_map[pool.labels] >= 0).nonzero().squeeze(1)


def _shuffled_batches(rows: torch.Tensor, num_images: int, batch_size: int, rng: torch.Generator) -> torch.Tensor:
    """Epochs of shuffled rows, as the Trainer's sampler makes them, of shape (num_images / batch_size, batch_size)."""
    num_epochs = -(-num_images // len(rows))
    epochs = [rows[torch.randperm(len(rows), generator=rng)] for _ in range(num_epochs)]
    return torch.cat(epochs)[:num_images].view(-1, batch_size)


class TaskMixture:
    """
    Distributions of several models, which take turns.

    Args:
        members (`Sequence[TaskDistribution]`): At least one; all of one horizon.
    """

    def __init__(self, members: Sequence[TaskDistribution]) -> None:
        if len({member.horizon for member in members}) != 1:
            raise ConfigError(
                "A mixture of tasks needs at least one distribution, and all of one horizon, got "
                f"{len(members)} distributions; give them the same horizon."
            )
        self.members = list(members)

    @property
    def models(self) -> list[nn.Module]:
        """The models that the tasks fine-tune, each once."""
        return list(dict.fromkeys(model for member in self.members for model in member.models))

    @property
    def horizon(self) -> Horizon:
        return self.members[0].horizon

    def draw(self, seed: int, generation: int, pair: int) -> Task:
        """As [`TaskDistribution.draw`]. Members take turns, and each generation begins with the next one."""
        return self.members[(generation + pair) % len(self.members)].draw(seed, generation, pair)

    def with_horizon(self, horizon: Horizon) -> TaskMixture:
        return TaskMixture([member.with_horizon(horizon) for member in self.members])


Tasks = TaskDistribution | TaskMixture  # what tasks are drawn from


class Setup(NamedTuple):
    """What [`build_tasks`] returns."""

    model: nn.Module  # the first
    tasks: Any  # a mixture if there are several models
    validation_tasks: Any  # of images that meta-training never sees


def build_tasks(model_args: ModelArguments, task_args: TaskArguments, seed: int) -> Setup:
    """
    Loads the base models and the images, and builds the tasks that are drawn from them.

    Args:
        model_args ([`ModelArguments`]): Base models.
        task_args ([`TaskArguments`]): Task distribution.
        seed (`int`): Of the division of single splits.

    Returns:
        `tuple`: The first `model`; `tasks`, a [`TaskMixture`] if there are several models; `validation_tasks`, on
        images that meta-training never sees.
    """
    sources: dict[str, Any] = {}  # of all data sets, by the image processor that made them
    setups = [_build_of_model(each, task_args, seed, sources) for each in model_args.each()]
    if len(setups) == 1:
        return setups[0]
    if 0 < task_args.num_validation_tasks < len(setups):
        logger.warning(
            "With num_validation_tasks=%d, %d of %d models have no say in which weights are kept; raise it to %d or a "
            "multiple.",
            *(task_args.num_validation_tasks, len(setups) - task_args.num_validation_tasks, len(setups), len(setups)),
        )
    model, tasks, validation = zip(*setups)
    return Setup(model[0], TaskMixture(tasks), TaskMixture(validation))


def _build_of_model(model_args: ModelArguments, task_args: TaskArguments, seed: int, sources: dict[str, Any]) -> Setup:
    model = load_image_classifier(model_args.base_model, task_args.num_classes, model_args.base_model_revision)
    freeze(model, model_args.trainable)
    revision = resolved_commit(model) or model_args.base_model_revision
    image_processor = load_image_processor(model_args.base_model, revision=revision)
    key = image_processor.to_json_string()
    if key not in sources:  # models that see the same images share their pools
        sources[key] = [load_sources(dataset, image_processor, seed) for dataset in task_args.datasets]
    training, validation = zip(*sources[key])
    distribution = partial(
        TaskDistribution,
        initial_states=InitialStates(model),
        num_classes=task_args.num_classes,
        batch_size=task_args.batch_sizes or task_args.batch_size,
        evaluation_size=task_args.evaluation_size,
    )
    horizon = partial(Horizon, task_args.min_steps, task_args.longest_horizon)
    return Setup(
        model,
        distribution(training, horizon=horizon(task_args.spread_horizons), augmentations=task_args.augmentations),
        distribution(validation, horizon=horizon()),
    )


def load_sources(
    dataset: DatasetArguments, image_processor: BaseImageProcessor | str, seed: int
) -> tuple[TaskSource, TaskSource]:
    """Loads a data set for meta-training and for validation. No image is in two of the four pools."""
    splits = {role: split for role, split in dataset.splits.items() if split is not None}
    for one, other in combinations(splits.values(), 2):
        if splits_overlap(one, other):
            raise ConfigError(
                f"Data set {dataset.path} uses a split twice ({one} and {other}), but training and evaluation images "
                "must differ; name other splits, or leave the rest out to have batches_split divided."
            )
    names = ("name", "revision", "image_column", "label_column", "classes", "max_images")
    open_split = partial(
        open_image_pool, dataset.path, image_processor, **{name: getattr(dataset, name) for name in names}
    )
    pools = {role: open_split(split=split) for role, split in splits.items()}
    if missing := [role for role in SHARES if role not in pools]:
        roles = ("batches", *missing)
        parts = _divide(pools["batches"], [SHARES[role] for role in roles], seed)
        if not all(len(part.labels) for part in parts):
            raise DataError(
                f"Data set {dataset.path} has too few images in {dataset.batches_split} to be divided into batches, "
                f"{', '.join(missing)}; add images, or name more splits."
            )
        pools.update(zip(roles, parts))
    held = _hold([pools[role] for role in SHARES], 1e9 * dataset.max_memory_gb)
    return TaskSource(dataset.path, *held[:2]), TaskSource(dataset.path, *held[2:])


def _divide(pool: StreamedImagePool, shares: Sequence[float], seed: int) -> list[StreamedImagePool]:
    """Divides every class of a pool at random, in the given proportions."""
    total = sum(shares)
    parts: list[list[torch.Tensor]] = [[] for _ in shares]
    rng = generator(seed, "division")
    for label in sorted(set(pool.labels.tolist())):
        rows = (pool.labels == label).nonzero().squeeze(1)
        rows = rows[torch.randperm(len(rows), generator=rng)]
        bounds = [round(len(rows) * sum(shares[: index + 1]) / total) for index in range(len(shares) - 1)]
        for part, chunk in zip(parts, rows.tensor_split(bounds)):
            part.append(chunk)
    return [pool.select(rows) for rows in map(torch.cat, parts)]


def _hold(pools: Sequence[StreamedImagePool], max_memory: float) -> list[Images]:
    """Decodes the pools in their order as long as all of them together fit; the others stay on disk."""
    held: list[Images] = []
    for pool in pools:
        held.append(pool.hold(max_memory))
        if held[-1] is not pool:
            max_memory -= pool.num_bytes
    return held
