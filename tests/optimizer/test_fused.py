"""The fused step: equal to the plain one but for rounding, exact from run to run, and plain with a word why."""

import copy
import io
import logging
import shutil

import pytest
import torch
from torch import nn

from hf_l3rs import L3RS
from hf_l3rs.optimizer import fused
from hf_l3rs.optimizer.directions import DIRECTIONS
from tests.tiny import assert_same, trained_network


NUM_STEPS = 12

needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")


@pytest.fixture(autouse=True)
def compiled_anew_for_small_chunks(monkeypatch):
    fused._compiled.cache_clear()
    monkeypatch.setattr(fused, "CHUNK", 8192)  # so that a layer has several


def make_model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.GroupNorm(1, 3), nn.Flatten(), nn.Linear(12, 3000), nn.Linear(1, 1))


def make_optimizer(model, is_fused=True, **config):
    return L3RS(model, network=trained_network(model, **config), num_training_steps=NUM_STEPS, fused=is_fused)


def train(model, optimizer, steps, absent=True):
    """One layer's gradient is absent at first, another's is zero, and one's is once no number."""
    for k in steps:
        generator = torch.Generator().manual_seed(k)
        for index, param in enumerate(model.parameters()):
            param.grad = 0.1 * torch.randn(param.shape, generator=generator)
            if index == 1 and k < 3:
                param.grad = torch.zeros_like(param)
            if index == 4 and k == 5:
                param.grad[7, 3] = torch.nan
            if index == 0 and absent and k in (0, 7):
                param.grad = None
        optimizer.step(1.0 / (k + 1))


def everything(model, optimizer):
    return [*model.parameters(), *(value for state in optimizer.state.values() for value in state.values())]


def is_fused(optimizer):
    return all(binding._fused is not None for binding in optimizer._bindings._made.values())


CONFIGS = {
    "adam, sgd": {"directions": ("adam", "sgd")},
    "all": {"directions": ("momentum", "rmsprop", "sgd", "adam"), "step_reference": "relative"},
    "sgd": {"directions": ("sgd",)},
    "annealed": {"directions": ("adam", "sgd"), "anneal_long_runs": True, "num_training_steps": 1},
    "betas": {"directions": ("adam", "momentum"), "adam_betas": (0.0, 0.5), "momentum": 0.3, "adam_eps": 1e-3},
}


@needs_compiler
@pytest.mark.parametrize("name", CONFIGS)
def test_equals_the_plain_step(name, caplog):
    """Invariant 3, over steps with gradients that are absent, zero, or no number."""
    runs = []
    for fuse in (False, True):
        model = make_model()
        optimizer = make_optimizer(model, fuse, **CONFIGS[name])
        train(model, optimizer, range(NUM_STEPS))
        runs.append((model, optimizer))
    assert is_fused(runs[1][1]) and not is_fused(runs[0][1])
    for plain, other in zip(*(everything(*run) for run in runs)):
        torch.testing.assert_close(other, plain, rtol=1e-6, atol=1e-6)
    assert "skipped_layers" not in runs[1][1].statistics()
    told = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len([text for text in told if "not numbers" in text]) == 2  # one of each run
    assert len(told) == (4 if name == "annealed" else 2)  # which is far beyond meta-training, too


@needs_compiler
def test_statistics_of_a_skipped_layer_are_the_plain_ones():
    told = []
    for fuse in (False, True):
        model = make_model()
        optimizer = make_optimizer(model, fuse)
        train(model, optimizer, range(6))
        told.append(optimizer.statistics())
    assert told[0]["skipped_layers"] == 1 and told[1] == pytest.approx(told[0], rel=1e-5)


@needs_compiler
@pytest.mark.parametrize("way", ["state_dict", "deepcopy"])
def test_resumed_equals_uninterrupted(way):
    """Invariant 4, bit for bit."""
    whole = make_model()
    train(whole, optimizer := make_optimizer(whole), range(NUM_STEPS))
    half = make_model()
    train(half, first := make_optimizer(half), range(5))
    if way == "deepcopy":
        half, second = copy.deepcopy((half, first))
        assert second.fused
    else:
        file = io.BytesIO()
        torch.save(first.state_dict(), file)
        file.seek(0)
        second = make_optimizer(half)
        second.load_state_dict(torch.load(file, weights_only=True))
    train(half, second, range(5, NUM_STEPS))
    assert is_fused(second)
    assert_same(everything(whole, optimizer), everything(half, second))


@needs_compiler
def test_gradients_are_read_only_and_may_lie_anywhere():
    """Another order of elements, and an odd address, change no bit; neither does the number of threads."""
    ends, threads = [], torch.get_num_threads()
    for move in (lambda grad: grad, _transposed, _at_an_odd_address):
        model = make_model()
        optimizer = make_optimizer(model)
        try:
            torch.set_num_threads(threads if move is not _transposed else 2)
            for k in range(3):
                generator = torch.Generator().manual_seed(k)
                for param in model.parameters():
                    param.grad = move(torch.randn(param.shape, generator=generator))
                before = [param.grad.clone() for param in model.parameters()]
                optimizer.step(1.0)
                assert_same(before, [param.grad for param in model.parameters()])
        finally:
            torch.set_num_threads(threads)
        assert is_fused(optimizer)
        ends.append(everything(model, optimizer))
    assert_same(ends[0], ends[1])
    assert_same(ends[0], ends[2])


def _transposed(grad):
    return grad.mT.contiguous().mT if grad.ndim > 1 else grad


def _at_an_odd_address(grad):
    memory = torch.empty(grad.numel() + 1)
    return memory[1:].view(grad.shape).copy_(grad)


@needs_compiler
def test_learning_rate_zero_changes_no_parameter():
    model = make_model()
    optimizer = make_optimizer(model)
    optimizer.param_groups[0]["lr"] = 0.0
    before = copy.deepcopy(list(model.parameters()))
    train(model, optimizer, range(3))
    assert_same(before, list(model.parameters()))


@needs_compiler
def test_autograd_knows_that_parameters_were_written():
    model = nn.Linear(3, 3)
    optimizer = make_optimizer(model)
    loss = model(torch.ones(1, 3, requires_grad=True)).sum()
    loss.backward(retain_graph=True)
    optimizer.step(loss)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@needs_compiler
def test_parameters_that_move_in_memory_are_followed(caplog):
    """Where parameters lie in another order than their state, steps are plain."""
    model = make_model()
    optimizer = make_optimizer(model)
    train(model, optimizer, range(3))
    model[0].weight.data = model[0].weight.data.clone()
    train(model, optimizer, range(3, 4))
    assert is_fused(optimizer)
    model.to(memory_format=torch.channels_last)
    train(model, optimizer, range(4, 5))
    assert not is_fused(optimizer) and "lies as they do" in caplog.text


@needs_compiler
def test_channels_last_is_fused():
    ends = []
    for fuse in (False, True):
        model = make_model().to(memory_format=torch.channels_last)
        train(model, optimizer := make_optimizer(model, fuse), range(4))
        ends.append(everything(model, optimizer))
    assert is_fused(optimizer)
    for plain, other in zip(*ends):
        torch.testing.assert_close(other, plain, rtol=1e-6, atol=1e-6)


def test_every_direction_is_fused_or_known_not_to_be():
    assert DIRECTIONS.keys() - fused._VALUES.keys() == {"adabelief", "muon", "sign"}


PLAIN = {
    "directions": ({"directions": ("adam", "muon")}, torch.float32, "but this L3RS has muon"),
    "averaging": ({"averaging": True}, torch.float32, "but this L3RS has averaging"),
    "mixture": ({"normalize_mixture": True}, torch.float32, "but this L3RS has normalize_mixture"),
    "double": ({}, torch.float64, "got float64 on cpu"),
}


@pytest.mark.parametrize("name", PLAIN)
def test_what_cannot_be_fused_is_plain_with_one_warning(name, caplog):
    config, dtype, words = PLAIN[name]
    ends = []
    for fuse in (False, True):
        model = make_model()
        optimizer = make_optimizer(model, fuse, **config)
        model.to(dtype)
        for k in range(3):
            for param in model.parameters():
                param.grad = torch.full_like(param, 0.1 * k)
            optimizer.step(1.0)
        ends.append(everything(model, optimizer))
    assert_same(*ends)
    assert words in caplog.text and caplog.text.count("the plain step is taken") == 1


def test_without_a_compiler_steps_are_plain(monkeypatch, caplog):
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", "")
    model = make_model()
    train(model, make_optimizer(model), range(4))
    assert caplog.text.count("needs a C compiler with OpenMP, such as gcc, but found none") == 1


def test_a_compiler_that_fails_is_quoted(monkeypatch, caplog):
    monkeypatch.setenv("CC", "false")
    model = make_model()
    train(model, make_optimizer(model), range(1))
    assert "but false failed" in caplog.text and "the plain step is taken" in caplog.text
