"""Work is shared out in order, and an error of the main process is everybody's."""

import pytest
from accelerate import Accelerator

from hf_l3rs.errors import DataError
from hf_l3rs.evaluation.workers import on_main_process, share_out


def test_outcomes_come_in_the_order_of_the_jobs():
    assert share_out(Accelerator(cpu=True), [3, 1, 2], lambda job: job * 10, "jobs") == [30, 10, 20]
    assert share_out(Accelerator(cpu=True), [], lambda job: job, "jobs") == []


def test_the_main_process_answers_or_fails_for_all():
    assert on_main_process(Accelerator(cpu=True), lambda: 7) == 7

    def fail():
        raise DataError("no images.")

    with pytest.raises(DataError, match="no images"):
        on_main_process(Accelerator(cpu=True), fail)
