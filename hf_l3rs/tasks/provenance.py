"""Which images meta-training saw, and whether an evaluation would use them again."""

from __future__ import annotations

from typing import Any

from hf_l3rs.tasks.arguments import TaskArguments


def check_unseen(seen: list[dict[str, Any]] | None, task_args: TaskArguments, seed: int) -> None:
    """
    Refuses tasks on images that meta-training saw.

    Args:
        seen (`list[dict]`, *optional*): What the L3RS remembers of its data; nothing is known of older ones.
        task_args ([`~hf_l3rs.tasks.arguments.TaskArguments`]): The tasks.
        seed (`int`): Of the division of single splits.

    Raises:
        DataError: If an image could be one that meta-training saw.
    """
