"""A look at a model and a data set: sizes, classes, and which images are for what."""

import shutil

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Image

from hf_l3rs.cli.init import describe_model, survey_data
from hf_l3rs.errors import DataError
from hf_l3rs.tasks.seen_data import check_unseen, describe_data
from hf_l3rs.tasks.task_arguments import DatasetArguments, TaskArguments
from tests.tiny import tiny_resnet


def write_images(file, labels):
    pixels = np.random.default_rng(0).integers(0, 255, (len(labels), 4, 4, 3), np.uint8)
    features = Features({"image": Image(), "label": ClassLabel(names=["ant", "bee", "cow", "dog"])})
    file.parent.mkdir(parents=True, exist_ok=True)
    Dataset.from_dict({"image": list(pixels), "label": labels}, features=features).to_parquet(file)


def task_args(dataset, survey):
    sizes = {"num_classes": survey.num_classes, "batch_size": 2, "evaluation_size": survey.evaluation_size}
    return TaskArguments(datasets=[DatasetArguments(**dataset)], **sizes)


def test_a_model_is_counted(inputs):
    count = sum(parameter.numel() for parameter in tiny_resnet().parameters())
    assert f"resnet: {count:,} parameters in 20 layers, with batch norm" in describe_model(str(inputs / "base"))


def test_splits_are_chosen_by_their_names(inputs, tmp_path):
    for name in ("train", "test"):
        write_images(tmp_path / f"{name}-00000-of-00001.parquet", [0, 1, 2, 3] * 10)
    survey = survey_data(str(tmp_path), str(inputs / "base"))
    assert survey.training["batches_split"] == "train" and survey.unseen["batches_split"] == "test"
    assert survey.num_classes == 4 and "40 images of 3 x 8 x 8 in train" in survey.description
    assert survey.evaluation_size == 4  # 15 % of ten images of each class
    own = survey_data(str(tmp_path), str(inputs / "base"), split="test", test_split="train")
    assert (own.training["batches_split"], own.unseen["batches_split"]) == ("test", "train")


@pytest.mark.parametrize("labels", [[0, 1, 2, 3] * 20, [0] * 20 + [1] * 20 + [2] * 20 + [3] * 20])
def test_of_a_single_split_a_part_stays_unseen(inputs, tmp_path, labels):
    """Rows where all classes are in both parts; where images are sorted, classes."""
    write_images(tmp_path / "images.parquet", labels)
    survey = survey_data(str(tmp_path / "images.parquet"), str(inputs / "base"))
    is_mixed = labels[:4] == [0, 1, 2, 3]
    assert ("classes" in survey.unseen) != is_mixed and survey.num_classes == (4 if is_mixed else 2)
    seen = describe_data(task_args(survey.training, survey), 0)
    check_unseen(seen, task_args(survey.unseen, survey), 1000)  # raises where both may draw an image


def test_data_that_cannot_be_divided_have_no_evaluation(inputs, tmp_path):
    write_images(tmp_path / "images.parquet", [0] * 20 + [1] * 20)
    assert survey_data(str(tmp_path / "images.parquet"), str(inputs / "base")).unseen is None


def test_a_single_class_is_no_task(inputs, tmp_path):
    write_images(tmp_path / "images.parquet", [0] * 20)
    with pytest.raises(DataError, match="has images of 1 class in train; give images of at least 2"):
        survey_data(str(tmp_path / "images.parquet"), str(inputs / "base"))


def test_splits_of_any_name_will_do(inputs, tmp_path):
    shutil.copytree(inputs / "images/train", tmp_path / "images/train")
    (tmp_path / "images/README.md").write_text(
        "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: everything\n    path: train/**\n---\n"
    )
    survey = survey_data(str(tmp_path / "images"), str(inputs / "base"))
    assert survey.training["batches_split"].startswith("everything")
