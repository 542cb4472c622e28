"""The scikit-learn transformer of a table: imputes, scales, encodes dates and categories."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from kregs.tables.columns import MISSING_CATEGORY, Column
from kregs.validation import check_choice

if TYPE_CHECKING:
    from sklearn.compose import ColumnTransformer

SCALINGS = ("robust", "quantile", "standard")
SCALING_OPTIONS = (*SCALINGS, "search")
SEARCHED_SCALINGS = ("robust", "quantile")
ENCODINGS = ("one-hot", "codes")

_FEWEST_ROWS = 2  # of a category with a column or a code of its own
_MOST_CATEGORIES = 50  # of a column; with more, what is known of the target takes their place


def make_preprocessing(
    features: pd.DataFrame,
    columns: Sequence[Column],
    rows: np.ndarray | None = None,
    *,
    scaling: str = "robust",
    categories: str = "one-hot",
    classes: int | None = None,
) -> ColumnTransformer:
    """Return the unfitted transformer that `Table.preprocessing` describes.

    Args:
        features: as in `Table` (n, features).
        columns: what they are.
        rows: numbers (m,) of the rows that decide which categories have columns, which columns have
            gaps, and which parts of dates differ. Default: all.
        scaling: of numbers: `"robust"`, `"quantile"` or `"standard"`.
        categories: `"one-hot"`, or `"codes"`: whole numbers behind all others. There is a code for
            every category of `features`; those of fewer than two of the rows that it is fitted on
            are 0.
        classes: how many classes the target has; `None` for a regression.

    Example:

    >>> frame = pd.DataFrame({"size": [1.0, None, 3.0]})
    >>> columns = [Column("size", "number", missing=1, distinct=2)]
    >>> make_preprocessing(frame, columns).fit_transform(frame)[1].tolist()  # the median; a gap
    [0.0, 1.0]
    """
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import MissingIndicator, SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from kregs.tables.transformers import CrossFittedTargetEncoder, DateParts

    check_choice("scaling", scaling, SCALINGS)
    check_choice("categories", categories, ENCODINGS)
    trained_on = features if rows is None else features.iloc[rows]
    numbers = [column.name for column in columns if column.kind in ("number", "boolean", "date")]
    gaps = [name for name in numbers if trained_on[name].isna().any()]
    texts = [column.name for column in columns if column.kind == "category"]
    many = [name for name in texts if trained_on[name].nunique() > _MOST_CATEGORIES]
    fill = SimpleImputer(
        missing_values=None,
        strategy="constant",
        fill_value=MISSING_CATEGORY,
        keep_empty_features=True,  # such as those of which only other rows than a fold's are filled
    )

    steps: list[tuple[str, Any, list[str]]] = []
    if numbers:
        impute = SimpleImputer(strategy="median", keep_empty_features=True)
        steps.append(("numbers", make_pipeline(impute, _scaler(scaling, len(trained_on))), numbers))
    for column in columns:
        if column.kind == "date":
            parts = _parts_that_differ(trained_on[column.name])
            if parts:
                steps.append((f"parts of {column.name}", DateParts(parts), [column.name]))
    if gaps:
        steps.append(("gaps", MissingIndicator(features="all"), gaps))
    if many:
        encode = CrossFittedTargetEncoder(classes)
        steps.append(("targets", make_pipeline(fill, encode, StandardScaler()), many))
    # codes for what later rows hold, too: what is fitted on these knows it, in the same columns
    listed, missing = (features, False) if categories == "codes" else (trained_on, True)
    words = {
        name: frequent_categories(listed[name], missing=missing)
        for name in texts
        if name not in many
    }
    words = {name: frequent for name, frequent in words.items() if frequent}
    if words:
        encoders = _category_encoders(categories, list(words.values()))
        steps.append((categories, make_pipeline(fill, *encoders), list(words)))
    if not steps:
        raise ValueError(
            "the rows to train on must have a column to learn from. Received: categories only, of "
            "which none is there twice"
        )
    return ColumnTransformer(steps, sparse_threshold=0.0)


def number_and_code_columns(fitted: ColumnTransformer) -> tuple[int, list[int]]:
    """Return how many columns of numbers a fitted transformer makes, and how many codes follow.

    Args:
        fitted: what `make_preprocessing` made with `categories="codes"`, fitted.

    Returns:
        The number of columns of numbers, which come first, and for each column of codes behind them
        how many values it takes: 0 for missing, rare and unseen ones, then 1 to k, so k + 1.

    Example:

    >>> frame = pd.DataFrame({"size": [1.0, 2.0] * 2, "colour": ["red", "blue"] * 2})
    >>> columns = [Column("size", "number", 0, 2), Column("colour", "category", 0, 2)]
    >>> made = make_preprocessing(frame, columns, categories="codes").fit(frame)
    >>> number_and_code_columns(made), made.transform(frame)[:, 1].tolist()
    ((1, [3]), [2.0, 1.0, 2.0, 1.0])
    """
    width = sum(part.stop - part.start for part in fitted.output_indices_.values())
    if "codes" not in fitted.named_transformers_:
        return width, []
    encoder = fitted.named_transformers_["codes"]["ordinalencoder"]
    cardinalities = [len(words) + 1 for words in encoder.categories_]
    return width - len(cardinalities), cardinalities


def frequent_categories(words: pd.Series, *, missing: bool = True) -> list[str]:
    """Return the categories of more than one row, sorted.

    Args:
        words: text, `None` where missing (n,).
        missing: whether missing is a category, too.

    Example:

    >>> frequent_categories(pd.Series(["b", "a", "b", None, None]))
    ['(missing)', 'b']
    """
    rows = (words.fillna(MISSING_CATEGORY) if missing else words).value_counts()
    return sorted(rows[rows >= _FEWEST_ROWS].index)


def add_one(codes: np.ndarray) -> np.ndarray:
    """Return codes from 0, where scikit-learn's begin with -1 for the unknown."""
    return codes + 1


def _category_encoders(categories: str, words: list[list[str]]) -> list[Any]:
    from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, OrdinalEncoder

    from kregs.tables.transformers import FrequentCodes

    listed = [np.array(names, dtype=object) for names in words]
    if categories == "one-hot":
        return [OneHotEncoder(categories=listed, handle_unknown="ignore", sparse_output=False)]
    encoder = OrdinalEncoder(
        categories=listed, handle_unknown="use_encoded_value", unknown_value=-1
    )
    from_one = FunctionTransformer(add_one, feature_names_out="one-to-one")
    return [encoder, from_one, FrequentCodes(_FEWEST_ROWS)]


def _scaler(scaling: str, rows: int) -> Any:
    from sklearn.preprocessing import QuantileTransformer, StandardScaler

    from kregs.tables.transformers import SmoothClipScaler

    if scaling == "robust":
        return SmoothClipScaler()
    if scaling == "standard":
        return StandardScaler()
    # no more quantiles than the first of several folds in order of time has rows
    quantiles = max(min(1000, rows // 8), 2)
    return QuantileTransformer(n_quantiles=quantiles, output_distribution="normal", random_state=0)


def _parts_that_differ(days: pd.Series) -> tuple[str, ...]:
    """Return the parts of dates (n,) that are not the same in all rows."""
    known = days.dropna().to_numpy()
    if not len(known):
        return ()
    days = np.floor(known)
    dates = pd.to_datetime(pd.Series(days.clip(-100_000, 100_000)), unit="D")
    parts = []
    if (100 * dates.dt.month + dates.dt.day).nunique() > 1:
        parts.append("year")
    if dates.dt.day.nunique() > 1 and len(np.unique(days % 7)) > 1:  # not the first of each month
        parts.append("week")
    if (known != days).any():
        parts.append("day")
    return tuple(parts)
