import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.tiny import assert_same


ROOT = Path(__file__).parents[2]
RUNS = ["stock_resnet", "stock_vit", "stock_vit_local", "exact_resnet", "exact_vit"]

pytestmark = pytest.mark.distributed


@pytest.fixture(scope="session")
def ranks(tmp_path_factory):
    """What each of two processes saw."""
    folder = tmp_path_factory.mktemp("ddp")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "ACCELERATE_USE_CPU": "true"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), environment.get("PYTHONPATH", "")])
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*launch, str(Path(__file__).with_name("train_two.py")), str(folder)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("run", ["loop", *RUNS])
def test_replicas_are_bit_identical(run, ranks):
    one, other = (rank[run] for rank in ranks)
    assert one["is_ddp"]
    assert one["seen"] == other["seen"] and len(one["seen"]) == 3
    assert_same(one["parameters"], other["parameters"])
    assert_same(one["state"], other["state"])


def test_loop_sees_the_mean_over_processes(ranks):
    local = torch.tensor([rank["loop"]["local"] for rank in ranks], dtype=torch.float64)
    assert not torch.equal(local[0], local[1])
    assert ranks[0]["loop"]["seen"] == pytest.approx(local.view(2, 3, 2).mean(dim=(0, 2)).tolist(), rel=1e-6)


@pytest.mark.parametrize("run", RUNS)
def test_trainer_sees_the_loss_that_it_logs(run, ranks):
    assert ranks[0][run]["seen"] == pytest.approx(ranks[0][run]["logged"], rel=1e-6)
    assert max(ranks[0][run]["seen"]) < 3.0  # not multiplied by accumulation steps or processes: log(4) is 1.39


def test_a_process_without_a_loss_takes_the_same_step(ranks):
    """Invariant 9: it does not hang the others, and what is no number counts as missing."""
    nan = float("nan")
    one, other = (rank["uneven"] for rank in ranks)
    for rank in (one, other):
        assert rank["seen"] == pytest.approx([1.5, 2.0, 3.0, 2.0, 3.0, nan, nan], nan_ok=True)
    assert_same(one["parameters"], other["parameters"])
    assert all(value.isfinite().all() for value in one["parameters"].values())
    assert_same(one["state"], other["state"])


def test_a_loss_that_one_process_does_not_see_is_no_error(ranks):
    one, other = (rank["deaf_one"] for rank in ranks)
    assert one["error"] is None and one["seen"] == other["seen"] and len(one["seen"]) == 3
    assert_same(one["parameters"], other["parameters"])
    assert_same(one["state"], other["state"])


def test_a_loss_that_no_process_sees_is_refused_by_all(ranks):
    for rank in ranks:
        assert "use hf_l3rs.L3RSTrainer" in rank["deaf_all"]["error"]
        assert rank["deaf_all"]["seen"] == []
