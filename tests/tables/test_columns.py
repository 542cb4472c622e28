"""What the columns of a table are, from a file and from a DataFrame."""

from __future__ import annotations

import lzma

import numpy as np
import pandas as pd
import pytest

import kregs
from kregs.tables.columns import convert
from kregs.tables.prediction import read_rows


def test_the_types_are_found(people_csv, people):
    table = kregs.read_table(people_csv, "y")
    found = table.describe().set_index("column")
    assert found["kind"].to_dict() == {
        "customer": "dropped",
        "age": "number",
        "income": "number",
        "city": "category",
        "member": "boolean",
        "since": "date",
        "country": "dropped",
        "empty": "dropped",
        "remark": "dropped",
    }
    assert found.loc["income", "missing"] == 18
    assert found.loc["city", "distinct"] == 3
    assert "numbers the rows" in found.loc["customer", "note"]
    assert "constant" in found.loc["country", "note"]
    assert "empty" in found.loc["empty", "note"]
    assert "hardly repeat" in found.loc["remark", "note"]
    assert "'unknown'" in found.loc["age", "note"]
    assert (table.task, table.classes) == ("classification", ["no", "yes"])
    assert table.features["since"].iloc[0] == pd.Timestamp(people()["since"][0]).timestamp() / 86400
    assert set(table.features["member"]) == {0.0, 1.0}
    assert table.features["city"].isna().sum() == 11


def test_csv_and_frame_are_the_same_table(people_csv, people):
    typed = people()
    typed["age"] = pd.to_numeric(typed["age"], errors="coerce")
    typed["income"] = pd.to_numeric(typed["income"], errors="coerce")
    typed["since"] = pd.to_datetime(typed["since"])
    typed["member"] = typed["member"].str.lower() == "true"
    typed["city"] = typed["city"].replace("NA", None).astype("category")
    one, two = kregs.read_table(people_csv, "y"), kregs.read_table(typed, "y")
    np.testing.assert_array_equal(one.target, two.target)
    encode = one.preprocessing()
    expected = encode.fit_transform(one.features)
    found = two.preprocessing().fit_transform(two.features)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    # age, income, member, since; two columns with gaps; three cities and none
    assert expected.shape == (120, 4 + 2 + 4)


def test_a_code_is_one_category_in_a_file_and_in_a_frame(tmp_path):
    codes = [1.0, 2.0, np.nan, 2.5] * 10
    frame = pd.DataFrame({"code": codes, "y": [0, 1] * 20})
    frame.to_csv(tmp_path / "floats.csv", index=False)  # 1.0
    words = frame.assign(code=["1", "02", "", "2.50"] * 10)
    words.to_csv(tmp_path / "words.csv", index=False)
    for data in (frame, frame.astype({"code": object}), words, *sorted(tmp_path.glob("*.csv"))):
        table = kregs.read_table(data, "y", categorical=["code"])
        assert table.features["code"].tolist() == ["1", "2", None, "2.5"] * 10
        assert table.columns[0].distinct == 3
        found = read_rows(data, kregs.read_table(frame, "y", categorical=["code"]).columns)
        assert found["code"].tolist() == table.features["code"].tolist()
    long = ["12345678901234567", "12345678901234568"]  # one float, two categories
    assert convert(pd.Series(long), "category")[0].tolist() == long


def test_booleans_are_the_same_in_a_file_and_in_a_frame(tmp_path):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {"b": rng.random(40) < 0.5, "x": rng.random(40), "y": rng.random(40) < 0.5}
    )
    frame.to_csv(tmp_path / "data.csv", index=False)
    gaps = frame.astype({"b": "boolean"})
    gaps.loc[0, "b"] = pd.NA
    found = []
    for data in (frame, tmp_path / "data.csv", frame.astype(object), gaps):
        table = kregs.read_table(data, "y")
        assert table.names("boolean") == ["b"]
        assert table.features["b"].tolist()[1:] == frame["b"].astype(float).tolist()[1:]
        assert [repr(label) for label in table.classes] == ["False", "True"]
        np.testing.assert_array_equal(table.target, frame["y"])
        assert kregs.read_table(data, "y", task="regression").target.sum() == frame["y"].sum()
        coded = kregs.read_table(data, "y", categorical=["b"]).features["b"]
        assert coded.tolist()[1:] == frame["b"].astype(str).tolist()[1:]
        found.append(table.columns)
    assert found[0] == found[1] == found[2]
    assert table.features["b"].isna().sum() == 1
    for kind in ("bool", "boolean", "category"):  # of a model that was trained on 0 and 1
        assert convert(frame["b"].astype(kind), "number")[0].sum() == frame["b"].sum()
    rare = frame.assign(y=[True] * 2 + [False] * 38)
    with pytest.raises(ValueError, match="2 rows left out: fewer than 3 of class True"):
        kregs.read_table(rare, "y")


def test_repeated_row_labels():
    part = pd.DataFrame({"x": np.cos(range(20)), "y": ["a", "b"] * 10})
    frame = pd.concat([part, part])
    frame.iloc[3, 1] = None
    for task, values in (("classification", ["a", "b"]), ("regression", [0.5, 1.5])):
        table = kregs.read_table(
            frame.assign(y=frame["y"].map(dict(zip("ab", values, strict=True)))), "y", task=task
        )
        assert table.features["x"].tolist() == np.delete([*part["x"]] * 2, 3).tolist()
    assert len(read_rows(frame, table.columns)) == 40


def test_codes_and_unwanted_columns():
    frame = pd.DataFrame(
        {"code": [1, 2, 3, 4] * 10, "gone": range(40), "z": np.sin(range(40)), "y": [0, 1] * 20}
    )
    table = kregs.read_table(frame, "y", categorical=["code"], drop=["gone"])
    assert table.names("category") == ["code"]
    assert list(table.features.columns) == ["code", "z"]
    assert set(table.features["code"]) == {"1", "2", "3", "4"}


def test_infinite_numbers_are_missing():
    frame = pd.DataFrame({"x": [*np.cos(range(39)), np.inf], "y": [0, 1] * 20})
    table = kregs.read_table(frame, "y")
    assert table.features["x"].isna().sum() == 1
    assert "infinite" in table.columns[0].note


def test_values_of_the_wrong_kind():
    assert convert(pd.Series(["1", "x", None, "inf"]), "number")[1] == 2
    assert convert(pd.Series(["2026-01-31", "31.1.2026", None]), "date")[1] == 1
    assert convert(pd.Series([1.0, 2.0]), "date")[1] == 2
    values, wrong = convert(pd.Series(["True", "false", "maybe", "1"]), "boolean")
    assert values.tolist()[:2] == [1.0, 0.0]
    assert wrong == 1


def test_dates_after_the_year_2262(tmp_path):
    path = tmp_path / "data.csv"
    days = ["9999-12-31", "0001-01-01", "2026-01-31", "1970-01-02 12:00"] * 10
    pd.DataFrame({"until": days, "y": [0, 1] * 20}).to_csv(path, index=False)
    table = kregs.read_table(path, "y")
    assert table.names("date") == ["until"]
    expected = [np.datetime64(day).astype("datetime64[s]").astype(float) / 86400 for day in days]
    assert table.features["until"].tolist() == expected
    frame = pd.DataFrame({"until": np.array(days, dtype="datetime64[s]"), "y": [0, 1] * 20})
    assert kregs.read_table(frame, "y").features["until"].tolist() == expected


@pytest.mark.parametrize(
    ("name", "rows", "kinds"),
    [
        ("credit-g", 1000, {"category": 13, "number": 7}),
        ("anneal", 898, {"category": 21, "number": 10, "dropped": 7}),
        ("sick", 3772, {"category": 21, "number": 6, "dropped": 2}),
        ("arrhythmia", 450, {"number": 266, "dropped": 13}),
    ],
)
def test_real_tables_are_read(name, rows, kinds, tabular, tmp_path):
    x, y, _ = tabular(name)
    path = tmp_path / f"{name}.csv"
    pd.DataFrame(x, columns=[f"c{i}" for i in range(x.shape[1])]).assign(y=y).to_csv(
        path, index=False
    )
    table = kregs.read_table(path, "y")
    assert len(table.target) == rows
    assert table.describe()["kind"].value_counts().to_dict() == kinds
    transformed = table.preprocessing().fit_transform(table.features)
    assert np.isfinite(transformed).all()


def test_a_file_as_it_was_published(shared, tmp_path):
    with lzma.open(shared / "data" / "tabular" / "adult.data.csv.xz", "rt") as file:
        lines = [line for line in file.read().splitlines() if line][:3000]
    header = ",".join([*(f"c{i}" for i in range(14)), "income"])
    (tmp_path / "adult.csv").write_text("\n".join([header, *lines]))
    table = kregs.read_table(tmp_path / "adult.csv", "income")
    assert table.classes == ["<=50K", ">50K"]
    assert table.names("number") == ["c0", "c2", "c4", "c10", "c11", "c12"]
    assert table.features["c1"].isna().sum() > 100
