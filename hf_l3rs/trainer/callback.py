"""What lets the stock `transformers.Trainer` train with L3RS: `Trainer(model, args, optimizers=(optimizer, None))`."""

from __future__ import annotations

import logging
import math
import weakref
from collections.abc import Callable
from typing import Any

import torch
import transformers.trainer
from accelerate.optimizer import AcceleratedOptimizer
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau
from transformers import PreTrainedModel, SchedulerType, Trainer, TrainerCallback, TrainerState, TrainingArguments
from transformers.optimization import GreedyLR

from hf_l3rs.errors import BindingError, UnsupportedSetupError
from hf_l3rs.optimizer.optimizer import L3RS
from hf_l3rs.optimizer.parameters import all_named, refuse_sharding, refuse_sparse_modules


logger = logging.getLogger(__name__)

# Optimizers that a Trainer has bound, which another may bind anew; one that a user has bound elsewhere is a mistake.
_bound_by_trainer: weakref.WeakSet[L3RS] = weakref.WeakSet()


def unwrap_optimizer(optimizer: Any) -> L3RS | None:
    """Returns the [`L3RS`] that Accelerate may have wrapped, or `None` if it is another optimizer."""
    while isinstance(optimizer, AcceleratedOptimizer):
        optimizer = optimizer.optimizer
    return optimizer if isinstance(optimizer, L3RS) else None


def register() -> None:
    """Adds [`L3RSCallback`], once, to the callbacks of every `Trainer` to come."""
    if L3RSCallback not in transformers.trainer.DEFAULT_CALLBACKS:
        transformers.trainer.DEFAULT_CALLBACKS.append(L3RSCallback)  # type: ignore[arg-type]


class L3RSCallback(TrainerCallback):
    """
    Connects an [`L3RS`] to the `Trainer` that trains with it, and does nothing for other optimizers. Every `Trainer`
    that is built after an L3RS has one; pass one by `callbacks` if the L3RS was built with parameters before
    `transformers.Trainer` was imported.

    It binds the optimizer to the model, tells it the number of steps, reads the training loss from the model's output,
    and starts the optimizer over at each `train()` that does not resume. The schedule that a Trainer makes is held at
    1.0 (a scheduler that you pass is kept), and gradients are clipped as in meta-training. Logs get `learning_rate`,
    the update's RMS per element averaged over layers, and the rest of [`L3RS.statistics`] as `l3rs/<name>`.

    Raises:
        UnsupportedSetupError: Under DeepSpeed, FSDP or `nn.DataParallel`, for embeddings with sparse gradients, and
            for `load_best_model_at_end` with a model whose checkpoints the Trainer cannot load back.
        BindingError: If optimizer and model do not go together, or the training loss is not in the model's output.
    """

    def __init__(self) -> None:
        self._has_user_scheduler = False
        self.reads_loss = True  # from the model's output; if not, the Trainer itself reports it to the optimizer
        self.report_inflation: Callable[[], None] = _warn_of_inflation
        self._first_step: int | None = None

    def on_init_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._has_user_scheduler = kwargs.get("lr_scheduler") is not None
        own = unwrap_optimizer(kwargs.get("optimizer"))
        if own is not None:
            refuse_engines(args)
            _bind(own, kwargs["model"])

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        own, model, lr_scheduler = unwrap_optimizer(kwargs["optimizer"]), kwargs["model"], kwargs["lr_scheduler"]
        # a Trainer may have two callbacks, the default one and the user's; the state is new at each train()
        is_first = vars(state).setdefault("_l3rs_callback", self) is self
        if own is None or not is_first:
            return
        refuse_engines(args)
        _refuse_renamed_weights(args, model)
        if self.reads_loss and "loss" in own.config.features:
            _refuse_hidden_loss(args, model)
        _begin_run(own, model, state)
        self._first_step = state.global_step
        self._watch(own, model, args)
        # the Trainer makes its scheduler for the prepared optimizer, which wraps the one that a user has
        if not self._has_user_scheduler and getattr(lr_scheduler, "optimizer", None) is not own:
            hold_schedule(lr_scheduler, args, state.max_steps)
        _tell_clipping(args, own.config.max_grad_norm)

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        own = unwrap_optimizer(kwargs["optimizer"])
        if own is not None:  # the step before may have been skipped, as after an overflow in float16
            own.loss_observer.clear()
            _clipping.take_over()

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        own = unwrap_optimizer(kwargs["optimizer"])
        if own is None:
            return
        _clipping.give_back()
        # once, as processes ask each other; a loss that is missing later counts as neutral
        needs_loss = "loss" in own.config.features and state.global_step == self._first_step
        if needs_loss and own.loss_observer.is_blind(args.device):
            raise BindingError(
                "L3RS saw no training loss in the model's output, as with compute_loss_func or an own compute_loss; "
                "use hf_l3rs.L3RSTrainer in place of Trainer, which sees every loss."
            )

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        own, logs = unwrap_optimizer(kwargs["optimizer"]), kwargs["logs"]
        if own is None or logs is None or "loss" not in logs:
            return
        values = {f"l3rs/{name}": value for name, value in own.statistics().items()}
        if not values:
            return
        values["learning_rate"] = values.pop("l3rs/step_size")
        logs.update(values)
        # the Trainer has copied the logs to its history, which trainer_state.json is written from, already
        if state.log_history and state.log_history[-1].get("step") == state.global_step:
            state.log_history[-1].update(values)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        own = unwrap_optimizer(kwargs["optimizer"])
        if own is not None:
            own.loss_observer.unwatch()
            own.loss_observer.clear()

    def _watch(self, optimizer: L3RS, model: Any, args: TrainingArguments) -> None:
        """Installs the hooks, in place of any before: train() may begin again without having ended."""
        observer = optimizer.loss_observer
        observer.clear()
        observer.unwatch()
        averages_items = args.average_tokens_across_devices and args.world_size > 1
        if self.reads_loss:
            observer.watch(model, share_scale=float(args.world_size) if averages_items else 1.0)
        if args.gradient_accumulation_steps > 1 or averages_items:
            observer.probe(model, self.report_inflation)


def _bind(optimizer: L3RS, model: Any) -> None:
    """Binds the optimizer to what is trainable in the model now, unless the user chose what it trains."""
    refuse_sparse_modules(model)
    own = set(model.parameters())
    knows_model = any(param in own for _, param in all_named(optimizer.param_groups))
    if not optimizer.is_bound or (optimizer.follows_model and (knows_model or optimizer in _bound_by_trainer)):
        optimizer.bind(model)
        _bound_by_trainer.add(optimizer)
    strangers = [name for name, param in all_named(optimizer.param_groups) if param not in own]
    if strangers:
        raise BindingError(
            f"The L3RS was built for parameters that are not of the Trainer's model, such as {strangers[0]!r}; build "
            "the optimizer from this model, or leave it unbound, and the Trainer binds it."
        )


def _begin_run(optimizer: L3RS, model: Any, state: TrainerState) -> None:
    """Starts the optimizer over, or lets it go on where the run does."""
    if not optimizer.is_bound:  # which also restores what was loaded while the optimizer was unbound
        _bind(optimizer, model)
    own_step = max(group["step"] for group in optimizer.param_groups)
    is_restored = optimizer.was_restored and 0 < own_step <= state.global_step
    if not is_restored:  # what is trainable may have changed since the Trainer was built
        _bind(optimizer, model)
        optimizer.reset()
    if state.global_step and not is_restored:
        logger.warning(
            "The run resumes at step %d without a state of the optimizer, as with save_only_model; L3RS goes on with "
            "empty averages, so the run will differ from an uninterrupted one.",
            state.global_step,
        )
    for group in optimizer.param_groups:
        group["num_training_steps"] = state.max_steps
        if not is_restored:
            group["step"] = state.global_step


def _warn_of_inflation() -> None:
    logger.warning(
        "The model ignores num_items_in_batch, so the Trainer's loss and gradients are too large by the number of "
        "accumulation steps (and of processes), and L3RS sees them so; set `model.accepts_loss_kwargs = False` before "
        "building the Trainer, or use hf_l3rs.L3RSTrainer, which does."
    )


def hold_schedule(lr_scheduler: Any, args: TrainingArguments, max_steps: int) -> None:
    """Holds every group's `lr` where it was before a schedule of the Trainer's; a schedule of another kind stays."""
    if isinstance(lr_scheduler, LambdaLR):
        lr_scheduler.lr_lambdas = [lambda step: 1.0] * len(lr_scheduler.lr_lambdas)
        lr_scheduler._last_lr = list(lr_scheduler.base_lrs)
        for group, lr in zip(lr_scheduler.optimizer.param_groups, lr_scheduler.base_lrs):
            group["lr"] = lr
    elif isinstance(lr_scheduler, (ReduceLROnPlateau, GreedyLR)):  # these have not moved yet
        lr_scheduler.min_lrs = [group["lr"] for group in lr_scheduler.optimizer.param_groups]
        if isinstance(lr_scheduler, GreedyLR):
            lr_scheduler.max_lrs = list(lr_scheduler.min_lrs)
    else:
        return
    is_default = args.lr_scheduler_type in ("linear", "constant") and not args.get_warmup_steps(max_steps)
    logger.log(
        logging.INFO if is_default else logging.WARNING,
        "L3RS is its own learning rate schedule: lr_scheduler_type='%s' and warmup are not applied; to scale its "
        "steps over time all the same, pass a scheduler, Trainer(optimizers=(optimizer, scheduler)).",
        SchedulerType(args.lr_scheduler_type).value,
    )


def refuse_engines(args: TrainingArguments) -> None:
    refuse_sharding(deepspeed=bool(args.deepspeed or args.deepspeed_plugin), fsdp=bool(args.fsdp))


def _refuse_hidden_loss(args: TrainingArguments, model: Any) -> None:
    if args.n_gpu > 1:
        raise UnsupportedSetupError(
            f"L3RS cannot read the training loss under nn.DataParallel, which the Trainer uses for {args.n_gpu} GPUs; "
            "launch with `torchrun --nproc_per_node`, show one GPU, or use hf_l3rs.L3RSTrainer."
        )
    # the Trainer itself drops label smoothing for multi-label classification
    problem_type = getattr(getattr(model, "config", None), "problem_type", None)
    if args.label_smoothing_factor and problem_type != "multi_label_classification":
        raise BindingError(
            f"With label_smoothing_factor={args.label_smoothing_factor} the Trainer computes the loss outside of the "
            "model, where L3RS cannot see it; use hf_l3rs.L3RSTrainer in place of Trainer, or set it to 0."
        )


def _refuse_renamed_weights(args: TrainingArguments, model: Any) -> None:
    """Raises where the Trainer would load back a part of the best checkpoint: models that are saved by older names."""
    if not args.load_best_model_at_end or not isinstance(model, PreTrainedModel):
        return
    try:
        from transformers.core_model_loading import revert_weight_conversion
    except ImportError:  # releases that save the names that the model has
        return
    own = {name: tensor for name, tensor in model.state_dict().items() if isinstance(tensor, torch.Tensor)}
    saved = revert_weight_conversion(model, {name: tensor.to("meta") for name, tensor in own.items()})
    renamed = own.keys() - saved.keys()
    if renamed:
        raise UnsupportedSetupError(
            f"load_best_model_at_end would mix two checkpoints: {len(renamed)} of the model's {len(own)} weights have "
            "other names in its checkpoints, and the Trainer does not load those back; set it to False with "
            f'metric_for_best_model="loss", and load {type(model).__name__}.from_pretrained('
            "trainer.state.best_model_checkpoint) after training."
        )


class _Clipping:
    """
    Has the `Trainer` clip the gradients of an L3RS as in its meta-training, and those of others as before. No callback
    can do that, so two methods of the class are replaced, from the beginning of a step to its clipping.
    """

    def __init__(self) -> None:
        self._own: tuple[Any, Any] | None = None  # the Trainer's

    def take_over(self) -> None:
        if self._own is not None:
            return
        self._own = clip, measure = Trainer._clip_grad_norm, Trainer._get_grad_norm

        def clip_grad_norm(trainer: Trainer, model: nn.Module) -> Any:
            own = unwrap_optimizer(trainer.optimizer)
            return clip(trainer, model) if own is None else _clip(trainer, model, own.config.max_grad_norm)

        def get_grad_norm(trainer: Trainer, model: nn.Module, grad_norm: Any = None) -> Any:
            own = unwrap_optimizer(trainer.optimizer)
            if own is not None and grad_norm is None:  # the user's max_grad_norm is 0, so nothing was clipped yet
                grad_norm = _clip(trainer, model, own.config.max_grad_norm)
            return measure(trainer, model, grad_norm=grad_norm)

        Trainer._clip_grad_norm, Trainer._get_grad_norm = clip_grad_norm, get_grad_norm  # type: ignore[method-assign]

    def give_back(self) -> None:
        if self._own is not None:
            Trainer._clip_grad_norm, Trainer._get_grad_norm = self._own  # type: ignore[method-assign]
            self._own = None


_clipping = _Clipping()


def _clip(trainer: Trainer, model: nn.Module, max_norm: float | None) -> torch.Tensor:
    """Returns the norm of all gradients, which are clipped to `max_norm`; `None` leaves them alone."""
    if max_norm is not None:
        return trainer.accelerator.clip_grad_norm_(model.parameters(), max_norm)
    trainer.accelerator.unscale_gradients()
    # clipping to infinity would make every gradient NaN where one is not finite
    return nn.utils.get_total_norm([param.grad for param in model.parameters() if param.grad is not None])


def _tell_clipping(args: TrainingArguments, trained_with: float | None) -> None:
    given = args.max_grad_norm
    if given == trained_with or (trained_with is None and (not given or math.isinf(given))):
        return
    logger.log(
        logging.INFO if given == type(args).max_grad_norm else logging.WARNING,
        "L3RS was meta-trained with max_grad_norm=%s, which train() uses, not %s; edit its config to change it.",
        trained_with,
        given,
    )
