import pytest

from hf_l3rs.errors import ConfigError
from hf_l3rs.evaluation.store import read_rows
from hf_l3rs.hub.artifact import load_network
from recipes import select_setting


@pytest.mark.parametrize(
    ("setting", "values"), [("adam_betas", ((0.9, 0.99), (0.6, 0.9))), ("batch_norm_momentum", (0.1, 0.9))]
)
def test_the_value_with_the_lowest_loss_is_saved(setting, values, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(select_setting.VALUES, setting, values)
    arguments = [
        "recipes/configs/resnet_tiny_fashion.yaml",
        f"--select={setting}",
        "--lengths=2",
        "--num_validation_runs=2",
        "--evaluation_size=50",
        f"--output_dir={tmp_path}",
    ]
    best = select_setting.main(arguments)
    losses = {}
    for row in read_rows(tmp_path / f"{setting}.csv"):
        losses.setdefault(row.optimizer, []).append(row.loss)
    start = load_network("hf_l3rs/released/l3rs-resnet-tiny-fashion").config
    assert list(losses) == [str(value) for value in (*values, getattr(start, setting))] and {
        len(each) for each in losses.values()
    } == {2}
    assert str(best) == min(losses, key=lambda name: sum(losses[name]))
    config = load_network(tmp_path / "l3rs").config
    assert getattr(config, setting) == best
    added = {
        name: config.meta_training[name] - start.meta_training[name] for name in ("inner_steps", "cost_in_plain_steps")
    }
    assert added == dict.fromkeys(added, 12)  # two values and its own, two runs each, of two steps
    assert f"{best}: " in capsys.readouterr().out


def test_several_models_are_refused():
    with pytest.raises(ConfigError, match="leave out more_base_models"):
        select_setting.main(["recipes/configs/resnet_tiny_fashion.yaml", "--more_base_models", "other"])
