"""The rows of a table kept for the test: their split, and the scores on them beside baselines."""

from __future__ import annotations

import warnings

import numpy as np

from kregs.tasks import class_probabilities


def split_rows(
    target: np.ndarray, classes: int, share: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers of the rows to train on and of those kept for the test, sorted.

    Args:
        target: class numbers or floats (n,).
        classes: how many classes there are; 0 for a regression.
        share: the part of the rows kept for the test, in (0, 1).
        seed: of the shuffle.

    Raises:
        ValueError: too few rows are left to train on.

    Example:

    >>> train, test = split_rows(np.array([0, 1] * 20), 2, 0.1, seed=0)
    >>> len(train), len(test), set(test % 2) == {0, 1}
    (36, 4, True)
    """
    from sklearn.model_selection import train_test_split

    rows = len(target)
    test_rows = max(round(rows * share), classes, 2)
    if rows - test_rows < max(10, 2 * classes):
        raise ValueError(
            f"`test_share` must leave rows to train on. Received: test_share={share}, which keeps "
            f"{test_rows} of {rows} rows for the test"
        )
    train, test = train_test_split(
        np.arange(rows),
        test_size=test_rows,
        random_state=seed,
        stratify=target if classes else None,
    )
    if classes:
        train, test = _every_class(target, train, test)
    return np.sort(train), np.sort(test)


def _every_class(
    target: np.ndarray, train: np.ndarray, test: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Move rows so that every class has one to test and two, for different folds, to train on.

    The rows are shuffled, and every class has at least three.
    """
    for number in np.unique(target):
        class_train, class_test = train[target[train] == number], test[target[test] == number]
        to_test = class_train[: max(0, 1 - len(class_test))]
        to_train = class_test[: max(0, 2 - len(class_train))]
        train = np.append(np.setdiff1d(train, to_test, assume_unique=True), to_train)
        test = np.append(np.setdiff1d(test, to_train, assume_unique=True), to_test)
    return train, test


def baseline_outputs(
    task: str, x: np.ndarray, y: np.ndarray, weights: np.ndarray | None, x_test: np.ndarray
) -> dict[str, np.ndarray]:
    """Return what scikit-learn's linear model and the guess by no column say of the test rows.

    Args:
        task: `"classification"` or `"regression"`.
        x: the rows to train on, transformed (n, features).
        y: their class numbers or targets (n,).
        weights: their weights (n,) or `None`; for classes only.
        x_test: the test rows, transformed (m, features).

    Returns:
        By model: probabilities (m, classes), or targets (m, 1).

    Example:

    >>> x = np.arange(10.0)[:, None]
    >>> {name: y[0].round(3).tolist() for name, y in
    ...     baseline_outputs("regression", x, 2 * x[:, 0], None, x[-1:]).items()}
    {'ridge regression': [18.0], 'mean': [9.0]}
    """
    from sklearn.dummy import DummyClassifier, DummyRegressor
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression, RidgeCV

    if task == "regression":
        ridge = RidgeCV(np.logspace(-3, 3, 13)).fit(x, y)
        return {
            "ridge regression": ridge.predict(x_test)[:, None],
            "mean": DummyRegressor().fit(x, y).predict(x_test)[:, None],
        }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # good enough to compare with
        logistic = LogisticRegression(max_iter=1000).fit(x, y, sample_weight=weights)
    return {
        "logistic regression": logistic.predict_proba(x_test),
        "most frequent class": DummyClassifier(strategy="prior").fit(x, y).predict_proba(x_test),
    }


def score_outputs(task: str, y: np.ndarray, outputs: np.ndarray) -> dict[str, float]:
    """Return scikit-learn's metrics of a model on the test rows.

    Args:
        task: `"classification"` or `"regression"`.
        y: class numbers or targets (n,).
        outputs: probabilities (n, classes), or of the second of two classes alone (n, 1); or
            targets (n, 1).

    Example:

    >>> scores = score_outputs("regression", np.array([1.0, 2.0]), np.array([[1.0], [2.5]]))
    >>> scores["mae"]
    0.25
    """
    from sklearn import metrics

    if task == "regression":
        predictions = outputs[:, 0]
        return {
            "r2": metrics.r2_score(y, predictions),
            "rmse": metrics.root_mean_squared_error(y, predictions),
            "mae": metrics.mean_absolute_error(y, predictions),
        }
    probabilities = class_probabilities(outputs)
    labels = np.arange(probabilities.shape[1])
    predictions = probabilities.argmax(axis=1)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "y_pred contains classes")  # of a test by time
        balanced = metrics.balanced_accuracy_score(y, predictions)
    auc = float("nan")  # of rows that lack a class
    if len(np.unique(y)) == len(labels):
        scores = probabilities[:, 1] if len(labels) == 2 else probabilities
        auc = metrics.roc_auc_score(y, scores, multi_class="ovr", labels=labels)
    return {
        "accuracy": metrics.accuracy_score(y, predictions),
        "balanced_accuracy": balanced,
        "log_loss": metrics.log_loss(y, probabilities, labels=labels),
        "roc_auc": auc,
    }
