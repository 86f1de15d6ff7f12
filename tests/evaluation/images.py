"""A task on images, for models with batch norm."""

import torch

from hf_l3rs.tasks.distribution import Task
from hf_l3rs.tasks.pools import Batch
from tests.tiny import tiny_resnet


def image_task(num_steps=6):
    """On images of noise, for a model with batch norm."""
    generator = torch.Generator().manual_seed(0)
    batches = [
        Batch(torch.randn(4, 3, 8, 8, generator=generator) + index, torch.arange(4)) for index in range(num_steps)
    ]
    model = tiny_resnet()
    return Task("noise", 0, dict(model.state_dict()), batches, batches[:1], num_steps, 4, model)
