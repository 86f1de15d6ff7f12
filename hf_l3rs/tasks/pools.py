"""Images with their labels, as tensors: all decoded in memory, or decoded whenever they are asked for."""

from __future__ import annotations

import io
import logging
import math
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import torch

from hf_l3rs.errors import DataError, reason


def to_parquet(images: Sequence[np.ndarray], labels: Any, class_names: Sequence[str], **columns: Any) -> bytes:
    """
    Returns a split as a parquet file with the columns `image`, `label` and any others.

    The images are PNG without compression of its own: zstd, which sees all of them at once, makes them smallest.

    Args:
        images (`Sequence[np.ndarray]`): `uint8`, each `(height, width)` or `(height, width, 3)`.
        labels (`Sequence[int]` or `np.ndarray`): Of the images.
        class_names (`Sequence[str]`): What the labels stand for.
        columns: Other columns by name, one value an image, of a dtype of numpy that `datasets.Value` knows, or text.

    Returns:
        `bytes`: The file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq
    from datasets import ClassLabel, Features, Image, Value

    others = {name: np.asarray(values) for name, values in columns.items()}
    kinds = {name: "string" if values.dtype.kind == "U" else str(values.dtype) for name, values in others.items()}
    features = Features(
        image=Image(),
        label=ClassLabel(names=list(class_names)),
        **{name: Value(kind) for name, kind in kinds.items()},
    )
    table = {
        "image": [{"bytes": _encode(pixels), "path": None} for pixels in images],
        "label": np.asarray(labels).astype("int64"),
        **others,
    }
    buffer = io.BytesIO()
    pq.write_table(
        pa.table(table, schema=features.arrow_schema),
        buffer,
        compression="zstd",
        compression_level=19,
        use_dictionary=False,  # no two images are equal
        row_group_size=max(1, len(images)),
        data_page_size=1 << 26,  # one page: zstd sees the whole split
    )
    return buffer.getvalue()


def _encode(pixels: np.ndarray) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=0)
    return buffer.getvalue()


if TYPE_CHECKING:
    from datasets import Dataset
    from transformers.image_processing_utils import BaseImageProcessor


logger = logging.getLogger(__name__)

# How many bytes of decoded images a pool may hold, unless told otherwise: 4 GB are 7,000 images of 224 x 224.
DEFAULT_MAX_MEMORY = 4 * 10**9

FLOAT32_BYTES = 4
FIXED_SIZE = "use one that resizes or crops to a fixed size"


class Images(Protocol):
    """What tasks are drawn from: labels that are known at once, and images that are fetched by their rows."""

    @property
    def labels(self) -> torch.Tensor:
        """The data set's own label ids, of shape `(num_images,)`, int64."""

    @property
    def class_names(self) -> list[str]:
        """The name of every label id of the data set, also of classes without an image here."""

    @property
    def num_channels(self) -> int:
        """Channels of every image."""

    def fetch(self, rows: torch.Tensor) -> torch.Tensor:
        """
        Returns what the model takes for some images, of shape `(len(rows), num_channels, height, width)`, float32.

        Args:
            rows (`torch.Tensor` of shape `(num_rows,)`, int64): Which images.
        """

    def select(self, rows: torch.Tensor) -> Images:
        """
        Returns the images of these rows, in this order.

        Args:
            rows (`torch.Tensor` of shape `(num_rows,)`, int64): Which images.
        """


class ImagePool(NamedTuple):
    """
    Decoded images with their labels.

    Attributes:
        pixel_values (`torch.Tensor` of shape `(num_images, num_channels, height, width)`, float32):
            What the model takes.
        labels (`torch.Tensor` of shape `(num_images,)`, int64):
            The data set's own label ids.
        class_names (`list[str]`):
            The name of every label id of the data set, also of classes without an image in the pool.
    """

    pixel_values: torch.Tensor
    labels: torch.Tensor
    class_names: list[str]

    @property
    def num_channels(self) -> int:
        """Channels of every image."""
        return self.pixel_values.shape[1]

    def fetch(self, rows: torch.Tensor) -> torch.Tensor:
        """See [`Images.fetch`]."""
        return self.pixel_values[rows]

    def select(self, rows: torch.Tensor) -> ImagePool:
        """See [`Images.select`]; the images are copied."""
        return ImagePool(self.pixel_values[rows], self.labels[rows], self.class_names)


class StreamedImagePool:
    """
    Images that are decoded whenever they are asked for, to the same values as those of an [`ImagePool`].

    Args:
        dataset (`datasets.Dataset`): Where the images are; what `load_dataset` returns is mapped from disk.
        image_processor (`BaseImageProcessor`): The model's; it sees RGB images.
        image_column (`str`): The data set's column of images.
        labels (`torch.Tensor` of shape `(num_images,)`, int64): The label ids of the pool's images.
        class_names (`list[str]`): The name of every label id of the data set.
        rows (`torch.Tensor` of shape `(num_images,)`, int64): The data set's rows of the pool's images.
    """

    def __init__(
        self,
        dataset: Dataset,
        image_processor: BaseImageProcessor,
        *,
        image_column: str,
        labels: torch.Tensor,
        class_names: list[str],
        rows: torch.Tensor,
    ) -> None:
        self.dataset = dataset.select_columns([image_column])
        self.image_processor = image_processor
        self.image_column = image_column
        self.labels, self.class_names, self.rows = labels, class_names, rows

    @cached_property
    def image_shape(self) -> tuple[int, ...]:
        """Channels, height and width of the first image, which all others must have."""
        return tuple(self._decode(self.rows[:1].tolist()).shape[1:])

    @property
    def num_channels(self) -> int:
        """Channels of every image."""
        return self.image_shape[0]

    @property
    def num_bytes(self) -> int:
        """What all images would take in memory."""
        return len(self.rows) * math.prod(self.image_shape) * FLOAT32_BYTES

    def fetch(self, rows: torch.Tensor) -> torch.Tensor:
        """
        See [`Images.fetch`].

        Raises:
            DataError: If an image cannot be read, which names its row, or has another shape than the first.
        """
        pixel_values = self._decode(self.rows[rows].tolist())
        if tuple(pixel_values.shape[1:]) != self.image_shape:
            raise DataError(
                f"The image processor gives images of shapes {self.image_shape} and {tuple(pixel_values.shape[1:])}; "
                f"{FIXED_SIZE}."
            )
        return pixel_values

    def select(self, rows: torch.Tensor) -> StreamedImagePool:
        """See [`Images.select`]; nothing is decoded."""
        return StreamedImagePool(
            self.dataset,
            self.image_processor,
            image_column=self.image_column,
            labels=self.labels[rows],
            class_names=self.class_names,
            rows=self.rows[rows],
        )

    def hold(
        self, max_memory: float | None = DEFAULT_MAX_MEMORY, batch_size: int = 256
    ) -> ImagePool | StreamedImagePool:
        """
        Decodes all images now, if they fit.

        Args:
            max_memory (`float`, *optional*, defaults to 4e9): Bytes that they may take; `None` for any number.
            batch_size (`int`, *optional*, defaults to 256): Images to decode at a time.

        Returns:
            [`ImagePool`] or [`StreamedImagePool`]: The images in memory, or the pool itself where they do not fit.

        Raises:
            DataError: As [`~StreamedImagePool.fetch`].
        """
        num_images, num_classes = len(self.rows), len(self.labels.unique())
        if max_memory is not None and self.num_bytes > max_memory:
            logger.info(
                "%d images of %d classes would take %.3g GB, more than %.3g GB: they are decoded whenever needed.",
                num_images,
                num_classes,
                self.num_bytes / 1e9,
                max_memory / 1e9,
            )
            return self
        pixel_values = torch.empty((num_images, *self.image_shape), dtype=torch.float32)
        for rows in torch.arange(num_images).split(batch_size):
            pixel_values[rows] = self.fetch(rows)
        logger.info("Decoded %d images of %d classes, %.3g GB.", num_images, num_classes, self.num_bytes / 1e9)
        return ImagePool(pixel_values, self.labels, self.class_names)

    def _decode(self, rows: list[int]) -> torch.Tensor:
        images = self._read(rows)
        try:
            pixel_values = self.image_processor(images, return_tensors="pt")["pixel_values"].to(torch.float32)
        except Exception as error:  # processors raise errors of every kind
            if len({image.size for image in images}) > 1:
                problem = f"cannot make one tensor of images of several sizes; {FIXED_SIZE}"
            else:
                problem = f"fails on the data set's images ({reason(error)}); use the one that the model comes with"
            raise DataError(f"The image processor {problem}.") from error
        if not torch.isfinite(pixel_values).all():
            raise DataError("The image processor gives values that are not numbers; see that its image_std is not 0.")
        return pixel_values

    def _read(self, rows: list[int]) -> list[Any]:
        """Returns RGB images of PIL. Decoders raise errors of every kind, so all of them are taken for a bad image."""
        try:
            return [image.convert("RGB") for image in self.dataset[rows][self.image_column]]
        except Exception:
            return [self._read_one(row) for row in rows]

    def _read_one(self, row: int) -> Any:
        try:
            return self.dataset[row][self.image_column].convert("RGB")
        except Exception as error:
            import datasets

            stored = self.dataset.cast_column(self.image_column, datasets.Image(decode=False))[row][self.image_column]
            path = (stored or {}).get("path")
            raise DataError(
                f"The image in row {row}{f' ({path})' if path else ''} of column {self.image_column!r} cannot be read "
                f"({reason(error)}); repair it or remove it from the data set."
            ) from error
