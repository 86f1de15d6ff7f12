"""A model and data small enough that meta-training takes a second."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn

from hf_l3rs import L3RSConfig, L3RSNetwork, describe_layers
from hf_l3rs.optimizer.config import FEATURES, STRUCTURE
from hf_l3rs.optimizer.layers import role_layers
from hf_l3rs.tasks.distribution import Horizon, TaskDistribution, TaskMixture, TaskSource
from hf_l3rs.tasks.model import InitialStates
from hf_l3rs.tasks.pools import ImagePool


class Output(NamedTuple):
    loss: torch.Tensor | None
    logits: torch.Tensor


class TinyClassifier(nn.Module):
    """Two linear layers on images of 3 x 4 x 4, with the interface of a transformers model."""

    def __init__(self, num_labels: int = 3, dropout: float = 0.0, width: int = 8) -> None:
        super().__init__()
        self.encoder = nn.Linear(48, width)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(width, num_labels)

    def forward(self, pixel_values: torch.Tensor, labels: torch.Tensor | None = None) -> Output:
        hidden = self.dropout(torch.relu(self.encoder(pixel_values.flatten(1))))
        logits = self.classifier(hidden)
        return Output(None if labels is None else nn.functional.cross_entropy(logits, labels), logits)


def make_model(seed: int = 0, dropout: float = 0.0, width: int = 8) -> TinyClassifier:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return TinyClassifier(dropout=dropout, width=width)


def make_pool(num_images: int = 120, num_classes: int = 4, seed: int = 0) -> ImagePool:
    """Images whose class is visible: each class has a mean of its own."""
    rng = torch.Generator().manual_seed(seed)
    means = torch.randn(num_classes, 3, 4, 4, generator=torch.Generator().manual_seed(99))
    labels = torch.arange(num_images) % num_classes
    return ImagePool(
        means[labels] + 0.5 * torch.randn(num_images, 3, 4, 4, generator=rng),
        labels,
        [f"class {index}" for index in range(num_classes)],
    )


def make_tasks(model: nn.Module | None = None, seed: int = 0, **changes) -> TaskDistribution:
    model = model or make_model()
    source = TaskSource("blobs", make_pool(seed=2 * seed), make_pool(seed=2 * seed + 1))
    settings = {"num_classes": 3, "batch_size": 8, "evaluation_size": 24, "horizon": Horizon(4, 4), **changes}
    sources = settings.pop("sources", [source])
    return TaskDistribution(sources, InitialStates(model), **settings)


def make_mixture(seed: int = 0, widths: Sequence[int] = (8, 12, 16), **changes) -> TaskMixture:
    """Tasks of models of several widths, and of two batch sizes."""
    changes = {"batch_size": [4, 8], **changes}
    return TaskMixture([make_tasks(make_model(dropout=0.1, width=width), seed, **changes) for width in widths])


def make_role_network() -> L3RSNetwork:
    """An L3RS for models of any width."""
    layers = role_layers(describe_layers(make_model().named_parameters()))
    return L3RSNetwork(
        L3RSConfig(layers=layers, features=(*FEATURES, STRUCTURE), step_reference="relative", base_step=0.02)
    )


def make_network(model: nn.Module | None = None, trained: bool = False, **changes) -> L3RSNetwork:
    config = L3RSConfig(layers=describe_layers((model or make_model()).named_parameters()), **changes)
    network = L3RSNetwork(config)
    if trained:
        noise = torch.randn(network.num_meta_parameters, generator=torch.Generator().manual_seed(5))
        network.load_vector(network.to_vector() + 0.1 * noise)
    return network
