"""
Measures an L3RS in the settings of the paper's figure 3, one evaluation a cell: in domain (A), with another
pretraining of the model (B), on other data (C), both (D), from random weights (E), and how many times as fast (F).

    python recipes/pretrain.py --architecture resnet --seed 1 --output_dir outputs/resnet-tiny-fashion-seed1
    python recipes/data/build_digits.py outputs/digits
    python recipes/data/build_glyphs.py outputs/glyphs
    torchrun --nproc_per_node 2 recipes/figure3.py recipes/configs/figure3_resnet_tiny_fashion.yaml
    python recipes/figure3.py recipes/configs/figure3_resnet_tiny_fashion.yaml --only in_domain other_domain

Each cell has a folder in OUTPUT_DIR with all that recipes/meta_evaluate.py writes; OUTPUT_DIR itself gets figure3.png
and summary.md. After an interruption the same command goes on. To store a cell for README and its pictures, copy its
rows.csv and search.csv to recipes/results/NAME/CELL, NAME being the L3RS's, and run `make readme`.
"""

from __future__ import annotations

import logging
import shlex
import sys
from pathlib import Path

from hf_l3rs import L3RSArtifact
from hf_l3rs.cli.shell import run_script
from hf_l3rs.distributed import on_main_process
from hf_l3rs.evaluation.job import ROWS_NAME, EvaluationJob
from hf_l3rs.evaluation.rows import read_rows
from hf_l3rs.files import write_files
from hf_l3rs.meta.meta_trainer import make_accelerator


sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # recipes is not installed

from recipes.evidence.grid import LETTERS, read_cells
from recipes.evidence.grid_plots import plot_grid


logger = logging.getLogger("figure3")


def main(argv: list[str] | None = None) -> str:
    """Returns the summaries of all cells as Markdown."""
    argv = sys.argv[1:] if argv is None else argv
    cells = read_cells(argv, description=__doc__)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    accelerator = make_accelerator()
    jobs = {name: EvaluationJob(*cell, accelerator) for name, cell in cells.items()}  # all errors before the first run
    command = f"python recipes/figure3.py {shlex.join(argv)}"
    tables = [f"## {LETTERS[name]}{cells[name].evaluation.title}\n\n{job.run(command)}" for name, job in jobs.items()]
    text = "\n\n".join(tables)
    first = next(iter(cells.values())).evaluation
    output_dir = Path(first.output_dir).parent

    def write() -> None:
        write_files(output_dir, {"summary.md": f"{text}\n\n`{command}`\n".encode()})
        rows = {name: read_rows(job.output_dir / ROWS_NAME) for name, job in jobs.items()}
        trained = L3RSArtifact.from_pretrained(first.l3rs).config.num_training_steps
        try:
            plot_grid(rows, output_dir / "figure3.png", Path(first.l3rs).name, trained)
        except ImportError as error:  # everything that was measured is written, and the picture can follow
            logger.warning("There is no figure3.png: %s", error)

    on_main_process(accelerator, write)
    if accelerator.is_main_process:
        sys.stdout.write(f"\n{text}\n\nTables and pictures are in {output_dir}.\n")
    return text


if __name__ == "__main__":
    run_script(main)
