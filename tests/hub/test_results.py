"""Measured results: strictly checked, the same after a file, and only beside the meta-weights that they are of."""

import json
import math
from dataclasses import replace

import pytest

from hf_l3rs.errors import ArtifactError, StorageError
from hf_l3rs.hub.results import Result, Results, read_results, read_results_of, write_results


RESULT = Result(
    optimizer="L3RS",
    dataset="org/data",
    split="test",
    num_training_steps=20,
    num_tasks=12,
    loss=0.2221,
    command="python -m recipes.evaluate config.yaml",
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
        ({"wins": -1}, r"wins must be in \[0, inf\)"),
        ({"loss": -0.1}, "loss must be in"),
        ({"loss": True}, "loss must be a number"),
        ({"loss": "0.1"}, "loss must be a number"),
        ({"loss_stderr": float("inf")}, "loss_stderr must be in"),
        ({"step_ratio": float("nan")}, "step_ratio must be in"),
        ({"step_ratio_high": float("inf")}, "step_ratio_high must be in"),
        ({"step_ratio_bound": "about"}, "step_ratio_bound must be"),
        ({"baseline_accuracy": 1.5}, "do not store percent"),
        ({"accuracy": float("nan")}, "accuracy must be in"),
        ({"data_limit_loss": -0.1}, "data_limit_loss must be in"),
        ({"data_limit_loss": float("nan")}, "data_limit_loss must be in"),
        ({"setting": 3}, "setting must be text"),
        ({"dataset": {"path": "x"}}, "dataset must be text"),
        ({"hub_id": "../outputs/digits"}, "hub_id must be an id"),
        ({"hub_id": "a](b"}, "hub_id must be an id"),
    ],
)
def test_invalid_result(changes, words):
    with pytest.raises(ArtifactError, match=words) as error:
        replace(RESULT, **changes)
    assert str(error.value).isprintable() and str(error.value).endswith(".")


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda content: content.update(format_version=2), "pip install -U hf_l3rs"),
        (lambda content: content.update(more=1), "must hold exactly"),
        (lambda content: content.pop("fingerprint"), "must hold exactly"),
        (lambda content: content["results"][1].pop("loss"), "Entry 1 .* 'loss'"),
        (lambda content: content["results"][0].update(speed=1), "Entry 0 .* 'speed'"),
        (lambda content: content["results"].append(3), "Entry 2 "),
        (lambda content: content["results"].append([["loss", 1]]), "Entry 2 "),
        (lambda content: content["results"][0].update({"a\n\x1b": 1}), "Entry 0 "),
        (lambda content: content["results"][0].update(loss="big"), "Entry 0 .*loss must be a number"),
        (lambda content: content["results"][0].update(setting="infinity", wins="infinity"), "Entry 0 .*wins"),
        (lambda content: content["results"][0].update(command=[1]), "Entry 0 .*command must be text"),
        (lambda content: content.update(results={}), "must hold exactly"),
        (lambda content: content.update(fingerprint=3), "16 hexadecimal digits"),
        (lambda content: content.update(fingerprint="\x1b[31m"), "16 hexadecimal digits"),
        (lambda content: content.update(format_version=[1]), r"format_version \[1\]"),
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
    assert str(error.value).isprintable() and str(error.value).endswith(".")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 100_000])
def test_results_file_that_is_not_json(tmp_path, content):
    (tmp_path / "results.json").write_bytes(content)
    with pytest.raises(ArtifactError, match="measure again, or remove the file") as error:
        read_results(tmp_path / "results.json")
    assert "\n" not in str(error.value)


def test_diverged_runs_survive_strict_json(tmp_path):
    results = replace(
        RESULTS, entries=(replace(RESULT, **dict.fromkeys(("loss", "baseline_loss", "data_limit_loss"), math.inf)),)
    )
    write_results(results, tmp_path / "results.json")
    text = (tmp_path / "results.json").read_text()
    assert json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert read_results(tmp_path / "results.json") == results


@pytest.mark.parametrize(
    "dataset, hub_id, shown",
    [
        ("outputs/digits", None, "digits"),
        ("/home/somebody/digits/", None, "digits"),
        ("C:\\data\\digits", None, "digits"),
        ("scikit-learn digits", None, "scikit-learn digits"),
        ("recipes/data/fashion", "org/fashion", "org/fashion"),
        ("/", None, "/"),
    ],
)
def test_data_is_shown_without_the_way_to_it(dataset, hub_id, shown):
    assert replace(RESULT, dataset=dataset, hub_id=hub_id).shown_dataset == shown


def test_results_of_certain_meta_weights(tmp_path, caplog):
    file = tmp_path / "results.json"
    assert read_results_of(RESULTS.fingerprint, file) is None
    write_results(RESULTS, file)
    assert read_results_of(RESULTS.fingerprint, file, strict=True) == RESULTS
    assert not caplog.records
    assert read_results_of("f" * 16, file) is None
    assert f"measured with meta-weights {RESULTS.fingerprint}" in caplog.text and "leaves it out" in caplog.text
    with pytest.raises(ArtifactError, match="measure again, or remove the file"):
        read_results_of("f" * 16, file, strict=True)


@pytest.mark.parametrize(
    "losses, share",
    [
        ((0.2, 0.3, 0.1), 0.5),
        ((0.1, 0.3, 0.1), 1.0),
        ((0.35, 0.3, 0.1), -0.25),
        ((0.2, 0.3, None), None),
        ((0.2, None, 0.1), None),
        ((0.2, 0.3, 0.3), None),
        ((0.2, 0.3, 0.29), None),  # a gap within the noise
        ((0.2, 0.3, math.inf), None),
        ((0.2, math.inf, 0.1), None),
        ((math.inf, 0.3, 0.1), None),
    ],
)
def test_share_of_the_gap_that_is_closed(losses, share):
    result = replace(RESULT, **dict(zip(("loss", "baseline_loss", "data_limit_loss"), losses)))
    assert result.gap_closed == (share if share is None else pytest.approx(share))


def test_a_file_without_a_data_limit_is_read(tmp_path):
    write_results(replace(RESULTS, entries=(replace(RESULT, data_limit_loss=0.1), RESULT)), tmp_path / "results.json")
    first, second = json.loads((tmp_path / "results.json").read_text())["results"]
    assert (first["data_limit_loss"], "gap_closed" in first, "data_limit_loss" in second) == (0.1, False, False)
    assert [each.data_limit_loss for each in read_results(tmp_path / "results.json").entries] == [0.1, None]


def test_results_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(StorageError, match="choose another"):
        write_results(RESULTS, tmp_path / "file" / "results.json")


def test_behaviour_survives_its_file_and_is_left_out_where_nobody_knows(tmp_path):
    file = tmp_path / "results.json"
    write_results(RESULTS, file)
    assert "behaviour" not in json.loads(file.read_text()) and read_results(file).behaviour is None
    write_results(replace(RESULTS, entries=(), behaviour="It takes small steps."), file)
    assert read_results(file) == Results(RESULTS.fingerprint, (), "It takes small steps.")
    file.write_text(file.read_text().replace('"It takes small steps."', "3"))
    with pytest.raises(ArtifactError, match="a text on behaviour"):
        read_results(file)
