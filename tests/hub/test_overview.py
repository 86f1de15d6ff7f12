"""What a card says first is what was measured, and nothing else."""

from dataclasses import replace

import pytest

from hf_l3rs.evaluation.baselines import ADAPTIVE_RATES
from hf_l3rs.hub.card import IN_DOMAIN, NUM_RATES, describe_cost, describe_gain, describe_payback
from hf_l3rs.hub.results import Result
from recipes.evidence.grid import SETTINGS


RESULT = Result("L3RS", "org/data", "test", 20, 4, 0.2, "x", setting="in domain", baseline="Adam", baseline_loss=0.3)


def test_the_gain_is_where_it_was_measured():
    behind, other = replace(RESULT, num_training_steps=10, loss=0.4), replace(RESULT, setting=None, dataset="digits")
    longer, rival = replace(RESULT, num_training_steps=50), replace(RESULT, optimizer="L3RS, untrained")
    said = describe_gain([behind, RESULT, longer, rival, other])
    assert said.endswith("after 20 and 50 steps, not after 10 (in domain: data); after 20 steps (digits).")
    alike = replace(RESULT, setting="other architecture")
    assert describe_gain([RESULT, alike]).endswith("after 20 steps (in domain; other architecture: data).")
    assert describe_gain([behind]).endswith("baseline not after 10 steps (in domain: data).")
    assert describe_gain([replace(RESULT, baseline_loss=None), rival]) is None


@pytest.mark.parametrize(
    ("summary", "directions", "said"),
    [
        ({}, ["adam"], None),
        ({"inner_steps": "many", "seconds": True}, ["adam"], None),
        ({"inner_steps": 5000}, ["adam"], "Making it took 5,000 inner steps."),
        (
            {"inner_steps": 5000, "cost_in_plain_steps": 16000.0, "seconds": 647.5},
            ["adam"],
            "Making it took 5,000 inner steps, worth 16,000 plain ones, in 11 min.",
        ),
        ({"inner_steps": 10, "seconds": 9000}, ["adam"], "Making it took 10 inner steps, in 2.5 hours."),
        (
            {},
            ["adam", "muon"],
            "With Muon among its directions, its step takes several times as long as Adam's on a CPU.",
        ),
    ],
)
def test_the_cost_is_what_the_summary_says(summary, directions, said):
    assert describe_cost(summary, directions) == said


SEARCHING = (
    "In runs of 20 steps its making is paid back after about {} runs beside a search of 11 learning rates for each"
)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, f"{SEARCHING.format(140)}, about 2,800 beside the best rival at a known rate."),
        ({"step_ratio": 1.0, "step_ratio_bound": "at least"}, f"{SEARCHING.format(140)}."),
        ({"step_ratio": 0.5}, f"{SEARCHING.format(150)}."),
        ({"step_ratio": None}, None),
        ({"num_diverged": 1}, None),
        ({"setting": "other domain"}, None),
        ({"num_training_steps": 40}, None),
    ],
)
def test_when_it_is_paid_back_is_told(changes, said):
    """The figures of the embedded ResNet; a longer run than those of meta-training does not count."""
    entries = [
        replace(RESULT, **{"num_training_steps": 20, "step_ratio": 1.52, **changes}),
        replace(RESULT, num_training_steps=10, step_ratio=1.4, setting="other domain"),
        replace(RESULT, num_training_steps=100, step_ratio=1.4),
    ]
    assert describe_payback({"cost_in_plain_steps": 28_611}, 30, entries) == said
    assert describe_payback({}, 30, entries) is None
    assert describe_payback({"cost_in_plain_steps": 28_611}, None, entries) is None


def test_the_card_knows_the_evaluation():
    assert len(ADAPTIVE_RATES) == NUM_RATES and SETTINGS["in_domain"] == IN_DOMAIN
