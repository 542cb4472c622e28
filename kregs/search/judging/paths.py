"""What the strength of regularization does: validation curves along λ, and maps over two numbers.

glmnet's `cv.glmnet` and scikit-learn's `validation_curve` for networks: all points, folds and seeds
are members of one population.
"""

from __future__ import annotations

import inspect
import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import pandas as pd

from kregs.files import atomic_path
from kregs.search.failures import NothingCompleted
from kregs.search.judging.restraint import check_restraint, compare_restraints
from kregs.search.result import SearchResult
from kregs.search.space import scale_of
from kregs.search.tuning import tune
from kregs.validation import check_number, suggestion

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# arguments of `tune` that are not the caller's
_SET_HERE = {
    "build", "x", "y", "folds", "seeds", "epochs", "oracle", "keep", "directory", "project_name",
    "resume",
}  # fmt: skip


class RegularizationPath:
    """Validation curve of one hyperparameter. Made by `regularization_path`.

    Attributes:
        name: the hyperparameter's.
        frame: one row a value, in increasing order: the value under its name, `train` and
            `validation` (means of the objective over folds and seeds), `standard_error` (of the
            latter), `norm` (root of the sum of squares of all kernels) and `nonzero` (share of
            kernel weights above 1e-4 in size), means over the same folds and seeds, `epoch`.
        best: the value with the best validation score; glmnet's `lambda.min`.
        one_standard_error: of the values whose score is within one standard error of the best, the
            most restrained one; glmnet's `lambda.1se`. It is the largest, or the smallest where the
            built models are restrained by that (`max_norm`, `units`), and `best` where neither end
            is restrained more (a learning rate).
        result: the `SearchResult` behind it.
    """

    def __init__(
        self,
        name: str,
        frame: pd.DataFrame,
        result: SearchResult,
        restraint: Sequence[str] | None = None,
    ) -> None:
        self.name = name
        self.frame = frame
        self.result = result
        values, sign = frame[name].to_numpy(float), result.protocol.sign
        scores = sign * frame["validation"].to_numpy(float)
        best = int(np.argmin(scores))
        error = float(frame["standard_error"].fillna(0.0).iloc[best])
        # glmnet's rule: the error of the best score, not that of the difference
        close = values[scores <= scores[best] + error]
        self.best = self.one_standard_error = float(values[best])
        end = _restraining_end(name, frame, result, restraint)
        if end is not None:
            self.one_standard_error = float(close.max() if end > 0 else close.min())

    def __repr__(self) -> str:
        return (
            f"<RegularizationPath: {len(self.frame)} values of {self.name}, best {self.best:.3g}, "
            f"one standard error {self.one_standard_error:.3g}>"
        )

    def plot(self, path: str | os.PathLike[str] | None = None) -> Figure:
        """Return the curves with error bars, and below them norm and non-zero weights.

        Args:
            path: also write the figure there (`.png`, `.pdf`, `.svg`).
        """
        from kregs.reporting.figures import path_figure

        figure = path_figure(
            self.frame,
            self.name,
            objective=self.result.objective,
            best=self.best,
            one_standard_error=self.one_standard_error,
        )
        return _written(figure, path)


class ValidationMap:
    """Validation scores over two hyperparameters. Made by `validation_map`.

    Attributes:
        names: the two hyperparameters'.
        frame: one row a point: both values, `train`, `validation`, `standard_error`, `epoch`.
        best: the point with the best validation score, by name.
        result: the `SearchResult` behind it.
    """

    def __init__(self, names: Sequence[str], frame: pd.DataFrame, result: SearchResult) -> None:
        self.names = tuple(names)
        self.frame = frame
        self.result = result
        self.best = {name: result.best_hyperparameters[name] for name in names}

    def __repr__(self) -> str:
        names = " and ".join(self.names)
        return f"<ValidationMap: {len(self.frame)} points of {names}, best {self.best}>"

    def table(self) -> pd.DataFrame:
        """Return the validation scores as a table: first hyperparameter down, second across."""
        return self.frame.pivot(index=self.names[0], columns=self.names[1], values="validation")

    def plot(self, path: str | os.PathLike[str] | None = None) -> Figure:
        """Return the map; `path` also writes it there (`.png`, `.pdf`, `.svg`)."""
        from kregs.reporting.figures import search_map

        figure = search_map(
            self.result.trials(),
            {name: scale_of(self.frame[name]) for name in self.names},
            objective=self.result.objective,
            direction=self.result.direction,
        )
        return _written(figure, path)


def regularization_path(
    build: Callable[..., keras.Model],
    x: Any,
    y: Any,
    *,
    folds: Any = 5,
    seeds: int = 1,
    epochs: int = 100,
    directory: str | os.PathLike[str] | None = None,
    search: Mapping[str, Any] | None = None,
    **values: Sequence[float],
) -> RegularizationPath:
    """Cross-validate a model along one hyperparameter, such as λ.

    Args:
        build: called with the hyperparameter by its name; returns a compiled model.
        x, y: arrays, rows first.
        folds, seeds, epochs: as in `kregs.tune`.
        directory: keep the search there, to go on with it after an interruption. Default: a
            temporary folder.
        search: further arguments of `kregs.tune`, such as `batch_size` or `score_at`. `restraint`,
            `["my_lambda"]` or `["-my_bound"]`, says which end restrains more where the built models
            do not show it (a regularizer or layer of your own).
        **values: the hyperparameter's name and its values, e.g. `l2=np.logspace(-6, 0, 40)`.

    Returns:
        A `RegularizationPath`: curves, λ.min, λ.1se, norms; `plot()`.

    Raises:
        TypeError, ValueError: there is not exactly one hyperparameter, or a value is no finite
            number >= 0; and what `kregs.tune` raises.

    Example:

    >>> import kregs, numpy as np
    >>> def build(l2):
    ...     model = kregs.linear((2,), 1, regularization=kregs.Regularization(l2=l2))
    ...     return kregs.compile_model(model, "mse", learning_rate=0.1)
    >>> x = np.random.default_rng(0).normal(size=(60, 2)).astype("float32")
    >>> path = kregs.regularization_path(build, x, x.sum(1), folds=3, epochs=5, l2=[0.0, 0.1, 10.0])
    >>> path.best, len(path.frame)
    (0.0, 3)

    References:
        Friedman, Hastie, Tibshirani, "Regularization paths for generalized linear models via
        coordinate descent", Journal of Statistical Software 33, 2010.
    """
    search = _search_settings(search)
    restraint = check_restraint(search.pop("restraint", None))
    if restraint is not None and set(restraint) - {name for v in values for name in (v, f"-{v}")}:
        raise ValueError(
            f"`restraint` of a path must be its hyperparameter, or that with - before it. "
            f"Received: {list(restraint)}"
        )
    result = _search(build, x, y, 1, values, folds, seeds, epochs, directory, search)
    (name,) = values
    frame = _frame(result, [name])
    for column in ("norm", "nonzero"):
        frame[column] = [_kernels(result, int(trial), column) for trial in frame["trial"]]
    frame = frame.sort_values(name, ignore_index=True)
    return RegularizationPath(name, frame, result, restraint)


def validation_map(
    build: Callable[..., keras.Model],
    x: Any,
    y: Any,
    *,
    folds: Any = 5,
    seeds: int = 1,
    epochs: int = 100,
    directory: str | os.PathLike[str] | None = None,
    search: Mapping[str, Any] | None = None,
    **values: Sequence[float],
) -> ValidationMap:
    """Cross-validate a model over two hyperparameters at once, such as λ and the dropout rate.

    Args:
        build: called with both hyperparameters by their names; returns a compiled model.
        x, y, folds, seeds, epochs, directory, search: see `regularization_path`.
        **values: two names with their values, e.g. `l2=[0, 1e-4, 1e-2], dropout=[0, 0.25, 0.5]`.

    Returns:
        A `ValidationMap`: `table()`, `plot()`, the best point.

    Raises:
        TypeError, ValueError: see `regularization_path`.
    """
    result = _search(build, x, y, 2, values, folds, seeds, epochs, directory, search)
    return ValidationMap(list(values), _frame(result, list(values)), result)


def _search(
    build: Callable[..., keras.Model],
    x: Any,
    y: Any,
    count: int,
    values: Mapping[str, Sequence[float]],
    folds: Any,
    seeds: int,
    epochs: int,
    directory: str | os.PathLike[str] | None,
    search: Mapping[str, Any] | None,
) -> SearchResult:
    if len(values) != count:
        names = ", ".join(values) or "none"
        raise TypeError(
            f"give the values of {count} hyperparameter{'s' if count > 1 else ''} by name, e.g. "
            f"l2=np.logspace(-6, 0, 40). Received: {names}"
        )
    if isinstance(build, type) or not callable(build):
        raise TypeError(
            "`build` must be a function of the hyperparameter, by its name, that returns a "
            f"compiled model. Received: build={build!r}"
        )
    try:
        inspect.signature(build).bind(**values)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"`build` must take {', '.join(values)} by name: {error}. Received: build={build!r}"
        ) from None
    if folds is None:
        raise TypeError("`folds` must be a number or a scikit-learn splitter. Received: folds=None")
    search = _search_settings(search)
    lists = {name: _values(name, points) for name, points in values.items()}

    def hypermodel(hp: Any) -> keras.Model:
        return build(**{name: hp.Choice(name, points) for name, points in lists.items()})

    settings = {"verbose": 0, **search}
    folder = tempfile.mkdtemp(prefix="kregs-") if directory is None else directory
    result = tune(
        hypermodel,
        x,
        y,
        folds=folds,
        seeds=seeds,
        epochs=epochs,
        oracle="grid",
        directory=folder,
        project_name="path" if count == 1 else "map",
        resume=directory is not None,
        **settings,
    )
    if directory is None:
        weakref.finalize(result, shutil.rmtree, folder, ignore_errors=True)
    return result


def _values(name: str, values: Sequence[float]) -> list[float]:
    expected = f"`{name}` must be a list of at least 2 different numbers >= 0"
    iterable = isinstance(values, Iterable) and getattr(values, "ndim", 1) > 0
    if not iterable or isinstance(values, (str, bytes, Mapping, set)):
        raise TypeError(f"{expected}. Received: {name}={values!r}")
    points = [check_number(name, value, minimum=0.0) for value in values]
    if len(points) < 2 or len(set(points)) != len(points):
        raise ValueError(f"{expected}. Received: {name}={points}")
    return points


def _search_settings(search: Any) -> dict[str, Any]:
    """Return further arguments of `tune`, or raise for what is none or is set here."""
    if search is None:
        return {}
    if not isinstance(search, Mapping):
        raise TypeError(
            f"`search` must be a dictionary of arguments of kregs.tune. Received: search={search!r}"
        )
    known = inspect.signature(tune).parameters.keys() - _SET_HERE
    for word in search:
        if word not in known:
            raise TypeError(
                "`search` must hold further arguments of kregs.tune. "
                f"Received: {word!r}.{suggestion(word, known)}"
            )
    return dict(search)


def _frame(result: SearchResult, names: list[str]) -> pd.DataFrame:
    training = result.objective.removeprefix("val_")
    rows = []
    whole = {
        trial["trial"]
        for trial in result.record.trials
        if trial["score"] is not None and not result.record.lacks_runs(trial)
    }
    if not whole:
        raise NothingCompleted(
            "`max_time` must be longer: no point was trained in all of its folds. "
            f"Received: {len(result.record.trials)} points that were not"
        )
    for trial in result.trials().to_dict("records"):
        if trial["trial"] not in whole:
            continue
        scores, history = result.scores(trial["trial"]), result.history(trial["trial"])
        keys = [key for key in ("fold", "seed") if key in history]
        at = scores[[*keys, "epoch"]].merge(history, on=[*keys, "epoch"])
        rows.append(
            {name: trial[name] for name in names}
            | {
                "train": at[training].mean() if training in at else np.nan,
                "validation": trial["score"],
                "standard_error": trial.get("standard_error", np.nan),
                "epoch": trial["best_epoch"],
                "trial": trial["trial"],
            }
        )
    return pd.DataFrame(rows)


def _kernels(result: SearchResult, trial: int, name: str) -> float:
    """Return the mean over a trial's runs, which are the same for all trials; NaN if not known."""
    runs = result.kernels(trial)
    return float(runs[name].mean()) if len(runs) and runs[name].notna().all() else float("nan")


def _restraining_end(
    name: str, frame: pd.DataFrame, result: SearchResult, restraint: Sequence[str] | None
) -> int | None:
    """Return 1 if larger values restrain more, -1 if smaller ones do, `None` if neither."""
    if restraint is not None:
        return 1 if restraint[0] == name else -1
    smallest, largest = (result.restraints(int(frame["trial"].iloc[end])) for end in (0, -1))
    return compare_restraints(largest, smallest) or None


def _written(figure: Figure, path: str | os.PathLike[str] | None) -> Figure:
    if path is not None:
        with atomic_path(path) as temporary:
            figure.savefig(temporary)
    return figure
