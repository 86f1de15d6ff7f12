"""Text in Markdown: what a value says is shown, and nothing that it could do."""

import re

import pytest

from hf_l3rs.markdown import (
    duration,
    listed,
    markdown_cell,
    markdown_code,
    markdown_table,
    markdown_text,
    mean_with_stderr,
    one_line,
    percent_with_stderr,
)


def cells_of(line):
    """The cells of a line of a table, as GitHub splits it: at bars that no backslash of their own stands before."""
    return re.findall(r"((?:\\.|[^\\|])*)\|", line[1:])


@pytest.mark.parametrize(
    "value, line",
    [
        ("a\nb\r\nc\td  e", "a b c d e"),
        ("  around  ", "around"),
        ("\x1b[31mred\x1b[0m", "\ufffd[31mred\ufffd[0m"),
        ("bell\x07 delete\x7f escape\x9b", "bell\ufffd delete\ufffd escape\ufffd"),
        ("right\u202eleft", "right\ufffdleft"),
        ("half of a pair \ud83d", "half of a pair \ufffd"),
        ("line\u2028paragraph\u2029next\x85page\x0c", "line paragraph next page"),
        ("Zürich ± µ λ 学习 😀", "Zürich ± µ λ 学习 😀"),
        (None, "None"),
        (0.5, "0.5"),
        ("", ""),
    ],
)
def test_one_line(value, line):
    assert one_line(value) == line
    assert line.isprintable()


@pytest.mark.parametrize(
    "value, text",
    [
        ("<b>bold</b>", "&lt;b>bold&lt;/b>"),
        ("<!-- hf_l3rs:end usage -->", "&lt;!-- hf_l3rs:end usage -->"),
        ("<https://evil.example>", "&lt;https://evil.example>"),
        ("![x](https://evil.example)", r"![x]\(https://evil.example)"),
        (r"[x]\(y)", r"[x]\\(y)"),
        (r"C:\data", r"C:\\data"),
        ("AT&T, 1 & 2", "AT&T, 1 & 2"),
        ("&lt;b> &#60; &#x3c;", "&amp;lt;b> &amp;#60; &amp;#x3c;"),
        ("[10, 20]", "[10, 20]"),
        ("max_grad_norm", "max_grad_norm"),
        ("a | b", "a | b"),
    ],
)
def test_text(value, text):
    assert markdown_text(value) == text


def test_code():
    assert markdown_code("resnet-tiny") == "`resnet-tiny`"
    assert markdown_code("a`b\n`c") == "`a'b 'c`"
    assert "<!--" not in markdown_code("<!-- hf_l3rs:end usage -->")
    assert markdown_code("<b>") == "`<b>`"


@pytest.mark.parametrize("value", ["a | b", r"a \| b", r"a \\| b", "a\\", "|", "||", "\\", "a\n| b |\n"])
def test_a_cell_stays_a_cell(value):
    line = markdown_table(["one", "two"], [[value, "after"]]).splitlines()[2]
    cells = cells_of(line)
    assert len(cells) == 2 and cells[1].strip() == "after"
    assert re.sub(r"\\(.)", r"\1", cells[0]).strip() == one_line(value)


def test_table():
    rows = [["a", 1, None], ("b | c", 2.5, "x\ny")]
    assert markdown_table(["name", "value", "note"], rows, ["left", "right", "left"]) == (
        "| name | value | note |\n| :-- | --: | :-- |\n| a | 1 |  |\n| b \\| c | 2.5 | x y |"
    )
    assert markdown_table(["a", "b"], iter([])) == "| a | b |\n| :-- | :-- |"
    assert markdown_cell(None) == ""
    assert markdown_cell(0) == "0"


@pytest.mark.parametrize(
    "rows, alignments", [([["a"]], []), ([["a", "b", "c"]], []), ([], ["left"]), ([], ["left", "right", "left"])]
)
def test_every_row_has_a_cell_for_every_column(rows, alignments):
    with pytest.raises(ValueError, match="2 columns"):
        markdown_table(["one", "two"], rows, alignments)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "0 s"), (89, "89 s"), (90, "2 min"), (630, "10 min"), (5400, "1.5 hours")]
)
def test_times_are_in_the_unit_that_says_them_shortest(seconds, text):
    assert duration(seconds) == text


def test_an_error_is_shown_where_it_is_known():
    assert (mean_with_stderr(0.5, 0.01), mean_with_stderr(0.5, None, 1)) == ("0.500 ± 0.010", "0.5")
    assert (percent_with_stderr(0.923, 0.002), percent_with_stderr(0.923, None)) == ("92.3 ± 0.2 %", "92.3 %")


@pytest.mark.parametrize("values, text", [([10], "10"), ([10, 20], "10 and 20"), ("abc", "a, b and c")])
def test_a_list_in_a_sentence(values, text):
    assert listed(values) == text
