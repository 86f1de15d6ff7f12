"""What is recorded of a run is what the optimizer did, layer by layer."""

import pytest
import torch
from transformers import Trainer

from hf_l3rs import L3RS
from recipes.evidence.trajectory import TrajectoryRecorder
from tests.tiny import RandomImages, learned_optimizer, parameters, tiny_resnet, training_arguments


def test_steps_and_mixtures_are_those_that_were_taken():
    model = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Linear(6, 3))
    optimizer = learned_optimizer(model, directions=("sgd",)).bind(model, num_training_steps=5)
    with TrajectoryRecorder(optimizer) as recorder:
        for _ in range(2):
            before = parameters(model)
            loss = model(torch.ones(2, 4)).square().mean()
            loss.backward()
            optimizer.step(loss)
            optimizer.zero_grad()
    sizes = {name: param.numel() ** 0.5 for name, param in before.items()}
    moved = {name: (now - before[name]).norm() / sizes[name] for name, now in parameters(model).items()}
    last = {each.layer: each for each in recorder.decisions if each.step == 2}
    assert list(last) == list(moved) and len(recorder.decisions) == 8
    for name, size in moved.items():
        # with a single direction, of norm one, the update's size is λ
        assert last[name].relative_step * optimizer.config.base_step == pytest.approx(float(size), rel=1e-4)
    assert [each.depth for each in last.values()] == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert {each.mixture for each in recorder.decisions} == {(1.0,)}
    assert {each.num_training_steps for each in recorder.decisions} == {5}


def test_layers_without_a_gradient_are_left_out_and_shift_nothing():
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4), torch.nn.Linear(4, 4))
    optimizer = L3RS(model, num_training_steps=3)
    with TrajectoryRecorder(optimizer) as recorder:
        model[2](model[0](torch.ones(2, 4))).sum().backward()
        optimizer.step(1.0)
    assert [each.layer for each in recorder.decisions] == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert recorder.decisions[0].role == "linear.weight"
    for param in model.parameters():
        param.grad = torch.ones_like(param)
    optimizer.step(1.0)
    assert len(recorder.decisions) == 4, "it is over"


def test_runs_of_the_trainer_are_recorded(tmp_path):
    model = tiny_resnet()
    optimizer = learned_optimizer(model)
    args = training_arguments(tmp_path, max_steps=3)
    trainer = Trainer(model=model, args=args, train_dataset=RandomImages(), optimizers=(optimizer, None))
    with TrajectoryRecorder(optimizer) as recorder:
        trainer.train()
    assert [each.step for each in recorder.decisions if each.layer == "classifier.1.weight"] == [1, 2, 3]
    assert all(sum(each.mixture) == pytest.approx(1) for each in recorder.decisions)
    assert len({each.layer for each in recorder.decisions}) == len(list(model.parameters()))
