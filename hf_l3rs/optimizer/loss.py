"""How the training loss reaches the optimizer: reported, or read from the model's output by a forward hook."""

from __future__ import annotations

import contextlib
import functools
import weakref
from collections.abc import Callable
from typing import Any, SupportsFloat

import torch
from torch import nn

from hf_l3rs.errors import ConfigError


class LossObserver:
    """Collects the losses of one step's micro-batches; with `synchronize` they are averaged over processes."""

    def __init__(self, synchronize: bool = True) -> None:
        self.synchronize = synchronize
        self._losses: list[torch.Tensor] = []
        self._is_sum = False
        self._hook: Any = None
        self._probe: Any = None

    def __len__(self) -> int:
        return len(self._losses)

    def add(self, loss: torch.Tensor | float, is_share: bool = False) -> None:
        """Adds the loss of one micro-batch: a mean, or with `is_share` a share of the step's loss, to be summed."""
        self._losses.append(_scalar(loss))
        self._is_sum = is_share

    def clear(self) -> None:
        """Forgets the losses of a step that did not happen."""
        self._losses.clear()

    def take(self, device: torch.device) -> torch.Tensor | None:
        """
        Returns the step's loss and forgets it, without waiting for the device: that of the micro-batches and processes
        whose loss is a number, NaN if there is none; `None` if a process that is alone saw no loss.
        """
        losses = [loss.to(device, non_blocking=True) for loss in self._losses]
        self._losses.clear()
        if self._is_collective():
            return _mean_over_processes(self._combine(losses) if losses else torch.full((), torch.nan, device=device))
        return self._combine(losses) if losses else None

    def is_blind(self, device: torch.device) -> bool:
        """Whether no process saw a loss for the coming step; all must ask."""
        if not self._is_collective():
            return not self._losses
        count = torch.full((), float(len(self._losses)), device=device)
        torch.distributed.all_reduce(count)
        return not count.item()

    def _is_collective(self) -> bool:
        distributed = torch.distributed
        is_initialized = distributed.is_available() and distributed.is_initialized()
        return self.synchronize and is_initialized and distributed.get_world_size() > 1

    def _combine(self, losses: list[torch.Tensor]) -> torch.Tensor:
        """The mean of the losses that are numbers, or the sum, in which they stand for the others too."""
        if len(losses) == 1:
            return losses[0] + 0 * losses[0]  # infinity times 0 is NaN
        stacked = torch.stack(losses)
        is_number = stacked.isfinite()
        total, count = stacked.where(is_number, 0.0).sum(), is_number.sum()
        return total * (len(losses) / count) if self._is_sum else total / count  # without a number 0 / 0, which is NaN

    def watch(self, model: nn.Module, share_scale: float = 1.0) -> None:
        """Reads the loss from the model's outputs in training; `share_scale` multiplies shares of a step's loss."""
        self.unwatch()
        hook = _Hook(self, functools.partial(_read_loss, share_scale))
        self._hook = model.register_forward_hook(hook, with_kwargs=True)

    def probe(self, model: nn.Module, report: Callable[[], None]) -> None:
        """Calls `report` if a classifier that is told `num_items_in_batch`, looked at once, returns a plain mean."""
        if self._probe is not None:
            self._probe.remove()
        self._probe = model.register_forward_hook(_Hook(self, functools.partial(_look_once, report)), with_kwargs=True)

    def unwatch(self) -> None:
        for handle in (self._hook, self._probe):
            if handle is not None:
                handle.remove()
        self._hook = self._probe = None


class _Hook:
    """
    A forward hook that holds the observer weakly, and copies or pickles as one without: a copied model feeds nobody.
    Compiled code does not contain it: that would be compiled anew for every number of losses that are held already.
    """

    def __init__(self, observer: LossObserver | None = None, read: Callable[..., None] | None = None) -> None:
        self._observer = None if observer is None else weakref.ref(observer)
        self._read = read
        self._outside: Callable[..., None] = torch.compiler.disable(_Hook._call)

    def __reduce__(self) -> tuple[Any, ...]:
        return _Hook, ()

    def __call__(self, module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        self._outside(self, module, kwargs, output)

    def _call(self, module: nn.Module, kwargs: dict[str, Any], output: Any) -> None:
        observer = None if self._observer is None else self._observer()
        if observer is not None and self._read is not None and module.training:
            self._read(observer, kwargs, output)


def _read_loss(share_scale: float, observer: LossObserver, kwargs: dict[str, Any], output: Any) -> None:
    loss = output.get("loss") if isinstance(output, dict) else output[0] if isinstance(output, tuple) else None
    if not torch.is_grad_enabled() or not isinstance(loss, torch.Tensor) or loss.numel() != 1:
        return
    is_share = kwargs.get("num_items_in_batch") is not None
    observer.add(loss.detach() * share_scale if is_share else loss, is_share=is_share)


def _look_once(report: Callable[[], None], observer: LossObserver, kwargs: dict[str, Any], output: Any) -> None:
    if kwargs.get("num_items_in_batch") is not None:
        observer._probe.remove()
        if _ignores_num_items(kwargs, output):
            report()


def _ignores_num_items(kwargs: dict[str, Any], output: Any) -> bool:
    """Whether a classifier's loss is the mean over its batch although the step, by `num_items_in_batch`, has more."""
    outputs = output if isinstance(output, dict) else {}
    labels, loss, logits = kwargs.get("labels"), outputs.get("loss"), outputs.get("logits")
    if not (isinstance(labels, torch.Tensor) and isinstance(loss, torch.Tensor) and isinstance(logits, torch.Tensor)):
        return False
    is_classifier = logits.dim() == 2 and labels.shape == logits.shape[:1] and not labels.is_floating_point()
    if not is_classifier or float(kwargs["num_items_in_batch"]) <= len(labels):
        return False
    mean = nn.functional.cross_entropy(logits.detach().float(), labels)
    return bool(torch.isclose(loss.detach().float(), mean, rtol=1e-2))


def _mean_over_processes(loss: torch.Tensor) -> torch.Tensor:
    """Averages over the processes whose loss is a number."""
    is_number = loss.isfinite()
    sums = torch.stack((loss.where(is_number, 0.0), is_number.to(loss.dtype)))
    torch.distributed.all_reduce(sums)
    total, count = sums
    return total / count


def _scalar(loss: Any) -> torch.Tensor:
    """Brings whatever is one real number to a float32 tensor of shape `()`, where it is, without its graph."""
    is_tensor = isinstance(loss, torch.Tensor)
    if is_tensor and loss.numel() == 1 and not loss.is_complex():
        return loss.detach().reshape(()).float()
    if not is_tensor and isinstance(loss, SupportsFloat) and not isinstance(loss, bool):
        with contextlib.suppress(TypeError, OverflowError):  # an array of several numbers, a number beyond all floats
            return torch.tensor(float(loss))
    got = (
        f"a tensor of shape {tuple(loss.shape)} and type {loss.dtype}" if is_tensor else f"type {type(loss).__name__}"
    )
    raise ConfigError(
        f"The training loss must be one real number, as a float or a tensor with one element, got {got}; give the "
        "mean loss of the batch."
    )
