"""The benchmark of a step runs, times every optimizer, and counts its state."""

import torch

from recipes import benchmark_step


def test_smoke(capsys):
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
