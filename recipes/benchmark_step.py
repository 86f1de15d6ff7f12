"""
Measures what a step of L3RS costs beside torch's own optimizers, in time and in bytes of state.

    python -m recipes.benchmark_step --threads 2 --rounds 20
    python -m recipes.benchmark_step --device cuda --rounds 100

Gradients are random and there is no forward or backward pass: only `optimizer.step()` is timed. In every round each
optimizer takes one step on the same parameters, in an order that rotates, so that a busy machine slows all alike;
ratios are of times from the same round, and everything shown is a median over rounds.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn
from transformers import ResNetConfig, ResNetForImageClassification, ViTConfig, ViTForImageClassification

from hf_l3rs import L3RS, L3RSConfig, describe_layers
from hf_l3rs.errors import reason
from hf_l3rs.settings import OptionParser


NamedParameters = dict[str, nn.Parameter]

EMBEDDED = Path(__file__).resolve().parent / "base_models" / "resnet-tiny-fashion"
REFERENCE = "Adam (foreach)"
WARM_UP = 2


def _resnet(**config: object) -> nn.Module:
    return ResNetForImageClassification(ResNetConfig(layer_type="basic", **config))


MODELS: dict[str, Callable[[], nn.Module]] = {
    "resnet-18": lambda: _resnet(
        embedding_size=64, hidden_sizes=[64, 128, 256, 512], depths=[2, 2, 2, 2], num_labels=1000
    ),
    "vit-base-16": lambda: ViTForImageClassification(ViTConfig(num_labels=1000)),
    "resnet-tiny-fashion": lambda: ResNetForImageClassification(ResNetConfig.from_pretrained(EMBEDDED)),
    "resnet-tiny": lambda: _resnet(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1]),
}


class Row(NamedTuple):
    """What one optimizer costs on one model: milliseconds a step, times Adam (foreach), bytes of state a parameter."""

    model: str
    optimizer: str
    milliseconds: float
    ratio: float
    bytes_per_parameter: float


def make_parameters(model: str, device: torch.device) -> NamedParameters:
    """Random parameters with gradients, in the shapes of `model`."""
    with torch.device("meta"):
        shapes = {name: parameter.shape for name, parameter in MODELS[model]().named_parameters()}
    generator = torch.Generator(device).manual_seed(0)
    parameters = {}
    for name, shape in shapes.items():
        parameters[name] = nn.Parameter(0.05 * torch.randn(shape, device=device, generator=generator))
        parameters[name].grad = 0.01 * torch.randn(shape, device=device, generator=generator)
    return parameters


def make_optimizers(parameters: NamedParameters) -> dict[str, torch.optim.Optimizer]:
    config = L3RSConfig(describe_layers(parameters.items()))
    with_muon = config.replace(directions=(*config.directions, "muon"))
    params = list(parameters.values())
    return {
        REFERENCE: torch.optim.Adam(params, lr=1e-4, foreach=True),
        "Adam (fused)": torch.optim.Adam(params, lr=1e-4, fused=True),
        "SGD momentum (foreach)": torch.optim.SGD(params, lr=1e-4, momentum=0.9, foreach=True),
        "L3RS": L3RS(parameters.items(), config, num_training_steps=1000),
        "L3RS with Muon": L3RS(parameters.items(), with_muon, num_training_steps=1000),
    }


def time_step(optimizer: torch.optim.Optimizer, device: torch.device) -> float:
    """Seconds that a step takes until the device is done."""
    if isinstance(optimizer, L3RS):
        optimizer.observe_loss(1.0)
    _synchronize(device)
    start = time.perf_counter()
    optimizer.step()
    _synchronize(device)
    return time.perf_counter() - start


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def state_bytes(optimizer: torch.optim.Optimizer) -> int:
    tensors = [value for state in optimizer.state.values() for value in state.values() if torch.is_tensor(value)]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def measure(model: str, rounds: int, device: torch.device) -> list[Row]:
    """Times all optimizers on the shapes of `model`."""
    parameters = make_parameters(model, device)
    optimizers = make_optimizers(parameters)
    names = list(optimizers)
    times: dict[str, list[float]] = {name: [] for name in names}
    for index in range(-WARM_UP, rounds):
        first = index % len(names)
        for name in names[first:] + names[:first]:
            seconds = time_step(optimizers[name], device)
            if index >= 0:
                times[name].append(seconds)
    num_values = sum(parameter.numel() for parameter in parameters.values())
    return [
        Row(
            model,
            name,
            1e3 * statistics.median(times[name]),
            statistics.median(own / other for own, other in zip(times[name], times[REFERENCE])),
            state_bytes(optimizers[name]) / num_values,
        )
        for name in names
    ]


def to_markdown(rows: Sequence[Row]) -> str:
    lines = [
        f"| model | optimizer | ms a step | times {REFERENCE} | bytes of state a parameter |",
        "|---|---|---:|---:|---:|",
    ]
    lines += [f"| {r.model} | {r.optimizer} | {r.milliseconds:.2f} | {r.ratio:.2f} | {r.bytes_per_parameter:.2f} |"
              for r in rows]  # fmt: skip
    return "\n".join(lines)


def _device(name: str) -> torch.device:
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:  # torch asserts that it was built for the device
        raise argparse.ArgumentTypeError(f"{name!r} is no device here ({reason(error)}); choose cpu.") from error


def parse_arguments(args: Sequence[str] | None = None) -> argparse.Namespace:
    parser = OptionParser(
        description=__doc__.strip().split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["resnet-18", "vit-base-16"], help="Shapes.")
    parser.add_argument("--rounds", type=int, default=20, help="Timed steps of every optimizer.")
    parser.add_argument("--threads", type=int, default=None, help="Threads of torch; as torch chooses if unset.")
    parser.add_argument("--device", type=_device, default="cpu", help="Where the parameters lie, such as cuda.")
    arguments = parser.parse_args(args)
    if arguments.rounds < 1:
        parser.error(f"--rounds must be at least 1, got {arguments.rounds}.")
    if arguments.threads is not None and arguments.threads < 1:
        parser.error(f"--threads must be at least 1, got {arguments.threads}.")
    return arguments


def main(args: Sequence[str] | None = None) -> list[Row]:
    arguments = parse_arguments(args)
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    device = arguments.device
    rows = [row for model in arguments.models for row in measure(model, arguments.rounds, device)]
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"{where}, torch {torch.__version__}, {arguments.rounds} rounds\n\n{to_markdown(rows)}")
    return rows


if __name__ == "__main__":
    main()
