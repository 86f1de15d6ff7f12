"""How the loss reaches the optimizer: reported or hooked, shares or means, and nobody else's."""

import copy
import gc
import io
import math
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from hf_l3rs.optimizer.loss import LossObserver
from tests.tiny import learned_optimizer


CPU = torch.device("cpu")


class Classifier(nn.Module):
    """Returns what a model of transformers may: a mapping, or a tuple that starts with the loss."""

    def __init__(self, kind="dict"):
        super().__init__()
        self.linear = nn.Linear(4, 3)
        self.kind = kind

    def forward(self, inputs, labels=None, num_items_in_batch=None):
        logits = self.linear(inputs)
        if labels is None:
            return {"logits": logits} if self.kind == "dict" else (logits,)
        reduction = "mean" if num_items_in_batch is None else "sum"
        loss = nn.functional.cross_entropy(logits, labels, reduction=reduction)
        loss = loss if num_items_in_batch is None else loss / num_items_in_batch
        return {"loss": loss, "logits": logits} if self.kind == "dict" else (loss, logits)


def batch(size=6):
    return {"inputs": torch.randn(size, 4), "labels": torch.arange(size) % 3}


def loss_of(output):
    return output["loss"] if isinstance(output, dict) else output[0]


def test_means_are_averaged_and_shares_are_summed():
    observer = LossObserver()
    observer.add(1.0)
    observer.add(torch.tensor([2.0], requires_grad=True))
    assert len(observer) == 2
    assert observer.take(CPU).item() == 1.5
    for share in (1.0, 2.0):
        observer.add(share, is_share=True)
    assert observer.take(CPU).item() == 3.0
    assert observer.take(CPU) is None


@pytest.mark.parametrize("is_share", [False, True])
@pytest.mark.parametrize("blank", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_does_not_count(blank, is_share):
    """The loss is that of the other micro-batches; shares of a step stand for the missing ones too."""
    observer = LossObserver()
    for loss in (1.0, blank, 2.0):
        observer.add(loss, is_share)
    assert observer.take(CPU).item() == (4.5 if is_share else 1.5)
    for count in (1, 2):
        for _ in range(count):
            observer.add(blank, is_share)
        loss = observer.take(CPU)
        assert loss.shape == () and loss.isnan()


class _Waits(TorchDispatchMode):
    """Fails where the host would wait for a value on the device."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func is not torch.ops.aten._local_scalar_dense.default, "waits for the device"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("is_share", [False, True])
@pytest.mark.parametrize("count", [0, 1, 3])
def test_taking_a_loss_does_not_wait_for_the_device(other_rank, count, is_share):
    other_rank.adds = [3.0, 1.0]
    for synchronize in (False, True):
        observer = LossObserver(synchronize)
        losses = [torch.tensor(1.0)] * count
        with _Waits():
            for loss in losses:
                observer.add(loss, is_share)
            observer.take(CPU)
    with pytest.raises(AssertionError, match="waits"), _Waits():
        losses = torch.ones(()).item()


@pytest.mark.parametrize("loss", [1, np.float32(1), np.array(1.0), torch.ones(1, 1), torch.tensor(1)], ids=repr)
def test_whatever_is_a_number_is_taken(loss):
    observer = LossObserver()
    observer.add(loss)
    assert torch.equal(observer.take(CPU), torch.tensor(1.0))


@pytest.mark.parametrize("kind", ["dict", "tuple"])
def test_hook_reads_training_losses(kind):
    model, observer = Classifier(kind), LossObserver()
    observer.watch(model)
    losses = [loss_of(model(**batch())).item() for _ in range(3)]
    assert observer.take(CPU).item() == pytest.approx(sum(losses) / 3)


def test_hook_sums_shares():
    model, observer = Classifier(), LossObserver()
    observer.watch(model, share_scale=0.5)
    losses = [model(**batch(), num_items_in_batch=12)["loss"].item() for _ in range(2)]
    assert observer.take(CPU).item() == pytest.approx(0.5 * sum(losses))


def test_hook_ignores_all_but_training():
    model, observer = Classifier(), LossObserver()
    observer.watch(model)
    model(torch.randn(2, 4))  # no labels, no loss
    with torch.no_grad():
        model(**batch())
    model.eval()(**batch())
    model.train()
    model.kind = "tuple"
    model(torch.randn(2, 4))  # a tuple that does not start with a loss
    assert observer.take(CPU) is None


def test_unwatch_and_watching_again():
    model, observer = Classifier(), LossObserver()
    observer.watch(model)
    observer.watch(model)
    model(**batch())
    assert len(observer) == 1
    observer.watch(Classifier())
    model(**batch())
    assert len(observer) == 1
    observer.watch(model)
    observer.unwatch()
    model(**batch())
    assert len(observer) == 1 and not model._forward_hooks


def test_hook_does_not_keep_the_optimizer_alive():
    model, observer = Classifier(), LossObserver()
    observer.watch(model)
    del observer
    gc.collect()
    assert loss_of(model(**batch())).isfinite()


def pickled(value):
    return pickle.loads(pickle.dumps(value))


def saved(value):
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, pickled, saved], ids=["deepcopy", "pickle", "torch.save"])
def test_copies_of_a_watched_model_feed_nobody(duplicate):
    model, observer = Classifier(), LossObserver()
    observer.watch(model)
    twin = duplicate(model)
    assert loss_of(twin(**batch())).isfinite()
    assert observer.take(CPU) is None
    model(**batch())
    assert len(observer) == 1


def test_loss_given_to_step_replaces_what_was_seen():
    model = Classifier()
    optimizer = learned_optimizer(model).bind(model, num_training_steps=3)
    optimizer.observe_loss(100.0)
    model(**batch())["loss"].backward()
    optimizer.step(1.0)  # log 1 = 0
    assert all((state["ema"][0] == 0).all() for state in optimizer.state.values())
    assert len(optimizer.loss_observer) == 0


def test_nothing_is_communicated_without_processes(monkeypatch):
    """Invariant 9, the part of one process: no collective is called where there is nobody to talk to."""

    def refuse(*args, **kwargs):
        raise AssertionError("a collective was called")

    monkeypatch.setattr(torch.distributed, "all_reduce", refuse)
    observer = LossObserver()
    observer.add(1.0)
    assert observer.take(CPU).item() == 1.0


@pytest.fixture
def other_rank(monkeypatch):
    """Stands for a second process that adds what the test sets, and records what the collective was given."""
    other = SimpleNamespace(adds=[], calls=[])

    def all_reduce(tensor):
        other.calls.append(tuple(tensor.shape))
        tensor.add_(torch.tensor(other.adds))

    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_reduce", all_reduce)
    return other


@pytest.mark.parametrize(("synchronize", "expected"), [(True, 2.0), (False, 1.0)])
def test_loss_is_averaged_over_processes(other_rank, synchronize, expected):
    """Invariant 9: all ranks see the mean of their losses, through one sum of two numbers, the second a count."""
    other_rank.adds = [3.0, 1.0]
    observer = LossObserver(synchronize)
    observer.add(1.0)
    assert observer.take(CPU).item() == expected
    assert other_rank.calls == ([(2,)] if synchronize else [])


@pytest.mark.parametrize("given", [[], [math.nan], [math.inf, math.nan]], ids=str)
@pytest.mark.parametrize(("adds", "expected"), [([3.0, 1.0], 3.0), ([0.0, 0.0], math.nan)], ids=["one", "none"])
def test_a_process_without_a_loss_asks_all_the_same(other_rank, given, adds, expected):
    """Invariant 9: it takes part in the collective, or the others would wait for it forever, and adds nothing."""
    other_rank.adds = adds
    observer = LossObserver()
    for loss in given:
        observer.add(loss)
    assert observer.take(CPU).item() == pytest.approx(expected, nan_ok=True)
    assert other_rank.calls == [(2,)]


def test_all_processes_ask_whether_one_saw_a_loss(other_rank):
    observer = LossObserver()
    other_rank.adds = 0.0
    assert observer.is_blind(CPU)
    observer.add(1.0)
    assert not observer.is_blind(CPU)
    observer.clear()
    other_rank.adds = 1.0
    assert not observer.is_blind(CPU)
    assert other_rank.calls == [()] * 3
    alone = LossObserver(synchronize=False)
    assert alone.is_blind(CPU)
    alone.add(1.0)
    assert not alone.is_blind(CPU) and len(other_rank.calls) == 3
