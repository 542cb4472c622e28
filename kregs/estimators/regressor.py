"""`KregsRegressor`: networks for numbers as a scikit-learn estimator."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from sklearn.base import RegressorMixin

from kregs.estimators.base import KregsEstimator
from kregs.estimators.checks import check_targets_are_numbers, checked_rows, row_weights
from kregs.tasks import network_head


@dataclasses.dataclass(eq=False, repr=False)
class KregsRegressor(RegressorMixin, KregsEstimator):
    """A network for numbers, as scikit-learn knows regressors: the preset for tables, or another.

    As `KregsClassifier`; the targets are standardized too while it is trained, by the rows that it
    is trained on, so that learning rate and λ do not depend on their units, and `model_` gives
    them in their own units. Presets are for one target a row: of several, `network="preset"` is
    `kregs.mlp`.

    Args:
        units, activation, regularization, optimizer, learning_rate, weight_decay, epochs,
            batch_size, early_stopping, folds, validation_fraction, n_iter_no_change, random_state,
            verbose, network: as in `KregsClassifier`.
        metric: as there: `"rmse"`, `"mae"`, `"mse"` or `"r2"`, of the standardized targets.

    Attributes:
        model_: the trained, uncompiled Keras model: raw columns (n, features) to targets
            (n, outputs).
        history_: what was logged, one number per epoch, as in `KregsClassifier`: mean squared
            errors of the standardized targets.
        n_iter_, n_features_in_, feature_names_in_, encoder_: as in `KregsClassifier`.

    Example:

    >>> from sklearn.datasets import load_diabetes
    >>> X, y = load_diabetes(return_X_y=True)
    >>> model = KregsRegressor((64,), epochs=10, batch_size=128, random_state=0).fit(X, y)
    >>> bool(model.score(X, y) > 0.4), model.predict(X[:2]).shape
    (True, (2,))
    """

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> KregsRegressor:
        """Train on rows and their targets.

        Args:
            X: (n, features), as for `KregsClassifier`.
            y: targets (n,) or (n, outputs), finite.
            sample_weight: weights (n,) >= 0; a row of weight 0 counts as absent.

        Returns:
            The estimator itself.

        Raises:
            TypeError, ValueError: the data or a parameter are wrong, or training diverges.
        """
        check_targets_are_numbers(y)
        x, y = checked_rows(self, X, y, y_numeric=True, multi_output=True)
        if not np.isfinite(y).all():  # of objects, scikit-learn looks before they are numbers
            raise ValueError("`y` must be finite. Received: NaN or infinity")
        weights = row_weights(sample_weight, x)
        if weights is not None:
            counted = weights > 0
            x, y, weights = x[counted], y[counted], weights[counted]
        columns = y.reshape(len(y), -1).astype(np.float64)
        self._one_axis = y.ndim == 1
        self._train(
            x,
            columns,
            weights,
            head=network_head(None, targets=columns.shape[1]),
            standardize_targets=True,
        )
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Return the predicted targets: (n,) or (n, outputs), as `y` was in `fit`."""
        outputs = self._outputs(X)
        return outputs[:, 0] if self._one_axis else outputs

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
