"""Tiny models, data and learned optimizers that the tests of training share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    MobileNetV2Config,
    MobileNetV2ForImageClassification,
    ResNetConfig,
    ResNetForImageClassification,
    TrainerCallback,
    TrainingArguments,
    ViTConfig,
    ViTForImageClassification,
)

from hf_l3rs import L3RS, L3RSConfig, L3RSNetwork, describe_layers


def tiny_resnet(seed: int = 0) -> ResNetForImageClassification:
    torch.manual_seed(seed)
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=4)
    return ResNetForImageClassification(config)


def tiny_vit(seed: int = 0) -> ViTForImageClassification:
    torch.manual_seed(seed)
    config = ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=8,
        patch_size=4,
        num_labels=4,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    return ViTForImageClassification(config)


def tiny_mobilenet(seed: int = 0, **config: Any) -> MobileNetV2ForImageClassification:
    torch.manual_seed(seed)
    sizes = {"depth_multiplier": 0.1, "finegrained_output": False, "tf_padding": False, "num_labels": 4}
    return MobileNetV2ForImageClassification(MobileNetV2Config(**{**sizes, "classifier_dropout_prob": 0.2, **config}))


MODELS = {"resnet": tiny_resnet, "vit": tiny_vit}


class RandomImages(torch.utils.data.Dataset):
    """Images of noise with random labels, which a model can only learn by heart."""

    def __init__(self, size: int = 32) -> None:
        generator = torch.Generator().manual_seed(0)
        self.images = torch.randn(size, 3, 8, 8, generator=generator)
        self.labels = torch.randint(0, 4, (size,), generator=generator)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"pixel_values": self.images[index], "labels": self.labels[index]}


def trained_network(model: nn.Module, **config: Any) -> L3RSNetwork:
    """Meta-weights that make every feature matter, as if they were meta-trained."""
    config = {"layers": describe_layers(model.named_parameters()), "base_step": 5e-3, **config}
    network = L3RSNetwork(L3RSConfig(**config))
    noise = torch.randn(network.num_meta_parameters, generator=torch.Generator().manual_seed(1))
    network.load_vector(network.to_vector() + 0.1 * noise)
    return network


def learned_optimizer(model: nn.Module, **config: Any) -> L3RS:
    """An unbound L3RS for models like `model`."""
    return L3RS(network=trained_network(model, **config))


def training_arguments(folder: Path, **changes: Any) -> TrainingArguments:
    values = {
        "output_dir": str(folder),
        "per_device_train_batch_size": 4,
        "max_steps": 4,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
        "disable_tqdm": True,
        **changes,
    }
    return TrainingArguments(**values)


class Recorder(TrainerCallback):
    """Stands for a tracker and records what it is told, and the optimizer's `lr` at each step."""

    def __init__(self) -> None:
        self.logs: list[dict[str, float]] = []
        self.rates: list[float] = []

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, optimizer: Any = None, **kwargs: Any) -> None:
        self.rates.append(optimizer.param_groups[0]["lr"])

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        self.logs.append(dict(logs))

    @property
    def losses(self) -> list[float]:
        return [logs["loss"] for logs in self.logs if "loss" in logs]


def parameters(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: param.detach().clone() for name, param in model.named_parameters()}


def assert_same(left: Any, right: Any) -> None:
    """Compares nested containers; tensors bit for bit."""
    if isinstance(left, torch.Tensor):
        torch.testing.assert_close(left, right, rtol=0, atol=0)
    elif isinstance(left, dict):
        assert left.keys() == right.keys()
        for key, value in left.items():
            assert_same(value, right[key])
    elif isinstance(left, (list, tuple)):
        assert len(left) == len(right)
        for one, other in zip(left, right):
            assert_same(one, other)
    else:
        assert left == right
