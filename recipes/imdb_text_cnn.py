"""Dropout, max-norm and λ for Kim's convolutional network on film reviews.

Command:  kregs run imdb_text_cnn
Time:     24 s on 2 CPU cores
Result:   test data loss 0.3387 ± 0.0029, unregularized 0.3005 ± 0.0069; accuracy 0.8565 ± 0.0021,
          unregularized 0.8736 ± 0.0037 (5 seeds)
Data:     50,000 IMDB reviews through keras.datasets; half are the test set. The result is from a
          copy of 25,000 of them, half of these the test set
Search:   kregs tune imdb_text_cnn

Kim, "Convolutional Neural Networks for Sentence Classification", EMNLP 2014.
"""

from __future__ import annotations

import sys
from typing import Any

import keras

import kregs

TUNED = kregs.Regularization(max_norm=3.0, dropout=0.34, spatial_dropout=0.49)
LEARNING_RATE = 0.0022
EPOCHS = 3
BATCH_SIZE = 64
WORDS = 10_000
LENGTH = 200


def load_data():
    """Return (x_train, y_train), (x_test, y_test): x of shape (n, 200), word numbers; y 0 or 1."""
    train, test = keras.datasets.imdb.load_data(num_words=WORDS)
    return tuple(
        (keras.utils.pad_sequences(x, LENGTH), y.astype("float32")[:, None])
        for x, y in (train, test)
    )


def make_model(
    regularization: kregs.Regularization = TUNED,
    *,
    learning_rate: float = LEARNING_RATE,
    seed: int | None = None,
) -> keras.Model:
    model = kregs.text_cnn(
        WORDS,
        1,
        sequence_length=LENGTH,
        embedding_units=64,
        filters=64,
        head_activation="sigmoid",
        regularization=regularization,
        seed=seed,
    )
    return kregs.compile_model(
        model, "binary_crossentropy", learning_rate=learning_rate, metrics=["accuracy"]
    )


def sample(hp, regularization: kregs.Regularization | None = None) -> dict[str, Any]:
    """Return arguments of `make_model`, sampled; a regularization, too, unless one is given."""
    return {
        "regularization": regularization
        or kregs.Regularization.from_hp(
            hp,
            base=TUNED,
            l2=(0, 1e-6, 1e-2),
            spatial_dropout=(0.0, 0.5),
            dropout=(0.0, 0.7),
            max_norm=[None, 1.0, 3.0],
        ),
        "learning_rate": hp.Float("learning_rate", 3e-4, 3e-3, sampling="log"),
    }


def build(hp) -> keras.Model:
    return make_model(**sample(hp))


def main(*, quick: bool = False, seed: int = 0) -> dict[str, float]:
    """Train the tuned model and print what it scores on the test set."""
    (x_train, y_train), (x_test, y_test) = load_data()
    epochs = EPOCHS
    if quick:
        x_train, y_train, x_test, y_test = x_train[:512], y_train[:512], x_test[:256], y_test[:256]
        epochs = 2
    model = make_model(seed=seed)
    history = model.fit(
        x_train, y_train, batch_size=BATCH_SIZE, epochs=epochs, verbose=0 if quick else 2
    )
    scores = model.evaluate(x_test, y_test, verbose=0, return_dict=True)
    print(f"test accuracy {scores['accuracy']:.4f}, data loss {scores['data_loss']:.4f}")
    print(kregs.diagnose(history, held_out=scores["data_loss"]))
    return scores


if __name__ == "__main__":
    keras.utils.set_random_seed(0)
    main(quick="--quick" in sys.argv)
