"""The inner loop: fine-tunes one model on one task, for evolution, meta-gradients, validation and evaluation alike."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple, Protocol

import torch
from torch import nn

from hf_l3rs.optimizer.batch_norm import batch_norms, temporary_momentum
from hf_l3rs.optimizer.layers import named_trainable_parameters
from hf_l3rs.optimizer.network import L3RSNetwork
from hf_l3rs.optimizer.optimizer import L3RS
from hf_l3rs.tasks.distribution import Task
from hf_l3rs.tasks.model import State
from hf_l3rs.tasks.pools import Batch


CHECK_INTERVAL = 10  # steps between checks for divergence, which make the host wait for the device
EXPLODED = 20.0  # a run has diverged when its loss is that many times the loss of guessing

Autocast = Callable[[], AbstractContextManager[None]]


class Evaluation(NamedTuple):
    """Mean cross entropy per image in nats, and the share of images classified right."""

    loss: float
    accuracy: float


class Trajectory(NamedTuple):
    """What an inner loop gave."""

    evaluations: dict[int, Evaluation]  # by the number of steps taken
    training_loss: float  # mean over the steps taken, each before its step
    num_steps: int  # until the end, or until it was seen that the loop had diverged
    diverged: bool  # the loss was not finite, or exploded


class Learner(Protocol):
    """What an inner loop trains: [`ModelLearner`], or a run that can be differentiated."""

    def start(self, initial_state: State) -> None:
        """Puts the weights at θ0, with fresh gradients."""

    def step(self, batch: Batch) -> torch.Tensor:
        """Takes one step. Returns the training loss before it, 0-dimensional and without a graph."""

    def evaluate(self, evaluation: Sequence[Batch]) -> Evaluation:
        """Evaluates the weights. The steps that follow are the same as without."""


def run(learner: Learner, task: Task, *, evaluate_at: Collection[int] = ()) -> Trajectory:
    """
    Runs the inner loop: K steps from θ0, one per batch (paper, fig. 1 left), or fewer if it diverges. The model is
    evaluated after the steps `evaluate_at`, of which 0 is before all, and after the last.
    """
    losses: list[torch.Tensor] = []
    evaluations: dict[int, Evaluation] = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(task.seed)  # dropout is the same for all candidates on the task
        learner.start(task.initial_state)
        for step in range(task.num_training_steps + 1):
            if step > 0:
                losses.append(learner.step(task.batches[step - 1]))
            is_last = step == task.num_training_steps
            is_checked = is_last or (step > 0 and step % CHECK_INTERVAL == 0)
            if is_checked and has_exploded(losses[-CHECK_INTERVAL:], task):
                return Trajectory(evaluations, math.inf, step, diverged=True)
            if is_last or step in evaluate_at:
                evaluations[step] = learner.evaluate(task.evaluation)
    return Trajectory(evaluations, float(torch.stack(losses).mean()), task.num_training_steps, diverged=False)


def has_exploded(losses: Sequence[torch.Tensor], task: Task) -> bool:
    """Returns whether one of these training losses is not a number, or much worse than guessing."""
    worst = float(torch.stack(list(losses)).max())  # NaN if one is
    return not worst <= EXPLODED * math.log(max(2, task.num_classes))


class ModelLearner:
    """
    One model, as those of transformers, and the optimizer that trains it, in its initial state. The model's state is
    overwritten. `autocast` makes the context of forward passes, for mixed precision.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        scheduler: torch.optim.lr_scheduler.LRScheduler | None = None,
        device: torch.device | str = "cpu",
        autocast: Autocast = nullcontext,
        max_grad_norm: float | None = None,
    ) -> None:
        self.model, self.optimizer, self.scheduler = model, optimizer, scheduler
        self.device, self.autocast, self.max_grad_norm = torch.device(device), autocast, max_grad_norm
        self._params = list(model.parameters())
        self._norms = batch_norms(model)
        learned = optimizer if isinstance(optimizer, L3RS) else None
        self._batch_norm_momentum = learned.config.batch_norm_momentum if learned else None
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=_is_float16(self.device, autocast))

    def start(self, initial_state: State) -> None:
        self.model.load_state_dict(dict(initial_state))
        self._forget_gradients()
        self.model.train()

    def step(self, batch: Batch) -> torch.Tensor:
        batch = batch.to(self.device)
        with self.autocast(), temporary_momentum(self._norms, self._batch_norm_momentum):
            loss = self.model(pixel_values=batch.pixel_values, labels=batch.labels).loss
        self.scaler.scale(loss).backward()
        if self.max_grad_norm is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self._params, self.max_grad_norm)
        # L3RS takes the loss where torch's optimizers take a closure
        arguments: tuple[Any, ...] = (loss,) if isinstance(self.optimizer, L3RS) else ()
        self.scaler.step(self.optimizer, *arguments)
        self.scaler.update()
        self._forget_gradients()
        if self.scheduler is not None:
            self.scheduler.step()
        return loss.detach()

    def evaluate(self, evaluation: Sequence[Batch]) -> Evaluation:
        with self.at_point_of_evaluation():
            result = evaluate(self.model, evaluation, device=self.device, autocast=self.autocast)
        self.model.train()
        return result

    @contextmanager
    def at_point_of_evaluation(self) -> Iterator[None]:
        """Has the weights that are evaluated in the model: those that are trained, unless a subclass averages."""
        yield

    def _forget_gradients(self) -> None:
        """Of the whole model: the optimizer may train only a part of it."""
        for param in self._params:
            param.grad = None


def _is_float16(device: torch.device, autocast: Autocast) -> bool:
    """Whether forward passes run in float16, whose gradients vanish unless the loss is scaled up."""
    with autocast():
        return torch.is_autocast_enabled(device.type) and torch.get_autocast_dtype(device.type) == torch.float16


def inner_optimizer(model: nn.Module, network: L3RSNetwork, num_training_steps: int) -> L3RS:
    """Returns an L3RS for an inner loop of K steps: its loss is one process's own, and it warns of nothing."""
    return L3RS(
        named_trainable_parameters(model),
        network=network,
        num_training_steps=num_training_steps,
        synchronize_loss=False,
        quiet=True,
    )


def fine_tune(
    model: nn.Module,
    task: Task,
    optimizer: torch.optim.Optimizer,
    *,
    evaluate_at: Collection[int] = (),
    **options: Any,
) -> Trajectory:
    """
    Runs the inner loop of a model with any optimizer.

    Args:
        model (`nn.Module`): As those of transformers. Its state is overwritten with that of the task.
        task ([`~hf_l3rs.tasks.distribution.Task`]): What to fine-tune on.
        optimizer (`torch.optim.Optimizer`): Of the model's parameters, in its initial state.
        evaluate_at (`Collection[int]`, *optional*): Steps after which to evaluate, beside the last; 0 is before all.
        options:
            `scheduler`, stepped after every step; `device`, where the model is; `autocast`, which makes the context of
            forward passes; `max_grad_norm` to clip to.

    Returns:
        `Trajectory`: `evaluations` by the number of steps, `training_loss`, `num_steps` and `diverged`.
    """
    return run(ModelLearner(model, optimizer, **options), task, evaluate_at=evaluate_at)


@torch.no_grad()
def evaluate(
    model: nn.Module, batches: Iterable[Batch], *, device: torch.device | str = "cpu", autocast: Autocast = nullcontext
) -> Evaluation:
    """Evaluates a model, which returns an output with `logits`, and leaves it in evaluation mode."""
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
