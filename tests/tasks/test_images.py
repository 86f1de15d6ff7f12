"""Data sets become tensors: columns, splits, classes and errors; the embedded data set keeps its promises."""

from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from huggingface_hub import constants
from PIL import Image
from transformers import ViTImageProcessorPil

from hf_l3rs.errors import ArtifactError, DataError
from hf_l3rs.tasks.images import (
    find_columns,
    load_image_dataset,
    load_image_pool,
    load_image_processor,
    split_names,
)


FASHION_MNIST = Path(__file__).parents[2] / "recipes" / "data" / "fashion_mnist"
SPLITS = {
    # official file, classes, images a class
    "pretrain": ("train", range(0, 5), 2000),
    "pretrain_test": ("t10k", range(0, 5), 500),
    "meta_train_batches": ("train", range(5, 10), 1600),
    "meta_train_eval": ("train", range(5, 10), 600),
    "validation_batches": ("train", range(5, 10), 600),
    "validation_eval": ("train", range(5, 10), 400),
    "test_batches": ("train", range(5, 10), 800),
    "test_eval": ("t10k", range(5, 10), 500),
}

CONFIG = "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: odd_name\n    path: {}\n---\n"


def gray_image(value: int, size: tuple[int, int] = (6, 6)) -> Image.Image:
    return Image.fromarray(np.full(size, value, np.uint8))


@pytest.fixture
def image_processor():
    return ViTImageProcessorPil(
        size={"height": 4, "width": 4}, image_mean=[0.5] * 3, image_std=[0.25] * 3, resample=Image.Resampling.NEAREST
    )


@pytest.fixture
def dataset():
    """Twelve images of three classes: image `i` is uniformly `10 * i` and of class `i % 3`."""
    return datasets.Dataset.from_dict(
        {"image": [gray_image(10 * i) for i in range(12)], "label": [i % 3 for i in range(12)]},
        features=datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=["ant", "bee", "cow"])),
    )


class TestLoadImageDataset:
    def test_image_folder(self, tmp_path):
        for split, count in (("train", 3), ("test", 1)):
            for label in ("cat", "dog"):
                folder = tmp_path / "pets" / split / label
                folder.mkdir(parents=True)
                for number in range(count):
                    gray_image(number).save(folder / f"{number}.png")
        loaded = load_image_dataset(tmp_path / "pets", split="train")
        assert loaded.features["label"].names == ["cat", "dog"]
        assert loaded["label"][:] == [0, 0, 0, 1, 1, 1]
        assert find_columns(loaded.features) == ("image", "label")
        assert len(load_image_dataset(tmp_path / "pets", split="test")) == 2

    def test_dataset_repository(self, tmp_path, dataset):
        folder = tmp_path / "repository"
        folder.mkdir()
        dataset.to_parquet(folder / "a.parquet")
        (folder / "README.md").write_text(CONFIG.format("a.parquet"))
        assert len(load_image_dataset(folder, split="odd_name[:5]")) == 5

    def test_an_unreachable_hub_is_said_at_once(self, monkeypatch):
        """datasets alone would ask again for 23 seconds."""
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
        with pytest.raises(DataError, match="no folder 'owner/name'.*127.0.0.1:9 does not answer") as error:
            load_image_dataset("owner/name")
        assert "\n" not in str(error.value)
        assert datasets.config.HF_HUB_OFFLINE is False

    def test_without_the_hub_the_cache_is_used(self, monkeypatch, tmp_path, dataset):
        """As datasets lays it out: what was loaded from a folder passes for the Hub's data set of that name."""
        (tmp_path / "name").mkdir()
        dataset.to_parquet(tmp_path / "name" / "train.parquet")
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
        load_image_dataset(tmp_path / "name")
        (tmp_path / "cache" / "name").rename(tmp_path / "cache" / "owner___name")
        for offline in (True, False):
            monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
            monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", offline)
            assert len(load_image_dataset("owner/name")) == 12

    def test_a_folder_with_the_name_of_a_loader(self, tmp_path, dataset, monkeypatch):
        """datasets would read the current folder instead."""
        (tmp_path / "parquet").mkdir()
        dataset.to_parquet(tmp_path / "parquet" / "train.parquet")
        dataset.select([0]).to_parquet(tmp_path / "other.parquet")
        monkeypatch.chdir(tmp_path)
        assert len(load_image_dataset("parquet")) == 12


class TestLoadImagePool:
    def test_pixels_are_the_image_processors(self, dataset, image_processor):
        pool = load_image_pool(dataset, image_processor)
        assert pool.pixel_values.shape == (12, 3, 4, 4)
        assert pool.pixel_values.dtype == torch.float32
        assert pool.labels.dtype == torch.int64
        assert pool.labels.tolist() == [i % 3 for i in range(12)]
        assert pool.class_names == ["ant", "bee", "cow"]
        expected = (torch.arange(12) * 10 / 255 - 0.5) / 0.25
        torch.testing.assert_close(pool.pixel_values, expected[:, None, None, None].expand(12, 3, 4, 4))

    @pytest.mark.parametrize("classes", [["cow", "ant"], [2, 0], ["cow", 0]])
    def test_classes_keep_their_ids(self, dataset, image_processor, classes):
        pool = load_image_pool(dataset, image_processor, classes=classes)
        assert pool.labels.tolist() == [0, 2] * 4
        assert pool.class_names == ["ant", "bee", "cow"]
        whole = load_image_pool(dataset, image_processor)
        assert torch.equal(whole.pixel_values[whole.labels != 1], pool.pixel_values)

    def test_max_images_is_a_reproducible_choice(self, dataset, image_processor):
        first, again = (load_image_pool(dataset, image_processor, max_images=5) for _ in range(2))
        assert len(first.labels) == 5
        assert torch.equal(first.pixel_values, again.pixel_values)
        assert len(load_image_pool(dataset, image_processor, max_images=100).labels) == 12

    def test_integer_labels(self, dataset, image_processor):
        pool = load_image_pool(dataset.cast_column("label", datasets.Value("int32")), image_processor, classes=[1, 2])
        assert pool.labels.unique().tolist() == [1, 2]
        assert pool.class_names == ["0", "1", "2"]


def test_image_processor_needs_no_torchvision_and_is_silent(image_processor, tmp_path, caplog, recwarn):
    image_processor.save_pretrained(tmp_path)
    recwarn.clear()
    loaded = load_image_processor(tmp_path)
    assert loaded.to_dict() == image_processor.to_dict()
    assert type(loaded).__name__.endswith("Pil")
    assert not caplog.records
    assert not [warning for warning in recwarn if not issubclass(warning.category, ResourceWarning)]


@pytest.mark.parametrize("name", ["./missing", "a/b/c", "missing", "owner/missing", ""])
def test_an_image_processor_that_is_nowhere(name, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(ArtifactError, match=f"no readable image processor in '{name}'") as error:
        load_image_processor(name)
    assert "\n" not in str(error.value)


def test_the_splits_of_a_folder_and_of_a_file():
    assert set(split_names(FASHION_MNIST)) == set(SPLITS)
    assert split_names(FASHION_MNIST / "test_eval.parquet") == ["train"]
    with pytest.raises(DataError, match="There is no folder './absent'; give"):
        split_names("./absent")


@pytest.fixture(scope="module")
def splits():
    """The embedded data set's splits."""
    return {split: load_image_dataset(FASHION_MNIST, split=split) for split in SPLITS}


class TestFashionMnist:
    def test_classes_are_balanced_and_splits_are_disjoint(self, splits):
        used: dict[str, list[int]] = {"train": [], "t10k": []}
        for split, (file, classes, count) in SPLITS.items():
            labels, counts = np.unique(splits[split].with_format("numpy")["label"][:], return_counts=True)
            assert labels.tolist() == list(classes)
            assert counts.tolist() == [count] * len(classes)
            used[file] += splits[split]["source_index"][:]
        for indices in used.values():
            assert len(set(indices)) == len(indices)


class TestFindColumns:
    image, number = datasets.Image(), datasets.Value("int64")
    classes = datasets.ClassLabel(names=["a", "b"])

    @pytest.mark.parametrize(
        ("columns", "found"),
        [
            ({"img": image, "fine_label": classes, "id": number}, ("img", "fine_label")),
            ({"photo": image, "labels": number, "source_index": number}, ("photo", "labels")),
            ({"mask": image, "image": image, "label": classes}, ("image", "label")),
            ({"image": image, "fine_label": classes, "coarse_label": classes}, ("image", "fine_label")),
        ],
    )
    def test_by_type_then_name(self, columns, found):
        assert find_columns(datasets.Features(columns)) == found
