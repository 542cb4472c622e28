"""`read_table`: a table with a target, its columns typed, ready for a search."""

from __future__ import annotations

import dataclasses
import os
import shlex
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from kregs.tables.columns import Column, convert, typed_values
from kregs.tables.dependence import row_groups, row_times, split_warnings
from kregs.tables.formats import FileFormats
from kregs.tables.kinds import ColumnReader
from kregs.tables.numerals import NumberFormat
from kregs.tables.options import ColumnOptions, check_columns, column_options
from kregs.tables.preprocessing import make_preprocessing
from kregs.tables.reading import DELIMITER, read_frame
from kregs.tables.target import FEWEST_ROWS_OF_CLASS, check_target, rare_classes, read_target
from kregs.tasks import TASKS
from kregs.validation import check_choice

if TYPE_CHECKING:
    from sklearn.compose import ColumnTransformer


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
        warnings: why a random split of these rows would make the test scores too good.
        groups: the number of each row's group (n,), if rows of one group are to stay together.
        times: the rows' times (n,), if the latest are to be tested on.
        groups_name, time_name: the columns that these come from.
        target_format: how the target's numbers are written where they are text.
        options: what was said about columns.
        source: the file, `None` for a `DataFrame`.

    Example: see `kregs.read_table`, which makes it.
    """

    features: pd.DataFrame
    target: np.ndarray
    classes: list[Any] | None
    columns: list[Column]
    task: str
    target_name: str
    notes: list[str]
    warnings: list[str] = dataclasses.field(default_factory=list)
    groups: np.ndarray | None = None
    times: np.ndarray | None = None
    groups_name: str | None = None
    time_name: str | None = None
    target_format: NumberFormat = dataclasses.field(default_factory=NumberFormat)
    options: ColumnOptions = dataclasses.field(default_factory=ColumnOptions)
    source: str | None = None

    def describe(self) -> pd.DataFrame:
        """Return one row per column: `column`, `kind`, `missing`, `distinct`, `note`, `override`.

        `note` is the reason, `override` the option that makes something else of the column.

        Example:

        >>> frame = pd.DataFrame({"x": np.cos(range(40)), "y": [0, 1] * 20})
        >>> read_table(frame, "y").describe()[["column", "kind"]].values.tolist()
        [['x', 'number']]
        """
        fields = ["name", "kind", "missing", "distinct", "note", "override"]
        rows = [[getattr(column, field) for field in fields] for column in self.columns]
        return pd.DataFrame(rows, columns=["column", *fields[1:]])

    def names(self, *kinds: str) -> list[str]:
        """Return the names of the columns of some kinds, in the file's order.

        Example:

        >>> frame = pd.DataFrame({"x": np.cos(range(40)), "y": [0, 1] * 20})
        >>> read_table(frame, "y").names("number", "date")
        ['x']
        """
        return [column.name for column in self.columns if column.kind in kinds]

    def preprocessing(
        self,
        rows: np.ndarray | None = None,
        *,
        scaling: str = "robust",
        categories: str = "one-hot",
    ) -> ColumnTransformer:
        """Return an unfitted scikit-learn transformer: `features` to numbers.

        Numbers: missing ones become the median, then they are scaled; a column of 0 and 1 says
        where they were missing. Dates are numbers of days, and the time of the year and of the day
        and the weekday beside them, where these differ. Categories of at most 50 values: one column
        each, of which missing is one; rare and unseen ones are 0 in all of a column's columns. Of
        more: what scikit-learn's `TargetEncoder` knows of the target, each row without its own.
        It makes the same columns in every fold, since which categories have columns, and which
        columns have gaps, is decided here.

        Args:
            rows: numbers (m,) of the rows that decide that: those that may be trained on.
                Default: all.
            scaling: of numbers: `"robust"` (by median and quartiles, with a smooth clip: far
                values end near ± 3), `"quantile"` (to a normal distribution), or `"standard"`.
            categories: `"one-hot"`, or `"codes"`, for learned embeddings: behind all columns of
                numbers one column of whole numbers a column; 0 is missing, rare and unseen in the
                rows that it is fitted on. All rows decide how many codes there are:
                `kregs.tables.number_and_code_columns` tells.

        Returns:
            A `sklearn.compose.ColumnTransformer`. Where categories are target-encoded, it is fitted
            with `target`.

        Example:

        >>> frame = pd.DataFrame({"c": ["a", "b"] * 20, "y": [0, 1] * 20})
        >>> table = read_table(frame, "y")
        >>> table.preprocessing().fit_transform(table.features)[:2].tolist()
        [[1.0, 0.0], [0.0, 1.0]]
        """
        return make_preprocessing(
            self.features,
            self.columns,
            rows,
            scaling=scaling,
            categories=categories,
            classes=None if self.classes is None else len(self.classes),
        )


def read_table(
    data: str | os.PathLike[str] | pd.DataFrame,
    target: str,
    *,
    task: str | None = None,
    number: Iterable[str] = (),
    categorical: Iterable[str] = (),
    date: Iterable[str] | Mapping[str, str] = (),
    keep: Iterable[str] = (),
    drop: Iterable[str] = (),
    groups: str | None = None,
    time: str | None = None,
    encoding: str | None = None,
    decimal: str | None = None,
    thousands: str | None = None,
) -> Table:
    """Read a table and find what its columns are.

    What is said about a column comes first. Else a column of text is one of numbers if its values
    are, one of dates if they are (a few that are not, at most 5 %, count as missing), of booleans
    if all are true or false, else of categories. Dropped, with a note: constant columns, row
    numbers and other identifiers, text that hardly repeats. Empty fields, `?`, `NA` and the like
    are missing; the word `None` is where the others are numbers or dates, else it is a category, or
    a class.

    A file and a `DataFrame` of the same values make the same table: True and False are booleans
    either way, and the codes 1, 1.0 and 01 are one category.

    Numbers may have percent signs, a currency and groups of thousands: `$1,250.50`, `46.4%`,
    `1.250,50 €`. Where 1.000 may be 1 or 1000, it is what the rest of the column and of the file
    say; if nothing does, 1000 in files with semicolons where all numbers of the column are in
    groups of three digits, else an error that asks for `thousands`.

    Dates are 2026-01-31, 01/31/2026, 31.01.2026, 31 Jan 2026 and the like, with times or without.
    Where no value tells the day from the month, 09/01/2026 is the first of September, in files
    with semicolons the ninth of January.

    Args:
        data: a CSV file (fields separated by comma, semicolon, tab or `|`; a header), a Parquet
            file (needs pyarrow), or a `DataFrame`.
        target: the column to be predicted. Rows without it are left out, and so are those of
            classes with fewer than 3 rows: `notes` says so.
        task: default: regression for numbers, classification for everything else and for whole
            numbers of at most 20 values.
        number: columns of numbers; what is none is missing.
        categorical: columns of categories, such as numbers that are codes.
        date: columns of dates, or a mapping of columns to formats as in `strftime`.
        keep: columns that are used even if they look like row numbers or hardly repeat.
        drop: columns to leave out.
        groups: a column, such as a patient's number: rows with the same value are all in the test
            part or none, and in one fold. It is no feature unless it is kept.
        time: a column of dates or numbers: the latest rows are the test part, and folds are
            validated on later rows than they are trained on.
        encoding: of a CSV. Default: UTF-8.
        decimal: the decimal mark of numbers that are text, `"."` or `","`.
        thousands: the mark between thousands, `","`, `"."`, `" "` or `"'"`; `"none"` for none.

    Returns:
        A `Table`.

    Raises:
        FileNotFoundError: there is no such file.
        ImportError: a Parquet file, and pyarrow is not installed.
        TypeError: `data` is none of these, or a list of columns is none.
        ValueError: the file is empty, broken (the message has the line), in another encoding, or
            has two columns of one name; a column does not exist, or was said to be two things;
            numbers are ambiguous; the target is constant or unfit for the task; there are too few
            rows, or no column is left to learn from.

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
    options = column_options(
        number=number,
        categorical=categorical,
        date=date,
        keep=keep,
        drop=drop,
        decimal=decimal,
        thousands=thousands,
        encoding=encoding,
    )
    frame = read_frame(data, encoding)
    delimiter = frame.attrs.get(DELIMITER, ",")
    frame = frame.reset_index(drop=True)  # pd.concat repeats row labels
    names = list(frame.columns)
    options = check_columns(options, names, target, groups=groups, time=time)
    formats = FileFormats(frame, options, delimiter)

    target_format = _target_format(formats, target, frame[target])
    task, labels, notes = _usable_labels(frame[target], target, task, target_format)
    times = None
    if time is not None:
        known, note = row_times(frame.loc[labels.index, time], formats, time)
        notes += note
        labels, times = labels[known.notna()], known.dropna().to_numpy()
        check_target(labels, target, task, notes)
    classes = sorted(labels.unique().tolist()) if task == "classification" else None
    if classes is None:
        numbers = labels.to_numpy(dtype=float)
        notes += [
            f"{target!r}: {note}" for note in formats.writing(target, frame[target], target_format)
        ]
    else:
        numbers = labels.map({label: i for i, label in enumerate(classes)}).to_numpy(dtype=int)

    frame = frame.loc[labels.index]
    columns, features = _typed_columns(frame.drop(columns=target), ColumnReader(formats), groups)
    if not features:
        raise ValueError(
            f"the table has no column to learn {target!r} from. "
            + "; ".join(f"{column.name!r}: {column.note}" for column in columns)
        )
    return Table(
        features=pd.DataFrame(features).reset_index(drop=True),
        target=numbers,
        classes=classes,
        columns=columns,
        task=task,
        target_name=target,
        notes=notes,
        warnings=split_warnings(frame, columns, groups=groups, time=time),
        groups=None if groups is None else row_groups(frame[groups]),
        times=times,
        groups_name=groups,
        time_name=time,
        target_format=target_format,
        options=options,
        source=None if isinstance(data, pd.DataFrame) else os.fspath(data),
    )


def _target_format(formats: FileFormats, name: str, raw: pd.Series) -> NumberFormat:
    """Return how the numbers of a target are written, if it is text and most are numbers."""
    if formats.evidence(name, raw).share > 0.5:
        return formats.number_format(name, typed_values(raw)) or NumberFormat()
    return NumberFormat()


def _usable_labels(
    raw: pd.Series, name: str, task: str | None, number_format: NumberFormat
) -> tuple[str, pd.Series, list[str]]:
    """Return the task, the labels or numbers of the rows that can be used, and notes.

    Raises:
        ValueError: too few are left, or they are all alike.
    """
    task, labels, notes = read_target(typed_values(raw), name, task, number_format)
    labels = labels.dropna()
    rare = rare_classes(labels) if task == "classification" else []
    if rare:
        count = int(labels.isin(rare).sum())
        notes.append(
            f"{count} row{'s' * (count > 1)} left out: fewer than {FEWEST_ROWS_OF_CLASS} of "
            f"class {', '.join(map(repr, rare[:5]))}{', ...' if len(rare) > 5 else ''}, too "
            "few to train and to test on"
        )
        labels = labels[~labels.isin(rare)]
    check_target(labels, name, task, notes)
    return task, labels, notes


def _typed_columns(
    frame: pd.DataFrame, reader: ColumnReader, groups: str | None
) -> tuple[list[Column], dict[str, pd.Series]]:
    """Return what the columns are, and the values of those that are used."""
    columns, features = [], {}
    for name in frame:
        column = reader.column(name, frame[name])
        said = name in reader.options.keep or reader.options.kind(name) is not None
        if name == groups and not said:
            column = dataclasses.replace(
                column,
                kind="dropped",
                note="dropped: the groups of rows that stay together",
                override=f"--keep {shlex.quote(name)}",
            )
        columns.append(column)
        if column.kind != "dropped":
            features[name] = convert(
                frame[name],
                column.kind,
                number_format=column.number_format,
                date_format=column.date_format,
            )[0]
    return columns, features
