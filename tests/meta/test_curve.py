"""The picture of a run is drawn from its metrics."""

import json

import pytest
from PIL import Image

from hf_l3rs.evaluation.plots import is_picture_of
from hf_l3rs.meta.curve import CURVE_NAME, draw_curve
from hf_l3rs.meta.run_folder import METRICS_NAME
from tests.meta.meta_train_tiny import make_trainer


pytest.importorskip("matplotlib")


def test_a_run_leaves_its_curve(tmp_path):
    make_trainer(str(tmp_path), 4).train()
    assert is_picture_of(tmp_path / CURVE_NAME, (tmp_path / METRICS_NAME).read_bytes())
    with Image.open(tmp_path / CURVE_NAME) as image:
        assert image.width > 400


@pytest.mark.parametrize("losses", [[], [None], [0.5, None, 0.4], [0.0]])
def test_what_is_no_number_is_left_out(losses, tmp_path):
    lines = [{"generation": index + 1, "validation_loss": loss} for index, loss in enumerate(losses)]
    lines = [{**line, "validation_loss_Adam": None, "validation_loss_Data limit": 0.1} for line in lines]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert draw_curve(tmp_path / "metrics.jsonl", tmp_path / "curve.png") == any(each is not None for each in losses)
    assert (tmp_path / "curve.png").exists() == any(each is not None for each in losses)
