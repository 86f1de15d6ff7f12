"""L3RS as its users meet it; the step itself is tested in tests/optimizer."""

import pickle
import subprocess
import sys

import torch
from torch import nn

from hf_l3rs import L3RS, L3RSArtifact
from tests.tiny import trained_network


def make_model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 3))


def test_loaded_saved_and_loaded_again(tmp_path):
    model = make_model()
    L3RSArtifact(trained_network(model)).save_pretrained(tmp_path / "one")
    optimizer = L3RS.from_pretrained(tmp_path / "one", params=model, lr=0.5, num_training_steps=7)
    assert optimizer.is_bound and optimizer.commit_hash is None
    assert L3RS.from_pretrained(tmp_path / "one", float32_copy=True).float32_copy
    assert (optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["num_training_steps"]) == (0.5, 7)
    optimizer.save_pretrained(tmp_path / "two")
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two")]
    assert files[0] == files[1]


def test_an_unbound_optimizer_meets_the_trainer_also_in_a_fresh_process():
    """A copy may be the first L3RS that a process sees."""
    data = pickle.dumps(L3RS(network=trained_network(make_model())))
    code = (
        "import pickle, sys; optimizer = pickle.loads(sys.stdin.buffer.read());"
        "import transformers.trainer as trainer;"
        "print([callback.__name__ for callback in trainer.DEFAULT_CALLBACKS], optimizer.is_bound)"
    )
    done = subprocess.run([sys.executable, "-c", code], input=data, capture_output=True)
    assert b"L3RSCallback" in done.stdout and done.stdout.rstrip().endswith(b"False"), done.stderr
