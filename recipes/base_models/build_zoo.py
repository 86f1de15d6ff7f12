"""
Makes small base models of several widths, depths and architectures for the universal start, by `recipes/pretrain.py`.

    python recipes/base_models/build_zoo.py
    python recipes/base_models/build_zoo.py --only unseen

They go into outputs/zoo, and what is there already is not made again. `trained` are for meta-training beside the
embedded base models; `unseen` are kept from it, for measurements. A minute or two each on one core.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from hf_l3rs.settings import OptionParser


RECIPES = Path(__file__).resolve().parent.parent
ZOO: dict[str, dict[str, tuple[str, dict]]] = {
    "trained": {
        "resnet-24": ("resnet", {"embedding_size": 24, "hidden_sizes": [24, 48, 96]}),
        "resnet-12-deep": ("resnet", {"embedding_size": 12, "hidden_sizes": [12, 24, 48], "depths": [2, 2, 2]}),
        "resnet-48": ("resnet", {"embedding_size": 32, "hidden_sizes": [32, 96, 128]}),
        "vit-32": ("vit", {"hidden_size": 32, "num_hidden_layers": 3, "intermediate_size": 96}),
        "vit-96": ("vit", {"hidden_size": 96, "num_hidden_layers": 3, "intermediate_size": 288}),
    },
    "unseen": {
        "resnet-wide": (
            "resnet",
            {"embedding_size": 32, "hidden_sizes": [32, 64, 128, 256], "depths": [1, 1, 1, 1]},
        ),
        "convnext": ("convnext", {}),
        "dinov2": ("dinov2", {}),
        "swin": ("swin", {}),
        "mobilenet-v2": ("mobilenet_v2", {}),
    },
}
STEPS = {"resnet": 400, "vit": 1500, "convnext": 500, "dinov2": 1500, "swin": 1200, "mobilenet_v2": 600}


def main(argv: list[str] | None = None) -> None:
    parser = OptionParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=ZOO, help="Which of the two groups; both by default.")
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/zoo"), help="Where they go.")
    parser.add_argument("--smoke", action="store_true", help="A few steps each, to see that everything runs.")
    arguments = parser.parse_args(argv)
    for group in [arguments.only] if arguments.only else ZOO:
        for name, (architecture, overrides) in ZOO[group].items():
            folder = arguments.output_dir / name
            if (folder / "README.md").exists():  # written last
                continue
            command = [sys.executable, RECIPES / "pretrain.py", "--architecture", architecture, "--output_dir", folder]
            command += ["--config_overrides", json.dumps(overrides), "--max_steps", STEPS[architecture]]
            command += ["--smoke"] if arguments.smoke else []
            status = subprocess.run([str(part) for part in command]).returncode
            if status:  # it has said why
                sys.exit(status)


if __name__ == "__main__":
    main()
