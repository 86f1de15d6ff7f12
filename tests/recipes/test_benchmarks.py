"""The benchmarks measure what they say, and what is compared takes turns."""

import math

import pytest
import torch

from recipes import benchmark_meta_training as benchmark
from recipes import benchmark_step


def test_a_step(capsys):
    rows = benchmark_step.main(["--models", "resnet-tiny", "--rounds", "2"])
    costs = {row.optimizer: row for row in rows}
    assert set(costs) == {
        "Adam (foreach)",
        "Adam (fused)",
        "SGD momentum (foreach)",
        "L3RS",
        "L3RS with Muon",
    }
    assert costs["Adam (foreach)"].ratio == 1
    assert all(row.milliseconds > 0 for row in rows)
    assert costs["SGD momentum (foreach)"].bytes_per_parameter == 4
    output = capsys.readouterr().out
    assert all(f"| resnet-tiny | {name} |" in output for name in costs)


def test_state_is_as_large_as_adams():
    parameters = benchmark_step.make_parameters("resnet-tiny", torch.device("cpu"))
    optimizer = benchmark_step.make_optimizers(parameters)["L3RS"]
    benchmark_step.time_step(optimizer, torch.device("cpu"))
    num_values = sum(parameter.numel() for parameter in parameters.values())
    per_layer = 4 + 4 * 4 * 3  # a step counter, and four channels of three averages
    assert benchmark_step.state_bytes(optimizer) == 8 * num_values + per_layer * len(parameters)


def test_meta_training(capsys, monkeypatch):
    monkeypatch.setattr(benchmark, "launch", lambda count, arguments: 10.0 * count**0.9)
    rows = benchmark.main(["--rounds", "1", "--steps", "2", "--launches", "2"])
    assert [row.section for row in rows] == ["rollout"] * 2 + ["gradient"] * 3 + ["processes"] * 2
    assert all(row.speed > 0 and math.isfinite(row.ratio) for row in rows)
    assert [rows[index].ratio for index in (0, 2, 5)] == [1.0] * 3 and rows[6].ratio == pytest.approx(2**0.9)
    assert "| gradient | second order |" in capsys.readouterr().out


@pytest.mark.distributed
def test_two_processes():
    """The launched recipe must also end well."""
    options = ["--generations", "1", "--pairs", "2", "--steps", "2"]
    assert benchmark.launch(2, benchmark.parse_arguments(options)) > 0


def test_what_is_compared_takes_turns():
    order = []
    runs = {name: lambda name=name: order.append(name) for name in "ab"}
    results = benchmark.compare(runs, benchmark.parse_arguments(["--rounds", "2"]))
    assert "".join(order) == "ba" + "ab" + "ba"
    assert results["a"][1] == 1.0
