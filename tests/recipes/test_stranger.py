"""Meta-training as recipes/README.md shows it to somebody with images of their own."""

import json
import subprocess
import sys

import pytest

from hf_l3rs.hub.artifact import load_network


@pytest.mark.slow
def test_handwritten_digits_from_the_template(tmp_path):
    pytest.importorskip("sklearn")
    images, output = tmp_path / "digits", tmp_path / "l3rs"
    subprocess.run([sys.executable, "recipes/data/build_digits.py", str(images)], check=True)
    command = [
        *(sys.executable, "-m", "recipes.meta_train", "recipes/configs/template.yaml"),
        *("--base_model", "recipes/base_models/resnet-tiny-fashion", "--datasets", str(images)),
        *("--evaluation_size", "100", "--num_generations", "30", "--output_dir", str(output)),
    ]
    subprocess.run(command, check=True)
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    last = lines[-1]
    assert len(lines) == 30
    assert last["best_validation_loss"] < 0.8 * last["validation_loss_untrained"]
    assert load_network(output / "l3rs").config.meta_training["best_generation"] > 0
