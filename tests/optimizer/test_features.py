"""Features: named, counted, bounded, and each of them told apart."""

import math

import pytest
import torch

from hf_l3rs.optimizer.config import FEATURES, L3RSConfig, LayerSpec
from hf_l3rs.optimizer.features import (
    CEILING,
    EMA_CHANNELS,
    FLOOR,
    LOSS_SCALE,
    NORM_SCALE,
    Features,
    ema_inputs,
    feature_names,
    log_measures,
    num_features,
    stack_features,
    time_coefficients,
)


LAYER = LayerSpec("weight", (2, 3), "linear_down.weight", "")
CONFIG = L3RSConfig((LAYER,), directions=("adam", "sgd", "muon"))


def raw_features(config=CONFIG, step=3, planned=10, num_layers=4, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    like = torch.zeros((), dtype=dtype)
    ema = torch.rand(num_layers, len(EMA_CHANNELS), len(config.ema_decays), generator=generator, dtype=dtype)
    measures = torch.rand(num_layers, 3 + len(config.directions), generator=generator, dtype=dtype)
    return Features(step, time_coefficients(config, planned, like), ema, measures)


def column(config, raw, name):
    return stack_features(config, raw)[:, feature_names(config).index(name)]


@pytest.mark.parametrize("features", [FEATURES, FEATURES[::-1], ("loss",), ("absolute_time", "param_norm"), ()])
def test_names_count_the_columns(features):
    config = CONFIG.replace(features=features)
    names = feature_names(config)
    assert stack_features(config, raw_features(config)).shape == (4, len(names))
    assert num_features(config) == len(names) == len(set(names))


def test_names_match_the_columns():
    raw = raw_features()
    averages = raw.ema / raw.ema[:, 3:]
    expected = {f"relative_time_{c:g}": math.tanh(10 * (3 / 10 - c)) for c in CONFIG.relative_times}
    expected |= {f"absolute_time_{c:g}": math.tanh(3 / c - 1) for c in CONFIG.absolute_times}
    for row, channel in enumerate(("loss", "grad_norm", "param_norm")):
        expected |= {f"{channel}_ema_{g:g}": averages[:, row, i] for i, g in enumerate(CONFIG.ema_decays)}
    for index, name in enumerate(CONFIG.directions):
        expected[f"direction_norm_{name}"] = raw.measures[:, 3 + index]
    assert list(expected) == feature_names(CONFIG)
    for name, value in expected.items():
        value = torch.as_tensor(value, dtype=torch.float64).expand(4)
        torch.testing.assert_close(column(CONFIG, raw, name), value, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_measures_are_bounded(dtype):
    values = torch.tensor([0.0, 1e-30, FLOOR, 1.0, CEILING, 1e30, math.inf, -math.inf, -1.0, math.nan], dtype=dtype)
    low, high = math.log(FLOOR), math.log(CEILING)
    expected = torch.tensor([low, low, low, 0.0, high, high, high, low, low, high], dtype=dtype)
    measures = log_measures(values, values[:, None].expand(-1, 3), torch.ones(10, dtype=dtype))
    of_losses = torch.where(values.isfinite(), expected, 0.0)  # a loss that is not a number is as none
    torch.testing.assert_close(measures[:, 0], of_losses / LOSS_SCALE, rtol=1e-6, atol=1e-6)
    for column in measures[:, 1:].unbind(1):
        torch.testing.assert_close(column, expected / NORM_SCALE, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("value", [0.0, math.inf, math.nan])
def test_no_input_makes_a_feature_infinite(value):
    measures = log_measures(torch.tensor(value), torch.full((4, 5), value), torch.ones(4))
    ema = ema_inputs(measures)[:, :, None].expand(-1, -1, 3) * 0.1  # as after a first step
    raw = raw_features(dtype=torch.float32)._replace(ema=ema, measures=measures)
    features = stack_features(CONFIG, raw)
    assert torch.isfinite(features).all() and features.abs().max() < 10


def test_measures_are_logarithms_of_rms():
    sqrt_numel = torch.tensor([2.0, 10.0], dtype=torch.float64)
    norms = torch.stack([factor * sqrt_numel for factor in (3, 5, 7)], dim=1)
    measures = log_measures(torch.tensor(0.5), norms, sqrt_numel)
    expected = [math.log(0.5) / LOSS_SCALE, *(math.log(factor) / NORM_SCALE for factor in (3, 5, 7))]
    torch.testing.assert_close(measures, torch.tensor([expected] * 2, dtype=torch.float64))
    inputs = torch.tensor([[*expected[:3], 1.0]] * 2, dtype=torch.float64)
    torch.testing.assert_close(ema_inputs(measures), inputs)


def test_absent_loss_is_neutral():
    assert torch.equal(log_measures(None, torch.ones(2, 3), torch.ones(2)), torch.zeros(2, 4))


def test_bias_correction_is_the_closed_form():
    """After n inputs ξ the corrected average is Σ γ^(n-j) ξ_j / Σ γ^(n-j), whatever the zero that it started from."""
    gammas = torch.tensor(CONFIG.ema_decays, dtype=torch.float64)
    inputs = torch.rand(7, 1, len(EMA_CHANNELS), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    inputs[..., 3] = 1
    ema = torch.zeros(1, len(EMA_CHANNELS), 3, dtype=torch.float64)
    for xi in inputs:
        ema = gammas * ema + (1 - gammas) * xi[:, :, None]
    powers = gammas ** torch.arange(6, -1, -1, dtype=torch.float64)[:, None]
    expected = (powers * inputs[:, 0, 1, None]).sum(0) / powers.sum(0)
    raw = raw_features(num_layers=1)._replace(ema=ema)
    for index, gamma in enumerate(CONFIG.ema_decays):
        actual = column(CONFIG, raw, f"grad_norm_ema_{gamma:g}")
        torch.testing.assert_close(actual, expected[index].expand(1), rtol=1e-12, atol=1e-12)
