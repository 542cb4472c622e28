"""The rows of a table kept for the test: their split, and the scores on them."""

from __future__ import annotations

import numpy as np

from kregs.tasks import class_probabilities

_SCORES_OF_CLASSES = ("accuracy", "balanced_accuracy", "log_loss", "roc_auc")
_SCORES_OF_NUMBERS = ("r2", "rmse", "mae")


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


def score_outputs(task: str, y: np.ndarray, outputs: np.ndarray) -> dict[str, float]:
    """Return scikit-learn's metrics of a model on the test rows, by name.

    Args:
        task: `"classification"` or `"regression"`.
        y: class numbers or targets (n,).
        outputs: probabilities (n, classes), or of the second of two classes alone (n, 1); or
            targets (n, 1).

    Returns:
        Numbers; `roc_auc` is NaN of rows that lack a class.

    Example:

    >>> scores = score_outputs("regression", np.array([1.0, 2.0]), np.array([[1.0], [2.5]]))
    >>> scores["mae"]
    0.25
    """
    from kregs.search.judging.scorer import make_scorer

    of_classes = task == "classification"
    predictions = class_probabilities(outputs) if of_classes else outputs
    names = _SCORES_OF_CLASSES if of_classes else _SCORES_OF_NUMBERS
    scores = {name: make_scorer(name).value(y, predictions) for name in names}
    if of_classes and len(np.unique(y)) < predictions.shape[1]:
        scores["roc_auc"] = float("nan")  # not the mean of the classes that are there
    return scores
