"""The L3RS that a run starts from, and what tells one run from another."""

import pytest
import torch
from torch import nn

from hf_l3rs import L3RS, describe_layers
from hf_l3rs.errors import ConfigError
from hf_l3rs.hub.artifact import save_network
from hf_l3rs.meta.meta_arguments import L3RSArguments, build_network, layers_to_know, run_settings, warm_start
from hf_l3rs.optimizer.config import FEATURES, STRUCTURE
from hf_l3rs.optimizer.layers import role_layers
from hf_l3rs.tasks.task_arguments import ModelArguments, TaskArguments
from tests.tiny import tiny_resnet, tiny_vit, trained_network


MODEL, TASKS = ModelArguments("somewhere/model"), TaskArguments(["data"], min_steps=3, max_steps=9)


def test_an_untrained_l3rs_is_for_the_trainable_layers():
    model = tiny_resnet()
    model.resnet.embedder.requires_grad_(False)
    network = build_network(model, L3RSArguments(hidden_sizes=[4], base_step=0.01), MODEL, TASKS, seed=0)
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert [layer.name for layer in network.config.layers] == trained
    assert (network.config.hidden_sizes, network.config.base_step) == ((4,), 0.01)
    assert (network.config.num_training_steps, network.config.model_type) == (9, "resnet")
    assert (
        network.fingerprint() != build_network(model, L3RSArguments(hidden_sizes=[4]), MODEL, TASKS, 1).fingerprint()
    )


def test_an_untrained_l3rs_sees_what_is_asked_for():
    network = build_network(tiny_resnet(), L3RSArguments(features=["loss"], embedding_size=0), MODEL, TASKS, seed=0)
    assert network.config.features == ("loss",)


def test_settings_tell_runs_apart_but_not_where_images_are_kept():
    first = run_settings(L3RSArguments(), MODEL, TASKS, 0)
    assert first["data"][0]["path"] == "data"
    for other in (
        TaskArguments(["data"], min_steps=4, max_steps=9),
        TaskArguments(["other"], min_steps=3, max_steps=9),
    ):
        assert run_settings(L3RSArguments(), MODEL, other, 0) != first
    kept = TaskArguments([{"path": "data", "max_memory_gb": 1}], min_steps=3, max_steps=9)
    assert run_settings(L3RSArguments(), MODEL, kept, 0) == first


def first_step(model, network):
    """The parameters after one step, on gradients and a loss that are always the same."""
    optimizer = L3RS(model, network=network, num_training_steps=5, minimum_fit=0)
    generator = torch.Generator().manual_seed(3)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    optimizer.step(1.5)
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def by_role(*models, step_reference="relative"):
    layers = [layer for model in models for layer in describe_layers(model.named_parameters())]
    return trained_network(
        models[0], layers=role_layers(layers), features=(*FEATURES, STRUCTURE), step_reference=step_reference
    )


def go_on(tmp_path, start, model, **options):
    save_network(start, tmp_path / "start")
    arguments = L3RSArguments(initial_l3rs=str(tmp_path / "start"), **options)
    return build_network(model, arguments, MODEL, TASKS, seed=0)


@pytest.mark.parametrize("kind", ["of another model", "by role"])
def test_a_start_serves_another_model(tmp_path, kind):
    """Each layer gets what the start would use for it, so that the first step is the start's, bit for bit."""
    start = trained_network(tiny_resnet()) if kind == "of another model" else by_role(tiny_resnet(), tiny_vit())
    network = go_on(tmp_path, start, tiny_vit())
    assert network.config.layers == describe_layers(tiny_vit().named_parameters())
    assert network.config.features == start.config.features
    assert network.config.step_reference == start.config.step_reference
    assert torch.equal(first_step(tiny_vit(), network), first_step(tiny_vit(), start))
    assert not torch.equal(first_step(tiny_vit(), start), first_step(tiny_vit(), trained_network(tiny_vit())))
    assert L3RS(tiny_vit(), network=network).fit.is_full


def test_a_start_of_roles_goes_on_by_role(tmp_path):
    start = by_role(tiny_resnet())  # knows less than what a ViT has
    network = go_on(tmp_path, start, tiny_vit(), layers_by="role")
    assert network.config.layers == role_layers(describe_layers(tiny_vit().named_parameters()))
    assert torch.equal(first_step(tiny_vit(), network), first_step(tiny_vit(), start))


def test_a_start_of_the_same_layers_keeps_its_bytes(tmp_path):
    start = trained_network(tiny_vit())
    start.embeddings[0, 0] = -0.0  # which a sum would lose
    network = go_on(tmp_path, start, tiny_vit())
    assert network.to_vector().numpy().tobytes() == start.to_vector().numpy().tobytes()
    assert network.config.layers == start.config.layers
    assert warm_start(start, start.config.layers).fingerprint() == start.fingerprint()


@pytest.mark.parametrize(
    ("name", "own", "other"), [("batch_norm_momentum", 0.3, 0.2), ("anneal_long_runs", True, False)]
)
def test_a_start_keeps_its_own_unless_it_is_told_otherwise(tmp_path, name, own, other):
    start = trained_network(tiny_resnet(), **{name: own})
    assert getattr(go_on(tmp_path, start, tiny_resnet()).config, name) == own
    assert getattr(go_on(tmp_path, start, tiny_resnet(), **{name: other}).config, name) == other


def test_an_l3rs_of_roles_knows_those_of_all_models():
    arguments = L3RSArguments(layers_by="role", step_reference="relative")
    network = build_network([tiny_resnet(), tiny_vit()], arguments, MODEL, TASKS, seed=0)
    config = network.config
    assert config.layers == layers_to_know([tiny_resnet(), tiny_vit()], "role")
    assert {layer.name for layer in config.layers} >= {"role:conv.weight", "role:query.weight", "role:head.bias"}
    assert config.features == (*FEATURES, STRUCTURE)
    assert (config.model_type, config.base_model_revision) == (None, None)
    for model in (tiny_resnet(), tiny_vit()):
        assert L3RS(model, network=network).fit.counts.keys() == {"role"}


def test_what_cannot_be_known_by_role_or_by_name_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="'role' needs step_reference"):
        go_on(tmp_path, trained_network(tiny_vit()), tiny_vit(), layers_by="role")
    with pytest.raises(ConfigError, match="'name' is for one model, got 2; set it to 'role'"):
        build_network([nn.Linear(2, 2), nn.Linear(2, 2)], L3RSArguments(), MODEL, TASKS, seed=0)


def test_several_models_are_known_by_their_commits():
    several = ModelArguments("org/one", more_base_models=["org/two"])
    models = [tiny_resnet(), tiny_vit()]
    plain = run_settings(L3RSArguments(), several, TASKS, 0)
    assert plain["model"]["more_base_models"] == ["org/two"]
    assert run_settings(L3RSArguments(), several, TASKS, 0, models) == plain  # of folders there is none
    models[1].config._commit_hash = "a" * 40
    assert run_settings(L3RSArguments(), several, TASKS, 0, models)["model"]["revisions"] == [None, "a" * 40]
    assert "revisions" not in run_settings(L3RSArguments(), MODEL, TASKS, 0, models[1:])["model"]
