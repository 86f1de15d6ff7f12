import pytest

from hf_l3rs.errors import ConfigError
from hf_l3rs.evaluation.results import read_rows
from hf_l3rs.hub.artifact import load_network
from recipes import select_adam_betas


def test_the_decays_with_the_lowest_loss_are_saved(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(select_adam_betas, "BETAS", ((0.9, 0.99), (0.6, 0.9)))
    arguments = [
        "recipes/configs/evaluate_resnet_tiny_fashion.yaml",
        "--num_steps=2",
        "--num_validation_runs=2",
        "--evaluation_size=50",
        f"--output_dir={tmp_path}",
    ]
    best = select_adam_betas.main(arguments)
    losses = {}
    for row in read_rows(tmp_path / "betas.csv"):
        losses.setdefault(row.optimizer, []).append(row.loss)
    assert list(losses) == ["(0.9, 0.99)", "(0.6, 0.9)"] and {len(each) for each in losses.values()} == {2}
    assert str(best) == min(losses, key=lambda name: sum(losses[name]))
    config = load_network(tmp_path / "l3rs").config
    assert config.adam_betas == best
    assert f"{best}: " in capsys.readouterr().out


def test_several_models_are_refused():
    with pytest.raises(ConfigError, match="leave out more_base_models"):
        select_adam_betas.main(["recipes/configs/evaluate_resnet_tiny_fashion.yaml", "--more_base_models", "other"])
