"""Images in memory and images decoded on demand are the same images, and the memory limit is kept."""

import io

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from transformers import ViTImageProcessorPil

from hf_l3rs.errors import DataError
from hf_l3rs.meta.evolution import rollout
from hf_l3rs.tasks.distribution import TaskSource
from hf_l3rs.tasks.images import load_image_pool, open_image_pool
from hf_l3rs.tasks.pools import AUGMENTATIONS, ImagePool, StreamedImagePool
from tests.meta.problems import make_model, make_network, make_tasks


IMAGE_BYTES = 3 * 4 * 4 * 4
FEATURES = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=["ant", "bee", "cow", "dog"]))


def png(seed: int, size: tuple[int, int] = (9, 7)) -> bytes:
    """A noisy coloured image, which the processor has to resize."""
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)).save(file, "png")
    return file.getvalue()


def make_dataset(count: int = 60, seed: int = 0, broken: tuple[int, ...] = (), path: str | None = None):
    images = [{"bytes": png(seed + row)[: 60 if row in broken else None], "path": path} for row in range(count)]
    return datasets.Dataset.from_dict({"image": images, "label": [row % 4 for row in range(count)]}, features=FEATURES)


@pytest.fixture
def image_processor():
    return ViTImageProcessorPil(size={"height": 4, "width": 4}, image_mean=[0.5] * 3, image_std=[0.25] * 3)


@pytest.fixture
def pools(image_processor):
    """The same images in memory and streamed."""
    dataset = make_dataset()
    return tuple(load_image_pool(dataset, image_processor, max_memory=limit) for limit in (None, 0))


def test_streamed_images_are_those_in_memory_bit_for_bit(pools):
    held, streamed = pools
    assert isinstance(held, ImagePool) and isinstance(streamed, StreamedImagePool)
    rows = torch.tensor([7, 3, 3, 59, 0])
    assert torch.equal(held.fetch(rows), streamed.fetch(rows))
    assert streamed.fetch(rows).dtype == torch.float32
    assert held.num_channels == streamed.num_channels == 3
    assert torch.equal(held.labels, streamed.labels) and held.class_names == streamed.class_names
    chosen = streamed.select(rows)
    assert torch.equal(chosen.fetch(torch.arange(5)), held.fetch(rows)) and torch.equal(
        chosen.labels, held.labels[rows]
    )


def test_tasks_and_rollouts_are_the_same_bit_for_bit(image_processor):
    results = []
    for limit in (None, 0):
        batches, evaluation = (
            load_image_pool(make_dataset(seed=seed), image_processor, max_memory=limit) for seed in (0, 1000)
        )
        tasks = make_tasks(sources=[TaskSource("noise", batches, evaluation)], augmentations=AUGMENTATIONS)
        drawn = [tasks.draw(0, 0, pair) for pair in range(3)]
        scores = [rollout(make_model(), make_network(trained=True), task) for task in drawn]
        results.append(([batch for task in drawn for batch in [*task.batches, *task.evaluation]], scores))
    for one, two in zip(results[0][0], results[1][0]):
        assert torch.equal(one.pixel_values, two.pixel_values) and torch.equal(one.labels, two.labels)
    assert results[0][1] == results[1][1]


@pytest.mark.parametrize(("limit", "kind"), [(60 * IMAGE_BYTES, ImagePool), (60 * IMAGE_BYTES - 1, StreamedImagePool)])
def test_the_limit_is_kept(image_processor, limit, kind):
    assert type(load_image_pool(make_dataset(), image_processor, max_memory=limit)) is kind


def test_drawing_a_task_decodes_nothing(image_processor, monkeypatch):
    source = TaskSource("noise", *(open_image_pool(make_dataset(seed=seed), image_processor) for seed in (0, 1000)))
    tasks = make_tasks(sources=[source], augmentations=AUGMENTATIONS)
    decoded = []
    decode = StreamedImagePool._decode
    monkeypatch.setattr(StreamedImagePool, "_decode", lambda self, rows: decoded.append(rows) or decode(self, rows))
    task = tasks.draw(0, 0, 0)
    assert not decoded
    assert len([*task.batches, *task.evaluation]) == len(decoded)


@pytest.mark.parametrize("path", [None, "cow/0007.png"])
def test_a_corrupt_image_is_named(image_processor, path):
    dataset = make_dataset(broken=(7,), path=path)
    message = r"image in row 7 of column" if path is None else r"image in row 7 \(cow/0007.png\) of column"
    with pytest.raises(DataError, match=message) as error:
        load_image_pool(dataset, image_processor, max_memory=None)
    assert "\n" not in str(error.value) and "repair it or remove it" in str(error.value)
    streamed = load_image_pool(dataset, image_processor, max_memory=0, classes=["dog"])  # rows 3, 7, 11, …
    with pytest.raises(DataError, match=message):
        streamed.fetch(torch.tensor([0, 1, 2]))
    assert streamed.fetch(torch.tensor([0, 2, 3])).shape == (3, 3, 4, 4)


def test_images_of_another_shape_are_refused(image_processor):
    pixels = [Image.fromarray(np.zeros(size, np.uint8)) for size in ((4, 4), (8, 8))]
    data = datasets.Dataset.from_dict({"image": pixels, "label": [0, 1]}, features=FEATURES)
    streamed = load_image_pool(data, ViTImageProcessorPil(do_resize=False), max_memory=0)
    for rows in ([1], [0, 1]):
        with pytest.raises(DataError, match="resizes or crops to a fixed size"):
            streamed.fetch(torch.tensor(rows))


def test_an_image_processor_that_does_not_fit_the_images_is_refused():
    """Three means for four channels cannot be: what the processor says is passed on in one sentence."""
    processor = ViTImageProcessorPil(size={"height": 4, "width": 4}, image_mean=[0.5] * 4, image_std=[0.5] * 4)
    with pytest.raises(
        DataError, match=r"image processor fails on the data set's images \(.*; use the one that"
    ) as error:
        load_image_pool(make_dataset(), processor)
    assert "\n" not in str(error.value)
