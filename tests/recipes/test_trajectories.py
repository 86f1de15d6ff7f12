import pytest

from hf_l3rs import L3RSArtifact
from hf_l3rs.errors import ConfigError
from hf_l3rs.hub.results import read_results
from recipes import release, trajectories
from recipes.evidence.behaviour import describe_behaviour
from recipes.evidence.trajectories import read_trajectory


CONFIG = "recipes/configs/resnet_tiny_fashion.yaml"


def test_what_was_seen_goes_onto_the_card(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    text = trajectories.main([CONFIG, "--num_steps=2", "--evaluation_size=50", f"--output_dir={tmp_path}"])
    table = read_trajectory(tmp_path / "trajectories.csv")
    assert text == describe_behaviour(table) and table.step.max() == 2 and text in capsys.readouterr().out
    l3rs = "hf_l3rs/released/l3rs-resnet-tiny-fashion"
    results = read_results(tmp_path / "behaviour.json")
    assert (results.entries, results.behaviour) == ((), text)
    assert results.fingerprint == L3RSArtifact.from_pretrained(l3rs).network.fingerprint()
    files = [f"{l3rs}/results.json", str(tmp_path / "behaviour.json")]
    release.main(["release", "--l3rs", l3rs, "--results", *files], tmp_path, tmp_path / "cards")
    assert text in (tmp_path / "cards/release/README.md").read_text()
    assert read_results(tmp_path / "release/results.json").entries == read_results(files[0]).entries


def test_several_models_are_refused():
    with pytest.raises(ConfigError, match="leave out more_base_models"):
        trajectories.main([CONFIG, "--more_base_models", "other"])


def test_an_l3rs_of_other_models_says_on_which_it_was_seen(tmp_path):
    pytest.importorskip("matplotlib")
    other = ["--l3rs=l3rs-universal-start", "--base_model=recipes/base_models/vit-tiny-fashion"]
    text = trajectories.main([CONFIG, *other, "--num_steps=2", "--evaluation_size=50", f"--output_dir={tmp_path}"])
    assert text.startswith("On vit-tiny-fashion, it takes its largest steps in the ")
