"""Separators are found out, or given; decimals behind a comma are noticed."""

import io
import sys
import warnings

import pandas as pd
import pytest

from densekit.formats import read, write

FRAME = pd.DataFrame(
    {"age": [31, -4, 7], "city": ["Bern, CH", "a;b|c\td", "x"], "income": [0.5, 1e-3, 2.0]}
)


@pytest.mark.parametrize("sep", [";", "\t", "|", ","])
@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.csv.gz"])
def test_separators_are_found_out(tmp_path, name, sep):
    write(FRAME, tmp_path / name, sep=sep)
    pd.testing.assert_frame_equal(read(tmp_path / name), FRAME)


@pytest.mark.parametrize("sep", ["^", " ", "~", ":"])
def test_any_other_separator_is_given(tmp_path, sep):
    write(FRAME, tmp_path / "t.csv", sep=sep)
    pd.testing.assert_frame_equal(read(tmp_path / "t.csv", sep=sep), FRAME)


@pytest.mark.parametrize("word", ["tab", "\\t", "\t"])
def test_a_tab_has_a_name(tmp_path, word):
    write(FRAME, tmp_path / "t.csv", sep=word)
    assert (tmp_path / "t.csv").read_text().startswith('"age"\t"city"')
    assert read(tmp_path / "t.csv", sep=word)["age"].tolist() == [31, -4, 7]


def test_the_separator_of_a_stream_is_found_out(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a;b\n1;2\n")))
    assert read("-").to_dict("list") == {"a": [1], "b": [2]}


FOUND = {
    "commas in a header of semicolons": (b"price, EUR;n\n150;3\n", ["price, EUR", "n"]),
    "decimals behind a comma": (b"a;b\n1,5;2,5\n3,5;1,0\n", ["a", "b"]),
    "one column with commas quoted": (b'text\n"a, b"\n"c; d"\n', None),
    "one column whose lines have marks": (b"n\n1\n2\n", ["n"]),
    "a list of tags": (b"id,tags\n1,a|b|c\n2,d\n", ["id", "tags"]),
    "more commas than others": (b"a,b,c|d\n1,2,3|4\n", ["a", "b", "c|d"]),
    "a ragged file of commas": (b"a,b\n1,2\n\n5,6\n", ["a", "b"]),
    "Windows and old lines": (b"a;b\r\n1;2\r\n", ["a", "b"]),
    "a byte order mark": (b"\xef\xbb\xbfa;b\n1;2\n", ["a", "b"]),
}


@pytest.mark.filterwarnings("ignore:.*look like numbers")
@pytest.mark.parametrize("case", FOUND)
def test_the_header_and_all_lines_decide(tmp_path, case):
    content, columns = FOUND[case]
    (tmp_path / "t.csv").write_bytes(content)
    rows = read(tmp_path / "t.csv")
    assert (None if isinstance(rows, list) else list(rows.columns)) == columns


def test_what_is_quoted_divides_nothing_however_long_the_file(tmp_path):
    frame = pd.DataFrame({"a": range(40_000), "b": ["x;y;z"] * 40_000})
    write(frame, tmp_path / "t.csv")
    assert read(tmp_path / "t.csv").equals(frame)
    # A line, or a quote, that the end of the sample cuts is not counted.
    (tmp_path / "t.csv").write_bytes(
        b"a;b\n" + b"1;2\n" * 20_000 + b'3;"x' + b";\n" * 90_000 + b'"\n'
    )
    assert read(tmp_path / "t.csv").shape == (20_001, 2)


WRONG = {
    "two divide alike": (b"a,b;c\n1,2;3\n", {}, ["',' (into 2) and ';' (into 2)", "--sep ','"]),
    "the wrong one is given": (
        b"a,b\n1,2\n",
        {"sep": ";"},
        ["';' separates nothing", "',' splits each line into 2 values", "omit --sep"],
    ),
    "no line agrees": (b"a;b\n1;2;3\n4;5;6\n", {}, ["line 2: 3 values for 2 columns", "--sep"]),
    "no mark": (b"a\n1\n", {"sep": ";;"}, ["sep=';;' must be one character"]),
    "a digit": (b"a\n1\n", {"sep": "1"}, ["sep='1' must be one character"]),
    "no decimal mark": (b"a\n1\n", {"decimal": "'"}, ["decimal=\"'\" must be '.' or ','"]),
    "one for both": (b"a\n1\n", {"sep": ",", "decimal": ","}, ["sep and decimal are both ','"]),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_names_file_and_remedy(tmp_path, case):
    content, given, words = WRONG[case]
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(ValueError) as caught:
        read(tmp_path / "t.csv", **given)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("given", [{"sep": ";"}, {"decimal": ","}])
def test_other_formats_have_no_marks(tmp_path, given):
    write(FRAME, tmp_path / "t.parquet")
    with pytest.raises(ValueError, match=r"t.parquet: .* is for CSV files, and this is parquet"):
        read(tmp_path / "t.parquet", **given)


def test_one_column_may_be_named_with_a_separator(tmp_path):
    (tmp_path / "t.csv").write_text("a;b\nx\ny\n")
    with pytest.raises(ValueError, match=r"line 2: 1 values for 2 columns"):
        read(tmp_path / "t.csv")
    assert list(read(tmp_path / "t.csv", sep=",").columns) == ["a;b"]


def test_decimal_commas_are_read_with_the_option(tmp_path):
    (tmp_path / "t.csv").write_text("a;b;c\n1,5;x;2\n-0,25;y;3\n")
    with pytest.warns(
        UserWarning, match=r"t.csv: column 'a' .* '1,5' has the decimal mark .*--decimal ','"
    ):
        assert read(tmp_path / "t.csv")["a"].tolist() == ["1,5", "-0,25"]
    back = read(tmp_path / "t.csv", decimal=",")
    assert back.to_dict("list") == {"a": [1.5, -0.25], "b": ["x", "y"], "c": [2, 3]}


HINTS = {
    "decimals": ("1,5 2 3,25", ".", "'1,5' has the decimal mark ','"),
    "decimals or thousands": (
        "1,234 5,678",
        ".",
        "if '1,234' has decimals, .*; if it has thousands",
    ),
    "thousands": ("1,234,567 12", ".", "has the thousands mark ','"),
    "thousands and decimals": ("1,234.5 7", ".", "has the thousands mark ','"),
    "thousands of dots": ("1.234,5 7", ".", r"has the thousands mark '\.': .* use --decimal ','"),
    "the other way round": ("1.5 2.25", ",", r"'1\.5' has the decimal mark '\.'"),
    "dots and commas": ("1.234,5 7", ",", r"has the thousands mark '\.': remove these marks$"),
}


@pytest.mark.parametrize("case", HINTS)
def test_numbers_that_are_read_as_words_are_noticed(tmp_path, case):
    values, decimal, pattern = HINTS[case]
    (tmp_path / "t.csv").write_text("v;w\n" + "".join(f"{v};x\n" for v in values.split()))
    with pytest.warns(UserWarning, match=rf"t.csv: column 'v' is read as strings.*{pattern}"):
        read(tmp_path / "t.csv", decimal=decimal)


@pytest.mark.parametrize(
    "values", ["a,b c", "12 1,5x", "1,2,3 4", "007 12a", "1.2.3 4", ", .", "1e5 x"]
)
def test_words_are_not_taken_for_numbers(tmp_path, values):
    (tmp_path / "t.csv").write_text("v;w\n" + "".join(f"{v};x\n" for v in values.split()))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read(tmp_path / "t.csv")["v"].tolist() == values.split()
