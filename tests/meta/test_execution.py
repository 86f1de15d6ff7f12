"""How a run may be executed: in low precision, over several models, in more processes than there are samples."""

import math

import pytest
import torch
from accelerate import Accelerator, debug_launcher
from accelerate.state import AcceleratorState
from safetensors.torch import load_file

from hf_l3rs.meta.checkpoint import TENSORS_NAME
from hf_l3rs.meta.meta_trainer import MetaTrainer
from tests.meta.meta_train_tiny import make_trainer


SEGMENTS = {"estimator": "segments", "num_tasks": 3, "segment_steps": 2}


def train(folder, generations=2, **changes):
    trainer = make_trainer(str(folder), generations, **changes)
    trainer.train()
    return trainer.progress.state.mean


@pytest.fixture(autouse=True)
def accelerate_starts_anew():
    yield
    AcceleratorState._reset_state(True)


def score(folder, precision, **changes):
    """The candidates' meta-losses in a precision, and the type that the model's layers computed in."""
    first = make_trainer(folder, validation_interval=0, **changes)
    AcceleratorState._reset_state(True)  # each process has one, which keeps its first precision
    accelerator = Accelerator(cpu=True, mixed_precision=precision)
    trainer = MetaTrainer(first.network, first.tasks, first.outer, first.args, accelerator=accelerator)
    dtypes = set()
    trainer.tasks.models[0].encoder.register_forward_hook(lambda module, args, output: dtypes.add(output.dtype))
    pairs = [trainer.estimator.score_pair(trainer.progress.state, pair) for pair in range(3)]
    losses = torch.tensor(pairs, dtype=torch.float64)[..., 0]
    assert {parameter.dtype for parameter in trainer.tasks.models[0].parameters()} == {torch.float32}
    return losses, dtypes


def test_mixed_precision_comes_from_accelerate(tmp_path):
    exact, exact_types = score(str(tmp_path), "no")
    mixed, mixed_types = score(str(tmp_path), "bf16")
    assert (exact_types, mixed_types) == ({torch.float32}, {torch.bfloat16})
    assert torch.isfinite(mixed).all()
    assert not torch.equal(mixed, exact)
    torch.testing.assert_close(mixed, exact, atol=0.05, rtol=0.05)


def train_in_process(folder, changes):
    AcceleratorState._reset_state(True)  # the state of the process that this one was forked from
    trainer = make_trainer(folder, 2, **changes)
    assert trainer.accelerator.num_processes == 2
    trainer.train()
    if trainer.accelerator.is_main_process:
        torch.save(trainer.progress.state.mean, f"{folder}/mean.pt")


@pytest.mark.distributed
@pytest.mark.parametrize(
    "changes",
    [
        {"outer": {"num_pairs": 1}},  # nothing to do for the second process
        {"outer": {"estimator": "gradient", "num_tasks": 3}},
        {"outer": SEGMENTS},
        {"outer": {**SEGMENTS, "num_whole_runs": 1}, "mixture": True},
    ],
    ids=["one pair", "gradient", "segments", "segments of several models"],
)
def test_uneven_shares_of_two_processes_give_the_bytes_of_one(tmp_path, changes):
    one = train(tmp_path / "one", **changes)
    AcceleratorState._reset_state(True)
    debug_launcher(train_in_process, (str(tmp_path / "two"), changes), num_processes=2)
    two = torch.load(tmp_path / "two" / "mean.pt", weights_only=True)
    assert torch.equal(one, two) and math.isfinite(float(two.sum()))


@pytest.mark.distributed
def test_segments_go_on_in_another_number_of_processes(tmp_path):
    """Invariant 6: runs that are carried over by two processes are taken up by one, and the other way round."""
    changes = {"outer": {**SEGMENTS, "segment_steps": 1}, "checkpoint_interval": 1}
    whole = train(tmp_path / "whole", 5, **changes)
    for folder, order in (("two first", (2, 1)), ("one first", (1, 2))):
        for count, resume in zip(order, (None, "last")):
            options = {**changes, "resume_from_checkpoint": resume}
            folder_of_run = str(tmp_path / folder)
            AcceleratorState._reset_state(True)
            if count == 1:
                trainer = make_trainer(folder_of_run, 5, **options)
                stop_at(trainer, 3 if resume is None else 5)
                trainer.train()
            else:
                arguments = (folder_of_run, options, 3 if resume is None else 5)
                debug_launcher(train_part_in_process, arguments, num_processes=2)
        tensors = load_file(tmp_path / folder / "checkpoint-5" / TENSORS_NAME)
        assert torch.equal(tensors["mean"], whole)
        expected = load_file(tmp_path / "whole" / "checkpoint-5" / TENSORS_NAME)
        assert tensors.keys() == expected.keys()
        assert all(torch.equal(tensor, expected[name]) for name, tensor in tensors.items())


def stop_at(trainer, generation):
    trainer._all_agree_to_stop = lambda: trainer.progress.state.generation == generation


def train_part_in_process(folder, changes, generation):
    AcceleratorState._reset_state(True)
    trainer = make_trainer(folder, 5, **changes)
    stop_at(trainer, generation)
    trainer.train()


@pytest.mark.parametrize("estimator", ["evolution", "gradient", "segments"])
def test_every_estimator_trains_every_model(tmp_path, estimator):
    trainer = make_trainer(str(tmp_path), 2, mixture=True, outer={**SEGMENTS, "estimator": estimator})
    before = trainer.network.to_vector()
    called = {model: 0 for model in trainer.tasks.models}
    for model in called:
        model.register_forward_hook(lambda model, *_: called.update({model: called[model] + 1}))
    assert not torch.equal(trainer.train().to_vector(), before)
    assert len(called) == 3 and min(called.values()) > 0
    assert trainer.progress.cost["num_diverged"] == 0
