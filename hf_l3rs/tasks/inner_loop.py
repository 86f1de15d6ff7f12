"""The inner loop: fine-tunes a model on a task with any optimizer."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import nn

from hf_l3rs.learned.optimizer import LearnedOptimizer
from hf_l3rs.tasks.task import Batch, Task


# How often, in steps, an inner loop looks whether it has diverged. Looking makes the host wait for the device.
CHECK_INTERVAL = 10

# A loss of that many times the loss of guessing has exploded; finishing the inner loop would be a waste.
EXPLODED = 20.0

Autocast = Callable[[], AbstractContextManager[None]]


class Evaluation(NamedTuple):
    """
    How good a model is on an evaluation set.

    Args:
        loss (`float`): Mean cross entropy per image, in nats.
        accuracy (`float`): Share of images classified right.
    """

    loss: float
    accuracy: float


class Trajectory(NamedTuple):
    """
    What an inner loop gave.

    Args:
        evaluations (`dict[int, Evaluation]`): By the number of steps taken.
        training_loss (`float`): Mean training loss over the steps taken, each before its step.
        num_steps (`int`): Steps taken; fewer than planned if the loop diverged.
        diverged (`bool`): Whether it was cut short because the loss was not finite, or exploded.
    """

    evaluations: dict[int, Evaluation]
    training_loss: float
    num_steps: int
    diverged: bool


def fine_tune(
    model: nn.Module,
    task: Task,
    optimizer: torch.optim.Optimizer,
    *,
    scheduler: torch.optim.lr_scheduler.LRScheduler | None = None,
    evaluate_at: Collection[int] = (),
    device: torch.device | str = "cpu",
    autocast: Autocast = nullcontext,
    max_grad_norm: float | None = None,
) -> Trajectory:
    """
    Runs the inner loop of a task: `task.num_training_steps` steps from θ0, one per batch.

    Args:
        model (`nn.Module`): Returns an output with `loss` and `logits` for `pixel_values` and `labels`.
        task ([`~hf_l3rs.tasks.distribution.Task`]): What to fine-tune on.
        optimizer (`torch.optim.Optimizer`): Of the model's parameters, in its initial state.
        scheduler (`LRScheduler`, *optional*): Stepped after every step.
        evaluate_at (`Collection[int]`, *optional*): Steps after which to evaluate, beside the last.
        device (`torch.device` or `str`, *optional*, defaults to `"cpu"`): Where `model` is.
        autocast (`Callable`, *optional*): Makes the context of forward passes, for mixed precision.
        max_grad_norm (`float`, *optional*): Global gradient norm to clip to.

    Returns:
        [`Trajectory`]
    """
    model.load_state_dict(dict(task.initial_state))
    model.zero_grad()  # an optimizer of the head alone leaves the trunk's gradients behind
    model.train()
    losses: list[torch.Tensor] = []
    evaluations: dict[int, Evaluation] = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(task.seed)  # dropout is the same for all candidates of the task
        for step in range(1, task.num_training_steps + 1):
            batch = task.batches[step - 1].to(device)
            with autocast():
                loss = model(pixel_values=batch.pixel_values, labels=batch.labels).loss
            loss.backward()
            if max_grad_norm is not None:
                nn.utils.clip_grad_norm_(model.parameters(), max_grad_norm)
            _step(optimizer, loss)
            optimizer.zero_grad()
            losses.append(loss.detach())
            if scheduler is not None:
                scheduler.step()
            is_last = step == task.num_training_steps
            if (is_last or step % CHECK_INTERVAL == 0) and _has_exploded(losses[-CHECK_INTERVAL:], task):
                return Trajectory(evaluations, math.inf, step, diverged=True)
            if is_last or step in evaluate_at:
                evaluations[step] = evaluate(model, task.evaluation, device=device, autocast=autocast)
                model.train()
    return Trajectory(evaluations, float(torch.stack(losses).mean()), task.num_training_steps, diverged=False)


def _step(optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> None:
    """L3RS takes the loss where torch optimizers take a closure."""
    if isinstance(optimizer, LearnedOptimizer):
        optimizer.step(loss)
    else:
        optimizer.step()


def _has_exploded(losses: list[torch.Tensor], task: Task) -> bool:
    worst = float(torch.stack(losses).max())
    return not worst <= explosion_threshold(task)


def explosion_threshold(task: Task) -> float:
    """The training loss, in nats, above which a candidate counts as diverged."""
    return EXPLODED * math.log(max(2, int(task.batches[0].labels.max()) + 1))


@torch.no_grad()
def evaluate(
    model: nn.Module, batches: Iterable[Batch], *, device: torch.device | str = "cpu", autocast: Autocast = nullcontext
) -> Evaluation:
    """
    Evaluates a model; leaves it in evaluation mode.

    Args:
        model (`nn.Module`): Returns an output with `logits` for `pixel_values`.
        batches (`Iterable[Batch]`): The evaluation set.
        device (`torch.device` or `str`, *optional*, defaults to `"cpu"`): Where `model` is.
        autocast (`Callable`, *optional*): Makes the context of forward passes.

    Returns:
        [`Evaluation`]
    """
    model.eval()
    loss, correct, count = 0.0, 0, 0
    for batch in batches:
        batch = batch.to(device)
        with autocast():
            logits = model(pixel_values=batch.pixel_values).logits
        loss += float(nn.functional.cross_entropy(logits.float(), batch.labels, reduction="sum"))
        correct += int((logits.argmax(dim=1) == batch.labels).sum())
        count += len(batch.labels)
    return Evaluation(loss / count, correct / count)
