"""Builds model and task distributions from their settings."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from itertools import combinations
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn

from hf_l3rs.errors import ConfigError, DataError
from hf_l3rs.tasks.distribution import Horizon, TaskDistribution, TaskMixture, TaskSource
from hf_l3rs.tasks.images import load_image_processor, open_image_pool, splits_overlap
from hf_l3rs.tasks.model import RANDOM, InitialStates, freeze, load_image_classifier, resolved_commit
from hf_l3rs.tasks.pools import Images, StreamedImagePool
from hf_l3rs.tasks.task import State, generator
from hf_l3rs.tasks.task_arguments import ROLES, DatasetArguments, ModelArguments, TaskArguments


if TYPE_CHECKING:
    from transformers.image_processing_utils import BaseImageProcessor

logger = logging.getLogger(__name__)

# How the images of a single split are shared out, where no other splits are named.
SHARES = dict(zip(ROLES, (0.4, 0.3, 0.15, 0.15)))


class Setup(NamedTuple):
    """
    The parts of a run.

    Args:
        model (`nn.Module`): What inner loops train; the first, if there are several.
        tasks ([`TaskDistribution`] or [`TaskMixture`]): For meta-training; a mixture, if there are several models.
        validation_tasks ([`TaskDistribution`] or [`TaskMixture`]): On images that meta-training never sees.
    """

    model: nn.Module
    tasks: Any
    validation_tasks: Any


# The pools of data sets, for training and for validation, by the image processor that made them.
_Sources = dict[str, list[tuple[TaskSource, TaskSource]]]


def build_tasks(model_args: ModelArguments, task_args: TaskArguments, seed: int) -> Setup:
    """
    Builds the parts of a run.

    Args:
        model_args ([`ModelArguments`]): Base models.
        task_args ([`TaskArguments`]): Task distribution.
        seed (`int`): Of the division of single splits.

    Returns:
        [`Setup`]

    Raises:
        ArtifactError: If a base model, its image processor or a checkpoint cannot be had or read.
        ConfigError: If settings do not go together.
        DataError: If data cannot be had or read, or lack classes or images.
    """
    sources: _Sources = {}
    setups = [_build_of_model(each, task_args, seed, sources) for each in model_args.each()]
    if len(setups) == 1:
        return setups[0]
    if 0 < task_args.num_validation_tasks < len(setups):
        logger.warning(
            "With num_validation_tasks=%d, %d of %d models have no say in which weights are kept; raise it to %d or a "
            "multiple.",
            *(task_args.num_validation_tasks, len(setups) - task_args.num_validation_tasks, len(setups), len(setups)),
        )
    return Setup(
        setups[0].model,
        TaskMixture([setup.tasks for setup in setups]),
        TaskMixture([setup.validation_tasks for setup in setups]),
    )


def _build_of_model(model_args: ModelArguments, task_args: TaskArguments, seed: int, sources: _Sources) -> Setup:
    model = load_image_classifier(
        model_args.base_model,
        None if model_args.reuse_head else task_args.num_classes,
        model_args.base_model_revision,
    )
    freeze(model, model_args.trainable)
    revision = resolved_commit(model) or model_args.base_model_revision
    image_processor = load_image_processor(model_args.base_model, revision=revision)
    key = image_processor.to_json_string()
    if key not in sources:  # models that see the same images share their pools
        sources[key] = [load_sources(dataset, image_processor, seed) for dataset in task_args.datasets]
    distribution = partial(
        TaskDistribution,
        initial_states=_initial_states(model, model_args, task_args.num_classes),
        num_classes=task_args.num_classes,
        batch_size=task_args.batch_sizes or task_args.batch_size,
        evaluation_size=task_args.evaluation_size,
        head_size=model.config.num_labels if model_args.reuse_head else None,
    )
    horizon = partial(Horizon, task_args.min_steps, task_args.longest_horizon)
    return Setup(
        model,
        distribution(
            [training for training, _ in sources[key]],
            horizon=horizon(task_args.curriculum_generations, task_args.spread_horizons),
            augmentations=task_args.augmentations,
        ),
        distribution([validation for _, validation in sources[key]], horizon=horizon()),
    )


def _initial_states(model: nn.Module, model_args: ModelArguments, num_classes: int) -> InitialStates:
    """Checkpoints of the base model's own name are of its own revision, and are not loaded again."""
    names = model_args.initial_checkpoints or [model_args.base_model]
    states: dict[str, State | str] = {RANDOM: RANDOM, model_args.base_model: model.state_dict()}
    for name in names:
        if name not in states:
            num_labels = None if model_args.reuse_head else num_classes
            other = load_image_classifier(name, num_labels)
            freeze(other, model_args.trainable)  # which may put adapters in
            states[name] = other.state_dict()
    return InitialStates(model, [states[name] for name in names], new_head=not model_args.reuse_head)


def load_sources(
    dataset: DatasetArguments, image_processor: BaseImageProcessor | str, seed: int
) -> tuple[TaskSource, TaskSource]:
    """
    Loads a data set for meta-training and for validation.

    Args:
        dataset ([`DatasetArguments`]): Which images.
        image_processor (`BaseImageProcessor` or `str`): The base model's, or the model's name.
        seed (`int`): Of the division of a single split.

    Returns:
        `tuple[TaskSource, TaskSource]`: For training and for validation; no image is in two of their four pools.

    Raises:
        ConfigError: If two of the splits may have images in common.
        DataError: If the data cannot be had or read, or are too few to be divided.
    """
    splits = {role: split for role, split in dataset.splits.items() if split is not None}
    for one, other in combinations(splits.values(), 2):
        if splits_overlap(one, other):
            raise ConfigError(
                f"Data set {dataset.path} uses a split twice ({one} and {other}), but training and evaluation images "
                "must differ; name other splits, or leave the rest out to have batches_split divided."
            )

    def open_split(split: str) -> StreamedImagePool:
        return open_image_pool(
            dataset.path,
            image_processor,
            name=dataset.name,
            split=split,
            revision=dataset.revision,
            image_column=dataset.image_column,
            label_column=dataset.label_column,
            classes=dataset.classes,
            max_images=dataset.max_images,
        )

    opened = {role: open_split(split) for role, split in splits.items()}
    missing = [role for role in SHARES if role not in opened]
    if missing:
        parts = _divide(opened["batches"], [SHARES[role] for role in ("batches", *missing)], seed)
        if not all(len(part.labels) for part in parts):
            raise DataError(
                f"Data set {dataset.path} has too few images in {dataset.batches_split} to be divided into batches, "
                f"{', '.join(missing)}; add images, or name more splits."
            )
        opened.update(zip(("batches", *missing), parts))
    pools = _hold(opened, 1e9 * dataset.max_memory_gb)
    training, validation = (
        TaskSource(dataset.path, pools[f"{prefix}batches"], pools[f"{prefix}evaluation"], dataset.weight)
        for prefix in ("", "validation_")
    )
    return training, validation


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


def _hold(opened: dict[str, StreamedImagePool], max_memory: float) -> dict[str, Images]:
    """Decodes the pools in their order as long as all of them together fit; the others stay on disk."""
    pools: dict[str, Images] = {}
    for role in SHARES:
        pools[role] = opened[role].hold(max_memory)
        if pools[role] is not opened[role]:
            max_memory -= opened[role].num_bytes
    return pools
