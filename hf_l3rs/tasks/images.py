"""Image-classification data sets, from a folder, a file, the Hub or an object, as pools of images for a model."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from textwrap import shorten
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hf_l3rs.errors import ArtifactError, DataError, reason
from hf_l3rs.hub.connection import hub_answers, is_repo_id, out_of_reach
from hf_l3rs.tasks.pools import DEFAULT_MAX_MEMORY, Images, StreamedImagePool
from hf_l3rs.validation import short


if TYPE_CHECKING:
    from datasets import Dataset, Features
    from transformers.image_processing_utils import BaseImageProcessor

PathLike = str | os.PathLike[str]

LABEL_COLUMN_NAMES = ("label", "labels", "fine_label", "target", "class")
IMAGE_COLUMN_NAMES = ("image", "img", "pixel_values")
MAX_CLASSES = 10**6
# Names that `datasets` takes for its own loaders, which would read the current folder.
_LOADERS = ("arrow", "audiofolder", "csv", "imagefolder", "json", "parquet", "text", "webdataset")


def load_image_pool(
    path: PathLike | Dataset,
    image_processor: BaseImageProcessor | PathLike,
    *,
    max_memory: float | None = DEFAULT_MAX_MEMORY,
    **options: Any,
) -> Images:
    """As [`open_image_pool`], decoded at once if the images fit `max_memory` bytes; `None` is any number of bytes."""
    return open_image_pool(path, image_processor, **options).hold(max_memory)


def open_image_pool(
    path: PathLike | Dataset,
    image_processor: BaseImageProcessor | PathLike,
    *,
    split: str = "train",
    name: str | None = None,
    revision: str | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    classes: Sequence[str | int] | None = None,
    max_images: int | None = None,
) -> StreamedImagePool:
    """
    Reads the labels of a split of an image-classification data set, and decodes no image yet. The data set may be
    loaded already. It keeps the `classes` of these names or ids, and a random choice of `max_images`, in their order.
    """
    if max_images is not None and not (isinstance(max_images, int) and max_images >= 1):
        raise DataError(f"max_images is {max_images}, but must be at least 1, or None for all images.")
    dataset: Any = path
    if isinstance(path, (str, os.PathLike)):
        dataset = load_image_dataset(path, name=name, split=split, revision=revision)
    if isinstance(image_processor, (str, os.PathLike)):
        image_processor = load_image_processor(image_processor)
    image_column, label_column = find_columns(dataset.features, image_column=image_column, label_column=label_column)

    labels, class_names = read_labels(dataset, label_column)
    kept = np.arange(len(labels))
    if classes is not None:
        kept = np.flatnonzero(np.isin(labels, class_ids(class_names, classes)))
    if max_images is not None and len(kept) > max_images:
        kept = np.sort(np.random.default_rng(0).permutation(kept)[:max_images])
    if len(kept) == 0:
        of_classes = "" if classes is None else f" of the classes {list(classes)}"
        raise DataError(f"Split {split!r} has no image{of_classes}; choose another split or other classes.")
    return StreamedImagePool(
        dataset.select_columns([image_column]),
        image_processor,
        image_column,
        labels=torch.from_numpy(labels[kept].astype(np.int64)),
        class_names=class_names,
        rows=torch.from_numpy(kept),
    )


def load_image_processor(name_or_path: PathLike, *, revision: str | None = None) -> BaseImageProcessor:
    """Loads the image processor of a model. It works on PIL images, so torchvision is not needed."""
    # the class of this name at the top of transformers 5.4 asks for torchvision, which the PIL backend does not need
    from transformers.models.auto.image_processing_auto import AutoImageProcessor

    name = os.fspath(name_or_path)
    try:
        return AutoImageProcessor.from_pretrained(
            name,
            backend="pil",
            revision=revision or "main",
            local_files_only=not (os.path.exists(name) or hub_answers(name)),
            trust_remote_code=False,
        )
    except Exception as error:  # a damaged file raises errors of every kind
        raise ArtifactError(
            f"There is no readable image processor in {name!r}{_at(revision)} ({reason(error)}); check the name, and "
            "that a preprocessor_config.json stands beside the model, as image_processor.save_pretrained writes it."
        ) from error


def load_image_dataset(
    path: PathLike, *, name: str | None = None, split: str = "train", revision: str | None = None
) -> Dataset:
    """
    Loads one split, or a part of one such as `"train[:1000]"`, of a data set: a Hub id, a local data set repository (a
    folder whose README.md lists the splits), a folder of images in one folder a class, or a `.parquet` file.
    """
    import datasets

    with _located(path, name, split, revision) as (source, options):
        return datasets.load_dataset(source, split=split, **options)


def split_names(path: PathLike, *, name: str | None = None) -> list[str]:
    """Returns the names of a data set's splits."""
    import datasets

    with _located(path, name, "train", None) as (source, options):
        return ["train"] if "data_files" in options else list(datasets.get_dataset_split_names(source, name))


@contextmanager
def _located(
    path: PathLike, name: str | None, split: str, revision: str | None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """
    Yields what `datasets` loads, and with which options. Its errors become one sentence. Where the Hub does not
    answer, `datasets` looks into its cache at once.
    """
    import datasets

    path = os.fspath(path)
    source, is_out_of_reach = path, False
    options: dict[str, Any] = {"name": name, "revision": revision}
    if path.endswith(".parquet"):
        if not os.path.isfile(path):
            raise DataError(f"There is no file {path!r}; give an existing .parquet file, a folder or a Hub id.")
        source, options = "parquet", {"data_files": path}
    elif os.path.isdir(path):
        source = os.path.abspath(path)  # else a folder called text would be taken for a loader
    elif is_repo_id(path) and path not in _LOADERS:
        is_out_of_reach = not hub_answers(path, "dataset")
    else:
        raise DataError(f"There is no folder {path!r}; give an existing folder, a .parquet file or a Hub id.")
    before = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = before or is_out_of_reach
    try:
        yield source, options
    except Exception as error:  # a damaged data set raises errors of every kind
        raise DataError(_explain(error, path, name, split, revision)) from error
    finally:
        datasets.config.HF_HUB_OFFLINE = before


def _explain(error: Exception, path: str, name: str | None, split: str, revision: str | None) -> str:
    """Says in one sentence why a data set cannot be loaded. `datasets` tells many errors apart by their text only."""
    from datasets.data_files import EmptyDatasetError
    from datasets.exceptions import DataFilesNotFoundError, DatasetNotFoundError

    message, why = " ".join(str(error).replace("'", "").split()), reason(error)
    if isinstance(error, (DataFilesNotFoundError, EmptyDatasetError)):
        return (
            f"{path!r} holds no data: expected parquet files, or images in one folder a class, or a README.md whose "
            "`configs:` list the files; add them, or give another folder."
        )
    if isinstance(error, DatasetNotFoundError):
        return (
            f"There is neither a local folder nor a readable Hub data set {path!r}{_at(revision)} ({why}); check the "
            "spelling, and log in if it is private or gated."
        )
    if isinstance(error, ConnectionError):
        return out_of_reach(path)
    if splits := re.search(r"Unknown split .*Should be one of \[(.*)\]", message):
        return f"{path!r} has no split {split!r}; it has {splits[1]}."
    if configurations := re.search(r"(?:BuilderConfig|Config name is missing).*?\[(.*?)\]", message):
        return f"{path!r} has no configuration {name!r}; name one of {configurations[1]}."
    if any(text in why for text in ("nstruction", "Split name", "Percent slice")):
        return f"{path!r} cannot give the split {split!r} ({why}); write it as train, train[:1000] or train[:10%]."
    return f"{path!r} cannot be read ({why}); repair the data set, or leave the damaged file out."


def _at(revision: str | None) -> str:
    return f" at revision {revision!r}" if revision else ""


def find_columns(
    features: Features, *, image_column: str | None = None, label_column: str | None = None
) -> tuple[str, str]:
    """Returns the names of the image and the label column."""
    import datasets

    def of_type(kind: type) -> list[str]:
        return [name for name, feature in features.items() if isinstance(feature, kind)]

    images, classes = of_type(datasets.Image), of_type(datasets.ClassLabel)
    integers = [name for name in of_type(datasets.Value) if "int" in features[name].dtype]
    usual = [name for name in LABEL_COLUMN_NAMES if name in integers][:1]
    return (
        _choose(features, "image", image_column, images, images, IMAGE_COLUMN_NAMES),
        _choose(features, "label", label_column, classes + integers, classes or usual, LABEL_COLUMN_NAMES),
    )


def _choose(
    features: Features, kind: str, given: str | None, allowed: list[str], found: list[str], usual: Sequence[str]
) -> str:
    """Returns the column that the user named, or the only one that was found, or of several one of a usual name."""
    if given is not None:
        found = [column for column in allowed if column == given]
    elif len(found) > 1:
        found = [column for column in usual if column in found][:1] or found
    if len(found) == 1:
        return found[0]
    if given is not None:
        problem = f"no {kind}s in column {given!r}"
    else:
        problem = f"several {kind} columns ({', '.join(found)})" if found else f"no {kind} column"
    # without the names of a thousand classes
    columns = ", ".join(f"{column} ({type(feature).__name__})" for column, feature in features.items())
    raise DataError(f"The data set has {problem}; its columns are {columns}; name one with {kind}_column.")


def read_labels(dataset: Dataset, label_column: str) -> tuple[np.ndarray, list[str]]:
    """Returns the label ids of all images, of shape `(num_images,)`, and the name of every id. No image is decoded."""
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
    """Returns the label ids of classes that are given by name or id, from the names of all in the order of ids."""
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
