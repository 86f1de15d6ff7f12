"""Image-classification data sets as tensors, prepared by the model's own image processor.

Meta-training visits the same few thousand images over and over, so images are decoded once and kept in one tensor, as
long as they fit into a stated limit.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hf_l3rs.errors import DataError
from hf_l3rs.images.pools import DEFAULT_MAX_MEMORY, ImagePool, Images, StreamedImagePool


if TYPE_CHECKING:
    from datasets import Dataset, Features
    from transformers.image_processing_utils import BaseImageProcessor


LABEL_COLUMN_NAMES = ("label", "labels", "fine_label", "target", "class")
IMAGE_COLUMN_NAMES = ("image", "img", "pixel_values")


def load_image_processor(
    name_or_path: str | os.PathLike[str],
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
) -> BaseImageProcessor:
    """
    Loads the image processor of a model. It works on PIL images, so torchvision is not needed.

    Args:
        name_or_path (`str` or `os.PathLike`):
            A Hub id or a local folder with a `preprocessor_config.json`.
        revision (`str`, *optional*):
            Branch, tag or commit on the Hub.
        token (`str` or `bool`, *optional*):
            Hub token, as in `from_pretrained`.
        cache_dir (`str` or `os.PathLike`, *optional*):
            Where downloads are kept.
    """
    from transformers import AutoImageProcessor

    options: dict[str, Any] = {"token": token, "cache_dir": cache_dir}
    if revision is not None:
        options["revision"] = revision
    return AutoImageProcessor.from_pretrained(name_or_path, backend="pil", **options)


def load_image_dataset(
    path: str | os.PathLike[str],
    *,
    name: str | None = None,
    split: str = "train",
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
) -> Dataset:
    """
    Loads one split of a data set from the Hub or from disk.

    Args:
        path (`str` or `os.PathLike`):
            A Hub id, a local data set repository (a folder whose README.md lists the splits), a local folder of images
            in one folder a class, or a `.parquet` file.
        name (`str`, *optional*):
            Configuration of the data set.
        split (`str`, *optional*, defaults to `"train"`):
            Split, or a part of one such as `"train[:1000]"`.
        revision (`str`, *optional*):
            Branch, tag or commit on the Hub.
        token (`str` or `bool`, *optional*):
            Hub token, as in `datasets.load_dataset`.
        cache_dir (`str` or `os.PathLike`, *optional*):
            Where downloaded and prepared data are kept.

    Raises:
        DataError: If the data set, its configuration or its split does not exist.
    """
    import datasets
    from datasets.data_files import EmptyDatasetError
    from datasets.exceptions import DataFilesNotFoundError, DatasetNotFoundError

    path = os.fspath(path)
    options: dict[str, Any] = {"cache_dir": None if cache_dir is None else os.fspath(cache_dir)}
    if path.endswith(".parquet"):
        if not Path(path).is_file():
            raise DataError(f"There is no file {path!r}; give an existing .parquet file, a folder or a Hub id.")
        source, options = "parquet", options | {"data_files": path}
    else:
        # Only a name or an owner/name pair can be on the Hub.
        if not Path(path).is_dir() and (os.path.isabs(path) or path.startswith((".", "~")) or path.count("/") > 1):
            raise DataError(f"There is no folder {path!r}; give an existing folder, a .parquet file or a Hub id.")
        source, options = (
            path,
            options | {"name": name, "revision": revision, "token": token},
        )

    try:
        return datasets.load_dataset(source, split=split, **options)
    except (DataFilesNotFoundError, EmptyDatasetError) as error:
        raise DataError(
            f"{path!r} holds no data: expected parquet files, or images in one folder a class, or a README.md whose"
            " `configs:` list the files."
        ) from error
    except DatasetNotFoundError as error:
        raise DataError(
            f"There is neither a local folder nor a readable Hub data set {path!r}; check the spelling, and log in if"
            f" it is private or gated ({error})"
        ) from error
    except ValueError as error:
        message = str(error)
        if "Unknown split" in message:
            allowed = datasets.get_dataset_split_names(source, options.pop("name", None), **options)
            raise DataError(f"{path!r} has no split {split!r}; it has {', '.join(allowed)}.") from error
        if "BuilderConfig" in message or "Config name is missing" in message:
            raise DataError(f"{path!r} has no configuration {name!r}: {message}") from error
        raise


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

    def is_image(column: str) -> bool:
        return isinstance(features[column], datasets.Image)

    def is_class(column: str) -> bool:
        return isinstance(features[column], datasets.ClassLabel)

    def is_integer(column: str) -> bool:
        return isinstance(features[column], datasets.Value) and "int" in features[column].dtype

    def choose(
        kind: str,
        given: str | None,
        found: list[str],
        usual: Sequence[str],
        allowed: list[str],
    ) -> str:
        argument = f"{kind}_column"
        if given is not None:
            if given not in features:
                raise DataError(f"The data set has no column {given!r} ({argument}); it has {', '.join(features)}.")
            if given not in allowed:
                wanted = "images" if kind == "image" else "class labels or integers"
                raise DataError(f"Column {given!r} ({argument}) holds {features[given]}, but must hold {wanted}.")
            return given
        if len(found) > 1:
            found = [column for column in usual if column in found][:1] or found
        if len(found) == 1:
            return found[0]
        columns = ", ".join(f"{column} ({feature})" for column, feature in features.items())
        problem = f"several {kind} columns ({', '.join(found)})" if found else f"no {kind} column"
        raise DataError(f"The data set has {problem}; its columns are {columns}; name one with {argument}.")

    image_columns = [column for column in features if is_image(column)]
    class_columns = [column for column in features if is_class(column)]
    integer_columns = [column for column in features if is_integer(column)]
    usual_integers = [column for column in LABEL_COLUMN_NAMES if column in integer_columns][:1]
    return (
        choose("image", image_column, image_columns, IMAGE_COLUMN_NAMES, image_columns),
        choose(
            "label",
            label_column,
            class_columns or usual_integers,
            LABEL_COLUMN_NAMES,
            class_columns + integer_columns,
        ),
    )


def load_image_pool(
    path: str | os.PathLike[str] | Dataset,
    image_processor: BaseImageProcessor | str | os.PathLike[str],
    *,
    max_memory: float | None = DEFAULT_MAX_MEMORY,
    batch_size: int = 256,
    **kwargs: Any,
) -> ImagePool | StreamedImagePool:
    """
    Prepares a split of an image-classification data set through the model's image processor: decodes it once if it
    fits the memory, and whenever an image is needed otherwise.

    Args:
        path (`str`, `os.PathLike` or `datasets.Dataset`):
            What [`load_image_dataset`] takes, or a data set that is already loaded.
        image_processor (`BaseImageProcessor`, `str` or `os.PathLike`):
            The model's image processor, or what [`load_image_processor`] takes. It sees RGB images.
        max_memory (`float`, *optional*, defaults to 4e9):
            Bytes that the decoded images may take; `None` for any number.
        batch_size (`int`, *optional*, defaults to 256):
            Images that the processor gets at a time.
        kwargs:
            As in [`open_image_pool`]: which images.

    Returns:
        [`ImagePool`] or [`StreamedImagePool`]: The same images either way. An `ImagePool` has them in `pixel_values`,
        of shape `(num_images, num_channels, height, width)`.

    Raises:
        DataError: If the split, a column or a class does not exist, no image is left, or an image cannot be read.
    """
    if max_memory is not None and not max_memory >= 0:
        raise DataError(f"max_memory is {max_memory}, but must be at least 0 bytes, or None for any number.")
    return open_image_pool(path, image_processor, **kwargs).hold(max_memory, batch_size)


def open_image_pool(
    path: str | os.PathLike[str] | Dataset,
    image_processor: BaseImageProcessor | str | os.PathLike[str],
    *,
    split: str = "train",
    name: str | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    classes: Sequence[str | int] | None = None,
    max_images: int | None = None,
    seed: int = 0,
) -> StreamedImagePool:
    """
    Reads the labels of a split of an image-classification data set, and decodes no image yet.

    Args:
        path, image_processor:
            As in [`load_image_pool`].
        split, name, revision, token, cache_dir:
            As in [`load_image_dataset`].
        image_column, label_column (`str`, *optional*):
            As in [`find_columns`].
        classes (`Sequence[str | int]`, *optional*):
            Keep the images of these classes only, given by name or id.
        max_images (`int`, *optional*):
            Keep that many images at most: a random choice, in the data set's order.
        seed (`int`, *optional*, defaults to 0):
            Seed of that choice.

    Returns:
        [`StreamedImagePool`]

    Raises:
        DataError: If the split, a column or a class does not exist, or no image is left.
    """
    if max_images is not None and max_images < 1:
        raise DataError(f"max_images is {max_images}, but must be at least 1, or None for all images.")
    dataset: Any = path
    if isinstance(path, (str, os.PathLike)):
        dataset = load_image_dataset(path, name=name, split=split, revision=revision, token=token, cache_dir=cache_dir)
    if isinstance(image_processor, (str, os.PathLike)):
        image_processor = load_image_processor(image_processor, token=token, cache_dir=cache_dir)
    image_column, label_column = find_columns(dataset.features, image_column=image_column, label_column=label_column)

    labels, class_names = _read_labels(dataset, label_column)
    kept = np.arange(len(labels))
    if classes is not None:
        kept = np.flatnonzero(np.isin(labels, class_ids(class_names, classes)))
    if max_images is not None and len(kept) > max_images:
        kept = np.sort(np.random.default_rng(seed).permutation(kept)[:max_images])
    if len(kept) == 0:
        of_classes = "" if classes is None else f" of the classes {list(classes)}"
        raise DataError(f"Split {split!r} has no image{of_classes}; choose another split or other classes.")
    return StreamedImagePool(
        dataset,
        image_processor,
        image_column=image_column,
        labels=torch.from_numpy(labels[kept].astype(np.int64)),
        class_names=class_names,
        rows=torch.from_numpy(kept),
    )


def _read_labels(dataset: Dataset, label_column: str) -> tuple[np.ndarray, list[str]]:
    """The label ids of all images, without decoding any, and the names of the classes."""
    labels = np.asarray(dataset.with_format("arrow", columns=[label_column])[:][label_column].to_numpy())
    if len(labels) and (labels.dtype.kind not in "iu" or labels.min() < 0):
        raise DataError(
            f"Column {label_column!r} has images without a label (empty or negative); remove them from the data set."
        )
    class_names = getattr(dataset.features[label_column], "names", None)
    if class_names is None:
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
            names = ", ".join(f"{number} {name}" for number, name in enumerate(class_names))
            raise DataError(f"There is no class {name_or_id!r}; the classes are {names}.")
    return ids


def select_classes(pool: Images, classes: Sequence[str | int]) -> Images:
    """
    The images of some classes of a pool. Label ids stay as they are.

    Args:
        pool ([`Images`]):
            The pool to choose from.
        classes (`Sequence[str | int]`):
            Names or ids of the classes to keep.

    Raises:
        DataError: If a class does not exist.
    """
    kept = torch.isin(pool.labels, torch.tensor(class_ids(pool.class_names, classes), dtype=torch.int64))
    return pool.select(kept.nonzero().squeeze(1))
