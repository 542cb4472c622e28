"""Frames with words in them as numbers: what the scikit-learn estimators make of categories."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

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
    return [
        name
        for name, kind in x.dtypes.items()
        if not pd.api.types.is_numeric_dtype(kind) or pd.api.types.is_bool_dtype(kind)
    ]


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
    return ColumnTransformer(
        [("categories", encode, words)], remainder="passthrough", sparse_threshold=0.0
    )


def _as_words(x: pd.DataFrame) -> pd.DataFrame:
    """Return every value as text, so that columns of several types can be sorted."""
    return x.astype(object).where(x.notna(), "(missing)").astype(str)
