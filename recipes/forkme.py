"""The template: copy it, put in your data and your network, search, keep what was found.

Command:  kregs copy forkme my_model.py && python my_model.py
Time:     2 s on 2 CPU cores
Result:   test data loss 0.0561 ± 0.0143, unregularized 0.0869 ± 0.0457; accuracy 0.9865 ± 0.0094,
          unregularized 0.9775 ± 0.0079 (5 seeds)
Data:     178 wines of three growers, 13 numeric columns, bundled with scikit-learn; half of them
          are the test set
Search:   kregs tune my_model.py

1. load_data   your arrays; the test set is for the end, not for the search
2. make_model  your network: a kregs builder, or your own Keras model through kregs.regularize
3. sample      what is searched, and how far
4. PROTOCOL    how it is searched: arguments of kregs.tune
5. search      run it, then write what it prints into TUNED, LEARNING_RATE and EPOCHS
"""

from __future__ import annotations

import sys
from typing import Any

import keras
from sklearn.datasets import load_wine
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

import kregs

TUNED = kregs.Regularization(l2=0.0087, dropout=0.29)
LEARNING_RATE = 0.0074
EPOCHS = 32
BATCH_SIZE = 16
PROTOCOL = {"max_trials": 24, "epochs": 60, "batch_size": BATCH_SIZE, "folds": 5}


def load_data():
    """Return (x_train, y_train), (x_test, y_test): x standardized, y in 0..2."""
    x, y = load_wine(return_X_y=True)
    x_train, x_test, y_train, y_test = train_test_split(
        x, y, test_size=0.5, stratify=y, random_state=0
    )
    scaler = StandardScaler().fit(x_train)
    x_train, x_test = (scaler.transform(part).astype("float32") for part in (x_train, x_test))
    return (x_train, y_train), (x_test, y_test)


def make_model(
    regularization: kregs.Regularization = TUNED,
    *,
    learning_rate: float = LEARNING_RATE,
    seed: int | None = None,
) -> keras.Model:
    model = kregs.mlp((13,), 3, units=(32, 32), regularization=regularization, seed=seed)
    return kregs.compile_model(
        model, "sparse_categorical_crossentropy", learning_rate=learning_rate, metrics=["accuracy"]
    )


def sample(hp, regularization: kregs.Regularization | None = None) -> dict[str, Any]:
    """Return arguments of `make_model`, sampled; a regularization, too, unless one is given."""
    return {
        "regularization": regularization
        or kregs.Regularization.from_hp(hp, base=TUNED, l2=(0, 1e-5, 1e-1), dropout=(0.0, 0.6)),
        "learning_rate": hp.Float("learning_rate", 1e-3, 1e-2, sampling="log"),
    }


def build(hp) -> keras.Model:
    return make_model(**sample(hp))


def main(*, quick: bool = False, seed: int = 0) -> dict[str, float]:
    """Train the tuned model and print what it scores on the test set."""
    (x_train, y_train), (x_test, y_test) = load_data()
    model = make_model(seed=seed)
    history = model.fit(
        x_train, y_train, batch_size=BATCH_SIZE, epochs=2 if quick else EPOCHS, verbose=0
    )
    scores = model.evaluate(x_test, y_test, verbose=0, return_dict=True)
    print(f"test accuracy {scores['accuracy']:.4f}, data loss {scores['data_loss']:.4f}")
    print(kregs.diagnose(history, held_out=scores["data_loss"]))
    return scores


if __name__ == "__main__":
    keras.utils.set_random_seed(0)
    main(quick="--quick" in sys.argv)
