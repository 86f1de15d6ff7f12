"""Writes images with their labels as parquet: a split of an image data set."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import ClassLabel, Features, Value
from datasets import Image as ImageFeature
from PIL import Image


def to_parquet(images: Sequence[np.ndarray], labels: Any, class_names: Sequence[str], **columns: Any) -> bytes:
    """
    Returns a split as a parquet file with the columns `image`, `label` and any others.

    The images are PNG without compression of its own: zstd, which sees all of them at once, makes them smallest.

    Args:
        images (`Sequence[np.ndarray]`): `uint8`, each `(height, width)` or `(height, width, 3)`.
        labels (`Sequence[int]` or `np.ndarray`): Of the images.
        class_names (`Sequence[str]`): What the labels stand for.
        columns: Other columns by name, one value an image, of a dtype of numpy that `datasets.Value` knows, or text.
    """
    others = {name: np.asarray(values) for name, values in columns.items()}
    kinds = {name: "string" if values.dtype.kind == "U" else str(values.dtype) for name, values in others.items()}
    features = Features(
        image=ImageFeature(),
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
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=0)
    return buffer.getvalue()
