"""The folders that runs write to and resume from: occupied, damaged, of another run."""

import json
import shutil

import torch
from filelock import FileLock

from tests.bad_inputs.doors import Row, damage_tensors, file, meta_evaluate as evaluate, meta_train as train, recipe


def continued(change=lambda folder: None, **changes):
    """Resumes a run whose folder `change` was done to."""

    def prepare(place):
        shutil.copytree(place.shared / "run", place / "out")
        change(place / "out")

    return train(prepare=prepare, **{"resume_from_checkpoint": "last", **changes})


def in_checkpoint(name, data):
    return lambda folder: (folder / "checkpoint-1" / name).write_bytes(data)


def cut(folder):
    file = folder / "checkpoint-1" / "state.safetensors"
    file.write_bytes(file.read_bytes()[:-8])


def of_nan(folder):
    damage_tensors(folder / "checkpoint-1" / "state.safetensors", lambda found: found["mean"].fill_(torch.nan))


def with_another_loss(folder):
    path = folder / "checkpoint-1" / "trainer_state.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "best_loss": 0.0}))


def emptied(folder):
    for path in (folder / "checkpoint-1").iterdir():
        path.unlink()


def in_use(place):
    place.lock = FileLock(place / "out" / ".lock")  # held as long as the row's place lives
    (place / "out").mkdir()
    place.lock.acquire()


DAMAGED = "None of the 1 checkpoints of .*out, checkpoint-1 the last, is intact; start anew"
UNREADABLE = "not a readable meta-training checkpoint .*; name another, or start anew"

ROWS = [
    Row("output_dir: a file", train(prepare=file("out")), "out cannot be written"),
    Row("output_dir: a name without end", train(output_dir="<own>/" + "a" * 300), "cannot be written"),
    Row("output_dir: of a run", continued(resume_from_checkpoint=None), "already holds checkpoint-1; resume with"),
    Row("output_dir: of a run that goes on", train(prepare=in_use), "Another run is using .*; wait until it ends"),
    Row("resume: no such checkpoint", train(resume_from_checkpoint="<own>/absent"), UNREADABLE),
    Row("resume: the run's folder", train(resume_from_checkpoint="<run>"), UNREADABLE),
    Row("resume: another seed", continued(seed=1), "differ from this run's in .*; restore them, or start anew"),
    Row("resume: another size of network", continued(hidden_sizes=[4]), "differ from this run's in .*; restore them"),
    Row("checkpoint: empty", continued(emptied), DAMAGED),
    Row("checkpoint: truncated", continued(cut), DAMAGED),
    Row("checkpoint: of NaN", continued(of_nan), DAMAGED),
    Row("checkpoint: no JSON", continued(in_checkpoint("trainer_state.json", b"{")), DAMAGED),
    Row("checkpoint: nested without end", continued(in_checkpoint("trainer_state.json", b"[" * 100_000)), DAMAGED),
    Row("checkpoint: a number was changed", continued(with_another_loss), DAMAGED),
    Row("evaluation's output_dir: a file", evaluate(prepare=file("out")), "out.* cannot be written"),
    Row("evaluation's search_dir: a file", evaluate(search_dir="<own>/file", prepare=file("file")),
        "file.* cannot be"),
    Row("demo: onto a file", recipe("demo", "--output_dir", "<own>/out", prepare=file("out")),
        "out cannot be written"),
    Row("demo: an unknown model", recipe("demo", "--model", "bert"), "model must be one of resnet, vit, got 'bert'"),
    Row("demo: an accuracy in percent", recipe("demo", "--target_accuracy", "93"),
        "target_accuracy must be in .*got 93"),
    Row("demo: a horizon that nobody searched", recipe("demo", "--horizons", "7"), "must be some of 10, 20.*got 7"),
    Row("select_setting: no step", recipe("select_setting", "recipes/configs/resnet_tiny_fashion.yaml", "--lengths",
        "0"), "lengths must be in .*got 0"),
    Row("build_digits: onto a file", recipe("data/build_digits", "<own>/out", prepare=file("out")), "out cannot be"),
]  # fmt: skip
