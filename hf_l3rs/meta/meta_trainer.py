"""Meta-training: the outer loop under Accelerate."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import time
from collections.abc import Sequence
from typing import Any

from accelerate import Accelerator
from tqdm.auto import tqdm

from hf_l3rs.distributed import (
    Interruption,
    make_accelerator,
    on_every_process,
    on_main_process,
    start_trackers,
    threads,
)
from hf_l3rs.errors import MetaTrainingError
from hf_l3rs.meta.checkpoint import Progress, RunFolder, plain_json, with_earlier_cost
from hf_l3rs.meta.evolution import Evolution
from hf_l3rs.meta.gradient import MetaGradient
from hf_l3rs.meta.meta_arguments import MetaTrainingArguments
from hf_l3rs.meta.outer import Estimate, Estimator, OuterConfig, OuterState
from hf_l3rs.meta.segments import SegmentedGradient
from hf_l3rs.meta.selection import Selection, draw_curve
from hf_l3rs.optimizer.network import L3RSNetwork
from hf_l3rs.tasks.distribution import Task, Tasks


logger = logging.getLogger(__name__)

_ESTIMATORS: dict[str, type[Estimator]] = {
    "evolution": Evolution,
    "gradient": MetaGradient,
    "segments": SegmentedGradient,
}

# Runs report under this name.
_PROJECT = "l3rs-meta-training"

# What matters while waiting, under short names.
_SHOWN = {
    "meta_loss": "meta-loss",
    "accuracy": "acc",
    "best_validation_loss": "best val",
    "validation_loss_untrained": "untrained",
    "num_diverged": "div",
    "inner_steps_per_second": "steps/s",
}


class MetaTrainer:
    """
    Trains meta-weights. The result is a function of the settings and the seed: neither the number of processes nor an
    interruption changes a byte.

    Args:
        network ([`L3RSNetwork`]): Where the search starts; in the end it holds the trained meta-weights.
        tasks ([`~hf_l3rs.tasks.distribution.Tasks`]): What to train on; every model must fit one device.
        outer ([`OuterConfig`]): How the meta-weights move, and what estimates their gradient.
        args ([`MetaTrainingArguments`]): How to run.
        validation_tasks (`Sequence[Task]`, *optional*): Fixed tasks on other images that choose the best weights.
        accelerator (`Accelerator`, *optional*): Made from the environment by default.
        settings (`dict`, *optional*):
            What else identifies the run, such as the data, as plain JSON values; checked when resuming.
    """

    def __init__(
        self,
        network: L3RSNetwork,
        tasks: Tasks,
        outer: OuterConfig,
        args: MetaTrainingArguments,
        *,
        validation_tasks: Sequence[Task] = (),
        accelerator: Accelerator | None = None,
        settings: dict[str, Any] | None = None,
    ) -> None:
        self.accelerator = accelerator or make_accelerator(args.report_to, args.output_dir)
        self.network = network
        for model in dict.fromkeys([*tasks.models, *(task.model for task in validation_tasks)]):
            model.to(self.accelerator.device)
        self.tasks, self.outer, self.args = tasks, outer, args
        self.folder = RunFolder(args.output_dir, args.keep_checkpoints, self.accelerator)
        self.estimator = _ESTIMATORS[outer.estimator](outer, tasks, network, self.accelerator)
        self.selection = Selection(
            validation_tasks, network.config, self.accelerator, args.validation_interval, outer.num_generations
        )
        identity = {
            "config": network.config.to_dict(),
            "strategy": outer.used(),
            # these two change the rounding
            "num_threads": args.num_threads,
            "mixed_precision": self.accelerator.mixed_precision,
            **(settings or {}),
        }
        self.progress = Progress(OuterState.start(network.to_vector()), plain_json(identity))
        self._interruption = Interruption()
        self._barren = False

    @property
    def was_interrupted(self) -> bool:
        """Whether a signal ended training early; the last checkpoint resumes it."""
        return self._interruption.requested and not self._is_over()

    def train(self) -> L3RSNetwork:
        """
        Runs, or resumes, meta-training. A run that is over stays so: resuming it trains nothing.

        Returns:
            [`L3RSNetwork`]: With the best validated meta-weights, or the last ones where nothing was validated.

        Raises:
            CheckpointError: If `output_dir` is in use, or the checkpoint to resume from does not fit or is damaged.
            NothingToKeepError: If every candidate or every validation diverged.
        """
        with (
            threads(self.args.num_threads),
            self.folder.opened(self.progress, self.args.resume_from_checkpoint) as progress,
        ):
            self.progress = progress
            if not self._is_over():
                self._begin()
                self._run_generations()
                self._save()
                on_main_process(self.accelerator, lambda: draw_curve(self.folder.path))
                for tracker in self.accelerator.trackers:
                    tracker.finish()
                self.accelerator.trackers.clear()  # which end_training would finish again
        if self._is_over():
            self.selection.check_outcome(progress)
        self.network.load_vector(progress.state.average if progress.best_mean is None else progress.best_mean)
        return self.network

    def summary(self) -> dict[str, Any]:
        """Returns what the model card tells about the run, as strict JSON. Costs include those of `started_from`."""
        progress, earlier = self.progress, self.network.config.meta_training
        tasks, models = (dict(progress.settings.get(name, {})) for name in ("tasks", "model"))
        datasets = tasks.pop("datasets", [])
        told = ("trainable", "base_model", "more_base_models", "revisions")
        summary = {
            "datasets": [dataset["hub_id"] or dataset["path"] for dataset in datasets],
            "data": progress.settings.get("data"),
            **tasks,
            **{name: models.get(name) for name in (told if models.get("more_base_models") else told[:1])},
            **self.outer.used(),
            "best_generation": progress.best_generation,
            "best_validation_loss": progress.best_loss,
            "validation_loss_untrained": progress.untrained_loss,
            **with_earlier_cost(progress.cost, earlier),
            "started_from": earlier or None,
        }
        return plain_json({name: value for name, value in summary.items() if value is not None})

    def _begin(self) -> None:
        """Takes up the estimator where the run stands, or measures an untrained L3RS."""
        start_trackers(self.accelerator, _PROJECT, self.progress.settings)
        if self.progress.state.generation:
            self.estimator.load_state(self.progress.carried)
            self.progress.carried = {}  # would otherwise be held twice
        elif self.selection.interval:
            self.selection.measure_untrained(self.progress)

    def _run_generations(self) -> None:
        bar = tqdm(
            total=self.outer.num_generations,
            initial=self.progress.state.generation,
            desc="meta-training",
            unit="gen",
            disable=not self.accelerator.is_local_main_process,
        )
        shown: dict[str, str] = {}
        with bar, self._interruption.on_signals():
            while not self._is_over():
                metrics = self._generation()
                shown |= {label: f"{metrics[name]:.4g}" for name, label in _SHOWN.items() if name in metrics}
                bar.set_postfix(shown)
                bar.update()
                if self._all_agree_to_stop():
                    break

    def _generation(self) -> dict[str, Any]:
        """Asks the estimator, moves the meta-weights and validates; returns what is logged."""
        start, progress = time.perf_counter(), self.progress
        estimate = self.estimator.estimate(progress.state)
        state, gradient = progress.state, estimate.gradient
        progress.state = state.retreat() if gradient is None else state.move(self.outer, gradient)
        self._check_agreement()
        metrics = self._count(estimate, time.perf_counter() - start)
        if self._is_due(self.selection.interval):
            metrics |= self.selection.validate(progress)
        numbers = {name: value for name, value in metrics.items() if value is not None}
        self.accelerator.log(numbers, step=progress.state.generation)
        self.folder.log(metrics)
        if self._is_due(self.args.checkpoint_interval):
            self._save()
        return numbers

    def _count(self, estimate: Estimate, seconds: float) -> dict[str, Any]:
        """Adds up costs, and warns of the first generation in a row that was for nothing; returns what is logged."""
        cost, generation = self.progress.cost, self.progress.state.generation
        cost["inner_steps"] += estimate.num_inner_steps
        cost["cost_in_plain_steps"] += estimate.cost_in_plain_steps
        cost["evaluations"] += estimate.num_evaluations
        cost["seconds"] += seconds
        cost["num_diverged"] += estimate.num_diverged
        was_barren, self._barren = self._barren, estimate.num_diverged == estimate.num_evaluations
        if self._barren and not was_barren and self.accelerator.is_main_process:
            logger.warning(
                "All %d candidates of generation %d diverged, so nothing was learned from it; if this goes on, lower "
                "base_step or sigma, and check the base model.",
                estimate.num_evaluations,
                generation,
            )
        return {
            "generation": generation,
            **estimate.metrics,
            "num_diverged": estimate.num_diverged,
            "inner_steps": cost["inner_steps"],
            "inner_steps_per_second": estimate.num_inner_steps / seconds,
            "learning_rate": self.outer.learning_rate_at(generation - 1),
        }

    def _save(self) -> None:
        self.folder.save(dataclasses.replace(self.progress, carried=self.estimator.state()))

    def _is_over(self) -> bool:
        return self.progress.state.generation >= self.outer.num_generations

    def _is_due(self, interval: int) -> bool:
        generation = self.progress.state.generation
        return interval > 0 and (generation % interval == 0 or generation == self.outer.num_generations)

    def _all_agree_to_stop(self) -> bool:
        self._interruption.requested = any(on_every_process(self.accelerator, lambda: self._interruption.requested))
        return self._interruption.requested

    def _check_agreement(self) -> None:
        """Checks that the meta-weights are the same, to the byte, on every process."""
        digest = hashlib.sha256(self.progress.state.mean.numpy().tobytes()).digest()
        if len(set(on_every_process(self.accelerator, lambda: digest))) > 1:
            raise MetaTrainingError(
                "The processes' meta-weights differ, so they do not run the same program on the same data; use the "
                "same versions and settings on every machine."
            )
