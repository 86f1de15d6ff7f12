"""Meta-gradients: reverse mode through the inner loop, at a hundredth of the cost of evolution (ours)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import torch
from accelerate import Accelerator

from hf_l3rs.learned.network import L3RSNetwork
from hf_l3rs.meta.estimator import Estimate
from hf_l3rs.meta.outer import OuterState
from hf_l3rs.meta.processes import Processes
from hf_l3rs.tasks.inner_loop import Evaluation, Trajectory, run
from hf_l3rs.tasks.mixture import Tasks
from hf_l3rs.tasks.task import Batch, State, Task
from hf_l3rs.tasks.unrolled import Snapshot, UnrolledLearner
from hf_l3rs.validation import Range, check_fields


# A gradient of that many times the norm that it would be clipped to has exploded: its direction is noise.
EXPLODED = 1e3


@dataclass(frozen=True)
class GradientConfig:
    """
    Settings of the estimate by reverse mode; all are ours.

    Args:
        num_tasks (`int`, *optional*, defaults to `4`): Tasks of a generation.
        second_order (`bool`, *optional*, defaults to `True`):
            Whether inner gradients are differentiated, too, or taken as constants, which is cheaper.
        feature_gradient (`bool`, *optional*, defaults to `False`):
            Whether the gradient flows through what the network sees, or only through what it decides.
        max_task_gradient (`float`, *optional*, defaults to `1.0`): Norm that each task's gradient is clipped to.
        num_evaluations (`int`, *optional*, defaults to `1`):
            Evaluations, evenly along the run, that the meta-loss is the mean of; 1 is that at the end (paper).
        segment_steps (`int`, *optional*, defaults to `0`):
            Inner steps whose graph is held at a time; the others are run again. 0 holds all, which is fastest; the
            root of the horizon takes least memory, which then grows with the root.
    """

    num_tasks: int = field(default=4, metadata={"help": "Tasks of a generation."})
    second_order: bool = field(default=True, metadata={"help": "Differentiate inner gradients, too."})
    feature_gradient: bool = field(default=False, metadata={"help": "Differentiate what the network sees, too."})
    max_task_gradient: float = field(default=1.0, metadata={"help": "Norm that a task's gradient is clipped to."})
    num_evaluations: int = field(default=1, metadata={"help": "Evaluations that the meta-loss is the mean of."})
    segment_steps: int = field(default=0, metadata={"help": "Inner steps whose graph is held at a time; 0: all."})

    def __post_init__(self) -> None:
        positive = Range(low=1)
        rules = {"num_tasks": positive, "num_evaluations": positive, "segment_steps": Range(low=0)}
        check_fields(self, {**rules, "max_task_gradient": Range(above=0)})


class TaskGradient(NamedTuple):
    """
    What one task gives.

    Args:
        gradient (`torch.Tensor` of shape `(dimension,)`): Of the meta-loss; zero if the run diverged.
        meta_loss (`float`): Mean of the evaluation losses along the run; infinite if it diverged.
        loss (`float`): Final evaluation loss.
        accuracy (`float`): Final accuracy.
        num_steps (`int`): Inner steps taken.
    """

    gradient: torch.Tensor
    meta_loss: float
    loss: float
    accuracy: float
    num_steps: int


class MetaGradient:
    """
    Reverse mode as an [`~hf_l3rs.meta.estimator.Estimator`]. A sample is a task.

    Args:
        config ([`GradientConfig`]): Settings.
        seed (`int`): Of the tasks.
        tasks ([`~hf_l3rs.tasks.mixture.Tasks`]): What is fine-tuned on.
        network ([`L3RSNetwork`]): Gives the configuration of the meta-weights.
        processes ([`Processes`]): Share the tasks out.
        accelerator (`Accelerator`): Names device and precision.
    """

    def __init__(
        self,
        config: GradientConfig,
        seed: int,
        tasks: Tasks,
        network: L3RSNetwork,
        processes: Processes,
        accelerator: Accelerator,
    ) -> None:
        self.config, self.seed, self.tasks = config, seed, tasks
        self.network, self.processes = network, processes
        self._accelerator = accelerator

    def estimate(self, state: OuterState) -> Estimate:
        """Averages the tasks' clipped gradients; those that exploded, or are no numbers, count for nothing."""
        shape = (self.config.num_tasks, len(TaskGradient._fields) - 1 + len(state.mean))
        rows = self.processes.gather(shape, 1, partial(self._of_tasks, state))
        numbers, gradients = rows[:, : -len(state.mean)], rows[:, -len(state.mean) :]
        meta_loss, loss, accuracy, num_steps = numbers.unbind(1)
        norms = torch.linalg.vector_norm(gradients, dim=1)
        limit = self.config.max_task_gradient
        usable = torch.isfinite(meta_loss) & (norms <= EXPLODED * limit)
        shares = torch.where(usable, (limit / norms.clamp_min(limit)), 0.0)
        total = (shares[:, None] * gradients.nan_to_num(posinf=0.0, neginf=0.0)).sum(dim=0)
        means = {"meta_loss": meta_loss, "loss": loss, "accuracy": accuracy, "gradient_norm": norms}
        return Estimate(
            gradient=(total / max(int(usable.sum()), 1)).to(state.mean.dtype),
            num_evaluations=self.config.num_tasks,
            num_diverged=int((~usable).sum()),
            num_inner_steps=int(num_steps.sum()),
            metrics={name: float(values[usable].mean()) for name, values in means.items()},
        )

    def _of_tasks(self, state: OuterState, indices: range) -> torch.Tensor:
        tasks = (self.tasks.draw(self.seed, state.generation, index) for index in indices)
        results = [self.of_task(state.mean, task) for task in tasks]
        return torch.stack([torch.cat((torch.tensor(result[1:]).double(), result[0].double())) for result in results])

    def of_task(self, mean: torch.Tensor, task: Task) -> TaskGradient:
        """
        Differentiates a task's meta-loss.

        Args:
            mean (`torch.Tensor` of shape `(dimension,)`): ψ.
            task ([`~hf_l3rs.tasks.task.Task`]): What is fine-tuned on.

        Returns:
            [`TaskGradient`]
        """
        vector = mean.to(self._accelerator.device, copy=True).requires_grad_()
        learner = UnrolledLearner(
            task.model,
            self.network,
            vector,
            task.num_training_steps,
            second_order=self.config.second_order,
            feature_gradient=self.config.feature_gradient,
            device=self._accelerator.device,
            autocast=self._accelerator.autocast,
        )
        points = evaluation_points(task.num_training_steps, self.config.num_evaluations)
        if self.config.segment_steps:
            recorder = _Recorder(learner, self.config.segment_steps)
            (trajectory,) = run(recorder, [task], evaluate_at=points)
            gradient = None if trajectory.diverged else _recomputed(learner, task, recorder.snapshots, points)
        else:
            (trajectory,) = run(learner, [task], evaluate_at=points)
            meta_loss = torch.stack(learner.evaluation_losses).mean() if not trajectory.diverged else None
            gradient = None if meta_loss is None else torch.autograd.grad(meta_loss, vector)[0]
        return _task_gradient(torch.zeros_like(mean) if gradient is None else gradient.cpu(), trajectory)


def evaluation_points(num_training_steps: int, count: int) -> list[int]:
    """Returns the steps after which to evaluate, evenly along the run, the last included; fewer in a short run."""
    return sorted({math.ceil(num_training_steps * (index + 1) / count) for index in range(count)})


def _task_gradient(gradient: torch.Tensor, trajectory: Trajectory) -> TaskGradient:
    if trajectory.diverged:
        return TaskGradient(gradient, math.inf, math.inf, 0.0, trajectory.num_steps)
    losses = [evaluation.loss for evaluation in trajectory.evaluations.values()]
    final = trajectory.evaluations[trajectory.num_steps]
    return TaskGradient(gradient, sum(losses) / len(losses), *final, trajectory.num_steps)


class _Recorder:
    """A learner that keeps no graph, but where every segment begins."""

    def __init__(self, learner: UnrolledLearner, segment_steps: int) -> None:
        self.learner, self.segment_steps = learner, segment_steps
        self.snapshots: list[Snapshot] = []

    def start(self, initial_states: Sequence[State]) -> None:
        self.learner.start(initial_states)

    def step(self, batches: Sequence[Batch]) -> torch.Tensor:
        if self.learner.k % self.segment_steps == 0:
            self.snapshots.append(self.learner.snapshot())
        loss = self.learner.step(batches)
        self.learner.resume(self.learner.snapshot())
        return loss

    @torch.no_grad()
    def evaluate(self, evaluations: Sequence[Sequence[Batch]]) -> list[Evaluation]:
        return self.learner.evaluate(evaluations)


def _recomputed(learner: UnrolledLearner, task: Task, snapshots: list[Snapshot], points: list[int]) -> torch.Tensor:
    """Runs the segments again, the last first, and hands the gradient from each to the one before."""
    total = torch.zeros_like(learner.vector)
    cotangents: list[torch.Tensor] | None = None
    ends = [*(snapshot.k for snapshot in snapshots[1:]), task.num_training_steps]
    with torch.random.fork_rng(devices=[]):
        for snapshot, end in zip(reversed(snapshots), reversed(ends)):
            learner.resume(snapshot)
            beginning = learner.carried()
            for index in range(snapshot.k, end):
                learner.step([task.batches[index]])
                if index + 1 in points:
                    learner.evaluate([task.evaluation])
            outputs: list[torch.Tensor] = [loss / len(points) for loss in learner.evaluation_losses]
            weights = [torch.ones_like(loss) for loss in outputs]
            if cotangents is not None:
                outputs, weights = [*outputs, *learner.carried()], [*weights, *cotangents]
            gradient, *cotangents = torch.autograd.grad(
                outputs, [learner.vector, *beginning], weights, materialize_grads=True
            )
            total += gradient
    return total
