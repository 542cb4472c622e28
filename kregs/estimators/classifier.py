"""`KregsClassifier`: networks for classes as a scikit-learn estimator."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets

from kregs.estimators.base import KregsEstimator
from kregs.estimators.checks import check_class_weight, checked_rows, row_weights
from kregs.tasks import class_probabilities, network_head
from kregs.validation import check_choice


@dataclasses.dataclass(eq=False, repr=False)
class KregsClassifier(ClassifierMixin, KregsEstimator):
    """A network for classes, as scikit-learn knows classifiers: the preset for tables, or another.

    It works in `cross_val_score`, `GridSearchCV` and pipelines, and can be cloned and pickled. The
    columns are scaled inside the model, by the rows that `fit` trains on (with `folds` all of
    them), so that nothing leaks from rows that it is scored on: for a preset by median and
    quartiles, wild numbers clipped, else by mean and standard deviation. Training stops early by
    the loss without penalties.

    A parameter that is `None` is the network's own: with `network="preset"` that of
    `kregs.presets.for_table`, with a function that builds a network the value in parentheses below.
    What is given takes its place.

    With an integer `random_state` the same call gives the same model, and no global state changes.

    Args:
        units: units of each hidden layer (a function's: `(64,)`).
        activation: of the hidden layers, as in `kregs.mlp` (`"relu"`).
        regularization: a `kregs.Regularization`, all that restrains the network (nothing); or a
            dict of some of its fields, which are changed in the network's own:
            `{"dropout": 0.3}`. The fields are parameters, too:
            `set_params(regularization__l2=1e-3)`, or `{"regularization__l2": [1e-4, 1e-2]}` as
            the grid of a `GridSearchCV`.
        optimizer: a Keras optimizer's name (`"adam"`); not with a preset, which AdamW trains.
        learning_rate: number > 0 or a Keras schedule (0.001). Of a preset a number is the highest
            of its schedule.
        weight_decay: as in `kregs.compile_model`.
        epochs: the most epochs (100).
        batch_size: rows per step (32).
        early_stopping: hold some rows out of training, stop when their loss no longer falls, and
            keep the best epoch's weights. `False`: train on all rows for all epochs, with `folds`
            on all but a fold.
        metric: what the best epoch is chosen by instead of the loss: `"log_loss"`, `"accuracy"`,
            `"balanced_accuracy"`, `"roc_auc"` (of several classes one against the rest) or
            `"f1_macro"`, computed by scikit-learn on the rows held out.
        folds: how many networks, each of which leaves a fold of the rows out and is stopped by it,
            or a scikit-learn splitter that makes the folds, or a list of pairs of row numbers;
            predictions are their mean. They are trained as one population. `None`: one network.
            `"auto"`: 5 with a preset on up to 2,000 rows, where the mean of several gains most,
            else one; one, too, where `validation_fraction` is given, `early_stopping` is off, a
            class has fewer rows or the global policy is `mixed_float16`.
        validation_fraction: the fraction of rows that one network holds out, in (0, 1), at least
            one row (0.1); stratified where every class has rows enough.
        n_iter_no_change: epochs without improvement before training stops (10; with a preset, as in
            `kregs.tune`, a fifth of the epochs and at least 5).
        class_weight: `None`, `"balanced"` (each class counts the same), or weights by label; as
            `sample_weight`, they count in training, in the loss of the rows held out, in `metric`
            and in the temperature.
        random_state: `None`, an integer >= 0 or a `numpy.random.RandomState`, of the weights, the
            dropout, the held-out rows and the order of batches.
        verbose: as in `keras.Model.fit`.
        network: `"preset"`: the network of `kregs.presets` for the task; or a function that builds
            the network, such as `kregs.mlp` and called as that is: with the shape of a row and the
            number of outputs, and `units`, `activation`, `regularization`, `head_activation`,
            `seed` by name.
        calibrate: scale the probabilities by the temperature that fits the rows held out best;
            needs `early_stopping`.

    Attributes:
        classes_: the labels, sorted.
        model_: the trained, uncompiled Keras model: raw columns (n, features) to probabilities,
            one per class, or for two classes that of the second alone. A saved preset needs
            `import kregs.layers` to be loaded.
        history_: what was logged, one number per epoch: `loss`, `data_loss` (without penalties),
            and with early stopping `val_loss`, `val_data_loss`; with `folds` a list of that, one a
            network.
        n_iter_: the epochs trained; of several networks the most.
        n_features_in_, feature_names_in_: as in scikit-learn.
        encoder_: the scikit-learn transformer that makes numbers of a DataFrame with words, before
            `model_`: codes, which a preset embeds, or columns of 0 and 1; `None` where all columns
            are numbers.
        calibration_: with `calibrate` the `temperature`, how many held-out `rows` it fits (one that
            is in several folds counts as often), and their `log_loss_before` and `log_loss_after`.

    Example:

    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> model = KregsClassifier(
    ...     (16,), learning_rate=0.05, epochs=15, batch_size=64, random_state=0
    ... ).fit(X, y)
    >>> bool(model.score(X, y) > 0.9), model.predict_proba(X[:2]).shape
    (True, (2, 3))
    """

    _: dataclasses.KW_ONLY
    class_weight: str | Mapping[Any, float] | None = None
    calibrate: bool = False

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> KregsClassifier:
        """Train on rows and their labels.

        Args:
            X: (n, features): an array of finite numbers; or a DataFrame, in which columns may hold
                words, categories or booleans, too, missing ones among them.
            y: labels (n,): numbers or strings, of at least two classes.
            sample_weight: weights (n,) >= 0; a row of weight 0 counts as absent.

        Returns:
            The estimator itself.

        Raises:
            TypeError, ValueError: the data or a parameter are wrong, or training diverges.
        """
        x, y = checked_rows(self, X, y)
        check_classification_targets(y)
        self.classes_, numbers = np.unique(y, return_inverse=True)
        weights = row_weights(sample_weight, x)
        if weights is not None:
            counted = weights > 0
            x, numbers, weights = x[counted], numbers[counted], weights[counted]
        present = np.unique(numbers)
        if len(present) < 2:
            raise ValueError(
                "`y` must hold at least two classes with a weight above 0. "
                f"Received: one class, {self.classes_[present].tolist()[0]!r}"
            )
        if self.class_weight is not None:
            check_class_weight(self.class_weight, self.classes_[present])
            by_class = np.ones(len(self.classes_))
            by_class[present] = compute_class_weight(
                self.class_weight, classes=self.classes_[present], y=self.classes_[numbers]
            )
            weights = by_class[numbers] * (1.0 if weights is None else weights)
            if not weights.any():
                raise ValueError(
                    "`class_weight` must leave a weight above 0. "
                    f"Received: class_weight={self.class_weight!r}"
                )
        calibrate = check_choice("calibrate", self.calibrate, (True, False))
        if calibrate and not self.early_stopping:
            raise ValueError(
                "`calibrate` needs rows that are held out: early_stopping=True. "
                f"Received: early_stopping={self.early_stopping!r}"
            )
        head = network_head(len(self.classes_))
        self._train(x, numbers, weights, head=head, stratify=True, calibrate=calibrate)
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probability of each class (n, classes), in the order of `classes_`."""
        return class_probabilities(self._outputs(X))

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable label of each row (n,)."""
        probabilities = self.predict_proba(X)
        return self.classes_[probabilities.argmax(axis=1)]
