"""The inner loop: fine-tunes on a task, one model with any optimizer or many candidates at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple, Protocol

import torch
from torch import nn

from hf_l3rs.optimizer.arithmetic import FUNCTIONAL, Tensors
from hf_l3rs.optimizer.batch_norm import batch_norms, temporary_momentum
from hf_l3rs.optimizer.layers import named_trainable_parameters
from hf_l3rs.optimizer.network import L3RSNetwork
from hf_l3rs.optimizer.optimizer import LearnedOptimizer
from hf_l3rs.tasks.task import Batch, State, Task


def clip_to_norm(grads: Tensors, max_norm: float | None) -> Tensors:
    """
    Returns gradients scaled down to a global norm, as `torch.nn.utils.clip_grad_norm_` scales them.

    Args:
        grads (`list[torch.Tensor]`): One a layer; never written.
        max_norm (`float`, *optional*): The norm; without it, the gradients come back as they are.
    """
    if max_norm is None:
        return grads
    share = (max_norm / (FUNCTIONAL.norms(grads).norm() + 1e-6)).clamp(max=1.0)
    return FUNCTIONAL.mul_(grads, [share] * len(grads))


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
        num_steps (`int`): Steps taken until the end, or until it was seen that the loop had diverged.
        diverged (`bool`): Whether the loss was not finite, or exploded.
    """

    evaluations: dict[int, Evaluation]
    training_loss: float
    num_steps: int
    diverged: bool


class Learner(Protocol):
    """What an inner loop trains: one candidate or several, each on a task of its own."""

    def start(self, initial_states: Sequence[State]) -> None:
        """Puts every candidate at its θ0, with fresh gradients."""

    def step(self, batches: Sequence[Batch]) -> torch.Tensor:
        """Takes one step of every candidate. Returns their training losses before it, `(num_candidates,)`."""

    def evaluate(self, evaluations: Sequence[Sequence[Batch]]) -> list[Evaluation]:
        """Evaluates every candidate on its evaluation set."""


def run(learner: Learner, tasks: Sequence[Task], *, evaluate_at: Collection[int] = ()) -> list[Trajectory]:
    """
    Runs the inner loop: K steps from θ0, one per batch (paper, fig. 1 left).

    Args:
        learner ([`Learner`]): What is trained.
        tasks (`Sequence[Task]`): The task of each candidate; all of one horizon.
        evaluate_at (`Collection[int]`, *optional*): Steps after which to evaluate, beside the last; 0 is before all.

    Returns:
        `list[Trajectory]`: One for each candidate. The loop ends early when all have diverged.
    """
    progress = follow(learner, tasks, evaluate_at=evaluate_at)
    while True:
        try:
            next(progress)
        except StopIteration as end:
            return end.value


def follow(
    learner: Learner, tasks: Sequence[Task], *, evaluate_at: Collection[int] = ()
) -> Generator[tuple[int, list[Evaluation | None]], None, list[Trajectory]]:
    """
    Runs the inner loop as [`run`] does, and shows every evaluation as soon as it is there. Whoever looks may stop, and
    draws no random numbers meanwhile unless the learner keeps its own.

    Yields:
        `tuple[int, list[Evaluation | None]]`: Steps taken, and how good each candidate is; `None` if it has diverged.
    """
    (num_steps,) = {task.num_training_steps for task in tasks}
    losses: list[torch.Tensor] = []
    evaluations: dict[int, list[Evaluation]] = {}
    ended: dict[int, int] = {}  # candidates that have diverged, and when that was seen
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(tasks[0].seed)  # dropout is the same for all candidates of the task
        learner.start([task.initial_state for task in tasks])
        for step in range(num_steps + 1):
            if step > 0:
                losses.append(learner.step(_batches(tasks, step - 1)))
            is_last = step == num_steps
            if is_last or (step > 0 and step % CHECK_INTERVAL == 0):
                for candidate in _exploded(losses[-CHECK_INTERVAL:], tasks):
                    ended.setdefault(candidate, step)
                if len(ended) == len(tasks):
                    break
            if is_last or step in evaluate_at:
                evaluations[step] = learner.evaluate([task.evaluation for task in tasks])
                yield step, [None if index in ended else each for index, each in enumerate(evaluations[step])]
    means = torch.stack(losses).mean(dim=0).tolist()
    return [
        Trajectory(
            {step: of_step[candidate] for step, of_step in evaluations.items()},
            math.inf if candidate in ended else means[candidate],
            ended.get(candidate, num_steps),
            candidate in ended,
        )
        for candidate in range(len(tasks))
    ]


def _batches(tasks: Sequence[Task], index: int) -> list[Batch]:
    """The batch of each candidate; those that share a task get the very same, which is fetched once."""
    distinct = {id(task.batches): task.batches for task in tasks}
    fetched = {key: batches[index] for key, batches in distinct.items()}
    return [fetched[id(task.batches)] for task in tasks]


def _exploded(losses: list[torch.Tensor], tasks: Sequence[Task]) -> list[int]:
    """The candidates of which a loss is not a number, or much worse than guessing."""
    worst = torch.stack(losses).amax(dim=0).tolist()  # amax hands NaN on
    return [
        index
        for index, (loss, task) in enumerate(zip(worst, tasks))
        if not loss <= EXPLODED * math.log(max(2, task.num_classes))
    ]


class ModelLearner:
    """
    One model and the optimizer that trains it.

    Args:
        model (`nn.Module`):
            Returns an output with `loss` and `logits` for `pixel_values` and `labels`. Its state is overwritten.
        optimizer (`torch.optim.Optimizer`): Of the model's parameters, in its initial state.
        scheduler (`LRScheduler`, *optional*): Stepped after every step.
        device (`torch.device` or `str`, *optional*, defaults to `"cpu"`): Where `model` is.
        autocast (`Callable`, *optional*): Makes the context of forward passes, for mixed precision.
        max_grad_norm (`float`, *optional*): Global gradient norm to clip to.
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
        learned = optimizer if isinstance(optimizer, LearnedOptimizer) else None
        self._batch_norm_momentum = learned.config.batch_norm_momentum if learned else None
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=_is_float16(self.device, autocast))

    def start(self, initial_states: Sequence[State]) -> None:
        (initial_state,) = initial_states
        own = self.model.state_dict()
        shapes = {name: tensor.shape for name, tensor in own.items()}
        if shapes == {name: tensor.shape for name, tensor in initial_state.items()}:
            with torch.no_grad():
                torch._foreach_copy_(list(own.values()), [initial_state[name] for name in own])
        else:  # takes ten times as long, and says what differs
            self.model.load_state_dict(dict(initial_state))
        self._forget_gradients()
        self.model.train()

    def step(self, batches: Sequence[Batch]) -> torch.Tensor:
        (batch,) = batches
        batch = batch.to(self.device)
        with self.autocast(), temporary_momentum(self._norms, self._batch_norm_momentum):
            loss = self.model(pixel_values=batch.pixel_values, labels=batch.labels).loss
        self.scaler.scale(loss).backward()
        if self.max_grad_norm is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self._params, self.max_grad_norm)
        # L3RS takes the loss where torch's optimizers take a closure
        arguments: tuple[Any, ...] = (loss,) if isinstance(self.optimizer, LearnedOptimizer) else ()
        self.scaler.step(self.optimizer, *arguments)
        self.scaler.update()
        self._forget_gradients()
        if self.scheduler is not None:
            self.scheduler.step()
        return loss.detach().reshape(1)

    def _forget_gradients(self) -> None:
        """Of the whole model: the optimizer may train only a part of it."""
        for param in self._params:
            param.grad = None

    def evaluate(self, evaluations: Sequence[Sequence[Batch]]) -> list[Evaluation]:
        (evaluation,) = evaluations
        with self.at_point_of_evaluation():
            result = evaluate(self.model, evaluation, device=self.device, autocast=self.autocast)
        self.model.train()
        return [result]

    @contextmanager
    def at_point_of_evaluation(self) -> Iterator[None]:
        """Has the weights that are evaluated in the model: those that are trained, unless a subclass averages."""
        yield


def _is_float16(device: torch.device, autocast: Autocast) -> bool:
    """Whether forward passes run in float16, whose gradients vanish unless the loss is scaled up."""
    with autocast():
        return torch.is_autocast_enabled(device.type) and torch.get_autocast_dtype(device.type) == torch.float16


def inner_optimizer(model: nn.Module, network: L3RSNetwork, num_training_steps: int) -> LearnedOptimizer:
    """
    Returns an L3RS for an inner loop: its loss is one process's own, and it warns of nothing.

    Args:
        model (`nn.Module`): What is fine-tuned; its parameters that require no gradient are left out.
        network ([`L3RSNetwork`]): The meta-weights.
        num_training_steps (`int`): The planned length K of the run.
    """
    return LearnedOptimizer(
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
    Runs the inner loop of one model on one task.

    Args:
        model (`nn.Module`): See [`ModelLearner`].
        task ([`~hf_l3rs.tasks.task.Task`]): What to fine-tune on.
        optimizer (`torch.optim.Optimizer`): Of the model's parameters, in its initial state.
        evaluate_at (`Collection[int]`, *optional*): See [`run`].
        options: `scheduler`, `device`, `autocast` and `max_grad_norm` of [`ModelLearner`].

    Returns:
        [`Trajectory`]
    """
    (trajectory,) = run(ModelLearner(model, optimizer, **options), [task], evaluate_at=evaluate_at)
    return trajectory


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
