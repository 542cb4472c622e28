"""Files of tables: delimiters, quotes, decimal commas, broken lines, Parquet."""

from __future__ import annotations

import gzip

import numpy as np
import pandas as pd
import pytest

import kregs
from kregs.cli import main
from kregs.tables.prediction import read_rows
from kregs.tables.reading import read_frame


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
        (broken(gzip.compress(LINES.encode())), {}, "compressed by gzip: unpack it first"),
        (broken(LINES), {"date": {"x": "%q"}}, "`date` must have a format.*'x'.*'%q'"),
        (broken(LINES), {"date": ["x=%d/%q"]}, "`date` must have a format.*'x'.*'%d/%q'"),
        (broken(LINES), {"date": {"x": "day"}}, "`date` must have a format.*'day'"),
    ],
)
def test_unfit_files(write, options, message, tmp_path):
    path = write(tmp_path)
    options = {"target": "y"} | options
    with pytest.raises(ValueError, match=message):
        kregs.read_table(path, **options)


def test_no_file_and_no_table(tmp_path, people):
    with pytest.raises(FileNotFoundError, match=r"absent\.csv"):
        kregs.read_table(tmp_path / "absent.csv", "y")
    with pytest.raises(FileNotFoundError, match="no file"):
        kregs.read_table(tmp_path, "y")
    with pytest.raises(TypeError, match="CSV file"):
        kregs.read_table([1, 2], "y")
    with pytest.raises(TypeError, match="`drop` must be a list"):
        kregs.read_table(people(), "y", drop="age")
    with pytest.raises(TypeError, match=r"`date` must have a format .*'age'. Received: int, 3"):
        kregs.read_table(people(), "y", date={"age": 3})


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
    assert any("'y': decimal commas" in note for note in table.notes)
    assert table.names("category") == ["kind"]
    assert set(table.features["price"]) == {1250.5, 1300}  # these are no decimal commas
    assert table.columns[3].note == "numbers"
    np.testing.assert_array_equal(read_rows(path, table.columns)["x"], point[0])
    quoted = write(",", *([f'"{field}"' for field in column] for column in (x, y, x, x, z)))
    np.testing.assert_array_equal(kregs.read_table(quoted, "y").target, point[1])


@pytest.mark.parametrize(
    "header", ['"a, b";y', '"a,,"; "b "" ,";y', 'a;"b,\n,,";y', '5" tube, long;6" tube;y']
)
def test_delimiters_in_quotes_do_not_count(header, tmp_path):
    path = tmp_path / "data.csv"
    path.write_text(f"{header}\n" + "1;" * header.count(";") + "2\n")
    assert read_frame(path).columns[-1] == "y"


def test_parquet_needs_pyarrow_and_says_so(tmp_path, people):
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
