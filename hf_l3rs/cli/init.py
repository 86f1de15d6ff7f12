"""`hf-l3rs init`: looks at a model and a data set, and writes the settings of a meta-training and an evaluation."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from accelerate import Accelerator
from jinja2 import Environment, StrictUndefined

from hf_l3rs.cli.main import columns
from hf_l3rs.cli.meta_train import ARGUMENTS
from hf_l3rs.distributed import make_accelerator, threads
from hf_l3rs.errors import ConfigError, DataError, StorageError
from hf_l3rs.files import write_files
from hf_l3rs.markdown import duration, one_line
from hf_l3rs.meta.evolution import rollout
from hf_l3rs.meta.gradient import MetaGradient
from hf_l3rs.meta.meta_arguments import MetaTrainingArguments, build_network
from hf_l3rs.meta.outer import OuterConfig
from hf_l3rs.meta.selection import capped_interval
from hf_l3rs.optimizer.batch_norm import batch_norms
from hf_l3rs.optimizer.layers import describe_trainable_layers
from hf_l3rs.optimizer.network import L3RSNetwork
from hf_l3rs.settings import OptionParser, parse_settings
from hf_l3rs.tasks.distribution import Horizon, TaskDistribution, build_tasks
from hf_l3rs.tasks.images import load_image_processor, open_image_pool, split_names
from hf_l3rs.tasks.model import load_image_classifier
from hf_l3rs.tasks.pools import StreamedImagePool
from hf_l3rs.tasks.task_arguments import SHARES, DatasetArguments, TaskArguments


DESCRIPTION = """
Looks at a model and a data set, and writes the settings for meta-train, and for evaluate beside them, with comments
and an estimate of time and memory. What is not given is asked for at a terminal.
"""
# Every made L3RS starts from this released one, of other models.
START = "l3rs-vision"
# What splits are usually called, the likeliest first.
_TRAINING = ("train", "training", "meta_train_batches")
_UNSEEN = ("test", "validation", "valid", "val", "dev", "test_batches")
# Of a data set with a single split, this share is for meta-training and the rest is kept unseen.
_SEEN_PERCENT = 70
# More images than that make an evaluation set no better than it need be, and more classes a task too large.
_MAX_EVALUATION, _MAX_CLASSES = 256, 10


class DataSurvey(NamedTuple):
    """A data set, and how it is shared out. `training` and `unseen` are fields of [`~hf_l3rs.DatasetArguments`]."""

    training: dict[str, Any]
    unseen: dict[str, Any] | None  # for an evaluation on other images; `None` if none could be kept apart
    num_classes: int  # of a task: all that there are, up to ten
    evaluation_size: int  # images of an evaluation set, as many as there are for every task, up to 256
    description: str


class Plan(NamedTuple):
    """How much is done in a meta-training."""

    num_generations: int = 40
    num_tasks: int = 8
    num_validation_tasks: int = 16


# With a time to keep to: as many generations as fit, 5 to 60, with fewer tasks where not even 5 fit.
_FEWEST, _MOST = 5, 60
_PLANS = (Plan(), Plan(num_validation_tasks=8), Plan(num_tasks=4, num_validation_tasks=4))


def _parser() -> OptionParser:
    parser = OptionParser(prog="hf-l3rs init", description=DESCRIPTION)
    parser.add_argument("--model", help="folder or Hub id of a pretrained image classifier")
    parser.add_argument("--data", help="image-classification data: Hub id, imagefolder or parquet file")
    parser.add_argument("--name", help="configuration of the data set")
    parser.add_argument("--split", help="split for meta-training; by its name by default")
    parser.add_argument("--test_split", "--test-split",
                        help="split for the evaluation; by its name, or a part of the only one")  # fmt: skip
    parser.add_argument("--steps", nargs=2, type=int, default=(10, 30), metavar=("MIN", "MAX"),
                        help="lengths of your fine-tuning runs, in steps (default: 10 30)")  # fmt: skip
    parser.add_argument("--batch_size", "--batch-size", type=int, default=32,
                        help="of your fine-tuning runs (default: %(default)s)")  # fmt: skip
    parser.add_argument("--minutes", type=float, help="time for meta-training, which its length is chosen by")
    parser.add_argument("--no_estimate", "--no-estimate", action="store_true",
                        help="write the settings without measuring any step")  # fmt: skip
    parser.add_argument("--output", default="my_l3rs.yaml", help="settings file (default: %(default)s)")
    parser.add_argument("--overwrite", action="store_true", help="replace settings files that are there")
    return parser


def run(argv: Sequence[str]) -> str:
    arguments = _parser().parse_args(argv)
    model = _asked(arguments.model, "--model", "Pretrained model (Hub id or folder): ")
    path = _asked(arguments.data, "--data", "Images (Hub id, folder or parquet file): ")
    files = _files(arguments.output, arguments.overwrite)
    _check_minutes(arguments.minutes, arguments.no_estimate)
    rows = {"model": describe_model(model)}
    data = survey_data(path, model, name=arguments.name, split=arguments.split, test_split=arguments.test_split)
    rows["data"] = data.description
    low, high = arguments.steps
    task_args = TaskArguments(
        datasets=[DatasetArguments(**data.training)],
        num_classes=data.num_classes,
        batch_size=arguments.batch_size,
        min_steps=low,
        max_steps=high,
        evaluation_size=data.evaluation_size,
    )
    settings = {**_settings(model, task_args, files), **rows, "training": data.training, "unseen": data.unseen}
    if not arguments.no_estimate:
        costs = _measure(_rendered("meta_train.yaml", settings))
        plan = Plan() if arguments.minutes is None else choose_plan(costs, task_args, arguments.minutes)
        num_bytes = costs.graph_bytes + (high - 1) * costs.step_bytes
        rows["meta-training"] = (
            f"{duration(costs.seconds(task_args, plan))} for {plan.num_generations} generations, and "
            f"{num_bytes / 1e9:.2g} GB for the graph of the longest run"
        )
        settings |= {**plan._asdict(), "forecast": rows["meta-training"]}
    templates = ("meta_train.yaml", "evaluate.yaml")[: 1 if data.unseen is None else 2]
    write_files(files[0].parent, {file.name: _rendered(each, settings) for file, each in zip(files, templates)})
    written = [str(file) for file in files[: len(templates)]]
    steps = [f"hf-l3rs meta-train {written[0]}", *(f"hf-l3rs evaluate {file}" for file in written[1:])]
    steps.append(f"hf-l3rs push {settings['output_dir']} user/name")
    return columns({**rows, "written": ", ".join(written), "next": "; ".join(steps)}.items())


def _asked(value: str | None, option: str, question: str) -> str:
    if value is None and sys.stdin is not None and sys.stdin.isatty():
        try:
            value = input(question).strip()
        except EOFError:  # Ctrl-D
            value = None
    if not value:
        raise ConfigError(f"init needs {option}; give it, or run init at a terminal, where it asks.")
    return value


def _files(output: str, overwrite: bool) -> list[Path]:
    """Where the settings go: of meta-training, and of the evaluation."""
    file = Path(output)
    if file.suffix not in (".yaml", ".yml"):
        raise ConfigError(f"--output is a settings file and must end in .yaml, got {output!r}; rename it.")
    files = [file, file.with_name(f"{file.stem}_evaluate{file.suffix}")]
    for each in files:
        if each.exists() and not overwrite:
            raise StorageError(f"{each} exists; choose another --output, or give --overwrite.")
    return files


def _check_minutes(minutes: float | None, no_estimate: bool) -> None:
    if minutes is not None and not minutes > 0:
        raise ConfigError(f"--minutes must be more than 0, got {minutes:g}; leave it out for the usual.")
    if minutes is not None and no_estimate:
        raise ConfigError("--minutes needs the estimate that --no_estimate leaves out; leave out one of the two.")


def describe_model(name: str) -> str:
    """Returns what a model is, in one line."""
    model = load_image_classifier(name)
    layers = describe_trainable_layers(model)
    sizes = f"{sum(math.prod(layer.shape) for layer in layers):,} parameters in {len(layers)} layers"
    norm = "with" if batch_norms(model) else "without"
    return one_line(f"{name}, {model.config.model_type}: {sizes}, {norm} batch norm")


def survey_data(
    path: str, model: str, *, name: str | None = None, split: str | None = None, test_split: str | None = None
) -> DataSurvey:
    """Looks at a data set: splits go by their names unless given, and of a single one a part is kept apart."""
    processor = load_image_processor(model)

    def opened(dataset: dict[str, Any]) -> StreamedImagePool:
        split, classes = dataset["batches_split"], dataset.get("classes")
        return open_image_pool(path, processor, name=name, split=split, classes=classes)

    names, fields = split_names(path, name=name), {"path": path, **({} if name is None else {"name": name})}
    unseen = test_split or next((each for each in _UNSEEN if each in names), None)
    usual = (each for each in (*_TRAINING, *names) if each in names and each != unseen)
    training = {**fields, "batches_split": split or next(usual, names[0])}
    pool = opened(training)
    if len(pool.labels.unique()) < 2:
        raise DataError(f"{path!r} has images of 1 class in {training['batches_split']}; give images of at least 2.")
    kept: dict[str, Any] | None = {**fields, "batches_split": unseen} if unseen else None
    if kept is None or (kept == training and not test_split):
        training, kept = _keep_apart(pool, training)
    counts = [opened(each).labels.unique(return_counts=True)[1] for each in (training, kept) if each is not None]
    num_classes = max(2, min(_MAX_CLASSES, *map(len, counts)))
    share = min(SHARES["evaluation"], SHARES["validation_evaluation"])  # which are cut out of the split
    sizes = [int((each.sort().values[:num_classes] * share).floor().sum()) for each in counts]
    shape = " x ".join(map(str, pool.fetch(torch.tensor([0])).shape[1:]))
    images = f"{int(counts[0].sum()):,} images of {shape} in {training['batches_split']}"
    description = one_line(f"{path}: {images}, tasks of {num_classes} classes")
    return DataSurvey(training, kept, num_classes, max(1, min(_MAX_EVALUATION, *sizes)), description)


def _keep_apart(pool: StreamedImagePool, training: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Divides a single split into what meta-training sees and what it does not."""
    split = training["batches_split"]
    if "[" in split or "+" in split:
        return training, None
    bound = len(pool.labels) * _SEEN_PERCENT // 100
    total, rest = pool.labels.bincount(), pool.labels[bound:].bincount(minlength=int(pool.labels.max()) + 1)
    if (2 * rest * 100 >= total * (100 - _SEEN_PERCENT)).all() and (rest < total).any():  # all classes in both
        seen, unseen = f"{split}[:{_SEEN_PERCENT}%]", f"{split}[{_SEEN_PERCENT}%:]"
        return {**training, "batches_split": seen}, {**training, "batches_split": unseen}
    classes = [pool.class_names[index] for index in pool.labels.unique().tolist()]
    if len(classes) < 4:
        return training, None
    half = len(classes) // 2
    return {**training, "classes": classes[:half]}, {**training, "classes": classes[half:]}


def _settings(model: str, task_args: TaskArguments, files: list[Path]) -> dict[str, Any]:
    """What the templates say, with the usual plan."""
    low, high = task_args.min_steps, task_args.longest_horizon
    return {
        **vars(task_args),
        **Plan()._asdict(),
        "training_file": files[0],
        "evaluation_file": files[1],
        "base_model": model,
        "start": START,
        "segment_steps": max(2, round(high**0.5)),
        "horizons": sorted({low, high}),
        "evaluate_every": max(1, low // 2),
        "output_dir": f"outputs/{files[0].stem}",
        "title": f"{Path(model).name}, fine-tuned",
        "forecast": None,
    }


def _rendered(template: str, settings: dict[str, Any]) -> bytes:
    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True)
    text = (Path(__file__).parent / "templates" / template).read_text(encoding="utf-8")
    return environment.from_string(text).render(settings).encode()


def _measure(training: bytes) -> StepCosts:
    """Takes a few steps as meta-training will with these settings in YAML."""
    model_args, l3rs_args, task_args, outer, args = parse_settings(ARGUMENTS, yaml.safe_load(training))
    with threads(args.num_threads):
        _, tasks, _ = build_tasks(model_args, task_args, outer.seed)
        network = build_network(tasks.models, l3rs_args, model_args, task_args, outer.seed)
        return measure_steps(tasks, network, outer, make_accelerator())


def choose_plan(costs: StepCosts, task_args: TaskArguments, minutes: float) -> Plan:
    """Returns the longest plan that takes at most so many minutes in one process."""
    for plan in _PLANS:
        for count in range(_MOST, _FEWEST - 1, -1):
            chosen = plan._replace(num_generations=count)
            if costs.seconds(task_args, chosen) <= 60 * minutes:
                return chosen
    least = costs.seconds(task_args, _PLANS[-1]._replace(num_generations=_FEWEST)) / 60
    raise ConfigError(
        f"The shortest meta-training takes {least:.2g} minutes on this machine, got --minutes {minutes:g}; give more, "
        "or shorter --steps or a smaller --batch_size."
    )


# Runs of these lengths are measured; what a step more takes is their difference.
_SHORT, _LONG = 1, 3


class StepCosts(NamedTuple):
    """Seconds of the parts of a meta-training, and bytes of the graph of a differentiated run."""

    differentiated: float  # an inner step, its share of the way back included
    plain: float
    evaluation: float
    graph_bytes: int  # of a run of one step
    step_bytes: int  # of every further step

    def seconds(self, task_args: TaskArguments, plan: Plan) -> float:
        """Returns what a meta-training by gradient will take in one process, the first validation included."""
        low, high = task_args.min_steps, task_args.longest_horizon
        steps = low if low == high else (high - low) / math.log(high / low)  # horizons are log-uniform
        generation = plan.num_tasks * (steps * self.differentiated + self.evaluation)
        validation = plan.num_validation_tasks * (steps * self.plain + self.evaluation)
        interval = capped_interval(MetaTrainingArguments().validation_interval, plan.num_generations)
        return plan.num_generations * generation + (1 + math.ceil(plan.num_generations / interval)) * validation


def measure_steps(
    tasks: TaskDistribution, network: L3RSNetwork, config: OuterConfig, accelerator: Accelerator
) -> StepCosts:
    """Measures inner steps of a run that is differentiated as settings say. The model's state is overwritten."""
    short, long = (tasks.with_horizon(Horizon(steps, steps)).draw(0, 0, 0) for steps in (_SHORT, _LONG))
    device = accelerator.device
    short.model.to(device)
    differentiate = partial(MetaGradient(config, tasks, network, accelerator).of_task, network.to_vector().detach())
    fine_tune = partial(rollout, short.model, network, device=device)
    differentiate(short), fine_tune(short)  # the first time, much is set up that never is again
    graphs = [_measured(partial(differentiate, task), device, count_bytes=True) for task in (short, long)]
    plain = [_measured(partial(fine_tune, task), device)[0] for task in (short, long)]
    differentiated_step, plain_step = (
        max((second - first) / (_LONG - _SHORT), 1e-6) for first, second in ([each[0] for each in graphs], plain)
    )
    return StepCosts(
        differentiated=differentiated_step,
        plain=plain_step,
        evaluation=max(plain[0] - plain_step, 0.0),
        graph_bytes=graphs[0][1],
        step_bytes=max(graphs[1][1] - graphs[0][1], 0) // (_LONG - _SHORT),
    )


def _measured(work: Callable[[], object], device: torch.device, count_bytes: bool = False) -> tuple[float, int]:
    """Returns seconds, on a CPU those of this process alone, and the bytes of all storages that the graph held."""
    held: dict[int, torch.UntypedStorage] = {}  # kept, so that no other gets the address of one

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        held[storage.data_ptr()] = storage
        return tensor

    clock = time.process_time if device.type == "cpu" else time.perf_counter
    hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
    with hooks if count_bytes else nullcontext():
        start = clock()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return clock() - start, sum(storage.nbytes() for storage in held.values())
