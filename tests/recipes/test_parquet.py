"""What is written as a split is what `datasets` reads, and the embedded data set is made so."""

import io
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from PIL import Image

from hf_l3rs.tasks.images import load_image_dataset
from recipes.data.parquet import to_parquet


FASHION_MNIST = Path(__file__).parents[2] / "recipes" / "data" / "fashion_mnist"


@pytest.mark.parametrize("shape", [(5, 4), (5, 4, 3)], ids=["grey", "colour"])
def test_images_labels_and_columns_come_back(shape, tmp_path):
    images = list(np.random.default_rng(0).integers(0, 256, (3, *shape), np.uint8))
    data = to_parquet(images, [1, 0, 1], ["cat", "dog"], place=np.array([7, 8, 9], np.int32), source=["a", "bc", ""])
    assert data == to_parquet(
        images, [1, 0, 1], ["cat", "dog"], place=np.array([7, 8, 9], np.int32), source=["a", "bc", ""]
    )
    (tmp_path / "split.parquet").write_bytes(data)
    dataset = load_image_dataset(tmp_path / "split.parquet")
    assert all(np.array_equal(np.asarray(row["image"]), image) for row, image in zip(dataset, images))
    assert dataset["label"][:] == [1, 0, 1] and dataset.features["label"].names == ["cat", "dog"]
    assert dataset["place"][:] == [7, 8, 9] and dataset["source"][:] == ["a", "bc", ""]


def test_the_embedded_data_set_has_these_bytes():
    """The bytes of zstd may differ between versions of pyarrow; what they hold may not."""
    file = FASHION_MNIST / "validation_eval.parquet"
    table = pyarrow.parquet.read_table(file)
    images = [np.asarray(Image.open(io.BytesIO(image["bytes"]))) for image in table["image"].to_pylist()]
    names = load_image_dataset(file).features["label"].names
    data = to_parquet(images, table["label"].to_numpy(), names, source_index=table["source_index"].to_numpy())
    again = pyarrow.parquet.read_table(io.BytesIO(data))
    assert again.equals(table) and again.schema.equals(table.schema, check_metadata=True)
