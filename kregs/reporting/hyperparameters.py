"""Which hyperparameters of a search varied, and which of them a reader looks for first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pandas as pd

# shown first where they were searched, in this order
PENALTIES = (
    "l2", "l1", "proximal_l1", "group_l1", "activity_l2", "activity_l1", "bias_l2", "bias_l1",
    "weight_decay",
)  # fmt: skip
RATES = (
    "dropout", "spatial_dropout", "input_dropout", "drop_path", "gaussian_noise", "label_smoothing",
)  # fmt: skip


def first_penalty(names: Sequence[str]) -> str | None:
    """Return the penalty coefficient that a reader looks for first, or `None`.

    Example:

    >>> first_penalty(["dropout", "conv_l2", "l1"]), first_penalty(["dropout"])
    ('conv_l2', None)
    >>> first_penalty(["encoder/l1"])
    'encoder/l1'
    """
    return _first(PENALTIES, names)


def first_rate(names: Sequence[str]) -> str | None:
    """Return the dropout or noise rate that a reader looks for first, or `None`."""
    return _first(RATES, names)


def _first(wanted: Sequence[str], names: Sequence[str]) -> str | None:
    """Return the first name that is a wanted one, or ends with it after a prefix."""
    return next(
        (
            name
            for word in wanted
            for name in names
            if name == word or name.endswith((f"_{word}", f"/{word}"))
        ),
        None,
    )


def varied(trials: pd.DataFrame, names: Iterable[str]) -> list[str]:
    """Return the hyperparameters that took several values, without switches of coefficients.

    Args:
        trials: one row a trial, one column a hyperparameter.
        names: the hyperparameters'; those that are no column are left out.

    Example:

    >>> trials = pd.DataFrame({"use_l2": [True, False], "l2": [0.1, 0.0], "l1": [0.1, 0.1]})
    >>> varied(trials, ["use_l2", "l2", "l1"])
    ['l2']
    """
    several = [name for name in names if name in trials and trials[name].nunique(dropna=False) > 1]
    return [name for name in several if not _is_switch(name, several, trials)]


def _is_switch(name: str, names: Sequence[str], trials: pd.DataFrame) -> bool:
    """Whether a column says no more than whether a coefficient is 0: `use_l2` beside `l2`."""
    prefix, separator, coefficient = name.rpartition("use_")
    if not separator or f"{prefix}{coefficient}" not in names:
        return False
    off = trials[name].eq(False) | trials[name].isna()
    value = trials[f"{prefix}{coefficient}"]
    return bool((off == (value.eq(0) | value.isna())).all())
