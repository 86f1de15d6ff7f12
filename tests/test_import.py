import subprocess
import sys


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
