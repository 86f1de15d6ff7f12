"""An L3RS against Adam on one unseen task, while somebody watches."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import pandas as pd

from hf_l3rs.errors import ConfigError
from hf_l3rs.evaluation.baselines import ADAPTIVE_RATES, BASELINES, Contender, l3rs_contender
from hf_l3rs.hub.results import OPTIMIZER_NAME
from hf_l3rs.markdown import markdown_table
from hf_l3rs.tasks.inner_loop import Evaluation
from hf_l3rs.validation import list_choices
from recipes.evidence.race import race
from recipes.space.embedded import Stage, check_fit, load_network, load_stage


RIVALS = ("Adam at 1e-3", "Adam constant", "Adam cosine")
DEFAULT_RIVALS = ("Adam at 1e-3", "Adam cosine")

# In place of a learning rate: the one that a search found for runs of about this length.
SEARCHED = "searched"
RATES = (SEARCHED, *(f"{rate:g}" for rate in ADAPTIVE_RATES))

# Evaluations of each optimizer on the way, of which the curves consist.
NUM_EVALUATIONS = 12


class Standing(NamedTuple):
    """
    How a race stands.

    Args:
        curves (`pandas.DataFrame`): Columns `step`, `loss`, `accuracy` in per cent, and `optimizer`.
        table (`str`): The latest figures as Markdown.
        verdict (`str`): A sentence, when it is over.
    """

    curves: pd.DataFrame
    table: str
    verdict: str


def run_race(l3rs: str, model: str, horizon: int, task: int, rivals: Sequence[str], rate: str) -> Iterator[Standing]:
    """
    Fine-tunes copies of an embedded model, one with an L3RS and one with each rival: same new head, same batches in
    the same order, same test images.

    Args:
        l3rs, model, horizon, task: As of [`~recipes.space.look.look`].
        rivals (`Sequence[str]`): Some of RIVALS.
        rate (`str`): One of RATES, for the rivals that have none in their name.

    Yields:
        [`Standing`]: After every evaluation; the last is the end.

    Raises:
        L3RSError: If a choice is not possible.
    """
    network, stage = load_network(l3rs), load_stage(model)
    check_fit(network.config, stage.model)
    contenders = [l3rs_contender(network), *(_rival(name, rate, stage, horizon) for name in rivals)]
    names = {each.name: _label(each) for each in contenders}
    every = math.ceil(horizon / NUM_EVALUATIONS)
    rows: list[tuple[int, float, float, str]] = []
    for step, evaluations in race(
        stage.model, contenders, stage.draw(task, horizon), evaluate_at=range(0, horizon, every)
    ):
        latest = {names[name]: evaluation for name, evaluation in evaluations.items()}
        rows += [(step, each.loss, 100 * each.accuracy, name) for name, each in latest.items()]
        curves = pd.DataFrame(rows, columns=["step", "loss", "accuracy", "optimizer"])
        yield Standing(curves, _table(step, latest), _verdict(step, latest) if step == horizon else "")


def _rival(name: str, rate: str, stage: Stage, horizon: int) -> Contender:
    if name not in RIVALS or rate not in RATES:
        raise ConfigError(
            f"A rival is one of {list_choices(RIVALS, name)} at one of the rates {list_choices(RATES, rate)}, got "
            f"{name!r} at {rate!r}."
        )
    baseline = BASELINES[name]
    if baseline.is_tuning_free:
        return baseline.at(baseline.learning_rates[0])
    return baseline.at(stage.rate(name, horizon) if rate == SEARCHED else float(rate))


def _label(contender: Contender) -> str:
    has_rate = contender.learning_rate is not None and not BASELINES[contender.name].is_tuning_free
    return f"{contender.name}, {contender.learning_rate:g}" if has_rate else contender.name


def _table(step: int, latest: dict[str, Evaluation]) -> str:
    """The best first."""
    ranked = sorted(latest.items(), key=lambda item: item[1].loss)
    rows = [
        (name, "diverged" if math.isinf(loss) else f"{loss:.3f}", f"{100 * accuracy:.1f} %")
        for name, (loss, accuracy) in ranked
    ]
    return markdown_table((f"after {step} steps", "test loss", "accuracy"), rows, ("left", "right", "right"))


def _verdict(step: int, latest: dict[str, Evaluation]) -> str:
    others = {name: each for name, each in latest.items() if name != OPTIMIZER_NAME}
    own = latest[OPTIMIZER_NAME]
    if not others:
        return f"L3RS ends at a test loss of {own.loss:.3f}; choose a rival to compare it with."
    name, best = min(others.items(), key=lambda item: item[1].loss)
    if math.isinf(own.loss):
        return f"L3RS diverged; {name} ends at {best.loss:.3f}."
    if math.isinf(best.loss):
        return f"L3RS ends at {own.loss:.3f}; all others diverged."
    side = "ahead of" if own.loss < best.loss else "behind" if own.loss > best.loss else "level with"
    return (
        f"After {step} steps L3RS is {side} its best rival here, {name}: {own.loss / best.loss:.2f} times its test "
        "loss. One task says little: try others, or see the tables of README, which are over sixteen."
    )
