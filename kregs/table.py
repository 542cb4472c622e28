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
_COMMAS = "kregs: columns with decimal commas"  # of a frame's attrs
_MISSING_CATEGORY = "(missing)"
_BOOLEANS = {"true": 1.0, "false": 0.0}
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+([eE][+-]?\d+)?")
_THOUSANDS = re.compile(r"[+-]?\d{1,3}(,\d{3})+(,\d{3}|\.\d+)")  # of English numbers, for sure
_QUOTED_FIELD = re.compile(r'(^|[,;\t|]) *"([^"]|"")*"')
_EXACT = 2.0**53  # whole numbers below are exact as floats
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

    A file and a `DataFrame` of the same values make the same table: True and False are booleans
    either way, and the codes 1, 1.0 and 01 are one category. In files whose fields are separated by
    something else than commas, 3,5 is 3.5: the notes say where.

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
    names, commas = list(frame.columns), frame.attrs.get(_COMMAS, ())
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
    if target in commas:
        notes.append(f"decimal commas in {target!r}: 3,5 was read as 3.5")
    keep = labels.notna()
    if task == "classification":
        sizes = labels.value_counts()
        few = sizes[sizes < _FEWEST_ROWS_OF_CLASS]
        rare = sorted(few.index.tolist())
        if rare:
            count = int(few.sum())
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
        if name in commas and column.kind == "number":
            said = "; ".join(filter(None, ["decimal commas: 3,5 is 3.5", column.note]))
            column = dataclasses.replace(column, note=said)
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
        frame = data.reset_index(drop=True)  # pd.concat repeats row labels
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
    rows: list[list[str]] = []
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            delimiter = _delimiter(file.read(1 << 16))
            file.seek(0)
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
    frame = pd.DataFrame(rows, columns=header, dtype=object)
    if delimiter != ",":
        frame.attrs[_COMMAS] = _read_decimal_commas(frame)
    return frame


def _delimiter(text: str) -> str:
    """Return what separates the fields of a file's first line: what is quoted does not count."""
    lines = _QUOTED_FIELD.sub(r"\1", text).splitlines()
    return max(",;\t|", key=lines[0].count if lines else ",".count)


def _read_decimal_commas(frame: pd.DataFrame) -> list[str]:
    """Write the decimal commas of a file's numbers as points, in place; return the columns.

    A column with numbers such as 1,234.5 or 1,234,567 is left alone: its commas are no decimal
    ones.
    """
    changed = []
    for name in frame:
        fields = [field.strip() for field in frame[name]]
        numbers = [bool("," in field and _DECIMAL_COMMA.fullmatch(field)) for field in fields]
        if any(numbers) and not any("," in field and _THOUSANDS.match(field) for field in fields):
            frame[name] = pd.Series(
                [
                    field.replace(",", ".") if is_number else field
                    for field, is_number in zip(fields, numbers, strict=True)
                ],
                dtype=object,
            )
            changed.append(str(name))
    return changed


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
    """Return numbers and dates as they are, all else as text, `None` where missing."""
    kind = raw.dtype
    if pd.api.types.is_numeric_dtype(kind) and not pd.api.types.is_bool_dtype(kind):
        return raw.astype("Float64").astype(float)
    if pd.api.types.is_datetime64_any_dtype(kind):
        return raw
    return pd.Series([_word(value) for value in raw], index=raw.index, dtype=object, name=raw.name)


def _word(value: Any) -> str | None:
    """Return a value as a file has it, `None` where missing: 3.0 is '3'."""
    if value is None or value is pd.NA or value is pd.NaT:
        return None
    if isinstance(value, (float, np.floating)):
        if math.isnan(value):
            return None
        return str(int(value)) if float(value).is_integer() else str(value)
    word = str(value).strip()
    return None if word in _MISSING else word


def _category_name(value: Any) -> str | None:
    """Return a value as a category's name: '3.0' is '3', 'true' is 'True', as in a DataFrame."""
    word = _word(value)
    if word is None:
        return None
    if word.lower() in _BOOLEANS:
        return word.capitalize()
    if _NUMBER.fullmatch(word) and abs(float(word)) < _EXACT:
        return _word(float(word))
    return word


def convert(raw: pd.Series, kind: str) -> tuple[pd.Series, int]:
    """Return a column in the form that its kind has, and how many values had another form.

    These, and infinite numbers, become missing.

    Args:
        raw: as a file gives it.
        kind: of the column.
    """
    if kind == "number" and pd.api.types.is_bool_dtype(raw.dtype):
        raw = raw.astype("boolean").astype("Float64")
    raw = _plain(raw)
    present = raw.notna()
    if kind == "category":
        words = [_category_name(value) for value in raw]
        return pd.Series(words, index=raw.index, dtype=object, name=raw.name), 0
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
    dates = dates.dt.as_unit("us")  # nanoseconds end in the year 2262
    return (dates - pd.Timestamp(0, tz="UTC").as_unit("us")) / pd.Timedelta(days=1).as_unit("us")


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
    if _are_booleans(present):
        return Column(kind="boolean", **facts)
    numbers = _numbers(present)
    if numbers.notna().mean() >= _NUMBER_SHARE:
        return _number(_numbers(raw), facts, wrong=present[numbers.isna()])
    if _days(present).notna().all():
        return Column(kind="date", **facts)
    return _category(raw, facts)


def _are_booleans(present: pd.Series) -> bool:
    return present.dtype == object and bool(present.str.lower().isin(_BOOLEANS).all())


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
    facts["distinct"] = int(present.nunique())
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
    truths = _are_booleans(present)
    if truths:
        present = present.str.lower().map(_BOOLEANS)
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
        labels = numbers.astype(bool if truths else int)
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
