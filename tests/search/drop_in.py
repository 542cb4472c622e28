"""keras-tuner scripts as people write them: which are stacked, and is a score what `evaluate` says.

`python tests/search/drop_in.py` runs them all and writes the table of docs/drop-in.md.
"""

from __future__ import annotations

import dataclasses
import re
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import tensorflow as tf
from keras import layers, optimizers

RNG = np.random.default_rng(0)
X, LABELS = RNG.normal(size=(60, 6)).astype("float32"), RNG.integers(0, 3, 60)
IMAGES = RNG.uniform(0, 255, (60, 8, 8, 3)).astype("float32")
TOKENS = RNG.integers(0, 9, (60, 5))
PAGE = Path(__file__).resolve().parents[2] / "docs" / "drop-in.md"


@dataclasses.dataclass
class Script:
    """One script.

    Args:
        build: a function of `hp`.
        x, y: the data; half of the rows validate.
        fit: further arguments of `search`.
        validation: in place of the second half of the rows.
        objective: of the tuner.
    """

    build: Callable = None
    x: Any = None
    y: Any = None
    fit: dict[str, Any] = dataclasses.field(default_factory=dict)
    validation: Any = None
    objective: Any = "val_loss"


def body(hp, inputs, x, optimizer=None, **compiled):
    """Return the compiled model of an output layer on `x`, with a λ and a rate that are searched."""
    x = layers.Dropout(hp.Float("dropout", 0.1, 0.5))(x)
    l2 = keras.regularizers.L2(hp.Float("l2", 1e-4, 1e-1, sampling="log"))
    outputs = layers.Dense(3, "softmax", kernel_regularizer=l2, dtype="float32")(x)
    model = keras.Model(inputs, outputs)
    rate = hp.Float("learning_rate", 1e-3, 1e-1, sampling="log")
    given = {"loss": "sparse_categorical_crossentropy", "metrics": ["accuracy"]} | compiled
    model.compile((optimizer or optimizers.Adam)(rate), **given)
    return model


def mlp(optimizer=None, layer=None, **compiled):
    def build(hp):
        inputs = keras.Input((6,))
        x = layers.Dense(8, "relu")(inputs)
        return body(hp, inputs, x if layer is None else layer()(x), optimizer, **compiled)

    return build


def of_images(make):
    def build(hp):
        inputs = keras.Input((8, 8, 3))
        return body(hp, inputs, layers.Flatten()(make(inputs)))

    return build


class Halving(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        self.model.optimizer.learning_rate = float(self.model.optimizer.learning_rate) / 2


class Batches(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        pass


class Scale(layers.Layer):
    def build(self, shape):
        self.scale = self.add_weight(shape=(shape[-1],), initializer="ones")

    def call(self, x):
        return x * self.scale


def own_loss(y, prediction):
    return keras.losses.sparse_categorical_crossentropy(y, prediction) + 0.01


def own_metric(y, prediction):
    return keras.ops.mean(keras.ops.max(prediction, axis=-1))


def callbacks(*given):
    return Script(mlp(), fit={"callbacks": list(given)})


def files(name):
    return str(Path(tempfile.mkdtemp()) / name)


def dataset(augmented=False):
    rows = tf.data.Dataset.from_tensor_slices((X[:30], LABELS[:30]))
    if augmented:
        rows = rows.map(lambda x, y: (x + tf.random.normal(tf.shape(x), stddev=0.1), y))
    held = tf.data.Dataset.from_tensor_slices((X[30:], LABELS[30:])).batch(10)
    return Script(mlp(), rows.shuffle(30).batch(10), None, validation=held)


def repeated():
    rows, held = (
        tf.data.Dataset.from_tensor_slices((X[part], LABELS[part])).batch(10).repeat()
        for part in (slice(30), slice(30, None))
    )
    return Script(mlp(), rows, None, {"steps_per_epoch": 4, "validation_steps": 3}, validation=held)


class Sequence(keras.utils.PyDataset):
    def __len__(self):
        return 3

    def __getitem__(self, index):
        rows = slice(10 * index, 10 * index + 10)
        return X[rows], LABELS[rows]


def generator():
    def batches():
        while True:
            yield X[:10], LABELS[:10]

    return Script(mlp(), batches(), None, {"steps_per_epoch": 3})


def two_inputs():
    def build(hp):
        inputs = [keras.Input((6,)), keras.Input((6,))]
        return body(hp, inputs, layers.Concatenate()(inputs))

    return Script(
        build, [X[:30], 2 * X[:30]], LABELS[:30], validation=([X[30:], X[30:]], LABELS[30:])
    )


def two_outputs():
    def build(hp):
        inputs = keras.Input((6,))
        x = layers.Dense(8, "relu")(inputs)
        outputs = [layers.Dense(3, "softmax", name="kind")(x), layers.Dense(1, name="size")(x)]
        model = keras.Model(inputs, outputs)
        model.compile(
            optimizers.Adam(hp.Float("learning_rate", 1e-3, 1e-1, sampling="log")),
            ["sparse_categorical_crossentropy", "mse"],
            loss_weights=[1.0, 0.3],
        )
        return model

    y = [LABELS, X[:, :1]]
    return Script(
        build, X[:30], [part[:30] for part in y], validation=(X[30:], [part[30:] for part in y])
    )


def text():
    def build(hp):
        inputs = keras.Input((5,))
        x = layers.Embedding(9, 4, mask_zero=True)(inputs)
        return body(hp, inputs, layers.LSTM(4)(x))

    return Script(build, TOKENS[:30], LABELS[:30], validation=(TOKENS[30:], LABELS[30:]))


def transformer():
    def build(hp):
        inputs = keras.Input((5,))
        x = layers.Embedding(9, 4)(inputs)
        x = layers.LayerNormalization()(x + layers.MultiHeadAttention(2, 4)(x, x))
        return body(hp, inputs, layers.GlobalAveragePooling1D()(x))

    return Script(build, TOKENS[:30], LABELS[:30], validation=(TOKENS[30:], LABELS[30:]))


def images(make):
    return Script(of_images(make), IMAGES[:30], LABELS[:30], validation=(IMAGES[30:], LABELS[30:]))


def mobile_net():
    def frozen(inputs):
        base = keras.applications.MobileNetV2((32, 32, 3), weights=None, include_top=False)
        base.trainable = False
        return base(layers.Resizing(32, 32)(inputs), training=False)

    return images(frozen)


def mixed():
    def build(hp):
        keras.config.set_dtype_policy("mixed_float16")
        try:
            return mlp()(hp)
        finally:
            keras.config.set_dtype_policy("float32")

    return Script(build)


def shared_normalization():
    normalization = layers.Normalization()
    normalization.adapt(X)

    def build(hp):
        inputs = keras.Input((6,))
        return body(hp, inputs, layers.Dense(8, "relu")(normalization(inputs)))

    return Script(build)


def inside_normalization():
    def build(hp):
        normalization = layers.Normalization()
        normalization.adapt(X)
        inputs = keras.Input((6,))
        return body(hp, inputs, layers.Dense(8, "relu")(normalization(inputs)))

    return Script(build)


class OwnStep(keras.Model):
    def train_step(self, data):
        return super().train_step(data)


def own_train_step():
    def build(hp):
        inputs = keras.Input((6,))
        model = OwnStep(inputs, layers.Dense(3, "softmax")(inputs))
        rate = hp.Float("learning_rate", 1e-3, 1e-1, sampling="log")
        model.compile(optimizers.Adam(rate), "sparse_categorical_crossentropy")
        return model

    return Script(build)


def schedule(rate):
    return optimizers.AdamW(optimizers.schedules.CosineDecay(rate, 9), weight_decay=0.01)


C = keras.callbacks
SCRIPTS: dict[str, Callable[[], Script]] = {
    "`EarlyStopping(\"val_accuracy\", patience=3)`": lambda: callbacks(C.EarlyStopping("val_accuracy", patience=3)),
    "`EarlyStopping(mode=\"min\", restore_best_weights=True)`": lambda: callbacks(C.EarlyStopping("val_loss", mode="min", restore_best_weights=True)),
    "`ReduceLROnPlateau`": lambda: callbacks(C.ReduceLROnPlateau(patience=1)),
    "`LearningRateScheduler`": lambda: callbacks(C.LearningRateScheduler(lambda epoch, rate: rate * 0.9)),
    "`ModelCheckpoint`": lambda: callbacks(C.ModelCheckpoint(files("best.keras"), save_best_only=True)),
    "`CSVLogger`": lambda: callbacks(C.CSVLogger(files("log.csv"))),
    "`TensorBoard(histogram_freq=1)`": lambda: callbacks(C.TensorBoard(files("logs"), histogram_freq=1)),
    "`LambdaCallback(on_epoch_end=...)`": lambda: callbacks(C.LambdaCallback(on_epoch_end=lambda epoch, logs: None)),
    "`TerminateOnNaN`": lambda: callbacks(C.TerminateOnNaN()),
    "a callback of one's own, by epoch": lambda: callbacks(Halving()),
    "a callback of one's own, by batch": lambda: callbacks(Batches()),
    "arrays": lambda: Script(mlp()),
    "pandas": lambda: Script(mlp(), pd.DataFrame(X[:30]), pd.Series(LABELS[:30])),
    "`tf.data.Dataset`": dataset,
    "`tf.data.Dataset` with augmentation": lambda: dataset(augmented=True),
    "`tf.data.Dataset` that is repeated": repeated,
    "`PyDataset`": lambda: Script(mlp(), Sequence(), None),
    "a Python generator": generator,
    "`class_weight`": lambda: Script(mlp(), fit={"class_weight": {0: 1.0, 1: 2.0, 2: 3.0}}),
    "`sample_weight`": lambda: Script(mlp(), fit={"sample_weight": np.linspace(0.5, 2.0, 30)}),
    "several inputs": two_inputs,
    "several outputs, `loss_weights`": two_outputs,
    "a layer of one's own": lambda: Script(mlp(layer=Scale)),
    "`Lambda`": lambda: Script(mlp(layer=lambda: layers.Lambda(lambda x: x * 2))),
    "a loss of one's own": lambda: Script(mlp(loss=own_loss)),
    "a metric of one's own": lambda: Script(mlp(metrics=[own_metric])),
    "`F1Score`": lambda: Script(
        mlp(loss="categorical_crossentropy", metrics=[keras.metrics.F1Score("macro")]),
        X[:30], np.eye(3)[LABELS[:30]], validation=(X[30:], np.eye(3)[LABELS[30:]]),
    ),
    "`mixed_float16`": mixed,
    "`Normalization` made in `build`": inside_normalization,
    "`Normalization` shared by all models": shared_normalization,
    "a frozen `MobileNetV2`": mobile_net,
    "a transformer block": transformer,
    "`Conv2DTranspose`": lambda: images(lambda x: layers.Conv2DTranspose(2, 3)(x)),
    "`Embedding(mask_zero=True)`, `LSTM`": text,
    "`AdamW` with `CosineDecay`": lambda: Script(mlp(schedule)),
    "`use_ema`": lambda: Script(mlp(lambda rate: optimizers.Adam(rate, use_ema=True))),
    "`Nadam`": lambda: Script(mlp(optimizers.Nadam)),
    "`Lion`": lambda: Script(mlp(optimizers.Lion)),
    "`gradient_accumulation_steps`": lambda: Script(mlp(lambda rate: optimizers.Adam(rate, gradient_accumulation_steps=2))),
    "`steps_per_execution`": lambda: Script(mlp(steps_per_execution=2)),
    "`jit_compile`": lambda: Script(mlp(jit_compile=True)),
    "`run_eagerly`": lambda: Script(mlp(run_eagerly=True)),
    "a `train_step` of one's own": own_train_step,
    "`validation_freq`": lambda: Script(mlp(), fit={"validation_freq": 2}),
    "`initial_epoch`": lambda: Script(mlp(), fit={"initial_epoch": 1}),
    "`steps_per_epoch`": lambda: Script(mlp(), fit={"steps_per_epoch": 2}),
    "`validation_steps`": lambda: Script(mlp(), fit={"validation_steps": 2}),
    "`validation_split`": lambda: Script(mlp(), X, LABELS, {"validation_split": 0.5}),
}  # fmt: skip


@dataclasses.dataclass
class Outcome:
    """What came of a script: why it was not stacked (empty if it was), its score and `evaluate`'s."""

    reason: str
    score: float
    evaluated: float


def run(name: str, folder: str) -> Outcome:
    """Run a script with `kregs.PopulationTuner` in the place of `keras_tuner.RandomSearch`."""
    import kregs
    from kregs.search import SequentialFallback

    script = SCRIPTS[name]()
    x, y = (X[:30], LABELS[:30]) if script.x is None else (script.x, script.y)
    validation = script.validation or (X[30:], LABELS[30:])
    fit = {"epochs": 2, "batch_size": 10, "verbose": 0, **script.fit}
    if "validation_split" not in fit:
        fit["validation_data"] = validation
    if not (hasattr(x, "__array__") or isinstance(x, (list, tuple, dict))):
        del fit["batch_size"]
    keras.utils.set_random_seed(0)
    tuner = kregs.PopulationTuner(script.build, script.objective, 2, seed=1, directory=folder)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        tuner.search(x, *([] if y is None else [y]), **fit)
    reasons = [str(w.message) for w in said if w.category is SequentialFallback]
    best = tuner.oracle.get_best_trials()[0]
    model = tuner.get_best_models()[0]
    data = validation if isinstance(validation, tuple) else (validation,)
    how = {"batch_size": fit.get("batch_size"), "steps": fit.get("validation_steps")}
    logs = model.evaluate(*data, **how, verbose=0, return_dict=True)
    reason = reasons[0].removeprefix("trials are trained one by one: ") if reasons else ""
    return Outcome(reason, float(best.score), float(logs[script.objective.removeprefix("val_")]))


def main() -> None:
    rows = []
    for name in SCRIPTS:
        with tempfile.TemporaryDirectory() as folder:
            try:
                outcome = run(name, folder)
            except Exception as error:
                rows.append((name, f"error: {type(error).__name__}: {str(error)[:120]}", ""))
            else:
                same = np.isclose(outcome.score, outcome.evaluated, rtol=1e-3, atol=1e-4)
                stacked = "yes" if not outcome.reason else f"no: {outcome.reason.splitlines()[0]}"
                rows.append(
                    (
                        name,
                        stacked,
                        "yes" if same else f"no: {outcome.score:.5f} and {outcome.evaluated:.5f}",
                    )
                )
        print(*rows[-1], sep=" | ", flush=True)
    count = sum(stacked == "yes" for _, stacked, _ in rows)
    table = "\n".join(f"| {name} | {stacked} | {same} |" for name, stacked, same in rows)
    text = (
        f"{count} of {len(rows)} are stacked.\n\n"
        "| script | stacked | score is `evaluate`'s |\n|---|---|---|\n" + table + "\n"
    )
    page = PAGE.read_text("utf-8")
    page = re.sub(
        r"(<!-- table -->\n).*(<!-- end -->)", lambda m: m[1] + text + m[2], page, flags=re.S
    )
    PAGE.write_text(page, "utf-8")


if __name__ == "__main__":
    sys.exit(main())
