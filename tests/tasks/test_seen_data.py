"""An evaluation on images that meta-training saw is refused; one that only looks like it is not."""

import json
import os
from pathlib import Path

import datasets
import pytest
import yaml

from hf_l3rs import L3RSConfig, describe_layers
from hf_l3rs.errors import ArtifactError, DataError
from hf_l3rs.tasks.seen_data import check_unseen, describe_data, seen_data, splits_overlap
from hf_l3rs.tasks.task_arguments import TaskArguments
from tests.meta.problems import make_model


CONFIGS = Path(__file__).parents[2] / "recipes" / "configs"
NAMED = {
    "batches_split": "train",
    "evaluation_split": "test",
    "validation_batches_split": "valid_a",
    "validation_evaluation_split": "valid_b",
}


def tasks(*datasets, **changes):
    return TaskArguments([{"path": "owner/data", **dataset} for dataset in datasets], **changes)


def record(*datasets, seed=0, **changes):
    """What an artefact remembers, as it comes back from its JSON file."""
    data = describe_data(tasks(*datasets, **changes), seed)
    config = L3RSConfig(describe_layers(make_model().named_parameters()), meta_training={"data": data})
    return seen_data(L3RSConfig.from_dict(json.loads(json.dumps(config.to_dict()))).meta_training)


def test_the_record():
    (entry,) = record({**NAMED, "hub_id": "a/b", "revision": "v1", "classes": ["cat", 3], "max_images": 9}, seed=7)
    assert entry == {
        "path": "owner/data",
        "name": None,
        "hub_id": "a/b",
        "revision": "v1",
        "splits": {role.removesuffix("_split"): split for role, split in NAMED.items()},
        "division_seed": None,
        "classes": ["cat", 3],
        "max_images": 9,
        "seen_roles": ["batches", "evaluation", "validation_batches", "validation_evaluation"],
    }
    (divided,) = record({"evaluation_split": "test"}, seed=7, num_validation_tasks=0)
    assert divided["division_seed"] == 7 and divided["seen_roles"] == ["batches", "evaluation"]
    assert divided["splits"]["validation_batches"] is None


SEEN = [
    ({}, {}),  # the same split divided by another seed
    (NAMED, {**NAMED, "batches_split": "new"}),  # the same evaluation split
    (NAMED, {"batches_split": "test"}),
    (NAMED, {"batches_split": "valid_a"}),  # it chose the weights
    (NAMED, {"batches_split": "new", "evaluation_split": "train[:10]"}),
    ({"batches_split": "train"}, {"batches_split": "test+train[:1]"}),
    ({}, {"revision": "v2"}),
    ({}, {"path": "other", "hub_id": "Owner/Data"}),
    ({"path": "some/folder", "hub_id": "owner/data"}, {}),
    ({"name": "default"}, {}),
    ({"classes": ["cat"]}, {"classes": ["cat", "dog"]}),
    ({"classes": ["cat"]}, {"classes": [3]}),  # may be the cat
    ({"classes": ["cat"]}, {}),
    ({"max_images": 5}, {}),
]


@pytest.mark.parametrize(("seen", "drawn"), SEEN)
def test_seen_images_are_refused(seen, drawn):
    with pytest.raises(DataError, match="would draw .* but meta-training saw .*; name splits") as error:
        check_unseen(record(seen), tasks(drawn), seed=1)
    assert "\n" not in str(error.value)


UNSEEN = [
    (NAMED, {"batches_split": "new"}),
    (NAMED, {**NAMED, "batches_split": "new", "evaluation_split": "new_test"}),  # its searches may use them
    ({}, {"path": "owner/other"}),
    ({}, {"path": "somewhere/data", "hub_id": "owner/other"}),
    ({"batches_split": "train[:50%]"}, {"batches_split": "train[50%:]"}),
    ({"batches_split": "train[:-100]"}, {"batches_split": "train[-100:]"}),
    ({"classes": ["cat"]}, {"classes": ["dog"]}),
    ({"classes": [1, 2]}, {"classes": [3]}),
    ({"name": "one", "batches_split": "train"}, {"name": "two", "batches_split": "test"}),
]


@pytest.mark.parametrize(("seen", "drawn"), UNSEEN)
def test_other_images_are_welcome(seen, drawn, caplog):
    check_unseen(record(seen), tasks(drawn), seed=0)
    assert not caplog.records


def test_validation_images_count_only_where_there_are_validation_tasks():
    drawn = tasks({"batches_split": "valid_a"})
    check_unseen(record(NAMED, num_validation_tasks=0), drawn, seed=0)
    with pytest.raises(DataError, match=r"meta-training saw 'valid_a' \(validation_batches\)"):
        check_unseen(record(NAMED), drawn, seed=0)


def test_every_data_set_is_compared_with_every_other():
    with pytest.raises(DataError, match="owner/b"):
        check_unseen(record({"path": "a"}, {"path": "owner/b"}), tasks({"path": "c"}, {"path": "owner/b"}), seed=0)


def test_folders_are_one_whatever_they_are_called(tmp_path, monkeypatch, caplog):
    (tmp_path / "pets" / "train").mkdir(parents=True)
    os.symlink(tmp_path / "pets", tmp_path / "link")
    monkeypatch.chdir(tmp_path)
    for path in ("pets", "./pets/", "link", str(tmp_path / "pets"), "pets/train"):
        with pytest.raises(DataError, match="meta-training saw 'train'"):
            check_unseen(record({"path": "pets"}), tasks({"path": path}), seed=0)
    (tmp_path / "pets2").mkdir()
    check_unseen(record({"path": "pets"}), tasks({"path": "pets2"}), seed=0)
    assert not caplog.records
    # the splits of a folder in a folder have other names
    check_unseen(record({"path": "pets", "batches_split": "a"}), tasks({"path": "pets/train"}), seed=0)
    assert "cannot be told from their names" in caplog.text


@pytest.mark.parametrize(
    ("seen", "drawn"),
    [
        ({"name": "small"}, {"name": "large"}),
        ({"path": "repacked", "hub_id": "owner/data", "batches_split": "part"}, {"batches_split": "train"}),
    ],
)
def test_what_names_do_not_tell_is_warned_of(seen, drawn, caplog):
    check_unseen(record(seen), tasks(drawn), seed=0)
    (warning,) = caplog.records
    assert "cannot be told from their names" in warning.getMessage()


def test_an_artefact_without_a_record_is_warned_of(caplog):
    check_unseen(None, tasks({}), seed=0)
    assert "does not tell which images" in caplog.text


def test_all_stages_of_meta_training_saw_images():
    first, second = record({"path": "a"}), record({"path": "b"})
    assert seen_data({"data": second, "started_from": {"data": first}}) == second + first
    for unknown in ({}, {"datasets": ["a"]}, {"data": second, "started_from": {"datasets": ["a"]}}, {"data": "x"}):
        assert seen_data(unknown) is None


@pytest.mark.parametrize(
    "damage",
    [
        *({"path": 3}, {"splits": None}, {"splits": {}}, {"splits": {"batches": "train"}}, {"seen_roles": ["x"]}),
        *({"seen_roles": "batches"}, {"classes": "cat"}, {"division_seed": 1.5}, {"surplus": 1}, {"max_images": "1"}),
        {"splits": dict.fromkeys(("batches", "evaluation", "validation_batches", "validation_evaluation"), 3)},
    ],
)
def test_a_damaged_record_is_refused(damage):
    (entry,) = record({})
    with pytest.raises(ArtifactError, match="damaged record") as error:
        check_unseen([{**entry, **damage}], tasks({}), seed=0)
    assert "\n" not in str(error.value)
    for entry in (3, None, [], {}):
        with pytest.raises(ArtifactError, match="damaged record"):
            check_unseen([entry], tasks({}), seed=0)


@pytest.mark.parametrize("file", [file for file in CONFIGS.glob("*.yaml") if "evaluation:" in file.read_text()])
def test_the_evaluations_that_ship_draw_what_meta_training_did_not_see(file, caplog):
    settings = yaml.safe_load(file.read_text())
    evaluation = TaskArguments(settings["evaluation"]["datasets"])
    for stage in settings["meta_training"]:
        check_unseen(describe_data(TaskArguments(stage["datasets"]), seed=0), evaluation, seed=1000)
    assert not caplog.records


DISJOINT = [
    ("train", "test"),
    ("train", "train.clean"),
    ("train[:50%]", "train[50%:]"),
    ("train[10%:20%]", "train[20%:30%]"),
    ("train[:1_0]", "train[10:]"),
    ("train[:-10]", "train[-10:]"),
    ("train[-20:-10]", "train[-10:]"),
    ("train[:10%]+test", "train[10%:20%] + other"),
    ("train[:33%](pct1_dropremainder)", "train[33%:](pct1_dropremainder)"),
]
OVERLAPPING = [
    ("train", "train"),
    ("train", "train[:1]"),
    ("train[:]", "train[5:]"),
    ("train[:60%]", "train[40%:]"),
    ("train[:50%]", "train[50:]"),  # units differ: unknown without the size
    ("train[:50]", "train[-50:]"),
    ("train[50:]", "train[:-50]"),
    ("train[:50%](pct1_dropremainder)", "train[50%:]"),  # of 150 images, the first ends at 50
    ("test+train", "train[3:4]"),
    ("all", "train"),
    ("train[:10]", "all"),
    ("train[", "train"),
]


def test_splits_overlap_unless_their_names_prove_otherwise():
    for pairs, overlap in ((DISJOINT, False), (OVERLAPPING, True)):
        for one, other in pairs:
            assert splits_overlap(one, other) == splits_overlap(other, one) == overlap, (one, other)


@pytest.mark.parametrize("size", [113, 150, 1237])
def test_what_is_called_disjoint_is_for_datasets(size):
    def rows(split):
        parts = datasets.ReadInstruction.from_spec(split).to_absolute({name: size for name in names})
        return {(part.splitname, row) for part in parts for row in range(part.from_, part.to)}

    names = ("train", "test", "other", "train.clean")
    for one, other in DISJOINT:
        assert not rows(one) & rows(other), (one, other)
