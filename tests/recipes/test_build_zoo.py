"""The zoo's models are different ones that exist, and what is there is not made again."""

import json

import pytest
from transformers import AutoConfig

from recipes import pretrain
from recipes.base_models import build_zoo


MODELS = {name: sizes for group in build_zoo.ZOO.values() for name, sizes in group.items()}


def test_all_differ_from_each_other_and_from_the_embedded_models():
    embedded = {name: (name, {}) for name in ("resnet", "vit")}
    full = [
        json.dumps([architecture, pretrain.CONFIGS[architecture] | overrides], sort_keys=True)
        for architecture, overrides in (MODELS | embedded).values()
    ]
    assert len(set(full)) == len(full) == len(MODELS) + 2


@pytest.mark.parametrize("name", MODELS)
def test_every_model_exists(name):
    architecture, overrides = MODELS[name]
    args = pretrain.ModelArguments(architecture, json.dumps(overrides))
    assert pretrain.read_overrides(args) == overrides
    pretrain.build_model(architecture, ["one", "two"], overrides)


def test_one_is_made_once(tmp_path, monkeypatch):
    name, model = next(iter(build_zoo.ZOO["trained"].items()))
    monkeypatch.setattr(build_zoo, "ZOO", {"trained": {name: model}})
    argv = ["--output_dir", str(tmp_path), "--smoke"]
    build_zoo.main(argv)
    config = AutoConfig.from_pretrained(tmp_path / name)
    assert {key: getattr(config, key) for key in model[1]} == model[1]
    monkeypatch.setattr(build_zoo.subprocess, "run", None)
    build_zoo.main(argv)


def test_a_failure_ends_it_with_what_was_said(tmp_path, capfd):
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit) as exit:
        build_zoo.main(["--output_dir", str(tmp_path / "file"), "--smoke"])
    assert exit.value.code == 1
    error = capfd.readouterr().err
    assert "cannot be written" in error and "Traceback" not in error
