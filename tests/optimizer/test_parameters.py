"""What L3RS accepts to train: named parameters in groups, and for how long."""

import copy

import pytest
import torch
from torch import nn
from torch.distributed.tensor import DTensor, Shard, init_device_mesh

from hf_l3rs import L3RS
from hf_l3rs.errors import UnsupportedSetupError
from tests.tiny import trained_network


def make_model():
    return nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Linear(6, 3))


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
        with pytest.raises(UnsupportedSetupError, match="0.weight.*DDP"):
            make()


def test_sharding_after_binding_is_refused(mesh):
    """Invariant 10: Accelerate swaps the parameters of an optimizer that is prepared together with an FSDP2 model."""
    model = make_model()
    optimizer = L3RS(model, network=trained_network(model), num_training_steps=20)
    optimizer.param_groups[0]["params"] = [
        nn.Parameter(torch.distributed.tensor.distribute_tensor(param.detach(), mesh, [Shard(0)]))
        for param in model.parameters()
    ]
    for param in optimizer.param_groups[0]["params"]:
        param.grad = torch.ones_like(param)
    with pytest.raises(UnsupportedSetupError, match="DDP"):
        optimizer.step(1.0)


@pytest.mark.parametrize("name", ["_fsdp_wrapped_module.0.weight", "0._flat_param"])
def test_flattened_parameters_are_refused(name):
    """Invariant 10: FSDP1 shows in the names."""
    with pytest.raises(UnsupportedSetupError, match="DDP"):
        L3RS([(name, nn.Parameter(torch.ones(2)))])


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


def test_a_group_may_be_of_something_beside_the_model():
    model, extra = make_model(), nn.Parameter(torch.ones(2, 2))
    optimizer = L3RS(model, num_training_steps=2)
    optimizer.add_param_group({"params": [("other.weight", extra)]})
    assert [each.layer.name for each in optimizer.fit.layers][-1] == "other.weight"
    for param in (*model.parameters(), extra):
        param.grad = torch.ones_like(param)
    optimizer.step(1.0)
    assert not torch.equal(extra, torch.ones(2, 2))
