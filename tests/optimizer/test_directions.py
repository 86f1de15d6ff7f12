"""Directions: Muon's orthogonal matrices, and a direction of one's own."""

import operator

import pytest
import torch

from hf_l3rs import L3RS, L3RSConfig, describe_layers
from hf_l3rs.errors import ConfigError
from hf_l3rs.optimizer.directions import DIRECTIONS, Direction, orthogonalise


@pytest.mark.parametrize("shape", [(8, 8), (4, 30), (30, 4), (6, 3, 3, 3)], ids=str)
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_singular_values_come_near_one(shape, scale):
    matrix = scale * torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    (result,) = orthogonalise([matrix])
    values = torch.linalg.svdvals(result.flatten(1))
    assert result.shape == matrix.shape and values.min() > 0.5 and values.max() < 1.3


def test_what_is_no_matrix_stays_and_zero_stays_zero():
    """Kernels that are depthwise, thin or tiny stay (timm's rule); matrices, such as a head of two classes, do not."""
    shapes = [(3,), (16, 1, 3, 3), (3, 3, 2, 2), (4, 200, 3, 3), (1, 5, 8)]
    others, (zeros, head) = [torch.ones(shape) for shape in shapes], (torch.zeros(4, 2), torch.ones(2, 16))
    *same, still, changed = orthogonalise([*others, zeros, head])
    assert all(map(operator.is_, same, others)) and torch.equal(still, zeros) and not torch.equal(changed, head)


def lion(config, grads, buffers, steps, arithmetic):
    """Of arXiv 2302.06675, as the documentation has it."""
    beta1, beta2 = config.adam_betas
    ahead = arithmetic.lerp(buffers["lion_exp_avg"], grads, 1 - beta1)
    averages = arithmetic.lerp_(buffers["lion_exp_avg"], grads, 1 - beta2)
    return [x.sign() for x in ahead], {"lion_exp_avg": averages}


def test_a_direction_of_ones_own(monkeypatch, tmp_path):
    """It trains, is saved and resumed, and is unknown where nobody has registered it."""
    model, twin = (torch.nn.Linear(4, 3).double() for _ in range(2))
    twin.load_state_dict(model.state_dict())
    layers = describe_layers(model.named_parameters())
    with pytest.raises(ConfigError, match="one of adam, sgd, muon, got 'lion'"):
        L3RSConfig(layers, directions=("lion",))
    monkeypatch.setitem(DIRECTIONS, "lion", Direction(("lion_exp_avg",), lion))
    config = L3RSConfig(layers, directions=("lion",), adam_betas=(0.9, 0.99), base_step=1e-2)
    optimizer = L3RS(model, config, num_training_steps=6)
    average = {name: torch.zeros_like(param) for name, param in twin.named_parameters()}
    for k in range(6):
        if k == 3:
            optimizer.save_pretrained(tmp_path)
            state = optimizer.state_dict()
            optimizer = L3RS.from_pretrained(tmp_path).bind(model, num_training_steps=6)
            optimizer.load_state_dict(state)
        for (name, param), own in zip(model.named_parameters(), twin.parameters()):
            param.grad = torch.randn(param.shape, generator=torch.Generator().manual_seed(k), dtype=param.dtype)
            own.data -= 1e-2 * (0.9 * average[name] + 0.1 * param.grad).sign()
            average[name].lerp_(param.grad, 0.01)
        optimizer.step(1.0)
        torch.testing.assert_close(list(model.parameters()), list(twin.parameters()), rtol=1e-12, atol=1e-12)
    assert "lion_exp_avg" in optimizer.state[model.weight] and "mixture_lion" in optimizer.statistics()
    monkeypatch.delitem(DIRECTIONS, "lion")
    with pytest.raises(ConfigError, match="lion"):
        L3RS.from_pretrained(tmp_path)
