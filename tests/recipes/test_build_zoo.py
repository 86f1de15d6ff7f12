"""The zoo's models are different ones that exist, and what is there is not made again."""

import json
from dataclasses import fields

import pytest
import torch
from transformers import AutoConfig, TrainingArguments

from recipes import pretrain
from recipes.base_models import build_zoo


MODELS = {name: sizes for group in build_zoo.ZOO.values() for name, sizes in group.items()}


def test_all_differ_from_each_other_and_from_the_embedded_models():
    embedded = {name: build_zoo.Model(name, 0) for name in ("resnet", "vit")}
    full = [
        json.dumps([name, pretrain.ARCHITECTURES[name].sizes | each.sizes, each.options], sort_keys=True)
        for each in (MODELS | embedded).values()
        for name in [each.architecture]
    ]
    assert len(set(full)) == len(full) == len(MODELS) + 2


@pytest.mark.parametrize("name", MODELS)
def test_every_model_exists_and_its_options_are_known(name):
    model = MODELS[name]
    size = model.options.get("image_size", pretrain.IMAGE_SIZE)
    args = pretrain.ModelArguments(model.architecture, size, json.dumps(model.sizes))
    network, _ = pretrain.build_model(args, ["one", "two"])
    assert network.eval()(pixel_values=torch.zeros(1, 3, size, size)).logits.shape == (1, 2)
    assert {key: getattr(network.config, key) for key in model.sizes} == model.sizes
    known = fields(pretrain.ModelArguments) + fields(TrainingArguments)
    assert set(model.options) <= {each.name for each in known}


def test_one_is_made_once(tmp_path, monkeypatch):
    """Of several data sets here, as those of all domains are."""
    model = build_zoo.ZOO["mixed"]["resnet-deep-mixed"]._replace(sizes={"depths": [1, 1, 2]})
    monkeypatch.setattr(build_zoo, "ZOO", {"mixed": {"small": model}})
    monkeypatch.setattr(build_zoo, "DOMAINS", ("fashion_mnist",))
    argv = ["--output_dir", str(tmp_path), "--data_dir", str(build_zoo.RECIPES / "data"), "--smoke"]
    argv += ["--only", "mixed"]
    build_zoo.main(argv)
    config = AutoConfig.from_pretrained(tmp_path / "small")
    assert config.depths == [1, 1, 2] and config.num_labels == 10
    monkeypatch.setattr(build_zoo.subprocess, "run", None)
    build_zoo.main(argv)


def test_a_failure_ends_it_with_what_was_said(tmp_path, capfd):
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit) as exit:
        build_zoo.main(["--output_dir", str(tmp_path / "file"), "--smoke"])
    assert exit.value.code == 1
    error = capfd.readouterr().err
    assert "cannot be written" in error and "Traceback" not in error
