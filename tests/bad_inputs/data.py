"""Data sets that are absent, out of reach, damaged, or lack what was asked of them."""

import numpy as np
from datasets import ClassLabel, Dataset, Features, Image, Value

from tests.bad_inputs.doors import Row, file, meta_train as train


def dataset(path="<images>", prepare=lambda place: None, **changes):
    """`hf-l3rs meta-train` with one data set, which would do but for `path` and `changes`."""
    return train(datasets=[{"path": path, **changes}], prepare=prepare)


def parquet(columns=None, features=None):
    """Prepares `<own>/data.parquet` with images and labels, or other columns."""

    def prepare(place):
        images = [np.zeros((4, 4, 3), np.uint8)] * 6
        everything = {"image": images, "label": [0, 1, 2, 0, 1, 2], **(columns or {})}
        kept = {name: values for name, values in everything.items() if values is not None}
        kinds = {"image": Image(), "label": ClassLabel(names=["ant", "bee", "cow"]), **(features or {})}
        Dataset.from_dict(kept, features=Features({name: kinds[name] for name in kept})).to_parquet(
            place / "data.parquet"
        )

    return prepare


def truncated(place):
    data = (place.shared / "file.parquet").read_bytes()
    (place / "data.parquet").write_bytes(data[: len(data) // 2])


CORRUPT = {"image": [{"bytes": b"\x89PNG, but no more", "path": "1.png"}] * 60, "label": [0, 1, 2] * 20}

OWN = "<own>/data.parquet"
ROWS = [
    Row("data: no such folder", dataset("./absent"), "no folder './absent'"),
    Row("data: on the Hub, offline", dataset("user/images"), "'user/images'.*not in the cache and downloads are off"),
    Row("data: the name of a loader", dataset("imagefolder"), "no folder 'imagefolder'"),
    Row("data: an empty folder", dataset("<own>/empty", prepare=lambda place: (place / "empty").mkdir()),
        "holds no data: expected parquet files"),
    Row("data: a truncated parquet file", dataset(OWN, truncated), "data.parquet' cannot be read"),
    Row("data: a corrupt image", dataset(OWN, parquet(CORRUPT)), r"image in row \d+"),
    Row("data: a README that is no YAML", dataset("<own>/data", file("data/README.md", b"---\na: [\n---\n")),
        "data' cannot be read|holds no data"),
    Row("data: unknown split", dataset(batches_split="trian"), "has no split 'trian'; it has train"),
    Row("data: a slice that is none", dataset(batches_split="train[x]"), r"cannot give the split 'train\[x\]'"),
    Row("data: a slice beyond 100 %", dataset(batches_split="train[:200%]"), "train.:200%"),
    Row("data: a split twice", dataset(evaluation_split="train"), "uses a split twice"),
    Row("data: unknown configuration", dataset(name="big"), "no configuration 'big'; name one of"),
    Row("data: unknown image column", dataset(image_column="photo"), "no images in column 'photo'; its columns are"),
    Row("data: no image column", dataset(OWN, parquet({"image": None})), "no image column.*name one"),
    Row("data: no label column", dataset(OWN, parquet({"label": None})), "no label column.*name one"),
    Row("data: a thousand classes and none of that name", dataset(OWN, parquet(
        {}, {"label": ClassLabel(names=[f"class number {number}" for number in range(1000)])}), classes=["ant"]),
        "no class 'ant'; the classes are 0 class number 0, .*give names"),
    Row("data: two label columns", dataset(OWN, parquet(
        {"label": None, "one": [0] * 6, "two": [1] * 6}, dict.fromkeys(("one", "two"), ClassLabel(names=["a", "b"])))),
        "several label columns .one, two.*name one"),
    Row("data: no label for an image", dataset(OWN, parquet({"label": [0, 1, None, 0, 1, 2]})), "without a label"),
    Row("data: labels that are no class ids", dataset(OWN, parquet(
        {"label": [10**9] * 6}, {"label": Value("int64")})), "numbers up to 1000000000.*label_column"),
    Row("data: unknown class", dataset(classes=["ant", "dog"]), "no class 'dog'; the classes are 0 ant, 1 bee, 2 cow"),
    Row("data: fewer classes than a task has", dataset(classes=["ant"]), "has 1 class.*need 2; lower num_classes"),
    Row("data: too many classes in a task", train(num_classes=9), "has 3 classes.*need 9; lower num_classes"),
    Row("data: too few images to divide", dataset(max_images=1), "too few images in train to be divided"),
    Row("data: too few images to evaluate on", train(evaluation_size=1000), "for evaluation, but needs 1000; lower"),
    Row("data: too few images for a batch", train(batch_size=1000), "for batches, but needs 1000; lower"),
]  # fmt: skip
