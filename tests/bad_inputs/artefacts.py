"""Artefact folders with every kind of damage, and the places that they are loaded from and saved to."""

import json

import torch

from hf_l3rs import L3RS, L3RSArtifact
from tests.bad_inputs.doors import Row, damage_tensors, file, python, recipe
from tests.hub.examples import change_config, make_network


def load(source, **options):
    return python(lambda place: L3RS.from_pretrained(place.fill(source), **place.fill(options)))


def damaged(change):
    """Loads a copy of the L3RS that `change` was done to."""

    def call(place):
        folder = place.copy("l3rs")
        change(folder)
        L3RS.from_pretrained(folder)

    return python(call)


def config(**changes):
    return damaged(lambda folder: change_config(folder, **changes))


def without(field):
    def change(folder):
        values = json.loads((folder / "config.json").read_text())
        del values[field]
        (folder / "config.json").write_text(json.dumps(values))

    return damaged(change)


def content(name, data):
    return damaged(lambda folder: (folder / name).write_bytes(data))


def tensors(change):
    return damaged(lambda folder: damage_tensors(folder / "model.safetensors", change))


def replaced(name, value):
    return tensors(lambda found: found.update({name: value}))


def layer(**changes):
    fields = {"name": "w", "shape": [3], "role": "r", "block": "", **changes}
    return config(layers=[fields])


def nested(depth):
    value = 1
    for _ in range(depth):
        value = [value]
    return {"deep": value}


FOLDERS = [
    Row("l3rs: no such folder", load("./absent"), "'./absent'.*neither a local folder|'./absent'"),
    Row("l3rs: an empty folder", load("<own>"), "has no config.json; pass the folder"),
    Row("l3rs: a transformers model", load("<model>"), "is not an L3RS, but perhaps a model"),
    Row("l3rs: on the Hub, offline", load("user/name"), "'user/name', and .*cache and downloads are off"),
    Row("l3rs: no name that the Hub has", load("a/b/c"), "neither a local folder nor a Hub id.*a typo"),
    Row("l3rs: None", load(None), "folder or by its name or Hub id, got None"),
    Row("l3rs: a network in place of its name", python(lambda place: L3RS.from_pretrained(make_network())),
        "folder or by its name or Hub id, got"),
]  # fmt: skip

DAMAGES = [
    Row("config.json: absent", damaged(lambda folder: (folder / "config.json").unlink()), "has no config.json"),
    Row("config.json: no JSON", content("config.json", b"{"), "is not JSON"),
    Row("config.json: not UTF-8", content("config.json", b"\xff"), "is not JSON"),
    Row("config.json: nested without end", content("config.json", b"[" * 100_000), "is not JSON"),
    Row("config.json: without format_version", without("format_version"), "no format_version"),
    Row("config.json: of a newer format", config(format_version=99), "format_version 99.*pip install -U hf_l3rs"),
    Row("config.json: an unknown field", config(colour="red"), "Unknown fields in the L3RS config: colour"),
    Row("config.json: a layer that is none", config(layers=[3]), "needs exactly the fields name, shape, role"),
    Row("config.json: a layer of negative size", layer(shape=[-3]), "shape must be in .*got -3"),
    Row("config.json: the same layer twice", config(layers=[dict(name="w", shape=[3], role="r", block="")] * 2),
        "layers must hold each value only once, got 'w' twice"),
    Row("config.json: meta_training nested 900 deep", config(meta_training=nested(900)), "meta_training must be"),
    Row("config.json: meta_training with NaN", config(meta_training={"loss": float("nan")}), "without NaN"),
    Row("model.safetensors: absent", damaged(lambda folder: (folder / "model.safetensors").unlink()),
        "has no intact model.safetensors .*save or download"),
    Row("model.safetensors: truncated", damaged(lambda folder: (folder / "model.safetensors").write_bytes(
        (folder / "model.safetensors").read_bytes()[:-8])), "no intact model"),
    Row("model.safetensors: a tensor is missing", tensors(lambda found: found.pop("embeddings")),
        "'embeddings' .*is missing"),
    Row("model.safetensors: a tensor too many", replaced("more", torch.zeros(1)), "'more' .*asks for none"),
    Row("model.safetensors: a tensor of another shape", replaced("embeddings", torch.zeros(2, 2)),
        r"'embeddings' .*shape \(2, 2\)"),
    Row("model.safetensors: of NaN", replaced("biases.0", torch.full((32,), torch.nan)), "biases.0"),
    Row("model.safetensors: of float16", replaced("biases.0", torch.zeros(32, dtype=torch.float16)), "biases.0"),
]  # fmt: skip


def save(prepare, folder="<own>/out", artifact=None, **options):
    def call(place):
        prepare(place)
        (artifact or L3RSArtifact(make_network())).save_pretrained(place.fill(folder), **options)

    return python(call)


def folder(name):
    return lambda place: (place / name).mkdir(parents=True)


def network_of_nan():
    network = make_network()
    network.embeddings.fill_(torch.nan)
    return L3RSArtifact(network)


RESULT = {"optimizer": "L3RS", "dataset": "d", "split": "s", "num_training_steps": 1, "num_tasks": 1, "loss": 0.5,
          "command": "c"}  # fmt: skip


def results(**changes):
    content = {"format_version": 1, "fingerprint": make_network().fingerprint(), "results": [RESULT], **changes}
    return file("out/results.json", json.dumps(content).encode())


SAVING = [
    Row("save: a folder where config.json should be", save(folder("out/config.json")), "config.json is a folder"),
    Row("save: None", save(folder("x"), None), "got None"),
    Row("save: weights of NaN", save(folder("x"), artifact=network_of_nan()), "not finite numbers throughout"),
    Row("save: results that are no JSON", save(file("out/results.json", b"{")), "results.json .*not JSON"),
    Row("save: a result in percent", save(results(results=[{**RESULT, "accuracy": 93}])), "accuracy .*got 93"),
    Row("push: no name for a repository", python(lambda place: L3RSArtifact(make_network()).push_to_hub("a b c")),
        "a b c"),
    Row("push: while offline", python(lambda place: L3RSArtifact(make_network()).push_to_hub("me/name")),
        "HF_HUB_OFFLINE is set; unset it"),
]  # fmt: skip

RELEASE = [
    Row("release: no name", recipe("release", "--l3rs", "<l3rs>"), "need the name of the release"),
    Row("release: results of other meta-weights",
        recipe("release", "x", "--l3rs", "<l3rs>", "--results", "<own>/out/results.json",
               prepare=results(fingerprint="0123456789abcdef")), "measured with meta-weights 0123456789abcdef"),
]  # fmt: skip

ROWS = [*FOLDERS, *DAMAGES, *SAVING, *RELEASE]
