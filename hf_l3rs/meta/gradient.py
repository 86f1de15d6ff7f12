"""Meta-gradients: reverse mode through the inner loop, at a hundredth of the cost of evolution."""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import torch

from hf_l3rs.distributed import share_out
from hf_l3rs.meta.outer import Estimate, Estimator, OuterState
from hf_l3rs.tasks.distribution import Task
from hf_l3rs.tasks.inner_loop import run
from hf_l3rs.tasks.pools import Batch
from hf_l3rs.tasks.unrolled import Snapshot, UnrolledLearner


# A gradient of that many times the norm that it would be clipped to has exploded: its direction is noise.
EXPLODED = 1e3

# A task's gradient is clipped to this norm, so that no task or model drowns the others.
MAX_TASK_GRADIENT = 1.0


class TaskGradient(NamedTuple):
    """What one task gives, by its final evaluation; zero, infinite and 0 if the run diverged."""

    gradient: torch.Tensor  # of shape (num_meta_parameters,)
    meta_loss: float
    accuracy: float
    num_steps: int


class MetaGradient(Estimator):
    """Reverse mode through whole runs. A sample is a task."""

    def estimate(self, state: OuterState) -> Estimate:
        """Averages clipped gradients. Those that exploded are left out; where they are most, there is no estimate."""
        samples = share_out(self.accelerator, range(self.config.num_tasks), partial(self.sample, state))
        gradients = torch.stack([sample.gradient for sample in samples]).double()
        figures = torch.tensor([sample[1:] for sample in samples], dtype=torch.float64)
        meta_loss, accuracy, num_steps = figures.unbind(1)
        norms, limit = torch.linalg.vector_norm(gradients, dim=1), MAX_TASK_GRADIENT
        usable = torch.isfinite(meta_loss) & (norms <= EXPLODED * limit)
        clipped = gradients * (limit / norms.clamp_min(limit))[:, None]
        num_inner_steps = int(num_steps.sum())
        means = {"meta_loss": meta_loss, "accuracy": accuracy, "gradient_norm": norms}
        return Estimate(
            gradient=clipped[usable].mean(dim=0).to(state.mean.dtype) if 2 * usable.sum() >= len(usable) else None,
            num_evaluations=self.config.num_tasks,
            num_diverged=int((~usable).sum()),
            num_inner_steps=num_inner_steps,
            cost_in_plain_steps=num_inner_steps * self.config.step_cost,
            metrics={name: float(values[usable].mean()) for name, values in means.items()},
        )

    def sample(self, state: OuterState, index: int) -> TaskGradient:
        """Returns what one task of a generation gives, on one process."""
        return self.of_task(state.mean, self.tasks.draw(self.config.seed, state.generation, index))

    def of_task(self, mean: torch.Tensor, task: Task) -> TaskGradient:
        """Differentiates a task's meta-loss at ψ, of shape `(num_meta_parameters,)`."""
        return differentiate(self.learner(task, mean), task, self.config.segment_steps)

    def learner(self, task: Task, mean: torch.Tensor, begin: Snapshot | None = None) -> UnrolledLearner:
        """Returns what a run trains at ψ, taken up at a snapshot or, by default, at θ0."""
        device = self.accelerator.device
        return UnrolledLearner(
            task.model,
            self.network,
            mean.to(device, copy=True).requires_grad_(),
            task.num_training_steps,
            second_order=self.config.second_order,
            feature_gradient=self.config.feature_gradient,
            device=device,
            autocast=self.accelerator.autocast,
            begin=begin,
        )


def differentiate(learner: UnrolledLearner, task: Task, segment_steps: int = 0) -> TaskGradient:
    """Runs a task and differentiates its final loss; the graph of `segment_steps` is held at a time, 0: of all."""
    recorder = _Recorder(learner, segment_steps) if segment_steps else None
    trajectory = run(recorder or learner, task)
    final = trajectory.evaluations.get(task.num_training_steps)
    if trajectory.diverged or final is None or not math.isfinite(final.loss):
        return TaskGradient(torch.zeros(len(learner.vector)), math.inf, 0.0, trajectory.num_steps)
    if recorder is not None:
        gradient = _recomputed(learner, task, recorder.snapshots)
    else:
        (gradient,) = torch.autograd.grad(learner.evaluation_losses[-1], learner.vector)
    return TaskGradient(gradient.cpu(), *final, trajectory.num_steps)


class _Recorder:
    """A learner that keeps no graph, but where every segment begins."""

    def __init__(self, learner: UnrolledLearner, segment_steps: int) -> None:
        self.learner, self.segment_steps = learner, segment_steps
        self.start, self.evaluate = learner.start, learner.evaluate
        self.snapshots: list[Snapshot] = []
        self._num_steps = 0
        learner.keep_graph = False

    def step(self, batch: Batch) -> torch.Tensor:
        if self._num_steps % self.segment_steps == 0:
            self.snapshots.append(self.learner.snapshot())
        self._num_steps += 1
        return self.learner.step(batch)


def _recomputed(learner: UnrolledLearner, task: Task, snapshots: list[Snapshot]) -> torch.Tensor:
    """Runs the segments again, the last first, and hands the gradient from each to the one before."""
    learner.keep_graph = True
    total = torch.zeros_like(learner.vector)
    cotangents: list[torch.Tensor] | None = None
    starts = [snapshot.k - snapshots[0].k for snapshot in snapshots]
    ends = [*starts[1:], task.num_training_steps]
    with torch.random.fork_rng(devices=[]):
        for snapshot, start, end in reversed(list(zip(snapshots, starts, ends))):
            learner.resume(snapshot)
            beginning = learner.carried()
            for index in range(start, end):
                learner.step(task.batches[index])
            if cotangents is None:
                learner.evaluate(task.evaluation)
            outputs = learner.evaluation_losses if cotangents is None else learner.carried()
            gradient, *cotangents = torch.autograd.grad(
                outputs, [learner.vector, *beginning], cotangents, materialize_grads=True
            )
            total += gradient
    return total
