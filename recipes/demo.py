"""
Fine-tunes the embedded ResNet on real images in the stock Trainer: with L3RS, which has nothing to tune, and with Adam
at learning rates that were searched on validation tasks. Needs no network and about three minutes on two cores.

    python -m recipes.demo

Every optimizer gets the same 16 unseen tasks: the same new heads, batches in the same order, the same test images.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm
from transformers import PrinterCallback, Trainer, TrainingArguments
from transformers.utils import logging as transformers_logging

from hf_l3rs import L3RS, L3RSArtifact
from hf_l3rs.cli.main import run_script
from hf_l3rs.errors import ConfigError
from hf_l3rs.evaluation.baselines import BASELINES
from hf_l3rs.evaluation.benchmark import best_rates, draw_task
from hf_l3rs.evaluation.plots import plot_learning_curves
from hf_l3rs.evaluation.report import Summary, summarise, to_markdown
from hf_l3rs.evaluation.store import Row, write_rows
from hf_l3rs.files import write_files
from hf_l3rs.settings import parse_arguments
from hf_l3rs.tasks.distribution import Setup, build_tasks
from hf_l3rs.tasks.pools import Batch
from hf_l3rs.tasks.task_arguments import DatasetArguments, ModelArguments, TaskArguments
from hf_l3rs.trainer.metrics import compute_accuracy
from hf_l3rs.validation import Range, check_fields, check_not_empty
from recipes.evidence.stored import SEARCH, read_stored


RECIPES = Path(__file__).resolve().parent
ADAMS = ("Adam constant", "Adam cosine")
SEED = 1000


@dataclass
class DemoArguments:
    """What the demo runs."""

    model: str = field(default="resnet", metadata={"help": "Which embedded model: resnet or vit."})
    l3rs: str | None = field(default=None, metadata={"help": "Another L3RS than the embedded one."})
    horizons: list[int] = field(default_factory=lambda: [10, 20, 50, 100], metadata={"help": "Lengths of runs."})
    num_tasks: int = field(default=16, metadata={"help": "Unseen tasks."})
    target_accuracy: float = field(default=0.93, metadata={"help": "Accuracy to count the steps to."})
    num_workers: int = field(default=os.cpu_count() or 1, metadata={"help": "Processes, with one thread each."})
    output_dir: str = field(default="outputs/demo", metadata={"help": "Where the table and the picture go."})

    def __post_init__(self) -> None:
        counts = dict.fromkeys(("horizons", "num_tasks", "num_workers"), Range(low=1))
        check_fields(self, {"model": ("resnet", "vit"), "target_accuracy": Range(above=0, high=1), **counts})
        check_not_empty(self, "output_dir")
        searched = self.rates()[ADAMS[0]]
        unknown = [steps for steps in self.horizons if steps not in searched]
        if unknown or not self.horizons:
            raise ConfigError(
                f"DemoArguments.horizons must be some of {', '.join(map(str, sorted(searched)))}, for which learning "
                f"rates were searched, got {', '.join(map(str, unknown)) or 'none'}."
            )

    @property
    def name(self) -> str:
        """What artefact and results of the model are called."""
        return f"l3rs-{self.model}-tiny-fashion"

    def rates(self) -> dict[str, dict[int, float]]:
        """See [`searched_rates`]."""
        return searched_rates(self.model)


def searched_rates(model: str) -> dict[str, dict[int, float]]:
    """Returns the learning rates that were best on an embedded model's validation tasks, by optimizer and horizon."""
    return best_rates(read_stored(f"l3rs-{model}-tiny-fashion")[f"{SEARCH}in_domain"])


def embedded_tasks(model: str, evaluation_size: int = 2000) -> Setup:
    """Returns an embedded model, resnet or vit, with its tasks on images that no released L3RS saw."""
    data = DatasetArguments(
        path=str(RECIPES / "data/fashion_mnist"),
        batches_split="test_batches",
        evaluation_split="test_eval",
        validation_batches_split="validation_batches",
        validation_evaluation_split="validation_eval",
    )
    return build_tasks(
        ModelArguments(base_model=str(RECIPES / f"base_models/{model}-tiny-fashion")),
        TaskArguments(datasets=[data], evaluation_size=evaluation_size),
        SEED,
    )


class Examples(torch.utils.data.Dataset):
    """A task's images one by one, in the order of its batches: what a Trainer takes."""

    def __init__(self, batches: Sequence[Batch]) -> None:
        self.pixel_values = torch.cat([batch.pixel_values for batch in batches])
        self.labels = torch.cat([batch.labels for batch in batches])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"pixel_values": self.pixel_values[index], "labels": int(self.labels[index])}


class Worker:
    """What a process of the demo holds: model, images and learning rates, loaded once."""

    def __init__(self, args: DemoArguments) -> None:
        torch.set_num_threads(1)
        transformers_logging.set_verbosity_error()
        self.l3rs = args.l3rs or args.name
        setup = embedded_tasks(args.model)
        self.model, self.tasks = setup.model, setup.tasks
        self.rates = args.rates()

    def run(self, name: str, index: int, num_steps: int) -> list[Row]:
        """Fine-tunes on one task with one optimizer."""
        task = draw_task(self.tasks, SEED, index, num_steps)
        self.model.load_state_dict(dict(task.initial_state))
        rate = None if name == "L3RS" else self.rates[name][num_steps]
        with tempfile.TemporaryDirectory() as folder:
            training_args = TrainingArguments(
                output_dir=folder,
                max_steps=num_steps,
                per_device_train_batch_size=task.batches[0].labels.numel(),
                per_device_eval_batch_size=500,
                train_sampling_strategy="sequential",
                eval_strategy="steps",
                eval_steps=max(5, num_steps // 5),
                save_strategy="no",
                logging_strategy="no",
                disable_tqdm=True,
                report_to="none",
                use_cpu=True,
            )
            if rate is None:
                optimizers = (L3RS.from_pretrained(self.l3rs), None)
            else:
                optimizers = BASELINES[name].at(rate).build(self.model, num_steps)
                # as in the search of the learning rates: no clipping, and no schedule but the optimizer's own
                training_args.max_grad_norm = 0.0
                training_args.lr_scheduler_type = "constant"
            trainer = Trainer(
                model=self.model,
                args=training_args,
                train_dataset=Examples(task.batches),
                eval_dataset=Examples(task.evaluation),
                compute_metrics=compute_accuracy,
                optimizers=optimizers,
            )
            trainer.remove_callback(PrinterCallback)
            trainer.train()
        return [
            Row(name, rate, index, num_steps, entry["step"], entry["eval_loss"], entry["eval_accuracy"])
            for entry in trainer.state.log_history
            if "eval_loss" in entry
        ]


_worker: Worker | None = None


def _start(args: DemoArguments) -> None:
    global _worker
    _worker = Worker(args)


def _run(job: tuple[str, int, int]) -> list[Row]:
    if _worker is None:
        raise RuntimeError("The worker process was not initialised.")
    return _worker.run(*job)


def main(argv: list[str] | None = None) -> str:
    """Returns the table as Markdown."""
    (args,) = parse_arguments((DemoArguments,), argv, description=__doc__)
    write_files(args.output_dir, {})  # what cannot be is found out now, not after minutes or in another process
    if args.l3rs is not None:
        L3RSArtifact.from_pretrained(args.l3rs)
    jobs = [
        (name, task, steps)
        for steps in sorted(args.horizons, reverse=True)
        for task in range(args.num_tasks)
        for name in (*ADAMS, "L3RS")
    ]
    rows: list[Row] = []
    spawn = multiprocessing.get_context("spawn")
    with (
        ProcessPoolExecutor(args.num_workers, spawn, initializer=_start, initargs=(args,)) as pool,
        tqdm(total=len(jobs), desc="fine-tuning in the Trainer", unit="run") as bar,
    ):
        for future in as_completed([pool.submit(_run, job) for job in jobs]):
            rows += future.result()
            bar.update()
    order = {name: index for index, name in enumerate((*ADAMS, "L3RS"))}
    rows.sort(key=lambda row: (row.num_training_steps, order[row.optimizer], row.task, row.step))
    return report(rows, args)


def steps_to_reach(summaries: Sequence[Summary], optimizer: str, accuracy: float) -> int | None:
    """Returns the shortest run after which an optimizer's mean accuracy reaches the target, if any does."""
    lengths = [
        each.num_training_steps for each in summaries if each.optimizer == optimizer and each.accuracy >= accuracy
    ]
    return min(lengths, default=None)


def report(rows: list[Row], args: DemoArguments) -> str:
    """Writes table, curves and raw rows, and prints the table."""
    output_dir = Path(args.output_dir)
    summaries = summarise(rows, ADAMS)
    table, target = to_markdown(summaries), f"{100 * args.target_accuracy:.0f} %"
    for name in (*ADAMS, "L3RS"):
        steps = steps_to_reach(summaries, name, accuracy=args.target_accuracy)
        table += f"\n{name}: {target} accuracy {f'after {steps} steps' if steps else 'is not reached in these runs'}"
    write_rows(rows, output_dir / "rows.csv")
    plot_learning_curves(
        rows, output_dir / "curves.png", f"{args.model}: fine-tuning on {args.num_tasks} unseen tasks"
    )
    sys.stdout.write(f"\n{table}\n\nThe curves are in {output_dir / 'curves.png'}.\n")
    return table


if __name__ == "__main__":
    run_script(main)
