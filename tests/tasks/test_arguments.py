"""What the settings of tasks allow. tests/bad_inputs/settings.py has what is refused."""

from hf_l3rs.tasks.task_arguments import DatasetArguments, TaskArguments


INF = float("inf")


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
