"""Two optimizers at once: each moves what it should, and the sum is the sum."""

import pytest
import torch

from hf_l3rs.errors import ConfigError
from hf_l3rs.evaluation.combined import Combined, atmo, muon_beside_adam
from hf_l3rs.evaluation.trained_part import TrainedPart
from tests.meta.problems import make_model
from tests.tiny import tiny_resnet, tiny_vit


def with_gradients(model):
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    return model


def updates(make, model, num_steps=2):
    optimizer = make(TrainedPart(model), 0.01)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for _ in range(num_steps):
        optimizer.step()
    return {name: parameter.detach() - before[name] for name, parameter in model.named_parameters()}


def test_the_mixture_is_the_weighted_sum_of_both_updates():
    def alone(kind, **settings):
        return lambda part, rate: kind(part.parameters, lr=rate, **settings)

    mixed = updates(atmo, with_gradients(make_model()))
    adam = updates(alone(torch.optim.Adam), with_gradients(make_model()))
    sgd = updates(alone(torch.optim.SGD, momentum=0.9), with_gradients(make_model()))
    for name, update in mixed.items():
        torch.testing.assert_close(update, 0.5 * (adam[name] + sgd[name]), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("make_any", [tiny_resnet, tiny_vit])
def test_muon_moves_hidden_weights_and_adam_the_rest(make_any):
    pytest.importorskip("torch", "2.9")
    model = with_gradients(make_any())
    hidden = set(map(id, TrainedPart(model).hidden_weights))
    moved = updates(muon_beside_adam, model, 1)
    for name, parameter in model.named_parameters():
        update = moved[name].flatten(1) if parameter.ndim > 1 else moved[name]
        if id(parameter) not in hidden:  # Adam's first step has the size of the learning rate everywhere
            torch.testing.assert_close(update.abs(), torch.full_like(update, 0.01), rtol=1e-3, atol=1e-5)
            continue
        # all singular values are about as large: 0.2 of Adam's root mean square in all
        values = torch.linalg.svdvals(update) / (0.01 * 0.2 * max(update.shape) ** 0.5)
        assert values.min() > 0.4 and values.max() < 1.6, name


def test_muon_without_a_hidden_weight_is_refused():
    model = make_model()
    with pytest.raises(ConfigError, match="Muon needs hidden weights.*name another baseline") as error:
        muon_beside_adam(TrainedPart(model, head_only=True), 0.01)
    assert "\n" not in str(error.value)


def test_an_older_torch_has_no_muon(monkeypatch):
    monkeypatch.delattr("torch.optim.Muon")
    with pytest.raises(ConfigError, match=r"Muon needs torch 2\.9 or newer, got .*; upgrade it"):
        muon_beside_adam(TrainedPart(make_model()), 0.01)


def test_schedulers_and_closures_reach_all_of_them():
    weight = torch.nn.Parameter(torch.ones(2, 2))
    optimizer = Combined([torch.optim.Adam([weight], lr=0.1), torch.optim.SGD([weight], lr=0.2)], weights=[1, 1])
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)

    def closure():
        optimizer.zero_grad()
        loss = weight.sum()
        loss.backward()
        return loss

    assert optimizer.step(closure) == 4.0
    assert torch.allclose(weight, torch.full((2, 2), 0.7))
    scheduler.step()
    assert [group["lr"] for each in optimizer.optimizers for group in each.param_groups] == [0.05, 0.1]
    assert "lr" not in optimizer.defaults["SGD"] and optimizer.defaults["weights"] == [1, 1]
