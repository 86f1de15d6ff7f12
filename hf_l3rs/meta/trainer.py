"""Meta-training: the outer loop under Accelerate."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import math
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn
from tqdm.auto import tqdm

from hf_l3rs.errors import CheckpointError, ConfigError, L3RSError
from hf_l3rs.learned.network import L3RSNetwork
from hf_l3rs.meta.arguments import MetaTrainingArguments
from hf_l3rs.meta.candidates import MetaLoss, Rollout, rollout, rollout_population
from hf_l3rs.meta.checkpoint import (
    METRICS_NAME,
    Progress,
    append_metrics,
    list_checkpoints,
    load_checkpoint,
    save_checkpoint,
    truncate_metrics,
)
from hf_l3rs.meta.evolution import ESConfig, ESState, ask, tell
from hf_l3rs.tasks.distribution import TaskDistribution
from hf_l3rs.tasks.task import Task


logger = logging.getLogger(__name__)

# What a candidate's result is sent as between processes.
_FIELDS = Rollout._fields


class MetaTrainer:
    """
    Trains meta-weights by evolution. The result is a function of the settings and the seed: neither the number of
    processes nor an interruption changes a byte.

    Every process scores its share of the pairs; only their scores travel, and every process applies the same update.

    Args:
        network ([`L3RSNetwork`]): Where the search starts; in the end it holds the trained meta-weights.
        model (`nn.Module`): The model that is fine-tuned in the inner loop; must fit one device.
        tasks ([`TaskDistribution`]): What to train on.
        es ([`ESConfig`]): The evolution strategy.
        args ([`MetaTrainingArguments`]): How to run.
        meta_loss ([`MetaLoss`], *optional*): What candidates are judged by; the paper's by default.
        validation_tasks (`Sequence[Task]`, *optional*): Fixed tasks on other images that choose the best weights.
        references (`Callable`, *optional*):
            Returns mean losses on the validation tasks to show progress against, by name, such as a tuned Adam's.
            Asked once in a run, at the first validation.
        accelerator (`Accelerator`, *optional*): Made from the environment by default.
        settings (`dict`, *optional*): What else identifies the run, such as the data; checked when resuming.
    """

    def __init__(
        self,
        network: L3RSNetwork,
        model: nn.Module,
        tasks: TaskDistribution,
        es: ESConfig,
        args: MetaTrainingArguments,
        *,
        meta_loss: MetaLoss | None = None,
        validation_tasks: Sequence[Task] = (),
        references: Callable[[], dict[str, float]] | None = None,
        accelerator: Accelerator | None = None,
        settings: dict[str, Any] | None = None,
    ) -> None:
        self.accelerator = accelerator or make_accelerator(args.report_to)
        self.network = network
        self.model = model.to(self.accelerator.device)
        self.tasks, self.es, self.args = tasks, es, args
        self.meta_loss = meta_loss or MetaLoss()
        self.validation_tasks = list(validation_tasks)
        self.output_dir = Path(args.output_dir)
        settings = {
            "config": network.config.to_dict(),
            "es": dataclasses.asdict(es),
            "meta_loss": dataclasses.asdict(self.meta_loss),
            "task_per_pair": args.task_per_pair,
            # these three change the rounding
            "num_threads": args.num_threads,
            "vectorized_pairs": args.vectorized_pairs,
            "mixed_precision": self.accelerator.mixed_precision,
            **(settings or {}),
        }
        self._measure_references = references
        self.progress = Progress(ESState(network.to_vector()), settings)
        self._candidate = L3RSNetwork(network.config)
        self._stop_requested = False
        if args.vectorized_pairs and args.task_per_pair and tasks.horizon.minimum != tasks.horizon.maximum:
            raise ConfigError(
                "vectorized_pairs needs one fixed horizon, but tasks of a generation have between "
                f"{tasks.horizon.minimum} and {tasks.horizon.maximum} steps; set min_steps = max_steps, or "
                "task_per_pair to false."
            )
        if args.compile_model:
            self.model.compile()

    def train(self) -> L3RSNetwork:
        """
        Runs, or resumes, meta-training.

        Returns:
            [`L3RSNetwork`]: With the best validated meta-weights, or the last ones where nothing was validated.

        Raises:
            CheckpointError: If a checkpoint cannot be written, or the one to resume from does not fit.
        """
        torch.set_num_threads(self.args.num_threads)
        self._prepare_output()
        accelerator, progress = self.accelerator, self.progress
        accelerator.init_trackers(self.args.project, config=_flat(progress.settings))
        bar = tqdm(
            total=self.es.num_generations,
            initial=progress.state.generation,
            desc="meta-training",
            unit="gen",
            disable=not accelerator.is_local_main_process,
        )
        shown: dict[str, str] = {}
        with bar, self._graceful_signals():
            while progress.state.generation < self.es.num_generations:
                shown |= _short(self._generation())
                bar.set_postfix(shown)
                bar.update()
                if self._all_agree_to_stop() or self._patience_is_over():
                    break
        self._checkpoint()
        for tracker in accelerator.trackers:
            tracker.finish()
        self.network.load_vector(progress.state.average if progress.best_mean is None else progress.best_mean)
        return self.network

    def summary(self) -> dict[str, Any]:
        """
        Returns what the model card tells about the run, as plain values. If it started from another L3RS, the cost
        includes that one's, and `started_from` is its summary.
        """
        progress = self.progress
        tasks = progress.settings.get("tasks", {})
        earlier = self.network.config.meta_training  # of the L3RS that training started from
        return {
            "datasets": [dataset["hub_id"] or dataset["path"] for dataset in tasks.get("datasets", [])],
            **{name: value for name, value in tasks.items() if name != "datasets"},
            **dataclasses.asdict(self.es),
            **dataclasses.asdict(self.meta_loss),
            "task_per_pair": self.args.task_per_pair,
            "best_generation": progress.best_generation,
            "best_validation_loss": progress.best_loss,
            **{f"validation_loss_{name}": loss for name, loss in progress.references.items()},
            **{name: value + earlier.get(name, 0) for name, value in progress.cost.items()},
            **({"started_from": earlier} if earlier else {}),
        }

    @property
    def was_interrupted(self) -> bool:
        """Whether a signal ended training early; the last checkpoint resumes it."""
        return self._stop_requested

    def _generation(self) -> dict[str, float]:
        """One ask, score, tell; returns what is logged."""
        start, progress = time.perf_counter(), self.progress
        generation = progress.state.generation
        scores = self._score_candidates()
        progress.state = tell(self.es, progress.state, scores[..., _FIELDS.index("meta_loss")])
        self._check_processes_agree()
        metrics = self._summarise(scores, generation, time.perf_counter() - start)
        if self._is_due(self.args.validation_interval) and self.validation_tasks:
            metrics |= self._validate()
        self._log(metrics)
        if self._is_due(self.args.checkpoint_interval):
            self._checkpoint()
        return metrics

    def _score_candidates(self) -> torch.Tensor:
        """Returns scores of shape `(num_pairs, 2, len(_FIELDS))`, the same on every process."""
        state, size = self.progress.state, max(self.args.vectorized_pairs, 1)
        scores = torch.zeros(self.es.num_pairs, 2, len(_FIELDS), dtype=torch.float64)
        # what runs together is the same for any number of processes, so that rounding is, too
        groups = [range(start, min(start + size, self.es.num_pairs)) for start in range(0, self.es.num_pairs, size)]
        for index in self._my_share(len(groups)):
            tasks = {pair: self._draw(state.generation, pair) for pair in groups[index]}
            candidates = [(vector, tasks[pair]) for pair in tasks for vector in ask(self.es, state, pair)]
            results = torch.tensor(self._rollouts(candidates), dtype=torch.float64)
            scores[groups[index].start : groups[index].stop] = results.view(-1, 2, len(_FIELDS))
        return self._sum_over_processes(scores)

    def _draw(self, generation: int, pair: int) -> Task:
        return self.tasks.draw(self.es.seed, generation, pair if self.args.task_per_pair else 0)

    def _rollouts(self, candidates: Sequence[tuple[torch.Tensor, Task]]) -> list[Rollout]:
        if not self.args.vectorized_pairs:
            return [self._rollout(vector, task) for vector, task in candidates]
        vectors, tasks = zip(*candidates)
        return rollout_population(
            self.model,
            self.network,
            torch.stack(vectors),
            tasks,
            meta_loss=self.meta_loss,
            device=self.accelerator.device,
            autocast=self.accelerator.autocast,
        )

    def _rollout(self, vector: torch.Tensor, task: Task) -> Rollout:
        self._candidate.load_vector(vector)
        return rollout(
            self.model,
            self._candidate,
            task,
            meta_loss=self.meta_loss,
            device=self.accelerator.device,
            autocast=self.accelerator.autocast,
        )

    def _my_share(self, count: int) -> range:
        return range(self.accelerator.process_index, count, self.accelerator.num_processes)

    def _sum_over_processes(self, values: torch.Tensor) -> torch.Tensor:
        """Each entry is zero on all processes but one, so that the sum is exact whatever their number."""
        if self.accelerator.num_processes == 1:
            return values
        return self.accelerator.reduce(values.to(self.accelerator.device), reduction="sum").cpu()

    def _check_processes_agree(self) -> None:
        if self.accelerator.num_processes == 1:
            return
        digest = hashlib.sha256(self.progress.state.mean.numpy().tobytes()).digest()
        checksum = torch.tensor([int.from_bytes(digest[:7], "little")], device=self.accelerator.device)
        checksums = self.accelerator.gather(checksum)
        if not bool((checksums == checksums[0]).all()):
            raise L3RSError(
                "The processes' meta-weights differ, so they do not run the same program on the same data; use the "
                "same versions and settings on every machine."
            )

    def _summarise(self, scores: torch.Tensor, generation: int, seconds: float) -> dict[str, float]:
        flat = scores.flatten(0, 1)
        finite = flat[torch.isfinite(flat[:, 0])]
        diverged = len(flat) - len(finite)
        inner_steps = int(flat[:, _FIELDS.index("num_steps")].sum())
        cost = self.progress.cost
        cost["inner_steps"] += inner_steps
        cost["evaluations"] += len(flat)
        cost["seconds"] += seconds
        cost["num_diverged"] += diverged
        mean = finite.mean(dim=0).tolist() if len(finite) else [math.nan] * len(_FIELDS)
        return {
            "generation": generation + 1,
            **{name: mean[_FIELDS.index(name)] for name in ("meta_loss", "loss", "accuracy")},
            "num_diverged": diverged,
            "inner_steps": cost["inner_steps"],
            "inner_steps_per_second": inner_steps / seconds,
            "learning_rate": self.es.learning_rate_at(generation),
            "sigma": self.es.sigma_at(generation),
        }

    def _validate(self) -> dict[str, float]:
        """Scores the average on the fixed tasks, and the references once; keeps the best average."""
        progress = self.progress
        if not progress.references:
            progress.references["untrained"] = self._validation_loss(L3RSNetwork(self.network.config).to_vector())
            progress.references |= self._measure_references() if self._measure_references is not None else {}
        loss = self._validation_loss(progress.state.average)
        if progress.best_loss is None or loss < progress.best_loss:
            progress.best_loss, progress.best_generation = loss, progress.state.generation
            progress.best_mean = progress.state.average.clone()
        metrics = {"validation_loss": loss, "best_validation_loss": progress.best_loss}
        return metrics | {f"validation_loss_{name}": value for name, value in progress.references.items()}

    def _validation_loss(self, vector: torch.Tensor) -> float:
        losses = torch.zeros(len(self.validation_tasks), dtype=torch.float64)
        for index in self._my_share(len(self.validation_tasks)):
            losses[index] = self._rollout(vector, self.validation_tasks[index]).loss
        return float(self._sum_over_processes(losses).mean())

    def _patience_is_over(self) -> bool:
        progress, patience = self.progress, self.args.early_stopping_patience
        if not patience or progress.best_generation is None:
            return False
        return progress.state.generation - progress.best_generation >= patience * self.args.validation_interval

    def _is_due(self, interval: int) -> bool:
        generation = self.progress.state.generation
        return interval > 0 and (generation % interval == 0 or generation == self.es.num_generations)

    def _log(self, metrics: dict[str, float]) -> None:
        self.accelerator.log(metrics, step=int(metrics["generation"]))
        self._on_main_process(lambda: append_metrics(self.output_dir / METRICS_NAME, metrics))

    def _checkpoint(self) -> None:
        self._on_main_process(lambda: save_checkpoint(self.output_dir, self.progress, self.args.keep_checkpoints))

    def _on_main_process(self, write: Callable[[], object]) -> None:
        """Writes on one process; the others learn of a failure, so that all stop together."""
        failure: Exception | None = None
        if self.accelerator.is_main_process:
            try:
                write()
            except CheckpointError as error:
                failure = error
        failed = self._sum_over_processes(torch.tensor([float(failure is not None)]))
        if failed.item():
            raise failure or CheckpointError("The main process could not write to output_dir; see its message.")

    def _prepare_output(self) -> None:
        """Resumes where asked to, and never writes over another run."""
        checkpoints = list_checkpoints(self.output_dir)
        resume = self.args.resume_from_checkpoint
        if resume is None and checkpoints:
            raise CheckpointError(
                f"{self.output_dir} already holds {checkpoints[-1].name}; resume with resume_from_checkpoint='last', "
                "or choose another output_dir."
            )
        if resume == "last" and not checkpoints:
            logger.info("There is no checkpoint in %s yet; starting anew.", self.output_dir)
            resume = None
        if resume is not None:
            folder = checkpoints[-1] if resume == "last" else Path(resume)
            self.progress = load_checkpoint(folder, self.progress.settings)
        if self.accelerator.is_main_process:
            self.output_dir.mkdir(parents=True, exist_ok=True)
            truncate_metrics(self.output_dir / METRICS_NAME, self.progress.state.generation)
        self.accelerator.wait_for_everyone()

    @contextmanager
    def _graceful_signals(self) -> Iterator[None]:
        """SIGINT and SIGTERM end training after the generation at hand; a second one ends it at once."""

        def request_stop(number: int, frame: FrameType | None) -> None:
            self._stop_requested = True
            signal.signal(number, previous[signal.Signals(number)])
            logger.warning("Stopping after this generation; the checkpoint will resume from there.")

        previous = {number: signal.signal(number, request_stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _all_agree_to_stop(self) -> bool:
        requests = self._sum_over_processes(torch.tensor([float(self._stop_requested)]))
        self._stop_requested = bool(requests.item())
        return self._stop_requested


def make_accelerator(report_to: str | None = None) -> Accelerator:
    """Returns an Accelerator that joins the processes of `torchrun` also where there is no GPU."""
    return Accelerator(log_with=report_to, cpu=not torch.accelerator.is_available())


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, int | float | str | bool]:
    """Trackers take flat scalars only."""
    flat: dict[str, int | float | str | bool] = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        elif isinstance(value, (int, float, str, bool)):
            flat[f"{prefix}{name}"] = value
    return flat


def _short(metrics: dict[str, float]) -> dict[str, str]:
    """The figures that matter while waiting."""
    names = {"meta_loss": "meta-loss", "accuracy": "acc", "best_validation_loss": "best val", "num_diverged": "div"}
    names |= {name: name.removeprefix("validation_loss_") for name in metrics if name.startswith("validation_loss_")}
    shown = {label: f"{metrics[name]:.4g}" for name, label in names.items() if name in metrics}
    return shown | {"steps/s": f"{metrics['inner_steps_per_second']:.0f}"}
