"""The elastic net as a Keras model, next to scikit-learn's with the same penalties.

Command:  kregs run diabetes_elastic_net
Time:     14 s on 2 CPU cores
Result:   test data loss 0.4739 ± 0.0000, unregularized 0.6424 ± 0.0000 (5 seeds)
Data:     442 patients, bundled with scikit-learn; half are the test set. The 10 columns with their
          squares and products are 65, so that there is something to restrain
Search:   kregs tune diabetes_elastic_net

scikit-learn's `ElasticNet(alpha, l1_ratio)` minimizes, with n examples,

    sum(error^2) / (2 n) + alpha * l1_ratio * sum|w| + alpha * (1 - l1_ratio) / 2 * sum(w^2)

and Keras's mean squared error with an L1L2 penalty

    sum(error^2) / n + l1 * sum|w| + l2 * sum(w^2)

which is twice the former if l1 = 2 * alpha * l1_ratio and l2 = alpha * (1 - l1_ratio).
"""

from __future__ import annotations

import sys
from typing import Any

import keras
import numpy as np
from sklearn.datasets import load_diabetes
from sklearn.linear_model import ElasticNet
from sklearn.metrics import r2_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

import kregs

TUNED = kregs.Regularization(l1=0.1, l2=0.0039)
LEARNING_RATE = 0.02
EPOCHS = 300
BATCH_SIZE = 256  # all examples in one step


def load_data():
    """Return (x_train, y_train), (x_test, y_test): x (n, 65), y (n, 1), standardized."""
    x, y = load_diabetes(return_X_y=True)
    x_train, x_test, y_train, y_test = train_test_split(
        x, y[:, None], test_size=0.5, random_state=0
    )
    quadratic = make_pipeline(PolynomialFeatures(2, include_bias=False), StandardScaler())
    quadratic.fit(x_train)
    scaler = StandardScaler().fit(y_train)
    return tuple(
        (quadratic.transform(x).astype("float32"), scaler.transform(y).astype("float32"))
        for x, y in ((x_train, y_train), (x_test, y_test))
    )


def make_model(
    regularization: kregs.Regularization = TUNED,
    *,
    learning_rate: float = LEARNING_RATE,
    seed: int | None = None,
) -> keras.Model:
    model = kregs.linear((65,), 1, regularization=regularization, seed=seed)
    return kregs.compile_model(
        model,
        "mean_squared_error",
        # it must fall to 0: a penalty on |w| with a constant step leaves no weight at 0
        learning_rate=keras.optimizers.schedules.CosineDecay(learning_rate, EPOCHS),
    )


def sample(hp, regularization: kregs.Regularization | None = None) -> dict[str, Any]:
    """Return arguments of `make_model`, sampled; a regularization, too, unless one is given."""
    return {
        "regularization": regularization
        or kregs.Regularization.from_hp(hp, base=TUNED, l1=(0, 1e-3, 1.0), l2=(0, 1e-3, 1.0))
    }


def build(hp) -> keras.Model:
    return make_model(**sample(hp))


def main(*, quick: bool = False, seed: int = 0) -> dict[str, float]:
    """Train the tuned model; print its test scores and coefficients beside scikit-learn's."""
    (x_train, y_train), (x_test, y_test) = load_data()
    model = make_model(seed=seed)
    history = model.fit(
        x_train, y_train, batch_size=BATCH_SIZE, epochs=20 if quick else EPOCHS, verbose=0
    )
    scores = model.evaluate(x_test, y_test, verbose=0, return_dict=True)
    scores["r2"] = r2_score(y_test, model.predict(x_test, verbose=0))
    print(f"kregs         test data loss {scores['data_loss']:.4f}, R2 {scores['r2']:.4f}")

    alpha = TUNED.l1 / 2 + TUNED.l2
    theirs = ElasticNet(alpha=alpha, l1_ratio=TUNED.l1 / 2 / alpha).fit(x_train, y_train[:, 0])
    error = y_test[:, 0] - theirs.predict(x_test)
    print(
        f"scikit-learn  test data loss {np.mean(error**2):.4f}, "
        f"R2 {theirs.score(x_test, y_test[:, 0]):.4f}"
    )
    ours = model.get_weights()[0][:, 0]
    scores["largest_difference"] = float(np.abs(ours - theirs.coef_).max())
    print(
        f"largest difference of a coefficient {scores['largest_difference']:.1e}, of coefficients "
        f"up to {np.abs(theirs.coef_).max():.2f}; scikit-learn sets {np.sum(theirs.coef_ == 0)} of "
        f"{theirs.coef_.size} to 0, here {np.sum(np.abs(ours) < 1e-3)} are below 0.001"
    )
    print(kregs.diagnose(history, held_out=scores["data_loss"]))
    return scores


if __name__ == "__main__":
    keras.utils.set_random_seed(0)
    main(quick="--quick" in sys.argv)
