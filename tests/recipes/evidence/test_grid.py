from pathlib import Path

import pytest

from hf_l3rs import L3RSArtifact
from hf_l3rs.errors import ConfigError
from hf_l3rs.hub.artifact import released_names
from recipes.evidence.grid import LETTERS, SETTINGS, read_cells


CONFIGS = sorted(Path("recipes/configs").glob("figure3_*_tiny_fashion.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_configs_hold_the_papers_cells(path):
    cells = read_cells([str(path)])
    assert "".join(LETTERS[name] for name in cells) == "A. B. C. D. E. "
    for name, cell in cells.items():
        assert cell.evaluation.setting == SETTINGS[name]
        assert cell.evaluation.output_dir == f"outputs/{path.stem}/{name}"
        assert Path(cell.model.base_model).is_dir() and cell.evaluation.l3rs in released_names()
    longest = L3RSArtifact.from_pretrained(cells["in_domain"].evaluation.l3rs).config.num_training_steps
    horizons = {steps for cell in cells.values() for steps in cell.evaluation.horizons}
    assert min(horizons) == 10 and max(horizons) > 10 * longest
    starts = {name: cell.model.initial_checkpoints for name, cell in cells.items()}
    assert starts["in_domain"] == starts["other_domain"] == [] and starts["random_initialisation"] == ["random"]
    assert starts["other_initialisation"] == starts["other_both"] and "seed1" in starts["other_both"][0]
    paths = {name: cell.tasks.datasets[0].path for name, cell in cells.items()}
    assert {name for name, path in paths.items() if path == "outputs/digits"} == {"other_domain", "other_both"}
    assert len({cell.evaluation.title for cell in cells.values()}) == len(cells)


def test_the_universal_start_is_for_models_that_it_never_saw():
    cells = read_cells(["recipes/configs/figure3_universal_start.yaml"])
    seen = L3RSArtifact.from_pretrained("l3rs-universal-start").config.meta_training
    models = {cell.model.base_model for cell in cells.values()}
    assert "".join(LETTERS[name] for name in cells) == "" and len(models) == len(cells) == 5
    assert not models & {seen["base_model"], *seen["more_base_models"]}


def test_options_hold_for_all_cells_or_choose_some():
    cells = read_cells([str(CONFIGS[0]), "--horizons", "5", "--output_dir", "x", "--only", "other_both", "in_domain"])
    assert list(cells) == ["in_domain", "other_both"]
    assert {tuple(cell.evaluation.horizons) for cell in cells.values()} == {(5,)}
    assert cells["other_both"].evaluation.output_dir == str(Path("x/other_both"))
    with pytest.raises(ConfigError, match="Unknown cells nowhere; known are in_domain, "):
        read_cells([str(CONFIGS[0]), "--only", "nowhere"])


@pytest.mark.parametrize("cells", ["{}", "[in_domain]", "{nowhere: {}}", "{in_domain: 3}"])
def test_files_without_cells_are_refused(cells, tmp_path):
    (tmp_path / "grid.yaml").write_text(f"base_model: a\nl3rs: b\ndatasets: [c]\ncells: {cells}\n")
    with pytest.raises(ConfigError, match="must have, under cells, any of in_domain, .*; correct it"):
        read_cells([str(tmp_path / "grid.yaml")])
    with pytest.raises(ConfigError, match="A grid needs a YAML file with its cells"):
        read_cells(["--base_model", "a", "--l3rs", "b", "--datasets", "c"])


def test_a_cell_may_have_nothing_of_its_own(tmp_path):
    (tmp_path / "grid.yaml").write_text("base_model: a\nl3rs: b\ndatasets: [c]\nsetting: mine\ncells:\n  in_domain:\n")
    (cell,) = read_cells([str(tmp_path / "grid.yaml")]).values()
    assert (cell.model.base_model, cell.evaluation.setting) == ("a", "mine")
    (tmp_path / "grid.yaml").write_text("base_model: a\nl3rs: b\ndatasets: [c]\ncells: {in_domain: {horizon: [1]}}\n")
    with pytest.raises(ConfigError, match="Unknown settings in the YAML file: horizon; known are horizons"):
        read_cells([str(tmp_path / "grid.yaml")])
