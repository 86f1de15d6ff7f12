"""What the settings of tasks allow: everything else is refused in one sentence with the value and what is allowed."""

import pytest

from hf_l3rs.errors import ConfigError
from hf_l3rs.tasks.task_arguments import DatasetArguments, ModelArguments, TaskArguments


NAN, INF = float("nan"), float("inf")
BAD = {
    ModelArguments: {
        "base_model": [None, 3, "", " ", ["model"]],
        "base_model_revision": [3, "", ["main"]],
        "initial_checkpoints": ["model", None, [3], [""], {"a": 1}],
        "more_base_models": ["model", None, [3], [""]],
        "trainable": ["", "last", "last:0", "last:-1", "last:01", "last:2 ", "ALL", "body", None, 2, ["all"]],
    },
    DatasetArguments: {
        "path": [None, 3, "", " ", ["path"]],
        "name": [3, ["default"]],
        "revision": [3, 1.5],
        "hub_id": [3],
        "batches_split": [None, "", 3, ["train"]],
        "evaluation_split": ["", 3],
        "validation_batches_split": [" ", 3],
        "validation_evaluation_split": ["", {}],
        "classes": ["cat", 3, [1.5], [True], [None], [["cat"]], {"cat": 0}],
        "image_column": [3],
        "label_column": [["label"]],
        "max_images": [0, -1, 2.5, "many", True, NAN],
        "max_memory_gb": [-1, NAN, "4", None],
    },
    TaskArguments: {
        "datasets": [None, [], "path", {"path": "data"}, {}, 3, [3], [None], [[]], [{}], [{"path": None}], [""]],
        "num_classes": [1, 0, -1, 2.5, "five", None, True, NAN, INF],
        "batch_size": [0, -1, 1.5, "32", None],
        "batch_sizes": [[0], [1.5], ["32"], None, 8],
        "evaluation_size": [0, -1, 512.0, None],
        "min_steps": [0, -1, 2**70, 1.5, None],
        "max_steps": [0, -1, 19, 2**70, 20.5, "fifty"],
        "curriculum_generations": [-1, 0.5, None],
        "spread_horizons": ["yes", None, 2],
        "augmentations": ["rotation", ["blur"], [3], None],
        "num_validation_tasks": [-1, 1.5, None],
    },
}
REQUIRED = {ModelArguments: {"base_model": "m"}, DatasetArguments: {"path": "d"}, TaskArguments: {"datasets": ["d"]}}


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [(kind, name, value) for kind, names in BAD.items() for name, values in names.items() for value in values],
)
def test_bad_values(kind, name, value):
    with pytest.raises(ConfigError) as error:
        kind(**{**REQUIRED[kind], name: value})
    message = str(error.value)
    assert "\n" not in message and len(message) < 400
    assert name in message or "A data set is a path" in message or "DatasetArguments.path" in message
    assert "must" in message or "A data set is a path" in message


@pytest.mark.parametrize("kind", BAD)
def test_every_field_is_covered(kind):
    assert list(BAD[kind]) == list(kind.__dataclass_fields__)


def test_values_at_the_edge_are_allowed():
    data = DatasetArguments("d", max_images=1, max_memory_gb=0, classes=["cat", 0])
    assert data.max_memory_gb == 0.0
    assert DatasetArguments("d", max_memory_gb=INF).max_memory_gb == INF
    tasks = TaskArguments(
        (data, "e", {"path": "f", "max_images": 2}), num_classes=2, batch_size=1, min_steps=1, max_steps=1
    )
    assert [dataset.path for dataset in tasks.datasets] == ["d", "e", "f"]
    assert tasks.datasets[2].max_images == 2
    assert tasks.longest_horizon == 1 and TaskArguments(["d"], min_steps=7).longest_horizon == 7


def test_splits_by_role():
    assert DatasetArguments("d", evaluation_split="test").splits == {
        "batches": "train",
        "evaluation": "test",
        "validation_batches": None,
        "validation_evaluation": None,
    }
