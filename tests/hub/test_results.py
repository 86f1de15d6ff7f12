"""Measured results: strictly checked, the same after a file, and only beside the meta-weights that they are of."""

import json
from dataclasses import replace

import pytest

from hf_l3rs.errors import ArtifactError
from hf_l3rs.hub.results import Result, Results, read_results, write_results


RESULT = Result(
    optimizer="L3RS",
    dataset="org/data",
    split="test",
    num_training_steps=20,
    num_tasks=12,
    loss=0.2221,
    command="python recipes/meta_evaluate.py config.yaml",
    setting="in domain",
    accuracy=0.9234,
    baseline="Adam",
    baseline_loss=0.308,
    wins=11,
    step_ratio=2.5,
    hub_id="org/data",
)
RESULTS = Results("0123456789abcdef", (RESULT, replace(RESULT, optimizer="untrained L3RS", loss=0.499, hub_id=None)))


def test_results_survive_their_file(tmp_path):
    write_results(RESULTS, tmp_path / "results.json")
    assert read_results(tmp_path / "results.json") == RESULTS
    before = (tmp_path / "results.json").read_bytes()
    write_results(read_results(tmp_path / "results.json"), tmp_path / "results.json")
    assert (tmp_path / "results.json").read_bytes() == before


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"loss": float("nan")}, r"loss must be in \[0, inf\], got nan"),
        ({"loss": None}, "loss must be"),
        ({"command": " "}, "command must be text"),
        ({"num_tasks": 1.5}, "num_tasks must be a whole number"),
        ({"num_tasks": True}, "num_tasks must be a whole number"),
        ({"accuracy": 92.3}, "do not store percent"),
        ({"wins": 13}, "at most num_tasks=12"),
    ],
)
def test_invalid_result(changes, words):
    with pytest.raises(ArtifactError, match=words):
        replace(RESULT, **changes)


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda content: content.update(format_version=2), "pip install -U hf_l3rs"),
        (lambda content: content.update(more=1), "must hold exactly"),
        (lambda content: content.pop("fingerprint"), "must hold exactly"),
        (lambda content: content["results"][1].pop("loss"), "Entry 1 .* 'loss'"),
        (lambda content: content["results"][0].update(speed=1), "Entry 0 .* 'speed'"),
        (lambda content: content["results"].append(3), "Entry 2 "),
    ],
)
def test_invalid_results_file(tmp_path, change, words):
    file = tmp_path / "results.json"
    write_results(RESULTS, file)
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
    with pytest.raises(ArtifactError, match=words) as error:
        read_results(file)
    assert "\n" not in str(error.value)


def test_results_file_that_is_not_json(tmp_path):
    (tmp_path / "results.json").write_text("{")
    with pytest.raises(ArtifactError, match="measure again, or remove the file"):
        read_results(tmp_path / "results.json")
