"""What processes do together: results to the byte, and no process that waits for a lost one."""

import pytest
import torch
from accelerate import Accelerator, debug_launcher
from accelerate.state import AcceleratorState

from hf_l3rs.errors import ConfigError, MetaTrainingError
from hf_l3rs.meta.outer import Estimate, Estimator
from hf_l3rs.meta.processes import Processes
from tests.meta.meta_train_tiny import make_trainer


@pytest.fixture(autouse=True)
def accelerate_starts_anew():
    yield
    AcceleratorState._reset_state(True)


class VectorEstimator(Estimator):
    """As exact meta-gradients will be: a sample is a task, and gives a vector and figures; one of them fails."""

    num_tasks = 5

    def __init__(self, processes, dimension):
        self.processes, self.dimension = processes, dimension

    def estimate(self, state):
        rows = self.processes.gather((self.num_tasks, self.dimension + 1), 1, lambda tasks: self.work(state, tasks))
        usable = torch.isfinite(rows).all(dim=1)
        total = torch.zeros_like(state.mean)
        for row in rows[usable]:
            total += row[:-1].to(total.dtype)
        num_bad = int((~usable).sum())
        return Estimate(total / self.num_tasks, self.num_tasks, num_bad, 7, 7.0, {"loss": float(rows[0, -1])})

    def cost_of_generation(self, num_steps):
        return self.num_tasks * num_steps

    def work(self, state, tasks):
        rows = torch.empty(len(tasks), self.dimension + 1, dtype=torch.float64)
        for row, task in zip(rows, tasks):
            generator = torch.Generator().manual_seed(1000 * state.generation + task)
            row.copy_(torch.randn(self.dimension + 1, generator=generator))
            row[task] = torch.nan if task == 3 else -0.0
        return rows


def train(folder):
    trainer = make_trainer(folder, 3)
    trainer.estimator = VectorEstimator(trainer.processes, len(trainer.progress.state.mean))
    trainer.train()
    return trainer


def in_two_processes(folder):
    AcceleratorState._reset_state(True)  # the state of the process that this one was forked from
    trainer = train(folder)
    processes = trainer.processes
    assert trainer.accelerator.num_processes == 2
    is_main = trainer.accelerator.is_main_process
    if is_main:
        torch.save(trainer.progress.state.mean, f"{folder}/mean.pt")

    def fail():
        raise ConfigError("The main process's own sentence.")

    with pytest.raises(ConfigError if is_main else MetaTrainingError, match="own sentence|Another process stopped"):
        processes.on_main(fail)
    with pytest.raises(MetaTrainingError if is_main else ConfigError):
        processes.on_each(lambda: None if is_main else fail())
    assert processes.on_main(lambda: 7 if is_main else 1 / 0) == 7
    assert processes.any(not is_main) and not processes.any(False)
    rank = int(not is_main)
    assert list(processes.own(3)) == [[0, 2], [1]][rank]
    assert processes.gather_bytes(3, lambda index: bytes([rank, 128]) * (index + 1)) == [
        bytes([0, 128]), bytes([1, 128]) * 2, bytes([0, 128]) * 3
    ]  # fmt: skip
    processes.check_agreement(torch.ones(3))
    with pytest.raises(MetaTrainingError, match="same versions and settings"):
        processes.check_agreement(torch.full((3,), float(is_main)))


@pytest.mark.distributed
def test_two_processes_do_what_one_does_and_stop_together(tmp_path):
    """Invariant 6, also for an estimator whose samples give vectors."""
    one = train(str(tmp_path / "one"))
    assert one.progress.cost["num_diverged"] == 3 and one.progress.cost["inner_steps"] == 21
    AcceleratorState._reset_state(True)
    debug_launcher(in_two_processes, (str(tmp_path / "two"),), num_processes=2)
    two = torch.load(tmp_path / "two" / "mean.pt", weights_only=True)
    assert torch.equal(one.progress.state.mean, two) and bool(torch.isfinite(two).all())


def test_groups_are_the_same_for_any_number_of_processes():
    seen = []
    rows = Processes(Accelerator(cpu=True)).gather(
        (5, 2), 2, lambda group: seen.append(group) or torch.full((len(group), 2), -0.0)
    )
    assert seen == [range(0, 2), range(2, 4), range(4, 5)]
    assert rows.dtype == torch.float64 and not rows.signbit().any()


def test_bytes_arrive_as_they_are():
    processes = Processes(Accelerator(cpu=True))
    assert list(processes.own(2)) == [0, 1]
    assert processes.gather_bytes(3, lambda index: b"\x80" * index) == [b"", b"\x80", b"\x80\x80"]
