"""The stock Trainer builds an L3RS itself, for every model that it gets or makes."""

import pytest
import torch
from transformers import EarlyStoppingCallback, Trainer

from hf_l3rs import L3RS, L3RSArtifact, L3RSFactory
from hf_l3rs.errors import BindingError, ConfigError
from hf_l3rs.trainer.callback import unwrap_optimizer
from tests.tiny import (
    RandomImages,
    Recorder,
    assert_same,
    learned_optimizer,
    parameters,
    tiny_resnet,
    tiny_vit,
    trained_network,
    training_arguments,
)
from tests.trainer.stock import search, stock_trainer


def building_trainer(folder, model=None, model_init=None, callbacks=(), **kwargs):
    """A stock Trainer that builds its L3RS; `kwargs` are those of the factory and, by `args`, of the run."""
    args = kwargs.pop("args", {})
    kwargs.setdefault("l3rs", trained_network(tiny_vit()))
    trainer = Trainer(
        model=model,
        model_init=model_init,
        args=training_arguments(folder, **args),
        train_dataset=RandomImages(32),
        eval_dataset=RandomImages(4),
        optimizer_cls_and_kwargs=(L3RSFactory, kwargs),
        callbacks=[recorder := Recorder(), *callbacks],
    )
    trainer.recorder = recorder
    return trainer


def test_equals_an_optimizer_that_is_passed(tmp_path):
    built = building_trainer(tmp_path, tiny_vit())
    passed = stock_trainer(tiny_vit(), tmp_path)
    for trainer in (built, passed):
        trainer.train()
    assert_same(parameters(built.model), parameters(passed.model))
    assert built.recorder.rates == [1.0] * 4
    assert "l3rs/mixture_adam" in built.state.log_history[0]


def test_hyperparameter_search(tmp_path, monkeypatch):
    runs = search(building_trainer(tmp_path, model_init=lambda: tiny_vit()), monkeypatch)
    assert [run[1:] for run in runs] == [(2, 2), (3, 3)]
    assert runs[0][0] is not runs[1][0]


@pytest.mark.parametrize("kind", ["L3RS", "network", "artifact", "folder"])
def test_takes_whatever_holds_a_learned_optimizer(kind, tmp_path):
    model = tiny_vit()
    template = learned_optimizer(model)
    template.save_pretrained(tmp_path)
    given = {
        "L3RS": template,
        "network": template.network,
        "artifact": L3RSArtifact(template.network, commit_hash="abc"),
        "folder": tmp_path,
    }
    options = {"lr": 0.5} if kind == "folder" else {}
    own = L3RSFactory()(model, l3rs=given[kind], **options)
    assert isinstance(own, L3RS) and own is not template and own.is_bound and not template.is_bound
    assert own.network.fingerprint() == template.network.fingerprint()
    assert own.commit_hash == ("abc" if kind == "artifact" else None)
    assert own.param_groups[0]["lr"] == (0.5 if kind == "folder" else 1.0)


def test_what_is_no_learned_optimizer_is_refused(tmp_path):
    model = tiny_vit()
    for kwargs, match in (
        ({}, "got NoneType; load one"),
        ({"l3rs": 3}, "got int"),
        ({"l3rs": trained_network(model), "lr": 2.0}, "options lr are for loading"),
    ):
        with pytest.raises(ConfigError, match=match):
            L3RSFactory()(model, **kwargs)
    with pytest.raises(BindingError, match="minimum_fit"):
        L3RSFactory()(tiny_resnet(), l3rs=trained_network(model))
    trainer = Trainer(model, training_arguments(tmp_path), optimizer_cls_and_kwargs=(L3RS, {}))
    with pytest.raises(BindingError, match="names of the parameters.*L3RSFactory"):
        trainer.create_optimizer()


def test_early_stopping_ends_the_run_and_the_best_model_is_loaded(tmp_path):
    args = {
        "max_steps": 12,
        "eval_strategy": "steps",
        "eval_steps": 2,
        "save_strategy": "steps",
        "save_steps": 2,
        "load_best_model_at_end": True,
        "metric_for_best_model": "flat",
    }
    own = {"l3rs": trained_network(tiny_resnet())}
    trainer = building_trainer(tmp_path, tiny_resnet(), callbacks=[EarlyStoppingCallback(2)], args=args, **own)
    trainer.compute_metrics = lambda prediction: {"flat": 1.0}
    trainer.train()
    assert trainer.state.global_step == 6 and trainer.state.best_global_step == 2
    optimizer = unwrap_optimizer(trainer.optimizer)
    assert optimizer.param_groups[0]["step"] == 6 and optimizer.param_groups[0]["num_training_steps"] == 12
    saved = type(trainer.model).from_pretrained(tmp_path / "checkpoint-2")
    assert_same(parameters(trainer.model), parameters(saved))
    assert not trainer.model._forward_hooks
    assert all(torch.isfinite(param).all() for param in trainer.model.parameters())
