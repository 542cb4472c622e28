"""`KregsClassifier` and `KregsRegressor`: the networks of tables as scikit-learn estimators."""

from __future__ import annotations

import dataclasses
import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_array, check_random_state, check_X_y
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from kregs.builders import mlp
from kregs.builders.layer_factory import chain
from kregs.inspection.calibration import with_temperature
from kregs.layers import quantile_edges
from kregs.presets import TablePreset, batch_rows, bin_count, epochs_of, for_table
from kregs.regularization import Regularization
from kregs.search.judging.scorer import ScoreCallback, check_metric
from kregs.search.randomness import preserved_state
from kregs.search.settings import default_patience
from kregs.tables.final import calibrated
from kregs.tables.frames import frame_encoder
from kregs.tables.preprocessing import number_and_code_columns
from kregs.tasks import NetworkHead, class_probabilities, network_head
from kregs.training import compile_model, early_stopping
from kregs.validation import (
    check_choice,
    check_integer,
    check_names,
    check_number,
    check_seed,
    suggestion,
)

_EAGER_STEPS = 20  # up to so many training steps, tracing a graph costs more than it saves
_REGULARIZATION = "regularization__"  # before a field's name, among the parameters
_FIELDS = tuple(Regularization().get_config())
_PRESET = "preset"
_BLOCK = 512  # rows per call in prediction


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Training:
    """How a network is built and trained: what was given, and the network's own values else.

    Args:
        build: returns the compiled network, of the rows that are trained on, standardized
            (n, columns), and a seed.
        learning_rate, epochs, batch_size: as the estimators have them.
        patience: epochs without improvement before training stops.
    """

    build: Callable[[np.ndarray, int], keras.Model]
    learning_rate: Any
    epochs: int
    batch_size: int
    patience: int


# a dataclass, so that a parameter is written once: scikit-learn reads them from the signature
@dataclasses.dataclass(eq=False, repr=False)
class _KregsEstimator(BaseEstimator):
    """What the classifier and the regressor share: the parameters, training, outputs."""

    units: Sequence[int] | None = None
    _: dataclasses.KW_ONLY
    activation: Any = None
    regularization: Regularization | Mapping[str, Any] | None = None
    optimizer: str | None = None
    learning_rate: Any = None
    weight_decay: float | None = None
    epochs: int | None = None
    batch_size: int | None = None
    early_stopping: bool = True
    metric: str | None = None
    validation_fraction: float = 0.1
    n_iter_no_change: int | None = None
    random_state: Any = None
    verbose: int = 0
    network: Callable[..., keras.Model] | str = _PRESET

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters by name.

        Args:
            deep: with the fields of `regularization`, as `regularization__l2`; `None` where the
                preset's own value stays.

        Example:

        >>> KregsClassifier(regularization=Regularization(l2=0.1)).get_params()[
        ...     "regularization__l2"
        ... ]
        0.1
        """
        parameters = super().get_params(deep=deep)
        value = _changeable(self.regularization, self.network)
        if deep and isinstance(value, Regularization):
            fields = value.get_config()
        elif deep and isinstance(value, Mapping):
            fields = dict.fromkeys(_FIELDS) | dict(value)
        else:
            fields = {}
        return parameters | {f"{_REGULARIZATION}{name}": fields[name] for name in fields}

    def set_params(self, **params: Any) -> Any:
        """Set parameters by name, and by `regularization__l2` and the like fields of that value.

        A `Regularization` is frozen: the estimator gets another with these fields changed, and
        whoever else holds the old one keeps it. Where none is given, the preset's is changed in
        these fields; `None` leaves a field as it is there.

        Returns:
            The estimator itself.

        Raises:
            TypeError, ValueError: there is no such parameter or field, or a field's value is wrong;
                no field is set then.

        Example:

        >>> KregsClassifier().set_params(regularization__l2=1e-3).regularization
        {'l2': 0.001}
        >>> given = KregsClassifier(regularization=Regularization(dropout=0.1))
        >>> given.set_params(regularization__l2=1e-3).regularization
        Regularization(l2=0.001, dropout=0.1)
        """
        fields = {
            name.removeprefix(_REGULARIZATION): params.pop(name)
            for name in list(params)
            if name.startswith(_REGULARIZATION)
        }
        if not fields:
            return super().set_params(**params)
        given = params.get("regularization", self.regularization)
        value = _changeable(given, params.get("network", self.network))
        for name in fields:
            if name not in _FIELDS:  # a ValueError, as of scikit-learn's own estimators
                raise ValueError(
                    f"Invalid parameter {_REGULARIZATION + name!r} for estimator {self}."
                    f"{suggestion(name, _FIELDS)} Valid fields are: {', '.join(_FIELDS)}"
                )
        if isinstance(value, Mapping):
            params["regularization"] = _checked_fields({**value, **fields}) or None
        elif isinstance(value, Regularization):
            changed = value.replace(**fields)
            if given is not None or changed != value:  # None stays where nothing restrains
                params["regularization"] = changed
        else:
            raise TypeError(
                "`regularization` must be a kregs.Regularization, a dict of its fields or None, "
                f"to have fields to set. Received: regularization={value!r}"
            )
        return super().set_params(**params)

    def _train(
        self,
        x: np.ndarray,
        y: np.ndarray,
        weights: np.ndarray | None,
        *,
        head: NetworkHead,
        stratify: bool = False,
        standardize_targets: bool = False,
        calibrate: bool = False,
    ) -> None:
        """Train on checked data and set `model_`, `history_` and `n_iter_`.

        Args:
            x: float64 (n, features), not standardized.
            y: class numbers, or targets (n, outputs).
            weights: of the rows, above 0, or `None`.
            head: the output layer and the loss.
            stratify: whether the validation rows keep the classes' shares, where they can.
            standardize_targets: whether the network learns the targets in standard deviations from
                their means, which are those of the rows that are trained on.
            calibrate: whether probabilities are scaled by the rows that are held out.
        """
        check_choice("early_stopping", self.early_stopping, (True, False))
        check_choice("verbose", self.verbose, ("auto", 0, 1, 2))
        scorer = check_metric(self.metric, of_classes=stratify)
        if isinstance(self.random_state, numbers.Number):
            check_seed("random_state", self.random_state)
        elif not isinstance(self.random_state, (np.random.RandomState, type(None))):
            raise ValueError(
                "`random_state` must be None, an integer or a numpy.random.RandomState. "
                f"Received: random_state={self.random_state!r}"
            )
        # drawn before the state is preserved: None takes the next number of NumPy's, as ever
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        if weights is not None:
            weights = weights / weights.mean()  # so that λ means the same under any scale

        train, validation = self._split(y, seed, stratify=stratify)
        training = self._training(head, x.shape[1], len(train))
        train_weights = None if weights is None else weights[train]
        mean, scale = _standardizer(x[train], train_weights)
        number_columns, _ = self._columns(x.shape[1])
        mean[number_columns:], scale[number_columns:] = 0.0, 1.0  # codes stay as they are
        standardized = ((x - mean) / scale).astype("float32")
        target_units = None
        targets = y
        if standardize_targets:
            target_units = _standardizer(y[train], train_weights)
            targets = ((y - target_units[0]) / target_units[1]).astype("float32")

        def rows(index: np.ndarray) -> tuple[np.ndarray, ...]:
            arrays = (standardized[index], targets[index])
            return arrays if weights is None else (*arrays, weights[index].astype("float32"))

        fit: dict[str, Any] = {
            "epochs": training.epochs,
            "batch_size": training.batch_size,
            "verbose": self.verbose,
        }
        if len(validation):
            held_out = rows(validation)
            stopping = [early_stopping("val_data_loss", patience=training.patience)]
            if scorer is not None:
                x_held, y_held, *weight = held_out
                stopping = [
                    ScoreCallback(scorer, x_held, y_held, weight[0] if weight else None),
                    early_stopping(
                        scorer.logged, mode=scorer.direction, patience=training.patience
                    ),
                ]
            fit |= {"validation_data": held_out, "callbacks": stopping}
        data = dict(zip(("x", "y", "sample_weight"), rows(train), strict=False))
        with preserved_state():
            keras.utils.set_random_seed(seed)
            network = training.build(standardized[train], seed)
            network.jit_compile = False  # XLA compiles for longer than such a network trains
            steps = training.epochs * math.ceil(len(train) / training.batch_size)
            network.run_eagerly = steps <= _EAGER_STEPS
            history = network.fit(**data, **fit).history
            if fit.get("callbacks") and scorer is not None:
                self._check_judged(history[scorer.logged], len(validation))
            if not all(np.isfinite(weight).all() for weight in network.get_weights()):
                raise ValueError(
                    "training diverged: weights are not finite. Try a smaller `learning_rate`. "
                    f"Received: learning_rate={training.learning_rate!r}"
                )
            # a Sequential would turn the columns into float32 before a layer sees them
            columns = keras.Input((x.shape[1],), dtype="float64", name="columns")
            if calibrate:
                network = self._calibrated(network, *rows(validation))
            flat = isinstance(network, keras.Sequential)
            inside = network.layers if flat else [network]
            layers = [_scaling(mean, scale, "standardize"), *inside]
            if target_units is not None:
                layers.append(_scaling(*target_units, "target_units", invert=True))
            self.model_ = keras.Model(columns, chain(columns, layers), name=network.name)
        self.history_ = {name: [float(v) for v in values] for name, values in history.items()}
        self.n_iter_ = len(history["loss"])

    def _check_judged(self, values: list[float], rows: int) -> None:
        """Raise if the metric was no number in any epoch: early stopping would keep the first."""
        if not np.isfinite(values).any():
            raise ValueError(
                f"`metric` was never a number on the {rows} rows that are held out, such as where "
                "they lack a class: raise `validation_fraction`. "
                f"Received: metric={self.metric!r}"
            )

    def _training(self, head: NetworkHead, columns: int, rows: int) -> _Training:
        """Return how the network is built and trained, of so many columns and rows to train on."""
        is_model = isinstance(self.network, keras.Model)
        if self.network != _PRESET and (is_model or not callable(self.network)):
            raise TypeError(
                "`network` must be a function that builds a model, such as kregs.mlp, or 'preset'. "
                f"Received: network={self.network!r}"
            )
        if self._is_of_preset(head):
            return self._preset_training(self._preset(), columns, rows)
        return self._built_training(mlp if self.network == _PRESET else self.network, head)

    def _is_of_preset(self, head: NetworkHead) -> bool:
        """Whether the network is a preset, which has one target a row."""
        one_target = head.head_activation is not None or head.outputs == 1
        return self.network == _PRESET and one_target

    def _built_training(self, build_network: Any, head: NetworkHead) -> _Training:
        """Return the training of a network that a function builds."""
        epochs = check_integer("epochs", _or(self.epochs, 100), minimum=1)
        learning_rate = _or(self.learning_rate, 1e-3)
        optimizer = _or(self.optimizer, "adam")
        if not isinstance(optimizer, str):
            raise TypeError(
                "`optimizer` must be a Keras optimizer's name: every fit needs a fresh one. "
                f"Received: optimizer={optimizer!r}"
            )
        regularization: Any = self.regularization
        if isinstance(regularization, Mapping):
            regularization = Regularization(**_checked_fields(regularization))

        def build(x: np.ndarray, seed: int) -> keras.Model:
            network = build_network(
                x.shape[1:],
                head.outputs,
                units=_or(self.units, (64,)),
                activation=_or(self.activation, "relu"),
                regularization=regularization,
                head_activation=head.head_activation,
                seed=seed,
            )
            return compile_model(
                network,
                head.loss,
                optimizer=optimizer,
                learning_rate=learning_rate,
                weight_decay=self.weight_decay,
                regularization=regularization,
            )

        return _Training(
            build=build,
            learning_rate=learning_rate,
            epochs=epochs,
            batch_size=check_integer("batch_size", _or(self.batch_size, 32), minimum=1),
            patience=check_integer("n_iter_no_change", _or(self.n_iter_no_change, 10), minimum=1),
        )

    def _preset_training(self, preset: TablePreset, columns: int, rows: int) -> _Training:
        """Return the training of a preset with what was given, of so many columns and rows."""
        epochs = check_integer("epochs", _or(self.epochs, epochs_of(preset, rows)), minimum=1)
        patience = _or(self.n_iter_no_change, default_patience(epochs))
        batch_size = check_integer("batch_size", _or(self.batch_size, batch_rows(rows)), minimum=1)
        number_columns, cardinalities = self._columns(columns)

        def build(x: np.ndarray, seed: int) -> keras.Model:
            edges = None
            if preset.embedding == "piecewise" and number_columns:
                edges = quantile_edges(x[:, :number_columns], bin_count(rows))
            return preset.build(
                number_columns,
                self._classes,
                rows=rows,
                categories=cardinalities,
                edges=edges,
                epochs=epochs,
                batch_size=batch_size,
                seed=seed,
            )

        return _Training(
            build=build,
            learning_rate=preset.learning_rate,
            epochs=epochs,
            batch_size=batch_size,
            patience=check_integer("n_iter_no_change", patience, minimum=1),
        )

    def _preset(self) -> TablePreset:
        """Return the preset of the task, with the parameters that were given in their places."""
        if self.optimizer is not None:
            raise ValueError(
                "`optimizer` is no part of a preset, which AdamW trains: expected None, or with it "
                "a network that takes it, such as network=kregs.mlp. "
                f"Received: optimizer={self.optimizer!r}, network='preset'"
            )
        preset = for_table(self._classes)
        changes: dict[str, Any] = {"regularization": self._preset_regularization(preset)}
        for name in ("units", "activation"):
            if getattr(self, name) is not None:
                changes[name] = getattr(self, name)
        if isinstance(self.learning_rate, keras.optimizers.schedules.LearningRateSchedule):
            changes |= {"learning_rate": self.learning_rate, "schedule": "constant"}
        elif self.learning_rate is not None:
            rate = check_number("learning_rate", self.learning_rate, above=0.0)
            changes["learning_rate"] = rate
        return preset.replace(**changes)

    def _preset_regularization(self, preset: TablePreset) -> Regularization:
        """Return the preset's regularization, changed as the parameters say."""
        value, decay = self.regularization, 0.0
        if value is None:
            value = preset.regularization
        elif isinstance(value, Mapping):
            fields = _checked_fields(value)
            value, decay = preset.regularization.replace(**fields), fields.get("weight_decay", 0.0)
        elif isinstance(value, Regularization):
            decay = value.weight_decay
        else:
            raise TypeError(
                "`regularization` must be a kregs.Regularization, a dict of its fields or None. "
                f"Received: regularization={value!r}"
            )
        if self.weight_decay is None:
            return value
        given = check_number("weight_decay", self.weight_decay, minimum=0.0)
        if decay not in (0.0, given):
            raise ValueError(
                f"`weight_decay` is set twice: in `regularization` ({decay:g}) and here. Give it "
                f"once. Received: weight_decay={given!r}"
            )
        return value.replace(weight_decay=given)

    @property
    def _classes(self) -> int | None:
        """How many classes there are; `None` for a regression."""
        classes = getattr(self, "classes_", None)
        return None if classes is None else len(classes)

    def _columns(self, columns: int) -> tuple[int, list[int]]:
        """Return how many columns hold numbers, and how many codes each column behind has."""
        if self.encoder_ is None or "codes" not in self.encoder_.named_transformers_:
            return columns, []
        return number_and_code_columns(self.encoder_)

    def _calibrated(
        self, network: keras.Model, x: np.ndarray, y: np.ndarray, weights: np.ndarray | None = None
    ) -> keras.Model:
        """Return a classifier with the temperature that fits rows it was not trained on best."""
        outputs = np.asarray(network(x, training=False), dtype=np.float64)
        self.calibration_ = calibrated(outputs, y, weights)
        return with_temperature(network, self.calibration_["temperature"])

    def _split(self, y: np.ndarray, seed: int, *, stratify: bool) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows to train on and those to stop by; none of the latter if not asked for."""
        all_rows = np.arange(len(y))
        if not self.early_stopping:
            return all_rows, all_rows[:0]
        fraction = check_number(
            "validation_fraction", self.validation_fraction, above=0.0, below=1.0
        )
        validation_rows = max(1, round(len(y) * fraction))
        if validation_rows >= len(y):
            raise ValueError(
                "early stopping needs rows to train on and rows to stop by: pass more rows or "
                "early_stopping=False. Received: 1 sample of which "
                f"{validation_rows} would be held out"
                if len(y) == 1
                else "`validation_fraction` must leave rows to train on. Received: "
                f"validation_fraction={fraction} of {len(y)} rows"
            )
        labels = None
        if stratify:
            sizes = np.bincount(y)
            sizes = sizes[sizes > 0]
            # scikit-learn refuses classes of one row, and fewer rows than classes on a side
            possible = sizes.min() > 1 and len(sizes) <= min(
                validation_rows, len(y) - validation_rows
            )
            labels = y if possible else None
        train, validation = train_test_split(
            all_rows, test_size=validation_rows, random_state=seed, stratify=labels
        )
        return train, validation

    def _outputs(self, X: Any) -> np.ndarray:
        """Return the model's outputs (n, outputs) in float64.

        Every call gets a block of the same shape, so that what comes out for a row does not depend
        on how many rows are asked for: the order of a matrix product's sums depends on its shape.
        """
        check_is_fitted(self, "model_")
        x = _checked_rows(self, X, reset=False)
        padded = np.zeros((math.ceil(len(x) / _BLOCK) * _BLOCK, x.shape[1]))
        padded[: len(x)] = x
        blocks = [
            np.asarray(self.model_(padded[i : i + _BLOCK], training=False), dtype=np.float64)
            for i in range(0, len(padded), _BLOCK)
        ]
        return np.concatenate(blocks)[: len(x)]


@dataclasses.dataclass(eq=False, repr=False)
class KregsClassifier(ClassifierMixin, _KregsEstimator):
    """A network for classes, as scikit-learn knows classifiers: the preset for tables, or another.

    It works in `cross_val_score`, `GridSearchCV` and pipelines, and can be cloned and pickled. The
    columns are standardized inside the model, by the rows that it is trained on: nothing leaks
    from a fold's validation rows. Training stops early by the loss without penalties.

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
            keep the best epoch's weights. `False`: train on all rows for all epochs.
        metric: what the best epoch is chosen by instead of the loss: `"log_loss"`, `"accuracy"`,
            `"balanced_accuracy"`, `"roc_auc"` (of several classes one against the rest) or
            `"f1_macro"`, computed by scikit-learn on the rows held out.
        validation_fraction: the fraction of rows held out, in (0, 1), at least one row;
            stratified where every class has rows enough.
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
            one per class, or for two classes that of the second alone.
        history_: what was logged, one number per epoch: `loss`, `data_loss` (without penalties),
            and with early stopping `val_loss`, `val_data_loss`.
        n_iter_: the epochs trained.
        n_features_in_, feature_names_in_: as in scikit-learn.
        encoder_: the scikit-learn transformer that makes numbers of a DataFrame with words, before
            `model_`: codes, which a preset embeds, or columns of 0 and 1; `None` where all columns
            are numbers.
        calibration_: with `calibrate` the `temperature`, how many `rows` it fits, and their
            `log_loss_before` and `log_loss_after`.

    Example:

    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> model = KregsClassifier(
    ...     (16,), learning_rate=0.05, epochs=5, batch_size=64, random_state=0
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
        x, y = _checked_rows(self, X, y)
        check_classification_targets(y)
        self.classes_, numbers = np.unique(y, return_inverse=True)
        weights = _row_weights(sample_weight, x)
        if weights is not None:
            counted = weights > 0
            x, numbers, weights = x[counted], numbers[counted], weights[counted]
        present = np.unique(numbers)
        if len(present) < 2:
            raise ValueError(
                "`y` must hold at least two classes with a weight above 0. "
                f"Received: one class, {self.classes_[present[0]]!r}"
            )
        if self.class_weight is not None:
            _check_class_weight(self.class_weight, self.classes_[present])
            by_class = np.ones(len(self.classes_))
            by_class[present] = compute_class_weight(
                self.class_weight, classes=self.classes_[present], y=self.classes_[numbers]
            )
            weights = by_class[numbers] * (1.0 if weights is None else weights)
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


@dataclasses.dataclass(eq=False, repr=False)
class KregsRegressor(RegressorMixin, _KregsEstimator):
    """A network for numbers, as scikit-learn knows regressors: the preset for tables, or another.

    As `KregsClassifier`; the targets are standardized too while it is trained, by the rows that it
    is trained on, so that learning rate and λ do not depend on their units, and `model_` gives
    them in their own units. Presets are for one target a row: of several, `network="preset"` is
    `kregs.mlp`.

    Args:
        units, activation, regularization, optimizer, learning_rate, weight_decay, epochs,
            batch_size, early_stopping, validation_fraction, n_iter_no_change, random_state,
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
        x, y = _checked_rows(self, X, y, y_numeric=True, multi_output=True)
        if not np.isfinite(y).all():  # of objects, scikit-learn looks before they are numbers
            raise ValueError("`y` must be finite. Received: NaN or infinity")
        weights = _row_weights(sample_weight, x)
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


def _checked_rows(estimator: BaseEstimator, *data: Any, **options: Any) -> Any:
    """Return what scikit-learn's `validate_data` makes of X, or of X and y, X in float64."""
    if len(data) > 1 and getattr(getattr(data[1], "dtype", None), "kind", "") == "c":
        raise ValueError("Complex data not supported: `y` must be real. Received: complex numbers")
    if getattr(data[-1], "ndim", 1) > 2 and len(data) > 1:
        raise ValueError(
            "`y` must have the shape (n,), or (n, outputs) of a regression. "
            f"Received: shape {data[-1].shape}"
        )
    if options.get("reset", True):
        several_targets = getattr(data[1], "ndim", 1) == 2 and data[1].shape[1] > 1
        codes = estimator.network == _PRESET and not several_targets
        estimator.encoder_ = frame_encoder(data[0], codes=codes)
    try:
        if estimator.encoder_ is None:
            return validate_data(estimator, *data, dtype=np.float64, **options)
        return _encoded_rows(estimator, *data, **options)
    except ValueError as error:
        if not str(error).startswith("could not convert"):
            raise
        raise ValueError(f"`X` must hold numbers. Received: {error}") from error


def _encoded_rows(estimator: Any, x: Any, *y: Any, reset: bool = True, **options: Any) -> Any:
    """Return what `validate_data` would of a frame with words, after its encoder."""
    if not hasattr(x, "columns"):
        raise ValueError(
            "`X` must be a DataFrame, as in `fit`: it has columns of words. "
            f"Received: {type(x).__name__}"
        )
    validate_data(estimator, x, reset=reset, skip_check_array=True)
    if reset:
        estimator.encoder_.fit(x)
    numbers = estimator.encoder_.transform(x)
    if not y:
        return check_array(numbers, dtype=np.float64, estimator=estimator)
    return check_X_y(numbers, *y, dtype=np.float64, estimator=estimator, **options)


def _or(given: Any, default: Any) -> Any:
    """Return a parameter, or where it is `None` the network's own value."""
    return default if given is None else given


def _changeable(regularization: Any, network: Any) -> Any:
    """Return what has the fields that parameters name: a value, or of a preset those changed."""
    if regularization is None:
        return {} if network == _PRESET else Regularization()
    return regularization


def _checked_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a regularization that are not `None`, or raise if one is wrong."""
    check_names("regularization", fields, _FIELDS)
    given = {name: value for name, value in fields.items() if value is not None}
    checked = Regularization(**given)
    return {name: getattr(checked, name) for name in given}


def _check_class_weight(class_weight: Any, classes: np.ndarray) -> None:
    expected = "`class_weight` must be None, 'balanced' or a dict of labels and weights"
    if isinstance(class_weight, str):
        if class_weight != "balanced":
            guess = suggestion(class_weight, ["balanced"])
            raise ValueError(f"{expected}. Received: {class_weight!r}.{guess}")
    elif not isinstance(class_weight, Mapping):
        raise TypeError(f"{expected}. Received: {class_weight!r}")
    else:
        for label, weight in class_weight.items():
            check_number(f"class_weight[{label!r}]", weight, minimum=0.0)


def _row_weights(sample_weight: Any, x: np.ndarray) -> np.ndarray | None:
    """Return the weights as float64, or raise if they are negative, or all 0."""
    if sample_weight is None:
        return None
    weights = _check_sample_weight(sample_weight, x, dtype=np.float64)
    if (weights < 0).any():
        raise ValueError(f"`sample_weight` must be >= 0. Received: {weights.min()}")
    if not weights.any():
        raise ValueError("`sample_weight` must have a weight above 0. Received: all weights zero")
    return weights


def _standardizer(columns: np.ndarray, weights: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Return each column's mean and standard deviation; the latter is 1 for a constant column."""
    scaler = StandardScaler().fit(columns, sample_weight=weights)
    return scaler.mean_, np.maximum(scaler.scale_, keras.backend.epsilon())


def _scaling(
    mean: np.ndarray, scale: np.ndarray, name: str, *, invert: bool = False
) -> keras.layers.Layer:
    """Return the layer that standardizes, or with `invert` goes back.

    It computes in float64, which keeps what is small beside a column's mean. Its numbers are
    weights since Keras rounds the arguments `mean` and `variance` to float32.
    """
    layer = keras.layers.Normalization(invert=invert, dtype="float64", name=name)
    layer.build((None, len(mean)))
    layer.set_weights([mean, np.square(scale), np.zeros(())])
    layer.finalize_state()
    return layer
