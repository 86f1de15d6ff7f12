"""Of several seeds the L3RS that is best on the tasks is kept, at the cost of all."""

import logging
import math

import pytest
from accelerate import Accelerator

from hf_l3rs.errors import MetaTrainingError
from hf_l3rs.meta.seeds import choose_best
from tests.meta.problems import make_model, make_network, make_tasks


def with_step(base_step, **summary):
    return make_network(make_model(), trained=True, base_step=base_step, meta_training=summary)


def choose(networks):
    tasks = make_tasks(seed=1)
    return choose_best(networks, [tasks.draw(0, 0, index) for index in range(3)], Accelerator(cpu=True))


def test_the_best_is_chosen_at_the_cost_of_all(caplog):
    networks = {
        "hardly moves": with_step(1e-6, inner_steps=10, seconds=1.5, seed=0),
        "moves": with_step(1e-2, inner_steps=20, seconds=2.0, seed=1),
        "goes astray": with_step(1e4, inner_steps=30, seconds=3.0, seed=2),
    }
    with caplog.at_level(logging.INFO, logger="hf_l3rs"):
        chosen = choose(networks)
    assert chosen.fingerprint() == networks["moves"].fingerprint()
    summary = chosen.config.meta_training
    assert (summary["seed"], summary["inner_steps"], summary["seconds"], summary["chosen_from"]) == (1, 60, 6.5, 3)
    (record,) = caplog.records
    assert "Of 3 runs moves is kept, the best on 3 validation tasks: hardly moves" in record.getMessage()


def test_of_equal_ones_the_first_is_taken():
    networks = {name: with_step(1e-2, name=name) for name in ("b", "a")}
    assert choose(networks).config.meta_training["name"] == "b"


def test_one_must_not_diverge(monkeypatch):
    networks = {name: with_step(1e-2) for name in ("a", "b")}
    monkeypatch.setattr("hf_l3rs.meta.seeds.Scorer.mean_loss", lambda *_: math.inf)
    with pytest.raises(MetaTrainingError, match="a, b all diverged"):
        choose(networks)
