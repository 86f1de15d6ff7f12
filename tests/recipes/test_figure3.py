import pytest

from recipes import figure3
from recipes.evidence.grid import SETTINGS
from tests.evaluation.evaluate_tiny import make_inputs


GRID = """
base_model: {inputs}/base
l3rs: {inputs}/l3rs
datasets: [{inputs}/images]
num_classes: 3
batch_size: 4
evaluation_size: 12
baselines: [Adam at 1e-3]
horizons: [1, 2]
data_limit_max_steps: 0
num_tasks: 2
num_search_tasks: 1
output_dir: {output}
cells:
  in_domain: {{title: as it was trained}}
  random_initialisation: {{title: from nothing, initial_checkpoints: [random]}}
"""


def test_all_cells_by_one_command_which_goes_on(tmp_path):
    pytest.importorskip("matplotlib")
    inputs, output = make_inputs(tmp_path / "inputs"), tmp_path / "output"
    (tmp_path / "grid.yaml").write_text(GRID.format(inputs=inputs, output=output))
    text = figure3.main([str(tmp_path / "grid.yaml"), "--only", "in_domain"])
    assert "## A. as it was trained\n\n| steps |" in text and (output / "figure3.png").is_file()
    first = (output / "in_domain/rows.csv").read_bytes()
    text = figure3.main([str(tmp_path / "grid.yaml")])
    assert (output / "in_domain/rows.csv").read_bytes() == first
    assert text.index("## A. as it was trained") < text.index("## E. from nothing")
    assert text in (output / "summary.md").read_text()
    assert (output / "random_initialisation/rows.csv").read_bytes() != first
    for name in ("in_domain", "random_initialisation"):
        results = (output / name / "results.json").read_text()
        assert SETTINGS[name] in results and "python recipes/figure3.py" in results
