"""
Long horizons in windows: truncated gradients, evolution where they explode, or both by their variance (ours).

A generation takes every run a window further, so that ψ moves long before a run ends, and memory is that of a window.
A truncated gradient is blind to what a window does to later ones. Evolution with one noise for a whole run is not
(ES-Single, Vicol 2023), but it has more variance. The less certain of both counts for less (arXiv 1810.10180).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

import safetensors.torch
import torch
from accelerate import Accelerator

from hf_l3rs.errors import ConfigError
from hf_l3rs.meta.combination import antithetic, mean_or_zero, variance_weights
from hf_l3rs.meta.episodes import Episode
from hf_l3rs.meta.evolution import ESConfig, noise
from hf_l3rs.meta.gradient import FIGURES, GradientConfig, MetaGradient, differentiate, evaluation_points, figures_of
from hf_l3rs.meta.outer import Estimate, OuterState
from hf_l3rs.meta.processes import Processes
from hf_l3rs.optimizer.network import L3RSNetwork
from hf_l3rs.tasks.distribution import Task, Tasks
from hf_l3rs.tasks.inner_loop import Trajectory, run
from hf_l3rs.tasks.pools import derive_seed
from hf_l3rs.tasks.unrolled import Snapshot
from hf_l3rs.validation import Range, check_fields


# The candidates of a run: at ψ, which is differentiated, and at ψ ± σε.
COMBINATIONS: dict[str, tuple[int, ...]] = {"gradient": (0,), "evolution": (1, -1), "variance": (0, 1, -1)}

# No candidate counts as worse than that many times the loss of guessing, one that diverged included: one bad run of
# many would otherwise be all of an estimate.
WORST = 3.0


@dataclass(frozen=True)
class WindowConfig(GradientConfig):
    """
    Settings of the estimate by windows, beside those of [`GradientConfig`], whose tasks, evaluations and segments are
    those of a window here; all are ours. The noise is that of [`ESConfig`], as it is when a run begins.

    Args:
        window_steps (`int`, *optional*, defaults to `20`): Inner steps that every run takes in a generation.
        window_evaluation_size (`int`, *optional*, defaults to `64`):
            Images of a task's evaluation set that a window is judged by; 0 for all.
        combination (`str`, *optional*, defaults to `"variance"`):
            Which of COMBINATIONS: `"gradient"` or `"evolution"` alone, or both weighted by their variance.
    """

    window_steps: int = field(default=20, metadata={"help": "Inner steps of a run in a generation of windows."})
    window_evaluation_size: int = field(default=64, metadata={"help": "Images that a window is judged by; 0: all."})
    combination: str = field(default="variance", metadata={"help": "gradient, evolution, or variance: both."})

    def __post_init__(self) -> None:
        super().__post_init__()
        ranges = {"window_steps": Range(low=1), "window_evaluation_size": Range(low=0)}
        check_fields(self, {**ranges, "combination": COMBINATIONS})

    def of_whole_runs(self) -> GradientConfig:
        """Returns those of the settings that do not concern windows."""
        return GradientConfig(**{name: getattr(self, name) for name in GradientConfig.__dataclass_fields__})


class WindowedGradient(MetaGradient):
    """
    Windows of runs as an [`~hf_l3rs.meta.outer.Estimator`]. A sample is a slot: it holds one run after another,
    and a generation takes it a window further. The first runs are cut short at random, so that slots do not march in
    step. A run of which a candidate diverges ends there.

    Args:
        config ([`WindowConfig`]): Settings.
        es ([`ESConfig`]): Of the noise.
        tasks ([`~hf_l3rs.tasks.distribution.Tasks`]): What is fine-tuned on.
        network ([`L3RSNetwork`]): Gives the configuration of the meta-weights.
        processes ([`Processes`]): Share the slots out.
        accelerator (`Accelerator`): Names device and precision.

    Raises:
        ConfigError: If there are too few slots for a variance, or several models, whose runs a checkpoint would mix.
    """

    config: WindowConfig

    def __init__(
        self,
        config: WindowConfig,
        es: ESConfig,
        tasks: Tasks,
        network: L3RSNetwork,
        processes: Processes,
        accelerator: Accelerator,
    ) -> None:
        if config.combination == "variance" and config.num_tasks < 2:
            raise ConfigError(
                "The combination variance needs at least 2 tasks, which a variance is taken over, got num_tasks="
                f"{config.num_tasks}; raise it, or set combination to gradient or evolution."
            )
        if len(tasks.models) > 1:
            raise ConfigError(
                f"Windows carry over the runs of one model, got {len(tasks.models)}; set estimator to gradient, or "
                "leave out more_base_models."
            )
        super().__init__(config, es.seed, tasks, network, processes, accelerator)
        self.es = es
        self.signs = COMBINATIONS[config.combination]
        self._episodes: dict[int, Episode] = {}  # of this process's own slots

    @property
    def _costs(self) -> list[float]:
        """What a step of each candidate costs, in plain ones."""
        return [1.0 if sign else self.config.step_cost for sign in self.signs]

    def cost_of_generation(self, num_steps: float) -> float:
        """See [`~hf_l3rs.meta.outer.Estimator.cost_of_generation`]."""
        return self.config.num_tasks * min(num_steps, self.config.window_steps) * sum(self._costs)

    def estimate(self, state: OuterState) -> Estimate:
        """Takes every slot a window further; see [`~hf_l3rs.meta.outer.Estimator.estimate`]."""
        dimension, num_figures = len(state.mean), len(self.signs) * len(FIGURES)
        shape = (self.config.num_tasks, 2 + num_figures + dimension)
        rows = self.processes.gather(shape, 1, partial(self._rows, state))
        (began, differences), gradients = rows[:, :2].unbind(1), rows[:, -dimension:]
        figures = dict(zip(FIGURES, rows[:, 2:-dimension].unflatten(1, (len(self.signs), -1)).unbind(2)))
        failed = ~torch.isfinite(figures["meta_loss"])
        if self.is_differentiated:
            failed[:, 0] |= self.has_exploded(gradients)
        truncated = gradients[~failed[:, 0]] if self.is_differentiated else gradients[:0]
        evolved = self._evolved(began, differences, dimension)
        weights = variance_weights(truncated, evolved)
        gradient = weights * mean_or_zero(self.clipped(truncated)) + (1 - weights) * mean_or_zero(evolved)
        # the candidates at ψ tell where it stands; where there are none, those around it do
        shown = slice(1) if self.is_differentiated else slice(None)
        usable = ~failed[:, shown]
        num_steps = figures["num_steps"].sum(dim=0)
        return Estimate(
            gradient=gradient.to(state.mean.dtype),
            num_evaluations=failed.numel(),
            num_diverged=int(failed.sum()),
            num_inner_steps=int(num_steps.sum()),
            cost_in_plain_steps=float(num_steps @ num_steps.new_tensor(self._costs)),
            metrics={
                **{name: float(figures[name][:, shown][usable].mean()) for name in FIGURES[:-1]},
                "gradient_norm": float(torch.linalg.vector_norm(truncated, dim=1).mean()),
                "gradient_weight": float(weights.mean()),
            },
        )

    @property
    def is_differentiated(self) -> bool:
        """Whether the first candidate of a slot is at ψ."""
        return self.signs[0] == 0

    def state(self) -> dict[str, torch.Tensor]:
        """Returns where the slots' runs stand; see [`~hf_l3rs.meta.outer.Estimator.state`]."""
        packed = self.processes.gather_bytes(
            self.config.num_tasks, lambda slot: safetensors.torch.save(self._episodes[slot].tensors())
        )
        slots = map(safetensors.torch.load, packed)
        return {f"{slot}.{name}": tensor for slot, named in enumerate(slots) for name, tensor in named.items()}

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Takes up this process's own slots; see [`~hf_l3rs.meta.outer.Estimator.load_state`]."""
        for slot in self.processes.own(self.config.num_tasks):
            prefix = f"{slot}."
            named = {name.removeprefix(prefix): t for name, t in state.items() if name.startswith(prefix)}
            generation = int(named["generation"]) if "generation" in named else 0
            self._episodes[slot] = self._begin(generation, slot).resumed(named)

    def _rows(self, state: OuterState, slots: range) -> torch.Tensor:
        return torch.stack([self._advance(state, slot) for slot in slots])

    def _advance(self, state: OuterState, slot: int) -> torch.Tensor:
        """
        Takes a slot a window further. Returns a row: the generation in which its run began, the difference of the pair
        of candidates, the figures of all candidates, and the truncated gradient.
        """
        episode = self._episodes.get(slot) or self._begin(state.generation, slot)
        window = episode.window(self.config.window_steps, self.config.window_evaluation_size)
        step = self.es.sigma_at(episode.generation) * noise(self.es, episode.generation, slot, len(state.mean))
        gradient, figures, ends = torch.zeros_like(state.mean), [], []
        for sign, snapshot in zip(self.signs, episode.snapshots):
            candidate = state.mean + sign * step
            own, trajectory, end = self._run(candidate, episode, window, snapshot, is_differentiated=sign == 0)
            gradient = gradient if own is None else own.cpu()
            figures.append(figures_of(trajectory))
            ends.append(end)
        losses = [meta_loss for meta_loss, *_ in figures]
        goes_on = all(map(math.isfinite, losses)) and ends[0].k < episode.end
        self._episodes[slot] = episode._replace(snapshots=ends) if goes_on else self._begin(state.generation + 1, slot)
        difference = _difference(losses[-2:], window.num_classes) if len(self.signs) > 1 else math.nan
        numbers = torch.tensor([episode.generation, difference, *sum(figures, ())], dtype=torch.float64)
        return torch.cat((numbers, gradient.double()))

    def _run(
        self, candidate: torch.Tensor, episode: Episode, window: Task, begin: Snapshot, is_differentiated: bool
    ) -> tuple[torch.Tensor | None, Trajectory, Snapshot]:
        learner = self.learner(episode.task, candidate, begin, keep_graph=is_differentiated)
        points = evaluation_points(window.num_training_steps, self.config.num_evaluations)
        if is_differentiated:
            return differentiate(learner, window, points, self.config.segment_steps)
        trajectory = run(learner, window, evaluate_at=points)
        return None, trajectory, learner.snapshot()

    def _begin(self, generation: int, slot: int) -> Episode:
        """Draws the run that a slot begins in a generation."""
        task = self.tasks.draw(self.seed, generation, slot)
        end = task.num_training_steps
        if generation == 0:
            num_windows = math.ceil(end / self.config.window_steps)
            first = 1 + derive_seed(self.seed, "first windows", slot) % num_windows
            end = min(end, first * self.config.window_steps)
        learner = self.learner(task, self.network.to_vector(), keep_graph=False)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(task.seed)
            learner.start(task.initial_state)
        return Episode(generation, task, end, [learner.snapshot()] * len(self.signs))

    def _evolved(self, began: torch.Tensor, differences: torch.Tensor, dimension: int) -> torch.Tensor:
        """Returns the usable slots' estimates by evolution; their noise is made again from what it is derived from."""
        pairs = [(int(began[slot]), slot) for slot in torch.isfinite(differences).nonzero().flatten().tolist()]
        if not pairs:
            return differences.new_empty(0, dimension)
        noises = torch.stack([noise(self.es, generation, slot, dimension).double() for generation, slot in pairs])
        sigmas = differences.new_tensor([self.es.sigma_at(generation) for generation, _ in pairs])
        return antithetic(differences[torch.isfinite(differences)], noises, sigmas)


def _difference(losses: list[float], num_classes: int) -> float:
    """L₊ − L₋, each as bad as WORST at most; not a number where both candidates failed, which tells nothing."""
    worst = WORST * math.log(max(2, num_classes))
    first, second = (min(loss, worst) if math.isfinite(loss) else worst for loss in losses)
    return first - second if any(map(math.isfinite, losses)) else math.nan
