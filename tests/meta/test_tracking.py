import pytest
from accelerate.state import AcceleratorState
from accelerate.utils import LoggerType

from hf_l3rs.errors import ConfigError
from hf_l3rs.meta import meta_trainer as tracking
from hf_l3rs.meta.meta_trainer import bar_figures, flat_scalars, make_accelerator, start_trackers


@pytest.fixture(autouse=True)
def accelerate_starts_anew():
    yield
    AcceleratorState._reset_state(True)


@pytest.mark.parametrize("name", ["excel", "", "Wandb"])
def test_an_unknown_tracker_is_refused_with_those_that_are_known(name):
    with pytest.raises(ConfigError, match="report_to must be one of .*tensorboard.*wandb.*, got") as error:
        make_accelerator(name)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("name", "package"), [("wandb", "wandb"), ("all", "any tracker")])
def test_a_tracker_whose_package_is_absent_is_refused(monkeypatch, name, package):
    monkeypatch.setattr(tracking, "get_available_trackers", list)
    with pytest.raises(ConfigError, match=f"the package of {package} is not installed; install it"):
        make_accelerator(name)


def test_trackers_that_write_files_get_a_folder(monkeypatch, tmp_path):
    """As tensorboard does, whose package need not be there for the test."""
    seen = {}
    monkeypatch.setattr(tracking, "get_available_trackers", lambda: ["tensorboard"])
    monkeypatch.setattr(tracking, "Accelerator", lambda **kwargs: seen.update(kwargs))
    make_accelerator("tensorboard", tmp_path)
    assert (seen["log_with"], seen["project_dir"]) == ("tensorboard", tmp_path)


def test_a_tracker_that_does_not_start_is_told_in_one_sentence_with_the_ways_out(monkeypatch):
    """As wandb does not without a login."""
    accelerator = make_accelerator()

    def refuse(*args, **kwargs):
        raise RuntimeError("No API key configured. Use `wandb login` to log in.")

    accelerator.log_with = [LoggerType.WANDB]
    monkeypatch.setattr(accelerator, "init_trackers", refuse)
    with pytest.raises(ConfigError, match=r"report_to is wandb, .* \(No API key configured\); .*offline") as error:
        start_trackers(accelerator, "project", {})
    assert "\n" not in str(error.value)


def test_without_a_tracker_nothing_is_written(tmp_path):
    assert make_accelerator(None, tmp_path / "out").log_with == []
    assert not (tmp_path / "out").exists()


def test_settings_become_flat_scalars():
    assert flat_scalars({"es": {"sigma": 0.1, "deep": {"x": "y"}}, "list": [1], "none": None, "on": True}) == {
        "es.sigma": 0.1,
        "es.deep.x": "y",
        "on": True,
    }


def test_the_bar_shows_references_by_name_and_what_is_not_finite():
    metrics = {"meta_loss": float("nan"), "inner_steps_per_second": 12.3, "validation_loss_Adam": float("inf")}
    assert bar_figures(metrics) == {"meta-loss": "nan", "Adam": "inf", "steps/s": "12"}
