"""Images with their labels, in memory or decoded whenever asked for, and batches that are looked up in them."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from hf_l3rs.errors import DataError, reason


if TYPE_CHECKING:
    from datasets import Dataset
    from transformers.image_processing_utils import BaseImageProcessor

logger = logging.getLogger(__name__)

DEFAULT_MAX_MEMORY = 4 * 10**9  # bytes of decoded images that a pool may hold: 7,000 images of 224 x 224
DECODED_AT_ONCE = 256  # images

# The ways to make more tasks of the same images: other labels for the classes, or a Transform.
AUGMENTATIONS = ("label_permutation", "rotation", "inversion", "channel_permutation")


def derive_seed(*parts: int | str) -> int:
    """Returns a seed in [0, 2^63) that depends on every part, such as `(seed, "noise", generation, pair)`."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def generator(*parts: int | str) -> torch.Generator:
    """Returns a CPU generator seeded by [`derive_seed`]."""
    return torch.Generator().manual_seed(derive_seed(*parts))


class ImagePool(NamedTuple):
    """Decoded images with their labels."""

    pixel_values: torch.Tensor  # float32, of shape (num_images, num_channels, height, width)
    labels: torch.Tensor  # int64, of shape (num_images,): the data set's own label ids
    class_names: list[str]  # of every label id, also of classes without an image in the pool

    @property
    def num_channels(self) -> int:
        return self.pixel_values.shape[1]

    def fetch(self, rows: torch.Tensor) -> torch.Tensor:
        return self.pixel_values[rows]


@dataclass(eq=False)
class StreamedImagePool:
    """Images that are decoded whenever they are asked for, to the same values as those of an [`ImagePool`]."""

    dataset: Dataset
    image_processor: BaseImageProcessor  # it sees RGB images
    image_column: str
    labels: torch.Tensor  # int64, of shape (num_images,): the data set's own label ids
    class_names: list[str]  # of every label id of the data set
    rows: torch.Tensor  # int64, of shape (num_images,): the data set's rows of the pool's images

    @cached_property
    def image_shape(self) -> tuple[int, ...]:
        """Channels, height and width of the first image, which all others must have."""
        return tuple(self._decode(self.rows[:1].tolist()).shape[1:])

    @property
    def num_channels(self) -> int:
        return self.image_shape[0]

    @property
    def num_bytes(self) -> int:
        """What all images would take in memory."""
        return len(self.rows) * math.prod(self.image_shape) * 4  # bytes of a float32

    def fetch(self, rows: torch.Tensor) -> torch.Tensor:
        """Returns what the model takes for the images of these rows, as in [`ImagePool`]."""
        pixel_values = self._decode(self.rows[rows].tolist())
        if tuple(pixel_values.shape[1:]) != self.image_shape:
            raise DataError(
                f"The image processor gives images of shapes {self.image_shape} and {tuple(pixel_values.shape[1:])}; "
                "use one that resizes or crops to a fixed size."
            )
        return pixel_values

    def select(self, rows: torch.Tensor) -> StreamedImagePool:
        """Returns a pool of the images of these rows, in this order. Nothing is decoded."""
        return replace(self, labels=self.labels[rows], rows=self.rows[rows])

    def hold(self, max_memory: float | None = DEFAULT_MAX_MEMORY) -> Images:
        """Decodes all images now, if they fit this many bytes; returns them, or else the pool itself."""
        if max_memory is not None and not max_memory >= 0:
            raise DataError(f"max_memory is {max_memory}, but must be at least 0 bytes, or None for any number.")
        what = f"{len(self.rows)} images of {len(self.labels.unique())} classes"
        if max_memory is not None and self.num_bytes > max_memory:
            logger.info("%s would take %.3g GB: they are decoded whenever needed.", what, self.num_bytes / 1e9)
            return self
        pixel_values = torch.empty((len(self.rows), *self.image_shape), dtype=torch.float32)
        for rows in torch.arange(len(self.rows)).split(DECODED_AT_ONCE):
            pixel_values[rows] = self.fetch(rows)
        logger.info("Decoded %s, %.3g GB.", what, self.num_bytes / 1e9)
        return ImagePool(pixel_values, self.labels, self.class_names)

    def _decode(self, rows: list[int]) -> torch.Tensor:
        images = self._read(rows)
        try:
            pixel_values = self.image_processor(images, return_tensors="pt")["pixel_values"].to(torch.float32)
        except Exception as error:  # processors raise errors of every kind
            raise DataError(
                f"The image processor fails on the data set's images ({reason(error)}); use the one that the model "
                "comes with, or one that resizes or crops to a fixed size."
            ) from error
        if not torch.isfinite(pixel_values).all():
            raise DataError("The image processor gives values that are not numbers; see that its image_std is not 0.")
        return pixel_values

    def _read(self, rows: list[int]) -> list[Any]:
        """RGB images of PIL. Decoders raise errors of every kind, so every error is taken for a bad image."""
        try:
            return [image.convert("RGB") for image in self.dataset[rows][self.image_column]]
        except Exception as error:
            if len(rows) > 1:  # one of them is bad
                return [image for row in rows for image in self._read([row])]
            import datasets

            (row,) = rows
            stored = self.dataset.cast_column(self.image_column, datasets.Image(decode=False))[row][self.image_column]
            path = (stored or {}).get("path")
            raise DataError(
                f"The image in row {row}{f' ({path})' if path else ''} of column {self.image_column!r} cannot be read "
                f"({reason(error)}); repair it or remove it from the data set."
            ) from error


Images = ImagePool | StreamedImagePool


class Transform(NamedTuple):
    """One fixed change of every image of a task, which makes another task of the same data."""

    quarter_turns: int = 0
    inverted: bool = False  # the preprocessed values change sign
    channels: tuple[int, ...] | None = None  # their new order

    def __call__(self, pixel_values: torch.Tensor) -> torch.Tensor:
        if self.channels is not None:
            pixel_values = pixel_values[:, list(self.channels)]
        if self.quarter_turns:
            pixel_values = torch.rot90(pixel_values, self.quarter_turns, dims=(-2, -1))
        return -pixel_values if self.inverted else pixel_values


class Batch(NamedTuple):
    """Preprocessed images, of shape `(batch_size, num_channels, height, width)`, and their labels in the task."""

    pixel_values: torch.Tensor
    labels: torch.Tensor

    def to(self, device: torch.device | str) -> Batch:
        return Batch(self.pixel_values.to(device, non_blocking=True), self.labels.to(device, non_blocking=True))


@dataclass(eq=False)
class View(Sequence[Batch]):
    """Batches that are looked up in a pool when they are asked for."""

    pool: Images
    rows: Sequence[torch.Tensor]  # of the pool, for each batch
    label_map: torch.Tensor  # the task's label of each class of the pool
    transform: Transform

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Batch:  # type: ignore[override]
        rows = self.rows[index]
        return Batch(self.transform(self.pool.fetch(rows)), self.label_map[self.pool.labels[rows]])
