"""What an epoch logs, as numbers alone; and TensorFlow's log without one of its warnings."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np


def numbers_of(logs: Mapping[str, Any]) -> dict[str, float]:
    """Return logs with a number for each part of what is an array, named by its place in it.

    Example:

    >>> numbers_of({"loss": 0.5, "f1": np.array([0.25, 1.0])})
    {'loss': 0.5, 'f1_0': 0.25, 'f1_1': 1.0}
    """
    numbers: dict[str, float] = {}
    for name, value in logs.items():
        array = np.asarray(value)
        for place in np.ndindex(array.shape):
            numbers["_".join([name, *map(str, place)])] = float(array[place])
    return numbers


@contextlib.contextmanager
def no_retracing_warning() -> Iterator[None]:
    """Drop TensorFlow's advice not to trace so often, where many models are trained in turn."""

    def is_other(record: logging.LogRecord) -> bool:
        return "triggered tf.function retracing" not in record.getMessage()

    logger = logging.getLogger("tensorflow")
    logger.addFilter(is_other)
    try:
        yield
    finally:
        logger.removeFilter(is_other)
