"""Run by torchrun in test_ddp.py: trains with different data on each process and writes what each process saw."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import torch
from accelerate import Accelerator
from torch.nn.parallel import DistributedDataParallel
from transformers import Trainer, TrainerCallback

from hf_l3rs import L3RSTrainer
from hf_l3rs.errors import BindingError
from hf_l3rs.optimizer.loss import LossObserver
from hf_l3rs.trainer.callback import unwrap_optimizer
from tests.tiny import RandomImages, Recorder, learned_optimizer, parameters, tiny_resnet, tiny_vit, training_arguments


# What the two processes see at each step.
UNEVEN = [(1.0, 2.0), (None, 2.0), (3.0, None), (math.nan, 2.0), (3.0, math.inf), (None, None), (math.nan, None)]


class Watcher:
    """Records the loss of this process and of all processes at each step."""

    def __init__(self) -> None:
        self.seen: list[float] = []
        take = LossObserver.take

        def spy(observer: LossObserver, device: torch.device) -> torch.Tensor | None:
            loss = take(observer, device)
            self.seen.append(None if loss is None else float(loss))
            return loss

        LossObserver.take = spy

    def pop(self) -> list[float]:
        seen, self.seen = self.seen, []
        return seen


def accelerate_loop(watcher: Watcher) -> dict:
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    model = tiny_resnet()
    optimizer = learned_optimizer(model).bind(model, num_training_steps=3)
    loader = torch.utils.data.DataLoader(RandomImages(48), batch_size=4)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    local = []
    for batch in loader:
        with accelerator.accumulate(model):
            loss = model(**batch).loss
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
        local.append(float(loss.detach()))
    return {
        "is_ddp": isinstance(model, DistributedDataParallel),
        "world": accelerator.num_processes,
        "local": local,
        "seen": watcher.pop(),
        "parameters": parameters(accelerator.unwrap_model(model)),
        "state": optimizer.state_dict(),
    }


def uneven_loop(watcher: Watcher) -> dict:
    """Reports what is in `UNEVEN`, where a process may have no loss, or one that is no number."""
    rank = torch.distributed.get_rank()
    model = tiny_resnet()
    ddp = DistributedDataParallel(model)
    optimizer = learned_optimizer(model).bind(model, num_training_steps=len(UNEVEN))
    optimizer.loss_observer.unwatch()
    images = RandomImages(8)
    batch = {name: torch.stack([images[4 * rank + index][name] for index in range(4)]) for name in images[0]}
    for losses in UNEVEN:
        ddp(**batch).loss.backward()
        if losses[rank] is not None:
            optimizer.observe_loss(losses[rank])
        optimizer.step()
        optimizer.zero_grad()
    return {"seen": watcher.pop(), "parameters": parameters(model), "state": optimizer.state_dict()}


class Deaf(TrainerCallback):
    """Keeps the optimizer from seeing the loss on some processes, until the first step is taken."""

    def __init__(self, *ranks: int) -> None:
        self.ranks = ranks

    def on_step_begin(self, args, state, control, optimizer=None, **kwargs) -> None:
        if torch.distributed.get_rank() in self.ranks and state.global_step == 0:
            self.observer = unwrap_optimizer(optimizer).loss_observer
            self.observer.add = lambda *args, **kwargs: None

    def on_optimizer_step(self, args, state, control, **kwargs) -> None:
        if torch.distributed.get_rank() in self.ranks and state.global_step == 0:
            del self.observer.add


def deaf_run(watcher: Watcher, folder: Path, *ranks: int) -> dict:
    """The stock Trainer where these processes see no loss at the first step."""
    try:
        return {"error": None, **trainer_run(watcher, folder, Trainer, tiny_vit, callbacks=[Deaf(*ranks)])}
    except BindingError as error:
        return {"error": str(error), "seen": watcher.pop()}


def trainer_run(watcher: Watcher, folder: Path, cls: type[Trainer], make, callbacks=(), **args) -> dict:
    model = make()
    if cls is Trainer and make is tiny_resnet:
        model.accepts_loss_kwargs = False
    optimizer = learned_optimizer(model)
    chosen = {"l3rs": optimizer} if cls is L3RSTrainer else {"optimizers": (optimizer, None)}
    recorder = Recorder()
    trainer = cls(
        model=model,
        args=training_arguments(folder, max_steps=3, **args),
        train_dataset=RandomImages(64),
        callbacks=[recorder, *callbacks],
        **chosen,
    )
    trainer.train()
    return {
        "is_ddp": isinstance(trainer.model_wrapped, DistributedDataParallel),
        "logged": recorder.losses,
        "seen": watcher.pop(),
        "parameters": parameters(model),
        "state": trainer.optimizer.state_dict(),
    }


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    watcher = Watcher()
    two = {"gradient_accumulation_steps": 2}
    results = {
        "loop": accelerate_loop(watcher),
        "stock_resnet": trainer_run(watcher, folder, Trainer, tiny_resnet, **two),
        "stock_vit": trainer_run(watcher, folder, Trainer, tiny_vit, **two),
        "stock_vit_local": trainer_run(watcher, folder, Trainer, tiny_vit, average_tokens_across_devices=False),
        "exact_resnet": trainer_run(watcher, folder, L3RSTrainer, tiny_resnet, **two),
        "exact_vit": trainer_run(watcher, folder, L3RSTrainer, tiny_vit, label_smoothing_factor=0.1, **two),
        "uneven": uneven_loop(watcher),
        "deaf_one": deaf_run(watcher, folder, 1),
        "deaf_all": deaf_run(watcher, folder, 0, 1),
    }
    torch.save(results, folder / f"rank{torch.distributed.get_rank()}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
