"""Data sets become tensors: columns, splits, classes and errors; the embedded data set keeps its promises."""

import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from transformers import ViTImageProcessorPil

from hf_l3rs.errors import DataError, L3RSError
from hf_l3rs.images.load import (
    class_ids,
    find_columns,
    load_image_dataset,
    load_image_pool,
    load_image_processor,
    select_classes,
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
        loaded = load_image_dataset(tmp_path / "pets", split="train", cache_dir=tmp_path / "cache")
        assert loaded.features["label"].names == ["cat", "dog"]
        assert loaded["label"][:] == [0, 0, 0, 1, 1, 1]
        assert find_columns(loaded.features) == ("image", "label")
        assert len(load_image_dataset(tmp_path / "pets", split="test", cache_dir=tmp_path / "cache")) == 2

    def test_parquet_file(self, tmp_path, dataset):
        dataset.to_parquet(tmp_path / "data.parquet")
        loaded = load_image_dataset(tmp_path / "data.parquet", cache_dir=tmp_path / "cache")
        assert loaded.features == dataset.features
        assert loaded["label"][:] == dataset["label"][:]

    def test_dataset_repository(self, tmp_path, dataset):
        folder = tmp_path / "repository"
        folder.mkdir()
        dataset.to_parquet(folder / "a.parquet")
        (folder / "README.md").write_text(
            "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: odd_name\n    path: a.parquet\n---\n"
        )
        assert len(load_image_dataset(folder, split="odd_name[:5]", cache_dir=tmp_path / "cache")) == 5
        with pytest.raises(DataError, match=r"no split 'train'; it has odd_name\.$"):
            load_image_dataset(folder, cache_dir=tmp_path / "cache")
        with pytest.raises(DataError, match="no configuration 'large'.*default"):
            load_image_dataset(folder, name="large", split="odd_name", cache_dir=tmp_path / "cache")

    @pytest.mark.parametrize("path", ["./missing", "/missing/folder", "a/b/c"])
    def test_missing_folder(self, path):
        with pytest.raises(DataError, match=f"no folder '{path}'"):
            load_image_dataset(path)

    def test_missing_file(self):
        with pytest.raises(DataError, match=r"no file 'missing\.parquet'"):
            load_image_dataset("missing.parquet")

    def test_folder_without_data(self, tmp_path):
        with pytest.raises(DataError, match="holds no data"):
            load_image_dataset(tmp_path, cache_dir=tmp_path / "cache")

    def test_neither_folder_nor_on_the_hub(self, monkeypatch):
        def load_dataset(path, **kwargs):
            raise datasets.exceptions.DatasetNotFoundError(f"Dataset '{path}' doesn't exist on the Hub.")

        monkeypatch.setattr(datasets, "load_dataset", load_dataset)
        with pytest.raises(DataError, match="neither a local folder nor a readable Hub data set 'owner/typo'") as info:
            load_image_dataset("owner/typo")
        assert isinstance(info.value, (L3RSError, ValueError))

    def test_hub_arguments_are_passed_on(self, monkeypatch):
        monkeypatch.setattr(datasets, "load_dataset", lambda path, **kwargs: (path, kwargs))
        path, kwargs = load_image_dataset("owner/name", name="small", split="test", revision="v1", token="secret")
        assert path == "owner/name"
        assert kwargs == {"name": "small", "split": "test", "revision": "v1", "token": "secret", "cache_dir": None}


class TestFindColumns:
    image, number, text = datasets.Image(), datasets.Value("int64"), datasets.Value("string")
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

    def test_given(self):
        features = datasets.Features(a=self.image, b=self.image, c=self.classes, d=self.number)
        assert find_columns(features, image_column="b", label_column="d") == ("b", "d")

    @pytest.mark.parametrize(
        ("columns", "given", "message"),
        [
            ({"label": classes}, {}, "no image column; its columns are label"),
            ({"image": image, "text": text}, {}, "no label column.*name one with label_column"),
            ({"a": image, "b": image, "label": classes}, {}, r"several image columns \(a, b\)"),
            ({"image": image, "a": classes, "b": classes}, {}, r"several label columns \(a, b\)"),
            ({"image": image, "label": classes}, {"image_column": "img"}, "no column 'img'.*it has image, label"),
            ({"image": image, "label": classes}, {"image_column": "label"}, "must hold images"),
            ({"image": image, "label": text}, {"label_column": "label"}, "must hold class labels or integers"),
        ],
    )
    def test_errors(self, columns, given, message):
        with pytest.raises(DataError, match=message):
            find_columns(datasets.Features(columns), **given)


class TestLoadImagePool:
    def test_pixels_are_the_image_processors(self, dataset, image_processor):
        pool = load_image_pool(dataset, image_processor, batch_size=5)
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
        selected = select_classes(load_image_pool(dataset, image_processor), classes)
        assert torch.equal(selected.pixel_values, pool.pixel_values)
        assert torch.equal(selected.labels, pool.labels)

    def test_max_images_is_a_reproducible_choice(self, dataset, image_processor):
        first, again, other = (
            load_image_pool(dataset, image_processor, max_images=5, seed=seed) for seed in (0, 0, 1)
        )
        assert len(first.labels) == 5
        assert torch.equal(first.pixel_values, again.pixel_values)
        assert not torch.equal(first.pixel_values, other.pixel_values)
        assert len(load_image_pool(dataset, image_processor, max_images=100).labels) == 12

    def test_integer_labels(self, dataset, image_processor):
        pool = load_image_pool(dataset.cast_column("label", datasets.Value("int32")), image_processor, classes=[1, 2])
        assert pool.labels.unique().tolist() == [1, 2]
        assert pool.class_names == ["0", "1", "2"]

    def test_image_processor_by_path_and_dataset_by_path(self, dataset, image_processor, tmp_path):
        dataset.to_parquet(tmp_path / "data.parquet")
        image_processor.save_pretrained(tmp_path)
        pool = load_image_pool(tmp_path / "data.parquet", tmp_path, cache_dir=tmp_path / "cache")
        assert torch.equal(pool.pixel_values, load_image_pool(dataset, image_processor).pixel_values)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"classes": ["dog"]}, "no class 'dog'; the classes are 0 ant, 1 bee, 2 cow"),
            ({"classes": [3]}, "no class 3"),
            ({"classes": []}, "no image of the classes"),
            ({"max_images": 0}, "max_images is 0"),
        ],
    )
    def test_argument_errors(self, dataset, image_processor, arguments, message):
        with pytest.raises(DataError, match=message):
            load_image_pool(dataset, image_processor, **arguments)

    @pytest.mark.parametrize("label", [None, -1])
    def test_unlabelled_images(self, image_processor, label):
        features = datasets.Features(image=datasets.Image(), label=datasets.Value("int64"))
        data = datasets.Dataset.from_dict({"image": [gray_image(0)] * 2, "label": [0, label]}, features=features)
        with pytest.raises(DataError, match="without a label"):
            load_image_pool(data, image_processor)

    def test_unreadable_image(self, image_processor):
        features = datasets.Features(image=datasets.Image(), label=datasets.Value("int64"))
        data = datasets.Dataset.from_dict(
            {"image": [{"bytes": b"no image", "path": None}], "label": [0]}, features=features
        )
        with pytest.raises(DataError, match="image in row 0 of column 'image' cannot be read"):
            load_image_pool(data, image_processor)

    @pytest.mark.parametrize("batch_size", [1, 2])
    def test_image_processor_without_a_fixed_size(self, batch_size):
        features = datasets.Features(image=datasets.Image(), label=datasets.Value("int64"))
        data = datasets.Dataset.from_dict(
            {"image": [gray_image(0, (4, 4)), gray_image(0, (8, 8))], "label": [0, 1]}, features=features
        )
        with pytest.raises(DataError, match="resizes or crops to a fixed size"):
            load_image_pool(data, ViTImageProcessorPil(do_resize=False), batch_size=batch_size)


def test_class_ids_prefers_names():
    # Digit data sets name their classes by numbers, which need not be the ids.
    assert class_ids(["9", "8"], ["9", 1]) == [0, 1]


def test_image_processor_needs_no_torchvision_and_is_silent(image_processor, tmp_path, caplog, recwarn):
    image_processor.save_pretrained(tmp_path)
    recwarn.clear()
    loaded = load_image_processor(tmp_path)
    assert loaded.to_dict() == image_processor.to_dict()
    assert type(loaded).__name__.endswith("Pil")
    assert not caplog.records
    assert not [warning for warning in recwarn if not issubclass(warning.category, ResourceWarning)]


def test_import_loads_neither_datasets_nor_transformers():
    code = "import sys, hf_l3rs.images.load; print({'datasets', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == ("set()", "")


@pytest.fixture(scope="module")
def splits(tmp_path_factory):
    """The embedded data set's splits."""
    cache_dir = tmp_path_factory.mktemp("cache")
    return {split: load_image_dataset(FASHION_MNIST, split=split, cache_dir=cache_dir) for split in SPLITS}


class TestFashionMnist:
    def test_folder(self):
        files = [path for path in FASHION_MNIST.iterdir() if path.is_file()]
        assert sum(path.stat().st_size for path in files) <= 15_000_000
        assert {path.name for path in files} == {"README.md", "LICENSE"} | {f"{split}.parquet" for split in SPLITS}

    def test_classes_are_balanced(self, splits):
        for split, (_, classes, count) in SPLITS.items():
            labels, counts = np.unique(splits[split].with_format("numpy")["label"][:], return_counts=True)
            assert labels.tolist() == list(classes)
            assert counts.tolist() == [count] * len(classes)

    def test_features(self, splits):
        for dataset in splits.values():
            assert isinstance(dataset.features["image"], datasets.Image)
            assert isinstance(dataset.features["label"], datasets.ClassLabel)
            assert dataset.features["label"].num_classes == 10
            assert dataset[0]["image"].size == (28, 28)

    def test_splits_are_disjoint(self, splits):
        used: dict[str, list[int]] = {"train": [], "t10k": []}
        for split, (file, _, _) in SPLITS.items():
            used[file] += splits[split]["source_index"][:]
        for indices in used.values():
            assert len(set(indices)) == len(indices)

    def test_relative_path(self, monkeypatch, tmp_path):
        monkeypatch.chdir(FASHION_MNIST.parents[2])
        loaded = datasets.load_dataset("recipes/data/fashion_mnist", split="test_eval", cache_dir=str(tmp_path))
        assert len(loaded) == 2500
