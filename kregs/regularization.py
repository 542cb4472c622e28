"""`Regularization`: all that restrains one model, as one frozen value."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from kregs.validation import check_choice, check_names, check_number, suggestion

NORMALIZATIONS = (None, "batch", "layer", "group")

# what is applied after the builders, by `kregs.compile_model(regularization=...)`: in the optimizer
# to kernels, and in the loss
OPTIMIZER_FIELDS = ("proximal_l1", "group_l1", "weight_decay")
COMPILE_FIELDS = (*OPTIMIZER_FIELDS, "label_smoothing")
_COEFFICIENTS = (
    "l1", "l2", "bias_l1", "bias_l2", "activity_l1", "activity_l2", *OPTIMIZER_FIELDS,
)  # fmt: skip
_RATES = ("dropout", "input_dropout", "spatial_dropout", "drop_path", "label_smoothing")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Regularization:
    """Everything that restrains a model, as one immutable value.

    The default value restrains nothing. Builders turn the fields into stock Keras regularizers,
    constraints and layers; a field that is 0 or `None` adds nothing to the model.

    Args:
        l1: coefficient of the sum of absolute kernel weights (λ of the lasso), a penalty whose
            gradient is followed: weights become small, not zero. For zeros see `proximal_l1`.
        l2: coefficient of the sum of squared kernel weights (λ of ridge regression). As in Keras
            there is no factor 1/2.
        bias_l1, bias_l2: the same, of the biases.
        activity_l1, activity_l2: the same, of the outputs of hidden layers, divided by the batch
            size (Keras >= 3.14).
        proximal_l1: the same coefficient as `l1`, reached exactly by the optimizer's proximal step
            (`kregs.proximal`), which sets kernel weights to zero and is no part of the loss.
        group_l1: coefficient of the sum of the norms of the weights into each unit or filter, which
            become zero together (the group lasso), by the same step.
        weight_decay: decoupled weight decay, the `weight_decay` of Keras's optimizers: each step
            multiplies kernel weights by `1 - learning_rate * weight_decay`.
        label_smoothing: share of each label that is spread evenly over all classes, in the loss
            that is trained on; `data_loss` knows nothing of it.
        max_norm: upper bound of the norm of the weights into one unit or filter, or `None`.
        dropout: rate of dropout after hidden dense layers and before the dense head.
        input_dropout: rate of dropout on the input.
        spatial_dropout: rate at which whole feature maps are dropped in convolution blocks, and
            whole embedding channels in text models.
        gaussian_noise: standard deviation of the noise added to the input, in input units.
        drop_path: rate at which the deepest residual branch is dropped; shallower branches are
            dropped linearly less often (stochastic depth).
        normalization: `"batch"`, `"layer"`, `"group"` or `None`.

    `proximal_l1`, `group_l1` and `weight_decay` belong to the optimizer, `label_smoothing` to the
    loss. They have to be given to `kregs.compile_model(..., regularization=...)`, too: a built
    model refuses to be compiled without, and `compile_model` refuses models that contain it.
    Copies by `keras.models.clone_model`, `copy.deepcopy` or a file do not remember, nor does
    `compile` of a model around it.

    Raises:
        TypeError: a field is no number, or does not exist.
        ValueError: a coefficient is negative or not finite, a rate is outside [0, 1), or a
            normalization is unknown.

    Example:

    >>> from kregs import Regularization
    >>> r = Regularization(l2=1e-4, dropout=0.3, normalization="batch")
    >>> r.replace(dropout=0.5)
    Regularization(l2=0.0001, dropout=0.5, normalization='batch')
    >>> Regularization.from_config(r.get_config()) == r
    True

    References:
        Goodfellow, Bengio, Courville, "Deep Learning", 2016, chapter 7;
        Yuan, Lin, "Model Selection and Estimation in Regression with Grouped Variables", 2006
        (group_l1);
        Loshchilov, Hutter, "Decoupled Weight Decay Regularization", 2019 (weight_decay);
        Szegedy et al., "Rethinking the Inception Architecture", 2016 (label_smoothing);
        Srivastava et al., "Dropout", JMLR 15, 2014 (dropout, max-norm);
        Huang et al., "Deep Networks with Stochastic Depth", 2016 (drop_path).
    """

    l1: float = 0.0
    l2: float = 0.0
    bias_l1: float = 0.0
    bias_l2: float = 0.0
    activity_l1: float = 0.0
    activity_l2: float = 0.0
    proximal_l1: float = 0.0
    group_l1: float = 0.0
    weight_decay: float = 0.0
    label_smoothing: float = 0.0
    max_norm: float | None = None
    dropout: float = 0.0
    input_dropout: float = 0.0
    spatial_dropout: float = 0.0
    gaussian_noise: float = 0.0
    drop_path: float = 0.0
    normalization: str | None = None

    def __post_init__(self) -> None:
        for name in (*_COEFFICIENTS, "gaussian_noise"):
            self._set(name, check_number(name, getattr(self, name), minimum=0.0))
        for name in _RATES:
            self._set(name, check_number(name, getattr(self, name), minimum=0.0, below=1.0))
        if self.max_norm is not None:
            self._set("max_norm", check_number("max_norm", self.max_norm, above=0.0))
        check_choice("normalization", self.normalization, NORMALIZATIONS)

    def _set(self, name: str, value: float) -> None:
        object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        set_fields = ", ".join(f"{name}={value!r}" for name, value in self._changed().items())
        return f"{type(self).__name__}({set_fields})"

    def _changed(self) -> dict[str, Any]:
        return {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if getattr(self, field.name) != field.default
        }

    def replace(self, **changes: Any) -> Regularization:
        """Return a copy with some fields changed.

        Raises:
            TypeError, ValueError: as the class; an unknown field is a `TypeError`.

        Example:

        >>> Regularization(l2=1e-4).replace(dropout=0.5)
        Regularization(l2=0.0001, dropout=0.5)
        """
        check_names("Regularization", changes, self.get_config())
        return dataclasses.replace(self, **changes)

    def get_config(self) -> dict[str, Any]:
        """Return all fields as a dictionary that JSON can hold.

        Example:

        >>> Regularization(l2=1e-4).get_config()["l2"]
        0.0001
        """
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Regularization:
        """Rebuild the value from `get_config()`; missing fields keep their default.

        Raises:
            TypeError, ValueError: as the class.

        Example:

        >>> Regularization.from_config({"dropout": 0.3})
        Regularization(dropout=0.3)
        """
        if not isinstance(config, Mapping):
            raise TypeError(
                "`config` must be a dictionary of fields, as get_config() returns it. "
                f"Received: config={config!r}"
            )
        known = [field.name for field in dataclasses.fields(cls)]
        for name in config:
            if name not in known:
                raise TypeError(
                    f"`config` must hold fields of Regularization: {', '.join(known)}. "
                    f"Received: {name!r}.{suggestion(name, known)}"
                )
        return cls(**config)

    def unregularized(self) -> Regularization:
        """Return what restrains nothing but keeps the architecture: only the normalization stays.

        Example:

        >>> Regularization(l2=1e-4, dropout=0.3, normalization="batch").unregularized()
        Regularization(normalization='batch')
        """
        return Regularization(normalization=self.normalization)

    def without_penalties(self) -> Regularization:
        """Deprecated name of `unregularized`, which takes dropout and noise away too."""
        warnings.warn(
            "Regularization.without_penalties() is now called unregularized(); the old name goes "
            "with the next version",
            DeprecationWarning,
            stacklevel=2,
        )
        return self.unregularized()

    @classmethod
    def from_hp(
        cls,
        hp: Any,
        *,
        base: Regularization | None = None,
        prefix: str = "",
        **space: Any,
    ) -> Regularization:
        """Sample the named fields from a keras-tuner `HyperParameters`.

        Args:
            hp: the `HyperParameters` a build function receives.
            base: the value of the fields that are not named, and the default of those that are
                (what an oracle tries first). Default: `Regularization()`.
            prefix: put before each hyperparameter's name, to sample more than one value.
            **space: per field
                - `(low, high)`: a range. Coefficients (`l1`, `l2`, `weight_decay`, ...) and
                  `max_norm` are sampled on a log scale, so `low` must be above 0; rates,
                  `label_smoothing` and `gaussian_noise` linearly.
                - `(0, low, high)`, for coefficients: exactly 0, or log-uniform in `[low, high]`.
                  The yes or no is the hyperparameter `use_<field>`.
                - a list: one of these values.
                - a single value: fixed, not searched.

        Returns:
            A `Regularization`.

        Raises:
            TypeError: a field does not exist; the message names the nearest one.
            ValueError: a range is empty, inverted or outside what the field allows.

        Example:

        >>> import keras_tuner
        >>> hp = keras_tuner.HyperParameters()
        >>> Regularization.from_hp(
        ...     hp, l2=(0, 1e-6, 1e-1), dropout=(0.0, 0.6), normalization=["batch", None]
        ... )
        Regularization()
        >>> sorted(hp.values)
        ['dropout', 'normalization', 'use_l2']
        """
        base = cls() if base is None else base
        if not isinstance(base, Regularization):
            raise TypeError(f"`base` must be a Regularization or None. Received: base={base!r}")
        if isinstance(hp, type) or not hasattr(hp, "conditional_scope"):
            raise TypeError(
                "`hp` must be the keras_tuner.HyperParameters that a build function receives. "
                f"Received: hp={hp!r}"
            )
        if not isinstance(prefix, str):
            raise TypeError(f"`prefix` must be a string. Received: prefix={prefix!r}")
        check_names("Regularization", space, base.get_config())
        sampled = {
            name: _sample(hp, name, spec, getattr(base, name), prefix)
            for name, spec in space.items()
        }
        return base.replace(**sampled)


def _sample(hp: Any, name: str, spec: Any, default: Any, prefix: str) -> Any:
    """Sample one field of a `Regularization` from `hp`, as `from_hp` describes."""
    if isinstance(spec, list):
        return _sample_choice(hp, name, spec, default, prefix)
    if not isinstance(spec, tuple):
        return spec
    if name == "normalization":
        raise ValueError(
            "`normalization` is no range: expected a list such as ['batch', None]. "
            f"Received: normalization={spec!r}"
        )
    logarithmic = name in _COEFFICIENTS or name == "max_norm"
    if len(spec) == 3 and spec[0] == 0 and name in _COEFFICIENTS:
        low, high = _check_range(name, spec[1:], logarithmic)
        use_name = f"{prefix}use_{name}"
        is_used = hp.Boolean(use_name, default=default > 0)
        # declared even where it is off, or the tuner would not know it from the start
        with hp.conditional_scope(use_name, [True]):
            value = _sample_float(hp, prefix + name, low, high, default, logarithmic)
        return value if is_used else 0.0
    if len(spec) != 2:
        raise ValueError(
            f"`{name}` must be a range (low, high), (0, low, high) for coefficients only, a list "
            f"of values, or one value. Received: {name}={spec!r}"
        )
    low, high = _check_range(name, spec, logarithmic)
    return _sample_float(hp, prefix + name, low, high, default, logarithmic)


def _check_range(name: str, bounds: Sequence[Any], logarithmic: bool) -> tuple[float, float]:
    below = 1.0 if name in _RATES else None
    if logarithmic and bounds[0] == 0:
        remedy = f"; to allow exactly 0, pass (0, low, {bounds[1]!r})" if name != "max_norm" else ""
        raise ValueError(
            f"`{name}` is sampled on a log scale, which cannot reach 0: expected (low, high) with "
            f"low > 0{remedy}. Received: {name}={tuple(bounds)!r}"
        )
    low = check_number(f"{name}[low]", bounds[0], minimum=0.0, below=below)
    high = check_number(f"{name}[high]", bounds[1], minimum=0.0, below=below)
    if low >= high:
        raise ValueError(f"`{name}` must be a range with low < high. Received: {name}={bounds!r}")
    return low, high


def _sample_float(
    hp: Any, name: str, low: float, high: float, default: float | None, logarithmic: bool
) -> float:
    if default is None or not low <= default <= high:
        default = low
    sampling = "log" if logarithmic else "linear"
    return hp.Float(name, low, high, sampling=sampling, default=default)


def _sample_choice(hp: Any, name: str, values: list, default: Any, prefix: str) -> Any:
    if not values:
        raise ValueError(f"`{name}` must be a list of at least one value. Received: {name}=[]")
    for value in values:
        Regularization(**{name: value})  # raises what a direct use of the value would raise
    # keras-tuner's Choice holds no None and no mixed types: it chooses among the values' words
    words = {"none" if value is None else str(value): value for value in values}
    if len(words) < len(values):
        raise ValueError(
            f"`{name}` must be a list of different values. Received: {name}={values!r}"
        )
    default_word = next((w for w, v in words.items() if v == default), next(iter(words)))
    if all(isinstance(v, (int, float)) for v in values):
        return hp.Choice(
            prefix + name,
            [float(v) for v in values],
            default=float(words[default_word]),
        )
    return words[hp.Choice(prefix + name, list(words), default=default_word)]
