"""Frames with words in them as numbers: what the scikit-learn estimators make of categories."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from kregs.tables.columns import MISSING_CATEGORY

if TYPE_CHECKING:
    from sklearn.compose import ColumnTransformer


def word_columns(x: Any) -> list[Any]:
    """Return the names of a frame's columns that hold no numbers; none of what is no frame.

    Example:

    >>> word_columns(pd.DataFrame({"a": [1.0], "b": ["x"], "c": [True], "d": pd.Categorical([1])}))
    ['b', 'c', 'd']
    """
    if not isinstance(x, pd.DataFrame):
        return []
    return [name for name in x if _holds_words(x[name])]


def _holds_words(values: pd.Series) -> bool:
    if pd.api.types.is_datetime64_any_dtype(values.dtype):
        raise TypeError(
            f"column {values.name!r} of `X` must hold numbers or words; it holds dates: give what "
            "of them matters as numbers"
        )
    if values.dtype == object:  # of numbers, as databases return them, or of words
        numbers = pd.to_numeric(values, errors="coerce")
        flags = values.map(lambda value: isinstance(value, bool)).any()
        return bool(flags) or bool((numbers.isna() & values.notna()).any())
    is_flag = pd.api.types.is_bool_dtype(values.dtype)
    return is_flag or not pd.api.types.is_numeric_dtype(values.dtype)


def frame_encoder(x: Any) -> ColumnTransformer | None:
    """Return what makes numbers of a frame with words, not fitted; `None` if there are none.

    Numbers pass as they are. Each other column becomes a column of 0 and 1 for each of its values,
    a missing one among them; values that are new are 0 in all of them.

    Example:

    >>> frame = pd.DataFrame({"size": [1.5, 2.5, 3.5], "colour": ["red", "blue", None]})
    >>> frame_encoder(frame).fit_transform(frame).tolist()
    [[0.0, 0.0, 1.0, 1.5], [0.0, 1.0, 0.0, 2.5], [1.0, 0.0, 0.0, 3.5]]
    """
    words = word_columns(x)
    if not words:
        return None
    from sklearn.compose import ColumnTransformer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, OneHotEncoder

    encode = make_pipeline(
        FunctionTransformer(_as_words, feature_names_out="one-to-one"),
        OneHotEncoder(handle_unknown="ignore", sparse_output=False),
    )
    numbers = FunctionTransformer(_as_numbers, feature_names_out="one-to-one")
    return ColumnTransformer(
        [("categories", encode, words)], remainder=numbers, sparse_threshold=0.0
    )


def _as_numbers(x: pd.DataFrame) -> pd.DataFrame:
    return x.astype(float)


def _as_words(x: pd.DataFrame) -> pd.DataFrame:
    """Return every value as text, so that columns of several types can be sorted."""
    return x.astype(object).where(x.notna(), MISSING_CATEGORY).astype(str)
