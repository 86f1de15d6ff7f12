"""Episodes: runs that are cut into windows, one a generation, with the inner states that are carried over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch

from hf_l3rs.errors import CheckpointError
from hf_l3rs.optimizer.step import LayerState
from hf_l3rs.tasks.distribution import Task
from hf_l3rs.tasks.pools import Batch
from hf_l3rs.tasks.unrolled import Snapshot


class Episode(NamedTuple):
    """
    A run on its way.

    Args:
        generation (`int`): In which it began, and by which its task and its noise are known.
        task ([`~hf_l3rs.tasks.distribution.Task`]): What is fine-tuned on, at its full horizon.
        end (`int`): Steps after which the episode ends.
        snapshots (`list[Snapshot]`): Where each of its candidates stands; all have taken as many steps.
    """

    generation: int
    task: Task
    end: int
    snapshots: list[Snapshot]

    @property
    def num_steps(self) -> int:
        """Steps taken."""
        return self.snapshots[0].k

    def window(self, num_steps: int, evaluation_size: int) -> Task:
        """
        Returns the next steps as a task of their own, for runs that are taken up at the snapshots.

        Args:
            num_steps (`int`): Length of the window, which the end of the episode may cut short.
            evaluation_size (`int`): Images of the evaluation set to take; 0 for all.
        """
        count = min(num_steps, self.end - self.num_steps)
        return self.task._replace(
            batches=_Part(self.task.batches, range(self.num_steps, self.num_steps + count)),
            evaluation=first_images(self.task.evaluation, evaluation_size),
            num_training_steps=count,
        )

    def tensors(self) -> dict[str, torch.Tensor]:
        """Returns what a checkpoint must hold of it, by name, on the CPU and in memory of its own."""
        named = {"generation": torch.tensor(self.generation)}
        for index, snapshot in enumerate(self.snapshots):
            named |= {f"{index}.{name}": tensor for name, tensor in _named(snapshot).items()}
        return {
            name: tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
            for name, tensor in named.items()
        }

    def resumed(self, tensors: Mapping[str, torch.Tensor]) -> Episode:
        """
        Returns this episode, where it has not begun, at the place of which [`~Episode.tensors`] told.

        Raises:
            CheckpointError: If the tensors are those of other candidates or another model.
        """
        own = self.tensors()
        if _kinds(own) != _kinds(tensors):
            raise CheckpointError(
                "The runs that the checkpoint carries over are not those of this model and combination; name another "
                "checkpoint, or start anew in another output_dir."
            )
        snapshots = []
        for index, snapshot in enumerate(self.snapshots):
            named = {
                # as a fresh run has it: on its device, and with its strides, which rounding may depend on
                name: torch.empty_like(tensor).copy_(tensors[f"{index}.{name}"])
                for name, tensor in _named(snapshot).items()
            }
            snapshots.append(_unnamed(named, snapshot))
        return self._replace(snapshots=snapshots)


def first_images(evaluation: Sequence[Batch], count: int) -> Sequence[Batch]:
    """Returns so many images of an evaluation set, or all where it has fewer, or `count` is 0."""
    if not count:
        return evaluation
    parts: list[Batch] = []
    for index in range(len(evaluation)):
        batch = evaluation[index]
        parts.append(Batch(*(part[:count] for part in batch)))
        count -= len(batch.labels)
        if count <= 0:
            break
    return parts


class _Part(Sequence[Batch]):
    """Some batches of a task, looked up when they are asked for."""

    def __init__(self, batches: Sequence[Batch], indices: range) -> None:
        self._batches, self._indices = batches, indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Batch:  # type: ignore[override]
        return self._batches[self._indices[index]]


def _kinds(tensors: Mapping[str, torch.Tensor]) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}


def _named(snapshot: Snapshot) -> dict[str, torch.Tensor]:
    state = snapshot.state
    lists = {"params": snapshot.params, **{f"buffers.{name}": own for name, own in state.buffers.items()}}
    return {
        **{f"{name}.{index}": tensor for name, own in lists.items() for index, tensor in enumerate(own)},
        **{f"fixed.{name}": tensor for name, tensor in snapshot.fixed.items()},
        "steps": state.steps,
        "ema": state.ema,
        "k": torch.tensor(snapshot.k),
        "random_state": snapshot.random_state,
    }


def _unnamed(named: Mapping[str, torch.Tensor], like: Snapshot) -> Snapshot:
    indices = range(len(like.params))
    buffers = {name: [named[f"buffers.{name}.{index}"] for index in indices] for name in like.state.buffers}
    return Snapshot(
        [named[f"params.{index}"] for index in indices],
        LayerState(named["steps"], named["ema"], buffers),
        {name: named[f"fixed.{name}"] for name in like.fixed},
        int(named["k"]),
        named["random_state"],
    )
