"""One verb from a run to its repository."""

import json

from hf_l3rs.hub.artifact import save_network
from hf_l3rs.hub.results import read_results, write_results
from tests.hub.examples import make_network, make_results


def test_an_output_folder_goes_with_all_that_was_measured(run, hub, tmp_path):
    network = make_network()
    save_network(network, tmp_path / "run/l3rs")
    write_results(make_results(network), tmp_path / "run/evaluation/results.json")
    status, out, err = run("push", tmp_path / "run", "me/name", "--json")
    assert (status, err) == (0, "")
    assert json.loads(out)["folder"] == str(tmp_path / "run/l3rs")
    repository = hub.repositories["me/name"]
    tree = repository.trees[repository.branches["main"]]
    assert set(tree) >= {"config.json", "model.safetensors", "results.json", "README.md"}
    assert b"No results stored yet" not in tree["README.md"] and b"data (test)" in tree["README.md"]
    assert read_results(tmp_path / "run/l3rs/results.json") == make_results(network)


def test_results_of_others_are_refused_where_they_are_named(run, hub, tmp_path):
    save_network(make_network(), tmp_path / "run/l3rs")
    write_results(make_results(make_network(1)), tmp_path / "run/results.json")
    assert run("push", tmp_path / "run", "me/name")[0] == 0
    assert not (tmp_path / "run/l3rs/results.json").exists()
    status, out, err = run("push", tmp_path / "run", "me/other", "--results", tmp_path / "run")
    assert (status, out, err.count("\n")) == (1, "", 1) and "other meta-weights" in err
    assert "me/other" not in hub.repositories
