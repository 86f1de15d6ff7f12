"""Whether a run that is over got anywhere, and what to do where it did not."""

from __future__ import annotations

from hf_l3rs.evaluation.data_limit import DATA_LIMIT
from hf_l3rs.meta.checkpoint import Progress


def look_back(progress: Progress) -> str | None:
    """
    Says what to do where the best validation is no better than what it is compared with; `None` where it is better, or
    where nothing was compared.

    Args:
        progress ([`Progress`]): Of a run that is over.
    """
    rivals = {name: loss for name, loss in progress.references.items() if name != DATA_LIMIT}
    if not rivals or progress.best_loss is None:
        return None
    name = min(rivals, key=lambda each: rivals[each])
    if progress.best_loss < rivals[name]:
        return None
    was_last = progress.best_generation == progress.state.generation
    return (
        f"The best validation loss, {progress.best_loss:.4g}, is no better than that of {_shown(name)}, "
        f"{rivals[name]:.4g}{', though it was still falling' if was_last else ''}: train longer (more "
        "num_generations in another output_dir, which may go on from this one by initial_l3rs), with more tasks a "
        "generation, or, where validation swings, at a smaller learning_rate."
    )


def _shown(name: str) -> str:
    return "an untrained L3RS" if name == "untrained" else f"tuned {name}"
