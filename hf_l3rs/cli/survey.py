"""A look at a model and a data set before anything is run: sizes, classes, and which images are for what."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from hf_l3rs.errors import DataError
from hf_l3rs.optimizer.batch_norm import batch_norms
from hf_l3rs.optimizer.layers import describe_trainable_layers
from hf_l3rs.tasks.images import load_image_processor, open_image_pool, split_names
from hf_l3rs.tasks.model import load_image_classifier
from hf_l3rs.tasks.pools import StreamedImagePool
from hf_l3rs.tasks.task_arguments import ROLES, SHARES


if TYPE_CHECKING:
    from transformers.image_processing_utils import BaseImageProcessor

# What splits are usually called, the likeliest first, by what they are good for.
_FOR_META_TRAINING = {
    "batches": ("meta_train_batches", "train", "training"),
    "evaluation": ("meta_train_eval",),
    "validation_batches": ("validation_batches",),
    "validation_evaluation": ("validation_eval",),
}
_UNSEEN = {
    **_FOR_META_TRAINING,
    "batches": ("test_batches", "test", "validation", "valid", "val", "dev"),
    "evaluation": ("test_eval",),
}
# Of a data set with a single split, this share is for meta-training and the rest is kept unseen.
_SEEN_PERCENT = 70
# More images than that make an evaluation set no better than it need be, and more classes a task too large.
_MAX_EVALUATION, _MAX_CLASSES = 256, 10


class ModelSurvey(NamedTuple):
    """A model: its name, what transformers calls its type, how many parameters and layers are trained, batch norm."""

    name: str
    model_type: str
    num_parameters: int
    num_layers: int
    has_batch_norm: bool

    def describe(self) -> str:
        """Returns the figures in one line."""
        norm = "with" if self.has_batch_norm else "without"
        sizes = f"{self.num_parameters:,} parameters in {self.num_layers} layers"
        return f"{self.name}, {self.model_type}: {sizes}, {norm} batch norm"


class DataSurvey(NamedTuple):
    """
    A data set, and how it is shared out.

    Args:
        training (`dict`): Fields of [`~hf_l3rs.DatasetArguments`] for meta-training.
        unseen (`dict`, *optional*): The same for an evaluation on other images; `None` if none could be kept apart.
        num_classes (`int`): Of a task: all that there are, up to ten.
        num_images (`int`): In the split that training batches come from.
        evaluation_size (`int`): Images of an evaluation set, as many as there are for every task, up to 256.
        image_shape (`tuple[int, ...]`): `(num_channels, height, width)` as the model sees them.
    """

    training: dict[str, Any]
    unseen: dict[str, Any] | None
    num_classes: int
    num_images: int
    evaluation_size: int
    image_shape: tuple[int, ...]

    def describe(self) -> str:
        """Returns the figures in one line."""
        shape, split = " x ".join(map(str, self.image_shape)), self.training["batches_split"]
        images = f"{self.num_images:,} images of {shape} in {split}"
        return f"{self.training['path']}: {images}, tasks of {self.num_classes} classes"


def survey_model(name: str) -> ModelSurvey:
    """Looks at a model."""
    model = load_image_classifier(name)
    layers = describe_trainable_layers(model)
    num_parameters = sum(math.prod(layer.shape) for layer in layers)
    return ModelSurvey(name, model.config.model_type, num_parameters, len(layers), bool(batch_norms(model)))


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
    names = split_names(path, name=name)
    fields = {"path": path, **({} if name is None else {"name": name})}
    unseen = {"batches_split": test_split} if test_split else _choose(names, _UNSEEN)
    training = {"batches_split": split} if split else _choose(names, _FOR_META_TRAINING)
    if not training:  # whatever it is called
        rest = [each for each in names if each not in unseen.values()] or names
        training = {"batches_split": rest[0]}
    training = {**fields, **training}
    pool = _open(training, processor)
    if len(pool.labels.unique()) < 2:
        raise DataError(f"{path!r} has images of 1 class in {training['batches_split']}; give images of at least 2.")
    kept: dict[str, Any] | None = {**fields, **unseen} if unseen else None
    if kept is None:
        training, kept = _keep_apart(pool, training)
    used = [(each, _open(each, processor)) for each in (training, kept) if each is not None]
    num_classes = max(2, min(_MAX_CLASSES, *(len(each.labels.unique()) for _, each in used)))
    sizes = [_images_to_evaluate(each, processor, num_classes) for each, _ in used]
    shape = tuple(pool.fetch(torch.tensor([0])).shape[1:])
    return DataSurvey(training, kept, num_classes, len(used[0][1].labels), min(sizes), shape)


def _choose(names: Collection[str], usual: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Returns the splits of the roles; none where there are no training batches."""
    found = {role: next((each for each in usual[role] if each in names), None) for role in ROLES}
    if found["batches"] is None:
        return {}
    return {f"{role}_split": split for role, split in found.items() if split is not None}


def _open(dataset: dict[str, Any], processor: BaseImageProcessor, role: str = "batches") -> StreamedImagePool:
    return open_image_pool(
        dataset["path"],
        processor,
        name=dataset.get("name"),
        split=dataset[f"{role}_split"],
        classes=dataset.get("classes"),
    )


def _keep_apart(pool: StreamedImagePool, training: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Divides a single split into what meta-training sees and what it does not."""
    split = training["batches_split"]
    if "[" in split or "+" in split:
        return training, None
    bound = len(pool.labels) * _SEEN_PERCENT // 100
    total, rest = pool.labels.bincount(), pool.labels[bound:].bincount(minlength=int(pool.labels.max()) + 1)
    is_mixed = bool((2 * rest * 100 >= total * (100 - _SEEN_PERCENT)).all() and (rest < total).any())
    if is_mixed:
        seen, unseen = f"{split}[:{_SEEN_PERCENT}%]", f"{split}[{_SEEN_PERCENT}%:]"
        return {**training, "batches_split": seen}, {**training, "batches_split": unseen}
    classes = [pool.class_names[index] for index in pool.labels.unique().tolist()]
    if len(classes) < 4:
        return training, None
    half = len(classes) // 2
    return {**training, "classes": classes[:half]}, {**training, "classes": classes[half:]}


def _images_to_evaluate(dataset: dict[str, Any], processor: BaseImageProcessor, num_classes: int) -> int:
    """How many images every evaluation set of the smallest classes can have, where some are cut out of one split."""
    missing = [role for role in SHARES if f"{role}_split" not in dataset]
    sizes = []
    for role in ("evaluation", "validation_evaluation"):
        is_cut = role in missing
        counts = _open(dataset, processor, "batches" if is_cut else role).labels.unique(return_counts=True)[1]
        share = SHARES[role] / sum(SHARES[each] for each in ("batches", *missing)) if is_cut else 1.0
        least = counts.sort().values[:num_classes]
        sizes.append(int((least * share).floor().sum()))
    return max(1, min(_MAX_EVALUATION, *sizes))
