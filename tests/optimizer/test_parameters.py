"""What L3RS accepts to train: named parameters in groups, and for how long."""

import copy
import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.distributed.tensor import DTensor, Shard, init_device_mesh

from hf_l3rs import L3RS
from hf_l3rs.errors import BindingError, ConfigError, UnsupportedSetupError
from hf_l3rs.optimizer.parameters import refuse_sparse_modules
from tests.tiny import trained_network


def make_model():
    return nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Linear(6, 3))


def make_optimizer(num_training_steps=20):
    model = make_model()
    return model, L3RS(model, network=trained_network(model), num_training_steps=num_training_steps)


def assert_one_sentence(error, *words):
    message = str(error.value)
    assert message.endswith(".") and "\n" not in message
    assert all(word in message for word in words), message


@pytest.mark.parametrize("lr", [-1.0, math.nan, math.inf, "1", True, None])
def test_lr_is_validated(lr):
    with pytest.raises(ConfigError, match="lr is a multiplier"):
        L3RS(make_model(), lr=lr)
    with pytest.raises(ConfigError, match="lr is a multiplier"):
        L3RS([{"params": make_model(), "lr": lr}])


@pytest.mark.parametrize("steps", [0, -1, 1.5, "10", True])
def test_num_training_steps_is_validated(steps):
    for call in (
        lambda: L3RS(make_model(), num_training_steps=steps),
        lambda: L3RS(make_model()).bind(make_model(), num_training_steps=steps),
        lambda: L3RS([{"params": make_model(), "num_training_steps": steps}]),
    ):
        with pytest.raises(ConfigError, match="num_training_steps must be a whole number"):
            call()


def test_unknown_plan_is_refused_before_anything_changes():
    model, optimizer = make_optimizer(num_training_steps=None)
    for param in model.parameters():
        param.grad = torch.ones_like(param)
    with pytest.raises(BindingError, match="how many steps"):
        optimizer.step(1.0)
    assert optimizer.param_groups[0]["step"] == 0 and not optimizer.state


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: L3RS(make_model().parameters()), "names of the parameters"),
        (lambda: L3RS([{"params": list(make_model().parameters())}]), "names of the parameters"),
        (lambda: L3RS(network=trained_network(make_model())).bind(make_model().requires_grad_(False)), "frozen"),
        (lambda: L3RS(network=trained_network(make_model())).step(), "no parameters yet"),
        (lambda: L3RS([{"params": part} for part in (nn.Linear(2, 2), nn.Linear(2, 3))]), "Two parameters are named"),
    ],
)
def test_what_does_not_go_together_is_refused(make, words):
    """Invariant 10: one sentence that names the way out."""
    with pytest.raises(BindingError) as caught:
        make()
    assert_one_sentence(caught, words)


@pytest.mark.parametrize("cls", [nn.Embedding, nn.EmbeddingBag])
def test_modules_with_sparse_gradients_are_refused(cls):
    """Invariant 10: before a gradient tells."""
    model = nn.Sequential(nn.Linear(2, 2), cls(5, 3, sparse=True))
    with pytest.raises(UnsupportedSetupError) as caught:
        refuse_sparse_modules(model)
    assert_one_sentence(caught, "'1'", "sparse=False", "freeze")
    with pytest.raises(UnsupportedSetupError) as caught:
        refuse_sparse_modules(model[1])
    assert_one_sentence(caught, cls.__name__, "sparse=False")
    refuse_sparse_modules(model.requires_grad_(False))
    refuse_sparse_modules(nn.Sequential(cls(5, 3)))


@pytest.mark.parametrize("dtype", [torch.complex64, torch.int64], ids=str)
def test_parameters_that_are_no_real_numbers_are_refused(dtype):
    """Invariant 10."""
    param = SimpleNamespace(requires_grad=True, dtype=dtype, is_floating_point=lambda: False)
    with pytest.raises(UnsupportedSetupError) as caught:
        L3RS([("weight", param)])
    assert_one_sentence(caught, "weight", str(dtype))


@pytest.fixture
def mesh(tmp_path):
    """One process that is a mesh of its own, which talks through a file."""
    if not torch.distributed.is_gloo_available():
        pytest.skip("torch was built without gloo")
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    torch.distributed.destroy_process_group()


def test_sharded_parameters_are_refused(mesh):
    """Invariant 10: FSDP2 and tensor parallelism make parameters DTensors."""
    model = make_model()
    torch.distributed.fsdp.fully_shard(model, mesh=mesh)
    assert all(isinstance(param, DTensor) for param in model.parameters())
    network = trained_network(make_model())
    for make in (
        lambda: L3RS(model, network=network),
        lambda: L3RS(network=network).bind(model),
        lambda: L3RS(network=network).add_param_group({"params": model}),
    ):
        with pytest.raises(UnsupportedSetupError) as caught:
            make()
        assert_one_sentence(caught, "0.weight", "DDP in place of FSDP")


def test_sharding_after_binding_is_refused(mesh):
    """Invariant 10: Accelerate swaps the parameters of an optimizer that is prepared together with an FSDP2 model."""
    model, optimizer = make_optimizer()
    optimizer.param_groups[0]["params"] = [
        nn.Parameter(torch.distributed.tensor.distribute_tensor(param.detach(), mesh, [Shard(0)]))
        for param in model.parameters()
    ]
    for param in optimizer.param_groups[0]["params"]:
        param.grad = torch.ones_like(param)
    with pytest.raises(UnsupportedSetupError) as caught:
        optimizer.step(1.0)
    assert_one_sentence(caught, "DDP in place of FSDP")


@pytest.mark.parametrize("name", ["_fsdp_wrapped_module.0.weight", "0._flat_param"])
def test_flattened_parameters_are_refused(name):
    """Invariant 10: FSDP1 shows in the names."""
    with pytest.raises(UnsupportedSetupError) as caught:
        L3RS([(name, nn.Parameter(torch.ones(2)))])
    assert_one_sentence(caught, "DDP in place of FSDP")


@pytest.mark.parametrize("engine", ["DeepSpeed", "FSDP"])
@pytest.mark.parametrize("value", ["true", "1"])
def test_announced_engines_are_refused(engine, value, monkeypatch):
    """Invariant 10: before anything is prepared."""
    monkeypatch.setenv(f"ACCELERATE_USE_{engine.upper()}", value)
    with pytest.raises(UnsupportedSetupError) as caught:
        L3RS(network=trained_network(make_model())).bind(make_model())
    assert_one_sentence(caught, engine, "DDP")


def make_state(model, num_training_steps):
    optimizer = L3RS(model, network=trained_network(model), num_training_steps=num_training_steps)
    for param in model.parameters():
        param.grad = torch.ones_like(param)
    optimizer.step(1.0)
    return copy.deepcopy(optimizer.state_dict())


def test_the_plan_of_bind_wins_over_that_of_a_waiting_state():
    model = make_model()
    for asked, expected in ((1000, 1000), (None, 5)):
        optimizer = L3RS(network=trained_network(model))
        optimizer.load_state_dict(make_state(make_model(), num_training_steps=5))
        optimizer.bind(model, num_training_steps=asked)
        assert optimizer.param_groups[0]["num_training_steps"] == expected
        assert optimizer.param_groups[0]["step"] == 1


def test_an_optimizer_follows_the_model_that_it_was_given_in_whatever_way():
    model = make_model()
    network = trained_network(model)
    assert L3RS(model, network=network).follows_model
    assert L3RS(network=network).bind(model).follows_model
    assert not L3RS(model.named_parameters(), network=network).follows_model
    joined = L3RS(model[0], network=network, minimum_fit=0)
    joined.add_param_group({"params": [("other.weight", nn.Parameter(torch.ones(2, 2)))]})
    assert not joined.follows_model, "what is trained is now the caller's choice"


def test_a_group_may_be_of_something_beside_the_model():
    model, extra = make_model(), nn.Parameter(torch.ones(2, 2))
    optimizer = L3RS(model, num_training_steps=2)
    optimizer.add_param_group({"params": [("other.weight", extra)]})
    assert [each.layer.name for each in optimizer.fit.layers][-1] == "other.weight"
    for param in (*model.parameters(), extra):
        param.grad = torch.ones_like(param)
    optimizer.step(1.0)
    assert not torch.equal(extra, torch.ones(2, 2))
