"""What demos share: real data, many models trained as one population, means, and verdicts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import keras
import numpy as np
import pandas as pd
from sklearn.datasets import load_diabetes, load_digits
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

import kregs
from kregs.reporting.tables import format_value

Value = TypeVar("Value")

_QUICK_ROWS = 40


@dataclasses.dataclass(frozen=True)
class Scale:
    """How much a demo trains: all, or next to nothing.

    Args:
        quick: next to nothing.
        seed: of the split, and the first of the runs' seeds.

    Example:

    >>> scale = Scale(quick=True, seed=5)
    >>> scale.epochs(40), list(scale.seeds(3)), scale.values([1, 2, 3])
    (1, [5, 6], [1, 3])
    """

    quick: bool
    seed: int

    def epochs(self, full: int) -> int:
        return 1 if self.quick else full

    def seeds(self, full: int) -> range:
        return range(self.seed, self.seed + (2 if self.quick else full))

    def values(self, full: Sequence[Value], *, quick: int = 2) -> list[Value]:
        """Return all values; of a quick one the first and the last, or the last alone."""
        return [full[0], full[-1]][-quick:] if self.quick else list(full)


@dataclasses.dataclass(frozen=True)
class Split:
    """Rows for training, for choosing and for the test, each `(x, y)` of float32 and targets."""

    train: tuple[np.ndarray, np.ndarray]
    validation: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]


def digits(scale: Scale, *, train: int, validation: int = 400) -> Split:
    """Return scikit-learn's digits, 64 pixels from 0 to 1, with classes equally frequent.

    Args:
        scale: its seed draws the split; quick ones have 40 rows a part.
        train, validation: rows; all others are for the test.
    """
    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype("float32")
    return _split(x, y, scale, train, validation, stratify=True)


def diabetes(scale: Scale, *, train: int, validation: int = 0) -> Split:
    """Return scikit-learn's diabetes: 10 columns and a target, all of mean 0 and deviation 1."""
    x, y = load_diabetes(return_X_y=True)
    split = _split(x, y[:, None], scale, train, validation, stratify=False)
    columns, target = (StandardScaler().fit(part) for part in split.train)
    parts = (split.train, split.validation, split.test)
    scaled = [
        (
            columns.transform(x_part).astype("float32") if len(x_part) else x_part,
            target.transform(y_part).astype("float32") if len(y_part) else y_part,
        )
        for x_part, y_part in parts
    ]
    return Split(*scaled)


def _split(
    x: np.ndarray, y: np.ndarray, scale: Scale, train: int, validation: int, *, stratify: bool
) -> Split:
    if scale.quick:
        train, validation = _QUICK_ROWS, min(validation, _QUICK_ROWS)
    kept = {"random_state": scale.seed, "shuffle": True}
    x_train, x_rest, y_train, y_rest = train_test_split(
        x, y, train_size=train, stratify=y if stratify else None, **kept
    )
    if scale.quick:
        x_rest, y_rest = x_rest[: 2 * _QUICK_ROWS], y_rest[: 2 * _QUICK_ROWS]
    return Split(
        (x_train, y_train),
        (x_rest[:validation], y_rest[:validation]),
        (x_rest[validation:], y_rest[validation:]),
    )


def digits_mlp(
    *,
    seed: int,
    units: Sequence[int] = (64,),
    optimizer: str | keras.optimizers.Optimizer = "adam",
    learning_rate: float | None = 2e-3,
    weight_decay: float | None = None,
    kernel_initializer: str = "auto",
    use_bias: bool | None = None,
    **fields: Any,
) -> keras.Model:
    """Return a compiled network for the digits.

    Args:
        seed: of the weights.
        units, kernel_initializer, use_bias: as in `kregs.mlp`.
        optimizer, learning_rate, weight_decay: as in `kregs.compile_model`.
        **fields: of `kregs.Regularization`.
    """
    model = kregs.mlp(
        (64,),
        10,
        units=units,
        kernel_initializer=kernel_initializer,
        use_bias=use_bias,
        regularization=kregs.Regularization(**fields),
        seed=seed,
    )
    return compile_classifier(
        model, optimizer=optimizer, learning_rate=learning_rate, weight_decay=weight_decay
    )


def compile_classifier(model: keras.Model, **options: Any) -> keras.Model:
    """Compile for integer classes, with the loss of the data and the accuracy as metrics."""
    return kregs.compile_model(
        model, "sparse_categorical_crossentropy", metrics=["accuracy"], **options
    )


@dataclasses.dataclass(frozen=True)
class Trained:
    """Models that were trained as one population.

    Args:
        runs: one row a model: its settings and its seed.
        population: the models, in the order of the rows.
    """

    runs: pd.DataFrame
    population: kregs.Population

    def history(self, metric: str) -> np.ndarray:
        """Return a metric of every run and epoch, `(runs, epochs)`; NaN after a run's end."""
        lists = [history[metric] for history in self.population.history]
        longest = max(map(len, lists))
        return np.array([[*values, *[np.nan] * (longest - len(values))] for values in lists])

    def tested(self, rows: tuple[np.ndarray, np.ndarray], **columns: Any) -> pd.DataFrame:
        """Return the runs with the loss (of the data) and the accuracy, if measured, on rows.

        Args:
            rows: `(x, y)`.
            **columns: further columns.
        """
        scores = self.population.evaluate(*rows, batch_size=256)
        measured = {"test_loss": scores["data_loss"]}
        if "accuracy" in scores:
            measured["test_accuracy"] = scores["accuracy"]
        return self.runs.assign(**measured, **columns)


def train(
    build: Callable[..., keras.Model],
    settings: Sequence[Mapping[str, Any]],
    rows: tuple[np.ndarray, np.ndarray],
    *,
    seeds: Sequence[int],
    names: Sequence[Mapping[str, Any]] | None = None,
    **options: Any,
) -> Trained:
    """Train a model for every setting and seed, all as one population.

    Models of one seed start from the same weights and see the same batches and noise.

    Args:
        build: takes a setting's keywords and `seed`, returns a compiled model.
        settings: keywords of `build`.
        rows: `(x, y)` to train on.
        seeds: of weights, batches and noise.
        names: the columns that describe each setting in `runs`; default: the settings.
        **options: of `Population.fit`.
    """
    pairs = [(k, seed) for k in range(len(settings)) for seed in seeds]
    population = kregs.Population.from_models(
        [build(**settings[k], seed=seed) for k, seed in pairs],
        seeds=[seed for _, seed in pairs],
    )
    population.fit(*rows, **options)
    described = settings if names is None else names
    runs = pd.DataFrame([{**described[k], "seed": seed} for k, seed in pairs])
    return Trained(runs=runs, population=population)


def full_batches(rows: tuple[np.ndarray, np.ndarray], steps: int) -> dict[str, Any]:
    """Return options of `fit` by which an epoch is so many steps of gradient descent on all rows.

    Args:
        rows: `(x, y)`.
        steps: of one epoch.
    """
    x, y = (np.tile(part, (steps, *[1] * (part.ndim - 1))) for part in rows)
    return {"rows": (x, y), "batch_size": len(rows[0]), "shuffle": False}


# ---- means ---------------------------------------------------------------------------------


def means(runs: pd.DataFrame, by: Sequence[str], columns: Sequence[str]) -> pd.DataFrame:
    """Return means over runs, with a column `c_error` of standard errors beside each.

    Args:
        runs: one row a run.
        by: columns whose values name a row of the table.
        columns: what is averaged.

    Example:

    >>> runs = pd.DataFrame({"rate": [0.1, 0.1, 0.5, 0.5], "loss": [1.0, 3.0, 5.0, 5.0]})
    >>> means(runs, ["rate"], ["loss"])
       rate  loss  loss_error
    0   0.1   2.0         1.0
    1   0.5   5.0         0.0
    """
    grouped = runs.groupby(list(by), sort=False)[list(columns)]
    centre, error = grouped.mean(), grouped.sem()
    table = pd.DataFrame(index=centre.index)
    for column in columns:
        table[column] = centre[column]
        table[f"{column}_error"] = error[column]
    return table.reset_index()


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table in which means and standard errors are one column of words.

    Example:

    >>> readable(pd.DataFrame({"rate": [0.1], "loss": [0.123456], "loss_error": [0.0123]}))
      rate            loss
    0  0.1  0.1235 ± 0.012
    """
    words = {}
    for column in table.columns:
        error = f"{column}_error"
        if error in table.columns:
            words[column.replace("_", " ")] = [
                with_error(mean, spread)
                for mean, spread in zip(table[column], table[error], strict=True)
            ]
        elif not column.endswith("_error"):
            words[column.replace("_", " ")] = [format_value(value) for value in table[column]]
    return pd.DataFrame(words)


def with_error(mean: float, error: float) -> str:
    """Return `mean ± error` in words; the mean alone where there is no error.

    Example:

    >>> with_error(0.123456, 0.0123), with_error(3.0, float("nan"))
    ('0.1235 ± 0.012', '3')
    """
    return f"{mean:.4g} ± {error:.2g}" if error > 0 else format_value(mean)


@dataclasses.dataclass(frozen=True)
class Difference:
    """A mean of differences between runs of the same seed, and its standard error.

    Example:

    >>> difference = Difference.of(pd.Series([-0.03, -0.02, -0.01]))
    >>> str(difference), difference.below, difference.above
    ('-0.02 ± 0.0058', True, False)
    """

    mean: float
    error: float

    @classmethod
    def of(cls, differences: pd.Series) -> Difference:
        """Return the mean of one difference a seed."""
        return cls(float(differences.mean()), float(differences.sem()))

    @property
    def below(self) -> bool:
        """Whether it lies below 0 by more than two standard errors."""
        return bool(self.mean + 2 * self.error < 0)

    @property
    def above(self) -> bool:
        """Whether it lies above 0 by more than two standard errors."""
        return bool(self.mean - 2 * self.error > 0)

    def __str__(self) -> str:
        return with_error(self.mean, self.error)


def paired(first: pd.DataFrame, second: pd.DataFrame, column: str) -> pd.Series:
    """Return `first` minus `second`, seed by seed.

    Args:
        first, second: runs, with a column `seed`.
        column: what is compared.

    Example:

    >>> runs = pd.DataFrame({"rate": [0, 0, 1, 1], "seed": [0, 1, 0, 1], "loss": [4., 5., 1., 4.]})
    >>> paired(chosen(runs, rate=1), chosen(runs, rate=0), "loss").tolist()
    [-3.0, -1.0]
    """
    sides = [runs.groupby("seed")[column].mean() for runs in (first, second)]
    return (sides[0] - sides[1]).dropna()


def chosen(runs: pd.DataFrame, **values: Any) -> pd.DataFrame:
    """Return the rows whose columns have these values."""
    for column, value in values.items():
        runs = runs[runs[column] == value]
    return runs


# ---- verdicts ------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that the claim says, whether it is so on these data, and by which numbers.

    Args:
        statement: what the claim says.
        holds: whether the numbers say so.
        numbers: the numbers, in words.
    """

    statement: str
    holds: bool
    numbers: str

    def __str__(self) -> str:
        statement = self.statement[0].upper() + self.statement[1:]
        return f"{statement}: {'yes' if self.holds else 'no'} ({self.numbers})"


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Whether a claim holds on the data of its demo.

    Args:
        findings: what the claim says, part by part.

    Example:

    >>> print(Verdict([Finding("A is below B", True, "0.1 < 0.2"), Finding("C", False, "0")]))
    Holds in part on these data. A is below B: yes (0.1 < 0.2). C: no (0).
    """

    findings: Sequence[Finding]

    @property
    def outcome(self) -> str:
        """`"holds"`, `"holds in part"` or `"does not hold"`."""
        held = [finding.holds for finding in self.findings]
        if all(held):
            return "holds"
        return "holds in part" if any(held) else "does not hold"

    def __str__(self) -> str:
        parts = " ".join(f"{finding}." for finding in self.findings)
        return f"{self.outcome.capitalize()} on these data. {parts}"
