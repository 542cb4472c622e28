"""What others make of a table beside the network: boosted trees, a linear model, the guess."""

from __future__ import annotations

import contextlib
import importlib.util
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import threadpoolctl

from kregs.tables.columns import MISSING_CATEGORY

# trees of fewer rows are grown by one thread: several wait for each other where a core is busy
_SEVERAL_THREADS = 20_000
_MOST_SECONDS = 30.0  # of a model beside
_MOST_CATEGORIES = 254  # of a column; scikit-learn's trees have no bins for more


def baseline_outputs(
    task: str,
    rows: tuple[pd.DataFrame, np.ndarray],
    y: np.ndarray,
    weights: np.ndarray | None,
    test_rows: tuple[pd.DataFrame, np.ndarray],
    *,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Return what models of others say of the test rows, each with its package's defaults.

    Trees get the columns as they are, missing values and categories among them; the linear model
    gets them as the network does. LightGBM, XGBoost and CatBoost are there if they are installed;
    CatBoost ends after 30 s with the trees that it has. A model that raises is left out, with a
    warning.

    Args:
        task: `"classification"` or `"regression"`.
        rows: the rows to train on, twice: as in `Table.features`, and transformed (n, features).
        y: their class numbers or targets (n,).
        weights: their weights (n,) or `None`; for classes only.
        test_rows: the test rows, twice.
        seed: of the trees.

    Returns:
        By model: probabilities (m, classes), or targets (m, 1).

    Example:

    >>> frame = pd.DataFrame({"x": np.arange(40.0)})
    >>> rows, test_rows = (frame, frame.to_numpy()), (frame[-1:], frame[-1:].to_numpy())
    >>> found = baseline_outputs("regression", rows, 2 * frame["x"].to_numpy(), None, test_rows)
    >>> found["ridge regression"].round(2).tolist(), found["mean"].tolist()
    ([[78.0]], [[39.0]])
    """
    classes = task == "classification"
    outputs = {}
    models = [*_trees(classes, seed), *_others(classes)]
    for name, model, prepare in models:
        train, test = prepare(rows, test_rows)
        try:
            with _threads(len(y)), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # convergence, names of columns: it is a yardstick
                fitted = model().fit(train, y, sample_weight=weights)
                predicted = fitted.predict_proba(test) if classes else fitted.predict(test)
        except Exception as error:
            warnings.warn(f"{name} is not among the baselines: {error}", stacklevel=2)
            continue
        outputs[name] = np.asarray(predicted, float).reshape(len(test), -1)
    return outputs


Rows = tuple[pd.DataFrame, np.ndarray]
Prepare = Callable[[Rows, Rows], tuple[Any, Any]]
_Entry = tuple[str, Callable[[], Any], Prepare]


def _threads(rows: int) -> contextlib.AbstractContextManager[Any]:
    """Let OpenMP have one thread for a small table."""
    if rows >= _SEVERAL_THREADS:
        return contextlib.nullcontext()
    return threadpoolctl.threadpool_limits(1, user_api="openmp")


def _trees(classes: bool, seed: int) -> Iterator[_Entry]:
    """The gradient-boosted trees that are installed: name, what makes one, what it reads."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    boosting: Any = HistGradientBoostingClassifier if classes else HistGradientBoostingRegressor
    yield "HistGradientBoosting", lambda: boosting(random_state=seed), _categorical
    kind = "Classifier" if classes else "Regressor"
    if importlib.util.find_spec("lightgbm"):

        def lightgbm() -> Any:
            import lightgbm

            return getattr(lightgbm, f"LGBM{kind}")(random_state=seed, verbosity=-1)

        yield "LightGBM", lightgbm, _categorical
    if importlib.util.find_spec("xgboost"):

        def xgboost() -> Any:
            import xgboost

            return getattr(xgboost, f"XGB{kind}")(random_state=seed, enable_categorical=True)

        yield "XGBoost", xgboost, _categorical
    if importlib.util.find_spec("catboost"):

        def catboost() -> Any:
            import catboost

            # its default writes a folder where the program was started
            return _WithCategories(
                getattr(catboost, f"CatBoost{kind}")(
                    random_seed=seed, verbose=False, allow_writing_files=False
                )
            )

        yield "CatBoost", catboost, _as_words


def _others(classes: bool) -> Iterator[_Entry]:
    """The linear model and the guess that looks at no column."""
    from sklearn.dummy import DummyClassifier, DummyRegressor
    from sklearn.linear_model import LogisticRegression, RidgeCV

    if classes:
        yield "logistic regression", lambda: LogisticRegression(max_iter=1000), _transformed
        yield "most frequent class", lambda: DummyClassifier(strategy="prior"), _transformed
        return
    yield "ridge regression", lambda: RidgeCV(np.logspace(-3, 3, 13)), _transformed
    yield "mean", DummyRegressor, _transformed


class _WithCategories:
    """CatBoost, told which columns are categories, ended where it takes too long.

    With many classes and categories it takes minutes for a thousand rows.
    """

    def __init__(self, model: Any) -> None:
        self._model = model

    def fit(self, x: pd.DataFrame, y: np.ndarray, sample_weight: Any) -> Any:
        names = x.select_dtypes(exclude="number").columns.tolist()
        end = time.monotonic() + _MOST_SECONDS
        return self._model.fit(
            x, y, sample_weight=sample_weight, cat_features=names, callbacks=[_StopAt(end)]
        )


class _StopAt:
    """CatBoost's callback that ends the training at a time, with the trees that there are."""

    def __init__(self, end: float) -> None:
        self._end = end

    def after_iteration(self, info: Any) -> bool:
        return time.monotonic() < self._end


def _transformed(rows: Rows, test_rows: Rows) -> tuple[Any, Any]:
    return rows[1], test_rows[1]


def _categorical(rows: Rows, test_rows: Rows) -> tuple[Any, Any]:
    """Columns of text as pandas' categories: the frequent ones of the rows to train on."""
    train, test = rows[0].copy(), test_rows[0].copy()
    for name in train.select_dtypes(exclude="number").columns:
        frequent = train[name].value_counts().index[:_MOST_CATEGORIES]
        known = pd.CategoricalDtype(sorted(frequent))
        for frame in (train, test):
            frame[name] = frame[name].where(frame[name].isin(frequent)).astype(known)
    # LightGBM refuses names with brackets and colons
    numbers = [f"column_{place}" for place in range(train.shape[1])]
    return train.set_axis(numbers, axis=1), test.set_axis(numbers, axis=1)


def _as_words(rows: Rows, test_rows: Rows) -> tuple[Any, Any]:
    """Columns of text with a word for what is missing."""
    frames = []
    for frame in (rows[0].copy(), test_rows[0].copy()):
        for name in frame.select_dtypes(exclude="number").columns:
            frame[name] = frame[name].astype(object).where(frame[name].notna(), MISSING_CATEGORY)
        frames.append(frame)
    return frames[0], frames[1]
