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
from hf_l3rs.tasks.distribution import Task
from hf_l3rs.tasks.inner_loop import CHECK_INTERVAL, Evaluation, Learner, has_exploded


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
        contenders (`Sequence[Contender]`): The optimizers, of different names.
        task ([`~hf_l3rs.tasks.distribution.Task`]): What to fine-tune on.
        evaluate_at (`Collection[int]`, *optional*): Steps after which to evaluate, beside the last; 0 is before all.
        device (`torch.device` or `str`, *optional*, defaults to `"cpu"`): Where the copies train.

    Yields:
        `tuple[int, dict[str, Evaluation]]`: Steps taken, and how good each contender is then. From where it diverged
        on, the loss is infinite and the accuracy 0.

    Raises:
        ConfigError: If there is nobody to race, two have one name, or one starts at a linear probe.
    """
    names = [contender.name for contender in contenders]
    if not names or len(set(names)) < len(names) or any(contender.starts_at_probe for contender in contenders):
        raise ConfigError(
            f"A race needs optimizers of different names that start from the task's head, got "
            f"{', '.join(names) or 'none'}; name at least one, each once, and no linear probe."
        )
    learners = {each.name: make_learner(copy.deepcopy(model).to(device), each, task, device) for each in contenders}
    losses: dict[str, list[torch.Tensor]] = {name: [] for name in names}
    diverged: set[str] = set()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(task.seed)
        random_states = dict.fromkeys(names, torch.get_rng_state())
        for learner in learners.values():
            learner.start(task.initial_state)
        for step in range(task.num_training_steps + 1):
            for name in [name for name in names if step > 0 and name not in diverged]:
                torch.set_rng_state(random_states[name])  # each draws its random numbers as if it were alone
                losses[name].append(learners[name].step(task.batches[step - 1]))
                random_states[name] = torch.get_rng_state()
            is_last = step == task.num_training_steps
            if is_last or (step > 0 and step % CHECK_INTERVAL == 0):
                diverged |= {name for name in names if has_exploded(losses[name][-CHECK_INTERVAL:], task)}
            if is_last or step in evaluate_at:
                yield step, {name: _evaluate(learners[name], task, name in diverged) for name in names}


def _evaluate(learner: Learner, task: Task, has_diverged: bool) -> Evaluation:
    evaluation = DIVERGED if has_diverged else learner.evaluate(task.evaluation)
    return evaluation if math.isfinite(evaluation.loss) else DIVERGED
