import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers.trainer
from transformers import Trainer, TrainerCallback

from hf_l3rs import L3RS, L3RSCallback
from hf_l3rs.errors import BindingError
from hf_l3rs.trainer.callback import register
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
from tests.trainer.stock import raw, stock_trainer


@pytest.mark.parametrize(("make", "accumulation"), [(tiny_resnet, 2), (tiny_resnet, 4), (tiny_vit, 1), (tiny_vit, 4)])
def test_loss_seen_is_the_trainers(make, accumulation, tmp_path, seen_losses):
    model = make()
    if make is tiny_resnet:
        model.accepts_loss_kwargs = False
    # 10 batches: with 4 a step, the last step of the epoch has 2
    args = {"gradient_accumulation_steps": accumulation, "max_steps": -1, "num_train_epochs": 1}
    trainer = stock_trainer(model, tmp_path, size=40, **args)
    trainer.train()
    assert len(seen_losses) == -(-10 // accumulation)
    assert seen_losses == pytest.approx(trainer.recorder.losses, rel=1e-6)


def test_inflated_loss_is_told(tmp_path, caplog):
    for make, changed, count in ((tiny_resnet, False, 1), (tiny_resnet, True, 0), (tiny_vit, False, 0)):
        caplog.clear()
        model = make()
        if changed:
            model.accepts_loss_kwargs = False
        stock_trainer(model, tmp_path, gradient_accumulation_steps=2, callbacks=[L3RSCallback()]).train()
        assert caplog.text.count("accepts_loss_kwargs = False") == count
        assert not model._forward_hooks


def test_logs_have_real_step_sizes(tmp_path):
    model = tiny_vit()
    trainer = stock_trainer(model, tmp_path, save_strategy="steps", save_steps=4)
    before = parameters(model)
    changes = []

    class Changes(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            after = parameters(model)
            changes.append([float((after[name] - before[name]).square().mean().sqrt()) for name in after])
            before.update(after)

    trainer.add_callback(Changes())
    trainer.train()
    logs = [logs for logs in trainer.recorder.logs if "loss" in logs]
    saved = json.loads(Path(tmp_path, "checkpoint-4", "trainer_state.json").read_text())["log_history"]
    for told, kept, change in zip(logs, saved, changes, strict=True):
        mixture = told["l3rs/mixture_adam"] + told["l3rs/mixture_sgd"]
        assert mixture == pytest.approx(1.0, abs=1e-5)
        assert 0 < told["l3rs/step_size_min"] <= told["learning_rate"] <= told["l3rs/step_size_max"]
        # the directions of a mixture may partly cancel, so a change is at most its step size
        assert max(change) <= told["l3rs/step_size_max"] * 1.001
        assert {name: kept[name] for name in told} == told
    assert len({told["learning_rate"] for told in logs}) == 4
    assert "learning_rate" not in trainer.state.log_history[-1]  # the summary of train() is no step


def _resumed(make, folder, **args):
    """Trains 6 steps in one go, and 3 + 3 through a checkpoint."""
    whole = stock_trainer(make(), folder / "whole", max_steps=6, save_strategy="steps", save_steps=3, **args)
    whole.train()
    checkpoint = folder / "whole" / "checkpoint-3"
    # from_pretrained, as the Trainer itself would drop the ViT weights that save_pretrained renames
    model = type(whole.model).from_pretrained(checkpoint)
    parts = stock_trainer(model, folder / "parts", learned_optimizer(make()), max_steps=6, **args)
    parts.train(resume_from_checkpoint=str(checkpoint))
    return whole, parts


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_resumed_run_equals_the_uninterrupted(make, tmp_path):
    whole, parts = _resumed(make, tmp_path, gradient_accumulation_steps=2)
    assert_same(parameters(whole.model), parameters(parts.model))
    assert_same(raw(whole).state_dict(), raw(parts).state_dict())
    keys = ("loss", "grad_norm", "learning_rate", "l3rs/mixture_adam")
    history = [[[logs[key] for key in keys] for logs in t.state.log_history if "loss" in logs] for t in (whole, parts)]
    assert history[0] == history[1]


def test_resume_without_optimizer_state(tmp_path, caplog):
    whole, parts = _resumed(tiny_resnet, tmp_path, save_only_model=True)
    assert "without a state of the optimizer" in caplog.text
    assert raw(parts).param_groups[0]["step"] == 6
    whole.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-3"))  # its optimizer is at step 6
    assert raw(whole).param_groups[0]["step"] == 6
    assert {int(state["step"]) for state in raw(whole).state.values()} == {3}


def _model_only_checkpoint(folder):
    trainer = stock_trainer(
        tiny_resnet(), folder, max_steps=6, save_strategy="steps", save_only_model=True, save_steps=6
    )
    trainer.train()
    return folder / "checkpoint-6"


def _take_steps(optimizer, model, steps):
    for _ in range(steps):
        model(pixel_values=torch.randn(2, 3, 8, 8), labels=torch.tensor([0, 1])).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize(("used_by", "steps"), [("hand", 6), ("trainer", 2), ("another trainer", 6)])
def test_leftover_state_is_not_taken_for_restored(used_by, steps, tmp_path, caplog):
    """A used optimizer, resumed where save_only_model left no state, starts with empty averages and says so."""
    checkpoint = _model_only_checkpoint(tmp_path / "first")
    model = tiny_resnet()
    optimizer = learned_optimizer(model)
    if used_by == "hand":
        _take_steps(optimizer.bind(model, num_training_steps=6), model, steps)
    else:
        trainer = stock_trainer(model, tmp_path, optimizer, max_steps=steps)
        trainer.train()
        trainer.args.max_steps = 8
    if used_by != "trainer":
        trainer = stock_trainer(model, tmp_path, optimizer, max_steps=8)
    assert optimizer.param_groups[0]["step"] == steps
    trainer.train(resume_from_checkpoint=str(checkpoint))
    assert caplog.text.count("without a state of the optimizer") == 1
    assert optimizer.param_groups[0]["step"] == 8
    assert {int(state["step"]) for state in optimizer.state.values()} == {2}


@pytest.mark.parametrize("when", ["unbound", "bound"])
def test_state_loaded_by_hand_is_restored(when, tmp_path, caplog):
    checkpoint = _model_only_checkpoint(tmp_path / "first")
    model = tiny_resnet()
    used = learned_optimizer(model).bind(model, num_training_steps=6)
    _take_steps(used, model, 6)
    torch.save(used.state_dict(), tmp_path / "optimizer.pt")
    optimizer = learned_optimizer(model)
    if when == "bound":
        optimizer.bind(model)
    optimizer.load_state_dict(torch.load(tmp_path / "optimizer.pt", weights_only=True))
    trainer = stock_trainer(model, tmp_path, optimizer, max_steps=8)
    trainer.train(resume_from_checkpoint=str(checkpoint))
    assert "without a state" not in caplog.text
    assert {int(state["step"]) for state in optimizer.state.values()} == {8}


def test_run_goes_on_from_its_own_last_checkpoint(tmp_path, caplog):
    """What is loaded then equals what is there, and is restored all the same."""
    trainer = stock_trainer(tiny_resnet(), tmp_path, max_steps=3, save_strategy="steps", save_steps=3)
    trainer.train()
    trainer.args.max_steps = 5
    for _ in range(2):  # the second time, the optimizer is beyond the checkpoint
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
        assert "without a state" not in caplog.text
        assert {int(state["step"]) for state in raw(trainer).state.values()} == {5}


def test_second_train_starts_over(tmp_path, seen_losses):
    model = tiny_resnet()
    start = {name: value.clone() for name, value in model.state_dict().items()}
    trainer = stock_trainer(model, tmp_path, size=4)  # one batch: no order of the data
    trainer.train()
    first = parameters(model), raw(trainer).state_dict()
    model.load_state_dict(start)
    trainer.train()
    torch.testing.assert_close(parameters(model), first[0], rtol=1e-3, atol=1e-4)  # images may change places
    assert raw(trainer).param_groups[0]["step"] == 4
    assert len(seen_losses) == 8 and None not in seen_losses
    assert not model._forward_hooks


def test_duplicate_callback_doubles_nothing(tmp_path):
    runs = []
    for callbacks in ([], [L3RSCallback()]):
        model = tiny_vit()
        trainer = stock_trainer(model, tmp_path, callbacks=callbacks, gradient_accumulation_steps=2)
        trainer.train()
        runs.append(({**parameters(model)}, raw(trainer).state_dict(), trainer.recorder.logs[:-1]))
        assert trainer.args.max_grad_norm == 1.0
    assert_same(*runs)


def test_auto_find_batch_size(tmp_path, seen_losses):
    model = tiny_resnet()
    forward = model.forward
    calls = []

    def limited(pixel_values=None, labels=None, **kwargs):
        calls.append(len(pixel_values))
        if len(pixel_values) > 4 and len(calls) > 2:
            raise RuntimeError("CUDA out of memory.")
        return forward(pixel_values=pixel_values, labels=labels)

    model.forward = limited
    trainer = stock_trainer(model, tmp_path, per_device_train_batch_size=8, auto_find_batch_size=True)
    trainer.train()
    assert calls[0] == 8 and calls[-1] <= 4
    assert raw(trainer).param_groups[0]["step"] == 4
    assert seen_losses[-4:] == pytest.approx(trainer.recorder.losses[-4:], rel=1e-6)
    assert trainer.args.max_grad_norm == 1.0


@pytest.mark.parametrize("given", ["to the constructor", "by bind", "by the Trainer"])
def test_layers_thawed_after_the_trainer_was_built(given, tmp_path):
    """Whoever gave the optimizer the model, what is trained is what is trainable when training begins."""
    model = tiny_vit()
    network = trained_network(model)
    model.vit.requires_grad_(False)
    optimizer = L3RS(model, network=network) if given == "to the constructor" else L3RS(network=network)
    if given == "by bind":
        optimizer.bind(model)
    trainer = stock_trainer(model, tmp_path, optimizer)
    assert optimizer.follows_model and len(optimizer.param_groups[0]["params"]) == 2
    model.vit.embeddings.requires_grad_(True)
    before = parameters(model)
    trainer.train()
    moved = {name for name, value in parameters(model).items() if not torch.equal(value, before[name])}
    assert moved == {name for name, param in model.named_parameters() if param.requires_grad}
    assert len(moved) > 2


@pytest.mark.parametrize("grouped", [False, True])
def test_chosen_parameters_stay_chosen(grouped, tmp_path):
    model = tiny_vit()
    named = [(name, param) for name, param in model.named_parameters() if name.startswith("classifier")]
    params = [{"params": named[:1]}, {"params": named[1:], "lr": 0.5}] if grouped else named
    trainer = stock_trainer(model, tmp_path, L3RS(params, network=trained_network(model)))
    before = parameters(model)
    trainer.train()
    moved = {name for name, value in parameters(model).items() if not torch.equal(value, before[name])}
    assert moved == {"classifier.weight", "classifier.bias"}
    assert [group["lr"] for group in raw(trainer).param_groups] == ([1.0, 0.5] if grouped else [1.0])


def test_parameters_of_another_model_are_refused(tmp_path):
    model, other = tiny_vit(), tiny_vit(1)
    bound = learned_optimizer(other).bind(other)
    for optimizer in (L3RS(tiny_vit(1)), L3RS(other), L3RS(other.named_parameters()), bound):
        with pytest.raises(BindingError, match="not of the Trainer's model"):
            stock_trainer(model, tmp_path, optimizer)


def test_optimizer_goes_on_to_another_model(tmp_path):
    optimizer = learned_optimizer(tiny_vit())
    for seed in (0, 1):
        model = tiny_vit(seed)
        before = parameters(model)
        trainer = stock_trainer(model, tmp_path, optimizer)
        trainer.train()
        assert raw(trainer) is optimizer
        assert all(not torch.equal(value, before[name]) for name, value in parameters(model).items())


def test_skipped_step_leaves_no_loss_behind(tmp_path):
    model = tiny_resnet()
    optimizer = learned_optimizer(model).bind(model, num_training_steps=4)
    optimizer.observe_loss(1.0)
    L3RSCallback().on_step_begin(training_arguments(tmp_path), None, None, optimizer=optimizer)
    assert not len(optimizer.loss_observer)


def test_other_optimizers_are_left_alone(tmp_path):
    register()
    runs = []
    for without in (True, False):
        model = tiny_resnet()
        recorder = Recorder()
        trainer = Trainer(
            model=model, args=training_arguments(tmp_path), train_dataset=RandomImages(), callbacks=[recorder]
        )
        if without:
            trainer.remove_callback(L3RSCallback)
        trainer.train()
        runs.append((parameters(model), recorder.rates, recorder.logs[:-1]))
    assert_same(*runs)


def test_callback_is_registered_once_and_not_by_a_quiet_l3rs(monkeypatch):
    callbacks = [each for each in transformers.trainer.DEFAULT_CALLBACKS if each is not L3RSCallback]
    monkeypatch.setattr(transformers.trainer, "DEFAULT_CALLBACKS", callbacks)
    L3RS(network=trained_network(tiny_vit()), quiet=True)  # as in meta-training
    assert L3RSCallback not in callbacks
    for _ in range(2):
        L3RS(tiny_vit())
    assert callbacks.count(L3RSCallback) == 1


FRESH_PROCESS = """
import pickle, sys
assert "transformers" not in sys.modules
with open(sys.argv[1], "rb") as file:
    optimizer = pickle.load(file)
assert not optimizer.is_bound
from tests.trainer.stock import stock_trainer
from tests.tiny import tiny_resnet
trainer = stock_trainer(tiny_resnet(), sys.argv[2], optimizer)
assert optimizer.is_bound
trainer.train()
assert trainer.recorder.rates == [1.0] * 4 and "l3rs/mixture_adam" in trainer.state.log_history[0]
"""


def test_unpickled_optimizer_meets_the_trainer_of_a_fresh_process(tmp_path):
    """It may be the first L3RS there, so that it is on it to register the callback."""
    with open(tmp_path / "optimizer.pkl", "wb") as file:
        pickle.dump(learned_optimizer(tiny_resnet()), file)
    done = subprocess.run(
        [sys.executable, "-c", FRESH_PROCESS, str(tmp_path / "optimizer.pkl"), str(tmp_path)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
