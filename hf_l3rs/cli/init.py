"""`hf-l3rs init`: looks at a model and a data set, and writes the settings of a meta-training and an evaluation."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from hf_l3rs.cli.shell import Answer, add_json_option, columns
from hf_l3rs.errors import ConfigError, StorageError
from hf_l3rs.markdown import duration


if TYPE_CHECKING:
    from hf_l3rs.cli.survey import DataSurvey
    from hf_l3rs.meta.forecast import StepCosts
    from hf_l3rs.tasks.task_arguments import TaskArguments

# Every made L3RS starts from this released one, of other models.
START = "l3rs-vision"


class Plan(NamedTuple):
    """How much is done in a meta-training."""

    num_generations: int = 40
    num_tasks: int = 8
    num_validation_tasks: int = 16


# With a time to keep to: as many generations as fit, 5 to 60, with fewer tasks where not even 5 fit.
_FEWEST, _MOST = 5, 60
_PLANS = (Plan(), Plan(num_validation_tasks=8), Plan(num_tasks=4, num_validation_tasks=4))


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
    parser.add_argument("--minutes", type=float, help="time for meta-training, which its length is chosen by")
    parser.add_argument(
        "--no_estimate", "--no-estimate", action="store_true", help="write the settings without measuring any step"
    )
    parser.add_argument("--output", default="my_l3rs.yaml", help="settings file (default: %(default)s)")
    parser.add_argument("--overwrite", action="store_true", help="replace settings files that are there")
    add_json_option(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> Answer:
    arguments.model = _asked(arguments.model, "--model", "Pretrained model (Hub id or folder): ")
    arguments.data = _asked(arguments.data, "--data", "Images (Hub id, folder or parquet file): ")
    files = _files(arguments)
    _check_minutes(arguments)
    from hf_l3rs.cli.survey import describe_model, survey_data
    from hf_l3rs.files import write_files

    rows: dict[str, Any] = {"model": describe_model(arguments.model)}
    splits = {"name": arguments.name, "split": arguments.split, "test_split": arguments.test_split}
    data = survey_data(arguments.data, arguments.model, **splits)
    rows["data"] = data.description
    task_args = _task_args(arguments, data)
    settings = {**_settings(arguments, task_args, files), **rows, "training": data.training, "unseen": data.unseen}
    plan, costs = Plan(), None
    if not arguments.no_estimate:
        costs = _measure(_rendered("meta_train.yaml", settings))
        plan = choose_plan(costs, task_args, arguments.minutes)
        num_bytes = costs.graph_bytes + (task_args.longest_horizon - 1) * costs.step_bytes
        rows["meta-training"] = (
            f"{duration(_seconds(costs, task_args, plan))} for {plan.num_generations} generations, and "
            f"{num_bytes / 1e9:.2g} GB for the graph of the longest run"
        )
        settings |= {**plan._asdict(), "forecast": rows["meta-training"]}
    if costs is not None and data.unseen is not None:
        rows["evaluation"] = duration(evaluation_seconds(costs, _rendered("evaluate.yaml", settings)))
        settings["evaluation_forecast"] = rows["evaluation"]
    templates = ("meta_train.yaml", "evaluate.yaml")[: 1 if data.unseen is None else 2]
    write_files(files[0].parent, {file.name: _rendered(each, settings) for file, each in zip(files, templates)})
    written = [str(file) for file in files[: len(templates)]]
    steps = [f"hf-l3rs meta-train {written[0]}", *(f"hf-l3rs evaluate {file}" for file in written[1:])]
    steps.append(f"hf-l3rs push {settings['output_dir']} user/name")
    text = columns({**rows, "written": ", ".join(written), "next": "; ".join(steps)}.items())
    return Answer(text, {**rows, "files": written, **plan._asdict(), "next": steps})


def _asked(value: str | None, option: str, question: str) -> str:
    if value is None and sys.stdin is not None and sys.stdin.isatty():
        try:
            value = input(question).strip()
        except EOFError:  # Ctrl-D
            value = None
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


def _check_minutes(arguments: argparse.Namespace) -> None:
    if arguments.minutes is not None and not arguments.minutes > 0:
        raise ConfigError(f"--minutes must be more than 0, got {arguments.minutes:g}; leave it out for the usual.")
    if arguments.minutes is not None and arguments.no_estimate:
        raise ConfigError("--minutes needs the estimate that --no_estimate leaves out; leave out one of the two.")


def _task_args(arguments: argparse.Namespace, data: DataSurvey) -> TaskArguments:
    """The tasks of meta-training; checks what came from the command line."""
    from hf_l3rs.tasks.task_arguments import DatasetArguments, TaskArguments

    low, high = arguments.steps
    return TaskArguments(
        datasets=[DatasetArguments(**data.training)],
        num_classes=data.num_classes,
        batch_size=arguments.batch_size,
        min_steps=low,
        max_steps=high,
        evaluation_size=data.evaluation_size,
    )


def _settings(arguments: argparse.Namespace, task_args: TaskArguments, files: list[Path]) -> dict[str, Any]:
    """What the templates say, with the usual plan."""
    low, high = task_args.min_steps, task_args.longest_horizon
    return {
        **vars(task_args),
        **Plan()._asdict(),
        "training_file": files[0],
        "evaluation_file": files[1],
        "base_model": arguments.model,
        "start": START,
        "segment_steps": max(2, round(high**0.5)),
        "horizons": sorted({low, high}),
        "evaluate_every": max(1, low // 2),
        "output_dir": f"outputs/{files[0].stem}",
        "title": f"{Path(arguments.model).name}, fine-tuned",
        "forecast": None,
        "evaluation_forecast": None,
    }


def _measure(training: bytes) -> StepCosts:
    """Takes a few steps as meta-training will with these settings."""
    from hf_l3rs.cli.meta_train import ARGUMENTS
    from hf_l3rs.distributed import make_accelerator, threads
    from hf_l3rs.meta.forecast import measure_steps
    from hf_l3rs.meta.meta_build import build_network
    from hf_l3rs.tasks.distribution import build_tasks

    model_args, l3rs_args, task_args, outer, args = _parsed(ARGUMENTS, training)
    with threads(args.num_threads):
        _, tasks, _ = build_tasks(model_args, task_args, outer.seed)
        network = build_network(tasks.models, l3rs_args, model_args, task_args, outer.seed)
        return measure_steps(tasks, network, outer, make_accelerator())


def choose_plan(costs: StepCosts, task_args: TaskArguments, minutes: float | None) -> Plan:
    """Returns the longest plan that takes at most so many minutes in one process, by default the usual one."""
    if minutes is None:
        return Plan()
    for plan in _PLANS:
        for count in range(_MOST, _FEWEST - 1, -1):
            chosen = plan._replace(num_generations=count)
            if _seconds(costs, task_args, chosen) <= 60 * minutes:
                return chosen
    least = _seconds(costs, task_args, _PLANS[-1]._replace(num_generations=_FEWEST)) / 60
    raise ConfigError(
        f"The shortest meta-training takes {least:.2g} minutes on this machine, got --minutes {minutes:g}; give more, "
        "or shorter --steps or a smaller --batch_size."
    )


def _seconds(costs: StepCosts, task_args: TaskArguments, plan: Plan) -> float:
    from hf_l3rs.meta.meta_arguments import MetaTrainingArguments

    task_args = replace(task_args, num_validation_tasks=plan.num_validation_tasks)
    interval = MetaTrainingArguments().validation_interval
    return costs.seconds(task_args, plan.num_generations, plan.num_tasks, interval)


def evaluation_seconds(costs: StepCosts, evaluation: bytes) -> float:
    """Returns the time of an evaluation with these settings in YAML: of its search, and of the comparison."""
    from hf_l3rs.evaluation.baselines import select_baselines
    from hf_l3rs.evaluation.benchmark import search_runs
    from hf_l3rs.evaluation.job import EvaluationArguments
    from hf_l3rs.tasks.task_arguments import ModelArguments, TaskArguments

    *_, args = _parsed((ModelArguments, TaskArguments, EvaluationArguments), evaluation)
    baselines, seconds = select_baselines(args.baselines), 0.0
    num_compared = args.num_tasks * (len(baselines) + 2)  # an L3RS, and one untrained
    for steps in args.horizons:
        num_searched = len(search_runs(baselines, args.num_search_tasks, [steps]))
        num_evaluations = num_searched + num_compared * -(-steps // (args.evaluate_every or steps))
        seconds += (num_searched + num_compared) * steps * costs.plain + num_evaluations * costs.evaluation
    return seconds


def _parsed(kinds: Sequence[type], text: bytes) -> tuple:
    """Settings as the command reads them that the file is for."""
    import yaml

    from hf_l3rs.settings import parse_settings

    return parse_settings(kinds, yaml.safe_load(text))


def _rendered(template: str, settings: dict[str, Any]) -> bytes:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True)
    text = (Path(__file__).parent / "templates" / template).read_text(encoding="utf-8")
    return environment.from_string(text).render(settings).encode()
