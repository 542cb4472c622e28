"""What a task asks of a network, and the probabilities that its outputs stand for."""

from __future__ import annotations

import numpy as np
import pytest

from kregs.tasks import class_probabilities, network_head


@pytest.mark.parametrize(
    ("classes", "outputs", "activation", "loss"),
    [
        (None, 1, None, "mse"),
        (2, 1, "sigmoid", "binary_crossentropy"),
        (3, 3, "softmax", "sparse_categorical_crossentropy"),
    ],
)
def test_heads(classes, outputs, activation, loss):
    head = network_head(classes)
    assert (head.outputs, head.head_activation, head.loss) == (outputs, activation, loss)
    assert network_head(None, targets=4).outputs == 4


def test_probabilities_are_one_a_class_and_sum_to_one():
    np.testing.assert_allclose(class_probabilities(np.array([[0.2]])), [[0.8, 0.2]])
    shares = class_probabilities(np.array([[0.2, 0.3, 0.5 + 1e-6]]))
    np.testing.assert_allclose(shares, [[0.2, 0.3, 0.5]], atol=1e-6)
    assert shares.sum() == pytest.approx(1.0, abs=1e-15)
