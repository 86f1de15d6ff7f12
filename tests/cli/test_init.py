"""Settings that are written for a model and data run as they stand."""

import json
from pathlib import Path

import pytest
import yaml

from hf_l3rs.cli.init import (
    _evaluation,
    _num_generations,
    _of_length,
    _rendered,
    _settings,
    _task_args,
    evaluation_seconds,
)
from hf_l3rs.cli.main import make_parser
from hf_l3rs.cli.meta_train import ARGUMENTS
from hf_l3rs.cli.survey import DataSurvey, ModelSurvey
from hf_l3rs.evaluation.evaluation_arguments import EvaluationArguments
from hf_l3rs.hub.artifact import load_network
from hf_l3rs.meta.forecast import Forecast, StepCosts
from hf_l3rs.settings import parse_arguments
from hf_l3rs.tasks.task_arguments import ModelArguments, TaskArguments


ROOT = Path(__file__).parents[2]


def init(run, inputs, *options):
    return run("init", "--model", inputs / "base", "--data", inputs / "images", "--batch_size", "4", *options)


def test_the_files_are_settings_and_run(run, inputs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, out, _ = init(run, inputs, "--steps", "2", "3", "--output", "my.yaml")
    assert status == 0 and "20 layers, with batch norm" in out and "80 images" in out
    assert "for 40 generations, and " in out and "hf-l3rs meta-train my.yaml" in out
    *_, task_args, es, _, _, args = parse_arguments(ARGUMENTS, ["my.yaml"])
    assert (task_args.num_classes, task_args.min_steps, task_args.max_steps, es.num_generations) == (2, 2, 3, 40)
    assert args.output_dir == "outputs/my" and args.estimator == "gradient"
    _, unseen, evaluation = parse_arguments((ModelArguments, TaskArguments, EvaluationArguments), ["my_evaluate.yaml"])
    assert evaluation.l3rs == "outputs/my/l3rs" and evaluation.setting == "other classes"
    assert not set(unseen.datasets[0].classes) & set(task_args.datasets[0].classes)
    small = ["--num_generations", "1", "--num_tasks", "1", "--num_validation_tasks", "1"]
    assert run("meta-train", "my.yaml", *small)[0] == 0
    assert load_network("outputs/my/l3rs").config.meta_training["estimator"] == "gradient"
    few = ["--baselines", "Adam at 1e-3", "--num_tasks", "1", "--horizons", "2"]
    assert run("evaluate", "my_evaluate.yaml", *few)[0] == 0


def test_nothing_is_measured_where_that_is_not_wanted(run, inputs, tmp_path):
    status, out, _ = init(run, inputs, "--no_estimate", "--output", tmp_path / "my.yaml", "--json")
    data = json.loads(out)
    assert status == 0 and data["num_generations"] == 40 and "meta-training" not in data
    settings = yaml.safe_load((tmp_path / "my.yaml").read_text())
    assert settings["adam_betas"] == [0.7, 0.95] and settings["batch_norm_momentum"] == 0.2
    assert data["files"] == [str(tmp_path / "my.yaml"), str(tmp_path / "my_evaluate.yaml")]
    status, _, err = init(run, inputs, "--no_estimate", "--output", tmp_path / "my.yaml")
    assert status == 1 and "exists; choose another --output, or give --overwrite" in err
    assert init(run, inputs, "--no_estimate", "--output", tmp_path / "my.yaml", "--overwrite")[0] == 0


def test_they_are_those_of_the_recipes_template(run, inputs, tmp_path):
    assert init(run, inputs, "--no_estimate", "--output", tmp_path / "my.yaml")[0] == 0
    written, template = (
        yaml.safe_load(file.read_text()) for file in (tmp_path / "my.yaml", ROOT / "recipes/configs/template.yaml")
    )
    of_the_case = {"base_model", "datasets", "num_classes", "batch_size", "evaluation_size", "output_dir"}
    of_the_case |= {"min_steps", "max_steps", "adam_betas"}
    assert {**written, **dict.fromkeys(of_the_case)} == {**template, **dict.fromkeys(of_the_case)}


def test_what_looks_after_batch_norm_is_left_out_without_any(tmp_path):
    arguments = make_parser().parse_args(["init", "--output", str(tmp_path / "my.yaml")])
    data = DataSurvey({"path": "images", "batches_split": "train"}, None, 2, 80, 8, (3, 8, 8))
    model = ModelSurvey("vit", "vit", 10, 2, False)
    settings = _settings(_task_args(arguments, data), [tmp_path / "my.yaml"], model, data)
    text = _rendered("meta_train.yaml", {**settings, **_of_length(40)}, file="my.yaml").decode()
    assert "batch_norm_momentum" not in text and "\naveraging: 0.9\n# adam_betas: [0.7, 0.95]" in text


def test_meta_training_is_estimated_by_the_settings_that_are_written(run, inputs, tmp_path, monkeypatch):
    asked = []

    def watched(costs, task_args, num_tasks, validation_interval):
        asked.append((task_args.num_validation_tasks, task_args.max_steps, num_tasks, validation_interval))
        return Forecast(1.0, 1.0, validation_interval)

    monkeypatch.setattr("hf_l3rs.meta.forecast.measure_steps", lambda *parts: StepCosts(1.0, 1.0, 1.0, 1, 1))
    monkeypatch.setattr("hf_l3rs.meta.forecast.forecast", watched)
    assert init(run, inputs, "--steps", "2", "3", "--output", tmp_path / "my.yaml")[0] == 0
    written = yaml.safe_load((tmp_path / "my.yaml").read_text())
    names = ("num_validation_tasks", "max_steps", "num_tasks", "validation_interval")
    assert asked == [tuple(written[name] for name in names)]


def test_an_evaluation_is_estimated_by_its_settings(tmp_path):
    arguments = make_parser().parse_args(["init", "--steps", "10", "30"])
    data = DataSurvey({"path": "images", "batches_split": "train"}, {"path": "images"}, 2, 80, 8, (3, 8, 8))
    settings = _settings(_task_args(arguments, data), [tmp_path / "my.yaml"], ModelSurvey("a", "a", 1, 1, True), data)
    text = _evaluation(settings, [tmp_path / "my.yaml", tmp_path / "e.yaml"], {"path": "images"})
    costs = StepCosts(differentiated=9.0, plain=1.0, evaluation=0.01, graph_bytes=0, step_bytes=0)
    searched, compared = 2 * 11 * 8, (3 + 1 + 1) * 16  # those of the template as it is
    evaluations = (searched + compared * 2) + (searched + compared * 6)
    expected = (searched + compared) * (10 + 30) + evaluations * 0.01
    assert evaluation_seconds(costs, text) == pytest.approx(expected)
    fewer = text.replace(b"num_tasks: 16", b"num_tasks: 8\ninclude_untrained: false")
    assert evaluation_seconds(costs, fewer) == pytest.approx((searched + 32) * 40 + (2 * searched + 32 * 8) * 0.01)


def test_what_is_missing_is_asked_for_at_a_terminal(run, inputs, tmp_path, monkeypatch):
    answers = iter([str(inputs / "base"), str(inputs / "images")])
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda question: next(answers))
    assert run("init", "--no_estimate", "--batch_size", "4", "--output", tmp_path / "my.yaml")[0] == 0
    assert (tmp_path / "my.yaml").exists()


@pytest.mark.parametrize(("minutes", "count"), [(None, 40), (5, 28), (0.1, 5), (1000, 60)])
def test_the_time_that_is_given_chooses_the_length(minutes, count):
    assert _num_generations(Forecast(10.0, 2.0, 10, num_before=5), minutes) == count
