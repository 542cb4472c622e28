"""Vanilla dropout (scaled at test) and inverted dropout (scaled in training) are the same.

Source: Srivastava et al., "Dropout", JMLR 15, 2014, section 4 (vanilla) and section 10 (inverted:
    "Another way to achieve the same effect is to scale up the retained activations").
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras
import numpy as np
import pandas as pd

from kregs.demos.measuring import (
    Difference,
    Finding,
    Scale,
    Verdict,
    chosen,
    compile_classifier,
    digits,
    means,
    paired,
    train,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INVERTED = "inverted"
MATCHED = "vanilla, matched"
UNMATCHED = "vanilla, not matched"
_RATE = 0.4
_KEPT = 1 - _RATE
_LEARNING_RATE = 0.1


def build(scale: float, factor: float, learning_rate: float, seed: int) -> keras.Model:
    """Return a network with dropout before every layer.

    Args:
        scale: what follows Keras's inverted dropout: 1 leaves it as it is, the kept share makes it
            vanilla: unscaled in training, and scaled by the kept share at test.
        factor: of the first weights.
        learning_rate: of SGD.
        seed: of the weights.
    """
    # in float32 rounding alone drives two trainings apart
    double = {"dtype": "float64"}
    layers: list[keras.layers.Layer] = [keras.Input((64,), dtype="float64")]
    for number, (units, activation) in enumerate(((128, "relu"), (10, "softmax"))):
        initializer = keras.initializers.HeNormal(100 * seed + number)
        layers += [
            keras.layers.Dropout(_RATE, **double),
            keras.layers.Rescaling(scale, **double),
            # without bias: every weight stands behind a dropout
            keras.layers.Dense(
                units, activation, use_bias=False, kernel_initializer=initializer, **double
            ),
        ]
    model = keras.Sequential(layers)
    model.set_weights([factor * weights for weights in model.get_weights()])
    optimizer = keras.optimizers.SGD(learning_rate)
    return compile_classifier(model, optimizer=optimizer)


def measure(scale: Scale) -> pd.DataFrame:
    split = digits(scale, train=400)
    rate = _LEARNING_RATE
    kinds = {
        1.0: {INVERTED: (1.0, rate)},
        _KEPT: {MATCHED: (1 / _KEPT, rate / _KEPT**2), UNMATCHED: (1.0, rate)},
    }
    frames, outputs = [], []
    for rescaling, settings in kinds.items():
        trained = train(
            build,
            [
                {"scale": rescaling, "factor": factor, "learning_rate": learning_rate}
                for factor, learning_rate in settings.values()
            ],
            split.train,
            seeds=scale.seeds(5),
            names=[{"dropout": name} for name in settings],
            epochs=scale.epochs(60),
        )
        frames.append(trained.tested(split.test))
        outputs.append(trained.population.predict(split.test[0], batch_size=256))
    runs = pd.concat(frames, ignore_index=True)
    inverted, vanilla = outputs
    against = np.concatenate([inverted] * 3)
    apart = np.abs(np.concatenate([inverted, vanilla]) - against).max(axis=(1, 2))
    return runs.assign(largest_difference=apart)


def tabulate(runs: pd.DataFrame) -> pd.DataFrame:
    return means(runs, ["dropout"], ["largest_difference", "test_loss", "test_accuracy"])


def judge(runs: pd.DataFrame) -> Verdict:
    matched = chosen(runs, dropout=MATCHED)["largest_difference"].max()
    unmatched = chosen(runs, dropout=UNMATCHED)
    loss = Difference.of(paired(unmatched, chosen(runs, dropout=INVERTED), "test_loss"))
    return Verdict(
        [
            Finding(
                "with first weights divided by the kept share p and the learning rate by p², "
                "vanilla dropout becomes the same network",
                bool(matched < 1e-3),
                f"after training no probability differs by more than {matched:.1e}",
            ),
            Finding(
                "with the same weights and rate it is as good",
                not (loss.above or loss.below),
                f"test loss higher by {loss}",
            ),
        ]
    )


def draw(runs: pd.DataFrame) -> Figure:
    from kregs.reporting.figures.measured import finish, panels, points_with_errors

    figure, (left, right) = panels(2, height=2.6)
    points_with_errors(left, runs, "test_loss", "dropout", xlabel="test loss")
    vanilla = runs[runs["dropout"] != INVERTED]
    label = "largest difference of outputs"
    points_with_errors(right, vanilla, "largest_difference", "dropout", xlabel=label)
    right.set_xscale("log")
    return finish(figure, "Inverted and vanilla dropout, trained by SGD (dots are seeds)")
