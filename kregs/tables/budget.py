"""How much is trained for a table of so many rows, unless somebody says so: folds, seconds."""

from __future__ import annotations

# up to how many rows to train on, how many folds: the less luck is in one, the fewer are needed
_FOLDS = ((5_000, 5), (20_000, 3))
_FEWEST_FOLDS = 2


def fold_count(rows: int) -> int:
    """Return into how many folds some rows are divided.

    Example:

    >>> fold_count(800), fold_count(8_000), fold_count(40_000)
    (5, 3, 2)
    """
    return next((folds for most, folds in _FOLDS if rows <= most), _FEWEST_FOLDS)


def search_seconds(rows: int) -> float:
    """Return how long a search on some rows may take.

    Example:

    >>> search_seconds(500), search_seconds(2000), search_seconds(10**6)
    (20.0, 30.0, 300.0)
    """
    return min(max(20.0, 0.015 * rows), 300.0)
