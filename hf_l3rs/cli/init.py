"""`hf-l3rs init`: looks at a model and a data set, and writes the settings of a meta-training and an evaluation."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_l3rs.cli.shell import Answer, add_json_option, table
from hf_l3rs.errors import ConfigError, StorageError
from hf_l3rs.markdown import duration


if TYPE_CHECKING:
    from hf_l3rs.cli.survey import DataSurvey, ModelSurvey
    from hf_l3rs.meta.forecast import Forecast, StepCosts
    from hf_l3rs.tasks.task_arguments import TaskArguments

# Generations where no time is given, and the range of them where one is: fewer teach nothing, more little.
_GENERATIONS, _FEWEST, _MOST = 40, 5, 60


def add_to(commands: Any) -> None:
    """Adds the command to the parser's."""
    parser = commands.add_parser(
        "init",
        help="look at a model and a data set, and write the settings for meta-train and evaluate",
        description="Looks at a model and a data set, and writes the settings for meta-train, and for evaluate beside "
        "them, with comments and an estimate of time and memory. What is not given is asked for at a terminal.",
    )
    parser.add_argument("--model", help="folder or Hub id of a pretrained image classifier")
    parser.add_argument("--data", help="image-classification data: Hub id, imagefolder or parquet file")
    parser.add_argument("--name", help="configuration of the data set")
    parser.add_argument("--split", help="split for meta-training; by its name by default")
    parser.add_argument(
        "--test_split", "--test-split", help="split for the evaluation; by its name, or a part of the only one"
    )
    parser.add_argument("--steps", nargs=2, type=int, default=(10, 30), metavar=("MIN", "MAX"),
                        help="lengths of your fine-tuning runs, in steps (default: 10 30)")  # fmt: skip
    parser.add_argument(
        "--batch_size", "--batch-size", type=int, default=32, help="of your fine-tuning runs (default: 32)"
    )
    parser.add_argument("--minutes", type=float, help="time for meta-training, by which its length is chosen")
    parser.add_argument(
        "--no_estimate", "--no-estimate", action="store_true", help="write the settings without measuring any step"
    )
    parser.add_argument("--output", default="my_l3rs.yaml", help="settings file (default: %(default)s)")
    parser.add_argument("--overwrite", action="store_true", help="replace settings files that are there")
    add_json_option(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> Answer:
    model_name = _asked(arguments.model, "--model", "Pretrained model (Hub id or folder): ")
    data_name = _asked(arguments.data, "--data", "Images (Hub id, folder or parquet file): ")
    files = _files(arguments)
    from hf_l3rs.cli.survey import survey_data, survey_model

    model = survey_model(model_name)
    data = survey_data(
        data_name, model_name, name=arguments.name, split=arguments.split, test_split=arguments.test_split
    )
    task_args = _task_args(arguments, data)
    settings = _settings(task_args, files, model, data) | _of_length(_GENERATIONS)
    costs, expected = (None, None) if arguments.no_estimate else _measure(_training(settings, files))
    num_generations = _num_generations(expected, arguments.minutes)
    settings |= _of_length(num_generations)
    rows: dict[str, Any] = {"model": model.describe(), "data": data.describe()}
    if costs is not None and expected is not None:
        settings["forecast"] = rows["meta-training"] = (
            f"{duration(expected.seconds(num_generations))} for {num_generations} generations, and "
            f"{expected.num_bytes / 1e9:.2g} GB for the graph of the longest run"
        )
        if data.unseen is not None:
            rows["evaluation"] = duration(evaluation_seconds(costs, _evaluation(settings, files, data.unseen)))
    written = _write(settings, files, data, rows.get("evaluation"))
    steps = [f"hf-l3rs meta-train {written[0]}", *(f"hf-l3rs evaluate {file}" for file in written[1:])]
    steps.append(f"hf-l3rs push {settings['output_dir']} user/name")
    text = table({**rows, "written": ", ".join(written), "next": "; ".join(steps)})
    return Answer(text, {**rows, "files": written, "num_generations": num_generations, "next": steps})


def _asked(value: str | None, option: str, question: str) -> str:
    if value is None and sys.stdin.isatty():
        value = input(question).strip()
    if not value:
        raise ConfigError(f"init needs {option}; give it, or run init at a terminal, where it asks.")
    return value


def _files(arguments: argparse.Namespace) -> list[Path]:
    """Where the settings go: of meta-training, and of the evaluation."""
    file = Path(arguments.output)
    if file.suffix not in (".yaml", ".yml"):
        raise ConfigError(f"--output is a settings file and must end in .yaml, got {arguments.output!r}; rename it.")
    files = [file, file.with_name(f"{file.stem}_evaluate{file.suffix}")]
    for each in files:
        if each.exists() and not arguments.overwrite:
            raise StorageError(f"{each} exists; choose another --output, or give --overwrite.")
    return files


def _task_args(arguments: argparse.Namespace, data: DataSurvey) -> TaskArguments:
    """The tasks of meta-training; checks what came from the command line."""
    from hf_l3rs.tasks.task_arguments import DatasetArguments, TaskArguments

    low, high = arguments.steps
    task_args = TaskArguments(
        datasets=[DatasetArguments(**data.training)],
        num_classes=data.num_classes,
        batch_size=arguments.batch_size,
        min_steps=low,
        max_steps=high,
        evaluation_size=data.evaluation_size,
    )
    if arguments.minutes is not None and not arguments.minutes > 0:
        raise ConfigError(f"--minutes must be more than 0, got {arguments.minutes:g}; leave it out for the usual.")
    return task_args


def _settings(task_args: TaskArguments, files: list[Path], model: ModelSurvey, data: DataSurvey) -> dict[str, Any]:
    """What the templates say, but for the length of the run."""
    low, high = task_args.min_steps, task_args.longest_horizon
    names = ("num_classes", "batch_size", "evaluation_size", "min_steps", "max_steps")
    return {
        **{name: getattr(task_args, name) for name in names},
        "model": model.name,
        "model_is": model.describe(),
        "data_is": data.describe(),
        "training": data.training,
        "has_batch_norm": model.has_batch_norm,
        "segment_steps": max(2, round(high**0.5)),
        "horizons": sorted({low, high}),
        "output_dir": f"outputs/{files[0].stem}",
        "forecast": None,
    }


def _measure(training: bytes) -> tuple[StepCosts, Forecast]:
    """Takes a few steps as meta-training will with these settings."""
    import torch

    from hf_l3rs.cli.meta_train import ARGUMENTS
    from hf_l3rs.meta.forecast import forecast, measure_steps
    from hf_l3rs.meta.meta_build import build_network
    from hf_l3rs.meta.meta_trainer import make_accelerator
    from hf_l3rs.tasks.distribution import build_tasks

    model_args, l3rs_args, task_args, es, windows, _, args = _parsed(ARGUMENTS, training)
    num_threads = torch.get_num_threads()
    torch.set_num_threads(args.num_threads)
    try:
        _, tasks, _ = build_tasks(model_args, task_args, es.seed)
        network = build_network(tasks.models, l3rs_args, model_args, task_args, es.seed)
        costs = measure_steps(tasks, network, windows.of_whole_runs(), make_accelerator())
    finally:
        torch.set_num_threads(num_threads)
    return costs, forecast(costs, task_args, windows.num_tasks, args.validation_interval)


def _num_generations(expected: Forecast | None, minutes: float | None) -> int:
    if expected is None or minutes is None:
        return _GENERATIONS
    affordable = (count for count in range(_MOST, _FEWEST, -1) if expected.seconds(count) <= 60 * minutes)
    return next(affordable, _FEWEST)


def _of_length(num_generations: int) -> dict[str, Any]:
    """The settings that go with the length of a run: a short one has no time for long averages."""
    return {
        "num_generations": num_generations,
        "warmup_generations": max(1, num_generations // 4),
        "averaging": 0.9 if num_generations >= _GENERATIONS // 2 else 0.6,
    }


def evaluation_seconds(costs: StepCosts, evaluation: bytes) -> float:
    """
    Returns the time of an evaluation in one process: a search evaluates at the end of runs, the comparison on the way,
    too.

    Args:
        costs ([`~hf_l3rs.meta.forecast.StepCosts`]): As measured.
        evaluation (`bytes`): Its settings in YAML.
    """
    from hf_l3rs.evaluation.baselines import select_baselines
    from hf_l3rs.evaluation.benchmark import search_runs
    from hf_l3rs.evaluation.evaluation_arguments import EvaluationArguments
    from hf_l3rs.tasks.task_arguments import ModelArguments, TaskArguments

    *_, args = _parsed((ModelArguments, TaskArguments, EvaluationArguments), evaluation)
    baselines, seconds = select_baselines(args.baselines), 0.0
    num_compared = args.num_tasks * (len(baselines) + 1 + args.include_untrained)
    for steps in args.horizons:
        num_searched = len(search_runs(baselines, args.num_search_tasks, [steps]))
        num_evaluations = num_searched + num_compared * -(-steps // (args.evaluate_every or steps))
        seconds += (num_searched + num_compared) * steps * costs.plain + num_evaluations * costs.evaluation
    return seconds


def _evaluate_every(horizons: list[int]) -> int:
    return max(1, horizons[0] // 2)


def _write(settings: dict[str, Any], files: list[Path], data: DataSurvey, forecast: str | None) -> list[str]:
    """Writes the files, the second only where there are images for it; returns those that were."""
    from hf_l3rs.files import write_files

    contents = {files[0].name: _training(settings, files)}
    if data.unseen is not None:
        contents[files[1].name] = _evaluation(settings, files, data.unseen, forecast)
    write_files(files[0].parent, contents)
    return [str(file) for file in files[: len(contents)]]


def _training(settings: dict[str, Any], files: list[Path]) -> bytes:
    return _rendered("meta_train.yaml", settings, file=files[0])


def _evaluation(
    settings: dict[str, Any], files: list[Path], unseen: dict[str, Any], forecast: str | None = None
) -> bytes:
    run_dir = settings["output_dir"]
    return _rendered(
        "evaluate.yaml",
        {**settings, "forecast": forecast},
        file=files[1],
        training_file=files[0],
        run_dir=run_dir,
        l3rs=f"{run_dir}/l3rs",
        unseen=unseen,
        evaluate_every=_evaluate_every(settings["horizons"]),
        output_dir=f"{run_dir}/evaluation",
        title=f"{Path(settings['model']).name}, fine-tuned",
    )


def _parsed(kinds: Sequence[type], text: bytes) -> tuple:
    """Settings as the command reads them that the file is for."""
    import yaml

    from hf_l3rs.settings import parse_settings

    return parse_settings(kinds, yaml.safe_load(text))


def _rendered(template: str, settings: dict[str, Any], **more: Any) -> bytes:
    import yaml
    from jinja2 import Environment, StrictUndefined

    def as_yaml(value: Any) -> str:
        """A value on one line, as YAML reads it back."""
        text = yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True)
        return text.removesuffix("\n").removesuffix("\n...")

    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)
    environment.filters["yaml"] = as_yaml
    text = (Path(__file__).parent / "templates" / template).read_text(encoding="utf-8")
    return environment.from_string(text).render({**settings, **more}).encode()
