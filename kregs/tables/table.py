"""`read_table`: a table with a target, its columns typed, ready for a search."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from kregs.tables.columns import Column, convert, describe_column, typed_values
from kregs.tables.preprocessing import make_preprocessing
from kregs.tables.reading import DECIMAL_COMMAS, read_frame
from kregs.tables.target import FEWEST_ROWS_OF_CLASS, check_target, rare_classes, read_target
from kregs.tasks import TASKS
from kregs.validation import check_choice, suggestion

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

    Example: see `kregs.read_table`, which makes it.
    """

    features: pd.DataFrame
    target: np.ndarray
    classes: list[Any] | None
    columns: list[Column]
    task: str
    target_name: str
    notes: list[str]

    def describe(self) -> pd.DataFrame:
        """Return one row per column: `column`, `kind`, `missing`, `distinct`, `note`.

        Example:

        >>> frame = pd.DataFrame({"x": np.cos(range(40)), "y": [0, 1] * 20})
        >>> read_table(frame, "y").describe()[["column", "kind"]].values.tolist()
        [['x', 'number']]
        """
        frame = pd.DataFrame([dataclasses.asdict(column) for column in self.columns])
        return frame.rename(columns={"name": "column"})

    def names(self, *kinds: str) -> list[str]:
        """Return the names of the columns of some kinds, in the file's order.

        Example:

        >>> frame = pd.DataFrame({"x": np.cos(range(40)), "y": [0, 1] * 20})
        >>> read_table(frame, "y").names("number", "date")
        ['x']
        """
        return [column.name for column in self.columns if column.kind in kinds]

    def preprocessing(self, rows: np.ndarray | None = None) -> ColumnTransformer:
        """Return an unfitted scikit-learn transformer: `features` to numbers.

        Numbers: missing ones become the median, then standardized; a column of 0 and 1 says where
        they were missing. Categories: one column each; missing is one of them; rare and unseen
        ones are 0 in all of a column's columns. It makes the same columns in every fold, since
        which categories are frequent, and which columns have gaps, is decided here.

        Args:
            rows: numbers (m,) of the rows that decide that: those that may be trained on.
                Default: all.

        Returns:
            A `sklearn.compose.ColumnTransformer`.

        Example:

        >>> frame = pd.DataFrame({"c": ["a", "b"] * 20, "y": [0, 1] * 20})
        >>> table = read_table(frame, "y")
        >>> table.preprocessing().fit_transform(table.features)[:2].tolist()
        [[1.0, 0.0], [0.0, 1.0]]
        """
        return make_preprocessing(self.features, self.columns, rows)


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
    names, commas = list(frame.columns), frame.attrs.get(DECIMAL_COMMAS, ())
    categorical, drop = _column_list("categorical", categorical), _column_list("drop", drop)
    for argument, asked in (("target", [target]), ("categorical", categorical), ("drop", drop)):
        for name in asked:
            if name not in names:
                raise ValueError(
                    f"`{argument}` must be a column of the table: {', '.join(names)}. "
                    f"Received: {name!r}.{suggestion(name, names)}"
                )
    if target in drop:
        raise ValueError(f"`drop` may not hold the target. Received: {target!r}")

    task, labels, notes = read_target(typed_values(frame[target]), target, task)
    if target in commas:
        notes.append(f"decimal commas in {target!r}: 3,5 was read as 3.5")
    keep = labels.notna()
    if task == "classification":
        rare = rare_classes(labels)
        if rare:
            count = int(labels.isin(rare).sum())
            notes.append(
                f"{count} row{'s' * (count > 1)} left out: fewer than {FEWEST_ROWS_OF_CLASS} of "
                f"class {', '.join(map(repr, rare[:5]))}{', ...' if len(rare) > 5 else ''}, too "
                "few to train and to test on"
            )
            keep &= ~labels.isin(rare)
    labels = labels[keep]
    check_target(labels, target, task, notes)
    classes = sorted(labels.unique().tolist()) if task == "classification" else None
    if classes is None:
        numbers = labels.to_numpy(dtype=float)
    else:
        numbers = labels.map({label: i for i, label in enumerate(classes)}).to_numpy(dtype=int)

    frame = frame[keep]
    columns, features = [], {}
    for name in names:
        if name == target:
            continue
        raw = typed_values(frame[name])
        coded = name in categorical or isinstance(frame[name].dtype, pd.CategoricalDtype)
        column = describe_column(name, raw, coded=coded, unwanted=name in drop)
        if name in commas and column.kind == "number":
            note = "; ".join(filter(None, ["decimal commas: 3,5 is 3.5", column.note]))
            column = dataclasses.replace(column, note=note)
        columns.append(column)
        if column.kind != "dropped":
            features[name] = convert(raw, column.kind)[0]
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
    )


def _column_list(argument: str, names: Iterable[str]) -> list[str]:
    if isinstance(names, str):
        raise TypeError(f"`{argument}` must be a list of columns. Received: {names!r}")
    return list(names)
