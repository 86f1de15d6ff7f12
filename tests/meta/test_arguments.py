"""Settings come from a YAML file and from options, which win; what is wrong with them is said in one sentence."""

from pathlib import Path

import pytest
import yaml

from hf_l3rs.errors import ConfigError
from hf_l3rs.meta.arguments import L3RSArguments, MetaTrainingArguments
from hf_l3rs.meta.candidates import MetaLoss
from hf_l3rs.meta.evolution import ESConfig
from hf_l3rs.settings import parse_arguments
from hf_l3rs.tasks.arguments import DatasetArguments, ModelArguments, TaskArguments
from hf_l3rs.tasks.distribution import AUGMENTATIONS
from recipes.meta_evaluate import EvaluationArguments


CONFIGS = Path(__file__).parents[2] / "recipes" / "configs"
TRAINING = (ModelArguments, L3RSArguments, TaskArguments, ESConfig, MetaLoss, MetaTrainingArguments)
EVALUATION = (ModelArguments, TaskArguments, EvaluationArguments)
SETTINGS = {"base_model": "model", "datasets": [{"path": "data", "classes": ["cat", 3]}], "num_pairs": 7, "sigma": 0.1}


def write(folder: Path, settings: object = SETTINGS, **changes: object) -> str:
    path = folder / "settings.yaml"
    path.write_text(yaml.safe_dump({**settings, **changes} if isinstance(settings, dict) else settings))
    return str(path)


def test_options_win_over_the_file_and_the_file_over_defaults(tmp_path):
    argv = [write(tmp_path), "--sigma", "0.3", "--output_dir", "elsewhere"]
    model, _, tasks, es, meta_loss, args = parse_arguments(TRAINING, argv)
    assert model.base_model == "model"
    assert tasks.datasets == [DatasetArguments("data", classes=["cat", 3])]
    assert (es.num_pairs, es.sigma, es.learning_rate) == (7, 0.3, ESConfig().learning_rate)
    assert meta_loss == MetaLoss()
    assert args.output_dir == "elsewhere"
    assert argv[1:] == ["--sigma", "0.3", "--output_dir", "elsewhere"], "the caller's list was changed"


def test_without_a_file_data_sets_are_paths(tmp_path):
    argv = ["--base_model", "model", "--datasets", "one", "owner/two", "--augmentations", "rotation", "inversion"]
    _, _, tasks, *_ = parse_arguments(TRAINING, argv)
    assert tasks.datasets == [DatasetArguments("one"), DatasetArguments("owner/two")]
    assert tasks.augmentations == ["rotation", "inversion"]


def test_paths_on_the_command_line_replace_the_files_mappings(tmp_path):
    _, _, tasks, *_ = parse_arguments(TRAINING, [write(tmp_path), "--datasets", "other"])
    assert tasks.datasets == [DatasetArguments("other")]


def test_augmentations_and_the_memory_limit_through_yaml(tmp_path):
    data = [{"path": "data", "max_memory_gb": 0.5}, "plain/path"]
    _, _, tasks, *_ = parse_arguments(TRAINING, [write(tmp_path, datasets=data, augmentations=list(AUGMENTATIONS))])
    assert tasks.augmentations == list(AUGMENTATIONS)
    assert [dataset.max_memory_gb for dataset in tasks.datasets] == [0.5, 4.0]
    assert tasks.datasets[1].path == "plain/path"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_pears": 3}, "Unknown settings in the YAML file: num_pears; known are"),
        ({"datasets": [{"path": "data", "splits": 3}]}, r"mapping with path and any of .*'splits': 3"),
        ({"datasets": [{"name": "pathless"}]}, "mapping with path"),
        ({"datasets": [{"path": "data", "max_memory_gb": -1}]}, "max_memory_gb of data set data must be at least 0"),
        ({"num_pairs": 0}, "num_pairs must be at least 1"),
    ],
)
def test_bad_settings(tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message) as error:
        parse_arguments(TRAINING, [write(tmp_path, **changes)])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "cannot be read"), ("- a\n- list\n", "must hold one `name: value` a line, got list"), ("a: [", "be read")],
)
def test_unreadable_files(tmp_path, content, message):
    path = tmp_path / "settings.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=message):
        parse_arguments(TRAINING, [str(path)])


def test_what_the_file_leaves_out_is_still_required(tmp_path, capsys):
    settings = {name: value for name, value in SETTINGS.items() if name != "base_model"}
    with pytest.raises(SystemExit):
        parse_arguments(TRAINING, [write(tmp_path, settings)])
    assert "--base_model" in capsys.readouterr().err


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_configs_that_ship_parse(path):
    types = EVALUATION if path.stem.startswith("evaluate") else TRAINING
    (tasks,) = (part for part in parse_arguments(types, [str(path)]) if isinstance(part, TaskArguments))
    assert tasks.datasets[0].path
