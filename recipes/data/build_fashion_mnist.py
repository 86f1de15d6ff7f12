"""Builds the embedded Fashion-MNIST data set from the four official idx files.

    python recipes/data/build_fashion_mnist.py SOURCE_FOLDER

`SOURCE_FOLDER` holds `train-images-idx3-ubyte.gz`, `train-labels-idx1-ubyte.gz`, `t10k-images-idx3-ubyte.gz` and
`t10k-labels-idx1-ubyte.gz`: https://github.com/zalandoresearch/fashion-mnist has them, and so has the Debian package
`dataset-fashion-mnist`. The result, `recipes/data/fashion_mnist/`, is a complete data set repository: one parquet file
a split, a card and the licence. The same input gives the same bytes.
"""

import argparse
import gzip
import hashlib
import sys
from pathlib import Path

import numpy as np

from hf_l3rs.files import write_files
from hf_l3rs.settings import OptionParser


sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # recipes is not installed

from recipes.data.parquet import to_parquet


CLASS_NAMES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
BASE_CLASSES = range(0, 5)  # what the base model is trained on
TASK_CLASSES = range(5, 10)  # what it is then fine-tuned on

# split -> (official file, classes, images a class). Splits of one official file and class are consecutive, disjoint
# pieces of one random order.
SPLITS = {
    "pretrain": ("train", BASE_CLASSES, 2000),
    "pretrain_test": ("t10k", BASE_CLASSES, 500),
    "meta_train_batches": ("train", TASK_CLASSES, 1600),
    "meta_train_eval": ("train", TASK_CLASSES, 600),
    "validation_batches": ("train", TASK_CLASSES, 600),
    "validation_eval": ("train", TASK_CLASSES, 400),
    "test_batches": ("train", TASK_CLASSES, 800),
    "test_eval": ("t10k", TASK_CLASSES, 500),
}
USES = {
    "pretrain": "training of the base model",
    "pretrain_test": "test of the base model",
    "meta_train_batches": "training batches of meta-training tasks",
    "meta_train_eval": "meta-loss of meta-training tasks",
    "validation_batches": "training batches of validation tasks (baseline tuning, early stopping)",
    "validation_eval": "evaluation of validation tasks",
    "test_batches": "training batches of test tasks",
    "test_eval": "evaluation of test tasks",
}
SEED = 0

LICENSE = """\
The MIT License (MIT)

Copyright © 2017 Zalando SE, https://tech.zalando.com

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the “Software”), to deal in the Software without restriction, including without
limitation the rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the
Software, and to permit persons to whom the Software is furnished to do so, subject to the following
conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions
of the Software.

THE SOFTWARE IS PROVIDED “AS IS”, WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED
TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL
THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF
CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER
DEALINGS IN THE SOFTWARE.
"""

CARD = """\
---
license: mit
pretty_name: Fashion-MNIST, split for meta-training
task_categories:
- image-classification
size_categories:
- 10K<n<100K
source_datasets:
- extended|zalando-datasets/fashion_mnist
tags:
- meta-learning
configs:
- config_name: default
  data_files:
{data_files}
dataset_info:
  features:
  - name: image
    dtype: image
  - name: label
    dtype:
      class_label:
        names:
{names}
  - name: source_index
    dtype: int32
---

# Fashion-MNIST, split for meta-training

A class-balanced part of [Fashion-MNIST](https://github.com/zalandoresearch/fashion-mnist) (28x28 grey-scale images
of ten kinds of clothing), cut into disjoint splits so that a base model, a learned optimizer, the search for baselines
and the final measurement never share an image.

| split | classes | images a class | images | official file | use |
|---|---|---|---|---|---|
{table}

```python
from datasets import load_dataset

images = load_dataset("recipes/data/fashion_mnist", split="test_eval")
```

`label` keeps the official numbers: {classes}. `source_index` is the position in the official file, `train` or `t10k`.
Within a split the images are in random order.

The pixels are the original ones: the images are stored as PNG without compression of its own, since the parquet files'
zstd then makes them smallest. `recipes/data/build_fashion_mnist.py` wrote this folder.

Fashion-MNIST: Copyright © 2017 Zalando SE, MIT licence (see LICENSE).

```bibtex
@article{{xiao2017fashion,
  title   = {{Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms}},
  author  = {{Han Xiao and Kashif Rasul and Roland Vollgraf}},
  journal = {{arXiv preprint arXiv:1708.07747}},
  year    = {{2017}},
}}
```
"""


def read_idx(path: Path) -> np.ndarray:
    """The array of an idx file of bytes (the format of MNIST): `(num_images, 28, 28)` or `(num_labels,)`, `uint8`."""
    data = gzip.decompress(path.read_bytes())
    num_dimensions = data[3]
    shape = np.frombuffer(data, ">i4", count=num_dimensions, offset=4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * num_dimensions).reshape(shape)


def choose(labels: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Split -> positions `(num_images,)` in its official file, in random order.

    Args:
        labels (`dict[str, np.ndarray]`): Official file (`train`, `t10k`) -> its labels `(num_labels,)`.
    """
    orders, used = {}, {}
    for file_name, file_labels in labels.items():
        for label in range(len(CLASS_NAMES)):
            rng = np.random.Generator(np.random.PCG64([SEED, label, len(file_labels)]))
            orders[file_name, label] = rng.permutation(np.flatnonzero(file_labels == label))
            used[file_name, label] = 0
    positions = {}
    for number, (split, (file_name, classes, count)) in enumerate(SPLITS.items()):
        pieces = []
        for label in classes:
            start = used[file_name, label]
            pieces.append(orders[file_name, label][start : start + count])
            used[file_name, label] = start + count
            if len(pieces[-1]) != count:
                raise ValueError(f"Split {split!r} needs {count} more images of class {label} than {file_name!r} has.")
        positions[split] = np.random.Generator(np.random.PCG64([SEED, number])).permutation(np.concatenate(pieces))
    return positions


def build(source: Path, target: Path) -> None:
    """Writes the data set repository `target` from the idx files in `source`."""
    images = {name: read_idx(source / f"{name}-images-idx3-ubyte.gz") for name in ("train", "t10k")}
    labels = {name: read_idx(source / f"{name}-labels-idx1-ubyte.gz") for name in ("train", "t10k")}
    for split, positions in choose(labels).items():
        file_name = SPLITS[split][0]
        data = to_parquet(
            [images[file_name][i] for i in positions],
            labels[file_name][positions],
            CLASS_NAMES,
            source_index=positions.astype("int32"),
        )
        write_files(target, {f"{split}.parquet": data})
        print(f"{split}: {len(positions)} images, {len(data)} bytes, sha256 {hashlib.sha256(data).hexdigest()[:16]}")

    rows = [
        f"| `{split}` | {classes[0]}-{classes[-1]} | {count:,} | {count * len(classes):,} | {name} | {USES[split]} |"
        for split, (name, classes, count) in SPLITS.items()
    ]
    card = CARD.format(
        data_files="\n".join(f"  - split: {split}\n    path: {split}.parquet" for split in SPLITS),
        names="\n".join(f"          '{number}': {name}" for number, name in enumerate(CLASS_NAMES)),
        table="\n".join(rows),
        classes=", ".join(f"{number} {name}" for number, name in enumerate(CLASS_NAMES)),
    )
    write_files(target, {"README.md": card.encode(), "LICENSE": LICENSE.encode()})
    print(f"{target}: {sum(f.stat().st_size for f in target.iterdir())} bytes")


def main() -> None:
    parser = OptionParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="folder of the four official idx files")
    parser.add_argument("--target", type=Path, default=Path(__file__).resolve().parent / "fashion_mnist")
    arguments = parser.parse_args()
    build(arguments.source, arguments.target)


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError, EOFError) as error:
        reason = getattr(error, "strerror", None) or error
        sys.exit(
            f"error: {sys.argv[1]} cannot be made into a data set ({reason}); give the folder of the official files."
        )
