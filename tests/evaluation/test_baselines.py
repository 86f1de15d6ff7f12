import json
import sys
from dataclasses import replace
from importlib.util import find_spec

import pytest
import torch

from hf_l3rs.errors import ConfigError
from hf_l3rs.evaluation.baselines import ADAPTIVE_RATES, BASELINES, l3rs_contender, select_baselines
from hf_l3rs.tasks.inner_loop import ModelLearner
from tests.meta.problems import make_model, make_network


INSTALLED = {
    name: baseline for name, baseline in BASELINES.items() if baseline.package is None or find_spec(baseline.package)
}


def test_every_baseline_builds_and_steps():
    for baseline in INSTALLED.values():
        model = make_model()
        optimizer, scheduler = baseline.at(0.01).build(model, 4)
        trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
        head = {id(p) for p in model.classifier.parameters()}
        assert trained == (head if baseline.head_only else {id(p) for p in model.parameters()})
        assert (scheduler is not None) == baseline.cosine
        assert len(baseline.learning_rates) >= 7 or baseline.name == "Adam at 1e-3"  # untuned is what that one is


def test_cosine_falls_to_zero_over_the_run():
    optimizer, scheduler = BASELINES["Adam cosine"].at(0.5).build(make_model(), 4)
    rates = []
    for _ in range(4):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates == pytest.approx([0.5, 0.4268, 0.25, 0.0732], abs=1e-4)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.0)


def test_the_rates_cover_two_decades_without_gaps():
    assert ADAPTIVE_RATES[-1] / ADAPTIVE_RATES[0] >= 100
    assert all(high / low <= 2.01 for low, high in zip(ADAPTIVE_RATES, ADAPTIVE_RATES[1:]))


def test_unknown_names_are_refused():
    assert [baseline.name for baseline in select_baselines(["Adam cosine"])] == ["Adam cosine"]
    with pytest.raises(ConfigError, match="Lion.*known are"):
        select_baselines(["Lion"])


def test_l3rs_takes_part_as_it_ships():
    network = make_network()
    optimizer, scheduler = l3rs_contender(network).build(make_model(), 7)
    assert optimizer.network is network and scheduler is None
    assert optimizer.param_groups[0]["num_training_steps"] == 7
    assert isinstance(optimizer, torch.optim.Optimizer)


def test_identities_tell_optimizers_apart_and_are_plain():
    identities = {name: baseline.identity for name, baseline in INSTALLED.items()}
    assert json.loads(json.dumps(identities, default=tuple)) == json.loads(json.dumps(identities))
    searched = [identity for name, identity in identities.items() if name != "Adam at 1e-3"]
    assert len({json.dumps(identity) for identity in searched}) == len(searched)
    assert identities["AdamW cosine"]["weight_decay"] == 0.01 and "lr" not in identities["AdamW cosine"]
    assert BASELINES["SGD cosine"].at(0.1).identity == identities["SGD cosine"]
    assert not {"passes", "version"} & identities["Adam cosine"].keys()  # as in manifests that are there already
    networks = [make_network(), make_network(trained=True), make_network(max_grad_norm=1.0)]
    contenders = [l3rs_contender(network) for network in networks]
    assert len({json.dumps(contender.identity) for contender in contenders}) == 3
    assert [contender.max_grad_norm for contender in contenders] == [None, None, 1.0]


def test_what_a_contender_runs_with_is_in_its_identity():
    baseline = replace(BASELINES["Adam cosine"], passes=3, package="torch", learner=type("Other", (ModelLearner,), {}))
    contender = baseline.at(0.1)
    assert (contender.passes, contender.learner, contender.learning_rate) == (3, baseline.learner, 0.1)
    assert (contender.identity["passes"], contender.identity["version"]) == (3, torch.__version__)
    default = BASELINES["Adam cosine"].at(0.1)
    assert (default.passes, default.learner, l3rs_contender(make_network()).passes) == (1, ModelLearner, 1)


def test_a_baseline_whose_package_is_missing_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "schedulefree", None)
    with pytest.raises(ConfigError, match=r"needs the package schedulefree.*pip install hf_l3rs\[rivals\]") as error:
        select_baselines(["Adam cosine", "Schedule-free AdamW"])
    assert "\n" not in str(error.value)
    assert select_baselines(["Adam cosine"])
