"""The mathematics of L3RS in the paper's symbols, slowly."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch

from hf_l3rs.optimizer.layers import canonical_name, describe_layers, identify_layers
from hf_l3rs.optimizer.network import L3RSNetwork


# The fan-in and the number of trained parameters above which steps shrink, where the config says so.
FAN_IN, SIZE = 64, 100_000


class ReferenceL3RS:
    """
    [`L3RS`] as a loop over layers that follows the paper's formulas term by term.

    The fast optimizer is compared with it. It shares no code with it but the meta-weights and the choice of each
    layer's embedding.

    Args:
        named_parameters (`Iterable[tuple[str, torch.Tensor]]`): What to train, such as `model.named_parameters()`.
        network ([`L3RSNetwork`]): The meta-weights ψ, and the configuration.
        num_training_steps (`int`): Planned length K of the run in steps.
        lr (`float`, *optional*, defaults to `1.0`): Multiplier on λ.

    Reference:
        Paper, eq. 1 (update), eq. 2 (averages) and fig. 2 (network).
    """

    def __init__(
        self,
        named_parameters: Iterable[tuple[str, torch.Tensor]],
        network: L3RSNetwork,
        num_training_steps: int,
        lr: float = 1.0,
    ) -> None:
        self.psi = network
        self.K = num_training_steps
        self.lr = lr
        self.k = 0
        named = [(canonical_name(name), theta) for name, theta in named_parameters]
        identity = identify_layers(describe_layers(named), network.config)
        weights, structure = identity.tensor_split([len(network.embeddings)], dim=1)
        embeddings = torch.cat((weights @ network.embeddings.detach().double(), structure), dim=1)
        N = sum(theta.numel() for _, theta in named)
        self.layers = [_Layer(theta, embedding, network, N) for (_, theta), embedding in zip(named, embeddings)]

    @torch.no_grad()
    def step(self, loss: torch.Tensor | float | None = None) -> None:
        """Takes one step from the gradients, which are only read; a layer without one is left alone."""
        self.k += 1
        for layer in self.layers:
            if layer.theta.grad is not None:
                layer.step(loss, self.k, self.K, self.lr)


class _Layer:
    """θ(l) and all that belongs to it. Numbers of which a layer has one are Python floats, that is float64."""

    def __init__(self, theta: torch.Tensor, embedding: torch.Tensor, psi: L3RSNetwork, N: int) -> None:
        self.theta = theta
        self.N = N  # trained parameters of the run
        self.dtype = torch.float64 if theta.dtype == torch.float64 else torch.float32
        self.embedding = embedding.to(self.dtype)
        self.psi = psi
        self.config = psi.config
        self.t = 0  # updates of this layer, which has none where it has no gradient
        self.m = torch.zeros_like(theta, dtype=self.dtype)  # Adam's first moment
        self.v = torch.zeros_like(theta, dtype=self.dtype)  # Adam's second moment
        self.u = torch.zeros_like(theta, dtype=self.dtype)  # Muon's momentum
        # a_i of eq. 2, one for each decay γ_i; "weight" averages the constant 1, for the bias correction.
        self.a = {name: [0.0] * len(self.config.ema_decays) for name in ("loss", "grad_norm", "param_norm", "weight")}

    def step(self, loss: torch.Tensor | float | None, k: int, K: int, lr: float) -> None:
        g = self.theta.grad.to(self.dtype)  # type: ignore[union-attr]
        theta = self.theta.to(self.dtype)
        n = max(self.theta.numel(), 1)
        self.t += 1
        is_usable = _norm(g) <= math.sqrt(torch.finfo(self.dtype).max)  # not so if its square is no number
        g = g if is_usable else torch.zeros_like(g)
        d = [self._direction(name, g) for name in self.config.directions]
        if not is_usable:  # the parameter and its averages are left alone
            return
        self._update_averages(loss, _norm(g) / math.sqrt(n), _norm(theta) / math.sqrt(n))
        mu, o = self._mlp(self._features(k, K, [_norm(d_p) / math.sqrt(n) for d_p in d]))
        reference = {"rms": math.sqrt(n), "relative": math.hypot(_norm(theta), 0.02 * math.sqrt(n))}[
            self.config.step_reference
        ]
        if theta.ndim == 2:
            reference *= min(1.0, FAN_IN / max(theta.shape[1], 1)) ** self.config.width_exponent
        reference *= min(1.0, SIZE / self.N) ** self.config.size_exponent
        lam = lr * math.exp(min(max(o, -12.0), 12.0)) * self.config.base_step * reference * self._annealing(k, K)
        d_hat = [d_p / max(_norm(d_p), 1e-12) for d_p in d]
        mixture = sum((mu_p * d_hat_p for mu_p, d_hat_p in zip(mu, d_hat)), torch.zeros_like(theta))
        self.theta.copy_(theta - lam * mixture)  # the only rounding, if θ is of low precision

    def _annealing(self, k: int, K: int) -> float:
        T = self.config.num_training_steps
        return min(1.0, T / k) if self.config.anneal_long_runs and T is not None and K > 5 * T else 1.0

    def _direction(self, name: str, g: torch.Tensor) -> torch.Tensor:
        beta1, beta2 = self.config.adam_betas
        if name == "adam":
            self.m = beta1 * self.m + (1 - beta1) * g
            self.v = beta2 * self.v + (1 - beta2) * g**2
            m_hat = self.m / (1 - beta1**self.t)
            v_hat = self.v / (1 - beta2**self.t)
            return m_hat / (v_hat.sqrt() + self.config.adam_eps)
        if name == "sgd":
            return g
        if name == "muon":
            self.u = beta1 * self.u + (1 - beta1) * g
            return _orthogonalised(beta1 * self.u + (1 - beta1) * g)
        raise NotImplementedError(f"The reference has no direction {name!r}; write it down here.")

    def _update_averages(self, loss: torch.Tensor | float | None, grad_rms: float, param_rms: float) -> None:
        """Eq. 2: a_i ← γ_i a_i + (1 − γ_i) ξ. A loss that is absent, or not a number, is neutral."""
        ell = math.nan if loss is None else torch.as_tensor(loss).float().item()
        xi = {
            "loss": _log(ell, 2.0) if math.isfinite(ell) else 0.0,
            "grad_norm": _log(grad_rms, 5.0),
            "param_norm": _log(param_rms, 5.0),
            "weight": 1.0,
        }
        for name, a in self.a.items():
            for i, gamma in enumerate(self.config.ema_decays):
                a[i] = gamma * a[i] + (1 - gamma) * xi[name]

    def _features(self, k: int, K: int, direction_rms: list[float]) -> list[float]:
        groups = {
            "relative_time": [math.tanh(10 * (k / K - c)) for c in self.config.relative_times],
            "absolute_time": [math.tanh(k / c - 1) for c in self.config.absolute_times],
            "direction_norms": [_log(rms, 5.0) for rms in direction_rms],
        }
        for name in ("loss", "grad_norm", "param_norm"):
            groups[name] = [a / weight for a, weight in zip(self.a[name], self.a["weight"])]
        return [value for group in self.config.features if group != "structure" for value in groups[group]]

    def _mlp(self, features: list[float]) -> tuple[list[float], float]:
        """Fig. 2. Returns μ, and the logarithm of what multiplies the reference step to give λ."""
        h = torch.cat((torch.tensor(features, dtype=self.dtype), self.embedding))
        *hidden, output = zip(self.psi.weights, self.psi.biases)
        for W, b in hidden:
            h = W.to(h) @ h + b.to(h)
            h = h / (1 + torch.exp(-h))  # SiLU
        W, b = output
        *logits, o = (W.to(h) @ h + b.to(h)).tolist()
        exponentials = [math.exp(logit - max(logits)) for logit in logits]
        return [value / sum(exponentials) for value in exponentials], o


def _orthogonalised(x: torch.Tensor) -> torch.Tensor:
    """What is left of a matrix when every singular value σ goes five times through 3.4445 σ − 4.775 σ³ + 2.0315 σ⁵."""
    rows, columns = x.shape[:1].numel(), x.shape[1:].numel()
    is_kernel = x.ndim > 2 and 1 not in x.shape[:2] and 4 <= min(rows, columns) and 128 * rows >= columns >= rows / 128
    if x.numel() == 0 or not (x.ndim == 2 or is_kernel):
        return x
    U, sigma, Vt = torch.linalg.svd(x.flatten(1), full_matrices=False)
    sigma = sigma / (_norm(x) + 1e-7)
    for _ in range(5):
        sigma = 3.4445 * sigma - 4.775 * sigma**3 + 2.0315 * sigma**5
    return (U * sigma @ Vt).view_as(x)


def _norm(x: torch.Tensor) -> float:
    return math.sqrt((x.double() ** 2).sum().item())


def _log(x: float, scale: float) -> float:
    """log(x) / scale with x kept in [1e-8, 1e4]; what is not a number counts as 1e4."""
    return math.log(1e4 if math.isnan(x) else min(max(x, 1e-8), 1e4)) / scale
