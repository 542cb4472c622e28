"""The transformer of a table makes the same columns of any rows."""

from __future__ import annotations

import numpy as np
import pandas as pd
from sklearn.base import clone

import kregs


def test_the_transformer_makes_the_same_columns_of_any_rows(people_csv):
    table = kregs.read_table(people_csv, "y")
    encode = table.preprocessing()
    without_gaps = np.flatnonzero(table.features.notna().all(axis=1))
    few = table.features.iloc[without_gaps[:5]]
    assert clone(encode).fit_transform(few).shape == (5, 10)
    strange = few.assign(city="Rom", income=np.nan)
    assert np.isfinite(clone(encode).fit(table.features).transform(strange)).all()


def test_only_the_given_rows_decide_what_is_frequent():
    frame = pd.DataFrame({"c": ["a", "b"] * 20 + ["c"] * 20, "y": [0, 1] * 30})
    table = kregs.read_table(frame, "y")
    assert table.preprocessing().fit_transform(table.features).shape[1] == 3
    assert table.preprocessing(np.arange(40)).fit_transform(table.features).shape[1] == 2


def test_a_text_column_that_is_empty_in_the_rows_of_a_fold_is_missing_there():
    frame = pd.DataFrame({"c": [None] * 30 + ["a", "b"] * 15, "n": range(60), "y": [0, 1] * 30})
    table = kregs.read_table(frame, "y", number=["n"])
    for categories in ("one-hot", "codes"):
        encode = table.preprocessing(categories=categories)
        known = encode.fit(table.features).transform(table.features)
        made = clone(encode).fit(table.features[:30]).transform(table.features)
        # the columns are the same; a code that no row of the fit has is 0, as what is missing
        expected = known[:, 1:] if categories == "one-hot" else np.zeros((60, 1))
        np.testing.assert_array_equal(made[:, 1:], expected)
        # the column is empty in all rows that the transformer is made of
        first = np.arange(30)
        table.preprocessing(first, categories=categories).fit_transform(table.features[:30])
