"""What `KregsClassifier` and `KregsRegressor` share: parameters, training, outputs."""

from __future__ import annotations

import dataclasses
import inspect
import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from kregs.builders import mlp
from kregs.estimators.checks import checked_rows
from kregs.estimators.fitting import (
    ScaledRows,
    Training,
    fit_folds,
    fit_network,
    held_out_outputs,
)
from kregs.estimators.parameters import (
    FIELDS,
    PRESET,
    REGULARIZATION,
    changeable,
    checked_fields,
    given_or,
)
from kregs.estimators.scaling import robust_scaling, standard_scaling, with_scaling
from kregs.inspection.calibration import with_temperature
from kregs.inspection.ensemble import ensemble
from kregs.layers import quantile_edges
from kregs.presets import TablePreset, batch_rows, bin_count, epochs_of, for_table
from kregs.regularization import Regularization
from kregs.search.folds import Split, make_splits, shuffled_split
from kregs.search.judging.scorer import check_metric
from kregs.search.randomness import preserved_state
from kregs.search.settings import default_patience
from kregs.tables.final import calibrated
from kregs.tables.preprocessing import number_and_code_columns
from kregs.tasks import NetworkHead
from kregs.training import compile_model
from kregs.validation import check_choice, check_integer, check_number, check_seed, suggestion

_BLOCK = 512  # rows per call in prediction
_FOLDS, _FOLDED_ROWS = 5, 2000  # with few rows, one network's held-out rows choose badly
_VALIDATION_FRACTION = 0.1


# a dataclass, so that a parameter is written once: scikit-learn reads them from the signature
@dataclasses.dataclass(eq=False, repr=False)
class KregsEstimator(BaseEstimator):
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
    folds: Any = "auto"
    validation_fraction: float | None = None
    n_iter_no_change: int | None = None
    random_state: Any = None
    verbose: int = 0
    network: Callable[..., keras.Model] | str = PRESET

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters by name.

        Args:
            deep: with the fields of `regularization`, as `regularization__l2`; `None` where the
                preset's own value stays.

        Example:

        >>> import kregs
        >>> kregs.KregsClassifier(regularization=Regularization(l2=0.1)).get_params()[
        ...     "regularization__l2"
        ... ]
        0.1
        """
        parameters = super().get_params(deep=deep)
        value = changeable(self.regularization, self.network)
        if deep and isinstance(value, Regularization):
            fields = value.get_config()
        elif deep and isinstance(value, Mapping):
            fields = dict.fromkeys(FIELDS) | dict(value)
        else:
            fields = {}
        return parameters | {f"{REGULARIZATION}{name}": fields[name] for name in fields}

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

        >>> import kregs
        >>> kregs.KregsClassifier().set_params(regularization__l2=1e-3).regularization
        {'l2': 0.001}
        >>> given = kregs.KregsClassifier(regularization=Regularization(dropout=0.1))
        >>> given.set_params(regularization__l2=1e-3).regularization
        Regularization(l2=0.001, dropout=0.1)
        """
        fields = {
            name.removeprefix(REGULARIZATION): params.pop(name)
            for name in list(params)
            if name.startswith(REGULARIZATION)
        }
        if not fields:
            return super().set_params(**params)
        given = params.get("regularization", self.regularization)
        value = changeable(given, params.get("network", self.network))
        for name in fields:
            if name not in FIELDS:  # a ValueError, as of scikit-learn's own estimators
                raise ValueError(
                    f"Invalid parameter {REGULARIZATION + name!r} for estimator {self}."
                    f"{suggestion(name, FIELDS)} Valid fields are: {', '.join(FIELDS)}"
                )
        if isinstance(value, Mapping):
            params["regularization"] = checked_fields({**value, **fields}) or None
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
            x: float64 (n, features), not scaled.
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
        seed = self._drawn_seed()
        if weights is not None:
            weights = weights / weights.mean()  # so that λ means the same under any scale

        with preserved_state():
            keras.utils.set_random_seed(seed)  # a splitter without a seed of its own has it, too
            splits = self._splits(y, head, seed, stratify=stratify)
            seen = splits[0].train if len(splits) == 1 else np.arange(len(y))
            training = self._training(
                head,
                x.shape[1],
                max(len(split.train) for split in splits),
                one_of_many=len(splits) > 1,
            )
            seen_weights = None if weights is None else weights[seen]
            number_columns, _ = self._columns(x.shape[1])
            if self._is_of_preset(head):
                columns = robust_scaling(x[seen], columns=number_columns)
            else:
                columns = standard_scaling(x[seen], seen_weights, columns=number_columns)
            units = standard_scaling(y[seen], seen_weights) if standardize_targets else None
            rows = ScaledRows(
                columns.transform(x),
                y if units is None else units.transform(y),
                None if weights is None else weights.astype("float32"),
            )
            common: dict[str, Any] = {"seed": seed, "verbose": self.verbose}
            if len(splits) == 1:
                fitted = fit_network(training, rows, splits[0], scorer, **common)
            else:
                stops = self.early_stopping
                fitted = fit_folds(training, rows, splits, scorer, stops=stops, **common)
            if self.early_stopping and scorer is not None:
                for history, split in zip(fitted.histories, splits, strict=True):
                    self._check_judged(history[scorer.logged], len(split.validation))
            networks = fitted.networks
            network = networks[0] if len(networks) == 1 else ensemble(networks)
            if calibrate:
                judged, outputs = held_out_outputs(networks, rows, splits)
                self.calibration_ = calibrated(
                    outputs, y[judged], None if weights is None else weights[judged]
                )
                network = with_temperature(network, self.calibration_["temperature"])
            self.model_ = with_scaling(network, columns, units)
        histories = [
            {name: [float(v) for v in values] for name, values in history.items()}
            for history in fitted.histories
        ]
        self.history_ = histories[0] if len(splits) == 1 else histories
        self.n_iter_ = max(len(history["loss"]) for history in histories)

    def _drawn_seed(self) -> int:
        """Return a number of `random_state`, or raise if that is none; `None`: NumPy's next."""
        if isinstance(self.random_state, numbers.Number):
            check_seed("random_state", self.random_state)
        elif not isinstance(self.random_state, (np.random.RandomState, type(None))):
            raise ValueError(
                "`random_state` must be None, an integer or a numpy.random.RandomState. "
                f"Received: random_state={self.random_state!r}"
            )
        return int(check_random_state(self.random_state).randint(2**31 - 1))

    def _check_judged(self, values: list[float], rows: int) -> None:
        """Raise if the metric was no number in any epoch: early stopping would keep the first."""
        if not np.isfinite(values).any():
            raise ValueError(
                f"`metric` was never a number on the {rows} rows that are held out, such as where "
                "they lack a class: raise `validation_fraction`, or take fewer `folds`. "
                f"Received: metric={self.metric!r}"
            )

    def _training(
        self, head: NetworkHead, columns: int, rows: int, *, one_of_many: bool
    ) -> Training:
        """Return how the network is built and trained, of so many columns and rows to train on."""
        is_model = isinstance(self.network, keras.Model)
        if self.network != PRESET and (is_model or not callable(self.network)):
            raise TypeError(
                "`network` must be a function that builds a model, such as kregs.mlp, or 'preset'. "
                f"Received: network={self.network!r}"
            )
        if self._is_of_preset(head):
            return self._preset_training(self._preset(one_of_many), columns, rows)
        return self._built_training(mlp if self.network == PRESET else self.network, head)

    def _is_of_preset(self, head: NetworkHead) -> bool:
        """Whether the network is a preset, which has one target a row."""
        one_target = head.head_activation is not None or head.outputs == 1
        return self.network == PRESET and one_target

    def _built_training(self, build_network: Any, head: NetworkHead) -> Training:
        """Return the training of a network that a function builds."""
        epochs = check_integer("epochs", given_or(self.epochs, 100), minimum=1)
        learning_rate = given_or(self.learning_rate, 1e-3)
        optimizer = given_or(self.optimizer, "adam")
        if not isinstance(optimizer, str):
            raise TypeError(
                "`optimizer` must be a Keras optimizer's name: every fit needs a fresh one. "
                f"Received: optimizer={optimizer!r}"
            )
        regularization: Any = self.regularization
        if isinstance(regularization, Mapping):
            regularization = Regularization(**checked_fields(regularization))

        options = {
            "units": given_or(self.units, (64,)),
            "activation": given_or(self.activation, "relu"),
            "regularization": regularization,
            "head_activation": head.head_activation,
        }
        _check_takes(build_network, options)

        def build(x: np.ndarray, rows: int, seed: int) -> keras.Model:
            network = build_network(x.shape[1:], head.outputs, **options, seed=seed)
            return compile_model(
                network,
                head.loss,
                optimizer=optimizer,
                learning_rate=learning_rate,
                weight_decay=self.weight_decay,
                regularization=regularization,
            )

        return Training(
            build=build,
            learning_rate=learning_rate,
            epochs=epochs,
            batch_size=check_integer("batch_size", given_or(self.batch_size, 32), minimum=1),
            patience=check_integer(
                "n_iter_no_change", given_or(self.n_iter_no_change, 10), minimum=1
            ),
        )

    def _preset_training(self, preset: TablePreset, columns: int, most_rows: int) -> Training:
        """Return the training of a preset with what was given.

        Args:
            most_rows: that any network is trained on: all have batches and bins of that many.
        """
        epochs = check_integer(
            "epochs", given_or(self.epochs, epochs_of(preset, most_rows)), minimum=1
        )
        patience = given_or(self.n_iter_no_change, default_patience(epochs))
        batch_size = check_integer(
            "batch_size", given_or(self.batch_size, batch_rows(most_rows)), minimum=1
        )
        number_columns, cardinalities = self._columns(columns)

        def build(x: np.ndarray, rows: int, seed: int) -> keras.Model:
            edges = None
            if preset.embedding == "piecewise" and number_columns:
                edges = quantile_edges(x[:, :number_columns], bin_count(most_rows))
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

        return Training(
            build=build,
            learning_rate=preset.learning_rate,
            epochs=epochs,
            batch_size=batch_size,
            patience=check_integer("n_iter_no_change", patience, minimum=1),
        )

    def _preset(self, one_of_many: bool) -> TablePreset:
        """Return the preset of the task, with the parameters that were given in their places."""
        if self.optimizer is not None:
            raise ValueError(
                "`optimizer` is no part of a preset, which AdamW trains: expected None, or with it "
                "a network that takes it, such as network=kregs.mlp. "
                f"Received: optimizer={self.optimizer!r}, network='preset'"
            )
        preset = for_table(self._classes, searched=one_of_many)
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
            fields = checked_fields(value)
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

    def _splits(
        self, y: np.ndarray, head: NetworkHead, seed: int, *, stratify: bool
    ) -> list[Split]:
        """Return the rows that each network is trained on and stopped by."""
        folds = self._folds(y, head, stratify=stratify)
        if folds is None:
            return [self._split(y, seed, stratify=stratify)]
        labels = self.classes_[y] if stratify else None
        return make_splits(folds, y, labels=labels, seed=seed)[0]

    def _folds(self, y: np.ndarray, head: NetworkHead, *, stratify: bool) -> Any:
        """Return how many folds there are, or what makes them; `None`: one network."""
        if not isinstance(self.folds, str):
            if self.folds is not None and self.validation_fraction is not None:
                raise ValueError(
                    "`validation_fraction` is of one network, and with `folds` each leaves a fold "
                    f"out: give one of them. Received: folds={self.folds!r}, "
                    f"validation_fraction={self.validation_fraction!r}"
                )
            return self.folds
        if self.folds != "auto":
            raise ValueError(
                "`folds` must be 'auto', None, an integer >= 2, a scikit-learn splitter or a list "
                f"of pairs of row numbers. Received: folds={self.folds!r}"
            )
        fewest = np.bincount(y).min() if stratify else len(y)
        suits = (
            self._is_of_preset(head)
            and self.early_stopping
            and self.validation_fraction is None
            and len(y) <= _FOLDED_ROWS
            and fewest >= _FOLDS
            # a population cannot follow a schedule beside a scaled loss
            and keras.config.dtype_policy().compute_dtype != "float16"
        )
        return _FOLDS if suits else None

    def _split(self, y: np.ndarray, seed: int, *, stratify: bool) -> Split:
        """Return the rows to train on and those to stop by; none of the latter if not asked for."""
        all_rows = np.arange(len(y))
        if not self.early_stopping:
            return Split(all_rows, all_rows[:0])
        fraction = check_number(
            "validation_fraction",
            given_or(self.validation_fraction, _VALIDATION_FRACTION),
            above=0.0,
            below=1.0,
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
        train, validation, _ = shuffled_split(
            len(y), validation_rows, labels=y if stratify else None, seed=seed
        )
        return Split(train, validation)

    def _outputs(self, X: Any) -> np.ndarray:
        """Return the model's outputs (n, outputs) in float64.

        Every call gets a block of the same shape, so that what comes out for a row does not depend
        on how many rows are asked for: the order of a matrix product's sums depends on its shape.
        """
        check_is_fitted(self, "model_")
        x = checked_rows(self, X, reset=False)
        padded = np.zeros((math.ceil(len(x) / _BLOCK) * _BLOCK, x.shape[1]))
        padded[: len(x)] = x
        blocks = [
            np.asarray(self.model_(padded[i : i + _BLOCK], training=False), dtype=np.float64)
            for i in range(0, len(padded), _BLOCK)
        ]
        return np.concatenate(blocks)[: len(x)]


def _check_takes(build_network: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """Raise `TypeError` unless a function takes what `network` is called with."""
    try:
        signature = inspect.signature(build_network)
    except ValueError:  # of some built-in callables
        return
    try:
        signature.bind((1,), 1, **options, seed=0)
    except TypeError as error:
        name = getattr(build_network, "__name__", repr(build_network))
        given = ", ".join(f"{option}=" for option in options)
        raise TypeError(
            f"`network` must take (input_shape, outputs, {given}, seed=), as kregs.mlp does. "
            f"Received: {name}, {error}"
        ) from None
