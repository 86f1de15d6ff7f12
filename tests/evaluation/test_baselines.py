import json
import math
from dataclasses import replace
from importlib.util import find_spec

import pytest
import torch
from transformers import TrainingArguments

from hf_l3rs.errors import ConfigError
from hf_l3rs.evaluation.baselines import ADAPTIVE_RATES, BASELINES, is_tuning_free, l3rs_contender, select_baselines
from hf_l3rs.evaluation.benchmark import measure
from hf_l3rs.evaluation.data_limit import DATA_LIMITS
from hf_l3rs.evaluation.schedules import SCHEDULES
from hf_l3rs.tasks.inner_loop import ModelLearner
from tests.evaluation.images import image_task
from tests.evaluation.test_rivals import MODULES
from tests.meta.problems import make_model, make_network
from tests.tiny import tiny_resnet


INSTALLED = {
    name: baseline
    for name, baseline in BASELINES.items()
    if baseline.package is None or find_spec(MODULES[baseline.package][0])
}
TUNING_FREE = [
    "Adam at 1e-3",
    "Trainer's default",
    "Schedule-free AdamW at 2.5e-3",
    "Prodigy",
    "LDoG",
    "DAdaptAdam",
]


@pytest.mark.parametrize("name", INSTALLED)
def test_every_baseline_builds_and_steps_as_it_is_run(name):
    baseline, model, task = INSTALLED[name], tiny_resnet(), image_task()
    optimizer, scheduler = baseline.at(baseline.learning_rates[0]).build(model, 6)
    trained = {p.data_ptr() for group in optimizer.param_groups for p in group["params"]}
    head = {p.data_ptr() for p in model.classifier.parameters()}
    assert trained == (head if baseline.head_only else {p.data_ptr() for p in model.parameters()})
    assert (scheduler is not None) == (baseline.schedule != "constant")
    measured = measure(model, baseline.at(baseline.learning_rates[len(baseline.learning_rates) // 2]), task)
    moved = {key for key, tensor in model.named_parameters() if not torch.equal(tensor, task.initial_state[key])}
    assert math.isfinite(measured[6].loss)
    assert moved == {key for key, _ in model.named_parameters() if not baseline.head_only or "classifier" in key}


def test_baselines_are_searched_in_full_or_not_at_all():
    assert [name for name, baseline in BASELINES.items() if baseline.is_tuning_free] == TUNING_FREE
    assert {len(BASELINES[name].learning_rates) for name in BASELINES.keys() - set(TUNING_FREE)} == {11}
    assert is_tuning_free("Prodigy") and not is_tuning_free("Adam cosine") and not is_tuning_free("L3RS")


def test_every_schedule_is_there_for_every_part():
    for name in ("Adam", "AdamW", "SGD", "LAMB", "LARS", "ATMO"):
        assert {f"{name} {each}{part}" for each in SCHEDULES for part in ("", ", head only")} <= BASELINES.keys()
    assert {f"Adam {each}, head 10x" for each in SCHEDULES} | {
        f"Muon {each}" for each in SCHEDULES
    } <= BASELINES.keys()
    assert BASELINES["SGD linear"].warmup == 0.1 and not BASELINES["SGD cosine"].warmup


def test_the_trainers_default_is_what_the_trainer_does(tmp_path):
    args = TrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    baseline = BASELINES["Trainer's default"]
    assert baseline.learning_rates == (args.learning_rate,) and baseline.schedule == args.lr_scheduler_type
    assert (args.warmup_steps, baseline.warmup, baseline.max_grad_norm) == (0, 0.0, args.max_grad_norm)
    identity = baseline.identity
    assert identity["weight_decay"] == args.weight_decay and args.optim.value.startswith("adamw_torch")
    assert identity["eps"] == args.adam_epsilon and identity["betas"] == (args.adam_beta1, args.adam_beta2)
    assert baseline.at(5e-5).max_grad_norm == 1.0 == identity["max_grad_norm"]


def test_cosine_falls_to_zero_over_the_run():
    optimizer, scheduler = BASELINES["Adam cosine"].at(0.5).build(make_model(), 4)
    rates = []
    for _ in range(4):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates == pytest.approx([0.5, 0.4268, 0.25, 0.0732], abs=1e-4)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.0)


def test_the_head_runs_ahead():
    optimizer, scheduler = BASELINES["Adam linear, head 10x"].at(0.01).build(make_model(), 4)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.01, 0.1])
    optimizer.step()
    scheduler.step()
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.0075, 0.075])


def test_the_rates_cover_two_decades_without_gaps():
    assert ADAPTIVE_RATES[-1] / ADAPTIVE_RATES[0] >= 100
    assert all(high / low <= 2.01 for low, high in zip(ADAPTIVE_RATES, ADAPTIVE_RATES[1:]))


def test_unknown_names_are_refused():
    assert [baseline.name for baseline in select_baselines(["Adam cosine"])] == ["Adam cosine"]
    with pytest.raises(ConfigError, match="one of 50 names such as LDoG, .*Lion"):
        select_baselines(["Lion"])


def test_l3rs_takes_part_as_it_ships():
    network = make_network()
    optimizer, scheduler = l3rs_contender(network).build(make_model(), 7)
    assert optimizer.network is network and scheduler is None
    assert optimizer.param_groups[0]["num_training_steps"] == 7
    assert isinstance(optimizer, torch.optim.Optimizer)


def test_identities_tell_optimizers_apart_and_are_plain():
    identities = {name: baseline.identity for name, baseline in INSTALLED.items()}
    assert json.loads(json.dumps(identities, default=tuple)) == json.loads(json.dumps(identities, allow_nan=False))
    # the same but for a learning rate that is not searched
    searched = [name for name in identities if name not in ("Adam at 1e-3", "Schedule-free AdamW at 2.5e-3")]
    assert len({json.dumps(identities[name]) for name in searched}) == len(searched)
    assert identities["AdamW cosine"]["weight_decay"] == 0.01 and "lr" not in identities["AdamW cosine"]
    assert BASELINES["SGD cosine"].at(0.1).identity == identities["SGD cosine"]
    younger = {"passes", "version", "schedule", "warmup", "head_ratio", "max_grad_norm"}
    assert not younger & identities["Adam cosine"].keys()  # as in manifests that are there already
    assert identities["Adam linear, head 10x"].keys() & younger == {"schedule", "warmup", "head_ratio"}
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


# What manifests that are there already know these by.
ADAM = {
    "class": "torch.optim.adam.Adam",
    "betas": (0.9, 0.999),
    "eps": 1e-8,
    "weight_decay": 0,
    "amsgrad": False,
    "maximize": False,
    "foreach": None,
    "capturable": False,
    "differentiable": False,
    "fused": None,
    "decoupled_weight_decay": False,
}


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
@pytest.mark.parametrize("part", ["", ", head only"])
def test_rows_that_were_measured_keep_their_identity(schedule, part):
    expected = {**ADAM, "cosine": schedule == "cosine", "head_only": bool(part)}
    assert BASELINES[f"Adam {schedule}{part}"].identity == expected
    assert list(BASELINES[f"Adam {schedule}{part}"].identity) == list(expected)
    assert DATA_LIMITS["Data limit, 3 passes"].identity == {**ADAM, "cosine": True, "head_only": False, "passes": 3}


def test_identities_draw_no_random_numbers():
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    BASELINES["Adam cosine"].example()
    assert torch.equal(torch.rand(1), expected)
