"""A table of one's own: what is found in it, the search, the saved pipeline, the commands."""

from __future__ import annotations

import importlib.util
import json
import lzma
import shutil
import subprocess
import sys

import joblib
import keras
import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.metrics import accuracy_score, log_loss, r2_score
from sklearn.model_selection import KFold

import kregs
from kregs.cli import main
from kregs.table import convert, read_rows
from kregs.table_runs import _split

QUICK = {"folds": 2, "max_trials": 2, "epochs": 3, "verbose": 0}


def people(rows=120, seed=0):
    """A table with every kind of column, and gaps; `y` depends on age and city."""
    rng = np.random.default_rng(seed)
    age = rng.integers(18, 80, rows)
    city = rng.choice(["Bonn", "Köln", "Ulm"], rows, p=[0.5, 0.4, 0.1])
    frame = pd.DataFrame(
        {
            "customer": np.arange(rows) + 1000,
            "age": age.astype(str).astype(object),
            "income": [f"{v:.2f}" for v in rng.lognormal(8, 1, rows)],
            "city": city.astype(object),
            "member": rng.choice(["true", "False"], rows).astype(object),
            "since": [f"20{v:02}-03-01" for v in rng.integers(10, 26, rows)],
            "country": "DE",
            "empty": "",
            "remark": [f"text {i}" for i in range(rows)],
            "y": np.where(age / 40 + (city == "Ulm") + rng.normal(0, 0.3, rows) > 1.3, "yes", "no"),
        }
    )
    frame.loc[::7, "income"] = "?"
    frame.loc[::11, "city"] = "NA"
    frame.loc[3, "age"] = "unknown"
    return frame


@pytest.fixture
def people_csv(tmp_path):
    people().to_csv(tmp_path / "people.csv", index=False)
    return tmp_path / "people.csv"


def test_the_types_are_found(people_csv):
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


def test_csv_and_frame_are_the_same_table(people_csv):
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


def test_the_transformer_makes_the_same_columns_of_any_rows(people_csv):
    table = kregs.read_table(people_csv, "y")
    encode = table.preprocessing()
    without_gaps = np.flatnonzero(table.features.notna().all(axis=1))
    few = table.features.iloc[without_gaps[:5]]
    assert clone(encode).fit_transform(few).shape == (5, 10)
    strange = few.assign(city="Rom", income=np.nan)
    assert np.isfinite(clone(encode).fit(table.features).transform(strange)).all()


def test_only_the_given_rows_decide_what_is_frequent():
    frame = pd.DataFrame({"c": ["a", "b"] * 20 + ["c"] * 20, "y": [0, 1] * 30})
    table = kregs.read_table(frame, "y")
    assert table.preprocessing().fit_transform(table.features).shape[1] == 3
    assert table.preprocessing(np.arange(40)).fit_transform(table.features).shape[1] == 2


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


@pytest.mark.parametrize(
    ("values", "task", "classes"),
    [
        ([0, 1], "classification", [0, 1]),
        (["1", "2"], "classification", [1, 2]),
        (["1.5", "2.25"], "regression", None),
        ([True, False], "classification", [0, 1]),
        (["b", "a"], "classification", ["a", "b"]),
        (range(40), "regression", None),
    ],
)
def test_the_task_is_guessed(values, task, classes):
    values = list(values)
    frame = pd.DataFrame({"x": np.cos(range(40)), "y": values * (40 // len(values))})
    table = kregs.read_table(frame, "y")
    assert (table.task, table.classes) == (task, classes)
    assert any("by the look" in note for note in table.notes)


def test_rows_without_a_target_and_of_rare_classes_are_left_out():
    frame = pd.DataFrame({"x": np.cos(range(44)), "y": ["a", "b"] * 20 + ["c", "d", "d", None]})
    table = kregs.read_table(frame, "y")
    assert table.classes == ["a", "b"]
    assert len(table.features) == len(table.target) == 40
    notes = " ".join(table.notes)
    assert "1 of 44 rows left out: they have no 'y'" in notes
    assert "3 rows left out: fewer than 3 of class 'c', 'd'" in notes


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


def broken(text, name="data.csv"):
    def write(folder):
        (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        return folder / name

    return write


LINES = "x,y\n" + "".join(f"{i / 7},{'ab'[i % 2]}\n" for i in range(40))
NUMBERS = LINES.replace(",a\n", ",1.5\n").replace(",b\n", ",2.5\n")


@pytest.mark.parametrize(
    ("write", "options", "message"),
    [
        (broken(LINES), {"target": "z"}, "`target` must be a column of the table: x, y"),
        (broken(LINES), {"target": "Y"}, "Received: 'Y'"),
        (broken(LINES), {"categorical": ["w"]}, "`categorical` must be a column"),
        (broken(LINES), {"drop": ["w"]}, "`drop` must be a column"),
        (broken(LINES), {"drop": ["y"]}, "`drop` may not hold the target"),
        (broken(LINES), {"drop": ["x"]}, "no column to learn 'y' from"),
        (broken(LINES), {"task": "regresion"}, "Did you mean 'regression'"),
        (broken(LINES), {"task": "regression"}, "numbers for a regression. Received: 'a'"),
        (broken(LINES.replace(",b\n", ",a\n")), {}, "at least two classes.*only 'a'"),
        (broken(NUMBERS.replace(",1.5\n", ",2.5\n")), {}, "at least two values.*only 2.5"),
        (broken(LINES.replace(",b\n", ",a\n", 19)), {}, "at least two classes.*1 row left out"),
        (broken(LINES.replace(",b\n", ",\n").replace(",a\n", ",\n")), {}, "which has none"),
        (broken(NUMBERS.replace(",1.5\n", ",inf\n")), {}, "must be finite"),
        (broken(LINES[:250].rpartition("\n")[0]), {}, "at least 20 rows"),
        (broken(LINES + "1,2,3\n"), {}, r"line 42: expected 2 fields.*Received: 3"),
        (broken(LINES + "1\n" + LINES[4:]), {}, r"line 42: expected 2 fields.*Received: 1"),
        (broken(LINES + '"1,2\n3,4\n'), {}, r"line 43: unexpected end of data"),
        (broken(LINES + '"1"2,a\n'), {}, r"line 42: .*expected"),
        (broken(LINES.replace("x,y", "y,y")), {}, "several columns named 'y'"),
        (broken(""), {}, "no header: is it empty"),
        (broken("x,y\n"), {}, "which has none"),
        (broken(LINES.encode("utf-16")), {}, "not UTF-8"),
        (broken(LINES.encode() + "1,é\n".encode("latin-1")), {}, "not UTF-8 text .byte 0xe9"),
    ],
)
def test_unfit_files(write, options, message, tmp_path):
    path = write(tmp_path)
    options = {"target": "y"} | options
    with pytest.raises(ValueError, match=message):
        kregs.read_table(path, **options)


def test_no_file_and_no_table(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.csv"):
        kregs.read_table(tmp_path / "absent.csv", "y")
    with pytest.raises(FileNotFoundError, match="no file"):
        kregs.read_table(tmp_path, "y")
    with pytest.raises(TypeError, match="CSV file"):
        kregs.read_table([1, 2], "y")
    with pytest.raises(TypeError, match="`drop` must be a list"):
        kregs.read_table(people(), "y", drop="age")


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_delimiters_quotes_and_blank_lines(delimiter, tmp_path):
    path = tmp_path / "data.csv"
    lines = [f'"a{delimiter} b"{delimiter} y', *(f"{i * i}{delimiter} {i % 2}" for i in range(30))]
    path.write_text("\n\n".join(lines), encoding="utf-8-sig")
    table = kregs.read_table(path, "y")
    assert table.names("number") == [f"a{delimiter} b"]
    assert len(table.target) == 30


def test_decimal_commas(tmp_path):
    def write(delimiter, *columns):
        rows = [["x", "y", "price", "kind", "z"], *zip(*columns, strict=True)]
        path = tmp_path / "data.csv"
        path.write_text("\n".join(delimiter.join(row) for row in rows), encoding="utf-8")
        return path

    point = np.round(np.random.default_rng(0).normal(size=(2, 40)), 2)
    x, y = ([str(number).replace(".", ",") for number in numbers] for numbers in point)
    price, kind, z = ["1,250.5", "1,300"] * 20, ["1,2", "1,2,3"] * 20, ["1e3", "7"] * 20
    path = write(";", x, y, price, kind, z)
    table = kregs.read_table(path, "y")
    assert table.task == "regression"
    np.testing.assert_array_equal(table.target, point[1])
    np.testing.assert_array_equal(table.features["x"], point[0])
    assert "decimal commas" in table.columns[0].note
    assert any("decimal commas in 'y'" in note for note in table.notes)
    assert set(table.names("category")) == {"price", "kind"}
    assert set(table.features["price"]) == {"1,250.5", "1,300"}  # these are no decimal commas
    assert table.columns[3].note == ""
    np.testing.assert_array_equal(read_rows(path, table.columns)["x"], point[0])
    quoted = write(",", *([f'"{field}"' for field in column] for column in (x, y, x, x, z)))
    with pytest.raises(ValueError, match="must hold numbers"):
        kregs.read_table(quoted, "y", task="regression")


@pytest.mark.parametrize(
    "header", ['"a, b";y', '"a,,"; "b "" ,";y', 'a;"b,\n,,";y', '5" tube, long;6" tube;y']
)
def test_delimiters_in_quotes_do_not_count(header, tmp_path):
    path = tmp_path / "data.csv"
    path.write_text(f"{header}\n" + "1;" * header.count(";") + "2\n")
    assert kregs.table.read_frame(path).columns[-1] == "y"


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


@pytest.mark.parametrize("share", [0.01, 0.05, 0.2, 0.5, 0.8])
def test_every_class_is_trained_and_tested_on(share):
    frame = pd.DataFrame({"x": np.cos(range(103)), "y": ["a", "b"] * 50 + ["c"] * 3})
    table = kregs.read_table(frame, "y")
    for seed in range(5):
        train, test = _split(table, share, seed)
        np.testing.assert_array_equal(np.sort(np.append(train, test)), np.arange(103))
        assert np.bincount(table.target[test], minlength=3).min() >= 1
        assert np.bincount(table.target[train], minlength=3).min() >= 2
        assert abs(len(test) - max(103 * share, 3)) <= 2


def test_parquet_needs_pyarrow_and_says_so(tmp_path):
    path = tmp_path / "people.parquet"
    frame = people()
    try:
        frame.to_parquet(path)
    except ImportError:
        path.write_bytes(b"PAR1")
        with pytest.raises(ImportError, match="pip install pyarrow"):
            kregs.read_table(path, "y")
        assert main(["tune", "table", "--data", str(path), "--target", "y"]) == 1
    else:
        table = kregs.read_table(path, "y")
        pd.testing.assert_frame_equal(table.describe(), kregs.read_table(frame, "y").describe())


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return kregs.tune_table(people(), "y", **QUICK, directory=tmp_path_factory.mktemp("runs"))


def test_the_test_part_is_kept_and_scored_once(run):
    assert run.record["rows"] == {"train": 96, "test": 24}
    assert run.scores.index.tolist() == ["network", "logistic regression", "most frequent class"]
    assert (run.search.trials()["status"] == "completed").all()
    protocol = json.loads(run.files["result"].read_text())["protocol"]
    assert protocol["rows"] == 96
    assert protocol["folds"] == 2


def test_the_saved_folder_predicts_what_the_model_in_memory_does(run):
    frame = people().drop(columns=["y", "empty"]).replace("unknown", "")
    found = kregs.predict_table(run.search.path, frame[frame.columns[::-1]])
    x = run.search.preprocess_.transform(run.table.features).astype("float32")
    expected = run.search.best_model().predict(x, verbose=0)[:, 0]
    np.testing.assert_allclose(found["probability_yes"], expected, rtol=1e-6)
    np.testing.assert_allclose(found["probability_no"] + found["probability_yes"], 1)
    np.testing.assert_array_equal(found["prediction"] == "yes", expected > 0.5)


def test_the_scores_are_those_of_the_saved_folder(run):
    _, test = _split(run.table, 0.2, 0)
    found = kregs.predict_table(run.search.path, people().iloc[test])
    y = run.table.target[test]
    network = run.record["test"]["network"]
    accuracy = accuracy_score(y, found["prediction"] == "yes")
    assert network["accuracy"] == pytest.approx(accuracy)
    loss = log_loss(y, found[["probability_no", "probability_yes"]])
    assert network["log_loss"] == pytest.approx(loss, rel=1e-5)


def test_the_transformer_has_not_seen_the_test_part(run):
    train, _ = _split(run.table, 0.2, 0)
    saved = joblib.load(run.files["preprocessing"])
    expected = clone(saved).fit(run.table.features.iloc[train])
    for transformer in (saved, expected):
        scaler = transformer.named_transformers_["numbers"][-1]
        np.testing.assert_array_equal(
            scaler.mean_, expected.named_transformers_["numbers"][-1].mean_
        )


def test_all_files_are_there(run):
    for path in run.files.values():
        assert path.stat().st_size > 0, path
    record = json.loads(run.files["table"].read_text())
    assert record["classes"] == ["no", "yes"]
    assert record["columns"][1]["name"] == "age"
    assert record["versions"]["scikit-learn"]
    keras.models.load_model(run.files["model"])


def test_unseen_categories_and_wrong_values(run):
    rows = people().iloc[:3].assign(city="Rom", since="soon")
    with pytest.warns(UserWarning, match="'since': 3 of 3 values are no date"):
        found = kregs.predict_table(run.search.path, rows)
    assert found["probability_yes"].between(0, 1).all()
    assert len(kregs.predict_table(run.search.path, people().iloc[:0])) == 0


def test_unfit_rows_and_folders(run, tmp_path):
    folder = run.search.path
    with pytest.raises(ValueError, match="lack columns 'age', 'city'"):
        kregs.predict_table(folder, people().drop(columns=["age", "city"]))
    renamed = people().rename(columns={"income": "incomes"})
    with pytest.raises(ValueError, match=r"lack column 'income'.*Did you mean 'incomes'"):
        kregs.predict_table(folder, renamed)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        kregs.predict_table(tmp_path / "nowhere", people())
    with pytest.raises(FileNotFoundError, match=r"rows\.csv"):
        kregs.predict_table(folder, tmp_path / "rows.csv")
    with pytest.raises(ValueError, match=r"no finished run.*no table\.json"):
        kregs.predict_table(tmp_path, people())
    copied = shutil.copytree(folder, tmp_path / "copy")
    (copied / "table.json").write_text("{")
    with pytest.raises(ValueError, match="cannot be read as JSON"):
        kregs.predict_table(copied, people())
    (copied / "table.json").write_text('{"format": 99}')
    with pytest.raises(ValueError, match="format 99"):
        kregs.predict_table(copied, people())
    (copied / "best.keras").unlink()
    with pytest.raises(ValueError, match=r"no best\.keras"):
        kregs.predict_table(copied, people())


def test_numbers_are_predicted_in_their_own_units(tmp_path):
    frame = load_diabetes(as_frame=True).frame
    frame.loc[::9, "bmi"] = np.nan
    run = kregs.tune_table(
        frame, "target", folds=2, max_trials=1, epochs=12, directory=tmp_path, verbose=0
    )
    assert run.scores.index.tolist() == ["network", "ridge regression", "mean"]
    assert run.scores.loc["network", "r2"] > 0.2
    found = kregs.predict_table(run.search.path, frame)
    assert r2_score(frame["target"], found["prediction"]) > 0.3
    assert found.columns.tolist() == ["prediction"]


def test_rare_classes_are_weighted(tmp_path):
    x, y = load_breast_cancer(return_X_y=True, as_frame=True)
    keep = np.r_[np.flatnonzero(y == 1)[:240], np.flatnonzero(y == 0)[:30]]
    frame = x[["mean radius", "mean texture", "mean smoothness"]].iloc[keep].assign(y=y.iloc[keep])
    run = kregs.tune_table(
        frame, "y", folds=KFold(2, shuffle=True, random_state=0), max_trials=1, epochs=8,
        directory=tmp_path, verbose=0,
    )  # fmt: skip
    assert run.record["classes_weighted"]
    assert run.scores.loc["network", "balanced_accuracy"] > 0.8
    again = kregs.tune_table(
        frame, "y", folds=KFold(2, shuffle=True, random_state=0), max_trials=1, epochs=8,
        directory=tmp_path, resume=True, verbose=0,
    )  # fmt: skip
    assert again.record["test"] == run.record["test"]


def test_without_folds_the_model_is_trained_on_all_rows_too(tmp_path):
    iris = load_iris(as_frame=True).frame
    run = kregs.tune_table(
        iris, "target", **QUICK | {"folds": None, "max_trials": 1, "epochs": 2}, directory=tmp_path
    )
    found = kregs.predict_table(run.search.path, iris)
    x = run.search.preprocess_.transform(run.table.features).astype("float32")
    model = keras.models.load_model(run.files["model"])
    expected = model.predict(x, verbose=0)
    np.testing.assert_allclose(found.iloc[:, 1:], expected, rtol=1e-5)


def test_wrong_arguments(tmp_path):
    table = kregs.read_table(people(), "y")
    with pytest.raises(ValueError, match="a Table has its target"):
        kregs.tune_table(table, "y")
    with pytest.raises(ValueError, match="`target` must be the column"):
        kregs.tune_table(people())
    with pytest.raises(ValueError, match=r"test_share=0\.99"):
        kregs.tune_table(table, test_share=0.99, directory=tmp_path)
    with pytest.raises(ValueError, match="test_share"):
        kregs.tune_table(table, test_share=1.5, directory=tmp_path)
    with pytest.raises(ValueError, match="folds"):
        kregs.tune_table(table, folds=1, directory=tmp_path)


def test_commands(people_csv, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    argv = ["tune", "table", "--data", "people.csv", "--target", "y", "--folds", "2"]
    argv += ["--max-trials", "1", "--epochs", "2", "--drop", "remark"]
    assert main(argv) == 0
    printed = capsys.readouterr().out
    for word in ("left out as asked", "category", "logistic regression", "24 rows that the search"):
        assert word in printed
    assert "kregs predict kregs_runs/people ROWS.csv" in printed
    assert main(argv) == 2
    assert f"kregs {' '.join(argv)} --resume" in capsys.readouterr().err

    rows = people().drop(columns="y").iloc[:5].assign(age="old")
    rows.to_csv("rows.csv", index=False)
    assert main(["predict", "kregs_runs/people", "rows.csv"]) == 0
    said = capsys.readouterr()
    assert said.out.splitlines()[0] == "prediction,probability_no,probability_yes"
    assert len(said.out.splitlines()) == 6
    assert "kregs: warning: column 'age': 5 of 5 values are no number" in said.err
    assert main(["predict", "kregs_runs/people", "rows.csv", "--output", "out.csv"]) == 0
    assert (tmp_path / "out.csv").read_text() == said.out


BAD_USE = [
    (["tune", "table"], "--data, --target"),
    (["tune", "table", "--data", "x.csv", "--target", "y"], "x.csv"),
    (["tune", "table", "--data", "people.csv", "--target", "z"], "Received: 'z'"),
    (["tune", "table", "--data", "people.csv", "--target", "country"], "at least two classes"),
    (["predict"], "RUN"),
    (["predict", "nowhere", "people.csv"], "nowhere"),
    (["predict", ".", "people.csv"], "no table.json"),
]


def test_bad_use_loads_no_tensorflow(people_csv):
    program = (
        "import contextlib, io, json, sys; from kregs.cli import main\n"
        f"for argv in {[argv for argv, _ in BAD_USE]!r}:\n"
        "    out, error = io.StringIO(), io.StringIO()\n"
        "    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):\n"
        "        code = main(argv)\n"
        "    loaded = sorted({'tensorflow', 'keras'} & set(sys.modules))\n"
        "    print(json.dumps([code, out.getvalue(), error.getvalue(), loaded]))"
    )
    run = subprocess.run(
        [sys.executable, "-P", "-c", program], capture_output=True, text=True, cwd=people_csv.parent
    )
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""
    for line, (argv, message) in zip(run.stdout.splitlines(), BAD_USE, strict=True):
        code, out, error, loaded = json.loads(line)
        assert (code, out, loaded) == (2, "", []), argv
        assert error.startswith("kregs: "), argv
        assert error.count("\n") == 1, argv
        assert message in error


@pytest.fixture(scope="module")
def tabular(shared):
    spec = importlib.util.spec_from_file_location("shared_load", shared / "data" / "load.py")
    loader = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loader)
    return loader.tabular


@pytest.mark.parametrize(
    ("name", "rows", "kinds"),
    [
        ("credit-g", 1000, {"category": 13, "number": 7}),
        ("anneal", 898, {"category": 20, "number": 10, "dropped": 8}),
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


def test_a_real_table_with_injected_gaps_beats_the_guess(tabular, tmp_path):
    x, y, _ = tabular("credit-g")
    frame = pd.DataFrame(x, columns=[f"c{i}" for i in range(x.shape[1])])
    rng = np.random.default_rng(0)
    frame = frame.mask(rng.random(frame.shape) < 0.1).assign(y=y)
    run = kregs.tune_table(
        frame, "y", folds=2, max_trials=1, epochs=8, directory=tmp_path, verbose=0
    )
    scores = run.scores
    assert scores.loc["network", "roc_auc"] > 0.7
    assert scores.loc["network", "log_loss"] < scores.loc["most frequent class", "log_loss"]
