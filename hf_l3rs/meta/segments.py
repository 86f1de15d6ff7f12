"""Meta-gradients of long runs: a generation takes every run a segment further and differentiates that alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import torch
from accelerate import Accelerator
from torch.utils import _pytree as pytree

from hf_l3rs.distributed import own_share, share_out
from hf_l3rs.errors import CheckpointError
from hf_l3rs.meta.gradient import MetaGradient, TaskGradient
from hf_l3rs.meta.outer import OuterConfig, OuterState
from hf_l3rs.optimizer.network import L3RSNetwork
from hf_l3rs.tasks.distribution import Task, Tasks
from hf_l3rs.tasks.inner_loop import has_exploded
from hf_l3rs.tasks.pools import derive_seed
from hf_l3rs.tasks.unrolled import Snapshot


class Run(NamedTuple):
    """A run on its way: since when, which gives its task, until which step, and where it stands, by default at θ0."""

    generation: int
    task: Task
    end: int
    snapshot: Snapshot | None = None

    @property
    def num_steps(self) -> int:
        """Steps taken."""
        return 0 if self.snapshot is None else self.snapshot.k

    def tensors(self) -> dict[str, torch.Tensor]:
        """Returns what a checkpoint must hold of it, by name, on the CPU and in memory of its own."""
        leaves = pytree.tree_leaves(self.snapshot)
        named = {"generation": self.generation, **{str(index): leaf for index, leaf in enumerate(leaves)}}
        return {
            name: torch.as_tensor(leaf).to("cpu", copy=True, memory_format=torch.contiguous_format)
            for name, leaf in named.items()
            if leaf is not None
        }


class SegmentedGradient(MetaGradient):
    """A sample is a whole short run, or a slot of one run after another; first ones are cut short at random."""

    def __init__(self, config: OuterConfig, tasks: Tasks, network: L3RSNetwork, accelerator: Accelerator) -> None:
        super().__init__(config, tasks, network, accelerator)
        low, high = (min(bound, config.segment_steps) for bound in (tasks.horizon.minimum, tasks.horizon.maximum))
        self._short = tasks.with_horizon(replace(tasks.horizon, minimum=low, maximum=high))
        self._runs: dict[int, Run] = {}  # of this process's own slots

    def sample(self, state: OuterState, index: int) -> TaskGradient:
        """Returns what a whole run, or the next segment of a slot's run, gives."""
        if index < self.config.num_whole_runs:
            task = self._short.draw(self.config.seed, state.generation, index)
            return self._segment(state.mean, Run(state.generation, task, task.num_training_steps))[0]
        run = self._runs.get(index) or self._begin(state.generation, index)
        result, run = self._segment(state.mean, run)
        goes_on = math.isfinite(result.meta_loss) and run.num_steps < run.end
        self._runs[index] = run if goes_on else self._begin(state.generation + 1, index)
        return result

    def state(self) -> dict[str, torch.Tensor]:
        """Returns where the slots' runs stand; see [`~hf_l3rs.meta.outer.Estimator.state`]."""
        slots = range(self.config.num_tasks)
        packed = share_out(
            self.accelerator, slots, lambda slot: self._runs[slot].tensors() if slot in self._runs else {}
        )
        return {f"{slot}.{name}": tensor for slot, named in zip(slots, packed) for name, tensor in named.items()}

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Takes up this process's own slots; see [`~hf_l3rs.meta.outer.Estimator.load_state`]."""
        for slot in own_share(self.accelerator, self.config.num_tasks):
            prefix = f"{slot}."
            tensors = {name.removeprefix(prefix): t for name, t in state.items() if name.startswith(prefix)}
            if "generation" in tensors:
                run = self._begin(int(tensors.pop("generation")), slot)
                self._runs[slot] = run._replace(snapshot=self._restored(run, tensors)) if tensors else run

    def _begin(self, generation: int, slot: int) -> Run:
        """Draws the run that a slot begins in a generation."""
        task = self.tasks.draw(self.config.seed, generation, slot)
        end = task.num_training_steps
        if generation == 0:
            num_segments = math.ceil(end / self.config.segment_steps)
            first = 1 + derive_seed(self.config.seed, "first segments", slot) % num_segments
            end = min(end, first * self.config.segment_steps)
        return Run(generation, task, end)

    def _segment(self, mean: torch.Tensor, run: Run) -> tuple[TaskGradient, Run]:
        """Takes a run a segment further. Returns what the segment gives, and the run at its end."""
        task, start = run.task, run.num_steps
        end = min(start + self.config.segment_steps, run.end)
        judged = min(end + self.config.lookahead_steps, task.num_training_steps)
        learner = self.learner(task, mean, run.snapshot)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(task.seed)  # of a run at θ0; others go on from their own random state
            learner.start(task.initial_state)
            losses = []
            for index in range(start, judged):
                losses.append(learner.step(task.batches[index]))
                if index + 1 == end:
                    run = run._replace(snapshot=learner.snapshot())
            evaluation = learner.evaluate(task.evaluation)
        if has_exploded(losses, task) or not math.isfinite(evaluation.loss):
            return TaskGradient(torch.zeros_like(mean), math.inf, 0.0, judged - start), run
        (gradient,) = torch.autograd.grad(learner.evaluation_losses[-1], learner.vector)
        return TaskGradient(gradient.cpu(), *evaluation, judged - start), run

    def _restored(self, run: Run, tensors: Mapping[str, torch.Tensor]) -> Snapshot:
        """Returns the snapshot that [`Run.tensors`] told of, of a run that has not begun here."""
        learner = self.learner(run.task, self.network.to_vector())
        with torch.random.fork_rng(devices=[]):
            learner.start(run.task.initial_state)
        own, structure = pytree.tree_flatten(learner.snapshot())
        saved = [tensors[name] for name in sorted(tensors, key=int)]
        if [torch.as_tensor(leaf).shape for leaf in own] != [tensor.shape for tensor in saved]:
            raise CheckpointError(
                "The runs that the checkpoint carries over are not those of these models; name another checkpoint, or "
                "start anew in another output_dir."
            )
        restored = [
            # as a fresh run has it: on its device, and with its strides, which rounding may depend on
            torch.empty_like(leaf).copy_(its) if torch.is_tensor(leaf) else int(its)
            for leaf, its in zip(own, saved)
        ]
        return pytree.tree_unflatten(restored, structure)
