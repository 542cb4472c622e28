"""Transformers for tables in scikit-learn's manner: robust scale, date parts, target encoding."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.model_selection import KFold
from sklearn.preprocessing import TargetEncoder
from sklearn.utils.validation import check_is_fitted, validate_data

DATE_PARTS = ("year", "week", "day")

_DAYS_OF_YEAR = 365.2425
_FIRST_WEEKDAY = 3  # 1970 began on a Thursday; Monday is 0


class SmoothClipScaler(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """Centres by the median, scales by the quartiles, and squeezes what is far out.

    A value x becomes z = (x − median) / (upper − lower quartile), then z / sqrt(1 + (z / clip)²),
    which is z near 0 and never beyond ± clip. Where the quartiles are equal, as in a column that
    is mostly 0, they are those of the values that are not the median, and where these are equal,
    too, the scale is 2 / (maximum − minimum); a constant becomes 0. Missing values stay missing.

    Args:
        clip: the bound; `None` for none.

    Example:

    >>> x = np.array([[0.0], [1.0], [2.0], [3.0], [1e9]])
    >>> SmoothClipScaler().fit_transform(x).round(3).ravel().tolist()
    [-0.949, -0.493, 0.0, 0.493, 3.0]

    References:
        Holzmüller, Grinsztajn, Steinwart, "Better by default: strong pre-tuned MLPs and boosted
        trees on tabular data", NeurIPS 2024, section 3 and appendix A.
    """

    def __init__(self, clip: float | None = 3.0) -> None:
        self.clip = clip

    def fit(self, X: Any, y: Any = None) -> SmoothClipScaler:
        """Find the medians and scales of the columns of `X` (n, features)."""
        x = validate_data(self, X, dtype="float64", ensure_all_finite="allow-nan")
        if self.clip is not None and not self.clip > 0:
            raise ValueError(f"`clip` must be > 0 or None. Received: clip={self.clip!r}")
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "All-NaN")  # stays missing whatever the scale
            low, median, high = np.nanquantile(x, [0.25, 0.5, 0.75], axis=0)
            smallest, largest = np.nanmin(x, axis=0), np.nanmax(x, axis=0)
            if (low == high).any():
                others = np.where(x == median, np.nan, x)
                low_of_others, high_of_others = np.nanquantile(others, [0.25, 0.75], axis=0)
                low, high = np.where(low == high, (low_of_others, high_of_others), (low, high))
        self.center_ = np.where(np.isnan(median), 0.0, median)
        # 1 / (high − low) overflows where the quartiles differ by less than floats can divide by
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            by_quartiles, by_range = 1.0 / (high - low), 2.0 / (largest - smallest)
        scale = np.where(np.isfinite(by_quartiles), by_quartiles, by_range)
        self.scale_ = np.where(np.isfinite(scale), scale, 0.0)
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Return rows (n, features) scaled and clipped."""
        check_is_fitted(self)
        x = validate_data(self, X, reset=False, dtype="float64", ensure_all_finite="allow-nan")
        z = (x - self.center_) * self.scale_
        if self.clip is None:
            return z
        with np.errstate(over="ignore"):  # the root of infinity: the value is clip
            clipped = z / np.hypot(1.0, z / self.clip)
        return np.where(np.isinf(z), np.sign(z) * self.clip, clipped)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags


class DateParts(TransformerMixin, BaseEstimator):
    """Tells the time of the year, the weekday and the time of the day from days since 1970.

    The times of the year and of the day are a sine and a cosine each, so that December is near
    January; a weekday is one of seven columns. Where a date is missing, all of them are 0.

    Args:
        parts: some of `"year"`, `"week"`, `"day"`.

    Example:

    >>> monday = np.array([[4.25]])  # 5 January 1970, 6 o'clock
    >>> (DateParts(("week", "day")).fit_transform(monday).round(3) + 0.0).tolist()
    [[1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0]]
    """

    def __init__(self, parts: tuple[str, ...] = DATE_PARTS) -> None:
        self.parts = parts

    def fit(self, X: Any, y: Any = None) -> DateParts:
        """Check the columns of `X` (n, dates); nothing is learnt from them."""
        validate_data(self, X, dtype="float64", ensure_all_finite="allow-nan")
        unknown = set(self.parts) - set(DATE_PARTS)
        if unknown or not self.parts:
            raise ValueError(
                f"`parts` must be some of {DATE_PARTS}. Received: parts={self.parts!r}"
            )
        self.fitted_ = True
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Return the parts of all columns, one column of `X` (n, dates) after the other."""
        check_is_fitted(self)
        x = validate_data(self, X, reset=False, dtype="float64", ensure_all_finite="allow-nan")
        known = np.isfinite(x)
        days = np.where(known, x, 0.0)
        columns = []
        for place in range(x.shape[1]):
            date, is_known = days[:, place], known[:, place]
            for part in (name for name in DATE_PARTS if name in self.parts):
                if part == "week":
                    weekday = (np.floor(date) + _FIRST_WEEKDAY) % 7
                    columns += [(weekday == day) & is_known for day in range(7)]
                else:
                    phase = 2 * np.pi * date / (_DAYS_OF_YEAR if part == "year" else 1.0)
                    columns += [np.sin(phase) * is_known, np.cos(phase) * is_known]
        return np.column_stack(columns).astype("float64")

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Return a name for each column that `transform` makes."""
        check_is_fitted(self)
        if input_features is None:
            default = [f"x{place}" for place in range(self.n_features_in_)]
            input_features = getattr(self, "feature_names_in_", default)
        endings = {
            "year": ["year_sin", "year_cos"],
            "week": [f"weekday_{day}" for day in range(7)],
            "day": ["day_sin", "day_cos"],
        }
        used = [ending for part in DATE_PARTS if part in self.parts for ending in endings[part]]
        return np.array([f"{name}_{ending}" for name in input_features for ending in used], object)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.requires_fit = False
        return tags


class FrequentCodes(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """Makes 0 of codes that too few of the rows have that it is fitted on.

    Args:
        fewest: rows of a code that stays.

    Example:

    >>> FrequentCodes(2).fit_transform([[1.0], [1.0], [2.0]]).ravel().tolist()
    [1.0, 1.0, 0.0]
    """

    def __init__(self, fewest: int = 2) -> None:
        self.fewest = fewest

    def fit(self, X: Any, y: Any = None) -> FrequentCodes:
        """Count the codes of the columns of `X` (n, features)."""
        x = validate_data(self, X, dtype="float64")
        self.codes_ = []
        for column in x.T:
            codes, rows = np.unique(column, return_counts=True)
            self.codes_.append(codes[rows >= self.fewest])
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Return the codes (n, features), 0 in the place of all others."""
        check_is_fitted(self)
        x = validate_data(self, X, reset=False, dtype="float64")
        kept = [np.isin(column, codes) for column, codes in zip(x.T, self.codes_, strict=True)]
        return np.where(np.column_stack(kept), x, 0.0)


class CrossFittedTargetEncoder(TransformerMixin, BaseEstimator):
    """scikit-learn's `TargetEncoder` with the same columns in every fold of a table's rows.

    The rows that it is fitted on are encoded by `fit_transform` without their own targets: by those
    of the other folds. A class that the rows lack has a column of zeros, so that models of one
    structure can be trained on any of them. Unseen categories get the mean of the target.

    Args:
        classes: how many classes there are, numbered from 0; `None` for a regression.
        folds: of the rows that it is fitted on.
        seed: of these folds.

    Example:

    >>> x = np.array([["a"], ["b"]] * 20, dtype=object)
    >>> y = np.array([0, 1] * 20)
    >>> CrossFittedTargetEncoder(classes=2).fit(x, y).transform(x[:2]).ravel().tolist()
    [0.0, 1.0]

    References:
        Micci-Barreca, "A preprocessing scheme for high-cardinality categorical attributes in
        classification and prediction problems", SIGKDD Explorations 3, 2001.
    """

    def __init__(self, classes: int | None = None, folds: int = 5, seed: int = 0) -> None:
        self.classes = classes
        self.folds = folds
        self.seed = seed

    def fit(self, X: Any, y: Any) -> CrossFittedTargetEncoder:
        """Learn the encodings of the categories in `X` (n, features) from all targets `y` (n,)."""
        self._fit(X, y)
        return self

    def fit_transform(self, X: Any, y: Any, **_: Any) -> np.ndarray:
        """Fit, and return each row's encoding by the targets of the other folds."""
        x, y = self._fit(X, y)
        splitter = KFold(min(self.folds, len(x)), shuffle=True, random_state=self.seed)
        encoded = np.zeros((len(x), self._width()))
        for train, held_out in splitter.split(x):
            encoded[held_out] = self._encoded(self._fitted(x[train], y[train]), x[held_out])
        return encoded

    def transform(self, X: Any) -> np.ndarray:
        """Return the encodings (n, features), or (n, features · classes) of three classes or more.

        Each feature's classes stand side by side.
        """
        check_is_fitted(self)
        x = validate_data(self, X, reset=False, dtype=None, ensure_all_finite=False)
        return self._encoded(self.encoder_, x.astype(object))

    def _fit(self, X: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
        x, y = validate_data(self, X, y, dtype=None, ensure_all_finite=False)
        x = x.astype(object)
        self.encoder_ = self._fitted(x, y)
        return x, y

    def _width(self) -> int:
        several = self.classes is not None and self.classes > 2
        return self.n_features_in_ * (self.classes if several and self.classes else 1)

    def _fitted(self, x: np.ndarray, y: np.ndarray) -> Any:
        """Return an encoder, or the class number of rows that are all of one class."""
        if self.classes is None:
            return _target_encoder("continuous").fit(x, y)
        present = np.unique(y)
        if len(present) < 2:
            return int(present[0])
        return _target_encoder("binary" if len(present) == 2 else "multiclass").fit(x, y)

    def _encoded(self, encoder: Any, x: np.ndarray) -> np.ndarray:
        if self.classes is None:
            return encoder.transform(x)
        # shares of every class, (n, features, classes)
        shares = np.zeros((len(x), self.n_features_in_, max(self.classes, 2)))
        if isinstance(encoder, int):
            shares[:, :, encoder] = 1.0
        else:
            present = encoder.classes_.astype(int)
            values = encoder.transform(x)
            if len(present) == 2:
                shares[:, :, present[0]], shares[:, :, present[1]] = 1.0 - values, values
            else:
                shares[:, :, present] = values.reshape(len(x), self.n_features_in_, len(present))
        return shares[:, :, 1] if self.classes <= 2 else shares.reshape(len(x), -1)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.input_tags.allow_nan = True  # a category of its own
        tags.input_tags.categorical = True
        tags.input_tags.string = True
        return tags


def _target_encoder(target_type: str) -> TargetEncoder:
    """Return an encoder that makes arrays, whatever scikit-learn is set to."""
    return TargetEncoder(target_type=target_type).set_output(transform="default")
