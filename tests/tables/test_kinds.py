"""What columns are taken for, what is said of it, and that what a person said wins."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import kregs
from kregs.tables.dates import days_since_1970, find_date_format
from kregs.tables.prediction import read_rows

ROWS = 200


def frame_of(**columns):
    rows = len(next(iter(columns.values()), range(ROWS)))
    return pd.DataFrame({**columns, "x": np.cos(range(rows)), "y": ["a", "b"] * (rows // 2)})


DATES = [
    ("09/13/2023", "%m/%d/%Y", "2023-09-13"),
    ("13/09/2023", "%d/%m/%Y", "2023-09-13"),
    ("09/01/2023", "%m/%d/%Y", "2023-09-01"),
    ("01.09.2023", "%d.%m.%Y", "2023-09-01"),
    ("1.9.23", "%d.%m.%y", "2023-09-01"),
    ("2023/09/01", "%Y/%m/%d", "2023-09-01"),
    ("31-08-2023", "%d-%m-%Y", "2023-08-31"),
    ("1 Sep 2023", "%d %b %Y", "2023-09-01"),
    ("01-September-2023", "%d %b %Y", "2023-09-01"),
    ("Sep 1, 2023", "%b %d %Y", "2023-09-01"),
    ("2023-09-01T06:00", "ISO", "2023-09-01T06:00"),
    ("09/13/2023 6:30 PM", "%m/%d/%Y", "2023-09-13T18:30"),
    ("9/13/2023 12:15 am", "%m/%d/%Y", "2023-09-13T00:15"),
]


@pytest.mark.parametrize(("word", "form", "date"), DATES)
def test_dates_as_people_write_them(word, form, date):
    words = pd.Series([word], dtype=object)
    assert find_date_format(words)[:2] == (form, 1.0)
    expected = np.datetime64(date, "s").astype(float) / 86400
    assert days_since_1970(words, form)[0] == pytest.approx(expected, abs=1e-9)


def test_a_format_that_somebody_gives_and_iso_dates_in_it():
    words = pd.Series(
        ["01-September-2023", "2 Sep 2023 6:00", "2023-09-03", "4 Sep 2023 25:00", None]
    )
    found = days_since_1970(words.astype(object), "%d-%B-%Y")
    assert found[0] == pd.Timestamp("2023-09-01").timestamp() / 86400
    found = days_since_1970(words.astype(object), "%d %b %Y") - found[0]
    assert found.tolist()[:3] == [0, 1.25, 2]
    assert found.isna().tolist() == [False, False, False, True, True]
    at_noon = days_since_1970(pd.Series(["3.9.2023 12h00"], dtype=object), "%d.%m.%Y %Hh%M")
    assert at_noon[0] == pd.Timestamp("2023-09-03 12:00").timestamp() / 86400


def test_one_bad_date_is_a_missing_value():
    for bad in (0, ROWS // 2):
        words = [f"{1 + i % 12:02}/{1 + i % 28:02}/20{i % 20:02}" for i in range(ROWS)]
        words[bad] = "soon"
        table = kregs.read_table(frame_of(when=words), "y")
        (column, _) = table.columns
        assert (column.kind, column.date_format) == ("date", "%m/%d/%Y")
        assert "1 of 200 values are no such dates" in column.note
        assert "'soon'" in column.note
        assert np.flatnonzero(table.features["when"].isna()).tolist() == [bad]


def test_the_order_of_day_and_month(tmp_path):
    undecided = [f"{1 + i % 12}/{1 + i % 12}/20{i % 20:02}" for i in range(ROWS)]
    table = kregs.read_table(frame_of(when=undecided), "y")
    assert table.columns[0].override == "--date when=%d/%m/%Y"
    assert "no value tells it from day/month/year" in table.columns[0].note
    words = ["3/4/2023", "5/6/2023"] * (ROWS // 2)
    days = kregs.read_table(frame_of(when=words), "y").features["when"]
    assert days[0] == pd.Timestamp("2023-03-04").timestamp() / 86400
    for said in (["when=%d/%m/%Y"], {"when": "%d/%m/%Y"}):
        table = kregs.read_table(frame_of(when=words), "y", date=said)
        expected = pd.Timestamp("2023-04-03").timestamp() / 86400
        assert table.features["when"][0] == expected
        assert read_rows(pd.DataFrame({"when": words[:1], "x": 0.5}), table.columns)[
            "when"
        ].tolist() == [expected]
    path = tmp_path / "semicolons.csv"
    frame_of(when=words).to_csv(path, sep=";", index=False)
    table = kregs.read_table(path, "y")
    assert table.features["when"][0] == expected
    assert table.columns[0].override == "--date when=%m/%d/%Y"
    compact = [20230101 + i % 28 for i in range(ROWS)]
    table = kregs.read_table(frame_of(when=compact), "y", date=["when"])
    assert table.features["when"][1] == pd.Timestamp("2023-01-02").timestamp() / 86400
    with pytest.raises(ValueError, match=r"`date`: column 'x' holds no date: 'z'.*--date x=%d/"):
        kregs.read_table(frame_of().assign(x="z"), "y", date=["x"])


def test_many_categories_are_kept_and_told_apart():
    rng = np.random.default_rng(0)
    many = [f"c{i % 150}" for i in range(3000)]
    zips = rng.integers(0, 1000, 3000)
    high = (zips % 2).astype(bool)
    frame = pd.DataFrame(
        {"c": many, "zip": [f"{i:05}" for i in zips], "y": np.where(high, "high", "low")}
    )
    table = kregs.read_table(frame, "y")
    assert [column.kind for column in table.columns] == ["category", "category"]
    made = table.preprocessing().fit(table.features, table.target)
    encoded = made.transform(table.features)
    assert encoded.shape == (3000, 2)
    # a zip code tells the class that all of its rows have; c says next to nothing
    assert np.corrcoef(encoded[:, 1], table.target)[0, 1] ** 2 > 0.95
    # cross-fitted: a row of a category of its own knows nothing of its target
    crossed = table.preprocessing().fit_transform(table.features, table.target)
    alone = frame["zip"].map(frame["zip"].value_counts()) == 1
    assert alone.sum() > 0
    assert np.ptp(crossed[alone, 1]) < 0.2 < np.ptp(encoded[alone, 1])


def test_rare_categories_have_a_column_of_their_own():
    words = ["a"] * 900 + ["b"] * 97 + ["c"] * 2 + ["d"]
    frame = pd.DataFrame({"c": words, "y": [0, 1] * 500})
    table = kregs.read_table(frame, "y")
    assert table.preprocessing().fit_transform(table.features).sum(axis=0).tolist() == [900, 97, 2]


def test_years_and_row_numbers():
    kinds = {
        "year": range(1900, 2100),
        "period": range(ROWS),
        "when_built": range(1850, 2050),
        "dose": range(0, 10 * ROWS, 10),
    }
    assert kregs.read_table(frame_of(**kinds), "y").names("number") == [*kinds, "x"]
    numbered = {"customer": range(3000, 3200), "up": range(ROWS), "nr": range(ROWS, 0, -1)}
    numbered["visit_id"] = [(i * 37) % 1009 for i in range(ROWS)]
    table = kregs.read_table(frame_of(**numbered), "y")
    assert table.names("number") == ["x"]
    for column in table.columns[:-1]:
        assert "numbers the rows" in column.note
        assert column.override == f"--keep {column.name}"
    assert kregs.read_table(frame_of(**numbered), "y", keep=["up"]).names("number") == ["up", "x"]
    said = kregs.read_table(frame_of(**numbered), "y", number=["nr"], categorical=["customer"])
    assert [column.kind for column in said.columns[:3]] == ["category", "dropped", "number"]


def test_none_is_a_class_and_a_category(tmp_path):
    frame = frame_of(garage=["None", "attached", "built-in", None] * 50)
    frame["y"] = ["None", "low"] * 100
    frame.to_csv(tmp_path / "data.csv", index=False)
    for data in (frame, tmp_path / "data.csv"):
        table = kregs.read_table(data, "y")
        assert table.classes == ["None", "low"]
        assert len(table.target) == ROWS
        assert any("'None' is a class of 'y'" in note for note in table.notes)
        assert table.features["garage"].tolist()[:4] == ["None", "attached", "built-in", None]
    numbers = frame_of(z=["None", "1.5"] * 100).assign(y=[*map(str, np.sin(range(199))), "None"])
    table = kregs.read_table(numbers, "y")
    assert (table.task, len(table.target)) == ("regression", 199)
    assert table.columns[0].kind == "number"
    assert "no numbers" not in table.columns[0].note


def test_what_is_kept_and_what_is_said_twice():
    frame = frame_of(
        one=["k"] * ROWS, text=[f"text {i}" for i in range(ROWS)], flag=["true"] * ROWS
    )
    dropped = kregs.read_table(frame, "y")
    assert [column.kind for column in dropped.columns[:3]] == ["dropped"] * 3
    assert "constant, 'k' in every row" in dropped.columns[0].note
    assert "200 different values in 200 rows: they hardly repeat" in dropped.columns[1].note
    kept = kregs.read_table(frame, "y", keep=["one", "text", "flag"])
    assert [column.kind for column in kept.columns[:3]] == ["category", "category", "boolean"]
    assert [column.note.endswith("; kept as asked") for column in kept.columns[:4]] == [
        True, True, True, False,
    ]  # fmt: skip
    as_numbers = kregs.read_table(frame, "y", number=["flag"])
    assert as_numbers.columns[2].kind == "boolean"
    assert set(as_numbers.features["flag"]) == {1.0}
    for said, message in (
        ({"number": ["x"], "drop": ["x"]}, "column 'x' must be one thing"),
        ({"keep": ["x"], "drop": ["x"]}, "column 'x' must be one thing"),
        ({"number": ["y"]}, "`number` may not hold the target: say what it is with `task`"),
        ({"number": ["z"]}, "`number` must be a column of the table"),
        ({"number": ["one"]}, "`number`: column 'one' holds no number: 'k'"),
        ({"groups": "one", "time": "x"}, "`groups` and `time` are two ways"),
        ({"encoding": "latin-99"}, "`encoding` must be one that Python knows"),
    ):
        with pytest.raises(ValueError, match=message):
            kregs.read_table(frame, "y", **said)


def test_other_encodings(tmp_path):
    path = tmp_path / "data.csv"
    frame = frame_of(city=["Köln", "Ulm"] * 100)
    for encoding in ("cp1252", "utf-16"):
        frame.to_csv(path, index=False, encoding=encoding)
        with pytest.raises(ValueError, match=r"not UTF-8.*--encoding cp1252"):
            kregs.read_table(path, "y")
        table = kregs.read_table(path, "y", encoding=encoding)
        assert set(table.features["city"]) == {"Köln", "Ulm"}


def test_far_targets_get_a_hint():
    values = np.sin(range(ROWS)) * 10
    table = kregs.read_table(pd.DataFrame({"x": np.cos(range(ROWS)), "y": values}), "y")
    assert not any("far from the others" in note for note in table.notes)
    values[3] = 1e9
    table = kregs.read_table(pd.DataFrame({"x": np.cos(range(ROWS)), "y": values}), "y")
    hint = next(note for note in table.notes if "far from the others" in note)
    assert "1 value of 'y'" in hint
    assert "logarithm" in hint
    typo = pd.DataFrame({"x": np.cos(range(ROWS)), "y": [*map(str, range(ROWS - 1)), "unknown"]})
    table = kregs.read_table(typo, "y")
    assert table.task == "regression"
    assert any("1 of 200 rows left out" in note and "'unknown'" in note for note in table.notes)
