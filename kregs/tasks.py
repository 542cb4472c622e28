"""What a task asks of a network: output units, head activation, loss and metrics."""

from __future__ import annotations

import dataclasses

import numpy as np

TASKS = ("classification", "regression")


@dataclasses.dataclass(frozen=True)
class NetworkHead:
    """The end of a network for one task, and what it is trained and measured by.

    Args:
        outputs: units of the output layer.
        head_activation: its activation, as in `kregs.mlp`.
        loss: as in `kregs.compile_model`.
        metrics: names of Keras metrics.

    Example:

    >>> NetworkHead(1, None, "mse", ("mae",)).outputs
    1
    """

    outputs: int
    head_activation: str | None
    loss: str
    metrics: tuple[str, ...]


def network_head(classes: int | None, *, targets: int = 1) -> NetworkHead:
    """Return the head for a number of classes, or for a regression.

    Two classes take one sigmoid unit, the probability of the second; more take a softmax over
    class numbers.

    Args:
        classes: how many there are; `None` for a regression.
        targets: numbers that a regression predicts for a row.

    Example:

    >>> network_head(2).head_activation, network_head(3).head_activation
    ('sigmoid', 'softmax')
    >>> network_head(None, targets=3).outputs
    3
    """
    if classes is None:
        return NetworkHead(targets, None, "mse", ("mae",))
    if classes == 2:
        return NetworkHead(1, "sigmoid", "binary_crossentropy", ("accuracy",))
    return NetworkHead(classes, "softmax", "sparse_categorical_crossentropy", ("accuracy",))


def class_probabilities(outputs: np.ndarray) -> np.ndarray:
    """Return one probability a class (n, classes), from what such a head puts out (n, units).

    Example:

    >>> class_probabilities(np.array([[0.25]])).tolist()
    [[0.75, 0.25]]
    """
    if outputs.shape[1] == 1:
        return np.hstack([1 - outputs, outputs])
    return outputs / outputs.sum(axis=1, keepdims=True)
