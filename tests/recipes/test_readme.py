"""README's table, the pictures and the data set's card are what the stored rows give: made anew, nothing changes."""

from pathlib import Path

import datasets
import pytest

from hf_l3rs.errors import DataError
from hf_l3rs.evaluation.plots import is_picture_of
from hf_l3rs.evaluation.rows import COLUMNS, Row, read_rows, to_csv, write_rows
from recipes import readme
from recipes.evidence.grid_plots import grid_data


RECIPES_README = Path("recipes/README.md")
ABLATION_ROWS = readme.ABLATIONS / "rows.csv"


@pytest.fixture(scope="module")
def sections():
    return readme.stored_sections()


def test_every_stored_comparison_is_found(sections):
    stored = {path.parent for path in readme.RESULTS.glob("*/*/rows.csv") if readme.TRANSFER not in path.parents}
    assert {section.folder for section in sections} == stored and len(sections) >= 3
    assert {section.l3rs for section in sections} == {path.name for path in Path("model_cards").iterdir()}


def test_readme_has_the_table_of_the_stored_rows(sections):
    text = Path("README.md").read_text(encoding="utf-8")
    assert readme.with_tables(text, sections) == text, "run `make readme`"


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
    table = (readme.ABLATIONS / "summary.md").read_text(encoding="utf-8")
    names = list(dict.fromkeys(row.optimizer for row in read_rows(ABLATION_ROWS)))
    assert [line.split(" | ")[0].removeprefix("| ") for line in table.splitlines()[2:]] == names


def test_the_readme_of_the_recipes_has_the_tables_of_what_is_stored():
    text = RECIPES_README.read_text(encoding="utf-8")
    assert readme.with_recipes(text) == text, "run `make readme`"


def test_what_stands_around_the_tables_stays(sections):
    own = next(section for section in sections if section.cell == readme.OWN_CELL)
    other = next(section for section in sections if section.cell != readme.OWN_CELL)
    places = [(f"<!-- {name}:begin -->", f"<!-- {name}:end -->") for name in ("results", "settings")]
    text = "above\n" + "".join(f"{begin}\nold\n{end}\nbelow\n" for begin, end in places)
    new = readme.with_tables(text, [other, own])
    assert new.startswith(f"above\n{places[0][0]}\n| fine-tuning |") and new.endswith(f"|\n{places[1][1]}\nbelow\n")
    assert "old" not in new and new.index(own.title) < new.index(places[1][0]) < new.index(other.title)
    assert readme.with_tables(new, [other, own]) == new
    for broken in ("no place", *places[0]):
        with pytest.raises(DataError, match="no place for the table results; restore"):
            readme.with_tables(broken, sections)


def test_models_that_the_universal_start_never_saw_are_in_the_table_and_the_data_set(tmp_path, monkeypatch, sections):
    rows = [Row(name, None, task, 20, 20, 0.5, 0.8) for name in ("untouched", "Adam at 1e-3") for task in (0, 1)]
    monkeypatch.setattr(readme, "RESULTS", tmp_path)
    monkeypatch.setattr(readme, "TRANSFER", tmp_path / "architecture_transfer")
    monkeypatch.setattr(readme, "ABLATIONS", tmp_path / "ablations")
    write_rows(rows, readme.TRANSFER / "swin" / "rows.csv")
    text = readme.with_recipes("<!-- transfer:begin -->\nold\n<!-- transfer:end -->\n")
    assert "| swin | 20 | 0.500 ± 0.000, 0 of 2 |" in text and "old" not in text
    card = readme.dataset_card([section._replace(l3rs="absent") for section in sections[:1]])
    assert "path: architecture_transfer/swin/rows.csv" in card and "| `architecture_transfer.swin` |" in card


def test_the_folder_is_a_data_set(sections, tmp_path):
    names = datasets.get_dataset_config_names(str(readme.RESULTS))
    of_sections = [f"{section.l3rs}.{section.cell}" for section in sections]
    of_transfer = [f"{readme.TRANSFER.name}.{model}" for model in readme.transfer_rows()]
    assert names == [*of_sections, *of_transfer, *(["ablations"] if ABLATION_ROWS.exists() else [])]
    data = datasets.load_dataset(str(readme.RESULTS), cache_dir=str(tmp_path))
    assert set(data) == {"rows", "search"} and data["rows"].column_names == list(COLUMNS)
    rows = sections[0].rows
    assert data["rows"]["loss"][:] == [row.loss for row in rows]
    last = sections[-1]
    search = datasets.load_dataset(str(readme.RESULTS), of_sections[-1], split="search", cache_dir=str(tmp_path))
    assert search["optimizer"][:] == [row.optimizer for row in read_rows(last.folder / "search.csv")]
