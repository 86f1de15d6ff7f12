"""The state: what is saved and resumed, in whatever way, goes on bit for bit as if nothing had happened."""

import copy
import io
import pickle

import pytest
import torch
import torch.distributed.checkpoint as dcp
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)

from hf_l3rs import L3RS
from hf_l3rs.errors import BindingError
from hf_l3rs.optimizer.directions import DIRECTIONS, buffer_names
from tests.tiny import assert_same, trained_network


DTYPES = [torch.float32, torch.float64, torch.bfloat16]
NUM_STEPS, BREAK = 8, 4


def make_model(dtype=torch.float32, num_labels=3):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Linear(6, num_labels)).to(dtype)


def make_network():
    return trained_network(make_model(), directions=tuple(DIRECTIONS))


def bound(model):
    return L3RS(network=make_network()).bind(model, num_training_steps=NUM_STEPS)


def train(model, optimizer, steps):
    """Random gradients, one of them absent now and then, but not around BREAK: there only the state links steps."""
    for k in steps:
        generator = torch.Generator().manual_seed(k)
        for index, param in enumerate(model.parameters()):
            grad = 0.1 * torch.randn(param.shape, generator=generator)
            param.grad = None if index == 1 and k in (1, 6) else grad.to(param.dtype)
        optimizer.step(1.0 / (k + 1))


def through_file(value):
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def by_torch_save(model, optimizer, folder):
    twin = copy.deepcopy(model)
    other = bound(twin)
    other.load_state_dict(through_file(optimizer.state_dict()))
    return twin, other


def by_groups_and_no_bind(model, optimizer, folder):
    twin = copy.deepcopy(model)
    other = L3RS(twin.named_parameters(), network=make_network())
    other.load_state_dict(through_file(optimizer.state_dict()))
    return twin, other


def before_bind(model, optimizer, folder):
    twin = copy.deepcopy(model)
    other = L3RS(network=make_network())
    other.load_state_dict(through_file(optimizer.state_dict()))
    return twin, other.bind(twin, num_training_steps=NUM_STEPS)


def before_bind_and_copied(model, optimizer, folder):
    twin = copy.deepcopy(model)
    other = L3RS(network=make_network())
    other.load_state_dict(optimizer.state_dict())
    return twin, pickle.loads(pickle.dumps(copy.deepcopy(other))).bind(twin)


def by_deepcopy(model, optimizer, folder):
    return copy.deepcopy((model, optimizer))


def by_pickle(model, optimizer, folder):
    return pickle.loads(pickle.dumps((model, optimizer)))


def by_accelerate(model, optimizer, folder):
    accelerator = Accelerator(cpu=True)
    accelerator.prepare(model, optimizer)
    accelerator.save_state(folder)
    accelerator = Accelerator(cpu=True)
    twin, other = accelerator.prepare(*(lambda new: (new, bound(new)))(make_model(next(model.parameters()).dtype)))
    accelerator.load_state(folder)
    return twin, other


def by_dcp(model, optimizer, folder, options=None, through=through_file):
    state_dict = through(get_optimizer_state_dict(model, optimizer, options=options))
    twin = copy.deepcopy(model)
    twin.zero_grad()
    other = bound(twin)
    set_optimizer_state_dict(twin, other, state_dict, options=options)
    return twin, other


def by_dcp_flattened(model, optimizer, folder):
    return by_dcp(model, optimizer, folder, StateDictOptions(flatten_optimizer_state_dict=True))


def by_dcp_file(model, optimizer, folder):
    dcp.save({"optimizer": get_optimizer_state_dict(model, optimizer)}, checkpoint_id=folder)
    twin = copy.deepcopy(model)
    twin.zero_grad()
    other = bound(twin)
    state_dict = {"optimizer": get_optimizer_state_dict(twin, other)}
    dcp.load(state_dict, checkpoint_id=folder)
    set_optimizer_state_dict(twin, other, state_dict["optimizer"])
    return twin, other


WAYS = [
    by_torch_save,
    by_groups_and_no_bind,
    before_bind,
    before_bind_and_copied,
    by_deepcopy,
    by_pickle,
    by_accelerate,
    by_dcp,
    by_dcp_flattened,
    by_dcp_file,
]


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("resume", WAYS, ids=lambda way: way.__name__)
def test_resumed_equals_uninterrupted(resume, dtype, tmp_path):
    """Invariant 4: parameters and state, bit for bit."""
    model = make_model(dtype)
    optimizer = bound(model)
    train(model, optimizer, range(NUM_STEPS))

    interrupted = make_model(dtype)
    first = bound(interrupted)
    train(interrupted, first, range(BREAK))
    resumed, second = resume(interrupted, first, str(tmp_path / "state"))
    train(resumed, second, range(BREAK, NUM_STEPS))

    second = getattr(second, "optimizer", second)
    assert_same(list(model.parameters()), list(resumed.parameters()))
    assert_same(optimizer.state_dict(), second.state_dict())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_state_is_float32_and_plain(dtype):
    """Invariant 4: float32 tensors (float64 of float64 parameters) and plain values, before and after a load."""
    model = make_model(dtype)
    optimizer = bound(model)
    train(model, optimizer, range(3))
    _, other = by_torch_save(model, optimizer, None)
    for state_dict in (optimizer.state_dict(), other.state_dict()):
        assert len(state_dict["state"]) == 6
        for state in state_dict["state"].values():
            assert state.keys() == {"step", "ema", *buffer_names(optimizer.config)}
            for name, value in state.items():
                assert value.dtype == (torch.float64 if dtype == torch.float64 and name != "step" else torch.float32)
        for group in state_dict["param_groups"]:
            values = {key: value for key, value in group.items() if key not in ("params", "param_names")}
            assert all(type(value) in (int, float, str) for value in values.values()), values


def test_state_is_8_bytes_a_parameter():
    """With the paper's directions; what is beside that is 52 bytes a layer."""
    model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64))
    optimizer = L3RS(model, num_training_steps=5)
    train(model, optimizer, [1, 2])
    num_bytes = sum(value.nbytes for state in optimizer.state.values() for value in state.values())
    assert num_bytes == 8 * sum(param.numel() for param in model.parameters()) + 52 * 4


@pytest.mark.parametrize("is_bound", [True, False])
def test_load_leaves_its_input_alone(is_bound):
    """Invariant 4: it is neither changed nor referred to, and serves twice."""
    model = make_model()
    optimizer = bound(model)
    train(model, optimizer, range(3))
    state_dict = optimizer.state_dict()
    before = copy.deepcopy(state_dict)
    ends = []
    for _ in range(2):
        twin = copy.deepcopy(model)
        other = bound(twin) if is_bound else L3RS(network=make_network())
        other.load_state_dict(state_dict)
        other.bind(twin)
        train(twin, other, range(3, 6))
        ends.append(list(twin.parameters()))
        assert_same(state_dict, before)
    assert_same(*ends)


def test_state_that_waits_for_bind_is_a_copy():
    """The run that gave the state goes on, in place, before the other is bound."""
    model = make_model()
    optimizer = bound(model)
    train(model, optimizer, range(3))
    twin, other = copy.deepcopy(model), L3RS(network=make_network())
    other.load_state_dict(optimizer.state_dict())
    train(model, optimizer, range(3, 6))
    train(twin, other.bind(twin), range(3, 6))
    assert_same(list(model.parameters()), list(twin.parameters()))


def test_unused_optimizer_survives_accelerate():
    """`AcceleratedOptimizer` loads the state of the optimizer into itself before the first step."""
    Accelerator(cpu=True)
    for make in (lambda model: bound(model), lambda model: L3RS(network=make_network())):
        ends = []
        for is_wrapped in (False, True):
            model = make_model(torch.bfloat16)
            optimizer = make(model)
            wrapped = AcceleratedOptimizer(optimizer, device_placement=True) if is_wrapped else optimizer
            if not optimizer.is_bound:
                optimizer.bind(model, num_training_steps=NUM_STEPS)
            train(model, wrapped, range(4))
            ends.append([param.detach() for param in model.parameters()])
        assert_same(*ends)


def test_accelerate_makes_no_steps_between_accumulated_batches():
    Accelerator(cpu=True)
    model = make_model()
    optimizer = AcceleratedOptimizer(bound(model))
    optimizer.gradient_state._set_sync_gradients(False)
    before = [param.detach().clone() for param in model.parameters()]
    train(model, optimizer, range(2))
    optimizer.gradient_state._set_sync_gradients(True)
    assert_same(before, [param.detach() for param in model.parameters()])
    assert optimizer.optimizer.param_groups[0]["step"] == 0


def test_other_layers_are_refused():
    model = make_model()
    optimizer = bound(model)
    train(model, optimizer, range(2))
    state_dict = optimizer.state_dict()
    smaller, larger_head = make_model()[:2], make_model(num_labels=5)
    for other, words in ((smaller, "checkpoint is of 6 layers, but the optimizer has 4"), (larger_head, "'2.weight'")):
        twin = L3RS(other, network=make_network())
        with pytest.raises(BindingError, match=words) as caught:
            twin.load_state_dict(state_dict)
        assert str(caught.value).endswith(".") and not twin.state
        with pytest.raises(BindingError, match=words):
            waiting = L3RS(network=make_network())
            waiting.load_state_dict(state_dict)
            waiting.bind(other)


def test_layers_unfrozen_since_binding_are_found():
    """The checkpoint is of the layers that are trainable now, not of those when the optimizer was bound."""
    model = make_model()
    optimizer = bound(model)
    train(model, optimizer, range(3))
    twin = copy.deepcopy(model)
    twin[0].requires_grad_(False)
    other = bound(twin)
    assert len(other.param_groups[0]["params"]) == 4
    twin[0].requires_grad_(True)
    other.load_state_dict(through_file(optimizer.state_dict()))
    for one, some in ((model, optimizer), (twin, other)):
        train(one, some, range(3, 6))
    assert_same(list(model.parameters()), list(twin.parameters()))


def test_wrapped_names_are_the_same_layers():
    model = make_model()
    optimizer = bound(torch.compile(model, backend="eager"))
    train(model, optimizer, range(2))
    other = bound(copy.deepcopy(model))
    other.load_state_dict(optimizer.state_dict())
    assert other.param_groups[0]["param_names"][0] == "0.weight"


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
def test_copies_are_whole_and_apart(duplicate):
    """Every public attribute is there, and training one leaves the other alone."""
    model = make_model()
    optimizer = L3RS(model, network=make_network(), lr=0.5, num_training_steps=NUM_STEPS, synchronize_loss=False)
    optimizer.commit_hash = "abc"
    train(model, optimizer, range(3))
    twin_model, twin = duplicate((model, optimizer))
    public = {name for name in vars(optimizer) if not name.startswith("_")}
    assert public <= vars(twin).keys()
    assert twin.commit_hash == "abc" and not twin.loss_observer.synchronize
    assert optimizer.defaults.items() <= twin.defaults.items()
    assert twin.network.fingerprint() == optimizer.network.fingerprint() and twin.config == optimizer.config
    before = copy.deepcopy(optimizer.state_dict())
    train(twin_model, twin, range(3, 5))
    assert_same(optimizer.state_dict(), before)
    assert not any(torch.equal(one, other) for one, other in zip(model.parameters(), twin_model.parameters()))


def test_dcp_makes_a_state_without_moving_parameters():
    """Invariant 2: DCP takes a step with zero gradients and lr = 0, before any plan is known."""
    model = make_model()
    optimizer = L3RS(network=make_network()).bind(model)
    before = [param.detach().clone() for param in model.parameters()]
    state_dict = get_optimizer_state_dict(model, optimizer)
    assert_same(before, [param.detach() for param in model.parameters()])
    assert len(state_dict["state"]) == 6
    assert all(state["step"] == 1 for state in state_dict["state"].values())
    assert all(value.isfinite().all() for state in state_dict["state"].values() for value in state.values())


@pytest.mark.skipif(torch.__version__ < "2.10", reason="strict=False is for optimizers, Adam too, from torch 2.10 on")
def test_dcp_where_a_layer_never_had_a_gradient():
    model = make_model()
    optimizer = bound(model)
    train(model[1:], optimizer, range(3))
    assert len(optimizer.state) == 4
    twin, other = by_dcp(model, optimizer, None, StateDictOptions(strict=False))  # as for Adam, torch asks for that
    for one, some in ((model, optimizer), (twin, other)):
        one.zero_grad()
        train(one[1:], some, range(3, 6))
    assert_same(list(model.parameters()), list(twin.parameters()))
