"""Meta-training: the outer loop under Accelerate."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from accelerate import Accelerator
from tqdm.auto import tqdm

from hf_l3rs.errors import ConfigError
from hf_l3rs.learned.network import L3RSNetwork
from hf_l3rs.markdown import duration
from hf_l3rs.meta.arguments import MetaTrainingArguments
from hf_l3rs.meta.candidates import MetaLoss
from hf_l3rs.meta.checkpoint import Progress, plain_json
from hf_l3rs.meta.estimator import Estimate, Estimator
from hf_l3rs.meta.evolution import ESConfig, Evolution
from hf_l3rs.meta.forecast import forecast_by_pace
from hf_l3rs.meta.gradient import GradientConfig, MetaGradient
from hf_l3rs.meta.interruption import Interruption
from hf_l3rs.meta.outcome import look_back
from hf_l3rs.meta.outer import OuterState, move, retreat
from hf_l3rs.meta.processes import Processes
from hf_l3rs.meta.run_folder import RunFolder
from hf_l3rs.meta.scorer import Scorer
from hf_l3rs.meta.selection import Selection
from hf_l3rs.meta.summary import describe_strategy, summarise_run
from hf_l3rs.meta.tracking import bar_figures, make_accelerator, start_trackers
from hf_l3rs.meta.trajectory_log import TrajectoryLog
from hf_l3rs.meta.windows import WindowConfig, WindowedGradient
from hf_l3rs.tasks.mixture import Tasks
from hf_l3rs.tasks.task import Task


logger = logging.getLogger(__name__)


class MetaTrainer:
    """
    Trains meta-weights. The result is a function of the settings and the seed: neither the number of processes nor an
    interruption changes a byte.

    Every process works on its share of the estimator's samples; only their results travel, and every process applies
    the same update.

    Args:
        network ([`L3RSNetwork`]): Where the search starts; in the end it holds the trained meta-weights.
        tasks ([`~hf_l3rs.tasks.mixture.Tasks`]): What to train on; every model must fit one device.
        es ([`ESConfig`]): How the mean moves, and the evolution strategy.
        args ([`MetaTrainingArguments`]): How to run.
        gradient ([`GradientConfig`] or [`WindowConfig`], *optional*):
            Estimates by reverse mode with it, over whole runs or in windows, in place of evolution.
        meta_loss ([`MetaLoss`], *optional*): What candidates are judged by; the paper's by default.
        validation_tasks (`Sequence[Task]`, *optional*): Fixed tasks on other images that choose the best weights.
        references (`Callable`, *optional*):
            Returns mean losses on the validation tasks to show progress against, by name, such as a tuned Adam's.
            Asked once in a run, before the first generation.
        accelerator (`Accelerator`, *optional*): Made from the environment by default.
        settings (`dict`, *optional*):
            What else identifies the run, such as the data, as plain JSON values; checked when resuming.

    Raises:
        ConfigError: If the settings do not go together, or are not plain JSON values.
    """

    def __init__(
        self,
        network: L3RSNetwork,
        tasks: Tasks,
        es: ESConfig,
        args: MetaTrainingArguments,
        *,
        gradient: GradientConfig | None = None,
        meta_loss: MetaLoss | None = None,
        validation_tasks: Sequence[Task] = (),
        references: Callable[[], dict[str, float]] | None = None,
        accelerator: Accelerator | None = None,
        settings: dict[str, Any] | None = None,
    ) -> None:
        self.accelerator = accelerator or make_accelerator(args.report_to, args.output_dir)
        self.network = network
        for model in dict.fromkeys([*tasks.models, *(task.model for task in validation_tasks)]):
            model.to(self.accelerator.device)
            if args.compile_model:
                model.compile()
        self.tasks, self.es, self.args = tasks, es, args
        self.gradient, self.meta_loss = gradient, meta_loss or MetaLoss()
        self.processes = Processes(self.accelerator)
        self.folder = RunFolder(args.output_dir, args.keep_checkpoints, self.processes)
        self.scorer = Scorer(network.config, self.meta_loss, self.accelerator)
        self.estimator = self._make_estimator()
        self.selection = Selection(
            validation_tasks,
            self.scorer,
            self.processes,
            interval=args.validation_interval,
            patience=args.early_stopping_patience,
            references=references,
        )
        self._trajectories = TrajectoryLog(network.config, validation_tasks, self.accelerator)
        identity = {
            "config": network.config.to_dict(),
            "es": dataclasses.asdict(es),
            **({} if gradient is None else {"gradient": dataclasses.asdict(gradient)}),
            "meta_loss": dataclasses.asdict(self.meta_loss),
            "task_per_pair": args.task_per_pair,
            # these three change the rounding
            "num_threads": args.num_threads,
            "vectorized_pairs": args.vectorized_pairs,
            "mixed_precision": self.accelerator.mixed_precision,
            **(settings or {}),
        }
        self.progress = Progress(OuterState(network.to_vector()), plain_json(identity))
        self._interruption = Interruption()
        self._barren = False

    def _make_estimator(self) -> Estimator:
        gradient = self.gradient
        if gradient is None:
            return Evolution(
                self.es,
                self.tasks,
                self.scorer,
                self.processes,
                task_per_pair=self.args.task_per_pair,
                vectorized_pairs=self.args.vectorized_pairs,
            )
        if self.meta_loss != MetaLoss():
            raise ConfigError(
                "trajectory_weight and accuracy_weight are for evolution, and a gradient has none of the error rate; "
                "set both to 0, or estimator to evolution."
            )
        parts = (self.tasks, self.network, self.processes, self.accelerator)
        if isinstance(gradient, WindowConfig):
            return WindowedGradient(gradient, self.es, *parts)
        return MetaGradient(gradient, self.es.seed, *parts)

    @property
    def validation_tasks(self) -> list[Task]:
        """The fixed tasks that choose the best weights."""
        return self.selection.tasks

    @property
    def was_interrupted(self) -> bool:
        """Whether a signal ended training early; the last checkpoint resumes it."""
        return self.was_asked_to_stop and not self._is_over()

    @property
    def was_asked_to_stop(self) -> bool:
        """Whether a signal came, which in the last generation ends nothing early."""
        return self._interruption.requested

    def train(self) -> L3RSNetwork:
        """
        Runs, or resumes, meta-training. A run that is over stays so: resuming it trains nothing.

        Returns:
            [`L3RSNetwork`]: With the best validated meta-weights, or the last ones where nothing was validated.

        Raises:
            CheckpointError: If `output_dir` is in use, or the checkpoint to resume from does not fit or is damaged.
            StorageError: If `output_dir` cannot be written.
            NothingToKeepError: If the run ends without anything usable: every candidate or validation diverged.
        """
        torch.set_num_threads(self.args.num_threads)
        # the first step of the optimizer shows which tensors a checkpoint must have
        like = move(self.es, self.progress.state, torch.zeros_like(self.progress.state.mean))
        with self.folder.opened(self.progress, like, self.args.resume_from_checkpoint) as progress:
            self.progress = progress
            if not self._is_over():
                if progress.state.generation:
                    self.estimator.load_state(progress.carried)
                    progress.carried = {}  # would otherwise be held twice
                start_trackers(self.accelerator, self.args.project, progress.settings)
                self.selection.measure_references(progress, self._foresee)
                self._run_generations()
                self._save()
                self.folder.draw_curve()
                self._trajectories.draw(self.folder.path)
                for tracker in self.accelerator.trackers:
                    tracker.finish()
                self.accelerator.trackers.clear()  # which end_training would finish again
        if self._is_over():
            self.selection.check_outcome(progress)
            if self.accelerator.is_main_process and (advice := look_back(progress)) is not None:
                logger.warning(advice)
        self.network.load_vector(progress.state.average if progress.best_mean is None else progress.best_mean)
        return self.network

    def summary(self) -> dict[str, Any]:
        """
        Returns what the model card tells about the run, as strict JSON values. If it started from another L3RS, the
        cost includes that one's, and `started_from` is its summary.
        """
        strategy = describe_strategy(self.es, self.gradient, self.meta_loss, self.args.task_per_pair)
        return summarise_run(self.progress, strategy, self.network.config.meta_training)

    def _foresee(self, seconds_per_step: float) -> None:
        """Says what the run will cost, before the references, whose tuning may take a while, too."""
        if self.accelerator.is_main_process:
            count = self.es.num_generations
            tasks, interval = self.validation_tasks, self.selection.interval
            seconds = forecast_by_pace(self.estimator, tasks, interval, seconds_per_step).seconds(count)
            logger.info(
                "%d generations cost about %s plain inner steps, validations included: about %s at the pace of an "
                "untrained L3RS here. References are tuned before that, with a bar of their own.",
                count,
                f"{seconds / seconds_per_step:,.0f}",
                duration(seconds),
            )

    def _run_generations(self) -> None:
        bar = tqdm(
            total=self.es.num_generations,
            initial=self.progress.state.generation,
            desc="meta-training",
            unit="gen",
            disable=not self.accelerator.is_local_main_process,
        )
        shown: dict[str, str] = {}
        with bar, self._interruption.on_signals():
            while not self._is_over():
                shown |= bar_figures(self._generation())
                bar.set_postfix(shown)
                bar.update()
                if self._all_agree_to_stop():
                    break

    def _generation(self) -> dict[str, float]:
        """Asks the estimator, moves the mean and validates; returns what is logged."""
        start, progress = time.perf_counter(), self.progress
        estimate = self.estimator.estimate(progress.state)
        state, gradient = progress.state, estimate.gradient
        progress.state = retreat(state) if gradient is None else move(self.es, state, gradient)
        self.processes.check_agreement(progress.state.mean)
        metrics = self._count(estimate, time.perf_counter() - start)
        if self._is_due(self.selection.interval):
            metrics |= self.selection.validate(progress)
            self._trajectories.log(progress.state.average, progress.state.generation)
        self.accelerator.log(metrics, step=progress.state.generation)
        self.folder.log(metrics)
        if self._is_due(self.args.checkpoint_interval):
            self._save()
        return metrics

    def _save(self) -> None:
        self.folder.save(dataclasses.replace(self.progress, carried=self.estimator.state()))

    def _count(self, estimate: Estimate, seconds: float) -> dict[str, float]:
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
            "learning_rate": self.es.learning_rate_at(generation - 1),
        }

    def _is_over(self) -> bool:
        return self.progress.state.generation >= self.es.num_generations or self.selection.is_over(self.progress)

    def _is_due(self, interval: int) -> bool:
        generation = self.progress.state.generation
        return interval > 0 and (generation % interval == 0 or generation == self.es.num_generations)

    def _all_agree_to_stop(self) -> bool:
        self._interruption.requested = self.processes.any(self._interruption.requested)
        return self._interruption.requested
