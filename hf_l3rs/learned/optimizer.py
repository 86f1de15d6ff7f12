"""The learned optimizer as a `torch.optim.Optimizer`: parameters, groups, state and checkpoints."""

from __future__ import annotations

import copy
import logging
import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from hf_l3rs.errors import BindingError
from hf_l3rs.learned.config import L3RSConfig
from hf_l3rs.learned.directions import DIRECTIONS
from hf_l3rs.learned.features import Features, ema_inputs, log_measures, stack_features
from hf_l3rs.learned.layers import (
    canonical_name,
    describe_layers,
    match_layers,
    named_trainable_parameters,
)
from hf_l3rs.learned.loss_observer import LossObserver
from hf_l3rs.learned.network import L3RSNetwork
from hf_l3rs.learned.parameters import (
    all_named,
    check_fingerprint,
    check_lr,
    check_names,
    check_num_training_steps,
    check_shapes,
    named_groups,
    planned_steps,
)
from hf_l3rs.learned.refusals import refuse_sharding
from hf_l3rs.learned.step import TINY, LayerBank


logger = logging.getLogger(__name__)

NamedParameters = Iterable[tuple[str, torch.Tensor]]


class LearnedOptimizer(torch.optim.Optimizer):
    """
    Learned Layer-wise Learning Rate Scheduler: mixes the directions of base optimizers, layer by layer, as a small
    network decides that was meta-trained for one pretrained model (paper, eq. 1 and fig. 2).

    A step changes layer l by −lr λ(l) Σ_p μ(l)_p d_p(l)/‖d_p(l)‖.

    Args:
        params (`nn.Module`, or an iterable of named parameters or of groups of them, *optional*):
            What to train. Without it the optimizer waits for [`~L3RS.bind`], which `transformers.Trainer` needs no
            help for.
        config ([`L3RSConfig`], *optional*): Makes an untrained L3RS of this configuration.
        network ([`L3RSNetwork`], *optional*): The meta-weights, in place of `config`. With neither, an untrained
            L3RS is made for the layers of `params`.
        lr (`float`, *optional*, defaults to `1.0`):
            Multiplier on the learned step, without unit: 1.0 is as meta-trained, 0.0 changes nothing.
        num_training_steps (`int`, *optional*): Planned length K of the run in optimizer steps; the Trainer tells it.
        synchronize_loss (`bool`, *optional*, defaults to `True`):
            Whether the training loss is averaged over processes where `torch.distributed` is initialised.

    Raises:
        ConfigError: If a value is out of its range.
        BindingError: If the parameters have no names.

    Example:

    ```python
    optimizer = LearnedOptimizer(network=network).bind(model, num_training_steps=100)
    for batch in batches:
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()  # models that return no loss: optimizer.step(loss)
        optimizer.zero_grad()
    ```
    """

    def __init__(
        self,
        params: nn.Module | NamedParameters | Iterable[dict[str, Any]] | None = None,
        config: L3RSConfig | None = None,
        *,
        network: L3RSNetwork | None = None,
        lr: float = 1.0,
        num_training_steps: int | None = None,
        synchronize_loss: bool = True,
    ) -> None:
        check_lr(lr)
        check_num_training_steps(num_training_steps)
        model = params if isinstance(params, nn.Module) else None
        groups = named_groups(params)
        if network is None:
            layers = tuple(describe_layers(all_named(groups)))
            network = L3RSNetwork(config if config is not None else L3RSConfig(layers=layers))
        self.network = network
        self.loss_observer = LossObserver(synchronize_loss)
        self._init_transient()
        defaults = {
            "lr": lr,
            "step": 0,
            "num_training_steps": num_training_steps,
            "fingerprint": network.fingerprint(),
        }
        super().__init__(groups or [{"params": [], "param_names": []}], defaults)
        if groups:
            self._match_layers(model)
        if model is not None:
            self._follow(model)

    def _init_transient(self) -> None:
        """Everything that is derived from `param_groups`, `state` and the network, or belongs to one process."""
        self._embedding_weights: dict[str, torch.Tensor] = {}
        self._banks: dict[int, LayerBank] = {}
        self._model: weakref.ref[nn.Module] | None = None
        self._waiting_state: dict[str, Any] | None = None
        self._last_updates: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._warned_no_loss = False
        self.was_restored = False  # whether the state is a loaded one, with which no step was taken yet

    @property
    def config(self) -> L3RSConfig:
        """The configuration of the meta-weights."""
        return self.network.config

    @property
    def is_bound(self) -> bool:
        """Whether the optimizer has parameters to train."""
        return any(group["params"] for group in self.param_groups)

    @property
    def follows_model(self) -> bool:
        """Whether what is trained is what is trainable in the model given to `bind`, not a choice of the caller's."""
        return self._model is not None

    def bind(self, model: nn.Module | NamedParameters, num_training_steps: int | None = None) -> LearnedOptimizer:
        """
        Gives the optimizer the parameters to train, and starts to read the loss from the model's output.

        Binding again to the same parameters keeps the state; to others, such as after unfreezing layers, drops it.

        Args:
            model (`nn.Module` or an iterable of `(name, parameter)`): Frozen parameters are left out.
            num_training_steps (`int`, *optional*): Planned length K of the run in optimizer steps.

        Returns:
            [`LearnedOptimizer`]: The optimizer itself.

        Raises:
            BindingError: If there is nothing to train or parameters have no names.
            UnsupportedSetupError: Under DeepSpeed or FSDP.
        """
        check_num_training_steps(num_training_steps)
        module = model if isinstance(model, nn.Module) else None
        refuse_sharding()
        ((names, params),) = [(group["param_names"], group["params"]) for group in named_groups(model)]
        if not params:
            raise BindingError("Every parameter of the model is frozen, so there is nothing to train; unfreeze some.")
        check_names(names)
        current = [param for group in self.param_groups for param in group["params"]]
        if len(current) != len(params) or any(old is not new for old, new in zip(current, params)):
            if len(self.param_groups) != 1:
                raise BindingError("An optimizer with several parameter groups cannot be bound anew; build another.")
            self.state.clear()
            self.was_restored = False
            self._banks.clear()
            self.param_groups[0].update(params=params, param_names=names)
            self._match_layers(module)
        if num_training_steps is not None:
            for group in self.param_groups:
                group["num_training_steps"] = num_training_steps
        if module is not None:
            self._follow(module)
        if self._waiting_state is not None:
            state_dict, self._waiting_state = self._waiting_state, None
            self.load_state_dict(state_dict)
        return self

    def reset(self) -> None:
        """Forgets everything about the run: the next step is a first step. Parameters and plan stay."""
        self.state.clear()
        self._banks.clear()
        self.loss_observer.clear()
        self.was_restored = False
        for group in self.param_groups:
            group["step"] = 0

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """
        Adds a group, which joins the run where it stands.

        Args:
            param_group (`dict`): `{"params": [(name, parameter), ...]}`, with names as in `model.named_parameters()`.

        Raises:
            BindingError: If parameters have no names, or two have the same.
            ConfigError: If the group's `lr` or `num_training_steps` is out of its range.
        """
        if "param_names" in param_group:
            param_group = {**param_group, "params": list(zip(param_group["param_names"], param_group["params"]))}
        (param_group,) = named_groups([param_group])
        if self.param_groups:
            run = self.param_groups[0]
            param_group = {"step": run["step"], "num_training_steps": run["num_training_steps"], **param_group}
        check_lr(param_group.get("lr", self.defaults["lr"]))
        check_num_training_steps(param_group.get("num_training_steps"))
        names, params = param_group["param_names"], param_group["params"]
        check_names([*(name for name, _ in all_named(self.param_groups)), *names])
        super().add_param_group({**param_group, "params": list(zip(names, params))})
        self.param_groups[-1]["param_names"] = names
        self._embedding_weights = {}

    def _follow(self, model: nn.Module) -> None:
        self._model = weakref.ref(model)
        self.loss_observer.watch(model)

    def _match_layers(self, model: nn.Module | None) -> None:
        """Finds the embedding of every layer; frozen parameters of `model` help to tell the roles of the others."""
        layers = describe_layers(model.named_parameters() if model is not None else all_named(self.param_groups))
        trained = {name for name, _ in all_named(self.param_groups)}
        layers = tuple(layer for layer in layers if layer.name in trained)
        weights, unmatched = match_layers(layers, self.config.layers)
        self._embedding_weights = {layer.name: row for layer, row in zip(layers, weights)}
        if unmatched:
            logger.warning(
                "%d of %d layers are unknown to this L3RS and take the mean embedding of their role: %s.",
                len(unmatched),
                len(layers),
                ", ".join(unmatched),
            )

    def observe_loss(self, loss: torch.Tensor | float, is_share: bool = False) -> None:
        """
        Reports the training loss of one micro-batch of the coming step, where no model's output tells it.

        Args:
            loss (`torch.Tensor` or `float`): A scalar.
            is_share (`bool`, *optional*, defaults to `False`):
                Whether it is a share of the whole step's loss, to be summed, rather than a mean, to be averaged.
        """
        self.loss_observer.add(loss, is_share)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | torch.Tensor | float | None = None) -> Any:
        """
        Takes one step. Gradients are only read; parameters without a gradient are left alone.

        Args:
            closure (`Callable`, `torch.Tensor` or `float`, *optional*):
                A function that computes the gradients and returns the loss, or the loss itself. Without it, the loss
                is the one that was observed since the last step.

        Returns:
            The closure's loss, or `closure` if that is the loss.

        Raises:
            BindingError: If the optimizer is not bound, or the planned number of steps is unknown.
        """
        if not self.is_bound:
            raise BindingError(
                "L3RS has no parameters yet; call optimizer.bind(model, num_training_steps=...) before the first step."
            )
        plans = [planned_steps(group) for group in self.param_groups]
        result: Any = closure
        if callable(closure):
            with torch.enable_grad():
                result = closure()
        if result is not None:
            self.loss_observer.clear()
            self.loss_observer.add(result)
        loss = self.loss_observer.take(next(p for group in self.param_groups for p in group["params"]).device)
        self._warn_without_loss(loss)
        self._last_updates = []
        self.was_restored = False
        for index, (group, planned) in enumerate(zip(self.param_groups, plans)):
            group["step"] += 1
            params = [param for param in group["params"] if param.grad is not None]
            if params:
                self._update(group, planned, self._bank(index, group, params), loss)
        return result

    def _bank(self, index: int, group: dict[str, Any], params: list[torch.Tensor]) -> LayerBank:
        bank = self._banks.get(index)
        if bank is None or not bank.holds(params):
            if not self._embedding_weights:
                self._match_layers(self._model() if self._model is not None else None)
            rows = {id(p): self._embedding_weights[name] for name, p in zip(group["param_names"], group["params"])}
            weights = torch.stack([rows[id(param)] for param in params])
            bank = self._banks[index] = LayerBank(params, weights, self.network, self.state)
        return bank

    def _update(self, group: dict[str, Any], planned: int, bank: LayerBank, loss: torch.Tensor | None) -> None:
        """Eq. 1 for all layers of a bank at once."""
        config = self.config
        grads, targets = bank.grads(), bank.targets()
        bank.steps.add_(1)
        steps = bank.steps.double()
        directions = [DIRECTIONS[name].update(config, grads, bank.buffers, steps) for name in config.directions]
        grad_norms = bank.norms(grads)
        norms = [grad_norms if direction is grads else bank.norms(direction) for direction in directions]
        all_norms = torch.stack((grad_norms, bank.norms(targets), *norms), dim=1)
        measures = log_measures(loss, all_norms, bank.sqrt_numel)
        bank.update_ema(ema_inputs(measures))
        raw = Features(group["step"], bank.time_coefficients(planned), bank.ema, measures)
        mixture, scale = bank.network(stack_features(config, raw), bank.embeddings)
        update_norms = group["lr"] * scale * bank.reference_norm
        self._last_updates.append((mixture, update_norms / bank.sqrt_numel))
        weights = mixture / all_norms[:, 2:].clamp_min(TINY)
        if config.normalize_mixture:
            directions, weights = bank.unit_mixture(directions, weights)
        coefficients = -update_norms[:, None] * weights
        for direction, column in zip(directions, coefficients.unbind(1)):
            torch._foreach_addcmul_(targets, direction, list(column.unbind()))
        if bank.is_low_precision:
            torch._foreach_copy_(bank.params, targets)

    def statistics(self) -> dict[str, float]:
        """
        Describes the last step; the values wait for the device, so ask when logging, not at every step.

        Returns:
            `dict[str, float]`: `step_size`, the mean over layers of the update's RMS per element, `step_size_min`,
            `step_size_max`, and `mixture_<direction>`, the mean over layers of μ. Empty before the first step.
        """
        if not self._last_updates:
            return {}
        mixture = torch.cat([mixture for mixture, _ in self._last_updates]).mean(dim=0)
        sizes = torch.cat([sizes for _, sizes in self._last_updates])
        values = torch.cat((mixture, torch.stack((sizes.mean(), sizes.min(), sizes.max())))).tolist()
        names = [f"mixture_{name}" for name in self.config.directions]
        return dict(zip([*names, "step_size", "step_size_min", "step_size_max"], values))

    def _warn_without_loss(self, loss: torch.Tensor | None) -> None:
        is_real_step = any(group["lr"] != 0 for group in self.param_groups)
        if loss is None and is_real_step and not self._warned_no_loss and "loss" in self.config.features:
            self._warned_no_loss = True
            logger.warning(
                "L3RS takes steps without seeing the training loss, which it was meta-trained with; call "
                "optimizer.step(loss), or let the model compute the loss from its labels."
            )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """
        Restores a state. The dictionary is neither changed nor referred to afterwards, and float32 state of
        low-precision parameters stays float32.

        Args:
            state_dict (`dict`): From `state_dict()`. Given before `bind`, it is applied by `bind`.

        Raises:
            BindingError: If it was made by an L3RS of other meta-weights or of other layers.
        """
        check_fingerprint(state_dict, self.network.fingerprint())
        if not self.is_bound and any(group["params"] for group in state_dict["param_groups"]):
            self._waiting_state = copy.deepcopy(state_dict)
            return
        self._check_layers(state_dict)
        check_shapes(state_dict, self.param_groups)
        # Accelerate loads an optimizer's own state back into it, the very objects, which restores nothing
        pairs = zip(state_dict["param_groups"], self.param_groups)
        self.was_restored |= any(new["fingerprint"] is not own["fingerprint"] for new, own in pairs)
        super().load_state_dict(state_dict)
        self._banks.clear()
        saved_ids = [key for group in state_dict["param_groups"] for key in group["params"]]
        params = [param for group in self.param_groups for param in group["params"]]
        for key, param in zip(saved_ids, params):
            for name, value in state_dict["state"].get(key, {}).items():
                device = "cpu" if name == "step" else param.device
                self.state[param][name] = value.detach().to(device, copy=True)

    def _check_layers(self, state_dict: dict[str, Any]) -> None:
        saved = [group.get("param_names") for group in state_dict["param_groups"]]
        if saved == [group["param_names"] for group in self.param_groups]:
            return
        model = self._model() if self._model is not None else None
        if model is not None:  # layers may have been frozen or unfrozen since the optimizer was bound
            names = [canonical_name(name) for name, _ in named_trainable_parameters(model)]
            if saved == [names]:
                self.bind(model)
                return
        own = [group["param_names"] for group in self.param_groups]
        raise BindingError(
            f"The checkpoint is of {sum(len(names or ()) for names in saved)} layers, but the optimizer has "
            f"{sum(map(len, own))}, or they have other names; freeze and unfreeze the same layers as in the run that "
            "made it."
        )

    def __getstate__(self) -> dict[str, Any]:
        return {
            **super().__getstate__(),
            "network": self.network,
            "synchronize_loss": self.loss_observer.synchronize,
            "_embedding_weights": self._embedding_weights,
            "_waiting_state": self._waiting_state,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        if "network" in state:  # torch's own load_state_dict comes here too, with state and param_groups only
            self.loss_observer = LossObserver(state.pop("synchronize_loss"))
            self._init_transient()
        super().__setstate__(state)
        self._banks.clear()

    def __deepcopy__(self, memo: dict[int, Any]) -> LearnedOptimizer:
        twin = type(self).__new__(type(self))
        memo[id(self)] = twin
        twin.__setstate__(copy.deepcopy(self.__getstate__(), memo))
        return twin
