"""What processes do together, so that the result is the same for any number of them and none waits for a lost one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import torch
from accelerate import Accelerator

from hf_l3rs.errors import L3RSError, MetaTrainingError


class Processes:
    """
    The processes of a run.

    Args:
        accelerator (`Accelerator`): Knows them.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self._accelerator = accelerator

    def gather(self, shape: tuple[int, ...], size: int, work: Callable[[range], torch.Tensor]) -> torch.Tensor:
        """
        Shares out the rows of a tensor. What is worked out together is the same for any number of processes, so that
        rounding is, too.

        Args:
            shape (`tuple[int, ...]`): Of the tensor.
            size (`int`): Rows that are worked out together.
            work (`Callable`): Returns the rows of a range, on one process.

        Returns:
            `torch.Tensor`: All rows in float64, to the same bytes on every process.
        """
        rows = torch.zeros(shape, dtype=torch.float64)
        groups = [range(start, min(start + size, len(rows))) for start in range(0, len(rows), size)]
        for index in self.own(len(groups)):
            group = groups[index]
            rows[group.start : group.stop] = work(group) + 0.0  # -0 becomes 0, as it does in a sum
        return self._sum(rows)

    def own(self, count: int) -> range:
        """Returns which of so many pieces of work are this process's own, the same ones at every time."""
        return range(self._accelerator.process_index, count, self._accelerator.num_processes)

    def gather_bytes(self, count: int, work: Callable[[int], bytes]) -> list[bytes]:
        """Returns what the owner of each of so many pieces of work gives, on every process."""
        own = {index: work(index) for index in self.own(count)}
        if self._accelerator.num_processes == 1:
            return list(own.values())
        lengths = self.gather((count,), 1, lambda group: torch.tensor([float(len(own[group.start]))]))
        gathered = []
        for index, length in enumerate(lengths.long().tolist()):
            data = torch.zeros(length, dtype=torch.uint8)
            if index in own:
                data.copy_(torch.frombuffer(bytearray(own[index]), dtype=torch.uint8))
            gathered.append(self._sum(data).numpy().tobytes())
        return gathered

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any process."""
        return bool(self._sum(torch.tensor([float(flag)])).item())

    def on_main(self, action: Callable[[], int | None]) -> int:
        """Acts on the main process. All get its number, or fail with it, so that they stop together."""
        return self._together(action, self._accelerator.is_main_process)

    def on_each(self, action: Callable[[], None]) -> None:
        """Acts on every process. If it fails on one, all stop."""
        self._together(action, True)

    def check_agreement(self, vector: torch.Tensor) -> None:
        """
        Checks that a vector is the same, to the byte, on every process.

        Raises:
            MetaTrainingError: If it is not.
        """
        if self._accelerator.num_processes == 1:
            return
        digest = hashlib.sha256(vector.numpy().tobytes()).digest()
        checksum = torch.tensor([int.from_bytes(digest[:7], "little")], device=self._accelerator.device)
        checksums = self._accelerator.gather(checksum)
        if not bool((checksums == checksums[0]).all()):
            raise MetaTrainingError(
                "The processes' meta-weights differ, so they do not run the same program on the same data; use the "
                "same versions and settings on every machine."
            )

    def _together(self, action: Callable[[], int | None], acts: bool) -> int:
        failure: L3RSError | None = None
        number = 0
        if acts:
            try:
                number = action() or 0
            except L3RSError as error:
                failure = error
        failed, number_of_main = self._sum(torch.tensor([failure is not None, number], dtype=torch.float64)).tolist()
        if failed:
            raise failure or MetaTrainingError("Another process stopped the run; see its message.")
        return int(number_of_main)

    def _sum(self, values: torch.Tensor) -> torch.Tensor:
        """Each entry is zero on all processes but one, or a flag, so that the sum is exact whatever their number."""
        if self._accelerator.num_processes == 1:
            return values
        return self._accelerator.reduce(values.to(self._accelerator.device), reduction="sum").cpu()
