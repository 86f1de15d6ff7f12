"""One fine-tuning task: initial weights, training batches, evaluation set (paper, fig. 1 left)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import nn

from hf_l3rs.tasks.pools import Images


def derive_seed(*parts: int | str) -> int:
    """Returns a seed in [0, 2^63) that depends on every part, such as `(seed, "noise", generation, pair)`."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def generator(*parts: int | str) -> torch.Generator:
    """Returns a CPU generator seeded by [`derive_seed`]."""
    return torch.Generator().manual_seed(derive_seed(*parts))


# The ways to make more tasks of the same images: other labels for the classes, or a Transform.
AUGMENTATIONS = ("label_permutation", "rotation", "inversion", "channel_permutation")

# θ0, or any other weights of a model, as a state dictionary.
State = Mapping[str, torch.Tensor]


class Batch(NamedTuple):
    """
    Images and their labels.

    Args:
        pixel_values (`torch.Tensor` of shape `(batch_size, num_channels, height, width)`): Preprocessed images.
        labels (`torch.Tensor` of shape `(batch_size,)`): The task's labels, from 0.
    """

    pixel_values: torch.Tensor
    labels: torch.Tensor

    def to(self, device: torch.device | str) -> Batch:
        """Returns the batch on `device`."""
        return Batch(self.pixel_values.to(device, non_blocking=True), self.labels.to(device, non_blocking=True))


class View(Sequence[Batch]):
    """
    Batches that are looked up in a pool when they are asked for.

    Args:
        pool ([`Images`]): The images.
        rows (`Sequence[torch.Tensor]`): For each batch the rows of the pool, of shape `(batch_size,)`.
        label_map (`torch.Tensor` of shape `(num_classes of the pool,)`): Pool label -> label in the task.
        transform ([`Transform`]): What the task does to every image.
    """

    def __init__(
        self, pool: Images, rows: Sequence[torch.Tensor], label_map: torch.Tensor, transform: Transform
    ) -> None:
        self.pool, self.rows, self.label_map, self.transform = pool, rows, label_map, transform

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Batch:  # type: ignore[override]
        rows = self.rows[index]
        return Batch(self.transform(self.pool.fetch(rows)), self.label_map[self.pool.labels[rows]])

    def __iter__(self) -> Iterator[Batch]:
        return (self[index] for index in range(len(self)))


class Transform(NamedTuple):
    """
    One fixed change of every image of a task, which makes another task of the same data (ours).

    Args:
        quarter_turns (`int`): Rotation by that many times 90°.
        inverted (`bool`): Whether the preprocessed values change sign.
        channels (`tuple[int, ...]`, *optional*): New order of the channels.
    """

    quarter_turns: int = 0
    inverted: bool = False
    channels: tuple[int, ...] | None = None

    def __call__(self, pixel_values: torch.Tensor) -> torch.Tensor:
        if self.channels is not None:
            pixel_values = pixel_values[:, list(self.channels)]
        if self.quarter_turns:
            pixel_values = torch.rot90(pixel_values, self.quarter_turns, dims=(-2, -1))
        return -pixel_values if self.inverted else pixel_values


class Task(NamedTuple):
    """
    T = (θ0, the K training batches, the evaluation set).

    Args:
        source (`str`): Name of the data set.
        seed (`int`): What everything random in the task, dropout included, is derived from.
        initial_state (`Mapping[str, torch.Tensor]`): θ0 as a state dictionary.
        batches (`Sequence[Batch]`): At least `num_training_steps` batches, in order.
        evaluation (`Sequence[Batch]`): The evaluation set, in parts that fit the memory.
        num_training_steps (`int`): The horizon K.
        num_classes (`int`): Classes that the head tells apart; guessing among them costs `log(num_classes)`.
        model (`nn.Module`): What is fine-tuned; its own weights are not those of θ0, and may be overwritten.
    """

    source: str
    seed: int
    initial_state: State
    batches: Sequence[Batch]
    evaluation: Sequence[Batch]
    num_training_steps: int
    num_classes: int
    model: nn.Module
