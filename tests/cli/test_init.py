"""Settings that are written for a model and data run as they stand."""

import pytest
import yaml

from hf_l3rs.cli.init import START, Plan, StepCosts, choose_plan
from hf_l3rs.cli.meta_train import ARGUMENTS
from hf_l3rs.errors import ConfigError
from hf_l3rs.evaluation.job import EvaluationArguments
from hf_l3rs.hub.artifact import load_network
from hf_l3rs.settings import parse_arguments
from hf_l3rs.tasks.task_arguments import DatasetArguments, ModelArguments, TaskArguments


COSTS = StepCosts(differentiated=0.04, plain=0.01, evaluation=0.02, graph_bytes=0, step_bytes=0)


@pytest.fixture
def init(run, inputs):
    def init(*options):
        return run("init", "--model", inputs / "base", "--data", inputs / "images", "--batch_size", "4", *options)

    return init


def test_the_files_are_settings_and_run(init, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, out, _ = init("--steps", "2", "3", "--output", "my.yaml")
    assert status == 0 and "20 layers, with batch norm" in out and "80 images" in out
    assert "for 40 generations, and " in out and "hf-l3rs meta-train my.yaml" in out
    _, l3rs, task_args, outer, args = parse_arguments(ARGUMENTS, ["my.yaml"])
    assert (task_args.num_classes, task_args.min_steps, task_args.max_steps, outer.num_generations) == (2, 2, 3, 40)
    assert args.output_dir == "outputs/my" and outer.estimator == "gradient" and l3rs.initial_l3rs == START
    _, unseen, evaluation = parse_arguments((ModelArguments, TaskArguments, EvaluationArguments), ["my_evaluate.yaml"])
    assert evaluation.l3rs == "outputs/my/l3rs" and evaluation.setting == "other classes"
    assert not set(unseen.datasets[0].classes) & set(task_args.datasets[0].classes)
    small = ["--num_generations", "1", "--num_tasks", "1", "--num_validation_tasks", "1"]
    assert run("meta-train", "my.yaml", *small)[0] == 0
    assert load_network("outputs/my/l3rs").config.meta_training["estimator"] == "gradient"
    few = ["--baselines", "Adam at 1e-3", "--num_tasks", "1", "--horizons", "2"]
    assert run("evaluate", "my_evaluate.yaml", *few)[0] == 0


def test_nothing_is_measured_where_that_is_not_wanted(init, tmp_path):
    status, out, _ = init("--no_estimate", "--output", tmp_path / "my.yaml")
    assert status == 0 and "GB" not in out and f"{tmp_path}/my.yaml, {tmp_path}/my_evaluate.yaml" in out
    status, _, err = init("--no_estimate", "--output", tmp_path / "my.yaml")
    assert status == 1 and "exists" in err
    assert init("--no_estimate", "--output", tmp_path / "my.yaml", "--overwrite")[0] == 0
    status, _, err = init("--no_estimate", "--minutes", "4", "--output", tmp_path / "other.yaml")
    assert status == 1 and "leave out one of the two" in err and not (tmp_path / "other.yaml").exists()


def test_a_plan_that_keeps_to_the_time_is_what_is_written(init, tmp_path, monkeypatch):
    monkeypatch.setattr("hf_l3rs.cli.init.measure_steps", lambda *parts: COSTS)
    status, out, _ = init("--steps", "10", "30", "--minutes", "1", "--output", tmp_path / "my.yaml")
    written = yaml.safe_load((tmp_path / "my.yaml").read_text())
    assert status == 0 and written["num_generations"] < 40 and f"for {written['num_generations']} generations" in out
    assert f"for {written['num_generations']} generations" in (tmp_path / "my.yaml").read_text()


def test_a_time_is_kept_or_refused():
    task_args = TaskArguments(datasets=[DatasetArguments("images")], min_steps=10, max_steps=30)
    usual, short = choose_plan(COSTS, task_args, 1000), choose_plan(COSTS, task_args, 1)
    assert usual == Plan(num_generations=60) and short.num_generations < 10
    assert choose_plan(COSTS, task_args, 0.5).num_tasks == 4
    with pytest.raises(ConfigError, match="shortest meta-training takes .* got --minutes 0.1; give more"):
        choose_plan(COSTS, task_args, 0.1)


def test_what_is_missing_is_asked_for_at_a_terminal(run, inputs, tmp_path, monkeypatch):
    answers = iter([str(inputs / "base"), str(inputs / "images")])
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda question: next(answers))
    assert run("init", "--no_estimate", "--batch_size", "4", "--output", tmp_path / "my.yaml")[0] == 0
    assert (tmp_path / "my.yaml").exists()

    def end_of_input(question):
        raise EOFError

    monkeypatch.setattr("builtins.input", end_of_input)
    status, out, err = run("init", "--no_estimate")
    assert (status, out) == (1, "") and "init needs --model" in err
