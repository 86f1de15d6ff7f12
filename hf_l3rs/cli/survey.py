"""A look at a model and a data set before anything is run: sizes, classes, and which images are for what."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch

from hf_l3rs.errors import DataError
from hf_l3rs.markdown import one_line
from hf_l3rs.optimizer.batch_norm import batch_norms
from hf_l3rs.optimizer.layers import describe_trainable_layers
from hf_l3rs.tasks.images import load_image_processor, open_image_pool, split_names
from hf_l3rs.tasks.model import load_image_classifier
from hf_l3rs.tasks.pools import StreamedImagePool
from hf_l3rs.tasks.task_arguments import SHARES


# What splits are usually called, the likeliest first.
_TRAINING = ("train", "training", "meta_train_batches")
_UNSEEN = ("test", "validation", "valid", "val", "dev", "test_batches")
# Of a data set with a single split, this share is for meta-training and the rest is kept unseen.
_SEEN_PERCENT = 70
# More images than that make an evaluation set no better than it need be, and more classes a task too large.
_MAX_EVALUATION, _MAX_CLASSES = 256, 10


class DataSurvey(NamedTuple):
    """A data set, and how it is shared out. `training` and `unseen` are fields of [`~hf_l3rs.DatasetArguments`]."""

    training: dict[str, Any]
    unseen: dict[str, Any] | None  # for an evaluation on other images; `None` if none could be kept apart
    num_classes: int  # of a task: all that there are, up to ten
    evaluation_size: int  # images of an evaluation set, as many as there are for every task, up to 256
    description: str


def describe_model(name: str) -> str:
    """Returns what a model is, in one line."""
    model = load_image_classifier(name)
    layers = describe_trainable_layers(model)
    sizes = f"{sum(math.prod(layer.shape) for layer in layers):,} parameters in {len(layers)} layers"
    norm = "with" if batch_norms(model) else "without"
    return one_line(f"{name}, {model.config.model_type}: {sizes}, {norm} batch norm")


def survey_data(
    path: str, model: str, *, name: str | None = None, split: str | None = None, test_split: str | None = None
) -> DataSurvey:
    """
    Looks at a data set: which split is for what goes by their names, unless they are given. Of a single split a part
    is kept apart, rows if all classes are in both parts, else classes.

    Args:
        path (`str`): As `datasets.load_dataset` takes it.
        model (`str`): Whose image processor prepares the images.
        name (`str`, *optional*): Configuration of the data set.
        split (`str`, *optional*): For meta-training.
        test_split (`str`, *optional*): For an evaluation.

    Raises:
        DataError: If the data cannot be had or read, or have fewer than two classes.
    """
    processor = load_image_processor(model)

    def opened(dataset: dict[str, Any]) -> StreamedImagePool:
        split, classes = dataset["batches_split"], dataset.get("classes")
        return open_image_pool(path, processor, name=name, split=split, classes=classes)

    names, fields = split_names(path, name=name), {"path": path, **({} if name is None else {"name": name})}
    unseen = test_split or next((each for each in _UNSEEN if each in names), None)
    usual = (each for each in (*_TRAINING, *names) if each in names and each != unseen)
    training = {**fields, "batches_split": split or next(usual, names[0])}
    pool = opened(training)
    if len(pool.labels.unique()) < 2:
        raise DataError(f"{path!r} has images of 1 class in {training['batches_split']}; give images of at least 2.")
    kept: dict[str, Any] | None = {**fields, "batches_split": unseen} if unseen else None
    if kept is None or (kept == training and not test_split):
        training, kept = _keep_apart(pool, training)
    counts = [opened(each).labels.unique(return_counts=True)[1] for each in (training, kept) if each is not None]
    num_classes = max(2, min(_MAX_CLASSES, *map(len, counts)))
    share = min(SHARES["evaluation"], SHARES["validation_evaluation"])  # which are cut out of the split
    sizes = [int((each.sort().values[:num_classes] * share).floor().sum()) for each in counts]
    shape = " x ".join(map(str, pool.fetch(torch.tensor([0])).shape[1:]))
    images = f"{int(counts[0].sum()):,} images of {shape} in {training['batches_split']}"
    description = one_line(f"{path}: {images}, tasks of {num_classes} classes")
    return DataSurvey(training, kept, num_classes, max(1, min(_MAX_EVALUATION, *sizes)), description)


def _keep_apart(pool: StreamedImagePool, training: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Divides a single split into what meta-training sees and what it does not."""
    split = training["batches_split"]
    if "[" in split or "+" in split:
        return training, None
    bound = len(pool.labels) * _SEEN_PERCENT // 100
    total, rest = pool.labels.bincount(), pool.labels[bound:].bincount(minlength=int(pool.labels.max()) + 1)
    if (2 * rest * 100 >= total * (100 - _SEEN_PERCENT)).all() and (rest < total).any():  # all classes in both
        seen, unseen = f"{split}[:{_SEEN_PERCENT}%]", f"{split}[{_SEEN_PERCENT}%:]"
        return {**training, "batches_split": seen}, {**training, "batches_split": unseen}
    classes = [pool.class_names[index] for index in pool.labels.unique().tolist()]
    if len(classes) < 4:
        return training, None
    half = len(classes) // 2
    return {**training, "classes": classes[:half]}, {**training, "classes": classes[half:]}
