"""How far below the range test's edge a learning rate does best in a longer training.

Command:  python tests/benchmarks/learning_rate_suggestion.py

For each data set and optimizer: the range test, then 40 epochs at the edge (the largest rate that
was still as good), at parts of it, and over a grid; each is judged by the validation loss of its
best epoch, relative to the best of them all.
"""

from __future__ import annotations

import keras
import numpy as np
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from sklearn.preprocessing import scale
from sklearn.utils import shuffle

import kregs

DIVISORS = (1, 2, 3, 5, 10, 20)
GRID = np.logspace(-4, 1, 16)
SETS = {
    "digits": (load_digits, 10, "sparse_categorical_crossentropy"),
    "breast_cancer": (load_breast_cancer, 2, "sparse_categorical_crossentropy"),
    "diabetes": (load_diabetes, 1, "mse"),
}


def measure(name: str, optimizer: str) -> tuple[float, dict[int, float]]:
    """Return the edge, and for each divisor the best validation loss over that of the best rate."""
    load, outputs, loss = SETS[name]
    x, y = shuffle(*load(return_X_y=True), random_state=1)
    x, y = scale(x[:900]).astype("float32"), y[:900]
    if outputs == 1:
        y = scale(y).astype("float32")

    def build(learning_rate: float | None = None) -> keras.Model:
        r = kregs.Regularization(dropout=0.2)
        head = "softmax" if outputs > 1 else "linear"
        model = kregs.mlp(
            x.shape[1:], outputs, units=(64, 64), head_activation=head, regularization=r, seed=3
        )
        return kregs.compile_model(model, loss, optimizer=optimizer, learning_rate=learning_rate)

    curve = kregs.learning_rate_curve(build, x, y, validation_split=0.3, seeds=2)
    edge = curve.interval[1]
    rates = [edge / divisor for divisor in DIVISORS] + GRID.tolist()
    population = kregs.Population.from_models([build(rate) for rate in rates])
    cut = round(len(x) * 0.7)
    histories = population.fit(
        x[:cut], y[:cut], validation_data=(x[cut:], y[cut:]), epochs=40, batch_size=32
    )
    losses = [np.nan_to_num(history["val_data_loss"], nan=np.inf).min() for history in histories]
    return edge, dict(zip(DIVISORS, np.divide(losses, min(losses)), strict=False))


def main() -> None:
    print("| data | optimizer | edge |", *(f"edge / {d} |" for d in DIVISORS))
    print("|---" * (3 + len(DIVISORS)) + "|")
    ratios = []
    for name in SETS:
        for optimizer in ("adam", "sgd"):
            edge, by_divisor = measure(name, optimizer)
            ratios.append(list(by_divisor.values()))
            cells = " | ".join(f"{ratio:.2f}" for ratio in ratios[-1])
            print(f"| {name} | {optimizer} | {edge:.2g} | {cells} |", flush=True)
    means = " | ".join(f"{ratio:.2f}" for ratio in np.exp(np.log(ratios).mean(axis=0)))
    print(f"| geometric mean | | | {means} |")


if __name__ == "__main__":
    main()
