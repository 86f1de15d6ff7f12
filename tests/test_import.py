"""The package is light to import, and its optimizer comes back in a process that has not seen it."""

import pickle
import subprocess
import sys

from hf_l3rs import L3RS
from tests.tiny import tiny_resnet, trained_network


SCRIPT = """
import sys
import hf_l3rs
names = dir(hf_l3rs)
heavy = ("torch", "transformers", "datasets", "evaluate", "huggingface_hub", "accelerate")
loaded = [name for name in heavy if name in sys.modules]
assert not loaded, loaded
assert set(names) == {*hf_l3rs.__all__, "__version__"} and hf_l3rs.__all__ == sorted(hf_l3rs.__all__)
hf_l3rs.L3RSConfig
assert not [name for name in heavy if name in sys.modules and name != "torch"]
"""


def test_import_is_light_and_silent():
    done = subprocess.run([sys.executable, "-W", "error", "-c", SCRIPT], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_every_public_name_is_there():
    import hf_l3rs

    for name in hf_l3rs.__all__:
        assert getattr(hf_l3rs, name).__name__ == name


def test_an_unbound_optimizer_meets_the_trainer_also_in_a_fresh_process():
    """A copy may be the first L3RS that a process sees."""
    data = pickle.dumps(L3RS(network=trained_network(tiny_resnet())))
    code = (
        "import pickle, sys; optimizer = pickle.loads(sys.stdin.buffer.read());"
        "import transformers.trainer as trainer;"
        "print([callback.__name__ for callback in trainer.DEFAULT_CALLBACKS], optimizer.is_bound)"
    )
    done = subprocess.run([sys.executable, "-c", code], input=data, capture_output=True)
    assert b"L3RSCallback" in done.stdout and done.stdout.rstrip().endswith(b"False"), done.stderr
