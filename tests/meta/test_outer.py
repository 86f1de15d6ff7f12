import pytest
import torch

from hf_l3rs.errors import NothingToKeepError
from hf_l3rs.meta.outer import OPTIMIZERS, OuterConfig, OuterState, move, retreat


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_first_step_on_a_zero_gradient_moves_nothing_and_shows_the_optimizers_tensors(optimizer):
    config = OuterConfig(optimizer=optimizer)
    like = move(config, OuterState(torch.ones(3)), torch.zeros(3))
    assert torch.equal(like.mean, torch.ones(3))
    real = move(config, OuterState(torch.ones(3)), torch.randn(3))
    assert {name: tensor.shape for name, tensor in like.optimizer.items()} == {
        name: tensor.shape for name, tensor in real.optimizer.items()
    }


def test_a_retreat_goes_back_to_the_average_and_forgets_the_way():
    state, config = OuterState(torch.zeros(2)), OuterConfig(learning_rate=0.5, averaging=0.9)
    for _ in range(3):
        state = move(config, state, torch.ones(2))
    back = retreat(state)
    assert torch.equal(back.mean, state.average) and torch.equal(back.average, state.average)
    assert (back.generation, back.optimizer) == (4, {})
    assert torch.isfinite(move(config, back, torch.ones(2)).mean).all()
    assert torch.equal(retreat(OuterState(torch.ones(2))).mean, torch.ones(2))


@pytest.mark.parametrize("gradient", [torch.tensor([torch.nan, 0.0]), torch.tensor([torch.inf, 0.0])])
def test_weights_that_would_not_be_finite_are_refused(gradient):
    with pytest.raises(NothingToKeepError, match="no longer finite after generation 5; lower learning_rate") as error:
        move(OuterConfig(optimizer="sgd"), OuterState(torch.ones(2), 4), gradient)
    assert "\n" not in str(error.value)
