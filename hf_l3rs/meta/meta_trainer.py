"""Meta-training: the outer loop under Accelerate."""

from __future__ import annotations

import dataclasses
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.tracking import get_available_trackers
from accelerate.utils import LoggerType
from tqdm.auto import tqdm

from hf_l3rs.errors import ConfigError, reason
from hf_l3rs.markdown import duration
from hf_l3rs.meta.candidates import MetaLoss, Scorer
from hf_l3rs.meta.checkpoint import Progress, plain_json
from hf_l3rs.meta.evolution import ESConfig, Evolution
from hf_l3rs.meta.forecast import forecast_by_pace
from hf_l3rs.meta.gradient import GradientConfig, MetaGradient
from hf_l3rs.meta.meta_arguments import MetaTrainingArguments
from hf_l3rs.meta.outer import Estimate, Estimator, OuterState, move, retreat
from hf_l3rs.meta.processes import Processes
from hf_l3rs.meta.run_folder import RunFolder
from hf_l3rs.meta.selection import Selection
from hf_l3rs.meta.summary import describe_strategy, summarise_run
from hf_l3rs.meta.windows import WindowConfig, WindowedGradient
from hf_l3rs.optimizer.network import L3RSNetwork
from hf_l3rs.tasks.distribution import Task, Tasks


logger = logging.getLogger(__name__)

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """
    Whether somebody asked the run to end.

    Attributes:
        requested (`bool`): Whether a signal has come.
    """

    def __init__(self) -> None:
        self.requested = False

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """Inside, the first SIGINT or SIGTERM is a request and a second one ends the process, as it would outside."""
        if threading.current_thread() is not threading.main_thread():  # only there does Python let handlers be set
            yield
            return
        self._previous = {number: signal.getsignal(number) or signal.SIG_DFL for number in SIGNALS}
        try:
            for number in SIGNALS:
                signal.signal(number, self._request)
            yield
        finally:
            for number, handler in self._previous.items():
                signal.signal(number, handler)

    def _request(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        signal.signal(number, self._previous[signal.Signals(number)])
        logger.warning("Stopping after this generation; the checkpoint will resume from there.")


def look_back(progress: Progress) -> str | None:
    """
    Says what to do where the best validation is no better than what it is compared with; `None` where it is better, or
    where nothing was compared.

    Args:
        progress ([`Progress`]): Of a run that is over.
    """
    rivals = progress.references
    if not rivals or progress.best_loss is None:
        return None
    name = min(rivals, key=lambda each: rivals[each])
    if progress.best_loss < rivals[name]:
        return None
    was_last = progress.best_generation == progress.state.generation
    return (
        f"The best validation loss, {progress.best_loss:.4g}, is no better than that of {_shown(name)}, "
        f"{rivals[name]:.4g}{', though it was still falling' if was_last else ''}: train longer (more "
        "num_generations in another output_dir, which may go on from this one by initial_l3rs), with more tasks a "
        "generation, or, where validation swings, at a smaller learning_rate."
    )


def _shown(name: str) -> str:
    return "an untrained L3RS" if name == "untrained" else f"tuned {name}"


def make_accelerator(report_to: str | None = None, project_dir: str | Path | None = None) -> Accelerator:
    """
    Returns an Accelerator that joins the processes of `torchrun` also where there is no GPU.

    Args:
        report_to (`str`, *optional*): A tracker that Accelerate knows, or `"all"` for all that are installed.
        project_dir (`str` or `Path`, *optional*): Where trackers that write files do so.

    Raises:
        ConfigError: If the tracker is unknown, or its package is not installed.
    """
    if report_to is not None:
        _check_tracker(report_to)
    return Accelerator(log_with=report_to, project_dir=project_dir, cpu=not torch.accelerator.is_available())


def _check_tracker(name: str) -> None:
    known = [kind.value for kind in LoggerType]
    if name not in known:
        raise ConfigError(
            f"report_to must be one of {', '.join(known)}, got {name!r}; leave it out to report nowhere."
        )
    installed = [str(kind) for kind in get_available_trackers()]
    if name not in installed and not (name == "all" and installed):
        package = "any tracker" if name == "all" else name
        raise ConfigError(
            f"report_to is {name!r}, but the package of {package} is not installed; install it, or choose another of "
            f"{', '.join(known)}."
        )


def start_trackers(accelerator: Accelerator, project: str, settings: Mapping[str, Any]) -> None:
    """
    Starts the trackers of an Accelerator, and tells them the settings of the run.

    Args:
        accelerator (`Accelerator`): With the trackers, or none.
        project (`str`): Under which they file the run.
        settings (`Mapping[str, Any]`): Those that [`flat_scalars`] leaves are kept with it.

    Raises:
        ConfigError: If a tracker does not start.
    """
    try:
        accelerator.init_trackers(project, config=flat_scalars(settings))
    except Exception as error:  # of every kind, as trackers have their own
        names = ", ".join(tracker.name.lower() for tracker in accelerator.log_with)
        raise ConfigError(
            f"report_to is {names}, which does not start ({reason(error)}); set it up as its package asks, wandb by "
            "`wandb login` or WANDB_MODE=offline in the environment, or leave report_to out."
        ) from error


def flat_scalars(settings: Mapping[str, Any], prefix: str = "") -> dict[str, int | float | str | bool]:
    """Returns nested settings as the flat scalars that trackers take, `outer.inner` by name."""
    flat: dict[str, int | float | str | bool] = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            flat |= flat_scalars(value, f"{prefix}{name}.")
        elif isinstance(value, (int, float, str, bool)):
            flat[f"{prefix}{name}"] = value
    return flat


def bar_figures(metrics: Mapping[str, float]) -> dict[str, str]:
    """Returns the figures that matter while waiting, under short names."""
    names = {"meta_loss": "meta-loss", "accuracy": "acc", "best_validation_loss": "best val", "num_diverged": "div"}
    names |= {name: name.removeprefix("validation_loss_") for name in metrics if name.startswith("validation_loss_")}
    shown = {label: f"{metrics[name]:.4g}" for name, label in names.items() if name in metrics}
    return shown | {"steps/s": f"{metrics['inner_steps_per_second']:.0f}"}


class MetaTrainer:
    """
    Trains meta-weights. The result is a function of the settings and the seed: neither the number of processes nor an
    interruption changes a byte.

    Every process works on its share of the estimator's samples; only their results travel, and every process applies
    the same update.

    Args:
        network ([`L3RSNetwork`]): Where the search starts; in the end it holds the trained meta-weights.
        tasks ([`~hf_l3rs.tasks.distribution.Tasks`]): What to train on; every model must fit one device.
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
        identity = {
            "config": network.config.to_dict(),
            "es": dataclasses.asdict(es),
            **({} if gradient is None else {"gradient": dataclasses.asdict(gradient)}),
            "meta_loss": dataclasses.asdict(self.meta_loss),
            "task_per_pair": args.task_per_pair,
            # these two change the rounding
            "num_threads": args.num_threads,
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
