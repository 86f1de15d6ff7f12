"""Meta-gradients: reverse mode through the inner loop, at a hundredth of the cost of evolution."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import torch
from accelerate import Accelerator

from hf_l3rs.distributed import share_out
from hf_l3rs.meta.outer import Estimate, Estimator, OuterState
from hf_l3rs.optimizer.network import L3RSNetwork
from hf_l3rs.tasks.distribution import Task, Tasks
from hf_l3rs.tasks.inner_loop import Evaluation, Trajectory, run
from hf_l3rs.tasks.model import State
from hf_l3rs.tasks.pools import Batch
from hf_l3rs.tasks.unrolled import Snapshot, UnrolledLearner
from hf_l3rs.validation import Range, check_fields


# A gradient of that many times the norm that it would be clipped to has exploded: its direction is noise.
EXPLODED = 1e3

# What a differentiated inner step costs, its share of the way back included, in steps that are not differentiated:
# medians of recipes/benchmark_meta_training.py on the embedded ResNet. Others differ with the model.
SECOND_ORDER_STEP_COST, FIRST_ORDER_STEP_COST = 3.2, 1.25


def step_cost(second_order: bool) -> float:
    """Returns what a step that is differentiated once costs, in plain ones."""
    return SECOND_ORDER_STEP_COST if second_order else FIRST_ORDER_STEP_COST


@dataclass(frozen=True)
class GradientConfig:
    """Settings of the estimate by reverse mode."""

    num_tasks: int = field(default=4, metadata={"help": "Tasks of a generation."})
    second_order: bool = field(
        default=True,
        metadata={"help": "Differentiate inner gradients, too; else they are constants, for less time."},
    )
    feature_gradient: bool = field(
        default=False, metadata={"help": "Differentiate what the network sees, too, beside what it decides."}
    )
    max_task_gradient: float = field(
        default=1.0,
        metadata={"help": "Norm that a task's gradient is clipped to, so that no task or model drowns the others."},
    )
    num_evaluations: int = field(
        default=1, metadata={"help": "Evaluations, evenly along the run, that the meta-loss is the mean of."}
    )
    segment_steps: int = field(
        default=0,
        metadata={
            "help": "Inner steps whose graph is held at a time; 0: all, which is fastest. The root of the horizon "
            "takes least memory. For the estimator segments, the steps that a run takes in a generation."
        },
    )

    def __post_init__(self) -> None:
        positive = Range(low=1)
        rules = {"num_tasks": positive, "num_evaluations": positive, "segment_steps": Range(low=0)}
        check_fields(self, {**rules, "max_task_gradient": Range(above=0)})

    @property
    def step_cost(self) -> float:
        """What a differentiated step costs, in plain ones: segments take every step once more."""
        return step_cost(self.second_order) + (1 if self.segment_steps else 0)


class TaskGradient(NamedTuple):
    """
    What one task gives.

    Args:
        gradient (`torch.Tensor` of shape `(num_meta_parameters,)`): Of the meta-loss; zero if the run diverged.
        meta_loss (`float`): Mean of the evaluation losses along the run; infinite if it diverged.
        accuracy (`float`): Final accuracy; 0 if it diverged.
        num_steps (`int`): Inner steps taken.
    """

    gradient: torch.Tensor
    meta_loss: float
    accuracy: float
    num_steps: int


class MetaGradient(Estimator):
    """
    Reverse mode as an [`~hf_l3rs.meta.outer.Estimator`]. A sample is a task.

    Args:
        config ([`GradientConfig`]): Settings.
        seed (`int`): Of the tasks.
        tasks ([`~hf_l3rs.tasks.distribution.Tasks`]): What is fine-tuned on.
        network ([`L3RSNetwork`]): Gives the configuration of the meta-weights.
        accelerator (`Accelerator`): Shares the tasks out; names device and precision.
    """

    def __init__(
        self, config: GradientConfig, seed: int, tasks: Tasks, network: L3RSNetwork, accelerator: Accelerator
    ) -> None:
        self.config, self.seed, self.tasks, self.network = config, seed, tasks, network
        self._accelerator = accelerator

    def estimate(self, state: OuterState) -> Estimate:
        """Averages clipped gradients. Those that exploded are left out; where they are most, there is no estimate."""
        samples = share_out(self._accelerator, range(self.config.num_tasks), partial(self.sample, state))
        gradients = torch.stack([sample.gradient for sample in samples]).double()
        figures = torch.tensor([sample[1:] for sample in samples], dtype=torch.float64)
        meta_loss, accuracy, num_steps = figures.unbind(1)
        norms, limit = torch.linalg.vector_norm(gradients, dim=1), self.config.max_task_gradient
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

    def cost_of_generation(self, num_steps: float) -> float:
        """See [`~hf_l3rs.meta.outer.Estimator.cost_of_generation`]."""
        return self.config.num_tasks * num_steps * self.config.step_cost

    def sample(self, state: OuterState, index: int) -> TaskGradient:
        """Returns what one task of a generation gives, on one process."""
        return self.of_task(state.mean, self.tasks.draw(self.seed, state.generation, index))

    def of_task(self, mean: torch.Tensor, task: Task) -> TaskGradient:
        """Differentiates a task's meta-loss at ψ, of shape `(num_meta_parameters,)`."""
        points = evaluation_points(task.num_training_steps, self.config.num_evaluations)
        return differentiate(self.learner(task, mean), task, points, self.config.segment_steps)

    def learner(self, task: Task, mean: torch.Tensor, begin: Snapshot | None = None) -> UnrolledLearner:
        """Returns what a run trains at ψ, taken up at a snapshot or, by default, at θ0."""
        device = self._accelerator.device
        return UnrolledLearner(
            task.model,
            self.network,
            mean.to(device, copy=True).requires_grad_(),
            task.num_training_steps,
            second_order=self.config.second_order,
            feature_gradient=self.config.feature_gradient,
            device=device,
            autocast=self._accelerator.autocast,
            begin=begin,
        )


def evaluation_points(num_training_steps: int, count: int) -> list[int]:
    """Returns the steps after which to evaluate, evenly along the run, the last included; fewer in a short run."""
    return sorted({math.ceil(num_training_steps * (index + 1) / count) for index in range(count)})


def differentiate(learner: UnrolledLearner, task: Task, points: Sequence[int], segment_steps: int = 0) -> TaskGradient:
    """
    Runs a task, or a part of one, and differentiates the mean of its evaluation losses.

    Args:
        learner ([`~hf_l3rs.tasks.unrolled.UnrolledLearner`]): What is trained; its vector requires a gradient.
        task ([`~hf_l3rs.tasks.distribution.Task`]): The steps that are taken: its batches, from the first.
        points (`Sequence[int]`): Steps of them after which to evaluate, the last included.
        segment_steps (`int`, *optional*, defaults to `0`): Steps whose graph is held at a time; 0 for all.

    Returns:
        [`TaskGradient`]
    """
    recorder = _Recorder(learner, segment_steps) if segment_steps else None
    trajectory = run(recorder or learner, task, evaluate_at=points)
    meta_loss, accuracy = _judged(trajectory)
    if math.isinf(meta_loss):
        gradient = torch.zeros_like(learner.vector, requires_grad=False)
    elif recorder is not None:
        gradient = _recomputed(learner, task, recorder.snapshots, points)
    else:
        (gradient,) = torch.autograd.grad(torch.stack(learner.evaluation_losses).mean(), learner.vector)
    return TaskGradient(gradient.cpu(), meta_loss, accuracy, trajectory.num_steps)


def _judged(trajectory: Trajectory) -> tuple[float, float]:
    """Meta-loss and final accuracy; infinite and 0 where the run diverged, or has a loss that is not a number."""
    losses = [evaluation.loss for evaluation in trajectory.evaluations.values()]
    if trajectory.diverged or not math.isfinite(sum(losses)):
        return math.inf, 0.0
    return sum(losses) / len(losses), trajectory.evaluations[trajectory.num_steps].accuracy


class _Recorder:
    """A learner that keeps no graph, but where every segment begins."""

    def __init__(self, learner: UnrolledLearner, segment_steps: int) -> None:
        self.learner, self.segment_steps = learner, segment_steps
        self.snapshots: list[Snapshot] = []
        self._num_steps = 0
        learner.keep_graph = False

    def start(self, initial_state: State) -> None:
        self.learner.start(initial_state)

    def step(self, batch: Batch) -> torch.Tensor:
        if self._num_steps % self.segment_steps == 0:
            self.snapshots.append(self.learner.snapshot())
        self._num_steps += 1
        return self.learner.step(batch)

    def evaluate(self, evaluation: Sequence[Batch]) -> Evaluation:
        return self.learner.evaluate(evaluation)


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
                learner.step(task.batches[index])
                if index + 1 in points:
                    learner.evaluate(task.evaluation)
            outputs: list[torch.Tensor] = [loss / len(points) for loss in learner.evaluation_losses]
            weights = [torch.ones_like(loss) for loss in outputs]
            if cotangents is not None:
                outputs, weights = [*outputs, *learner.carried()], [*weights, *cotangents]
            gradient, *cotangents = torch.autograd.grad(
                outputs, [learner.vector, *beginning], weights, materialize_grads=True
            )
            total += gradient
    return total
