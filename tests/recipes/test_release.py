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
    files = [str(tmp_path / name) for name in ("one", "two")]
    release.main(["release", "--l3rs", str(tmp_path / "l3rs"), "--results", *files], tmp_path, tmp_path / "cards")
    assert (tmp_path / "cards/release" / PICTURE_NAME).read_bytes() == b"picture"
    card = (tmp_path / "cards/release/README.md").read_text()
    assert f"]({PICTURE_NAME})" in card and "| data |" in card
    assert load_network(tmp_path / "release").fingerprint() == network.fingerprint()
    assert read_results(tmp_path / "release/results.json") == results(network, "L3RS", "L3RS, untrained")


def test_results_of_other_meta_weights_are_refused(tmp_path):
    save_network(make_network(trained=True), tmp_path / "l3rs")
    write_results(results(make_network(), "L3RS"), tmp_path / "other.json")
    with pytest.raises(ArtifactError, match="measured with meta-weights") as error:
        options = ["--l3rs", str(tmp_path / "l3rs"), "--results", str(tmp_path / "other.json")]
        release.main(["release", *options], tmp_path, tmp_path / "cards")
    assert "\n" not in str(error.value) and not (tmp_path / "release").exists()
