"""A tiny learned optimizer, and what the tests of the artefact do with it."""

import json

import torch

from hf_l3rs import L3RSArtifact, L3RSConfig, L3RSNetwork, describe_layers
from hf_l3rs.hub.artifact import CONFIG_NAME
from hf_l3rs.hub.results import Result, Results


REPO_ID = "me/l3rs-tiny"


def make_model():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Tanh(), torch.nn.Linear(6, 3))


def make_network(seed=0):
    layers = describe_layers(make_model().named_parameters())
    network = L3RSNetwork(L3RSConfig(layers=layers, base_model="org/tiny", num_training_steps=20))
    generator = torch.Generator().manual_seed(seed)
    network.load_vector(0.3 * torch.randn(network.num_meta_parameters, generator=generator))
    return network


def make_results(network):
    entry = Result("L3RS", "org/data", "test", num_training_steps=20, num_tasks=12, loss=0.25, command="measure it")
    return Results(network.fingerprint(), (entry,))


def load(source, **options):
    artifact = L3RSArtifact.from_pretrained(source, **options)
    return artifact.network.fingerprint(), artifact.commit_hash


def train(optimizer, model):
    generator = torch.Generator().manual_seed(1)
    optimizer.bind(model, num_training_steps=5)
    for _ in range(5):
        loss = model(torch.randn(8, 4, generator=generator)).square().mean()
        loss.backward()
        optimizer.step(loss.detach())
        optimizer.zero_grad()
    return [parameter.detach().clone() for parameter in model.parameters()]


def contents(folder):
    return {file.name: file.read_bytes() if file.is_file() else None for file in folder.iterdir()}


def change_config(folder, **changes):
    file = folder / CONFIG_NAME
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def assert_one_sentence(error, *words):
    message = str(error.value)
    assert message.isprintable()
    for word in words:
        assert word in message, message
