"""Tasks of several models: what an L3RS for models that it never saw is meta-trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import nn

from hf_l3rs.errors import ConfigError
from hf_l3rs.tasks.distribution import Horizon
from hf_l3rs.tasks.task import Task


class Tasks(Protocol):
    """What tasks are drawn from."""

    @property
    def models(self) -> list[nn.Module]:
        """The models that the tasks fine-tune."""

    @property
    def horizon(self) -> Horizon:
        """How many steps the tasks have."""

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """How many images a training batch may have."""

    def draw(self, seed: int, generation: int, pair: int) -> Task:
        """Returns a task, which depends on these alone."""


class TaskMixture:
    """
    Several distributions, such as of several models, that take turns (ours).

    Args:
        members (`Sequence[Tasks]`): At least one; all of one horizon.

    Raises:
        ConfigError: If there is none, or their horizons differ.
    """

    def __init__(self, members: Sequence[Tasks]) -> None:
        if not members:
            raise ConfigError("A mixture of tasks needs at least one distribution, got none; name a base model.")
        self.members = list(members)
        if len({member.horizon for member in members}) > 1:
            raise ConfigError("The distributions of a mixture must have one horizon, got several; give them the same.")

    @property
    def models(self) -> list[nn.Module]:
        """The models of all members, each once."""
        return list(dict.fromkeys(model for member in self.members for model in member.models))

    @property
    def horizon(self) -> Horizon:
        """How many steps the tasks have."""
        return self.members[0].horizon

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """The batch sizes of all members, each once."""
        return tuple(dict.fromkeys(size for member in self.members for size in member.batch_sizes))

    def draw(self, seed: int, generation: int, pair: int) -> Task:
        """
        Draws from the member whose turn it is: one after another in a generation, and the next one first in the next.

        Args:
            seed (`int`): The run's seed.
            generation (`int`): Meta-iteration, from 0.
            pair (`int`): Index of the sample in its generation.
        """
        return self.members[(generation + pair) % len(self.members)].draw(seed, generation, pair)
