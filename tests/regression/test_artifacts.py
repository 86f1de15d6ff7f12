"""
Artefacts that earlier versions wrote still load and still decide the same. A folder here is never written again: a new
format gets a new one.

    python -m tests.regression.test_artifacts tests/regression/v1     # how v1 was made, by hf_l3rs 0.1.0
"""

import json
import sys
from pathlib import Path

import pytest
import torch

from hf_l3rs import L3RS
from hf_l3rs.hub.artifact import load_network, save_network
from tests.meta.problems import make_model, make_network


FOLDERS = sorted(path for path in Path(__file__).parent.glob("v*") if path.is_dir())
NUM_STEPS = 5


def fine_tune(network):
    """Three steps of a fixed problem, and what there is to see of them."""
    model = make_model()
    optimizer = L3RS(model, network=network, num_training_steps=NUM_STEPS)
    rng = torch.Generator().manual_seed(0)
    for _ in range(3):
        images = torch.randn(6, 3, 4, 4, generator=rng)
        optimizer.zero_grad()
        loss = model(images, torch.arange(6) % 3).loss
        loss.backward()
        optimizer.step(loss)
    weights = {name: parameter.detach().norm().item() for name, parameter in model.named_parameters()}
    return {**optimizer.statistics(), **weights}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_old_artefacts_load_and_decide_the_same(folder):
    expected = json.loads((folder / "expected.json").read_text())
    network = load_network(folder)
    assert network.fingerprint() == expected.pop("fingerprint")
    assert fine_tune(network) == pytest.approx(expected, rel=1e-4)


def test_there_are_some():
    assert FOLDERS


if __name__ == "__main__":
    target = Path(sys.argv[1])
    trained = make_network(trained=True)
    save_network(trained, target)
    values = {"fingerprint": trained.fingerprint(), **fine_tune(trained)}
    (target / "expected.json").write_text(json.dumps(values, indent=2) + "\n")
