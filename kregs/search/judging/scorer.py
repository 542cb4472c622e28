"""scikit-learn's metrics of the predictions on validation rows, as what trials are judged by."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np

from kregs.validation import suggestion

Score = Callable[[Any, Any, Any], float]  # of targets, outputs and weights of rows


class _Metric(NamedTuple):
    """A metric of scikit-learn: its direction, and whether it is one of classes."""

    direction: str
    of_classes: bool
    value: Callable[[Any, np.ndarray, np.ndarray, np.ndarray | None], float]


def _of_labels(function: str, **options: Any) -> Callable[..., float]:
    """A metric of the classes that are predicted, the likeliest."""
    return lambda metrics, y, p, weight: getattr(metrics, function)(
        y, p.argmax(axis=1), sample_weight=weight, **options
    )


def _log_loss(metrics: Any, y: np.ndarray, p: np.ndarray, weight: np.ndarray | None) -> float:
    return metrics.log_loss(y, p, labels=np.arange(p.shape[1]), sample_weight=weight)


def _roc_auc(metrics: Any, y: np.ndarray, p: np.ndarray, weight: np.ndarray | None) -> float:
    classes = [1] if p.shape[1] == 2 else range(p.shape[1])
    # of a class that no row, or every row, is of, it is not defined
    judged = [c for c in classes if 0 < np.sum(y == c) < len(y)]
    scores = [metrics.roc_auc_score(y == c, p[:, c], sample_weight=weight) for c in judged]
    return float(np.mean(scores)) if scores else np.nan


def _of_numbers(function: str) -> Callable[..., float]:
    return lambda metrics, y, p, weight: getattr(metrics, function)(y, p, sample_weight=weight)


_METRICS = {
    "log_loss": _Metric("min", True, _log_loss),
    "accuracy": _Metric("max", True, _of_labels("accuracy_score")),
    "balanced_accuracy": _Metric("max", True, _of_labels("balanced_accuracy_score")),
    "roc_auc": _Metric("max", True, _roc_auc),
    "f1_macro": _Metric("max", True, _of_labels("f1_score", average="macro", zero_division=0.0)),
    "root_mean_squared_error": _Metric("min", False, _of_numbers("root_mean_squared_error")),
    "mean_absolute_error": _Metric("min", False, _of_numbers("mean_absolute_error")),
    "mean_squared_error": _Metric("min", False, _of_numbers("mean_squared_error")),
    "r2": _Metric("max", False, _of_numbers("r2_score")),
}
_SHORT = {
    "rmse": "root_mean_squared_error", "mae": "mean_absolute_error", "mse": "mean_squared_error",
    "roc_auc_ovr": "roc_auc",
}  # fmt: skip
# scikit-learn's scorers of losses are their negatives
SCORER_NAMES = {
    **{name: name for name in _METRICS},
    **_SHORT,
    **{f"neg_{name}": name for name, metric in _METRICS.items() if metric.direction == "min"},
}


@dataclasses.dataclass(frozen=True)
class Scorer:
    """A metric of scikit-learn by which predictions on validation rows are judged.

    Args:
        metric: its name, without the `neg_` of scikit-learn's scorers of losses.

    Example:

    >>> scorer = make_scorer("neg_log_loss")
    >>> scorer.metric, scorer.direction, scorer.logged
    ('log_loss', 'min', 'val_log_loss')
    >>> round(scorer.value([0, 1], np.array([[0.25], [0.5]])), 3)
    0.49
    """

    metric: str

    @property
    def direction(self) -> str:
        """Which values are better: `"min"` or `"max"`."""
        return _METRICS[self.metric].direction

    @property
    def of_classes(self) -> bool:
        """Whether it is one of classes; else of numbers."""
        return _METRICS[self.metric].of_classes

    @property
    def logged(self) -> str:
        """The name that it has in the logs of a training."""
        return f"val_{self.metric}"

    def value(
        self, y: Any, outputs: Any, weight: Any = None, *, from_logits: bool = False
    ) -> float:
        """Return the metric of what a network puts out; NaN where it is not defined.

        Args:
            y: class numbers (n,) or (n, 1), one-hot rows (n, classes), or numbers (n, ...).
            outputs: one probability a class (n, classes), or of the second of two (n, 1), or
                logits of these; or numbers in the shape of `y`.
            weight: of the rows (n,), or `None`.
            from_logits: whether the outputs are logits.
        """
        import sklearn
        from sklearn import metrics

        from kregs.inspection.probabilities import as_probabilities, class_labels

        outputs = np.asarray(outputs)
        if not np.isfinite(outputs).all():
            return float("nan")
        if self.of_classes:
            predicted = as_probabilities("outputs", outputs, from_logits=from_logits)
            target = class_labels(y, predicted.shape)
        else:
            predicted = outputs.reshape(len(outputs), -1)
            target = np.asarray(y).reshape(len(outputs), -1)
        # its checks of what is checked already take longer than the metric
        fast = sklearn.config_context(assume_finite=True, skip_parameter_validation=True)
        with fast, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # classes that a few rows lack
            return float(_METRICS[self.metric].value(metrics, target, predicted, weight))

    def of_model(self, model: keras.Model) -> Score:
        """Return the metric as a function of targets, a model's outputs and weights of the rows.

        Raises:
            ValueError: the model has several outputs, or its loss is of the other task.
        """
        from kregs.inspection.probabilities import is_multi_label, puts_out_logits
        from kregs.training.targets import (
            BINARY,
            CATEGORICAL,
            REGRESSION,
            SPARSE,
            compiled_loss,
        )

        if len(model.outputs or [None]) != 1:
            raise ValueError(
                f"`objective={self.metric!r}` needs a model with one output. "
                f"Received: {len(model.outputs)} outputs"
            )
        unfit = REGRESSION if self.of_classes else (*BINARY, *CATEGORICAL, *SPARSE)
        if isinstance(compiled_loss(model), unfit) or (self.of_classes and is_multi_label(model)):
            kind = "classes, one a row" if self.of_classes else "numbers"
            raise ValueError(
                f"`objective={self.metric!r}` is a metric of {kind}. "
                f"Received: a model with loss={model.loss!r} and outputs {model.output_shape}"
            )
        from_logits = self.of_classes and puts_out_logits(model, None)

        def score(y: Any, outputs: Any, weight: Any) -> float:
            return self.value(y, outputs, weight, from_logits=from_logits)

        return score


def make_scorer(name: str) -> Scorer:
    """Return the scorer of a name.

    Args:
        name: as of scikit-learn's scorers, with or without `neg_`; also `rmse`, `mae`, `mse`.

    Raises:
        ValueError: it is none of the names.

    Example:

    >>> make_scorer("neg_root_mean_squared_error") == make_scorer("rmse")
    True
    """
    if name not in SCORER_NAMES:
        raise ValueError(
            f"`metric` must be one of {', '.join([*_METRICS, *_SHORT])}. Received: {name!r}."
            f"{suggestion(name, SCORER_NAMES)}"
        )
    return Scorer(SCORER_NAMES[name])


def check_metric(metric: Any, *, of_classes: bool) -> Scorer | None:
    """Return the scorer of a `metric=`, or `None` for the loss; raise if it is unfit for the task.

    Args:
        metric: a name, or `None`.
        of_classes: whether the task is a classification.

    Example:

    >>> check_metric("r2", of_classes=True)
    Traceback (most recent call last):
        ...
    ValueError: `metric` must be one of a classification: log_loss, accuracy, balanced_accuracy, \
roc_auc, f1_macro. Received: 'r2'
    """
    if metric is None:
        return None
    if not isinstance(metric, str):
        raise TypeError(f"`metric` must be the name of a metric or None. Received: {metric!r}")
    scorer = make_scorer(metric)
    if scorer.of_classes != of_classes:
        task = "classification" if of_classes else "regression"
        fit = [name for name, known in _METRICS.items() if known.of_classes == of_classes]
        raise ValueError(
            f"`metric` must be one of a {task}: {', '.join(fit)}. Received: {metric!r}"
        )
    return scorer


class ScoreCallback(keras.callbacks.Callback):
    """Adds a metric of scikit-learn on validation rows to the logs of every epoch.

    Callbacks behind it in the list find it there, as `Scorer.logged` calls it.

    Args:
        scorer: what is computed.
        x, y, weight: the validation rows, the weights or `None`.
        batch_size: rows at a time.
        averages: callbacks whose averaged weights Keras validates by.

    Example:

    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> x = np.ones((4, 1))
    >>> callback = ScoreCallback(make_scorer("mae"), x, x, None)
    >>> sorted(model.fit(x, x, verbose=0, callbacks=[callback]).history)
    ['loss', 'val_mean_absolute_error']
    """

    def __init__(
        self,
        scorer: Scorer,
        x: Any,
        y: Any,
        weight: Any,
        *,
        batch_size: int | None = None,
        averages: Any = (),
    ) -> None:
        super().__init__()
        self._scorer, self._rows = scorer, (x, y, weight)
        self._batch_size, self._averages = batch_size, averages

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        for callback in self._averages:
            callback.on_test_begin()
        value = score_model(self._scorer, self.model, *self._rows, batch_size=self._batch_size)
        for callback in self._averages:
            callback.on_test_end()
        if logs is not None:
            logs[self._scorer.logged] = value


def score_model(
    scorer: Scorer,
    model: keras.Model,
    x: Any,
    y: Any,
    weight: Any = None,
    *,
    batch_size: int | None = None,
) -> float:
    """Return a scorer's value of a model's predictions.

    Args:
        scorer: what is computed.
        model: compiled, with one output.
        x, y, weight: arrays of rows; the weights or `None`.
        batch_size: rows at a time.

    Example:

    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> score_model(make_scorer("mae"), model, np.zeros((4, 1)), np.ones(4))
    1.0
    """
    predict = {"verbose": 0} | ({} if batch_size is None else {"batch_size": batch_size})
    outputs = model.predict(x, **predict)
    return scorer.of_model(model)(keras.tree.flatten(y)[0], outputs, weight)
