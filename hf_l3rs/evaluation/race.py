"""Several optimizers on one task at the same time, step by step, so that somebody can watch."""

from __future__ import annotations

import copy
import math
from collections.abc import Collection, Iterator, Sequence

import torch
from torch import nn

from hf_l3rs.errors import ConfigError
from hf_l3rs.evaluation.baselines import Contender
from hf_l3rs.evaluation.benchmark import DIVERGED, make_learner
from hf_l3rs.tasks.inner_loop import Evaluation, Learner, follow
from hf_l3rs.tasks.task import Batch, State, Task


def race(
    model: nn.Module,
    contenders: Sequence[Contender],
    task: Task,
    evaluate_at: Collection[int] = (),
    device: torch.device | str = "cpu",
) -> Iterator[tuple[int, dict[str, Evaluation]]]:
    """
    Fine-tunes copies of a model on one task, each with an optimizer of its own: the same new head, the same batches at
    the same time. Each comes out as [`~hf_l3rs.evaluation.benchmark.measure`] has it by itself, to the bit on a CPU.

    Args:
        model (`nn.Module`): What is copied; it is left as it is.
        contenders (`Sequence[Contender]`): The optimizers, of different names, with one pass over the batches.
        task ([`~hf_l3rs.tasks.task.Task`]): What to fine-tune on.
        evaluate_at (`Collection[int]`, *optional*): Steps after which to evaluate, beside the last; 0 is before all.
        device (`torch.device` or `str`, *optional*, defaults to `"cpu"`): Where the copies train.

    Yields:
        `tuple[int, dict[str, Evaluation]]`: Steps taken, and how good each contender is then. From where it diverged
        on, the loss is infinite and the accuracy 0.

    Raises:
        ConfigError: If there is nobody to race, two have one name, or one goes over the batches several times.
    """
    names = [contender.name for contender in contenders]
    if not names or len(set(names)) < len(names) or any(contender.passes > 1 for contender in contenders):
        raise ConfigError(
            "A race needs contenders of different names with one pass each over the batches, got "
            f"{', '.join(names) or 'none'}; name at least one, each once, and no data limit."
        )
    learners = [make_learner(copy.deepcopy(model).to(device), each, task, device) for each in contenders]
    step = -1
    for step, evaluations in follow(SideBySide(learners), [task] * len(names), evaluate_at=evaluate_at):
        yield step, {name: _of_finite_loss(each) for name, each in zip(names, evaluations)}
    if step < task.num_training_steps:  # nobody is left
        yield task.num_training_steps, dict.fromkeys(names, DIVERGED)


def _of_finite_loss(evaluation: Evaluation | None) -> Evaluation:
    return evaluation if evaluation is not None and math.isfinite(evaluation.loss) else DIVERGED


class SideBySide:
    """
    Trains what several learners train, by turns. Each draws its random numbers as if it were alone.

    Args:
        learners (`Sequence[Learner]`): Each of one candidate, of a model of its own.
    """

    def __init__(self, learners: Sequence[Learner]) -> None:
        self.learners = learners
        self._random_states: list[torch.Tensor] = []

    def start(self, initial_states: Sequence[State]) -> None:
        """See [`~hf_l3rs.tasks.inner_loop.Learner`]."""
        self._random_states = [torch.get_rng_state()] * len(self.learners)
        for learner, state in zip(self.learners, initial_states):
            learner.start([state])

    def step(self, batches: Sequence[Batch]) -> torch.Tensor:
        """See [`~hf_l3rs.tasks.inner_loop.Learner`]."""
        losses = []
        for index, (learner, batch) in enumerate(zip(self.learners, batches)):
            torch.set_rng_state(self._random_states[index])
            losses.append(learner.step([batch]))
            self._random_states[index] = torch.get_rng_state()
        return torch.cat(losses)

    def evaluate(self, evaluations: Sequence[Sequence[Batch]]) -> list[Evaluation]:
        """See [`~hf_l3rs.tasks.inner_loop.Learner`]."""
        return [learner.evaluate([each])[0] for learner, each in zip(self.learners, evaluations)]
