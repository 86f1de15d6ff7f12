import pytest

from hf_l3rs.errors import ArtifactError
from hf_l3rs.hub.artifact import PICTURE_NAME, load_network, save_network
from hf_l3rs.hub.results import Result, Results, read_results, write_results
from recipes import release
from tests.meta.problems import make_network


def results(network, *names):
    sizes = {"num_training_steps": 10, "num_tasks": 2, "loss": 0.5, "command": "measure it"}
    return Results(network.fingerprint(), tuple(Result(name, "org/data", "test", **sizes) for name in names))


def test_a_release_holds_what_was_measured_with_it_each_measurement_once(tmp_path):
    network = make_network(trained=True)
    save_network(network, tmp_path / "l3rs")
    for name in ("one", "two"):
        write_results(results(network, "L3RS", "L3RS, untrained"), tmp_path / name)
    (tmp_path / PICTURE_NAME).write_bytes(b"picture")
    release.main([str(tmp_path / name) for name in ("l3rs", "release", "one", "two")])
    assert (tmp_path / "release" / PICTURE_NAME).read_bytes() == b"picture"
    assert f"]({PICTURE_NAME})" in (tmp_path / "release/README.md").read_text()
    assert load_network(tmp_path / "release").fingerprint() == network.fingerprint()
    assert read_results(tmp_path / "release/results.json") == results(network, "L3RS")
    assert "data (test)" in (tmp_path / "release/README.md").read_text()


def test_results_of_other_meta_weights_are_refused(tmp_path):
    save_network(make_network(trained=True), tmp_path / "l3rs")
    write_results(results(make_network(), "L3RS"), tmp_path / "other.json")
    with pytest.raises(ArtifactError, match="measured with other meta-weights") as error:
        release.main([str(tmp_path / name) for name in ("l3rs", "release", "other.json")])
    assert "\n" not in str(error.value) and not (tmp_path / "release").exists()
