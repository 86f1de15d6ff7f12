"""What lets the stock `transformers.Trainer` train with L3RS: `Trainer(model, args, optimizers=(optimizer, None))`."""

from __future__ import annotations

import logging
import math
import weakref
from collections.abc import Callable
from typing import Any

import transformers.trainer
from accelerate.optimizer import AcceleratedOptimizer
from torch.optim.lr_scheduler import LambdaLR
from transformers import SchedulerType, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hf_l3rs.errors import BindingError, UnsupportedSetupError
from hf_l3rs.learned.optimizer import LearnedOptimizer
from hf_l3rs.learned.parameters import refuse_sharding


logger = logging.getLogger(__name__)

# `TrainingArguments.max_grad_norm` for "do not clip"; the Trainer still measures and logs the gradient norm.
NO_CLIPPING = 0.0

# Arguments whose max_grad_norm is replaced, with the user's value. Of the module, not of a callback: a train() that an
# exception or the stop button left calls no event, and the next Trainer of the same arguments must find them restored.
_replaced: list[tuple[weakref.ref[TrainingArguments], float | None]] = []


def register() -> None:
    """
    Adds [`L3RSCallback`] to the callbacks of every `Trainer` that is built from now on, once.

    The class is added, not an instance, so that Trainers share nothing. It leaves other optimizers alone.
    """
    if L3RSCallback not in transformers.trainer.DEFAULT_CALLBACKS:
        transformers.trainer.DEFAULT_CALLBACKS.append(L3RSCallback)  # type: ignore[arg-type]


def unwrap_optimizer(optimizer: Any) -> LearnedOptimizer | None:
    """Returns the [`L3RS`] inside whatever Accelerate wrapped around it, or `None` if it is another optimizer."""
    while isinstance(optimizer, AcceleratedOptimizer):
        optimizer = optimizer.optimizer
    return optimizer if isinstance(optimizer, LearnedOptimizer) else None


def refuse_setup(args: TrainingArguments) -> None:
    """Raises [`~hf_l3rs.errors.UnsupportedSetupError`] if `args` ask for DeepSpeed or FSDP."""
    active = {"DeepSpeed": bool(args.deepspeed or args.deepspeed_plugin), "FSDP": bool(args.fsdp)}
    refuse_sharding(*(engine for engine, is_active in active.items() if is_active))


class L3RSCallback(TrainerCallback):
    """
    Connects an [`L3RS`] to the `Trainer` that trains with it, and does nothing for other optimizers. Every `Trainer`
    that is built after an L3RS has one; pass one by `callbacks` if the L3RS was built with parameters before
    `transformers.Trainer` was imported.

    It binds the optimizer to the model and tells it the number of steps, reads the training loss from the model's
    output, and starts the optimizer over at each `train()` that does not resume. While `train()` runs, the learning
    rate schedule that the Trainer makes is held at 1.0, as L3RS is its own schedule (a scheduler that you pass is
    kept), and `max_grad_norm` is what the L3RS was meta-trained with. Logs get `learning_rate`, the root mean square
    per element of the update, averaged over layers, and `l3rs/step_size_min`, `l3rs/step_size_max` and
    `l3rs/mixture_<direction>`.

    Raises:
        UnsupportedSetupError: Under DeepSpeed, FSDP or `nn.DataParallel`.
        BindingError: If optimizer and model do not go together, or the training loss is not in the model's output.
    """

    def __init__(self) -> None:
        self._has_user_scheduler = False
        self._reads_loss = True
        self._report_inflation: Callable[[], None] = _warn_of_inflation

    def leave_loss_to_trainer(self, report_inflation: Callable[[], None]) -> None:
        """
        Stops reading the loss from the model's output, because the Trainer itself reports it to the optimizer.

        Args:
            report_inflation (`Callable`): Called once if the model ignores `num_items_in_batch`.
        """
        self._reads_loss = False
        self._report_inflation = report_inflation

    def on_init_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        optimizer: Any = None,
        lr_scheduler: Any = None,
        **kwargs: Any,
    ) -> None:
        _restore_max_grad_norm(args)
        self._has_user_scheduler = lr_scheduler is not None
        own = unwrap_optimizer(optimizer)
        if own is not None:
            refuse_setup(args)
            _bind(own, model)

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        optimizer: Any = None,
        lr_scheduler: Any = None,
        **kwargs: Any,
    ) -> None:
        own = unwrap_optimizer(optimizer)
        if own is None:
            return
        refuse_setup(args)
        if self._reads_loss and _needs_loss(own):
            _refuse_hidden_loss(args, model)
        _begin_run(own, model, state)
        self._watch(own, model, args)
        if not self._has_user_scheduler:
            _hold_schedule(lr_scheduler, args, state.max_steps)
        _replace_max_grad_norm(args, own.config.max_grad_norm)

    def on_step_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        optimizer: Any = None,
        **kwargs: Any,
    ) -> None:
        own = unwrap_optimizer(optimizer)
        if own is not None:  # the step before may have been skipped, as after an overflow in float16
            own.loss_observer.clear()

    def on_pre_optimizer_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        optimizer: Any = None,
        **kwargs: Any,
    ) -> None:
        own = unwrap_optimizer(optimizer)
        if own is not None and not len(own.loss_observer) and _needs_loss(own):
            raise BindingError(
                "L3RS saw no training loss in the model's output, as with compute_loss_func or an own compute_loss; "
                "use hf_l3rs.L3RSTrainer in place of Trainer, which sees every loss."
            )

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        optimizer: Any = None,
        **kwargs: Any,
    ) -> None:
        own = unwrap_optimizer(optimizer)
        if own is None or logs is None or "loss" not in logs:
            return
        statistics = own.statistics()
        if not statistics:
            return
        values = {"learning_rate": statistics.pop("step_size")}
        values.update((f"l3rs/{name}", value) for name, value in statistics.items())
        logs.update(values)
        # the Trainer has copied the logs to its history, which trainer_state.json is written from, already
        if state.log_history and state.log_history[-1].get("step") == state.global_step:
            state.log_history[-1].update(values)

    def on_train_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        optimizer: Any = None,
        **kwargs: Any,
    ) -> None:
        _restore_max_grad_norm(args)
        own = unwrap_optimizer(optimizer)
        if own is not None:
            own.loss_observer.unwatch()
            own.loss_observer.clear()

    def _watch(self, optimizer: LearnedOptimizer, model: Any, args: TrainingArguments) -> None:
        """Installs the hooks, in place of any before: train() may begin again without having ended."""
        observer = optimizer.loss_observer
        observer.clear()
        observer.unwatch()
        averages_items = args.average_tokens_across_devices and args.world_size > 1
        if self._reads_loss:
            observer.watch(model, share_scale=float(args.world_size) if averages_items else 1.0)
        if args.gradient_accumulation_steps > 1 or averages_items:
            observer.probe(model, self._report_inflation)


def _refuse_hidden_loss(args: TrainingArguments, model: Any) -> None:
    """Raises where the training loss is not in the output of the model itself."""
    if args.n_gpu > 1:
        raise UnsupportedSetupError(
            "L3RS cannot read the training loss under nn.DataParallel, which the Trainer uses for "
            f"{args.n_gpu} GPUs in one process; launch with `torchrun --nproc_per_node`, show one GPU by "
            "CUDA_VISIBLE_DEVICES=0, or use hf_l3rs.L3RSTrainer."
        )
    # the Trainer itself drops label smoothing for multi-label classification
    problem_type = getattr(getattr(model, "config", None), "problem_type", None)
    if args.label_smoothing_factor and problem_type != "multi_label_classification":
        raise BindingError(
            f"With label_smoothing_factor={args.label_smoothing_factor} the Trainer computes the loss outside of the "
            "model, where L3RS cannot see it; use hf_l3rs.L3RSTrainer in place of Trainer, or set it to 0."
        )


def _needs_loss(optimizer: LearnedOptimizer) -> bool:
    return "loss" in optimizer.config.features


def _bind(optimizer: LearnedOptimizer, model: Any) -> None:
    """Binds the optimizer to what is trainable in the model now, unless the user chose what it trains."""
    own = {id(param) for param in model.parameters()}
    strangers = [
        name
        for group in optimizer.param_groups
        for name, param in zip(group["param_names"], group["params"])
        if id(param) not in own
    ]
    if strangers:
        raise BindingError(
            f"The L3RS was built for parameters that are not of the Trainer's model, such as {strangers[0]!r}; build "
            "the optimizer from this model, or leave it unbound, and the Trainer binds it."
        )
    if optimizer.follows_model or not optimizer.is_bound:
        optimizer.bind(model)


def _begin_run(optimizer: LearnedOptimizer, model: Any, state: TrainerState) -> None:
    """Starts the optimizer over, or checks that it goes on where the run does."""
    if not optimizer.is_bound:  # which also restores what was loaded while the optimizer was unbound
        optimizer.bind(model)
    own_step = max(group["step"] for group in optimizer.param_groups)
    is_restored = 0 < own_step <= state.global_step
    if not is_restored:  # what is trainable may have changed since the Trainer was built
        _bind(optimizer, model)
        optimizer.reset()
    if state.global_step and not is_restored:
        logger.warning(
            "The run resumes at step %d without a state of the optimizer, as save_only_model leaves it out; L3RS goes "
            "on from that step with empty averages, so the run will differ from an uninterrupted one.",
            state.global_step,
        )
    for group in optimizer.param_groups:
        group["num_training_steps"] = state.max_steps
        if not is_restored:
            group["step"] = state.global_step


def _hold_schedule(lr_scheduler: Any, args: TrainingArguments, max_steps: int) -> None:
    """Holds at 1.0 the schedule that the Trainer made because nobody gave one."""
    if not isinstance(lr_scheduler, LambdaLR) or set(lr_scheduler.lr_lambdas) == {_hold}:
        return
    is_default = args.lr_scheduler_type in ("linear", "constant") and not args.get_warmup_steps(max_steps)
    logger.log(
        logging.INFO if is_default else logging.WARNING,
        "L3RS is its own learning rate schedule: lr_scheduler_type='%s' and warmup are not applied; to scale its "
        "steps over time all the same, pass a scheduler, Trainer(optimizers=(optimizer, scheduler)).",
        SchedulerType(args.lr_scheduler_type).value,
    )
    lr_scheduler.lr_lambdas = [_hold for _ in lr_scheduler.lr_lambdas]
    for group, lr in zip(lr_scheduler.optimizer.param_groups, lr_scheduler.base_lrs):
        group["lr"] = lr
    lr_scheduler._last_lr = list(lr_scheduler.base_lrs)


def _hold(step: int) -> float:
    return 1.0


def _replace_max_grad_norm(args: TrainingArguments, trained_with: float | None) -> None:
    """Sets `args.max_grad_norm` to what the L3RS was meta-trained with, until the run ends."""
    value = NO_CLIPPING if trained_with is None else trained_with
    given = args.max_grad_norm
    if given == value or (trained_with is None and (not given or math.isinf(given))):
        return
    _restore_max_grad_norm(args)
    _replaced.append((weakref.ref(args), args.max_grad_norm))
    args.max_grad_norm = value
    logger.log(
        logging.INFO if given == type(args).max_grad_norm else logging.WARNING,
        "This L3RS was meta-trained with max_grad_norm=%s, which train() uses in place of %s; to change it, set "
        "max_grad_norm in the L3RS's config.",
        trained_with,
        given,
    )


def _restore_max_grad_norm(args: TrainingArguments) -> None:
    for entry in list(_replaced):
        owner, value = entry[0](), entry[1]
        if owner is args:
            args.max_grad_norm = value  # type: ignore[assignment]
        if owner is args or owner is None:
            _replaced.remove(entry)


def _warn_of_inflation() -> None:
    logger.warning(
        "The model ignores num_items_in_batch, so the Trainer's loss and gradients are too large by the number of "
        "accumulation steps (and of processes), and L3RS sees them so; set `model.accepts_loss_kwargs = False` before "
        "building the Trainer, or use hf_l3rs.L3RSTrainer, which does."
    )
