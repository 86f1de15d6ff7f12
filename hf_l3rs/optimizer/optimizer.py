"""L3RS as its users meet it: a torch optimizer, loaded from a folder or the Hub, and known to the stock Trainer."""

from __future__ import annotations

import copy
import sys
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import nn

from hf_l3rs.errors import BindingError
from hf_l3rs.optimizer.batch_norm import batch_norms, set_momentum
from hf_l3rs.optimizer.config import L3RSConfig, LayerSpec
from hf_l3rs.optimizer.fit import MINIMUM_FIT, Fit, measure_fit, refuse_misfit
from hf_l3rs.optimizer.layers import canonical_name, describe_layers, identify_layers, named_trainable_parameters
from hf_l3rs.optimizer.loss import LossObserver
from hf_l3rs.optimizer.monitor import StepMonitor
from hf_l3rs.optimizer.network import L3RSNetwork, choose_network
from hf_l3rs.optimizer.parameters import (
    NamedParameters,
    all_named,
    check_groups,
    check_names,
    check_options,
    check_state_dict,
    exact_state,
    named_groups,
    planned_steps,
    refuse_sharding,
    refuse_sparse_modules,
)
from hf_l3rs.optimizer.step import Bindings
from hf_l3rs.validation import short


# What loading takes that building does not.
HUB_OPTIONS = ("revision", "token", "cache_dir", "local_files_only")

# What copies and pickles keep beside torch's own; the rest is derived, or belongs to one process.
_KEPT_IN_COPIES = "network commit_hash float32_copy minimum_fit quiet _identity _layers _waiting_state".split()


class L3RS(torch.optim.Optimizer):
    """
    Learned Layer-wise Learning Rate Scheduler: mixes the directions of base optimizers, layer by layer, as a small
    network decides that was meta-trained for one pretrained model (paper, eq. 1 and fig. 2).

    A step changes layer l by −lr λ(l) Σ_p μ(l)_p d_p(l)/‖d_p(l)‖.

    Args:
        params (`nn.Module`, or an iterable of named parameters or of groups of them, *optional*):
            What to train. Without it the optimizer waits for [`~L3RS.bind`], which a Trainer calls itself.
        config ([`L3RSConfig`], *optional*): Makes an untrained L3RS of this configuration.
        network ([`L3RSNetwork`], *optional*): The meta-weights; with neither, untrained ones are made for `params`.
        lr (`float`, *optional*, defaults to `1.0`):
            Multiplier on the learned step: 1.0 is as meta-trained, 0.0 changes nothing.
        num_training_steps (`int`, *optional*): Planned length K of the run in optimizer steps; the Trainer tells it.
        synchronize_loss (`bool`, *optional*, defaults to `True`):
            Whether the training loss is averaged over processes where `torch.distributed` is initialised.
        float32_copy (`bool`, *optional*, defaults to `False`):
            Whether parameters of bfloat16 or float16 get a float32 copy in the state, without which updates smaller
            than their rounding are lost.
        minimum_fit (`float`, *optional*, defaults to `0.5`):
            The least share of the trained parameters, in [0, 1], in layers that the meta-weights know (see
            [`~L3RS.fit`]); what fits less is refused when the optimizer is bound. 0 trains any model.
        quiet (`bool`, *optional*, defaults to `False`):
            Whether to warn of nothing, to train any model and to leave the Trainer alone, as in meta-training.

    Example:

    ```python
    model.train()
    optimizer = L3RS.from_pretrained("l3rs-resnet-tiny-fashion").bind(model, num_training_steps=100)
    for batch in batches:
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()  # models that return no loss: optimizer.step(loss)
        optimizer.zero_grad()
    ```
    """

    commit_hash: str | None = None

    def __init__(
        self,
        params: nn.Module | NamedParameters | Iterable[dict[str, Any]] | None = None,
        config: L3RSConfig | None = None,
        *,
        network: L3RSNetwork | None = None,
        lr: float = 1.0,
        num_training_steps: int | None = None,
        synchronize_loss: bool = True,
        float32_copy: bool = False,
        minimum_fit: float = MINIMUM_FIT,
        quiet: bool = False,
    ) -> None:
        check_options(lr=lr, num_training_steps=num_training_steps, minimum_fit=minimum_fit, float32_copy=float32_copy)
        groups = named_groups(params)
        # an untrained network has learned no model's ways
        self.minimum_fit = 0.0 if network is None or quiet else minimum_fit
        self.network = network = choose_network(network, config, all_named(groups))
        self.loss_observer = LossObserver(synchronize_loss)
        self.float32_copy, self.quiet = float32_copy, quiet
        self._init_transient()
        run = {"step": 0, "num_training_steps": num_training_steps, "fingerprint": network.fingerprint()}
        super().__init__(groups or [{"params": [], "param_names": []}], {"lr": lr, **run})
        model = params if isinstance(params, nn.Module) else None
        if groups:
            self._take_layers(self._checked_layers(model, groups))
        if model is not None:
            self._follow(model)
        self._meet_trainer()

    def _init_transient(self) -> None:
        """Sets everything that is derived, or belongs to one process."""
        self._model: weakref.ref[nn.Module] | None = None
        self._identity: dict[str, torch.Tensor] = {}
        self._layers: tuple[LayerSpec, ...] = ()
        self._bindings = Bindings(self.network, self.float32_copy)
        self.monitor = StepMonitor(self.quiet)
        self._waiting_state: dict[str, Any] | None = None
        self.was_restored = False  # whether the state is a loaded one, with which no step was taken yet

    def _meet_trainer(self) -> None:
        """Has every Trainer to come connect itself; with parameters, none may come, and its import takes seconds."""
        if not self.quiet and (not self.is_bound or "transformers.trainer" in sys.modules):
            from hf_l3rs.trainer.callback import register

            register()

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, **kwargs: Any) -> L3RS:
        """
        Loads a meta-trained L3RS from a folder, the name of a released one, or a Hub id; `commit_hash` is its commit.
        `kwargs` are those of [`L3RS`], such as `lr`, and of [`~hf_l3rs.L3RSArtifact.from_pretrained`].
        """
        from hf_l3rs.hub.artifact import L3RSArtifact

        of_hub = {name: kwargs.pop(name) for name in HUB_OPTIONS if name in kwargs}
        artifact = L3RSArtifact.from_pretrained(pretrained_model_name_or_path, **of_hub)
        optimizer = cls(network=artifact.network, **kwargs)
        optimizer.commit_hash = artifact.commit_hash
        return optimizer

    def save_pretrained(self, save_directory: Any, **kwargs: Any) -> None:
        """Saves the meta-weights, not the state of the run; see [`~hf_l3rs.L3RSArtifact.save_pretrained`]."""
        self._artifact().save_pretrained(save_directory, **kwargs)

    def push_to_hub(self, repo_id: str, **kwargs: Any) -> str:
        """Uploads the meta-weights; see [`~hf_l3rs.L3RSArtifact.push_to_hub`]."""
        return self._artifact().push_to_hub(repo_id, **kwargs)

    def _artifact(self) -> Any:
        from hf_l3rs.hub.artifact import L3RSArtifact

        return L3RSArtifact(self.network, self.commit_hash)

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
        """Whether the optimizer trains whatever is trainable in its model. It does not if it was given parameters."""
        return self._model is not None and len(self.param_groups) == 1

    @property
    def fit(self) -> Fit | None:
        """How well the meta-weights fit what is trained; `None` while the optimizer is not bound."""
        layers = self._layers or self._layers_of(self._current_model(), self.param_groups)
        return None if not self.is_bound else measure_fit(layers, self.config)

    def bind(self, model: nn.Module | NamedParameters, num_training_steps: int | None = None) -> L3RS:
        """
        Gives the optimizer the parameters to train, and starts to read the loss from the model's output. From a model,
        not from parameters alone, batch norm is looked after, too: `config.batch_norm_momentum` is set in it for good.

        Binding again to the same parameters keeps the state; to others, such as after unfreezing layers, drops it.

        Args:
            model (`nn.Module` or an iterable of `(name, parameter)`): Frozen parameters are left out.
            num_training_steps (`int`, *optional*): Planned length K of the run in optimizer steps.
        """
        check_options(num_training_steps=num_training_steps)
        self._bind_parameters(model)
        if self._waiting_state is not None:
            state_dict, self._waiting_state = self._waiting_state, None
            self.load_state_dict(state_dict)
        if num_training_steps is not None:  # also where the state that waited has a plan of its own
            for group in self.param_groups:
                group["num_training_steps"] = num_training_steps
        return self

    def _bind_parameters(self, model: nn.Module | NamedParameters) -> None:
        """Takes what is trainable in `model`; drops the state if that is not what was trained before."""
        module = model if isinstance(model, nn.Module) else None
        refuse_sharding()
        if module is not None:
            refuse_sparse_modules(module)
        groups = named_groups(model)
        if len(groups) != 1:
            raise BindingError(
                f"L3RS is bound to a model or its named parameters, got {len(groups) or 'no'} groups; pass one of "
                "those, or build the optimizer with the groups."
            )
        names, params = groups[0]["param_names"], groups[0]["params"]
        if not params:
            raise BindingError("Every parameter of the model is frozen, so there is nothing to train; unfreeze some.")
        check_names(names)
        current = [param for _, param in all_named(self.param_groups)]
        if list(map(id, current)) != list(map(id, params)):
            if len(self.param_groups) != 1:
                raise BindingError("An optimizer with several parameter groups cannot be bound anew; build another.")
            layers = self._checked_layers(module, groups)
            self.state.clear()
            self.param_groups[0].update(params=params, param_names=names)
            self._take_layers(layers)
        if module is not None:
            self._follow(module)

    def _follow(self, model: nn.Module) -> None:
        """Remembers the model, so that layers that are frozen or unfrozen later are noticed, and looks after it."""
        self._model = weakref.ref(model)
        self.loss_observer.watch(model)
        set_momentum(batch_norms(model), self.config.batch_norm_momentum)

    def _layers_of(self, model: nn.Module | None, groups: list[dict[str, Any]]) -> tuple[LayerSpec, ...]:
        """Describes the layers in the groups; what is frozen in `model`, if known, tells more of their roles."""
        trained = dict(all_named(groups))
        of_model = {} if model is None else {canonical_name(name): param for name, param in model.named_parameters()}
        layers = describe_layers({**of_model, **trained}.items())  # a group may be of something beside the model
        return tuple(layer for layer in layers if layer.name in trained)

    def _checked_layers(self, model: nn.Module | None, groups: list[dict[str, Any]]) -> tuple[LayerSpec, ...]:
        """Describes the layers in the groups, which must fit enough."""
        layers = self._layers_of(model, groups)
        refuse_misfit(measure_fit(layers, self.config), self.minimum_fit)
        return layers

    def _current_model(self) -> nn.Module | None:
        return self._model() if self._model is not None else None

    def _take_layers(self, layers: tuple[LayerSpec, ...]) -> None:
        """Finds the embedding of every layer, because others are trained than before."""
        self._bindings.clear()
        self.was_restored = False
        self._layers = layers
        self._identity = {layer.name: row for layer, row in zip(layers, identify_layers(layers, self.config))}
        self.monitor.warn_of_misfit(measure_fit(layers, self.config))
        if not self.float32_copy:
            self.monitor.warn_of_rounding(param for _, param in all_named(self.param_groups))

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds a group, such as `{"params": model.named_parameters()}`, which joins the run where it stands."""
        if not isinstance(param_group, dict):
            raise BindingError(f"A group must be {{'params': model.named_parameters()}}, got {short(param_group)}.")
        if self.param_groups:
            run = self.param_groups[0]
            param_group = {"step": run["step"], "num_training_steps": run["num_training_steps"], **param_group}
        own = {**self.defaults, **param_group}
        check_options(lr=own["lr"], num_training_steps=own["num_training_steps"])
        if "param_names" in param_group:
            param_group = {**param_group, "params": list(zip(param_group["param_names"], param_group["params"]))}
        (param_group,) = named_groups([param_group])
        names, params = param_group["param_names"], param_group["params"]
        check_names([*(name for name, _ in all_named(self.param_groups)), *names])
        super().add_param_group({**param_group, "params": list(zip(names, params))})
        self.param_groups[-1]["param_names"] = names
        self._identity, self._layers = {}, ()  # found anew, or refused, when all groups are known

    def reset(self) -> None:
        """Forgets everything about the run but parameters and plan."""
        self.state.clear()
        self._bindings.clear()
        self.loss_observer.clear()
        self.was_restored = False
        for group in self.param_groups:
            group["step"] = 0

    def observe_loss(self, loss: torch.Tensor | float, is_share: bool = False) -> None:
        """Reports a micro-batch's mean loss, or with `is_share` its share of the step's, where no output tells it."""
        self.loss_observer.add(loss, is_share)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | torch.Tensor | float | None = None) -> Any:
        """
        Takes one step, and returns the loss if it is given. Parameters without a gradient are left alone.

        Args:
            closure (`Callable`, `torch.Tensor` or `float`, *optional*):
                A function that computes the gradients and returns the loss, or the loss; by default what was observed.
        """
        if not self.is_bound:
            raise BindingError(
                "L3RS has no parameters yet; call optimizer.bind(model, num_training_steps=...) on the L3RS itself, "
                "with Accelerate before accelerator.prepare, whose wrapper has no bind."
            )
        groups = self.param_groups
        plans = [planned_steps(group) for group in groups]
        self.monitor.warn_of_plan(groups, self.config.num_training_steps)
        result: Any = closure
        if callable(closure):
            with torch.enable_grad():
                result = closure()
        if result is not None:
            self.loss_observer.clear()
            self.loss_observer.add(result)
        self._refresh_network()
        if not self._identity:
            self._take_layers(self._checked_layers(self._current_model(), groups))
        # all bindings are made, or refused, before the first parameter moves
        bindings = self._bindings.of_groups(groups, self._identity, self.state)
        loss = self.loss_observer.take(next(param for group in groups for param in group["params"]).device)
        if loss is None and "loss" in self.config.features and any(group["lr"] != 0 for group in groups):
            self.monitor.warn_without_loss(self._current_model())
        self.was_restored = False
        decisions = []
        for group, planned, bound in zip(groups, plans, bindings):
            group["step"] += 1
            decisions += [binding.step(group, planned, loss) for binding in bound]
        self.monitor.observe(decisions)
        return result

    def _refresh_network(self) -> None:
        if self._bindings.notice_new_meta_weights():
            for group in self.param_groups:
                group["fingerprint"] = self.network.fingerprint()

    def statistics(self) -> dict[str, float]:
        """
        Describes the last step; waits for the device. `step_size`, `step_size_min` and `step_size_max` are of the
        layers' RMS updates per element, `mixture_<direction>` is the mean of μ over layers, and `skipped_layers` is
        there if the gradients of some were not numbers. Empty before the first step.
        """
        return self.monitor.statistics(self.config.directions)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores a state of these meta-weights and layers; given before `bind`, it is applied by `bind`."""
        self._refresh_network()
        check_groups(state_dict, self.network.fingerprint())
        if not self.is_bound and any(group["params"] for group in state_dict["param_groups"]):
            self._waiting_state = copy.deepcopy(state_dict)
            return
        self._rebind_to([group.get("param_names") for group in state_dict["param_groups"]])
        check_state_dict(state_dict, self.param_groups, self.config, self.float32_copy)
        # Accelerate loads an optimizer's own state back into it, the very objects, which restores nothing
        pairs = zip(state_dict["param_groups"], self.param_groups)
        self.was_restored |= any(new["fingerprint"] is not own["fingerprint"] for new, own in pairs)
        super().load_state_dict(state_dict)
        self._bindings.clear()
        self.state.update(exact_state(state_dict, self.param_groups))

    def _rebind_to(self, saved_names: Sequence[list[str] | None]) -> None:
        """Takes the layers of a state where some were frozen or unfrozen since the binding."""
        own = [group["param_names"] for group in self.param_groups]
        if saved_names == own:
            return
        model = self._current_model()
        trainable = [] if model is None else [canonical_name(name) for name, _ in named_trainable_parameters(model)]
        if model is not None and saved_names == [trainable]:
            self._bind_parameters(model)
            return
        raise BindingError(
            f"The checkpoint is of {sum(len(names or ()) for names in saved_names)} layers, but the optimizer has "
            f"{sum(map(len, own))}, or they have other names; freeze and unfreeze the same layers as in the run that "
            "made it."
        )

    def __getstate__(self) -> dict[str, Any]:
        kept = {name: getattr(self, name) for name in _KEPT_IN_COPIES}
        return {**super().__getstate__(), **kept, "synchronize_loss": self.loss_observer.synchronize}

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        is_copy = "network" in state  # torch's own load_state_dict comes here too, with state and param_groups only
        if is_copy:
            self.network, self.float32_copy, self.quiet = state["network"], state["float32_copy"], state["quiet"]
            self.loss_observer = LossObserver(state.pop("synchronize_loss"))
            self._init_transient()
        super().__setstate__(state)
        self._bindings.clear()
        if is_copy:  # it may be the first L3RS of a fresh process
            self._meet_trainer()
