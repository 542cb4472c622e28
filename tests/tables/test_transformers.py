"""The transformers of a table: scikit-learn's contract, and NumPy's numbers."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.preprocessing import TargetEncoder
from sklearn.utils.estimator_checks import check_estimator

import kregs
from kregs.tables import number_and_code_columns
from kregs.tables.scaling_search import scaling_losses
from kregs.tables.transformers import (
    CrossFittedTargetEncoder,
    DateParts,
    FrequentCodes,
    SmoothClipScaler,
)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "transformer",
    [SmoothClipScaler(), DateParts(), CrossFittedTargetEncoder(), FrequentCodes()],
    ids=repr,
)
def test_the_contract_of_scikit_learn(transformer):
    check_estimator(transformer, on_skip=None)


def test_robust_scale_and_smooth_clip():
    rng = np.random.default_rng(0)
    x = np.column_stack(
        [
            rng.lognormal(0, 2, 101),
            np.where(np.arange(101) < 90, 0.0, rng.normal(size=101)),  # its quartiles are equal
            np.repeat([0.0, 1.0], [90, 11]),  # and those of the other values
            np.full(101, 7.0),
            rng.normal(size=101),
        ]
    )
    x[3, 4] = np.nan
    found = SmoothClipScaler().fit_transform(x)
    for place, column in enumerate(x.T):
        known = column[~np.isnan(column)]
        low, median, high = np.quantile(known, [0.25, 0.5, 0.75])
        if low == high and len(set(known)) > 1:
            low, high = np.quantile(known[known != median], [0.25, 0.75])
        wide = known.max() - known.min()
        scale = 1 / (high - low) if high > low else 2 / wide if wide else 0.0
        z = (column - median) * scale
        np.testing.assert_allclose(found[:, place], z / np.sqrt(1 + (z / 3) ** 2), rtol=1e-12)
    assert np.abs(np.nan_to_num(found)).max() < 3
    huge = np.array([[-1e308], [0.0], [1.0], [2.0], [1e308]])
    assert SmoothClipScaler().fit(x[:, :1]).transform(huge)[[0, -1]].ravel().tolist() == [-3, 3]
    unclipped = SmoothClipScaler(clip=None).fit_transform(x[:, :1])
    assert unclipped.max() == pytest.approx(
        (x[:, 0].max() - np.median(x[:, 0])) / np.subtract(*np.quantile(x[:, 0], [0.75, 0.25]))
    )
    with pytest.raises(ValueError, match="clip=-1"):
        SmoothClipScaler(clip=-1).fit(x)


def test_date_parts():
    days = [pd.Timestamp(word) for word in ("2024-01-01 18:00", "1969-07-20", "2023-07-02")]
    x = np.array([[date.timestamp() / 86400] for date in days] + [[np.nan]])
    found = DateParts().fit_transform(x)
    assert found.shape == (4, 2 + 7 + 2)
    for row, date in enumerate(days):
        assert found[row, 2:9].argmax() == date.weekday()
        assert found[row, 2:9].sum() == 1
        hour = 2 * np.pi * date.hour / 24
        np.testing.assert_allclose(found[row, 9:], [np.sin(hour), np.cos(hour)], atol=1e-9)
        part = np.arctan2(found[row, 0], found[row, 1]) / (2 * np.pi) % 1 * 365.2425
        expected = (date - pd.Timestamp(date.year, 1, 1)) / pd.Timedelta(days=1)
        assert part == pytest.approx(expected, abs=1.5)
    assert not found[3].any()
    names = DateParts(("week",)).fit(x).get_feature_names_out(["since"])
    assert names[0] == "since_weekday_0"
    with pytest.raises(ValueError, match="'century'"):
        DateParts(("century",)).fit(x)


def test_target_encoding_is_that_of_scikit_learn_and_cross_fitted():
    rng = np.random.default_rng(0)
    x = rng.integers(0, 20, (300, 2)).astype(str).astype(object)
    for classes, y, kind in (
        (None, rng.normal(size=300), "continuous"),
        (2, rng.integers(0, 2, 300), "binary"),
        (3, rng.integers(0, 3, 300), "multiclass"),
    ):
        encoder = CrossFittedTargetEncoder(classes)
        found = encoder.fit(x, y).transform(x)
        np.testing.assert_allclose(found, TargetEncoder(target_type=kind).fit(x, y).transform(x))
        crossed = clone(encoder).fit_transform(x, y)
        assert crossed.shape == found.shape
        # noise is not learnt: a row's encoding does not know its target
        target = y if classes is None else y == 1
        column = 1 if classes == 3 else 0
        assert np.corrcoef(found[:, column], target)[0, 1] > 0.15
        assert np.corrcoef(crossed[:, column], target)[0, 1] < 0.1
    # a class that the rows lack has a column of zeros
    few = CrossFittedTargetEncoder(4).fit(x, y)
    assert few.transform(x).shape == (300, 8)
    assert not few.transform(x).reshape(300, 2, 4)[:, :, 3].any()
    assert CrossFittedTargetEncoder(3).fit(x, np.ones(300, int)).transform(x)[0].tolist() == [
        0, 1, 0, 0, 1, 0,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def mixed():
    rng = np.random.default_rng(0)
    rows = 400
    frame = pd.DataFrame(
        {
            "size": rng.lognormal(size=rows),
            "colour": rng.choice(["red", "blue", None], rows),
            "since": pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 999, rows), "D"),
            "zip": rng.integers(10000, 10090, rows).astype(str),
            "flag": rng.choice(["yes", "no", "perhaps"], rows),
            "y": rng.choice(["a", "b", "c"], rows),
        }
    )
    frame.loc[::9, "size"] = np.nan
    frame.loc[0, "flag"] = "once"
    return kregs.read_table(frame, "y")


@pytest.mark.parametrize("scaling", ["robust", "quantile", "standard"])
def test_numbers_come_first_then_codes(mixed, scaling):
    made = mixed.preprocessing(scaling=scaling, categories="codes")
    found = made.fit_transform(mixed.features, mixed.target)
    # size, since; 2 + 7 of the date; a gap; three classes of the zip codes
    assert number_and_code_columns(made) == (2 + 9 + 1 + 3, [3, 4])
    assert found.shape == (400, 17)
    colours = {"blue": 1, "red": 2, None: 0}
    np.testing.assert_array_equal(found[:, -2], mixed.features["colour"].map(colours.get))
    assert found[0, -1] == 0  # in one row only
    rows = mixed.features.iloc[:1].assign(colour="green", flag="yes", zip="0")
    assert made.transform(rows)[0, -2:].tolist() == [0, 3]
    assert np.isfinite(found).all()
    one_hot = mixed.preprocessing(scaling=scaling).fit(mixed.features, mixed.target)
    np.testing.assert_allclose(
        one_hot.transform(mixed.features)[:, :15], made.transform(mixed.features)[:, :15]
    )
    assert one_hot.transform(mixed.features).shape == (400, 15 + 3 + 3)
    assert number_and_code_columns(one_hot) == (21, [])


def test_codes_are_those_of_the_rows_that_it_is_fitted_on():
    frame = pd.DataFrame(
        {"colour": [*["red", "blue"] * 20, *["green"] * 10, "grey"], "x": np.arange(51.0) ** 2}
    )
    table = kregs.read_table(frame.assign(y=np.arange(51) % 2), "y")
    made = table.preprocessing(np.arange(40), categories="codes")
    early, all_rows = clone(made).fit(table.features[:40]), clone(made).fit(table.features)
    assert number_and_code_columns(early) == number_and_code_columns(all_rows) == (1, [4])
    colours = [{"blue": 1, "red": 3}, {"blue": 1, "green": 2, "red": 3}]  # grey: one row
    for fitted, codes in zip((early, all_rows), colours, strict=True):
        expected = frame["colour"].map(lambda colour, codes=codes: codes.get(colour, 0))
        np.testing.assert_array_equal(fitted.transform(table.features)[:, -1], expected)


@pytest.mark.slow
def test_the_scaling_is_searched_on_folds_of_the_training_rows():
    rng = np.random.default_rng(0)
    x = rng.normal(size=400)
    far = np.exp(6 * x)  # all but the rank is lost in its scale
    frame = pd.DataFrame({"far": far, "y": np.where(abs(x) < 0.7, "a", "b")})
    losses = scaling_losses(kregs.read_table(frame, "y"), np.arange(300))
    assert losses["quantile"] < losses["robust"] - 0.05
    assert losses == scaling_losses(kregs.read_table(frame, "y"), np.arange(300))
    # what is not trained on has no say
    frame.loc[300:, "far"] = 0.0
    assert losses == scaling_losses(kregs.read_table(frame, "y"), np.arange(300))
    timed = frame.assign(t=np.arange(400) % 7, z=x, y=x**2)
    for divided in ({"time": "t"}, {"groups": "t"}):
        found = scaling_losses(kregs.read_table(timed, "y", **divided), np.arange(300))
        assert all(0 < loss < 3 for loss in found.values())


def test_wrong_words(mixed):
    with pytest.raises(ValueError, match="Did you mean 'robust'"):
        mixed.preprocessing(scaling="robst")
    with pytest.raises(ValueError, match="Did you mean 'codes'"):
        mixed.preprocessing(categories="code")
