"""What is said of an L3RS is what its decisions show."""

import json
from pathlib import Path

import pytest

from hf_l3rs.evaluation.plots import is_picture_of
from recipes.evidence.behaviour import describe_behaviour
from recipes.evidence.trajectories import LayerDecision, read_trajectory, to_csv, to_table


STEPS = 20


def table(sizes, shares, directions=("adam", "sgd")):
    """For each role a function of the share of the run, for sizes and for the share of the first direction."""
    decisions = [
        LayerDecision(step, STEPS, f"{role}.{index}", role, index / 2, size(step / STEPS) * factor, mixture)
        for step in range(1, STEPS + 1)
        for role, size in sizes.items()
        for index, factor in enumerate((0.5, 2.0))
        for share in [shares[role](step / STEPS)]
        for mixture in [(share, 1 - share) if len(directions) == 2 else (1.0,)]
    ]
    return to_table(decisions, directions)


SIZES = {"head.weight": lambda t: 3.0 if t == 0.25 else 1.0 - 0.9 * t, "norm.bias": lambda t: 0.2}


def test_both_sentences():
    shares = {"head.weight": lambda t: 0.7, "norm.bias": lambda t: 0.9 - 0.6 * (t > 0.5)}
    assert describe_behaviour(table(SIZES, shares)) == (
        "It takes its largest steps in the head weights, 3 times the base step after 5 of 20 steps, and lowers them "
        "to 0.1 times by the end; its smallest are in the norm biases, 0.2 times over the run. Over the run the share "
        "of adam goes from 80 % to 50 %, most of all in the norm biases, from 90 % to 30 %."
    )


def test_a_mixture_that_stays():
    still = table(SIZES, {"head.weight": lambda t: 0.2, "norm.bias": lambda t: 0.4})
    assert describe_behaviour(still).endswith(
        "the share of sgd stays near 70 %, from 60 % in the norm biases to 80 % in the head weights."
    )
    turning = table(
        SIZES, {"head.weight": lambda t: 0.2 + 0.2 * (t > 0.5), "norm.bias": lambda t: 0.4 - 0.2 * (t > 0.5)}
    )
    assert "the share of sgd stays near 70 %, but goes from " in describe_behaviour(turning)


def test_a_single_direction_or_role():
    only = {"head.weight": SIZES["head.weight"]}
    text = describe_behaviour(table(only, {"head.weight": lambda t: 1.0}, directions=("adam",)))
    assert text.endswith("by the end. It has a single direction, adam.")
    assert "stays near 100 %, from 100 % in the head weights" in describe_behaviour(
        table(only, {"head.weight": lambda t: 1.0})
    )


@pytest.mark.parametrize("name", ["l3rs-resnet-tiny-fashion", "l3rs-vit-tiny-fashion"])
def test_cards_say_what_the_stored_decisions_show(name):
    results = json.loads(Path("hf_l3rs/released", name, "results.json").read_text(encoding="utf-8"))
    table = read_trajectory(f"recipes/results/{name}/trajectories.csv")
    assert results["behaviour"] == describe_behaviour(table)
    assert is_picture_of(f"recipes/results/{name}/trajectories.png", to_csv(table))
