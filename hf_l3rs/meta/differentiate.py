"""The gradient of a run's meta-loss in its meta-weights, with the whole graph held or with segments run again."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from hf_l3rs.tasks.inner_loop import Evaluation, Trajectory, run
from hf_l3rs.tasks.task import Batch, State, Task
from hf_l3rs.tasks.unrolled import Snapshot, UnrolledLearner


def differentiate(
    learner: UnrolledLearner, task: Task, points: Sequence[int], segment_steps: int = 0
) -> tuple[torch.Tensor | None, Trajectory, Snapshot]:
    """
    Runs a task, or a window of one, and differentiates the mean of its evaluation losses.

    Args:
        learner ([`~hf_l3rs.tasks.unrolled.UnrolledLearner`]): What is trained; its vector requires a gradient.
        task ([`~hf_l3rs.tasks.task.Task`]): The steps that are taken: its batches, from the first.
        points (`Sequence[int]`): Steps of them after which to evaluate, the last included.
        segment_steps (`int`, *optional*, defaults to `0`): Steps whose graph is held at a time; 0 for all.

    Returns:
        `tuple[torch.Tensor | None, Trajectory, Snapshot]`: The gradient, of the vector's shape, or `None` if the run
        diverged; what the run gave; and where it ended.
    """
    if segment_steps:
        recorder = _Recorder(learner, segment_steps)
        (trajectory,) = run(recorder, [task], evaluate_at=points)
        end = learner.snapshot()
        gradient = None if trajectory.diverged else _recomputed(learner, task, recorder.snapshots, points)
        return gradient, trajectory, end
    (trajectory,) = run(learner, [task], evaluate_at=points)
    if trajectory.diverged:
        return None, trajectory, learner.snapshot()
    (gradient,) = torch.autograd.grad(torch.stack(learner.evaluation_losses).mean(), learner.vector)
    return gradient, trajectory, learner.snapshot()


def evaluation_points(num_training_steps: int, count: int) -> list[int]:
    """Returns the steps after which to evaluate, evenly along the run, the last included; fewer in a short run."""
    return sorted({math.ceil(num_training_steps * (index + 1) / count) for index in range(count)})


class _Recorder:
    """A learner that keeps no graph, but where every segment begins."""

    def __init__(self, learner: UnrolledLearner, segment_steps: int) -> None:
        self.learner, self.segment_steps = learner, segment_steps
        self.snapshots: list[Snapshot] = []
        self._num_steps = 0
        learner.keep_graph = False

    def start(self, initial_states: Sequence[State]) -> None:
        self.learner.start(initial_states)

    def step(self, batches: Sequence[Batch]) -> torch.Tensor:
        if self._num_steps % self.segment_steps == 0:
            self.snapshots.append(self.learner.snapshot())
        self._num_steps += 1
        return self.learner.step(batches)

    def evaluate(self, evaluations: Sequence[Sequence[Batch]]) -> list[Evaluation]:
        return self.learner.evaluate(evaluations)


def _recomputed(
    learner: UnrolledLearner, task: Task, snapshots: list[Snapshot], points: Sequence[int]
) -> torch.Tensor:
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
