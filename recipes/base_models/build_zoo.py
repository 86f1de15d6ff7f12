"""
Makes base models of several widths, depths and architectures for the universal start, by `recipes/pretrain.py`.

    python recipes/base_models/build_zoo.py
    python recipes/base_models/build_zoo.py --only mixed mid --data_dir outputs/data

They go into outputs/zoo, and what is there already is not made again. An interrupted model goes on where it stopped.
The groups, of which the first two are made by default:

- `trained`: small models of Fashion-MNIST, for meta-training beside the embedded base models. A minute or two each.
- `unseen`: other architectures of Fashion-MNIST that are kept from meta-training, for measurements.
- `mixed`: small models of 32x32 pixels for all domains together. A few minutes each.
- `mid`: three models of 2.2 to 4.8 million parameters for all domains together. About half an hour each.

All domains together are 1,506 classes: five of Fashion-MNIST, the ten digits of `glyphs`, and the 1,163 emoji and 328
stamps that are no task's. Make them first, each in a folder of --data_dir: recipes/data/build_glyphs.py and
recipes/data/build_stickers.py. Times are of one core. Each model's README.md has its accuracy on the held-out images
of each domain. Without their heads for 1,506 classes the models of all domains have:

| model | parameters | convolutions and linear layers | norms |
|---|---|---|---|
| vit-mid | 2,268,288 | 38 | 13 layer |
| resnet-mid | 4,363,248 | 21 | 20 batch |
| convnext-mid | 1,873,600 | 28 | 12 layer |
| resnet-deep-mixed | 565,392 | 40 | 39 batch |
| regnet-mixed | 91,326 | 35 | 22 batch |
| efficientnet-mixed | 198,822 | 42 | 31 batch |
| mobilenet-v2-mixed | 159,392 | 53 | 52 batch |
| swin-mixed | 209,826 | 27 | 11 layer |
| dinov2-mixed | 546,048 | 26 | 9 layer |
| convnext-mixed | 279,336 | 28 | 12 layer |
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from hf_l3rs.settings import OptionParser


RECIPES = Path(__file__).resolve().parent.parent
DOMAINS = ("glyphs", "emoji", "stamps")  # beside Fashion-MNIST


class Model(NamedTuple):
    """A model type of transformers, other sizes than those of `recipes/pretrain.py`, and how long it is trained."""

    architecture: str
    steps: int
    sizes: dict[str, Any] = {}
    options: dict[str, Any] = {}


SMALL = {"image_size": 32, "per_device_train_batch_size": 64, "learning_rate": 2e-3}
LARGE = {"image_size": 48, "per_device_train_batch_size": 64, "learning_rate": 1e-3}
ZOO: dict[str, dict[str, Model]] = {
    "trained": {
        "resnet-24": Model("resnet", 400, {"embedding_size": 24, "hidden_sizes": [24, 48, 96]}),
        "resnet-12-deep": Model(
            "resnet", 400, {"embedding_size": 12, "hidden_sizes": [12, 24, 48], "depths": [2, 2, 2]}
        ),
        "resnet-48": Model("resnet", 400, {"embedding_size": 32, "hidden_sizes": [32, 96, 128]}),
        "vit-32": Model("vit", 1500, {"hidden_size": 32, "num_hidden_layers": 3, "intermediate_size": 96}),
        "vit-96": Model("vit", 1500, {"hidden_size": 96, "num_hidden_layers": 3, "intermediate_size": 288}),
    },
    "unseen": {
        "resnet-wide": Model(
            "resnet", 400, {"embedding_size": 32, "hidden_sizes": [32, 64, 128, 256], "depths": [1, 1, 1, 1]}
        ),
        "convnext": Model("convnext", 500),
        "dinov2": Model("dinov2", 1500),
        "swin": Model("swin", 1200),
        "mobilenet-v2": Model("mobilenet_v2", 600),
    },
    "mid": {
        "vit-mid": Model(
            "vit",
            2500,
            {"hidden_size": 192, "num_hidden_layers": 6, "num_attention_heads": 6, "intermediate_size": 576}
            | {"patch_size": 8},
            {**LARGE, "image_size": 40},
        ),
        "resnet-mid": Model(
            "resnet", 3500, {"embedding_size": 48, "hidden_sizes": [48, 96, 192, 288], "depths": [2, 2, 2, 2]}, LARGE
        ),
        "convnext-mid": Model(
            "convnext", 3000, {"patch_size": 4, "hidden_sizes": [64, 128, 256], "depths": [2, 4, 2]}, LARGE
        ),
    },
    "mixed": {
        "resnet-deep-mixed": Model("resnet", 1500, {"depths": [6, 6, 6]}, SMALL),
        "regnet-mixed": Model("regnet", 2000, {}, SMALL),
        "efficientnet-mixed": Model("efficientnet", 1500, {}, SMALL),
        "mobilenet-v2-mixed": Model("mobilenet_v2", 1500, {}, SMALL),
        "swin-mixed": Model("swin", 2000, {}, SMALL),
        "dinov2-mixed": Model("dinov2", 2000, {"hidden_size": 128, "patch_size": 4}, SMALL),
        "convnext-mixed": Model("convnext", 2000, {"depths": [2, 4, 2]}, SMALL),
    },
}


def make(model: Model, folder: Path, data: list[str], smoke: bool) -> None:
    """Has `recipes/pretrain.py` make a model, of Fashion-MNIST alone or with other data sets."""
    options: dict[str, Any] = {
        "architecture": model.architecture,
        "output_dir": folder,
        "config_overrides": json.dumps(model.sizes),
        "max_steps": model.steps,
        **model.options,
    }
    if data:
        options |= {"augment": "affine", "save_strategy": "steps", "save_steps": 100, "save_total_limit": 1}
    command = [sys.executable, RECIPES / "pretrain.py", *(f"--{key}={value}" for key, value in options.items())]
    command += ["--dataset_name", RECIPES / "data" / "fashion_mnist", *data] if data else []
    command += ["--smoke"] if smoke else []
    status = subprocess.run([str(part) for part in command]).returncode
    if status:  # it has said why
        sys.exit(status)


def main(argv: list[str] | None = None) -> None:
    parser = OptionParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    groups = ("trained", "unseen")
    parser.add_argument("--only", choices=ZOO, nargs="+", default=groups, help="Which groups.")
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/zoo"), help="Where they go.")
    parser.add_argument("--data_dir", type=Path, default=Path("outputs/data"), help="Where glyphs, emoji, stamps are.")
    parser.add_argument("--smoke", action="store_true", help="A few steps each, to see that everything runs.")
    arguments = parser.parse_args(argv)
    for group in arguments.only:
        data = [str(arguments.data_dir / name) for name in DOMAINS] if group in ("mixed", "mid") else []
        for name, model in ZOO[group].items():
            folder = arguments.output_dir / name
            if not (folder / "README.md").exists():  # written last
                make(model, folder, data, arguments.smoke)


if __name__ == "__main__":
    main()
