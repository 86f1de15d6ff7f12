"""Batches are looked up when they are asked for, as the task changes them."""

import torch

from hf_l3rs.tasks.pools import Batch, Transform, View
from tests.meta.problems import make_pool


def test_a_view_looks_batches_up_and_renumbers_labels():
    pool = make_pool(num_images=12, num_classes=4)
    label_map = torch.tensor([-1, 1, -1, 0])
    rows = [torch.tensor([1, 3]), torch.tensor([5, 7])]
    view = View(pool, rows, label_map, Transform(inverted=True))
    assert len(view) == 2
    for batch, chosen in zip(view, rows):
        assert torch.equal(batch.pixel_values, -pool.pixel_values[chosen])
        assert batch.labels.tolist() == [1, 0]
    assert view[1].to("cpu").labels.tolist() == [1, 0] and isinstance(view[0], Batch)


def test_transforms_are_what_they_say():
    images = torch.arange(24.0).view(1, 2, 3, 4)
    assert torch.equal(Transform()(images), images)
    assert torch.equal(Transform(quarter_turns=4)(images), images)
    assert Transform(quarter_turns=1)(images).shape == (1, 2, 4, 3)
    assert torch.equal(Transform(channels=(1, 0))(images), images.flip(1))
