"""Of several seeds the L3RS that is best on the tasks is kept, at the cost of all."""

import logging
import math

import pytest
from accelerate import Accelerator

from hf_l3rs.errors import NothingToKeepError
from hf_l3rs.meta.meta_build import choose_best, summary_of_choice
from tests.meta.problems import make_model, make_network, make_tasks


def with_step(base_step):
    return make_network(make_model(), trained=True, base_step=base_step)


def choose(networks):
    tasks = make_tasks(seed=1)
    return choose_best(networks, [tasks.draw(0, 0, index) for index in range(3)], Accelerator(cpu=True))


def test_the_best_is_chosen(caplog):
    networks = {"hardly moves": with_step(1e-6), "moves": with_step(1e-2), "goes astray": with_step(1e4)}
    with caplog.at_level(logging.INFO, logger="hf_l3rs"):
        assert choose(networks) == "moves"
    (record,) = caplog.records
    assert "Of 3 runs moves is kept, the best on 3 validation tasks: hardly moves" in record.getMessage()


def test_of_equal_ones_the_first_is_taken():
    assert choose({name: with_step(1e-2) for name in ("b", "a")}) == "b"


def test_one_must_not_diverge(monkeypatch):
    networks = {name: with_step(1e-2) for name in ("a", "b")}
    monkeypatch.setattr("hf_l3rs.meta.meta_build.Scorer.mean_loss", lambda *_: math.inf)
    with pytest.raises(NothingToKeepError, match="a, b all diverged"):
        choose(networks)


@pytest.mark.parametrize("start", [{}, {"inner_steps": 100, "seconds": 8.0}])
def test_the_choice_has_the_cost_of_all_and_of_their_start_once(start):
    own = {"a": {"seed": 0, "inner_steps": 10, "seconds": 1.5}, "b": {"seed": 1, "inner_steps": 20, "seconds": 2.0}}
    more = {"started_from": start} if start else {}
    summaries = {
        name: {**run, **more, **{key: run[key] + start.get(key, 0) for key in ("inner_steps", "seconds")}}
        for name, run in own.items()
    }
    summary = summary_of_choice(summaries, "b")
    assert (summary["seed"], summary["chosen_from"], summary.get("started_from", {})) == (1, 2, start)
    assert summary["inner_steps"] == 30 + start.get("inner_steps", 0)
    assert summary["seconds"] == 3.5 + start.get("seconds", 0.0)
    assert summary_of_choice({"a": summaries["a"]}, "a") == summaries["a"]
