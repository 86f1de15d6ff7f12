"""Rivals from other packages: at their authors' defaults, and refused in a sentence where they are missing."""

import sys
from importlib.util import find_spec

import pytest

from hf_l3rs.errors import ConfigError
from hf_l3rs.evaluation.baselines import BASELINES, select_baselines
from hf_l3rs.evaluation.rivals import imported, ldog
from hf_l3rs.evaluation.trained_part import TrainedPart
from tests.meta.problems import make_model
from tests.tiny import tiny_resnet, tiny_vit


# What is imported of each package, and a baseline of it.
MODULES = {
    "schedulefree": ("schedulefree", "Schedule-free AdamW"),
    "prodigyopt": ("prodigyopt", "Prodigy"),
    "dadaptation": ("dadaptation", "DAdaptAdam"),
    "dog-optimizer": ("dog", "LDoG"),
    "pytorch-optimizer": ("pytorch_optimizer", "LAMB cosine"),
}


def test_every_package_is_among_them():
    assert {baseline.package for baseline in BASELINES.values()} - {None} == MODULES.keys()


@pytest.mark.parametrize("package", MODULES)
def test_a_missing_package_is_told_in_a_sentence(package, monkeypatch):
    module, name = MODULES[package]
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=rf"needs the package {package}.*pip install hf_l3rs\[rivals\]") as error:
        select_baselines(["Adam cosine", name])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("package", MODULES)
def test_identities_have_the_version(package):
    module, name = MODULES[package]
    pytest.importorskip(module)
    identity = BASELINES[name].identity
    assert identity["version"][0].isdigit() and identity["class"].startswith(f"{module}.")


def test_only_the_rate_is_set_where_nothing_is_tuned():
    for module, name in MODULES.values():
        if find_spec(module) and BASELINES[name].learning_rates == (1.0,):
            optimizer = BASELINES[name].make(TrainedPart(make_model()), 1.0)
            default = type(optimizer)(make_model().parameters(), lr=1.0)
            assert optimizer.defaults == default.defaults


def test_ldog_takes_a_larger_first_step_with_batch_norm():
    pytest.importorskip("dog")
    steps = [ldog(TrainedPart(model), 1.0).defaults["reps_rel"] for model in (tiny_resnet(), tiny_vit())]
    assert steps == [1e-4, 1e-6]


def test_what_a_package_lacks_is_no_missing_package():
    with pytest.raises(AttributeError):
        imported("torch", "torch.optim", "Lion")
