"""Settings come from a YAML file and from options, which win; what is wrong with them is said in one sentence."""

import dataclasses
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
        ({"num_pairs": 0}, r"num_pairs must be in \[1, inf\)"),
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


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_sizes": 32},
        {"hidden_sizes": [32, 0]},
        {"hidden_sizes": ["wide"]},
        {"directions": "adam"},
        {"directions": ["adam", "lion"]},
        {"embedding_size": -1},
        {"embedding_size": 2.5},
        {"base_step": 0},
        {"base_step": float("nan")},
        {"adam_betas": 0.9},
        {"adam_betas": [0.9, 1.0]},
        {"step_reference": "relative"},
        {"max_grad_norm": 0},
        {"max_grad_norm": "none"},
        {"initial_l3rs": 3},
        {"output_dir": None},
        {"task_per_pair": "perhaps"},
        {"validation_interval": -1},
        {"validation_interval": 0.5},
        {"early_stopping_patience": -1},
        {"checkpoint_interval": None},
        {"keep_checkpoints": 0},
        {"num_threads": 0},
        {"num_threads": 10**9},
        {"vectorized_pairs": -2},
        {"report_to": ["wandb", "tensorboard"]},
        {"project": 7},
    ],
    ids=str,
)
def test_values_of_the_wrong_type_or_range_are_named_with_what_is_allowed(changes):
    ((name, value),) = changes.items()
    kind = (
        L3RSArguments if name in {spec.name for spec in dataclasses.fields(L3RSArguments)} else MetaTrainingArguments
    )
    with pytest.raises(ConfigError, match=rf"{kind.__name__}\.{name} must be .*, got ") as error:
        kind(**changes)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("changes", [{"hidden_sizes": 32}, {"directions": "adam"}, {"num_generations": 1.5}])
def test_bad_values_in_yaml_are_refused_too(tmp_path, changes):
    with pytest.raises(ConfigError, match=f"{next(iter(changes))} must be"):
        parse_arguments(TRAINING, [write(tmp_path, **changes)])


def test_whole_numbers_and_yaml_lists_are_taken_where_they_fit():
    arguments = L3RSArguments(base_step=1, adam_betas=[0.9, 0.99], directions=["sgd"])
    assert arguments.base_step == 1.0 and isinstance(arguments.base_step, float)
    assert ESConfig(sigma=1, final_sigma=None).final_sigma is None
