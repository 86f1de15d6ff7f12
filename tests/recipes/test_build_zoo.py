"""The zoo's models are different ones, their sizes are possible, and what is there is not made again."""

import shlex

import pytest
from transformers import AutoConfig, HfArgumentParser

from recipes import pretrain
from recipes.base_models import build_zoo


def sizes(name: str) -> tuple[str, str]:
    (args,) = HfArgumentParser((pretrain.ModelArguments,)).parse_args_into_dataclasses(
        shlex.split(build_zoo.VARIANTS[name]), return_remaining_strings=True
    )[:1]
    return args.architecture, str(args.sizes)


def test_all_variants_differ_from_each_other_and_from_the_embedded_models():
    embedded = [(name, str(pretrain.SIZES[name])) for name in ("resnet", "vit")]
    known = [*embedded, *map(sizes, build_zoo.VARIANTS)]
    assert len(set(known)) == len(known)


def test_one_is_made_once(tmp_path, caplog):
    argv = ["--output_dir", str(tmp_path), "--only", "vit-32x2", "--smoke"]
    build_zoo.main(argv)
    config = AutoConfig.from_pretrained(tmp_path / "vit-32x2")
    assert (config.hidden_size, config.num_hidden_layers) == (32, 2)
    caplog.set_level("INFO")
    build_zoo.main(argv)
    assert "vit-32x2 is there." in caplog.text


def test_a_failure_ends_it(tmp_path):
    (tmp_path / "vit-32x2").write_text("no folder")
    with pytest.raises(SystemExit) as exit:
        build_zoo.main(["--output_dir", str(tmp_path), "--only", "vit-32x2", "--smoke"])
    assert exit.value.code
