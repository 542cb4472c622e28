"""Frames with words in them as numbers: what the scikit-learn estimators make of categories."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from kregs.tables.columns import MISSING_CATEGORY
from kregs.tables.preprocessing import add_one

if TYPE_CHECKING:
    from sklearn.compose import ColumnTransformer

# of pandas's `infer_dtype`: what is neither a number nor a category
_TIMES = {
    "datetime64": "dates", "datetime": "dates", "date": "dates", "period": "periods",
    "time": "times", "timedelta64": "durations", "timedelta": "durations",
}  # fmt: skip


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
    kind = pd.api.types.infer_dtype(values, skipna=True)
    if kind in _TIMES:
        raise TypeError(
            f"column {values.name!r} of `X` must hold numbers or words; it holds {_TIMES[kind]}: "
            "give what of them matters as numbers"
        )
    if values.dtype == object:  # of numbers, as databases return them, or of words
        numbers = pd.to_numeric(values, errors="coerce")
        flags = values.map(lambda value: isinstance(value, bool)).any()
        return bool(flags) or bool((numbers.isna() & values.notna()).any())
    is_flag = pd.api.types.is_bool_dtype(values.dtype)
    return is_flag or not pd.api.types.is_numeric_dtype(values.dtype)


def frame_encoder(x: Any, *, codes: bool = False) -> ColumnTransformer | None:
    """Return what makes numbers of a frame with words, not fitted; `None` if there are none.

    Numbers pass as they are. Each other column becomes a column of 0 and 1 for each of its values,
    a missing one among them; values that are new are 0 in all of them.

    Args:
        x: the rows.
        codes: put one column of whole numbers from 1 there instead, behind all numbers, for
            `kregs.table_mlp`; values that are new are 0.

    Example:

    >>> frame = pd.DataFrame({"size": [1.5, 2.5, 3.5], "colour": ["red", "blue", None]})
    >>> frame_encoder(frame).fit_transform(frame).tolist()
    [[0.0, 0.0, 1.0, 1.5], [0.0, 1.0, 0.0, 2.5], [1.0, 0.0, 0.0, 3.5]]
    >>> frame_encoder(frame, codes=True).fit_transform(frame).tolist()
    [[1.5, 3.0], [2.5, 2.0], [3.5, 1.0]]
    """
    words = word_columns(x)
    if not words:
        return None
    from sklearn.compose import ColumnTransformer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, OrdinalEncoder

    as_words = FunctionTransformer(_as_words, feature_names_out="one-to-one")
    as_numbers = FunctionTransformer(_as_numbers, feature_names_out="one-to-one")
    if codes:
        encode = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
        from_one = FunctionTransformer(add_one, feature_names_out="one-to-one")
        numbers = [name for name in x if name not in words]
        return ColumnTransformer(
            [
                ("numbers", as_numbers, numbers),
                ("codes", make_pipeline(as_words, encode, from_one), words),
            ],
            sparse_threshold=0.0,
        )
    one_hot = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    return ColumnTransformer(
        [("categories", make_pipeline(as_words, one_hot), words)],
        remainder=as_numbers,
        sparse_threshold=0.0,
    )


def _as_numbers(x: pd.DataFrame) -> pd.DataFrame:
    return x.astype(float)


def _as_words(x: pd.DataFrame) -> pd.DataFrame:
    """Return every value as text, so that columns of several types can be sorted."""
    return x.astype(object).where(x.notna(), MISSING_CATEGORY).astype(str)
