"""Which columns of a data set hold images and labels, and which classes the labels stand for."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import shorten
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_l3rs.errors import DataError
from hf_l3rs.validation import short


if TYPE_CHECKING:
    from datasets import Dataset, Features


LABEL_COLUMN_NAMES = ("label", "labels", "fine_label", "target", "class")
IMAGE_COLUMN_NAMES = ("image", "img", "pixel_values")
MAX_CLASSES = 10**6


def find_columns(
    features: Features,
    *,
    image_column: str | None = None,
    label_column: str | None = None,
) -> tuple[str, str]:
    """
    Names of the image and the label column of a data set.

    Args:
        features (`datasets.Features`):
            The data set's columns. The image column has type `Image`; the label column has type `ClassLabel`, or holds
            integers and is called label, labels, fine_label, target or class.
        image_column (`str`, *optional*):
            Use this column for the images.
        label_column (`str`, *optional*):
            Use this column for the labels.

    Raises:
        DataError: If a column is missing, has the wrong type, or several columns fit equally well.
    """
    import datasets

    images = [name for name, feature in features.items() if isinstance(feature, datasets.Image)]
    classes = [name for name, feature in features.items() if isinstance(feature, datasets.ClassLabel)]
    integers = [
        name for name, feature in features.items() if isinstance(feature, datasets.Value) and "int" in feature.dtype
    ]
    image_column = _given(features, "image_column", image_column, images, "images") or _find(
        features, "image", images, IMAGE_COLUMN_NAMES
    )
    usual_integers = [name for name in LABEL_COLUMN_NAMES if name in integers][:1]
    label_column = _given(
        features, "label_column", label_column, classes + integers, "class labels or integers"
    ) or _find(features, "label", classes or usual_integers, LABEL_COLUMN_NAMES)
    return image_column, label_column


def _given(features: Features, argument: str, column: str | None, allowed: Sequence[str], wanted: str) -> str | None:
    """Returns the column that the user named, if any."""
    if column is None or column in allowed:
        return column
    if column not in features:
        raise DataError(
            f"The data set has no column {column!r} ({argument}); it has {', '.join(features)}; name one of them."
        )
    raise DataError(f"Column {column!r} ({argument}) holds {_kind(features[column])}, but must hold {wanted}.")


def _find(features: Features, kind: str, found: Sequence[str], usual: Sequence[str]) -> str:
    if len(found) > 1:
        found = [column for column in usual if column in found][:1] or found
    if len(found) == 1:
        return found[0]
    columns = ", ".join(f"{column} ({_kind(feature)})" for column, feature in features.items())
    problem = f"several {kind} columns ({', '.join(found)})" if found else f"no {kind} column"
    raise DataError(f"The data set has {problem}; its columns are {columns}; name one with {kind}_column.")


def _kind(feature: Any) -> str:
    """What a column holds, without the names of a thousand classes."""
    name = type(feature).__name__
    return f"{name} of {feature.dtype}" if name == "Value" else name


def read_labels(dataset: Dataset, label_column: str) -> tuple[np.ndarray, list[str]]:
    """
    Reads the labels of all images, and decodes none.

    Args:
        dataset (`datasets.Dataset`): The data set.
        label_column (`str`): Its column of labels.

    Returns:
        `tuple[np.ndarray, list[str]]`: Label ids, of shape `(num_images,)`, and the name of every id.

    Raises:
        DataError: If an image has no label, or the numbers cannot be label ids.
    """
    labels = np.asarray(dataset.with_format("arrow", columns=[label_column])[:][label_column].to_numpy())
    if len(labels) and (labels.dtype.kind not in "iu" or labels.min() < 0):
        raise DataError(
            f"Column {label_column!r} has images without a label (empty or negative); remove them from the data set."
        )
    class_names = getattr(dataset.features[label_column], "names", None)
    if class_names is None:
        if labels.max(initial=0) >= MAX_CLASSES:
            raise DataError(
                f"Column {label_column!r} holds numbers up to {labels.max()}, so they are no class ids, which count "
                "from 0; name another column with label_column."
            )
        class_names = [str(label) for label in range(int(labels.max(initial=-1)) + 1)]
    return labels, list(class_names)


def class_ids(class_names: Sequence[str], classes: Sequence[str | int]) -> list[int]:
    """
    Label ids of classes given by name or id.

    Args:
        class_names (`Sequence[str]`):
            The names of all classes, in the order of their ids.
        classes (`Sequence[str | int]`):
            The names or ids to look up.

    Raises:
        DataError: If a class does not exist.
    """
    ids = []
    for name_or_id in classes:
        if name_or_id in class_names:
            ids.append(list(class_names).index(str(name_or_id)))
        elif isinstance(name_or_id, int) and 0 <= name_or_id < len(class_names):
            ids.append(name_or_id)
        else:
            names = shorten(", ".join(f"{number} {name}" for number, name in enumerate(class_names)), 250)
            raise DataError(
                f"There is no class {short(name_or_id)}; the classes are {names}; give names or ids of those."
            )
    return ids
