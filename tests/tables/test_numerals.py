"""Numbers as people write them, and the columns where it cannot be known what they mean."""

from __future__ import annotations

import numpy as np
import pytest

import kregs
from kregs.tables.numerals import NumberFormat
from kregs.tables.prediction import read_rows


@pytest.fixture
def write(tmp_path):
    def write(delimiter=",", name="data.csv", **columns):
        rows = max(len(words) for words in columns.values())
        columns |= {"y": ["a", "b"] * (rows // 2)}
        lines = [columns, *zip(*columns.values(), strict=True)]
        quoted = [delimiter.join(f'"{field}"' for field in line) for line in lines]
        (tmp_path / name).write_text("\n".join(quoted), encoding="utf-8")
        return tmp_path / name

    return write


def repeated(*words):
    """Forty words of different numbers: no copies of rows, no row numbers."""
    return list(words) * (40 // len(words))


@pytest.mark.parametrize(
    ("word", "form", "number"),
    [
        ("23,456", NumberFormat(".", ","), 23456.0),
        ("$18.03", NumberFormat(), 18.03),
        ("18.03 USD", NumberFormat(), 18.03),
        ("-$1,250.50", NumberFormat(".", ","), -1250.5),
        ("$-5", NumberFormat(), -5.0),
        ("(5.25)", NumberFormat(), -5.25),
        ("−3", NumberFormat(), -3.0),
        ("46.4%", NumberFormat(), 46.4),
        ("46,4 %", NumberFormat(","), 46.4),
        ("1.234.567,5 €", NumberFormat(",", "."), 1234567.5),
        ("1 234,5", NumberFormat(",", " "), 1234.5),
        ("1\u202f234", NumberFormat(".", " "), 1234.0),
        ("1’234.5", NumberFormat(".", "'"), 1234.5),
        ("1,5e3", NumberFormat(","), 1500.0),
        (".5", NumberFormat(), 0.5),
        ("-inf", NumberFormat(), -np.inf),
        ("12,34", NumberFormat(".", ","), np.nan),
        ("1,2345", NumberFormat(".", ","), np.nan),
        ("1.2.3", NumberFormat(), np.nan),
        ("--5", NumberFormat(), np.nan),
        ("(5", NumberFormat(), np.nan),
        ("$5%", NumberFormat(), np.nan),
        ("5 kg", NumberFormat(), np.nan),
        ("1_000", NumberFormat(), np.nan),
        ("", NumberFormat(), np.nan),
    ],
)
def test_a_word_is_one_number(word, form, number):
    np.testing.assert_equal(form.parse(word), number)


@pytest.mark.parametrize(
    ("delimiter", "words", "numbers"),
    [
        (",", ["23,456", "1,000", "970", "5"], [23456, 1000, 970, 5]),
        (",", ["$18.03", "$1,250.50", "$3", "$7.5"], [18.03, 1250.5, 3, 7.5]),
        (",", ["46.4%", "5%", "0.25%", "100%"], [46.4, 5, 0.25, 100]),
        (";", ["1.000", "1.030", "970", "12"], [1000, 1030, 970, 12]),
        (";", ["1.000", "1.030", "1.500", "2.125"], [1000, 1030, 1500, 2125]),
        (";", ["1.000", "970,5", "2.000,25", "3"], [1000, 970.5, 2000.25, 3]),
        (";", ["1,5", "2,25", "1000", "3"], [1.5, 2.25, 1000, 3]),
        (";", ["1.5", "2.25", "1.000", "3"], [1.5, 2.25, 1, 3]),  # 1.5 says what a point is
        (";", ["1,234,567", "1,234", "2", "3"], [1234567, 1234, 2, 3]),
        (",", ["1.000", "1.125", "2.500", "3.250"], [1, 1.125, 2.5, 3.25]),
        (",", ["0,13", "1,25", "2,5", "3,75"], [0.13, 1.25, 2.5, 3.75]),
        ("\t", ["1'000", "970", "1'250.5", "3"], [1000, 970, 1250.5, 3]),
    ],
)
def test_the_format_of_a_column_is_found(write, delimiter, words, numbers):
    path = write(delimiter, x=repeated(*words))
    table = kregs.read_table(path, "y")
    assert table.features["x"].tolist()[:4] == numbers
    assert read_rows(path, table.columns)["x"].tolist() == table.features["x"].tolist()


def test_other_columns_of_the_file_say_what_a_mark_is(write):
    fixed, other = repeated("1.125", "2.250", "3.375", "4.500"), repeated("0.5", "1.25")
    table = kregs.read_table(write(";", x=fixed, z=other), "y")
    assert table.features["x"].tolist()[:2] == [1.125, 2.25]
    commas = repeated("0,5", "1,25")
    table = kregs.read_table(write(";", x=fixed, z=commas), "y")
    assert table.features["x"].tolist()[:2] == [1125, 2250]
    # 1.000 and 970 in one column are no decimals, whatever another column has
    table = kregs.read_table(write(";", x=repeated("1.000", "970"), z=other), "y")
    assert table.features["x"].tolist()[:2] == [1000, 970]


AMBIGUOUS = [
    (";", ["1.000", "1.030", "1500", "970"], "7"),
    (";", ["1.000", "1.030", "1500", "970"], "0.5"),
    (";", ["1.125", "2.345", "970", "12"], "0.5"),
    (";", ["1,234", "2,345", "970", "12"], "7"),
    (",", ["23,456", "1,000", "1500", "970"], "0.5"),
    (",", ["1.000", "1,000", "5", "6"], "7"),
    (",", ["1.000", "1.030", "970", "12"], "0.5"),
]


@pytest.mark.parametrize(("delimiter", "words", "other"), AMBIGUOUS)
def test_what_is_ambiguous_is_refused_and_said_by_an_option(write, delimiter, words, other):
    path = write(delimiter, x=repeated(*words), z=repeated("3", other))
    with pytest.raises(ValueError, match=r"column 'x' is ambiguous.*--thousands MARK"):
        kregs.read_table(path, "y")
    mark = "." if "." in words[0] else ","
    values = kregs.read_table(path, "y", thousands=mark).features["x"]
    assert values.tolist()[0] == float(words[0].replace(mark, ""))
    assert kregs.read_table(path, "y", drop=["x"]).names("number") == ["z"]
    assert "x" in kregs.read_table(path, "y", categorical=["x"]).names("category")


def test_one_slip_among_thousands_is_refused_where_other_columns_have_the_other_mark(write):
    words = ["1.5", *(f"{i}.713" for i in range(1, 30)), *(f"{i}70" for i in range(1, 11))]
    path = write(";", x=words, z=repeated("3", "0,5"))
    with pytest.raises(ValueError, match=r"column 'x' is ambiguous.*'1.5' has.*columns is ','"):
        kregs.read_table(path, "y")
    assert kregs.read_table(path, "y", thousands=".").features["x"].tolist()[1] == 1713


def test_marks_that_somebody_said(write):
    path = write(";", x=repeated("1.000", "970"), z=[str(i % 7) for i in range(40)])

    def values(**said):
        return kregs.read_table(path, "y", **said).features["x"].tolist()[:2]

    assert values(decimal=".") == [1, 970]
    assert values(thousands="none") == [1, 970]
    assert values(decimal=",") == values(thousands=".") == [1000, 970]
    for said in ({"decimal": "x"}, {"thousands": ";"}, {"decimal": ",", "thousands": ","}):
        with pytest.raises(ValueError, match="|".join(said)):
            kregs.read_table(path, "y", **said)


def test_notes_say_what_was_read_and_what_changes_it(write):
    path = write(
        ";",
        whole=repeated("1.000", "970"),
        price=repeated("$5", "$7.5"),
        rate=repeated("5%", "7.5%", "8%", "0.1"),
        mixed=repeated("$5", "€7"),
        part=repeated("1", "2", "old", "new"),
        code=repeated("01067", "99089"),
        zip=repeated("10115", "20095"),
    )
    found = kregs.read_table(path, "y").describe().set_index("column")
    assert "thousands points: 1.000 is 1000 (else --decimal .)" in found.loc["whole", "note"]
    assert found.loc["price", "note"] == "numbers; without the sign $"
    assert found.loc["rate", "note"] == "numbers; without the sign %, which 10 lack"
    assert found.loc["price", "override"] == "--categorical price"
    assert "different units: $, €" in found.loc["mixed", "note"]
    assert "only 50% of its values are numbers" in found.loc["part", "note"]
    assert found.loc["part", "override"] == "--number part"
    assert "zeros in front" in found.loc["code", "note"]
    assert "codes, by its name" in found.loc["zip", "note"]
    assert found["kind"].tolist() == ["number"] * 3 + ["category"] * 4
    table = kregs.read_table(path, "y", number=["part", "code"])
    assert table.features["part"].isna().sum() == 20
    assert set(table.features["code"]) == {1067, 99089}


def test_rows_are_predicted_in_the_format_they_have(write):
    groups = kregs.read_table(write(";", x=repeated("1.000", "970", "2.500", "3")), "y").columns
    commas = kregs.read_table(write(";", x=repeated("1,5", "2,25")), "y").columns
    for delimiter, columns, words, numbers in (
        (";", groups, ["1.500", "2.000"], [1500, 2000]),
        (",", groups, ["1500.5", "2.5"], [1500.5, 2.5]),
        (",", commas, ["1.5", "2"], [1.5, 2]),
    ):
        assert read_rows(write(delimiter, x=words), columns)["x"].tolist() == numbers


def test_a_target_may_be_written_like_that_too(write, tmp_path):
    x = np.cos(np.arange(40)).round(3)
    lines = ["x;price", *(f"{v};{i + 1}.{100 + i},50 €" for i, v in enumerate(x))]
    path = tmp_path / "prices.csv"
    path.write_text("\n".join(lines), encoding="utf-8")
    table = kregs.read_table(path, "price")
    assert table.task == "regression"
    assert table.target.tolist()[:2] == [1100.5, 2101.5]
    assert any("'price': thousands points" in note for note in table.notes)
