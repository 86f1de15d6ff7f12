"""Settings come from a YAML file and from options, which win; what is wrong with them is said in one sentence."""

from pathlib import Path

import pytest
import yaml

from hf_l3rs.cli.meta_train import ARGUMENTS as TRAINING
from hf_l3rs.errors import ConfigError
from hf_l3rs.evaluation.evaluation_arguments import EvaluationArguments
from hf_l3rs.meta.candidates import MetaLoss
from hf_l3rs.meta.evolution import ESConfig
from hf_l3rs.settings import OptionParser, parse_arguments, parse_settings, read_yaml
from hf_l3rs.tasks.pools import AUGMENTATIONS
from hf_l3rs.tasks.task_arguments import DatasetArguments, ModelArguments, TaskArguments


CONFIGS = Path(__file__).parents[1] / "recipes" / "configs"
EVALUATION = (ModelArguments, TaskArguments, EvaluationArguments)
SETTINGS = {"base_model": "model", "datasets": [{"path": "data", "classes": ["cat", 3]}], "num_pairs": 7, "sigma": 0.1}


def write(folder: Path, settings: object = SETTINGS, **changes: object) -> str:
    path = folder / "settings.yaml"
    path.write_text(yaml.safe_dump({**settings, **changes} if isinstance(settings, dict) else settings))
    return str(path)


def test_options_win_over_the_file_and_the_file_over_defaults(tmp_path):
    argv = [write(tmp_path), "--sigma", "0.3", "--output_dir", "elsewhere"]
    model, _, tasks, es, _, meta_loss, args = parse_arguments(TRAINING, argv)
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


def test_yes_and_no(tmp_path):
    no = write(tmp_path, spread_horizons=True, task_per_pair=False)
    _, _, tasks, *_, args = parse_arguments(TRAINING, [no])
    assert (tasks.spread_horizons, args.task_per_pair) == (True, False)
    _, _, tasks, *_, args = parse_arguments(TRAINING, [no, "--spread_horizons", "no", "--task_per_pair"])
    assert (tasks.spread_horizons, args.task_per_pair) == (False, True)
    *_, args = parse_arguments(TRAINING, [write(tmp_path), "--no_task_per_pair"])
    assert args.task_per_pair is False


def test_a_path_on_the_command_line_moves_the_files_data_set(tmp_path):
    """Else what the file keeps apart, such as test images, would be trained on without a word."""
    data = {"path": "data", "hub_id": "org/data", "evaluation_split": "test", "classes": ["cat"]}
    _, _, tasks, *_ = parse_arguments(TRAINING, [write(tmp_path, datasets=[data]), "--datasets", "other"])
    assert tasks.datasets == [DatasetArguments("other", evaluation_split="test", classes=["cat"])]
    _, _, tasks, *_ = parse_arguments(TRAINING, [write(tmp_path, datasets=[data]), "--datasets", "data"])
    assert tasks.datasets == [DatasetArguments(**data)]
    _, _, tasks, *_ = parse_arguments(TRAINING, [write(tmp_path, datasets=[data, "b"]), "--datasets", "c", "d"])
    assert tasks.datasets == [DatasetArguments("c", evaluation_split="test", classes=["cat"]), DatasetArguments("d")]


def test_of_plain_paths_any_number_replaces_any(tmp_path):
    _, _, tasks, *_ = parse_arguments(TRAINING, [write(tmp_path, datasets=["a"]), "--datasets", "b", "c"])
    assert tasks.datasets == [DatasetArguments("b"), DatasetArguments("c")]


def test_paths_that_nobody_could_pair_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="--datasets has 2 paths for 1 of the settings file, .*; give as many, or"):
        parse_arguments(TRAINING, [write(tmp_path), "--datasets", "a", "b"])


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
        ({"datasets": [{"path": "data", "max_memory_gb": -1}]}, "max_memory_gb must be in"),
        ({"num_pairs": 0}, "num_pairs must be in \\[1, inf\\)"),
    ],
)
def test_bad_settings(tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message) as error:
        parse_arguments(TRAINING, [write(tmp_path, **changes)])
    assert "\n" not in str(error.value)


def parse_text(folder: Path, text: str, *options: str):
    path = folder / "settings.yaml"
    path.write_bytes(text.encode(errors="surrogateescape"))
    return parse_arguments(TRAINING, [str(path), *options])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("datasets: data", r"TaskArguments.datasets must be a list .* got 'data'; write a single one as \[path\]"),
        ("datasets: []", "TaskArguments.datasets must be a list of at least one"),
        ("datasets:", "TaskArguments.datasets must be a list .* got None"),
        ("datasets: {path: data}", "TaskArguments.datasets must be a list"),
        ("datasets: [3]", "A data set is a path"),
        ("datasets: [{path: }]", "DatasetArguments.path must be text, got None"),
        ("datasets: [{path: data, classes: [no]}]", r"DatasetArguments.classes must be .* got \[False\]"),
        ("datasets: [{path: data, max_memory_gb: .nan}]", "DatasetArguments.max_memory_gb must be"),
        ("num_classes: five", "TaskArguments.num_classes must be a whole number, got 'five'"),
        ("num_classes: 2.5", "TaskArguments.num_classes must be a whole number, got 2.5"),
        ("num_classes: 1", r"TaskArguments.num_classes must be in \[2, inf\), got 1"),
        ("num_classes: yes", "TaskArguments.num_classes must be a whole number, got True"),
        ("num_classes:", "TaskArguments.num_classes must be a whole number, got None"),
        ("max_steps: 0", "TaskArguments.max_steps must be in"),
        ("max_steps: 3", "TaskArguments.max_steps must be at least min_steps=20, got 3"),
        ("augmentations: rotation", "TaskArguments.augmentations must be a list"),
        ("augmentations: [blur]", "TaskArguments.augmentations must be one of label_permutation, .* got 'blur'"),
        ("base_model: 3", "ModelArguments.base_model must be text, got 3"),
        ("base_model:", "ModelArguments.base_model must be text, got None"),
        ("spread_horizons: maybe", "TaskArguments.spread_horizons must be true or false, got 'maybe'"),
        ("initial_checkpoints: random", "ModelArguments.initial_checkpoints must be a list"),
        ("1: 2", "Unknown settings in the YAML file: 1; known are"),
        ("null: 2", "Unknown settings in the YAML file: None; known are"),
    ],
)
def test_values_of_the_wrong_kind(tmp_path, text, message):
    rest = yaml.safe_dump({name: value for name, value in SETTINGS.items() if not text.startswith(f"{name}:")})
    with pytest.raises(ConfigError, match=message) as error:
        parse_text(tmp_path, rest + text)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("number", ["1e-3", "1.0e-3", "0.001", "1.E-3", "1e-03"])
def test_every_way_to_write_a_number(tmp_path, number):
    """YAML 1.1, which the library's parser speaks, takes 1e-3 for text."""
    parsed = parse_text(
        tmp_path, yaml.safe_dump({k: v for k, v in SETTINGS.items() if k != "sigma"}) + f"sigma: {number}"
    )
    assert parsed[3].sigma == 0.001


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--num_pears", "3"], "unrecognized arguments: --num_pears"),
        (["settings.json"], "must be the first argument"),
        (["--num_classes", "five"], "num-classes: invalid int value: 'five'"),
        (["--num_classes"], "num-classes: expected one argument"),
        (["--datasets"], "argument --datasets: expected at least one argument"),
        (["--datasets", ""], "argument --datasets: invalid DatasetArguments value: ''"),
        (["--spread_horizons", "maybe"], "argument --spread_horizons"),
    ],
)
def test_options_that_cannot_be_read_end_with_the_usage(tmp_path, capsys, options, message):
    with pytest.raises(SystemExit):
        parse_arguments(TRAINING, [write(tmp_path), *options])
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        (["--num_gen", "3"], "for --num_gen, did you mean --num_generations?"),
        (["--num-gen=3"], "--num-gen=3; for --num-gen=3, did you mean --num_generations?"),
        (["--augmentation", "rotation"], "; for --augmentation, did you mean --augmentations?"),
        (["--zzzzzz"], "unrecognized arguments: --zzzzzz\n"),
        (["-x"], "unrecognized arguments: -x\n"),
    ],
)
def test_options_have_whole_names_and_others_get_a_hint(tmp_path, capsys, options, hint):
    with pytest.raises(SystemExit):
        parse_arguments(TRAINING, [write(tmp_path), *options])
    assert hint in capsys.readouterr().err


def test_a_subcommand_gives_the_hint_of_its_own_options(capsys):
    parser = OptionParser(prog="l3rs")
    commands = parser.add_subparsers()
    commands.add_parser("go").add_argument("--faster", action="store_true")
    assert parser.parse_args(["go", "--faster"]).faster
    with pytest.raises(SystemExit):
        parser.parse_args(["go", "--fast"])
    shown = capsys.readouterr().err
    assert shown.startswith("usage: l3rs go") and shown.endswith("--fast; for --fast, did you mean --faster?\n")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--num_classes", "1"], "TaskArguments.num_classes must be in"),
        (["--max_steps", "0"], "TaskArguments.max_steps must be in"),
        (["--augmentations", "blur"], "TaskArguments.augmentations must be one of"),
        (["--base_model", ""], "ModelArguments.base_model must be text that is not empty"),
    ],
)
def test_options_that_are_not_allowed(tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        parse_arguments(TRAINING, [write(tmp_path), *options])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "There is no settings file .*; give one in YAML that is there, or let `hf-l3rs init` write one"),
        ("- a\n- list\n", "must hold one `name: value` a line, got list"),
        ("a: [", "be read"),
        ("title: caf\udce9", "cannot be read as YAML in UTF-8: 'utf-8' codec can't decode byte 0xe9"),
        ("when: 2020-99-99", "be read"),
        ("[" * 10_000, "be read"),
        ("a: \0", "be read"),
        ("? [a]\n: 1", "be read"),
        ("", "must hold one `name: value` a line, got NoneType"),
        ("just text", "must hold .* got str"),
        ("a: !!python/object/apply:os.system [echo]", "be read"),
    ],
)
def test_unreadable_files(tmp_path, content, message):
    path = tmp_path / "settings.yaml"
    if content is not None:
        path.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(ConfigError, match=message) as error:
        parse_arguments(TRAINING, [str(path)])
    assert "\n" not in str(error.value) and len(str(error.value)) < 500


def test_a_folder_is_no_settings_file(tmp_path):
    (tmp_path / "settings.yaml").mkdir()
    with pytest.raises(ConfigError, match="cannot be read"):
        parse_arguments(TRAINING, [str(tmp_path / "settings.yaml")])


def test_what_the_file_leaves_out_is_still_required(tmp_path, capsys):
    settings = {name: value for name, value in SETTINGS.items() if name != "base_model"}
    with pytest.raises(SystemExit):
        parse_arguments(TRAINING, [write(tmp_path, settings)])
    assert "--base_model" in capsys.readouterr().err


# A grid is read cell by cell, and ablations by variation, which tests/evaluation/test_grid.py and
# tests/recipes/test_ablations.py cover.
SHIPPED = [path for path in sorted(CONFIGS.glob("*.yaml")) if not path.stem.startswith(("figure3", "ablations"))]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_the_configs_that_ship_parse(path):
    types = EVALUATION if path.stem.startswith("evaluate") else TRAINING
    (tasks,) = (part for part in parse_arguments(types, [str(path)]) if isinstance(part, TaskArguments))
    assert tasks.datasets[0].path


def test_settings_that_were_read_before_are_taken_as_they_are(tmp_path):
    file = tmp_path / "settings.yaml"
    write(tmp_path, SETTINGS)
    values = read_yaml(str(file))
    assert values == SETTINGS
    assert parse_settings(TRAINING, values) == parse_arguments(TRAINING, [str(file)])
