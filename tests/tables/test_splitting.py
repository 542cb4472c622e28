"""Rows that depend on each other: warned of, and divided by groups, by time or by files."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import TimeSeriesSplit

import kregs
from kregs.tables.splitting import divide

ROWS = 200


def make_frame(**columns):
    rng = np.random.default_rng(0)
    x = rng.normal(size=ROWS)
    return pd.DataFrame({"x": x, "y": np.where(x + rng.normal(size=ROWS) > 0, "b", "a"), **columns})


def test_rows_that_depend_on_each_other_are_told():
    assert kregs.read_table(make_frame(), "y").warnings == []
    frame = make_frame()
    frame.loc[ROWS // 2 :] = frame.loc[: ROWS // 2 - 1].to_numpy()
    (warning,) = kregs.read_table(frame.astype({"x": float}), "y").warnings
    assert "200 of 200 rows stand in the table more than once" in warning
    for name, times in (
        ("when", [f"{1 + i % 28:02}.{1 + i // 28:02}.2023" for i in range(ROWS)]),
        ("date", pd.date_range("2020-01-01", periods=ROWS)),
        ("year", np.arange(ROWS) // 4 + 1950),
        ("year", np.arange(ROWS)[::-1] // 4 + 1950),
    ):
        (warning,) = kregs.read_table(make_frame(**{name: times}), "y").warnings
        assert f"in order of '{name}'" in warning
        assert f"--time {name}" in warning
        shuffled = make_frame(**{name: pd.Series(times).sample(frac=1, random_state=0).array})
        assert kregs.read_table(shuffled, "y").warnings == []
        assert kregs.read_table(make_frame(**{name: times}), "y", time=name).warnings == []
    for name in ("patient_id", "Customer", "userId"):
        frame = make_frame(**{name: np.repeat(np.arange(20), 10)})
        (warning,) = kregs.read_table(frame, "y").warnings
        assert f"--groups {name}" in warning
        assert kregs.read_table(frame, "y", groups=name).warnings == []


def test_python_callers_are_warned(tmp_path, monkeypatch):
    frame = make_frame(patient=np.repeat(np.arange(20), 10))

    class Searched(Exception):
        pass

    def divided(*_, **__):
        raise Searched

    monkeypatch.setattr("kregs.tables.runs.divide", divided)
    with pytest.warns(UserWarning, match="'patient' looks like a group"), pytest.raises(Searched):
        kregs.tune_table(frame, "y", directory=tmp_path)
    with pytest.raises(Searched):
        kregs.tune_table(frame, "y", groups="patient", directory=tmp_path)


def test_groups_are_on_one_side():
    frame = make_frame(patient=np.random.default_rng(1).integers(0, 30, ROWS))
    table = kregs.read_table(frame, "y", groups="patient")
    assert table.names("number") == ["x"]
    assert "the groups" in table.columns[1].note
    split = divide(table, test_share=0.2, folds=5, seed=0)
    trained, tested = (set(frame["patient"].iloc[part]) for part in (split.train, split.test))
    assert not trained & tested
    assert len(split.train) + len(split.test) == ROWS
    assert 0.15 < len(split.test) / ROWS < 0.25
    assert set(table.target[split.test]) == {0, 1}
    np.testing.assert_array_equal(split.groups, table.groups[split.train])
    assert split.folds == 5
    assert "patient" in split.words
    kept = kregs.read_table(frame, "y", groups="patient", keep=["patient"])
    assert kept.names("number") == ["x", "patient"]
    two = make_frame(patient=np.arange(ROWS) % 2)
    with pytest.raises(ValueError, match="at least 3 groups"):
        divide(kregs.read_table(two, "y", groups="patient"), test_share=0.2)


@pytest.mark.parametrize("written", ["dates", "text", "numbers"])
def test_the_latest_rows_are_tested(written):
    order = np.random.default_rng(0).permutation(ROWS) // 3
    times = pd.Timestamp("2023-01-01") + pd.to_timedelta(order, "D")
    column = {
        "dates": times,
        "text": times.strftime("%d.%m.%Y").astype(object),
        "numbers": order / 7,
    }[written]
    table = kregs.read_table(make_frame(when=column), "y", time="when")
    split = divide(table, test_share=0.2, folds=4, seed=0)
    assert order[split.train].max() < order[split.test].min()
    assert (np.diff(order[split.train]) >= 0).all()
    assert 0.2 <= len(split.test) / ROWS < 0.22
    assert len(split.folds) == 4  # three rows a moment are on one side
    alone = kregs.read_table(make_frame(when=np.arange(ROWS) / 7), "y", time="when")
    assert isinstance(divide(alone, test_share=0.2, folds=4).folds, TimeSeriesSplit)


def test_rows_of_one_time_are_in_one_fold():
    table = kregs.read_table(make_frame(year=np.arange(ROWS) // 20 + 2000), "y", time="year")
    split = divide(table, test_share=0.2, folds=np.int64(3))
    times = table.times[split.train]
    assert len(split.folds) == 3
    for train, held_out in split.folds:
        assert times[train].max() < times[held_out].min()
    with pytest.raises(ValueError, match="`folds` must be fewer than the 8 different times"):
        divide(table, test_share=0.2, folds=8)
    with pytest.raises(ValueError, match="`folds` must be a number where rows are divided by"):
        divide(table, test_share=0.2, folds=None)


def test_a_test_file_may_lack_the_class_that_is_a_word():
    table = kregs.read_table(make_frame(y=["1", "2", "unknown", "2"] * 50), "y")
    split = divide(table, test_share=0.2, test_file=make_frame(y=[2, 1] * 100))
    assert split.target[split.test][:2].tolist() == [1, 0]


def test_rows_without_a_time_are_left_out():
    times = [None, *np.arange(ROWS - 1) / 3]
    table = kregs.read_table(make_frame(t=times), "y", time="t")
    assert len(table.target) == len(table.times) == ROWS - 1
    assert "1 row left out: they have no time in 't'" in table.notes
    with pytest.raises(ValueError, match="`time` must be a column of dates or numbers"):
        kregs.read_table(make_frame(t=["late"] * ROWS), "y", time="t")
    frame = make_frame(t=np.arange(ROWS) / 3).assign(y=["a"] * 190 + ["b"] * 10)
    with pytest.raises(ValueError, match="no row of class 'b' to train on"):
        divide(kregs.read_table(frame, "y", time="t"), test_share=0.2)


def test_a_test_file(tmp_path):
    frame = make_frame(c=["p", "q"] * (ROWS // 2), price=[f"1.{3 * i:03}" for i in range(ROWS)])
    frame["x"] = [f"{value:.2f}".replace(".", ",") for value in frame["x"]]
    frame.to_csv(tmp_path / "train.csv", index=False, sep=";")
    rows = frame.iloc[:6].assign(y=["a", "b", "a", "z", None, "b"], price="2.500")[
        ["y", "c", "price", "x"]
    ]
    rows.to_csv(tmp_path / "test.csv", index=False, sep=";")
    table = kregs.read_table(tmp_path / "train.csv", "y", thousands=".")
    split = divide(table, test_share=0.2, test_file=tmp_path / "test.csv")
    assert split.train.tolist() == list(range(ROWS))
    assert split.test.tolist() == [ROWS, ROWS + 1, ROWS + 2, ROWS + 3]
    assert split.target[split.test].tolist() == [0, 1, 0, 1]
    assert split.features["price"].iloc[split.test].tolist() == [2500] * 4
    assert split.words == "the rows of the test file, 2 of 6 left out"
    copied = divide(table, test_share=0.2, test_file=frame.iloc[:7])
    assert copied.words.endswith(", 7 of them copies of rows that are trained on")
    with pytest.raises(ValueError, match="`test_file` must have the target, 'y'"):
        divide(table, test_share=0.2, test_file=frame.drop(columns="y"))
    with pytest.raises(FileNotFoundError, match="`test_file` must be a file"):
        divide(table, test_share=0.2, test_file=tmp_path / "absent.csv")
    with pytest.raises(ValueError, match="must have rows whose 'y' is one of"):
        divide(table, test_share=0.2, test_file=frame.assign(y="z"))
    with pytest.raises(ValueError, match="lack column 'x'"):
        divide(table, test_share=0.2, test_file=frame.drop(columns="x"))


@pytest.mark.parametrize(("rows", "folds"), [(100, 5), (6250, 5), (6300, 3), (25_100, 2)])
def test_long_tables_are_divided_into_fewer_folds(rows, folds):
    frame = pd.DataFrame({"x": np.cos(np.arange(rows)), "y": np.arange(rows) % 2})
    table = kregs.read_table(frame, "y", keep=["x"])
    assert divide(table, test_share=0.2).folds == folds
    assert divide(table, test_share=0.2, folds=4).folds == 4
