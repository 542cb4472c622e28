"""The scikit-learn transformer of a table: imputes, standardizes, encodes categories."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from kregs.tables.columns import MISSING_CATEGORY, Column, frequent_categories

if TYPE_CHECKING:
    from sklearn.compose import ColumnTransformer


def make_preprocessing(
    features: pd.DataFrame, columns: Sequence[Column], rows: np.ndarray | None = None
) -> ColumnTransformer:
    """Return the unfitted transformer that `Table.preprocessing` describes.

    Args:
        features: as in `Table` (n, features).
        columns: what they are.
        rows: numbers (m,) of the rows that decide which categories are frequent and which columns
            have gaps. Default: all.

    Example:

    >>> frame = pd.DataFrame({"size": [1.0, None, 3.0]})
    >>> columns = [Column("size", "number", missing=1, distinct=2)]
    >>> make_preprocessing(frame, columns).fit_transform(frame)[1].tolist()  # the median; a gap
    [0.0, 1.0]
    """
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import MissingIndicator, SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    trained_on = features if rows is None else features.iloc[rows]
    numbers = [column.name for column in columns if column.kind in ("number", "boolean", "date")]
    gaps = [name for name in numbers if trained_on[name].isna().any()]
    frequent = {
        column.name: frequent_categories(trained_on[column.name])
        for column in columns
        if column.kind == "category"
    }
    categories = {name: words for name, words in frequent.items() if words}
    steps: list[tuple[str, Any, list[str]]] = []
    if numbers:
        impute = SimpleImputer(strategy="median", keep_empty_features=True)
        steps.append(("numbers", make_pipeline(impute, StandardScaler()), numbers))
    if gaps:
        steps.append(("gaps", MissingIndicator(features="all"), gaps))
    if categories:
        fill = SimpleImputer(missing_values=None, strategy="constant", fill_value=MISSING_CATEGORY)
        encode = OneHotEncoder(
            categories=[np.array(words, dtype=object) for words in categories.values()],
            handle_unknown="ignore",
            sparse_output=False,
        )
        steps.append(("categories", make_pipeline(fill, encode), list(categories)))
    return ColumnTransformer(steps, sparse_threshold=0.0)
