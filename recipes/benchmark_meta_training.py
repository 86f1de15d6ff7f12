"""
Measures how fast meta-training is, beside loops without any of this library's code.

    python -m recipes.benchmark_meta_training
    python -m recipes.benchmark_meta_training --sections rollout --rounds 20

rollout    inner steps on the embedded ResNet, beside a loop of forward, backward and Adam (foreach)
gradient   inner steps on the embedded ResNet, differentiated beside plain
processes  inner steps of meta-training in two processes of one thread, beside one

What is compared takes turns within a round, so that a busy machine slows both alike. Ratios are of times from the same
round, and everything shown is a median over rounds. One thread a process.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from hf_l3rs import L3RSConfig, L3RSNetwork, describe_layers
from hf_l3rs.cli.main import run_script
from hf_l3rs.errors import MetaTrainingError
from hf_l3rs.markdown import markdown_table
from hf_l3rs.meta.checkpoint import METRICS_NAME
from hf_l3rs.meta.evolution import rollout
from hf_l3rs.meta.gradient import differentiate
from hf_l3rs.settings import OptionParser
from hf_l3rs.tasks.distribution import Setup, Task, build_tasks
from hf_l3rs.tasks.pools import Batch
from hf_l3rs.tasks.task_arguments import DatasetArguments, ModelArguments, TaskArguments
from hf_l3rs.tasks.unrolled import UnrolledLearner


RECIPES = Path(__file__).resolve().parent
WARM_UP = 1
NUM_IMAGES = 2000


class Row(NamedTuple):
    """One measurement: inner steps a second, and their ratio to those of the first of its section."""

    section: str
    name: str
    speed: float
    ratio: float


def compare(runs: dict[str, Callable[[], Any]], arguments: argparse.Namespace) -> dict[str, tuple[float, float]]:
    """Median seconds of every run, and the median over rounds of the first run's time divided by its time."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    names = list(runs)
    for index in range(-WARM_UP, arguments.rounds):
        first = index % len(names)
        for name in names[first:] + names[:first]:
            start = time.perf_counter()
            runs[name]()
            if index >= 0:
                times[name].append(time.perf_counter() - start)
    return {
        name: (statistics.median(own), statistics.median(base / mine for base, mine in zip(times[names[0]], own)))
        for name, own in times.items()
    }


def make_resnet(num_steps: int) -> tuple[Setup, L3RSNetwork, Task]:
    """The embedded model, an untrained L3RS, and a task that evaluates one image: what is compared are the steps."""
    fashion = DatasetArguments(
        path=str(RECIPES / "data/fashion_mnist"),
        batches_split="meta_train_batches",
        evaluation_split="meta_train_eval",
        validation_batches_split="validation_batches",
        validation_evaluation_split="validation_eval",
        max_images=NUM_IMAGES,
    )
    setup = build_tasks(
        ModelArguments(base_model=str(RECIPES / "base_models/resnet-tiny-fashion")),
        TaskArguments(datasets=[fashion], evaluation_size=32, min_steps=num_steps),
        seed=0,
    )
    network = L3RSNetwork(L3RSConfig(layers=describe_layers(setup.model.named_parameters())))
    task = setup.tasks.draw(0, 0, 0)
    return setup, network, task._replace(evaluation=[Batch(*(part[:1] for part in task.evaluation[0]))])


def benchmark_rollout(arguments: argparse.Namespace) -> list[Row]:
    """A rollout beside what anybody would write."""
    setup, network, task = make_resnet(arguments.steps)
    images, rows = setup.tasks.sources[0].batches.fetch(torch.arange(NUM_IMAGES)), list(task.batches.rows)
    labels = task.batches.label_map[setup.tasks.sources[0].batches.labels]
    runs = {
        "bare loop, Adam (foreach)": lambda: bare_loop(setup.model, task, images, labels, rows),
        "rollout, L3RS": lambda: rollout(setup.model, network, task),
    }
    return to_rows("rollout", compare(runs, arguments), arguments.steps)


def bare_loop(
    model: nn.Module, task: Task, images: torch.Tensor, labels: torch.Tensor, rows: Sequence[torch.Tensor]
) -> None:
    """What anybody would write: the same images, the same model, torch's Adam, and nothing of this library."""
    model.load_state_dict(dict(task.initial_state))
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, foreach=True)
    for batch in rows:
        loss = model(pixel_values=images[batch], labels=labels[batch]).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()
    with torch.no_grad():
        model(pixel_values=task.evaluation[0].pixel_values)


def differentiated(model: nn.Module, network: L3RSNetwork, task: Task, **options: Any) -> None:
    vector = network.to_vector().requires_grad_()
    learner = UnrolledLearner(model, network, vector, task.num_training_steps, **options)
    differentiate(learner, task)


def benchmark_gradient(arguments: argparse.Namespace) -> list[Row]:
    """A differentiated run beside a plain one."""
    setup, network, task = make_resnet(arguments.steps)
    runs = {
        "plain": lambda: rollout(setup.model, network, task),
        "second order": lambda: differentiated(setup.model, network, task),
        "first order": lambda: differentiated(setup.model, network, task, second_order=False),
    }
    return to_rows("gradient", compare(runs, arguments), arguments.steps)


def to_rows(section: str, results: dict[str, tuple[float, float]], num_steps: int) -> list[Row]:
    return [Row(section, name, num_steps / seconds, ratio) for name, (seconds, ratio) in results.items()]


def benchmark_processes(arguments: argparse.Namespace) -> list[Row]:
    """Launches the recipe itself; every round has a run of each kind."""
    speeds: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(arguments.launches):
        for count, values in speeds.items():
            values.append(launch(count, arguments))
    ratio = statistics.median(two / one for one, two in zip(*speeds.values()))
    one, two = map(statistics.median, speeds.values())
    return [Row("processes", "one process", one, 1.0), Row("processes", "two processes", two, ratio)]


def launch(num_processes: int, arguments: argparse.Namespace) -> float:
    """Inner steps a second of all processes of a short run, over all generations but the first."""
    with tempfile.TemporaryDirectory() as folder:
        options = {
            "stages": 1,
            "estimator": "evolution",
            "output_dir": folder,
            "num_generations": arguments.generations + 1,
            "num_pairs": arguments.pairs,
            "min_steps": arguments.steps,
            "max_steps": arguments.steps,
            "evaluation_size": 32,
            "num_validation_tasks": 0,
            "checkpoint_interval": 0,
        }
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", num_processes]
        command += ["-m", "recipes.meta_train", "recipes/configs/resnet_tiny_fashion.yaml"]
        command += [part for name, value in options.items() for part in (f"--{name}", value)]
        done = subprocess.run(
            [str(part) for part in command], cwd=RECIPES.parent, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise MetaTrainingError(f"{num_processes} processes of recipes.meta_train failed: {done.stderr[-2000:]}")
        lines = (Path(folder) / METRICS_NAME).read_text(encoding="utf-8").splitlines()
    return statistics.median(json.loads(line)["inner_steps_per_second"] for line in lines[1:])


SECTIONS: dict[str, Callable[[argparse.Namespace], list[Row]]] = {
    "rollout": benchmark_rollout,
    "gradient": benchmark_gradient,
    "processes": benchmark_processes,
}


def parse_arguments(args: Sequence[str] | None = None) -> argparse.Namespace:
    parser = OptionParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS), help="What to measure.")
    parser.add_argument("--rounds", type=int, default=15, help="Timed runs in rollout and gradient.")
    parser.add_argument("--steps", type=int, default=20, help="Inner steps of a candidate.")
    parser.add_argument("--launches", type=int, default=3, help="Runs of each number of processes.")
    parser.add_argument("--generations", type=int, default=5, help="Timed generations of such a run.")
    parser.add_argument("--pairs", type=int, default=10, help="Pairs of candidates of such a generation.")
    arguments = parser.parse_args(args)
    for name, value in vars(arguments).items():
        if isinstance(value, int) and value < 1:
            parser.error(f"--{name} must be at least 1, got {value}.")
    return arguments


def main(args: Sequence[str] | None = None) -> list[Row]:
    """Returns the table's rows, and prints it."""
    arguments = parse_arguments(args)
    torch.set_num_threads(1)
    rows = [row for name in arguments.sections for row in SECTIONS[name](arguments)]
    lines = [(row.section, row.name, f"{row.speed:,.1f}", f"{row.ratio:.2f}") for row in rows]
    table = markdown_table(("section", "", "inner steps/s", "ratio"), lines, ("left", "left", "right", "right"))
    sys.stdout.write(f"CPU, one thread a process, torch {torch.__version__}, {arguments.rounds} rounds\n\n{table}\n")
    return rows


if __name__ == "__main__":
    run_script(main)
