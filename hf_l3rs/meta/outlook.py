"""What a run will cost, before it starts, and whether it got anywhere, when it is over."""

from __future__ import annotations

from collections.abc import Sequence

from hf_l3rs.evaluation.data_limit import DATA_LIMIT
from hf_l3rs.meta.checkpoint import Progress
from hf_l3rs.meta.estimator import Estimator
from hf_l3rs.tasks.task import Task


def foresee(
    estimator: Estimator,
    num_generations: int,
    validation_tasks: Sequence[Task],
    num_validations: int,
    seconds_per_step: float,
) -> str:
    """
    Says what a run costs, by the pace of an untrained L3RS on its validation tasks.

    Args:
        estimator ([`~hf_l3rs.meta.estimator.Estimator`]): Whose generations they are.
        num_generations (`int`): How many are to come.
        validation_tasks (`Sequence[Task]`): At least one; as long on average as those that are trained on.
        num_validations (`int`): How often these are run.
        seconds_per_step (`float`): Of an inner step that is not differentiated, evaluations included.
    """
    num_steps = sum(task.num_training_steps for task in validation_tasks)
    training = num_generations * estimator.cost_of_generation(num_steps / len(validation_tasks))
    validating = num_validations * num_steps
    return (
        f"{num_generations} generations cost about {training:,.0f} plain inner steps, and {num_validations} "
        f"validations {validating:,}: about {_duration((training + validating) * seconds_per_step)} at the pace of an "
        "untrained L3RS here. References are tuned before that, with a bar of their own."
    )


def _duration(seconds: float) -> str:
    for size, unit in ((3600, "hours"), (60, "minutes")):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.2g} {unit}"
    return f"{seconds:.0f} seconds"


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
