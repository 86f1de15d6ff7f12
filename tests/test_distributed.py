"""Work is shared out in order, and what fails on one process fails on all."""

import pytest
import torch
from accelerate import Accelerator, debug_launcher
from accelerate.state import AcceleratorState

from hf_l3rs.distributed import on_every_process, on_main_process, share_out
from hf_l3rs.errors import DataError


@pytest.fixture(autouse=True)
def accelerate_starts_anew():
    yield
    AcceleratorState._reset_state(True)


def fail():
    raise DataError("no images.")


def test_one_process_does_everything_itself():
    accelerator = Accelerator(cpu=True)
    assert share_out(accelerator, [3, 1, 2], lambda job: job * 10, "jobs") == [30, 10, 20]
    assert share_out(accelerator, [], lambda job: job) == []
    assert on_main_process(accelerator, lambda: 7) == 7
    assert on_every_process(accelerator, lambda: 7) == [7]
    for together in (on_main_process, on_every_process):
        with pytest.raises(DataError, match="no images"):
            together(accelerator, fail)


def in_two_processes():
    AcceleratorState._reset_state(True)  # the state of the process that this one was forked from
    accelerator = Accelerator(cpu=True)
    assert accelerator.num_processes == 2
    is_main = accelerator.is_main_process
    assert share_out(accelerator, [3, 1, 2], lambda job: job * 10) == [30, 10, 20]
    vectors = share_out(accelerator, range(3), lambda job: torch.tensor([-0.0, job / 3], dtype=torch.float64))
    assert [vector.tolist() for vector in vectors] == [[0.0, job / 3] for job in range(3)]
    assert all(vector[0].signbit() for vector in vectors)
    assert share_out(accelerator, [1], lambda job: job) == [1]
    assert on_main_process(accelerator, lambda: 7 if is_main else 1 / 0) == 7
    assert on_every_process(accelerator, lambda: is_main) == [True, False]
    with pytest.raises(DataError, match="no images"):
        on_main_process(accelerator, fail)
    with pytest.raises(DataError, match="no images"):
        on_every_process(accelerator, lambda: None if is_main else fail())


@pytest.mark.distributed
def test_two_processes_give_the_bytes_of_one_and_fail_together():
    debug_launcher(in_two_processes, num_processes=2)
