"""Gradients are clipped as in meta-training, whatever the user's arguments say, and the arguments stay the user's."""

import logging

import pytest
import torch
from transformers import Trainer, TrainerCallback

from hf_l3rs import L3RSCallback, L3RSTrainer
from tests.tiny import RandomImages, Recorder, learned_optimizer, tiny_resnet, trained_network, training_arguments
from tests.trainer.stock import stock_trainer


class _Gradients(TrainerCallback):
    """Compares the gradients that the optimizer will see with those that backward made."""

    def __init__(self, model):
        self.made, self.equal, self.norms = {}, [], []
        for name, param in model.named_parameters():
            param.register_post_accumulate_grad_hook(lambda p, name=name: self.made.update({name: p.grad.clone()}))

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.equal.append(all(torch.equal(p.grad, self.made[name]) for name, p in model.named_parameters()))
        self.norms.append(float(torch.cat([p.grad.flatten() for p in model.parameters()]).norm()))


def logged_norms(trainer):
    return [logs["grad_norm"] for logs in trainer.recorder.logs if "loss" in logs]


@pytest.mark.parametrize("given", [0.0, 1.0, float("inf")])
def test_gradients_are_not_clipped(given, tmp_path, caplog):
    caplog.set_level(logging.INFO, "hf_l3rs")
    model = tiny_resnet()
    gradients = _Gradients(model)
    trainer = stock_trainer(model, tmp_path, callbacks=[gradients], max_grad_norm=given)
    trainer.train()
    assert all(gradients.equal) and max(gradients.norms) > 1.0
    assert logged_norms(trainer) == pytest.approx(gradients.norms)
    assert trainer.args.max_grad_norm == given
    assert ("max_grad_norm" in caplog.text) == (given == 1.0)  # of those that do not clip, none is replaced


@pytest.mark.parametrize("given", [0.0, 0.01, 3.0])
def test_gradients_are_clipped_as_in_meta_training(given, tmp_path, caplog):
    model = tiny_resnet()
    gradients = _Gradients(model)
    optimizer = learned_optimizer(model, max_grad_norm=0.25)
    trainer = stock_trainer(model, tmp_path, optimizer, callbacks=[gradients, L3RSCallback()], max_grad_norm=given)
    trainer.train()
    assert gradients.norms == pytest.approx([0.25] * 4, rel=1e-3)
    assert min(logged_norms(trainer)) > 0.5  # before they were clipped
    assert trainer.args.max_grad_norm == given
    assert [record.levelname for record in caplog.records if "max_grad_norm=0.25" in record.message] == ["WARNING"]


class _OneInfinity(TrainerCallback):
    """Makes one element of one layer's gradient infinite in the second step."""

    def __init__(self, model):
        self.step = 0
        self.rest = []
        model.classifier[1].bias.register_hook(self._spoil)

    def _spoil(self, grad):
        self.step += 1
        return torch.full_like(grad, torch.inf) if self.step == 2 else grad

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        grads = [param.grad for name, param in model.named_parameters() if name != "classifier.1.bias"]
        self.rest.append(all(grad.isfinite().all() for grad in grads))


@pytest.mark.parametrize("given", [0.0, 1.0])
def test_an_infinite_gradient_spoils_no_other_layer(given, tmp_path):
    """Clipping to infinity, which the Trainer does where it only measures, makes every gradient NaN there."""
    model = tiny_resnet()
    gradients = _OneInfinity(model)
    stock_trainer(model, tmp_path, callbacks=[gradients], max_grad_norm=given, max_steps=2).train()
    assert gradients.rest == [True] * 2


@pytest.mark.parametrize("given", [0.0, 0.25])
def test_other_optimizers_are_clipped_as_the_user_says(given, tmp_path):
    """Also after the run of an L3RS that crashed, and so never gave the Trainer's methods back."""
    model = tiny_resnet()
    next(model.parameters()).register_hook(lambda grad: grad.no_such_attribute)
    crashed = stock_trainer(model, tmp_path)
    with pytest.raises(AttributeError):
        crashed.train()
    model = tiny_resnet()
    gradients, recorder = _Gradients(model), Recorder()
    args = training_arguments(tmp_path, max_grad_norm=given)
    trainer = Trainer(model=model, args=args, train_dataset=RandomImages(), callbacks=[gradients, recorder])
    trainer.recorder = recorder
    trainer.train()
    if given:
        assert gradients.norms == pytest.approx([given] * 4, rel=1e-3) and min(logged_norms(trainer)) > 0.5
    else:
        assert all(gradients.equal) and logged_norms(trainer) == pytest.approx(gradients.norms)


def test_two_trainers_clip_as_each_was_meta_trained(tmp_path):
    """A Trainer of an L3RS does not change what the next one does with the same arguments."""
    norms = []
    args = training_arguments(tmp_path)
    for max_norm in (0.25, None, 0.5):
        model = tiny_resnet()
        gradients = _Gradients(model)
        l3rs = trained_network(model, max_grad_norm=max_norm)
        trainer = L3RSTrainer(model, args, train_dataset=RandomImages(), callbacks=[gradients], l3rs=l3rs)
        trainer.train()
        norms.append(gradients.norms[0])
    assert norms[0] == pytest.approx(0.25, rel=1e-3) and norms[2] == pytest.approx(0.5, rel=1e-3)
    assert norms[1] > 0.5 and args.max_grad_norm == 1.0
