"""Base models that are absent, out of reach, damaged or something else."""

import json
import shutil

import torch

from tests.bad_inputs.doors import Row, damage_tensors, meta_train as train


def damaged(change):
    """Prepares `<own>/model` as a copy of the model that `change` was done to."""
    return lambda place: change(place.copy("model"))


def rewrite(file, text):
    return lambda folder: (folder / file).write_bytes(text if isinstance(text, bytes) else text.encode())


def change_config(**changes):
    def change(folder):
        file = folder / "config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))

    return change


def cut(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])


def fill_with_nan(tensors):
    for tensor in tensors.values():
        if tensor.is_floating_point():
            tensor.fill_(torch.nan)


def misshape(tensors):
    tensors["resnet.embedder.embedder.convolution.weight"] = torch.zeros(3, 3)


def rename(tensors):
    for name in list(tensors):
        tensors[f"other.{name}"] = tensors.pop(name)


DAMAGES = {
    "without config": (lambda folder: (folder / "config.json").unlink(), "no readable config.json"),
    "config is no JSON": (rewrite("config.json", "{"), "no readable config.json"),
    "config is not UTF-8": (rewrite("config.json", b"\xff"), "no readable config.json"),
    "config is a list": (rewrite("config.json", "[1]"), "'.*model' cannot be loaded|no model"),
    "config is nested without end": (rewrite("config.json", "[" * 100_000), "no readable config.json"),
    "of an unknown type": (change_config(model_type="resnet99"), "cannot be loaded as an image classifier"),
    "of text": (rewrite("config.json", '{"model_type": "bert"}'), "cannot be loaded as an image classifier"),
    "with a number of a wrong type": (change_config(hidden_sizes="many"), "cannot be loaded as an image classifier"),
    "without weights": (lambda folder: (folder / "model.safetensors").unlink(), "cannot be loaded"),
    "with truncated weights": (cut, "cannot be loaded as an image classifier"),
    "with weights of nothing": (rewrite("model.safetensors", b""), "cannot be loaded as an image classifier"),
    "with weights of NaN": (lambda folder: damage_tensors(folder / "model.safetensors", fill_with_nan),
                            "values that are not numbers"),
    "with a tensor of another shape": (lambda folder: damage_tensors(folder / "model.safetensors", misshape),
                                       "a shape that its config rules out"),
    "with tensors of other names": (lambda folder: damage_tensors(folder / "model.safetensors", rename),
                                    "has none of its weights"),
    "without a preprocessor": (lambda folder: (folder / "preprocessor_config.json").unlink(),
                               "no readable image processor.*preprocessor_config.json"),
    "with a preprocessor that is no JSON": (rewrite("preprocessor_config.json", "{"), "no readable image processor"),
    "with a preprocessor of an unknown kind": (rewrite("preprocessor_config.json", '{"image_processor_type": "X"}'),
                                               "no readable image processor"),
    "with an image_std of 0": (rewrite("preprocessor_config.json", json.dumps({
        "image_processor_type": "ViTImageProcessor", "size": {"height": 4, "width": 4}, "image_mean": [0.5] * 3,
        "image_std": [0.0] * 3})), "not numbers; see that its image_std is not 0"),
}  # fmt: skip


ROWS = [
    Row("base_model: no such folder", train(base_model="./absent"), "'./absent' is neither a local folder"),
    Row("base_model: on the Hub, offline", train(base_model="user/model"),
        "^There is no folder 'user/model', and if it is on the Hub"),
    Row("base_model: a name, offline", train(base_model="resnet-tiny"), "no folder 'resnet-tiny', and if it is on"),
    Row("base_model: no name that the Hub has", train(base_model="a/b/c"), "'a/b/c' is neither a local folder"),
    Row("base_model: a URL", train(base_model="https://huggingface.co/a/b"), "'https://.* is neither a local folder"),
    Row("base_model: an empty folder", train(base_model="<own>"), "no readable config.json|cannot be loaded"),
    Row("base_model: an L3RS", train(base_model="<l3rs>"), r"is an L3RS, not a model to fine-tune.*\(org/tiny\)"),
    *(Row(f"base_model: {name}", train(base_model="<own>/model", prepare=damaged(change)), says)
      for name, (change, says) in DAMAGES.items()),
    Row("initial_l3rs: absent", train(initial_l3rs="./absent"), "'./absent' is neither|absent"),
    Row("initial_l3rs: a model", train(initial_l3rs="<model>"), "is not an L3RS, but perhaps a model"),
    Row("initial_l3rs: damaged", train(initial_l3rs="<own>/l3rs", prepare=lambda place: shutil.copytree(
        place.shared / "l3rs", place / "l3rs") and (place / "l3rs" / "model.safetensors").write_bytes(b"x")),
        "no intact model"),
]  # fmt: skip
