"""A table of one's own: what its columns are, and the transformer that makes numbers of them."""

from __future__ import annotations

import csv
import dataclasses
import math
import os
import re
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from kregs.validation import check_choice, suggestion

if TYPE_CHECKING:
    from sklearn.compose import ColumnTransformer

TASKS = ("classification", "regression")

_MISSING = frozenset({"", "?", "NA", "N/A", "n/a", "NaN", "nan", "null", "NULL", "None"})
_MISSING_CATEGORY = "(missing)"
_BOOLEANS = {"true": 1.0, "false": 0.0}
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}([ T]\d{2}:\d{2}.*)?$")
_NUMBER_SHARE = 0.95  # a text column with so many numbers is one of numbers, with a few mistakes
_MOST_CLASSES = 20  # a target of whole numbers with more values is a regression's
_MOST_CATEGORIES = 50  # of one column
_CATEGORY_SHARE = 0.01  # of the rows: rarer categories are encoded alike
_FEWEST_ROWS_OF_CLASS = 3  # one for the test part, two for different folds
_FEWEST_ROWS = 20


@dataclasses.dataclass(frozen=True)
class Column:
    """One column of a table.

    Args:
        name: its header.
        kind: `"number"`, `"boolean"`, `"date"` (days since 1970), `"category"`, or `"dropped"`.
        missing: how many values are missing.
        distinct: how many different values there are.
        note: why it was dropped, or what was changed in it; may be empty.
    """

    name: str
    kind: str
    missing: int
    distinct: int
    note: str = ""


@dataclasses.dataclass(frozen=True, eq=False)
class Table:
    """A table with its target, ready for a search.

    Args:
        features: one row per row with a target, one column per kept column: floats, NaN where
            missing, and text for categories, `None` where missing.
        target: class numbers (n,), or floats (n,).
        classes: the labels by class number; `None` for a regression.
        columns: all columns but the target, in the file's order.
        task: `"classification"` or `"regression"`.
        target_name: the target's header.
        notes: what was decided about the target and its rows, a sentence each.
    """

    features: pd.DataFrame
    target: np.ndarray
    classes: list[Any] | None
    columns: list[Column]
    task: str
    target_name: str
    notes: list[str]

    def describe(self) -> pd.DataFrame:
        """Return one row per column: `column`, `kind`, `missing`, `distinct`, `note`."""
        frame = pd.DataFrame([dataclasses.asdict(column) for column in self.columns])
        return frame.rename(columns={"name": "column"})

    def names(self, *kinds: str) -> list[str]:
        """Return the names of the columns of some kinds."""
        return [column.name for column in self.columns if column.kind in kinds]

    def preprocessing(self, rows: np.ndarray | None = None) -> ColumnTransformer:
        """Return an unfitted scikit-learn transformer: `features` to numbers.

        Numbers: missing ones become the median, then standardized; a column of 0 and 1 says where
        they were missing. Categories: one column each; missing is one of them; rare and unseen
        ones are 0 in all of a column's columns. It makes the same columns in every fold, since
        which categories are frequent, and which columns have gaps, is decided here.

        Args:
            rows: the rows that decide that: those that may be trained on. Default: all.
        """
        from sklearn.compose import ColumnTransformer
        from sklearn.impute import MissingIndicator, SimpleImputer
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import OneHotEncoder, StandardScaler

        seen = self.features if rows is None else self.features.iloc[rows]
        numbers = self.names("number", "boolean", "date")
        gaps = [name for name in numbers if seen[name].isna().any()]
        known = {name: _frequent(seen[name]) for name in self.names("category")}
        categories = {name: words for name, words in known.items() if words}
        parts: list[tuple[str, Any, list[str]]] = []
        if numbers:
            impute = SimpleImputer(strategy="median", keep_empty_features=True)
            parts.append(("numbers", make_pipeline(impute, StandardScaler()), numbers))
        if gaps:
            parts.append(("gaps", MissingIndicator(features="all"), gaps))
        if categories:
            fill = SimpleImputer(
                missing_values=None, strategy="constant", fill_value=_MISSING_CATEGORY
            )
            encode = OneHotEncoder(
                categories=[np.array(words, dtype=object) for words in categories.values()],
                handle_unknown="ignore",
                sparse_output=False,
            )
            parts.append(("categories", make_pipeline(fill, encode), list(categories)))
        return ColumnTransformer(parts, sparse_threshold=0.0)


def read_table(
    data: str | os.PathLike[str] | pd.DataFrame,
    target: str,
    *,
    task: str | None = None,
    categorical: Iterable[str] = (),
    drop: Iterable[str] = (),
) -> Table:
    """Read a table and find what its columns are.

    A column of text is one of numbers if its values are (a few that are not, at most 5 %, count as
    missing), of dates if all are ISO dates such as 2026-01-31, of booleans if all are true or
    false, else of categories. Dropped, with a note: constant columns, row numbers and other
    identifiers, text that hardly repeats. Empty fields, `?`, `NA` and the like are missing.

    Args:
        data: a CSV file (fields separated by comma, semicolon, tab or `|`; a header; UTF-8), a
            Parquet file (needs pyarrow), or a `DataFrame`.
        target: the column to be predicted. Rows without it are left out, and so are those of
            classes with fewer than 3 rows: `notes` says so.
        task: default: regression for numbers, classification for everything else and for whole
            numbers of at most 20 values.
        categorical: columns whose numbers are codes of categories.
        drop: columns to leave out.

    Returns:
        A `Table`.

    Raises:
        FileNotFoundError: there is no such file.
        ImportError: a Parquet file, and pyarrow is not installed.
        TypeError: `data` is none of these.
        ValueError: the file is empty, broken (the message has the line), or has two columns of one
            name; a column does not exist; the target is constant or unfit for the task; there are
            too few rows, or no column is left to learn from.

    Example:

    >>> frame = pd.DataFrame({
    ...     "id": range(40), "size": [1.5, None] * 20, "colour": ["red", "blue", "red", "?"] * 10,
    ...     "price": np.linspace(0, 1, 40) ** 2,
    ... })
    >>> table = read_table(frame, "price")
    >>> table.task, [(column.name, column.kind) for column in table.columns]
    ('regression', [('id', 'dropped'), ('size', 'number'), ('colour', 'category')])
    >>> table.preprocessing().fit_transform(table.features).shape
    (40, 5)
    """
    check_choice("task", task, (None, *TASKS))
    frame = read_frame(data)
    names = list(frame.columns)
    categorical, drop = _names("categorical", categorical), _names("drop", drop)
    for argument, wanted in (("target", [target]), ("categorical", categorical), ("drop", drop)):
        for name in wanted:
            if name not in names:
                raise ValueError(
                    f"`{argument}` must be a column of the table: {', '.join(names)}. "
                    f"Received: {name!r}.{suggestion(name, names)}"
                )
    if target in drop:
        raise ValueError(f"`drop` may not hold the target. Received: {target!r}")

    task, labels, notes = _read_target(_plain(frame[target]), target, task)
    keep = labels.notna()
    if task == "classification":
        sizes = labels.value_counts()
        rare = sorted(sizes.index[sizes < _FEWEST_ROWS_OF_CLASS])
        if rare:
            count = int(sizes[rare].sum())
            notes.append(
                f"{count} row{'s' * (count > 1)} left out: fewer than {_FEWEST_ROWS_OF_CLASS} of "
                f"class {', '.join(map(repr, rare[:5]))}{', ...' if len(rare) > 5 else ''}, too "
                "few to train and to test on"
            )
            keep &= ~labels.isin(rare)
    labels = labels[keep]
    _check_target(labels, target, task, notes)
    classes = sorted(labels.unique().tolist()) if task == "classification" else None
    if classes is None:
        numbers = labels.to_numpy(dtype=float)
    else:
        numbers = labels.map({label: i for i, label in enumerate(classes)}).to_numpy(dtype=int)

    frame = frame[keep]
    columns, kept = [], {}
    for name in names:
        if name == target:
            continue
        raw = _plain(frame[name])
        coded = name in categorical or isinstance(frame[name].dtype, pd.CategoricalDtype)
        column = _find_column(name, raw, coded=coded, unwanted=name in drop)
        columns.append(column)
        if column.kind != "dropped":
            kept[name] = convert(raw, column.kind)[0]
    if not kept:
        raise ValueError(
            f"the table has no column to learn {target!r} from. "
            + "; ".join(f"{column.name!r}: {column.note}" for column in columns)
        )
    return Table(
        features=pd.DataFrame(kept).reset_index(drop=True),
        target=numbers,
        classes=classes,
        columns=columns,
        task=task,
        target_name=target,
        notes=notes,
    )


def read_frame(data: Any) -> pd.DataFrame:
    """Read a CSV or Parquet file as it is: all fields of a CSV are text. See `read_table`."""
    if isinstance(data, pd.DataFrame):
        frame = data.copy(deep=False)
        frame.columns = [str(name) for name in frame.columns]
        _check_header(list(frame.columns), "the DataFrame")
        return frame
    if not isinstance(data, (str, os.PathLike)):
        raise TypeError(
            "`data` must be a CSV file, a Parquet file or a pandas DataFrame. "
            f"Received: {type(data).__name__}"
        )
    path = Path(data)
    if not path.is_file():
        raise FileNotFoundError(f"`data` must be a file. {str(path)!r} is not there, or no file")
    if path.suffix.lower() in (".parquet", ".pq"):
        try:
            return read_frame(pd.read_parquet(path))
        except ImportError as error:
            raise ImportError(
                f"reading {str(path)!r} needs the package pyarrow: pip install pyarrow"
            ) from error
    return _read_csv(path)


def _read_csv(path: Path) -> pd.DataFrame:
    rows = []
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            first = file.readline()
            file.seek(0)
            delimiter = max(",;\t|", key=first.count)
            reader = csv.reader(file, delimiter=delimiter, skipinitialspace=True, strict=True)
            header = [name.strip() for name in next(reader, [])]
            _check_header(header, repr(str(path)))
            for row in reader:
                if len(row) != len(header):
                    if not row:  # a blank line
                        continue
                    raise ValueError(
                        f"{str(path)!r}, line {reader.line_num}: expected {len(header)} fields, "
                        f"as in the header. Received: {len(row)}"
                    )
                rows.append(row)
    except csv.Error as error:
        raise ValueError(f"{str(path)!r}, line {reader.line_num}: {error}") from None
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{str(path)!r} is not UTF-8 text (byte {error.object[error.start]:#04x}): save it as "
            "UTF-8"
        ) from None
    return pd.DataFrame(rows, columns=header, dtype=object)


def _check_header(header: list[str], place: str) -> None:
    if not any(header):
        raise ValueError(f"{place} has no header: is it empty?")
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        raise ValueError(f"{place} has several columns named {repeated[0]!r}")


def _names(argument: str, names: Iterable[str]) -> list[str]:
    if isinstance(names, str):
        raise TypeError(f"`{argument}` must be a list of columns. Received: {names!r}")
    return list(names)


def _plain(raw: pd.Series) -> pd.Series:
    """Return booleans, numbers and dates as they are, all else as text, `None` where missing."""
    kind = raw.dtype
    if pd.api.types.is_bool_dtype(kind) or pd.api.types.is_numeric_dtype(kind):
        return raw.astype("Float64").astype(float)
    if pd.api.types.is_datetime64_any_dtype(kind):
        return raw
    return pd.Series([_word(value) for value in raw], index=raw.index, dtype=object, name=raw.name)


def _word(value: Any) -> str | None:
    """Return a value as a category's name: 3.0 is '3', as in a file of whole numbers."""
    if value is None or value is pd.NA or value is pd.NaT:
        return None
    if isinstance(value, (float, np.floating)):
        if math.isnan(value):
            return None
        return str(int(value)) if float(value).is_integer() else str(value)
    word = str(value).strip()
    return None if word in _MISSING else word


def convert(raw: pd.Series, kind: str) -> tuple[pd.Series, int]:
    """Return a column in the form that its kind has, and how many values had another form.

    These, and infinite numbers, become missing.

    Args:
        raw: as a file gives it.
        kind: of the column.
    """
    raw = _plain(raw)
    present = raw.notna()
    if kind == "category":
        words = pd.Series([_word(v) for v in raw], index=raw.index, dtype=object, name=raw.name)
        return words, 0
    if kind == "date":
        days = _days(raw)
    elif kind == "boolean" and raw.dtype == object:
        days = raw.map(lambda word: _BOOLEANS.get(str(word).lower(), math.nan)).astype(float)
        days = days.fillna(_numbers(raw))
    else:
        days = _numbers(raw)
    values = days.where(np.isfinite(days), math.nan)
    return values, int((present & values.isna()).sum())


def _numbers(raw: pd.Series) -> pd.Series:
    return pd.to_numeric(raw, errors="coerce").astype(float)


def _days(raw: pd.Series) -> pd.Series:
    if raw.dtype == object:
        raw = raw.where(raw.map(lambda word: word is not None and bool(_DATE.match(word))), None)
    elif pd.api.types.is_numeric_dtype(raw.dtype):  # no dates at all
        return pd.Series(math.nan, index=raw.index)
    dates = pd.to_datetime(raw, errors="coerce", utc=True, format="ISO8601")
    return (dates - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(days=1)


def _find_column(name: str, raw: pd.Series, *, coded: bool, unwanted: bool) -> Column:
    """Say what a column is; `coded`: its numbers are codes of categories."""
    present = raw.dropna()
    facts: dict[str, Any] = {
        "name": name,
        "missing": len(raw) - len(present),
        "distinct": int(present.nunique()),
    }
    if unwanted:
        return Column(kind="dropped", note="left out as asked", **facts)
    if facts["distinct"] == 0:
        return Column(kind="dropped", note="dropped: empty", **facts)
    if facts["distinct"] == 1 and not facts["missing"]:
        return Column(kind="dropped", note="dropped: constant", **facts)
    if coded:
        return _category(raw, facts)
    if raw.dtype != object:
        if pd.api.types.is_datetime64_any_dtype(raw.dtype):
            return Column(kind="date", **facts)
        return _number(_numbers(raw), facts)
    if present.str.lower().isin(_BOOLEANS).all():
        return Column(kind="boolean", **facts)
    numbers = _numbers(present)
    if numbers.notna().mean() >= _NUMBER_SHARE:
        return _number(_numbers(raw), facts, wrong=present[numbers.isna()])
    if _days(present).notna().all():
        return Column(kind="date", **facts)
    return _category(raw, facts)


def _number(numbers: pd.Series, facts: dict[str, Any], wrong: Any = ()) -> Column:
    finite = np.isfinite(numbers)
    if len(numbers) > 2 and finite.all() and facts["distinct"] == len(numbers):
        whole = bool((numbers == numbers.round()).all())
        counted = numbers.diff().dropna().nunique() == 1
        named = re.search(r"(^|_| )id$", facts["name"].lower())
        if whole and (counted or named):
            return Column(kind="dropped", note="dropped: numbers the rows", **facts)
    note = ""
    infinite = int(np.isinf(numbers).sum())
    if len(wrong):
        note = f"{len(wrong)} of {len(numbers)} values are no numbers and count as missing, "
        note += f"such as {wrong.iloc[0]!r}"
    elif infinite:
        note = f"{infinite} infinite values count as missing"
    return Column(kind="number", note=note, **facts)


def _category(raw: pd.Series, facts: dict[str, Any]) -> Column:
    present = convert(raw, "category")[0].dropna()
    if not _frequent(present) or (facts["distinct"] > 20 and facts["distinct"] > len(present) / 2):
        return Column(kind="dropped", note="dropped: its values hardly repeat", **facts)
    return Column(kind="category", **facts)


def _frequent(words: pd.Series) -> list[str]:
    """Return the categories that get a column of their own, sorted."""
    fewest = max(2, math.ceil(_CATEGORY_SHARE * len(words)))
    counts = words.fillna(_MISSING_CATEGORY).value_counts()
    return sorted(counts[counts >= fewest].index[:_MOST_CATEGORIES])


def _read_target(raw: pd.Series, name: str, task: str | None) -> tuple[str, pd.Series, list[str]]:
    """Return the task, the labels or numbers (missing where they are), and notes."""
    if pd.api.types.is_datetime64_any_dtype(raw.dtype):
        raise ValueError(f"`target` must hold classes or numbers. Received: dates in {name!r}")
    notes = []
    missing = int(raw.isna().sum())
    if missing == len(raw):
        raise ValueError(f"`target` must hold values. Received: {name!r}, which has none")
    if missing:
        notes.append(f"{missing} of {len(raw)} rows left out: they have no {name!r}")
    present = raw.dropna()
    numbers = _numbers(present)
    numeric = bool(numbers.notna().all())
    whole = numeric and bool((numbers == numbers.round()).all())
    if task is None:
        few = present.nunique() <= _MOST_CLASSES
        task = "classification" if not numeric or (whole and few) else "regression"
        notes.append(f"task: {task}, by the look of {name!r}")
    if task == "regression":
        if not numeric:
            wrong = present[numbers.isna()].iloc[0]
            raise ValueError(
                f"`target` must hold numbers for a regression. Received: {wrong!r} in {name!r}"
            )
        if np.isinf(numbers).any():
            raise ValueError(f"`target` must be finite. Received: infinite values in {name!r}")
        return task, numbers.reindex(raw.index), notes
    if whole:
        labels = numbers.astype(int)
    elif numeric:
        labels = numbers
    else:
        labels = present
    return task, labels.astype(object).reindex(raw.index), notes


def _check_target(labels: pd.Series, name: str, task: str, notes: list[str]) -> None:
    said = f" ({'; '.join(notes)})" if notes else ""
    if labels.nunique() < 2:
        only = f"only {labels.tolist()[0]!r}" if len(labels) else "no row"
        raise ValueError(
            f"`target` must hold at least two {'classes' if task == 'classification' else 'values'}"
            f": there is nothing to learn from {name!r}, which holds {only}{said}"
        )
    if len(labels) < _FEWEST_ROWS:
        raise ValueError(
            f"the table must have at least {_FEWEST_ROWS} rows to train and to test on. "
            f"Received: {len(labels)}{said}"
        )


def read_rows(data: Any, columns: Iterable[Column]) -> pd.DataFrame:
    """Read rows to be predicted, in the form of `Table.features`.

    Args:
        data: as in `read_table`; other columns, also the target, are ignored.
        columns: those that the model was trained on.

    Raises:
        ValueError: columns are missing, or as in `read_table`.

    Warns:
        UserWarning: values that do not fit their column's kind count as missing.
    """
    frame = read_frame(data)
    columns = [column for column in columns if column.kind != "dropped"]
    absent = [column.name for column in columns if column.name not in frame]
    if absent:
        others = set(frame.columns) - {column.name for column in columns}
        raise ValueError(
            f"the rows lack {'column' if len(absent) == 1 else 'columns'} "
            f"{', '.join(map(repr, absent))}, which the model was trained on."
            f"{suggestion(absent[0], others) if len(absent) == 1 else ''}"
        )
    converted = {}
    for column in columns:
        converted[column.name], wrong = convert(frame[column.name], column.kind)
        if wrong:
            warnings.warn(
                f"column {column.name!r}: {wrong} of {len(frame)} values are no {column.kind} and "
                "count as missing",
                stacklevel=3,
            )
    return pd.DataFrame(converted).reset_index(drop=True)
