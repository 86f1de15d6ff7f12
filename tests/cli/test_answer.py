import json
import math

from hf_l3rs.cli.shell import Answer, table


def test_a_person_and_a_script_get_the_same():
    answer = Answer("two words", {"loss": math.inf, "layers": [1, 2]})
    assert answer.show(as_json=False) == "two words"
    assert json.loads(answer.show(as_json=True)) == {"loss": None, "layers": [1, 2]}


def test_a_table_has_one_row_a_line_and_obeys_nobody():
    assert table({"a": None, "long": ["x"]}) == 'a     -\nlong  ["x"]'
    assert table({"a": "\x1b[31mred\n"}).isprintable()
