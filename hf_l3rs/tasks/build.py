"""Builds model and task distributions from their settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn

from hf_l3rs.errors import ConfigError
from hf_l3rs.images.load import load_image_processor, open_image_pool
from hf_l3rs.images.pools import Images, StreamedImagePool
from hf_l3rs.tasks.arguments import DatasetArguments, ModelArguments, TaskArguments
from hf_l3rs.tasks.distribution import Horizon, TaskDistribution, TaskSource
from hf_l3rs.tasks.initial_states import RANDOM, InitialStates, load_image_classifier
from hf_l3rs.tasks.seeds import generator
from hf_l3rs.tasks.task import State


# How the images of a single split are shared out, where no other splits are named.
SHARES = {"batches": 0.4, "evaluation": 0.3, "validation_batches": 0.15, "validation_evaluation": 0.15}


class Setup(NamedTuple):
    """
    The parts of a run.

    Args:
        model (`nn.Module`): What inner loops train.
        tasks ([`TaskDistribution`]): For meta-training.
        validation_tasks ([`TaskDistribution`]): On images that meta-training never sees.
    """

    model: nn.Module
    tasks: TaskDistribution
    validation_tasks: TaskDistribution


def build(model_args: ModelArguments, task_args: TaskArguments, seed: int) -> Setup:
    """
    Builds the parts of a run.

    Args:
        model_args ([`ModelArguments`]): Base model.
        task_args ([`TaskArguments`]): Task distribution.
        seed (`int`): Of the division of single splits.

    Returns:
        [`Setup`]
    """
    num_labels = None if model_args.reuse_head else task_args.num_classes
    model, state = load_image_classifier(model_args.base_model, num_labels, model_args.base_model_revision)
    states: list[State | str] = [
        state
        if name == model_args.base_model
        else name
        if name == RANDOM
        else load_image_classifier(name, num_labels)[1]
        for name in model_args.initial_checkpoints or [model_args.base_model]
    ]
    initial_states = InitialStates(model, states, new_head=not model_args.reuse_head)
    sources = [load_sources(dataset, model_args.base_model, seed) for dataset in task_args.datasets]
    training, validation = (
        TaskDistribution(
            list(part),
            initial_states,
            num_classes=task_args.num_classes,
            batch_size=task_args.batch_size,
            evaluation_size=task_args.evaluation_size,
            horizon=Horizon(
                task_args.min_steps,
                task_args.max_steps or task_args.min_steps,
                task_args.curriculum_generations if is_training else 0,
            ),
            augmentations=task_args.augmentations if is_training else (),
            new_classes=not model_args.reuse_head,
        )
        for is_training, part in zip((True, False), zip(*sources))
    )
    return Setup(model, training, validation)


def load_sources(dataset: DatasetArguments, base_model: str, seed: int) -> tuple[TaskSource, TaskSource]:
    """
    Loads a data set for meta-training and for validation.

    Args:
        dataset ([`DatasetArguments`]): Which images.
        base_model (`str`): Whose image processor prepares them.
        seed (`int`): Of the division of a single split.

    Returns:
        `tuple[TaskSource, TaskSource]`: For training and for validation; no image is in two of their four pools.
    """
    processor = load_image_processor(base_model)

    def open_split(split: str) -> StreamedImagePool:
        return open_image_pool(
            dataset.path,
            processor,
            name=dataset.name,
            split=split,
            revision=dataset.revision,
            image_column=dataset.image_column,
            label_column=dataset.label_column,
            classes=dataset.classes,
            max_images=dataset.max_images,
        )

    splits = {role: getattr(dataset, f"{role}_split") for role in SHARES}
    named = [split for split in splits.values() if split is not None]
    if len(set(named)) != len(named):
        raise ConfigError(
            f"Data set {dataset.path} uses a split twice ({named}), but training and evaluation images must differ; "
            "name other splits, or leave the rest out to have batches_split divided."
        )
    opened = {role: open_split(split) for role, split in splits.items() if split is not None}
    missing = [role for role in SHARES if role not in opened]
    if missing:
        parts = _divide(opened["batches"], [SHARES[role] for role in ("batches", *missing)], seed)
        opened.update(zip(("batches", *missing), parts))
    pools = _hold(opened, 1e9 * dataset.max_memory_gb)
    training, validation = (
        TaskSource(dataset.path, pools[f"{prefix}batches"], pools[f"{prefix}evaluation"], None, dataset.weight)
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
