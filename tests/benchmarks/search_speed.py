"""How many trials a second: PopulationTuner beside keras_tuner.RandomSearch.

    python tests/benchmarks/search_speed.py [mlp convnet fashion seeds folds transformer mobilenet]
        [--repeats 3] [--peer-trials 8]

Both search the same space with the same seed, so that the peer's trials are the first of ours, with
the same epochs and early stopping. Each run is a process of its own, imports left out; building and
compiling the models is in. Runs alternate; the ratio is that of the medians of seconds a trial. The
peer's time a trial does not depend on how many it runs, so it may run fewer. In the case `folds`
kregs judges every trial by 5 folds, the peer by a single split. `transformer` has layers without a
stacked form; `mobilenet` is a frozen backbone of random weights with a searched head.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

CASES = {
    # trials, epochs, executions, reach at least, aim
    "mlp": (64, 30, 1, 25, 50),
    "convnet": (32, 30, 1, 12, 20),
    "fashion": (16, 5, 1, 3, 5),
    "seeds": (16, 30, 5, 25, 50),
    "folds": (64, 30, 1, 5, 10),
    "transformer": (16, 10, 1, 3, 3),
    "mobilenet": (16, 5, 1, 20, 20),
}
MLP = ("mlp", "seeds", "folds")
SHAPES = {"convnet": (-1, 8, 8, 1), "transformer": (-1, 8, 8), "mobilenet": (-1, 8, 8, 1)}


def data(case):
    import numpy as np

    if case == "fashion":
        import keras

        (x, y), _ = keras.datasets.fashion_mnist.load_data()
        x, y = x[:8000, ..., None].astype("float32"), y[:8000].astype("int32")
        return (x[:6400], y[:6400]), (x[6400:], y[6400:])
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    x = x.astype("float32").reshape(SHAPES.get(case, (-1, 64)))
    if case == "mobilenet":
        x, y = x.repeat(4, 1).repeat(4, 2).repeat(3, 3)[:800], y[:800]
    order = np.random.default_rng(0).permutation(len(x))
    cut = int(0.8 * len(x))
    train, validation = order[:cut], order[cut:]
    return (x[train], y[train]), (x[validation], y[validation])


def make_build(case):
    import kregs

    if case in ("transformer", "mobilenet"):
        return {"transformer": transformer, "mobilenet": mobilenet}[case]

    def build(hp):
        r = kregs.Regularization.from_hp(
            hp,
            base=kregs.Regularization(normalization="batch"),
            l2=(1e-6, 1e-2),
            dropout=(0.0, 0.6),
            **({} if case in MLP else {"spatial_dropout": (0.0, 0.4)}),
        )
        return kregs.compile_model(
            network(case, r),
            "sparse_categorical_crossentropy",
            learning_rate=hp.Float("learning_rate", 1e-4, 1e-2, sampling="log"),
            metrics=["accuracy"],
        )

    return build


def network(case, r):
    """The dense or convolutional network of a case, not compiled."""
    import kregs

    if case in MLP:
        return kregs.mlp((64,), 10, units=(128, 128), regularization=r)
    if case == "convnet":
        return kregs.convnet((8, 8, 1), 10, filters=(16, 32), rescaling=1 / 16, regularization=r)
    return kregs.convnet((28, 28, 1), 10, filters=(32, 64), regularization=r)


def transformer(hp):
    import keras
    from keras import layers

    rate = hp.Float("dropout", 0.0, 0.5)
    inputs = keras.Input((8, 8))
    x = layers.Dense(32)(inputs)
    for _ in range(2):
        attended = layers.MultiHeadAttention(4, 8)(x, x)
        x = layers.LayerNormalization()(x + layers.Dropout(rate)(attended))
        hidden = layers.Dense(32)(layers.Dense(64, "gelu")(x))
        x = layers.LayerNormalization()(x + layers.Dropout(rate)(hidden))
    return compiled(hp, inputs, layers.GlobalAveragePooling1D()(x))


def mobilenet(hp):
    import keras
    from keras import layers

    keras.utils.set_random_seed(0)  # in the place of pretrained weights: the same in all trials
    base = keras.applications.MobileNetV2((32, 32, 3), weights=None, include_top=False)
    base.trainable = False
    inputs = keras.Input((32, 32, 3))
    x = base(layers.Rescaling(1 / 8, -1.0)(inputs), training=False)
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dropout(hp.Float("dropout", 0.0, 0.6))(layers.Dense(64, "relu")(x))
    return compiled(hp, inputs, x)


def compiled(hp, inputs, x):
    import keras

    import kregs

    l2 = keras.regularizers.L2(hp.Float("l2", 1e-6, 1e-2, sampling="log"))
    model = keras.Model(inputs, keras.layers.Dense(10, "softmax", kernel_regularizer=l2)(x))
    return kregs.compile_model(
        model,
        "sparse_categorical_crossentropy",
        learning_rate=hp.Float("learning_rate", 1e-4, 1e-2, sampling="log"),
        metrics=["accuracy"],
    )


def run(case, engine, trials):
    """Search and print the seconds, peak memory and best score as JSON."""
    import keras
    import keras_tuner
    import numpy as np

    import kregs

    (x, y), validation = data(case)
    _, epochs, executions, *_ = CASES[case]
    goal = keras_tuner.Objective("val_data_loss", "min")
    arguments = {
        "objective": goal,
        "max_trials": trials,
        "seed": 1,
        "executions_per_trial": executions,
        "directory": tempfile.mkdtemp(),
        "project_name": "benchmark",
    }
    stopping = keras.callbacks.EarlyStopping("val_data_loss", mode="min", patience=6)
    tuner_class = {"kregs": kregs.PopulationTuner, "keras_tuner": keras_tuner.RandomSearch}[engine]
    began = time.perf_counter()
    if case == "folds" and engine == "kregs":
        rows = (np.concatenate(parts) for parts in zip((x, y), validation, strict=True))
        result = kregs.tune(
            make_build(case), *rows, folds=5, max_trials=trials, epochs=epochs, seed=1,
            callbacks=[stopping], directory=arguments["directory"], verbose=0,
        )  # fmt: skip
        report(time.perf_counter() - began, len(result.trials()), result.best_score)
        return
    tuner = tuner_class(make_build(case), **arguments)
    tuner.search(
        x, y, validation_data=validation, epochs=epochs, batch_size=32, callbacks=[stopping],
        verbose=0,
    )  # fmt: skip
    seconds = time.perf_counter() - began
    scores = [t.score for t in tuner.oracle.trials.values() if t.score is not None]
    report(seconds, len(scores), min(scores))


def report(seconds, trials, best):
    import resource

    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "trials": trials, "best": best, "MiB": memory}))


def measure(case, engine, trials):
    command = [sys.executable, __file__, case, "--engine", engine, "--trials", str(trials)]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", default=list(CASES), metavar="case")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peer-trials", type=int, default=8)
    parser.add_argument("--engine", help=argparse.SUPPRESS)
    parser.add_argument("--trials", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.engine:
        run(arguments.cases[0], arguments.engine, arguments.trials)
        return
    print(f"{os.cpu_count()} cores, median of {arguments.repeats} paired runs")
    print("| case | trials | kregs s/trial | keras_tuner s/trial | ratio | at least | aim |")
    print("|---|---|---|---|---|---|---|")
    for case in arguments.cases:
        trials, _, executions, least, aim = CASES[case]
        peer_trials = min(arguments.peer_trials, trials)
        ours, theirs = [], []
        for _ in range(arguments.repeats):
            for engine, count, into in (
                ("kregs", trials, ours),
                ("keras_tuner", peer_trials, theirs),
            ):
                result = measure(case, engine, count)
                into.append(result["seconds"] / result["trials"])
        a, b = statistics.median(ours), statistics.median(theirs)
        words = f"{trials} x {executions} seeds" if executions > 1 else str(trials)
        words += " x 5 folds" if case == "folds" else ""
        print(
            f"| {case} | {words} | {a:.3f} | {b:.2f} | {b / a:.1f} | {least} | {aim} |", flush=True
        )


if __name__ == "__main__":
    main()
