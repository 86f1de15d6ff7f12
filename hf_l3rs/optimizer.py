"""L3RS as its users meet it: loaded from a folder or the Hub, and known to the stock Trainer."""

from __future__ import annotations

import sys
from typing import Any

from hf_l3rs.learned.fit import MINIMUM_FIT
from hf_l3rs.learned.optimizer import LearnedOptimizer


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
    optimizer = L3RS.from_pretrained("model_cards/l3rs-resnet-tiny-fashion").bind(model, num_training_steps=100)
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
            from hf_l3rs.integration.callback import register

            register()

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "commit_hash": self.commit_hash}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "network" in state:  # a copy, which may be the first L3RS of a fresh process
            self._meet_trainer()
