import pytest
import torch

from hf_l3rs.errors import MetaTrainingError
from hf_l3rs.meta.outer import OPTIMIZERS, OuterConfig, OuterState, move


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_first_step_on_a_zero_gradient_moves_nothing_and_shows_the_optimizers_tensors(optimizer):
    config = OuterConfig(optimizer=optimizer)
    like = move(config, OuterState(torch.ones(3)), torch.zeros(3))
    assert torch.equal(like.mean, torch.ones(3))
    real = move(config, OuterState(torch.ones(3)), torch.randn(3))
    assert {name: tensor.shape for name, tensor in like.optimizer.items()} == {
        name: tensor.shape for name, tensor in real.optimizer.items()
    }


@pytest.mark.parametrize("gradient", [torch.tensor([torch.nan, 0.0]), torch.tensor([torch.inf, 0.0])])
def test_weights_that_would_not_be_finite_are_refused(gradient):
    with pytest.raises(MetaTrainingError, match="no longer finite after generation 5; lower learning_rate") as error:
        move(OuterConfig(optimizer="sgd"), OuterState(torch.ones(2), 4), gradient)
    assert "\n" not in str(error.value)
