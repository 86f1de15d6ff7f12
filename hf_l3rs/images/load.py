"""Image-classification data sets as tensors, prepared by the model's own image processor.

Meta-training visits the same few thousand images over and over, so images are decoded once and kept in one tensor, as
long as they fit into a stated limit.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hf_l3rs.errors import ArtifactError, DataError, reason
from hf_l3rs.hub.reach import hub_answers, is_repo_id, out_of_reach
from hf_l3rs.images.columns import class_ids, find_columns, read_labels
from hf_l3rs.images.pools import DEFAULT_MAX_MEMORY, ImagePool, StreamedImagePool


if TYPE_CHECKING:
    from datasets import Dataset
    from transformers.image_processing_utils import BaseImageProcessor


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

    Raises:
        ArtifactError: If there is none that can be read.
    """
    # from where it is: the one that transformers 5.4 shows asks for torchvision, though this backend does not
    from transformers.models.auto.image_processing_auto import AutoImageProcessor

    name = os.fspath(name_or_path)
    try:
        return AutoImageProcessor.from_pretrained(
            name,
            backend="pil",
            revision=revision or "main",
            token=token,
            cache_dir=cache_dir,
            local_files_only=not (os.path.exists(name) or hub_answers()),
            trust_remote_code=False,
        )
    except Exception as error:  # of every kind, as what is wrong with a file may be
        raise ArtifactError(
            f"There is no readable image processor in {name!r}{_at(revision)} ({reason(error)}); check the name, and "
            "that a preprocessor_config.json stands beside the model, as image_processor.save_pretrained writes it."
        ) from error


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
        DataError: If the data set, its configuration or its split does not exist, cannot be had or cannot be read.
    """
    import datasets

    path = os.fspath(path)
    source, files, is_out_of_reach = _locate(path)
    options: dict[str, Any] = {"name": name, "revision": revision, "token": token}
    if files is not None:
        options = {"data_files": files}
    options |= {"split": split, "cache_dir": None if cache_dir is None else os.fspath(cache_dir)}
    try:
        with _without_downloads(is_out_of_reach):
            return datasets.load_dataset(source, **options)
    except Exception as error:  # of every kind, as what is wrong with a data set may be
        raise DataError(_explain(error, path, name, split, revision)) from error


def split_names(path: str | os.PathLike[str], *, name: str | None = None, revision: str | None = None) -> list[str]:
    """
    Returns the names of a data set's splits.

    Args:
        path (`str` or `os.PathLike`): As in [`load_image_dataset`].
        name (`str`, *optional*): Configuration of the data set.
        revision (`str`, *optional*): Branch, tag or commit on the Hub.

    Raises:
        DataError: If the data set or its configuration does not exist, or cannot be had or read.
    """
    import datasets

    path = os.fspath(path)
    source, files, is_out_of_reach = _locate(path)
    if files is not None:
        return ["train"]
    try:
        with _without_downloads(is_out_of_reach):
            return list(datasets.get_dataset_split_names(source, name, revision=revision))
    except Exception as error:  # as above
        raise DataError(_explain(error, path, name, "train", revision)) from error


def _locate(path: str) -> tuple[str, str | None, bool]:
    """Returns what `datasets` loads, of which file if it is one, and whether it is on a Hub that does not answer."""
    if path.endswith(".parquet"):
        if not os.path.isfile(path):
            raise DataError(f"There is no file {path!r}; give an existing .parquet file, a folder or a Hub id.")
        return "parquet", path, False
    if os.path.isdir(path):
        return os.path.abspath(path), None, False  # a folder called text would be taken for the loader of that name
    if is_repo_id(path) and path not in _LOADERS:
        return path, None, not hub_answers()
    raise DataError(f"There is no folder {path!r}; give an existing folder, a .parquet file or a Hub id.")


# What `datasets` takes for one of its loaders, which would read the current folder, and not for a name on the Hub.
_LOADERS = ("arrow", "audiofolder", "csv", "imagefolder", "json", "parquet", "text", "webdataset")
_QUOTE = "'"


@contextmanager
def _without_downloads(is_wanted: bool) -> Iterator[None]:
    """Makes `datasets` look into its cache at once, where it would first ask an unreachable Hub again and again."""
    import datasets

    before = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = before or is_wanted
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = before


def _explain(error: Exception, path: str, name: str | None, split: str, revision: str | None) -> str:
    """Says in one sentence why a data set cannot be loaded. `datasets` tells many errors apart by their text only."""
    from datasets.data_files import EmptyDatasetError
    from datasets.exceptions import DataFilesNotFoundError, DatasetNotFoundError

    message, why = " ".join(str(error).split()), reason(error)
    splits = re.search(r"Unknown split .*Should be one of \[(.*)\]", message)
    configurations = re.search(r"(?:BuilderConfig|Config name is missing).*?\[(.*?)\]", message)
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
    if splits:
        return f"{path!r} has no split {split!r}; it has {splits[1].replace(_QUOTE, '')}."
    if configurations:
        return f"{path!r} has no configuration {name!r}; name one of {configurations[1].replace(_QUOTE, '')}."
    if any(text in why for text in ("nstruction", "Split name", "Percent slice")):
        return f"{path!r} cannot give the split {split!r} ({why}); write it as train, train[:1000] or train[:10%]."
    return f"{path!r} cannot be read ({why}); repair the data set, or leave the damaged file out."


def _at(revision: str | None) -> str:
    return f" at revision {revision!r}" if revision else ""


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
    if max_images is not None and not (isinstance(max_images, int) and max_images >= 1):
        raise DataError(f"max_images is {max_images}, but must be at least 1, or None for all images.")
    dataset: Any = path
    if isinstance(path, (str, os.PathLike)):
        dataset = load_image_dataset(path, name=name, split=split, revision=revision, token=token, cache_dir=cache_dir)
    if isinstance(image_processor, (str, os.PathLike)):
        image_processor = load_image_processor(image_processor, token=token, cache_dir=cache_dir)
    image_column, label_column = find_columns(dataset.features, image_column=image_column, label_column=label_column)

    labels, class_names = read_labels(dataset, label_column)
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
