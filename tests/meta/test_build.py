"""The L3RS that a run starts from, and what tells one run from another."""

import pytest

from hf_l3rs.errors import ArtifactError
from hf_l3rs.meta.arguments import L3RSArguments
from hf_l3rs.meta.build import build_network, run_settings
from hf_l3rs.tasks.arguments import ModelArguments, TaskArguments
from tests.tiny import tiny_resnet


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


def test_a_start_that_is_not_there_is_named():
    with pytest.raises(ArtifactError, match="nowhere"):
        build_network(tiny_resnet(), L3RSArguments(initial_l3rs="./nowhere"), MODEL, TASKS, seed=0)


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
