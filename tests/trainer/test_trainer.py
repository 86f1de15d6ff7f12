import math
from pathlib import Path

import pytest
import torch
from transformers import Trainer

from hf_l3rs import L3RS, L3RSTrainer
from hf_l3rs.errors import ConfigError
from hf_l3rs.trainer.callback import unwrap_optimizer
from tests.tiny import (
    MODELS,
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


def l3rs_trainer(model, folder, cls=L3RSTrainer, size=32, args=None, **kwargs):
    recorder = Recorder()
    if "optimizers" not in kwargs:
        kwargs.setdefault("l3rs", learned_optimizer(model if model is not None else kwargs["model_init"]()))
    trainer = cls(
        model=model,
        args=training_arguments(folder, **(args or {})),
        train_dataset=RandomImages(size),
        callbacks=[recorder],
        **kwargs,
    )
    trainer.recorder = recorder
    return trainer


def _summed_cross_entropy(outputs, labels, num_items_in_batch=None):
    return torch.nn.functional.cross_entropy(outputs.logits, labels, reduction="sum") / num_items_in_batch


class _OwnLoss(L3RSTrainer):
    loss_is_scaled_for_ga = False

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        labels = inputs.pop("labels")
        outputs = model(**inputs)
        loss = 2 * torch.nn.functional.cross_entropy(outputs.logits, labels)
        return (loss, outputs) if return_outputs else loss


@pytest.mark.parametrize("make, accumulation", [(tiny_resnet, 4), (tiny_vit, 1), (tiny_vit, 4)])
@pytest.mark.parametrize("kind", ["plain", "label_smoothing", "compute_loss_func", "compute_loss"])
def test_every_loss_is_seen(kind, make, accumulation, tmp_path, seen_losses):
    args = {"gradient_accumulation_steps": accumulation, "max_steps": -1, "num_train_epochs": 1}
    if kind == "label_smoothing":
        args["label_smoothing_factor"] = 0.1
    kwargs = {"compute_loss_func": _summed_cross_entropy} if kind == "compute_loss_func" else {}
    cls = _OwnLoss if kind == "compute_loss" else L3RSTrainer
    trainer = l3rs_trainer(make(), tmp_path, cls, size=40, args=args, **kwargs)
    trainer.train()
    assert len(seen_losses) == math.ceil(10 / accumulation)
    assert seen_losses == pytest.approx(trainer.recorder.losses, rel=1e-6)


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_equals_the_stock_trainer(make, tmp_path):
    runs = []
    for exact in (True, False):
        model = make()
        model_args = {"gradient_accumulation_steps": 2}
        if exact:
            trainer = l3rs_trainer(model, tmp_path, args=model_args)
        else:
            if make is tiny_resnet:
                model.accepts_loss_kwargs = False
            trainer = l3rs_trainer(
                model, tmp_path, Trainer, args=model_args, optimizers=(learned_optimizer(model), None)
            )
        trainer.train()
        runs.append((parameters(model), trainer.recorder.rates))
    torch.testing.assert_close(runs[0], runs[1], rtol=1e-4, atol=1e-6)


def test_loss_is_not_inflated(tmp_path, seen_losses, caplog):
    trainer = l3rs_trainer(tiny_resnet(), tmp_path, args={"gradient_accumulation_steps": 2})
    trainer.train()
    assert trainer.model_accepts_loss_kwargs is False
    assert max(trainer.recorder.losses) < 2.0  # log(4) is 1.39
    assert seen_losses == pytest.approx(trainer.recorder.losses, rel=1e-6)
    assert "accepts_loss_kwargs" not in caplog.text
    trainer = l3rs_trainer(tiny_vit(), tmp_path, args={"gradient_accumulation_steps": 2})
    trainer.train()
    assert trainer.model_accepts_loss_kwargs is True


def test_loads_a_folder(tmp_path):
    model = tiny_vit()
    optimizer = learned_optimizer(model)
    optimizer.save_pretrained(tmp_path / "l3rs")
    kwargs = {"l3rs": tmp_path / "l3rs", "l3rs_kwargs": {"lr": 0.5}}
    trainer = l3rs_trainer(model, tmp_path / "run", **kwargs)
    trainer.train()
    own = unwrap_optimizer(trainer.optimizer)
    assert own.network.fingerprint() == optimizer.network.fingerprint()
    assert trainer.recorder.rates == [0.5] * 4


def test_model_init_gets_an_optimizer_each(tmp_path):
    trainer = l3rs_trainer(None, tmp_path, model_init=lambda: tiny_vit(), size=4)
    runs = []
    for _ in range(2):
        trainer.train()
        own = unwrap_optimizer(trainer.optimizer)
        runs.append((own, parameters(trainer.model)))
        assert own.param_groups[0]["params"][0] is next(trainer.model.parameters())
        assert own.param_groups[0]["step"] == 4
    assert runs[0][0] is not runs[1][0]
    torch.testing.assert_close(runs[0][1], runs[1][1], rtol=1e-3, atol=1e-4)


def test_resumed_run_equals_the_uninterrupted(tmp_path):
    args = {"max_steps": 6, "label_smoothing_factor": 0.1, "gradient_accumulation_steps": 2}
    whole = l3rs_trainer(tiny_vit(), tmp_path / "whole", args={**args, "save_strategy": "steps", "save_steps": 3})
    whole.train()
    checkpoint = tmp_path / "whole" / "checkpoint-3"
    model = type(whole.model).from_pretrained(checkpoint)
    parts = l3rs_trainer(model, tmp_path / "parts", args=args, l3rs=learned_optimizer(tiny_vit()))
    parts.train(resume_from_checkpoint=str(checkpoint))
    assert_same(parameters(whole.model), parameters(parts.model))
    assert_same(unwrap_optimizer(whole.optimizer).state_dict(), unwrap_optimizer(parts.optimizer).state_dict())


def test_optimizers_with_exact_loss(tmp_path, seen_losses):
    model = tiny_resnet()
    named = [(name, param) for name, param in model.named_parameters() if name.startswith("classifier")]
    own = L3RS(named, network=trained_network(model))
    args = {"label_smoothing_factor": 0.1}
    trainer = l3rs_trainer(model, tmp_path, args=args, optimizers=(own, None))
    trainer.train()
    assert unwrap_optimizer(trainer.optimizer) is own
    assert seen_losses == pytest.approx(trainer.recorder.losses, rel=1e-6)


def test_choice_of_optimizer_is_checked(tmp_path):
    model = tiny_vit()
    args = training_arguments(tmp_path)
    own, other = learned_optimizer(model), torch.optim.SGD(model.parameters())
    for kwargs, match in (
        ({}, "no learned optimizer"),
        ({"optimizers": (other, None)}, "no learned optimizer"),
        ({"l3rs": own, "optimizers": (other, None)}, "both"),
        ({"l3rs": own, "optimizers": (own, None)}, "both"),
        ({"l3rs": own, "optimizer_cls_and_kwargs": (torch.optim.SGD, {})}, "both"),
        ({"l3rs": other}, "got SGD"),
    ):
        with pytest.raises(ConfigError, match=match):
            L3RSTrainer(model, args, **kwargs)


def test_model_card_names_the_optimizer(tmp_path):
    trainer = l3rs_trainer(tiny_vit(), tmp_path)
    trainer.train()
    trainer.create_model_card()
    card = Path(tmp_path, "README.md").read_text()
    assert "- optimizer: L3RS of the library hf_l3rs" in card
    assert "adam" not in card.lower() and "lr_scheduler" not in card and "- learning_rate" not in card
    assert "- seed: 42" in card and "- training_steps: 4" in card
