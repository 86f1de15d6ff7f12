"""L3RS as its users meet it: loaded from a folder or the Hub, and known to the stock Trainer."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import nn

from hf_l3rs.errors import BindingError
from hf_l3rs.optimizer.batch_norm import batch_norms, set_momentum
from hf_l3rs.optimizer.binding import Bindings
from hf_l3rs.optimizer.config import L3RSConfig, LayerSpec
from hf_l3rs.optimizer.fit import MINIMUM_FIT, Fit, check_minimum_fit, measure_fit, refuse_misfit
from hf_l3rs.optimizer.layers import identify_layers
from hf_l3rs.optimizer.loss import LossObserver
from hf_l3rs.optimizer.monitor import StepMonitor
from hf_l3rs.optimizer.network import L3RSNetwork, choose_network
from hf_l3rs.optimizer.parameters import (
    LateBoundOptimizer,
    NamedParameters,
    all_named,
    check_lr,
    check_num_training_steps,
    check_switches,
    named_groups,
    planned_steps,
)
from hf_l3rs.optimizer.saved_state import check_groups, check_state_dict, exact_state


# Beside torch's own; what else there is is derived, or belongs to one process.
_KEPT_IN_COPIES = (
    "network",
    "float32_copy",
    "fused",
    "minimum_fit",
    "quiet",
    "_identity",
    "_layers",
    "_waiting_state",
)

_UNBOUND = (
    "L3RS has no parameters yet; call optimizer.bind(model, num_training_steps=...) on the L3RS itself, with "
    "Accelerate before accelerator.prepare, whose wrapper has no bind."
)


class LearnedOptimizer(LateBoundOptimizer):
    """
    [`~hf_l3rs.L3RS`] without Hub and Trainer: a torch optimizer that is given its meta-weights.

    Args:
        params, config, network, lr, num_training_steps, synchronize_loss, float32_copy, fused, minimum_fit:
            As of [`~hf_l3rs.L3RS`].
        quiet (`bool`, *optional*, defaults to `False`):
            Whether to warn of nothing and to train any model, as in meta-training, where many candidates are bad.
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
        float32_copy: bool = False,
        fused: bool = False,
        minimum_fit: float = MINIMUM_FIT,
        quiet: bool = False,
    ) -> None:
        check_lr(lr)
        check_num_training_steps(num_training_steps)
        check_minimum_fit(minimum_fit)
        check_switches(float32_copy=float32_copy, fused=fused)
        groups = named_groups(params)
        self.minimum_fit = 0.0 if network is None else minimum_fit  # an untrained one has learned no model's ways
        self.network = network = choose_network(network, config, all_named(groups))
        self.loss_observer = LossObserver(synchronize_loss)
        self.float32_copy, self.fused, self.quiet = float32_copy, fused, quiet
        self._init_transient()
        defaults = {"step": 0, "num_training_steps": num_training_steps, "fingerprint": network.fingerprint()}
        super().__init__(groups, params if isinstance(params, nn.Module) else None, {"lr": lr, **defaults})

    def _init_transient(self) -> None:
        """Everything that is derived from `param_groups`, `state` and the network, or belongs to one process."""
        super()._init_transient()
        self._identity: dict[str, torch.Tensor] = {}
        self._layers: tuple[LayerSpec, ...] = ()
        self._bindings = Bindings(self.network, self.float32_copy, self.fused)
        self.monitor = StepMonitor(self.quiet)
        self._waiting_state: dict[str, Any] | None = None
        self.was_restored = False  # whether the state is a loaded one, with which no step was taken yet

    @property
    def config(self) -> L3RSConfig:
        """The configuration of the meta-weights."""
        return self.network.config

    @property
    def fit(self) -> Fit | None:
        """How well the meta-weights fit what is trained; `None` while the optimizer is not bound."""
        return measure_fit(self._layers or self._current_layers(), self.config) if self.is_bound else None

    def bind(self, model: nn.Module | NamedParameters, num_training_steps: int | None = None) -> LearnedOptimizer:
        """
        Gives the optimizer the parameters to train, and starts to read the loss from the model's output. From a model,
        not from parameters alone, batch norm is looked after, too: `config.batch_norm_momentum` is set in it for good.

        Binding again to the same parameters keeps the state; to others, such as after unfreezing layers, drops it.

        Args:
            model (`nn.Module` or an iterable of `(name, parameter)`): Frozen parameters are left out.
            num_training_steps (`int`, *optional*): Planned length K of the run in optimizer steps.

        Returns:
            [`LearnedOptimizer`]: The optimizer itself.

        Raises:
            BindingError: If there is nothing to train, names are missing, or the L3RS is another model's.
            UnsupportedSetupError: Under DeepSpeed or FSDP, or if gradients will be sparse.
        """
        check_num_training_steps(num_training_steps)
        self._bind_parameters(model)
        if self._waiting_state is not None:
            state_dict, self._waiting_state = self._waiting_state, None
            self.load_state_dict(state_dict)
        if num_training_steps is not None:  # also where the state that waited has a plan of its own
            for group in self.param_groups:
                group["num_training_steps"] = num_training_steps
        return self

    def _follow(self, model: nn.Module) -> None:
        super()._follow(model)
        self.loss_observer.watch(model)
        set_momentum(batch_norms(model), self.config.batch_norm_momentum)

    def reset(self) -> None:
        """Forgets everything about the run: the next step is a first step. Parameters and plan stay."""
        self.state.clear()
        self._bindings.clear()
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
        if not isinstance(param_group, dict):
            raise BindingError(
                f"A parameter group must be a mapping with params, got {type(param_group).__name__}; pass "
                "{'params': model.named_parameters()}."
            )
        if self.param_groups:
            run = self.param_groups[0]
            param_group = {"step": run["step"], "num_training_steps": run["num_training_steps"], **param_group}
        check_lr(param_group.get("lr", self.defaults["lr"]))
        check_num_training_steps(param_group.get("num_training_steps"))
        super().add_param_group(param_group)
        self._identity, self._layers = {}, ()  # found anew, or refused, when all groups are known

    def _check_layers(self, layers: Sequence[LayerSpec]) -> None:
        if not self.quiet:
            refuse_misfit(measure_fit(layers, self.config), self.minimum_fit)

    def _take_layers(self, layers: tuple[LayerSpec, ...]) -> None:
        """Finds the embedding of every layer."""
        self._bindings.clear()
        self.was_restored = False
        self._layers = layers
        self._identity = {layer.name: row for layer, row in zip(layers, identify_layers(layers, self.config))}
        if not self.quiet:
            self.monitor.warn_of_misfit(measure_fit(layers, self.config))
        if not self.float32_copy:
            self.monitor.warn_of_rounding(param for _, param in all_named(self.param_groups))

    def observe_loss(self, loss: torch.Tensor | float, is_share: bool = False) -> None:
        """
        Reports the training loss of one micro-batch of the coming step, where no model's output tells it.

        Args:
            loss (`torch.Tensor` or `float`): A scalar.
            is_share (`bool`, *optional*, defaults to `False`): Whether it is a share of the step's loss, to be summed.
        """
        self.loss_observer.add(loss, is_share)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | torch.Tensor | float | None = None) -> Any:
        """
        Takes one step. Gradients are only read; parameters without a gradient are left alone.

        Args:
            closure (`Callable`, `torch.Tensor` or `float`, *optional*):
                A function that computes the gradients and returns the loss, or the loss itself; by default what was
                observed since the last step.

        Returns:
            The closure's loss, or `closure` if that is the loss.

        Raises:
            BindingError: If it is not bound, was not told the number of steps, or added groups fit it too little.
        """
        if not self.is_bound:
            raise BindingError(_UNBOUND)
        plans = [planned_steps(group) for group in self.param_groups]
        self.monitor.warn_of_plan(self.param_groups, self.config.num_training_steps)
        result: Any = closure
        if callable(closure):
            with torch.enable_grad():
                result = closure()
        if result is not None:
            self.loss_observer.clear()
            self.loss_observer.add(result)
        self._refresh_network()
        if not self._identity:
            self._check_layers(layers := self._current_layers())
            self._take_layers(layers)
        # all bindings are made, or refused, before the first parameter moves
        of_group, groups = self._bindings.of_group, self.param_groups
        bindings = [of_group(index, group, self._identity, self.state) for index, group in enumerate(groups)]
        loss = self.loss_observer.take(next(p for group in self.param_groups for p in group["params"]).device)
        if loss is None and "loss" in self.config.features and any(group["lr"] != 0 for group in self.param_groups):
            self.monitor.warn_without_loss()
        self.was_restored = False
        decisions = []
        for group, planned, bound in zip(groups, plans, bindings):
            group["step"] += 1
            decisions += [binding.step(group, planned, loss) for binding in bound]
        self.monitor.warn_of_plain_steps(binding.plain_because for bound in bindings for binding in bound)
        self.monitor.observe(decisions)
        return result

    def _refresh_network(self) -> None:
        """Takes notice of meta-weights that were changed since the last step."""
        if self._bindings.notice_new_meta_weights():
            for group in self.param_groups:
                group["fingerprint"] = self.network.fingerprint()

    def statistics(self) -> dict[str, float]:
        """
        Describes the last step; the values wait for the device, so ask when logging, not at every step.

        Returns:
            `dict[str, float]`: `step_size`, the mean over layers of the update's RMS per element, `step_size_min`,
            `step_size_max`, `mixture_<direction>`, the mean over layers of μ, and, if there are any, `skipped_layers`,
            the number of layers whose gradient was not a number. Empty before the first step.
        """
        return self.monitor.statistics(self.config.directions)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """
        Restores a state. The dictionary is neither changed nor kept; float32 state of low precision stays float32.

        Args:
            state_dict (`dict`): From `state_dict()`. Given before `bind`, it is applied by `bind`.

        Raises:
            BindingError: If it was made by an L3RS of other meta-weights or of other layers.
        """
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

    def __getstate__(self) -> dict[str, Any]:
        kept = {name: getattr(self, name) for name in _KEPT_IN_COPIES}
        return {**super().__getstate__(), **kept, "synchronize_loss": self.loss_observer.synchronize}

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        if "network" in state:  # torch's own load_state_dict comes here too, with state and param_groups only
            self.network = state["network"]
            self.float32_copy, self.fused, self.quiet = state["float32_copy"], state["fused"], state["quiet"]
            self.loss_observer = LossObserver(state.pop("synchronize_loss"))
            self._init_transient()
        super().__setstate__(state)
        self._bindings.clear()


class L3RS(LearnedOptimizer):
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
        float32_copy (`bool`, *optional*, defaults to `False`):
            Whether parameters of bfloat16 or float16 get a float32 copy in the state, at 4 bytes each, without which
            updates smaller than their rounding are lost.
        fused (`bool`, *optional*, defaults to `False`):
            Whether steps of float32 parameters on the CPU go through memory twice only, in kernels that a C compiler
            makes at the first step; equal to the plain step but for rounding. Where that cannot be, a warning says
            why, and steps are plain.
        minimum_fit (`float`, *optional*, defaults to `0.5`):
            The least share of the trained parameters, in [0, 1], that must be in layers that the meta-weights are
            made for (see [`~L3RS.fit`]); what fits less is refused when the optimizer is bound. 0 trains any model, as
            an untrained L3RS does.

    Raises:
        ConfigError: If a value is out of its range.
        BindingError: If the parameters have no names, or the meta-weights are another model's.

    Example:

    ```python
    optimizer = L3RS.from_pretrained("l3rs-resnet-tiny-fashion").bind(model, num_training_steps=100)
    for batch in batches:
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()  # models that return no loss: optimizer.step(loss)
        optimizer.zero_grad()
    ```
    """

    commit_hash: str | None = None

    def __init__(self, params: Any = None, *args: Any, **kwargs: Any) -> None:
        super().__init__(params, *args, **kwargs)
        self._meet_trainer()

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: Any,
        *,
        params: Any = None,
        lr: float = 1.0,
        num_training_steps: int | None = None,
        float32_copy: bool = False,
        fused: bool = False,
        minimum_fit: float = MINIMUM_FIT,
        **kwargs: Any,
    ) -> L3RS:
        """
        Loads a meta-trained L3RS. Its `commit_hash` is the commit that was loaded.

        Args:
            pretrained_model_name_or_path (`str` or `os.PathLike`): A folder, or the id of a Hub repository.
            params (`nn.Module` or an iterable of named parameters, *optional*): What to train.
            lr (`float`, *optional*, defaults to `1.0`): Multiplier on the learned step, without unit.
            num_training_steps (`int`, *optional*): Planned length of the run in optimizer steps.
            float32_copy (`bool`, *optional*, defaults to `False`): Whether low precision keeps float32 copies.
            fused (`bool`, *optional*, defaults to `False`): Whether steps are compiled, see above.
            minimum_fit (`float`, *optional*, defaults to `0.5`): What fits a model less is refused; 0 trains any.
            kwargs: `revision`, `token`, `cache_dir`, `local_files_only` and `force_download`, as of
                [`~hf_l3rs.L3RSArtifact.from_pretrained`].

        Raises:
            ArtifactError: If it cannot be had, or is not a readable L3RS.
            ConfigError: If its config is of a newer format or has an invalid value.
            BindingError: If it is another model's than that of `params`.
        """
        from hf_l3rs.hub.pretrained import L3RSArtifact

        artifact = L3RSArtifact.from_pretrained(pretrained_model_name_or_path, **kwargs)
        optimizer = cls(
            params,
            network=artifact.network,
            lr=lr,
            num_training_steps=num_training_steps,
            float32_copy=float32_copy,
            fused=fused,
            minimum_fit=minimum_fit,
        )
        optimizer.commit_hash = artifact.commit_hash
        return optimizer

    def save_pretrained(self, save_directory: Any, **kwargs: Any) -> str | None:
        """Saves the meta-weights, not the state of the run; see [`~hf_l3rs.L3RSArtifact.save_pretrained`]."""
        return self._artifact().save_pretrained(save_directory, **kwargs)

    def push_to_hub(self, repo_id: str, **kwargs: Any) -> str:
        """Uploads the meta-weights; see [`~hf_l3rs.L3RSArtifact.push_to_hub`]."""
        return self._artifact().push_to_hub(repo_id, **kwargs)

    def _artifact(self) -> Any:
        from hf_l3rs.hub.pretrained import L3RSArtifact

        return L3RSArtifact(self.network, self.commit_hash)

    def _meet_trainer(self) -> None:
        """
        Makes every Trainer that is built from now on connect itself to this optimizer. An optimizer with parameters of
        its own may need no Trainer, whose import takes seconds.
        """
        if not self.is_bound or "transformers.trainer" in sys.modules:
            from hf_l3rs.trainer.callback import register

            register()

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "commit_hash": self.commit_hash}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "network" in state:  # a copy, which may be the first L3RS of a fresh process
            self._meet_trainer()
