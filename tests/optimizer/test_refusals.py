"""Invariant 10: set-ups that cannot work are refused before training, in one sentence that names the way out."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.distributed.tensor import DTensor, Shard, init_device_mesh

from hf_l3rs import L3RS
from hf_l3rs.errors import UnsupportedSetupError
from hf_l3rs.optimizer.parameters import refuse_sharding, refuse_sparse_modules
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


def test_sparse_gradients_are_refused():
    """Invariant 10."""
    model = nn.Embedding(5, 3, sparse=True)
    optimizer = L3RS(model, num_training_steps=20)
    model(torch.tensor([1])).sum().backward()
    before = model.weight.detach().clone()
    with pytest.raises(UnsupportedSetupError) as caught:
        optimizer.step(1.0)
    assert_one_sentence(caught, "sparse=False")
    assert torch.equal(model.weight, before)


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


def test_no_engine_is_refused_without_reason(monkeypatch):
    for engine in ("DEEPSPEED", "FSDP"):
        monkeypatch.setenv(f"ACCELERATE_USE_{engine}", "false")
    refuse_sharding()
