import math

import pytest
import torch

from hf_l3rs.errors import ConfigError
from hf_l3rs.evaluation.baselines import BASELINES, Contender, l3rs_contender
from hf_l3rs.evaluation.benchmark import DIVERGED, measure
from recipes.evidence.race import race
from tests.evaluation.images import image_task
from tests.tiny import assert_same, parameters, tiny_mobilenet, trained_network


def wild(name, rate=1e9):
    return Contender(name, lambda model, num_training_steps: (torch.optim.SGD(model.parameters(), lr=rate), None))


def test_a_race_is_what_each_does_alone():
    """With dropout, whose random numbers come from one generator, and batch norm."""
    model = tiny_mobilenet()
    task = image_task(num_steps=5)._replace(model=model, initial_state=dict(tiny_mobilenet(seed=1).state_dict()))
    contenders = [l3rs_contender(trained_network(model)), BASELINES["Adam cosine"].at(1e-2)]
    before, rng = parameters(model), torch.get_rng_state()
    watched = list(race(model, contenders, task, evaluate_at=(0, 2)))
    assert [step for step, _ in watched] == [0, 2, 5]
    assert_same(parameters(model), before)
    assert torch.equal(torch.get_rng_state(), rng)
    for contender in contenders:
        alone = measure(tiny_mobilenet(seed=2), contender, task, evaluate_at=(0, 2))
        assert {step: evaluations[contender.name] for step, evaluations in watched} == alone
    first = watched[0][1]
    assert first["L3RS"] == first["Adam cosine"]  # the same start


def test_who_looks_may_leave():
    task, rng = image_task(num_steps=4), torch.get_rng_state()
    watching = race(task.model, [BASELINES["Adam at 1e-3"].at(1e-3)], task, evaluate_at=(1,))
    next(watching)
    watching.close()
    assert torch.equal(torch.get_rng_state(), rng)


def test_one_that_diverges_does_not_stop_the_other():
    task = image_task(num_steps=12)
    watched = dict(race(task.model, [wild("wild"), BASELINES["Adam at 1e-3"].at(1e-3)], task, evaluate_at=(10, 11)))
    assert [watched[step]["wild"] for step in (10, 11, 12)] == [DIVERGED] * 3
    assert all(math.isfinite(each["Adam at 1e-3"].loss) for each in watched.values())
    assert list(race(task.model, [wild("one"), wild("two")], task)) == [(12, {"one": DIVERGED, "two": DIVERGED})]


@pytest.mark.parametrize("contenders", [[], [wild("same"), wild("same")], "linear probe"])
def test_who_cannot_race_is_refused(contenders):
    task = image_task(num_steps=2)
    if contenders == "linear probe":
        contenders = [Contender("many", wild("many").build, starts_at_probe=True)]
    with pytest.raises(ConfigError, match="A race needs"):
        next(race(task.model, contenders, task))
