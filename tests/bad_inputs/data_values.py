"""Arrays that no model should be trained on, for whatever takes data."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from harness import Bad, Lazy

ROWS = 24


def spoilt(array: np.ndarray, value: Any, row: int = 5) -> np.ndarray:
    array = np.array(array, dtype=float)
    array[row] = value
    return array


def bad_data(kind: str) -> tuple[dict[str, Any], list[Any], list[Any]]:
    """Return good data with their loss and outputs, bad inputs, and bad targets.

    Args:
        kind: of the targets: `"classes"` (numbers 0, 1, 2), `"one-hot"`, or `"numbers"`.
    """
    x = np.random.default_rng(0).normal(size=(ROWS, 4)).astype("float32")
    numbers = np.arange(ROWS) % 3
    x_bad = [
        spoilt(x, np.nan), spoilt(x, np.inf), spoilt(x, -np.inf), spoilt(x, 1e39),
        x.astype(complex), x.astype(complex) + 1j, x.astype(object), x.astype("<U4"),
        x.astype(bytes), [*x.tolist()[:-1], [1.0]], [None] * ROWS, "x", b"x", 3, 3.5, None, True,
        {}, [], (), object(), x[:0], x[:, :0], np.float32(3), np.array(3.0), x[:-1], x[:1], x[0],
        x[:, :3], x[:, None], np.concatenate([x, x], axis=1), [x, x], {"a": x, "b": x},
        np.zeros((ROWS, 4), "datetime64[s]"), np.zeros(ROWS, [("a", "f4"), ("b", "f4")]),
        pd.DataFrame(spoilt(x, np.nan)), pd.DataFrame({"a": ["x"] * ROWS}), pd.DataFrame(),
        Lazy(lambda: iter(x)), Lazy(lambda: (row for row in x)), Lazy(lambda: map(list, x)),
        range(ROWS), set(range(ROWS)), type(x), np.ma.masked_array(x, x > 1),
    ]  # fmt: skip
    y_bad = [
        "y", b"y", 3, None, True, {}, [], (), object(), numbers[:0], numbers[:-1],
        np.array(1), np.array(["a"] * ROWS), np.array([None] * ROWS), numbers.astype(complex),
        np.zeros(ROWS, "timedelta64[s]"), [[0], [0, 1]] * (ROWS // 2), Lazy(lambda: iter(numbers)),
        np.zeros((ROWS, 2)), np.zeros((ROWS, 3, 2)), range(ROWS - 1), type(numbers),
        pd.Series(["a"] * ROWS), spoilt(numbers, np.nan), spoilt(numbers, np.inf),
        {"a": numbers, "b": numbers}, [numbers, numbers],
    ]  # fmt: skip
    if kind == "classes":
        y, loss, outputs = numbers, "sparse_categorical_crossentropy", 3
        y_bad += [
            spoilt(numbers, 3), spoilt(numbers, -1), spoilt(numbers, 0.5), numbers + 1,
            numbers * 1000, Bad(np.eye(3)[numbers], "`y`", "categorical_crossentropy"),
            Bad(np.ones(ROWS, int), "`y`", "class", "1"),
        ]  # fmt: skip
    elif kind == "one-hot":
        y, loss, outputs = np.eye(3)[numbers], "categorical_crossentropy", 3
        y_bad += [
            Bad(numbers, "`y`", "sparse"), np.eye(4)[numbers], 2 * np.eye(3)[numbers],
            -np.eye(3)[numbers], spoilt(np.eye(3)[numbers], np.nan),
            Bad(np.eye(3)[np.ones(ROWS, int)], "`y`", "class", "1"),
        ]  # fmt: skip
    else:
        y, loss, outputs = x.sum(1), "mse", 1
        y_bad += [
            spoilt(y, np.nan),
            np.zeros((ROWS, 3)),
            np.zeros((ROWS, 1, 1, 1)),
            spoilt(y, 1e39),
        ]
    return {"x": x, "y": y, "loss": loss, "outputs": outputs}, x_bad, y_bad
