"""README's table, the pictures and the data set's card are what the stored rows give: made anew, nothing changes."""

from pathlib import Path

import datasets
import pytest

from hf_l3rs.errors import DataError
from hf_l3rs.evaluation.grid_plots import grid_data
from hf_l3rs.evaluation.plots import is_picture_of
from hf_l3rs.evaluation.results import COLUMNS, read_rows, to_csv
from recipes import readme


RECIPES_README = Path("recipes/README.md")
ABLATION_ROWS = readme.ABLATIONS / "rows.csv"


@pytest.fixture(scope="module")
def sections():
    return readme.stored_sections()


def test_every_stored_comparison_is_found(sections):
    stored = {path.parent for path in readme.RESULTS.glob("*/*/rows.csv")}
    assert {section.folder for section in sections} == stored and len(sections) >= 3
    assert {section.l3rs for section in sections} == {path.name for path in Path("model_cards").iterdir()}


def test_readme_has_the_table_of_the_stored_rows(sections):
    text = Path("README.md").read_text(encoding="utf-8")
    assert readme.with_table(text, sections) == text, "run `make readme`"


def test_the_card_of_the_data_set_names_every_file(sections):
    assert readme.dataset_card(sections) == (readme.RESULTS / "README.md").read_text(encoding="utf-8"), "`make readme`"


def test_pictures_are_of_the_stored_rows(sections):
    for name in {section.l3rs for section in sections}:
        own = {section.cell: section.rows for section in sections if section.l3rs == name}
        first = next(iter(own.values()))
        assert is_picture_of(readme.RESULTS / name / "curves.png", to_csv(first).encode()), "run `make readme`"
        assert is_picture_of(readme.RESULTS / name / "figure3.png", grid_data(own)), "run `make readme`"
        pictures = [folder / name / "curves.png" for folder in (readme.RESULTS, readme.ROOT / "model_cards")]
        assert len({picture.read_bytes() for picture in pictures}) == 1, "run `make readme`"


def test_the_ablations_in_the_readme_of_the_recipes_are_the_stored_ones():
    if not ABLATION_ROWS.exists():
        pytest.skip("No ablations are stored.")
    rows = ABLATION_ROWS.read_bytes()
    assert is_picture_of(readme.ABLATIONS / "ablations.png", rows), "run `make readme`"
    table, text = (path.read_text(encoding="utf-8") for path in (readme.ABLATIONS / "summary.md", RECIPES_README))
    names = list(dict.fromkeys(row.optimizer for row in read_rows(ABLATION_ROWS)))
    assert [line.split(" | ")[0].removeprefix("| ") for line in table.splitlines()[2:]] == names
    assert readme.with_ablations(text) == text, "run `make readme`"


def test_what_stands_around_the_table_stays(sections):
    text = f"above\n{readme.BEGIN}\nold\n{readme.END}\nbelow\n"
    new = readme.with_table(text, sections[:1])
    assert new.startswith(f"above\n{readme.BEGIN}\n| fine-tuning |") and new.endswith(f"|\n{readme.END}\nbelow\n")
    assert "old" not in new and readme.with_table(new, sections[:1]) == new
    for broken in ("no place", readme.BEGIN, readme.END):
        with pytest.raises(DataError, match="no place for its table; restore"):
            readme.with_table(broken, sections)


def test_the_folder_is_a_data_set(sections, tmp_path):
    names = datasets.get_dataset_config_names(str(readme.RESULTS))
    of_sections = [f"{section.l3rs}.{section.cell}" for section in sections]
    assert names == [*of_sections, *(["ablations"] if ABLATION_ROWS.exists() else [])]
    data = datasets.load_dataset(str(readme.RESULTS), cache_dir=str(tmp_path))
    assert set(data) == {"rows", "search"} and data["rows"].column_names == list(COLUMNS)
    rows = sections[0].rows
    assert data["rows"]["loss"][:] == [row.loss for row in rows]
    last = sections[-1]
    search = datasets.load_dataset(str(readme.RESULTS), of_sections[-1], split="search", cache_dir=str(tmp_path))
    assert search["optimizer"][:] == [row.optimizer for row in read_rows(last.folder / "search.csv")]
