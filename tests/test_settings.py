"""Settings come from a YAML file and from options, which win. tests/bad_inputs/settings.py has what is refused."""

from pathlib import Path

import pytest
import yaml

from hf_l3rs.cli.meta_train import ARGUMENTS as TRAINING
from hf_l3rs.errors import ConfigError
from hf_l3rs.meta.outer import OuterConfig
from hf_l3rs.settings import parse_arguments, parse_settings, read_yaml
from hf_l3rs.tasks.pools import AUGMENTATIONS
from hf_l3rs.tasks.task_arguments import DatasetArguments, ModelArguments, TaskArguments


SETTINGS = {"base_model": "model", "datasets": [{"path": "data", "classes": ["cat", 3]}], "num_pairs": 7, "sigma": 0.1}


def write(folder: Path, **changes: object) -> str:
    path = folder / "settings.yaml"
    path.write_text(yaml.safe_dump({**SETTINGS, **changes}))
    return str(path)


def parse(*argv: str) -> dict[type, object]:
    return {type(part): part for part in parse_arguments(TRAINING, argv)}


def test_options_win_over_the_file_and_the_file_over_defaults(tmp_path):
    argv = [write(tmp_path, augmentations=list(AUGMENTATIONS)), "--sigma", "0.3", "--num_classes", "4"]
    parts = {type(part): part for part in parse_arguments(TRAINING, argv)}
    tasks, es = parts[TaskArguments], parts[OuterConfig]
    assert parts[ModelArguments].base_model == "model"
    assert tasks.datasets == [DatasetArguments("data", classes=["cat", 3])]
    assert (tasks.num_classes, tasks.augmentations) == (4, list(AUGMENTATIONS))
    assert (es.num_pairs, es.sigma, es.learning_rate) == (7, 0.3, OuterConfig().learning_rate)
    assert argv[1:] == ["--sigma", "0.3", "--num_classes", "4"], "the caller's list was changed"


def test_without_a_file_data_sets_are_paths():
    argv = ["--base_model", "model", "--datasets", "one", "owner/two", "--augmentations", "rotation", "inversion"]
    tasks = parse(*argv)[TaskArguments]
    assert tasks.datasets == [DatasetArguments("one"), DatasetArguments("owner/two")]
    assert tasks.augmentations == ["rotation", "inversion"]


@pytest.mark.parametrize(
    ("options", "expected"), [([], True), (["--spread_horizons", "no"], False), (["--spread_horizons"], True)]
)
def test_yes_and_no(tmp_path, options, expected):
    assert parse(write(tmp_path, spread_horizons=True), *options)[TaskArguments].spread_horizons is expected


def test_paths_of_options_replace_paths_and_nothing_more(tmp_path):
    """Else what the file keeps apart, such as test images, would be trained on without a word."""
    argv = [write(tmp_path, datasets=["a"]), "--datasets", "b", "c"]
    assert parse(*argv)[TaskArguments].datasets == [DatasetArguments("b"), DatasetArguments("c")]
    with pytest.raises(ConfigError, match="--datasets has only paths, but the settings file says more of data"):
        parse(write(tmp_path), "--datasets", "b")


@pytest.mark.parametrize("number", ["1e-3", "1.0e-3", "0.001", "1.E-3", "1e-03"])
def test_every_way_to_write_a_number(tmp_path, number):
    """YAML 1.1, which the library's parser speaks, takes 1e-3 for text."""
    file = tmp_path / "settings.yaml"
    file.write_text(f"base_model: m\ndatasets: [d]\nsigma: {number}")
    assert parse(str(file))[OuterConfig].sigma == 0.001


def test_settings_that_were_read_before_are_taken_as_they_are(tmp_path):
    file = write(tmp_path)
    assert read_yaml(file) == SETTINGS
    assert parse_settings(TRAINING, SETTINGS) == parse_arguments(TRAINING, [file])
