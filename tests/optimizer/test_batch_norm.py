import pytest
import torch

from hf_l3rs import L3RS
from hf_l3rs.optimizer.batch_norm import batch_norms, temporary_momentum
from tests.tiny import tiny_resnet, trained_network


def momenta(model):
    return {norm.momentum for norm in batch_norms(model)}


def test_a_momentum_for_a_while_is_over_after_an_error_too():
    model = tiny_resnet()
    with pytest.raises(KeyError), temporary_momentum(batch_norms(model), 0.5):
        assert momenta(model) == {0.5}
        raise KeyError
    assert momenta(model) == {0.1}
    with temporary_momentum(batch_norms(model), None):
        assert momenta(model) == {0.1}


@pytest.mark.parametrize("momentum, then", [(None, 0.1), (0.25, 0.25)])
def test_binding_sets_it_in_the_model(momentum, then):
    model = tiny_resnet()
    network = trained_network(model, batch_norm_momentum=momentum)
    L3RS(network=network).bind(model, num_training_steps=3)
    assert momenta(model) == {then}
    by_hand = tiny_resnet()
    L3RS(by_hand.named_parameters(), network=network, num_training_steps=3)
    assert momenta(by_hand) == {0.1}


def test_statistics_follow_faster():
    """What the momentum is for: the statistics are nearer to those of the last batch."""
    images, lags = torch.randn(16, 3, 8, 8, generator=torch.Generator().manual_seed(0)), []
    for momentum in (None, 0.5):
        model = tiny_resnet().train()
        L3RS(model, network=trained_network(model, batch_norm_momentum=momentum), num_training_steps=3)
        norm = model.resnet.embedder.embedder.normalization
        before = model.resnet.embedder.embedder.convolution(images).mean(dim=(0, 2, 3))
        model(pixel_values=images)
        lags.append(float((norm.running_mean - before).detach().norm()))
    assert lags[1] == pytest.approx(lags[0] * 0.5 / 0.9, rel=1e-4)
