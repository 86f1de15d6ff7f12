"""
Measures how fast meta-training is, and whether its memory grows, beside loops without any of this library's code.

    python recipes/benchmark_meta_training.py
    python recipes/benchmark_meta_training.py --sections rollout mlp --rounds 20

rollout    inner steps of one candidate on the embedded ResNet, beside a loop of forward, backward and Adam (foreach)
processes  inner steps of meta-training in two processes of one thread, beside one
mlp        inner steps of 16 candidates of a 784-32-10 perceptron
gradient   inner steps of one candidate on the embedded ResNet, differentiated beside plain, and the memory they take
memory     resident memory of a process that meta-trains for many generations

What is compared takes turns within a round, so that a busy machine slows both alike; ratios are of times from the same
round, and everything shown is a median over rounds. One thread a process.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from accelerate.tracking import GeneralTracker, on_main_process
from torch import nn

from hf_l3rs import L3RSConfig, L3RSNetwork, describe_layers
from hf_l3rs.meta.checkpoint import METRICS_NAME
from hf_l3rs.meta.evolution import ESConfig, rollout
from hf_l3rs.meta.gradient import differentiate
from hf_l3rs.meta.meta_arguments import MetaTrainingArguments
from hf_l3rs.meta.meta_trainer import MetaTrainer
from hf_l3rs.settings import OptionParser
from hf_l3rs.tasks.distribution import Horizon, Setup, Task, TaskDistribution, TaskSource, build_tasks
from hf_l3rs.tasks.model import InitialStates
from hf_l3rs.tasks.pools import Batch, ImagePool
from hf_l3rs.tasks.task_arguments import DatasetArguments, ModelArguments, TaskArguments
from hf_l3rs.tasks.unrolled import UnrolledLearner


RECIPES = Path(__file__).resolve().parent
WARM_UP = 1
# On a machine that others use too, the time that a thread computes says more than the time that passes.
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
# The population of the perceptron in published comparisons.
CANDIDATES, MLP_STEPS, MLP_BATCH = 16, 50, 64
NUM_IMAGES = 2000
# When the memory is first looked at: caches are full by then.
SETTLED = 10


class Row(NamedTuple):
    """One measurement, its ratio to the one that it stands beside, and what it should be."""

    section: str
    name: str
    value: float
    unit: str
    ratio: float
    target: str = ""


def compare(runs: dict[str, Callable[[], Any]], arguments: argparse.Namespace) -> dict[str, tuple[float, float]]:
    """Median seconds of every run, and the median over rounds of the first run's time divided by its time."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    names, clock = list(runs), CLOCKS[arguments.clock]
    for index in range(-WARM_UP, arguments.rounds):
        first = index % len(names)
        for name in names[first:] + names[:first]:
            start = clock()
            runs[name]()
            if index >= 0:
                times[name].append(clock() - start)
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
    setup, network, task = make_resnet(arguments.steps)
    images, rows = setup.tasks.sources[0].batches.fetch(torch.arange(NUM_IMAGES)), list(task.batches.rows)
    labels = task.batches.label_map[setup.tasks.sources[0].batches.labels]
    runs = {
        "bare loop, Adam (foreach)": lambda: bare_loop(setup.model, task, images, labels, rows),
        "rollout, L3RS": lambda: rollout(setup.model, network, task),
    }
    results = compare(runs, arguments)
    targets = dict(zip(runs, ("", "ratio at least 0.93")))
    return [
        Row("rollout", name, arguments.steps / seconds, "inner steps/s", ratio, targets[name])
        for name, (seconds, ratio) in results.items()
    ]


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


def differentiated(model: nn.Module, network: L3RSNetwork, task: Task, segment_steps: int = 0, **options: Any) -> None:
    vector = network.to_vector().requires_grad_()
    learner = UnrolledLearner(model, network, vector, task.num_training_steps, **options)
    differentiate(learner, task, [task.num_training_steps], segment_steps)


def benchmark_gradient(arguments: argparse.Namespace) -> list[Row]:
    """Ratios are of time to that of a plain step, and of memory to that of the short run."""
    setup, network, task = make_resnet(arguments.steps)
    runs = {
        "plain": lambda: rollout(setup.model, network, task),
        "second order": lambda: differentiated(setup.model, network, task),
        "first order": lambda: differentiated(setup.model, network, task, second_order=False),
    }
    targets = dict(zip(runs, ("", "ratio at most 2.5", "ratio at most 1.4")))
    rows = [
        Row("gradient", name, arguments.steps / seconds, "inner steps/s", 1 / ratio, targets[name])
        for name, (seconds, ratio) in compare(runs, arguments).items()
    ]
    short, long = max(arguments.steps // 4, 1), arguments.steps * 5 // 2
    for name, segments in (("whole graph", (0, 0)), ("segments", (math.isqrt(short), math.isqrt(long)))):
        first, last = (peak_growth(count, own) for count, own in zip((short, long), segments))
        target = "ratio at most 6" if name == "segments" else ""
        rows.append(Row("gradient", f"{name}, {short} steps", first, "MiB", 1.0))
        rows.append(Row("gradient", f"{name}, {long} steps", last, "MiB", last / first, target))
    return rows


def peak_growth(num_steps: int, segment_steps: int) -> float:
    """MiB that a differentiated run adds to the peak of a fresh process that has taken plain steps."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_peak_growth, num_steps, segment_steps).result()


def _peak_growth(num_steps: int, segment_steps: int) -> float:
    torch.set_num_threads(1)
    setup, network, task = make_resnet(num_steps)
    rollout(setup.model, network, task)
    before = mebibytes("VmHWM")
    differentiated(setup.model, network, task, segment_steps)
    return mebibytes("VmHWM") - before


def benchmark_processes(arguments: argparse.Namespace) -> list[Row]:
    """Launches the recipe itself; every round has a run of each kind."""
    speeds: dict[int, list[float]] = {1: [], 2: []}
    ratios = []
    for _ in range(arguments.launches):
        for count, values in speeds.items():
            values.append(launch(count, arguments))
        ratios.append(speeds[2][-1] / speeds[1][-1])
    return [
        Row("processes", "one process", statistics.median(speeds[1]), "inner steps/s", 1.0),
        Row("processes", "two processes", statistics.median(speeds[2]), "inner steps/s", statistics.median(ratios),
            "ratio at least 1.8"),
    ]  # fmt: skip


def launch(num_processes: int, arguments: argparse.Namespace) -> float:
    """Inner steps per second of all processes of a short run, over all generations but the first."""
    with tempfile.TemporaryDirectory() as folder:
        options = {
            "output_dir": folder,
            "num_generations": arguments.launch_generations + 1,
            "num_pairs": arguments.launch_pairs,
            "min_steps": arguments.steps,
            "max_steps": arguments.steps,
            "evaluation_size": 32,
            "num_validation_tasks": 0,
            "validation_interval": 0,
            "checkpoint_interval": 0,
        }
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", num_processes,
                   RECIPES / "meta_train.py", RECIPES / "configs/resnet_tiny_fashion.yaml"]  # fmt: skip
        command += [part for name, value in options.items() for part in (f"--{name}", value)]
        done = subprocess.run(
            [str(part) for part in command], cwd=RECIPES.parent, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{num_processes} processes of meta_train.py failed:\n{done.stderr}")
        lines = (Path(folder) / METRICS_NAME).read_text(encoding="utf-8").splitlines()
    return statistics.median(json.loads(line)["inner_steps_per_second"] for line in lines[1:])


class Perceptron(nn.Module):
    """Dense layers on 28 x 28 pixels, with the interface of a transformers model."""

    class Output(NamedTuple):
        loss: torch.Tensor | None
        logits: torch.Tensor

    def __init__(self, hidden_size: int = 32, num_labels: int = 10) -> None:
        super().__init__()
        self.encoder = nn.Linear(784, hidden_size)
        self.classifier = nn.Linear(hidden_size, num_labels)

    def forward(self, pixel_values: torch.Tensor, labels: torch.Tensor | None = None) -> Perceptron.Output:
        logits = self.classifier(torch.relu(self.encoder(pixel_values.flatten(1))))
        return Perceptron.Output(None if labels is None else nn.functional.cross_entropy(logits, labels), logits)


def make_perceptron(num_steps: int, batch_size: int = MLP_BATCH) -> tuple[nn.Module, L3RSNetwork, TaskDistribution]:
    """A perceptron, an untrained L3RS for it, and tasks on random images."""
    torch.manual_seed(0)
    model = Perceptron()
    labels = torch.arange(NUM_IMAGES) % 10
    pools = [
        ImagePool(torch.randn(NUM_IMAGES, 1, 28, 28), labels, [str(label) for label in range(10)]) for _ in range(2)
    ]
    tasks = TaskDistribution(
        [TaskSource("random images", *pools)],
        InitialStates(model, [model.state_dict()]),
        num_classes=10,
        batch_size=batch_size,
        evaluation_size=batch_size,
        horizon=Horizon(num_steps, num_steps),
    )
    return model, L3RSNetwork(L3RSConfig(describe_layers(model.named_parameters()))), tasks


def benchmark_mlp(arguments: argparse.Namespace) -> list[Row]:
    """All candidates have one task, as in a generation of the paper's."""
    model, network, distribution = make_perceptron(arguments.mlp_steps)
    task = distribution.draw(0, 0, 0)
    noise = torch.randn(CANDIDATES, network.num_meta_parameters, generator=torch.Generator().manual_seed(0))
    vectors = network.to_vector() + 0.02 * noise
    candidate = L3RSNetwork(network.config)

    def one_after_another() -> None:
        for vector in vectors:
            candidate.load_vector(vector)
            rollout(model, candidate, task)

    runs = {
        "one after another": one_after_another,
    }
    num_steps = CANDIDATES * arguments.mlp_steps
    return [
        Row("mlp", name, num_steps / seconds, "inner steps/s", ratio, "best at least 2,000 inner steps/s")
        for name, (seconds, ratio) in compare(runs, arguments).items()
    ]


class MemoryTracker(GeneralTracker):
    """Looks at the process's memory whenever a generation is logged."""

    name = "memory"
    requires_logging_directory = False

    def __init__(self) -> None:
        super().__init__()
        self.mebibytes: dict[int, float] = {}

    @property
    def tracker(self) -> dict[int, float]:
        return self.mebibytes

    @on_main_process
    def log(self, values: dict[str, float], step: int | None = None, **kwargs: Any) -> None:
        self.mebibytes[int(step or 0)] = mebibytes("VmRSS")


def mebibytes(name: str) -> float:
    """Memory that the process has (VmRSS), or its peak (VmHWM), which is all that macOS tells; nan if nothing is."""
    status = Path("/proc/self/status")
    fields = dict(line.split(":", 1) for line in status.read_text().splitlines()) if status.exists() else {}
    if name in fields:
        return int(fields[name].split()[0]) / 2**10
    try:
        import resource
    except ImportError:  # Windows
        return float("nan")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def benchmark_memory(arguments: argparse.Namespace) -> list[Row]:
    """Validates and writes checkpoints too, as real runs do."""
    _, network, distribution = make_perceptron(num_steps=4, batch_size=8)
    tracker = MemoryTracker()
    with tempfile.TemporaryDirectory() as folder:
        trainer = MetaTrainer(
            network,
            distribution,
            ESConfig(num_generations=arguments.generations, num_pairs=2),
            MetaTrainingArguments(folder),
            validation_tasks=[distribution.draw(1, 0, index) for index in range(2)],
            accelerator=Accelerator(log_with=tracker, cpu=True),
        )
        trainer.train()
    first, last = min(SETTLED, arguments.generations), arguments.generations
    before, after = tracker.mebibytes[first], tracker.mebibytes[last]
    return [
        Row("memory", f"after {first} generations", before, "MiB", 1.0),
        Row(
            "memory",
            f"after {last} generations",
            after,
            "MiB",
            after / before,
            f"no growth ({after - before:+.1f} MiB)",
        ),
    ]


SECTIONS: dict[str, Callable[[argparse.Namespace], list[Row]]] = {
    "memory": benchmark_memory,  # first: the others leave their own in the process
    "rollout": benchmark_rollout,
    "gradient": benchmark_gradient,
    "mlp": benchmark_mlp,
    "processes": benchmark_processes,
}


def to_markdown(rows: Sequence[Row]) -> str:
    lines = ["| section | | value | unit | ratio | target |", "|---|---|---:|---|---:|---|"]
    lines += [f"| {r.section} | {r.name} | {r.value:,.1f} | {r.unit} | {r.ratio:.2f} | {r.target} |" for r in rows]
    return "\n".join(lines)


def parse_arguments(args: Sequence[str] | None = None) -> argparse.Namespace:
    parser = OptionParser(
        description=__doc__.strip().split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS), help="What to measure.")
    parser.add_argument("--rounds", type=int, default=15, help="Timed runs in rollout, gradient and mlp.")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="Seconds in rollout, gradient and mlp.")
    parser.add_argument("--steps", type=int, default=20, help="Inner steps of a candidate on the ResNet.")
    parser.add_argument("--mlp_steps", type=int, default=MLP_STEPS, help="Inner steps of a candidate in mlp.")
    parser.add_argument("--launches", type=int, default=3, help="Runs of each number of processes.")
    parser.add_argument("--launch_generations", type=int, default=5, help="Timed generations of such a run.")
    parser.add_argument("--launch_pairs", type=int, default=10, help="Pairs of candidates of such a generation.")
    parser.add_argument("--generations", type=int, default=200, help="Generations over which memory may grow.")
    arguments = parser.parse_args(args)
    for name, value in vars(arguments).items():
        if isinstance(value, int) and value < 1:
            parser.error(f"--{name} must be at least 1, got {value}.")
    return arguments


def main(args: Sequence[str] | None = None) -> list[Row]:
    """Returns the table's rows, and prints it."""
    arguments = parse_arguments(args)
    torch.set_num_threads(1)
    rows = [row for name, measure in SECTIONS.items() if name in arguments.sections for row in measure(arguments)]
    print(
        f"CPU, one thread a process, torch {torch.__version__}, {arguments.rounds} rounds, "
        f"{arguments.clock} time\n\n{to_markdown(rows)}"
    )
    return rows


if __name__ == "__main__":
    main()
