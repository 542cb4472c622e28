"""Callbacks of members: each does what it does in Keras's `fit` of the same model alone."""

from __future__ import annotations

import csv
import functools
import itertools
import math

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import callbacks as C
from keras import layers
from keras.src.backend.tensorflow import numpy as backend_numpy

from kregs.population import NotStackable, Population
from kregs.population.callbacks import _COMPARISONS, _compare, batch_hooks
from kregs.population.program import Program

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 5))
Y = (X @ RNG.normal(size=5) + RNG.normal(size=60) > 0).astype("int32")
FIT = {"validation_data": (X[:25], Y[:25]), "batch_size": 15, "shuffle": False}
EPOCHS = 7


class Share(keras.metrics.MeanMetricWrapper):
    """Of right answers, by a name of its own."""

    def __init__(self):
        super().__init__(keras.metrics.binary_accuracy, name="share")
        self._direction = "up"


def build(rate=0.1):
    body, head = layers.Dense(6, "tanh", name="body"), layers.Dense(1, "sigmoid", name="head")
    model = keras.Sequential([keras.Input((5,)), body, head], name="net")
    error = keras.metrics.MeanAbsoluteError(name="mae")
    error._direction = "down"  # Keras knows the direction of metrics that have one
    model.compile(
        keras.optimizers.Adam(rate), "binary_crossentropy", metrics=["accuracy", Share(), error]
    )
    return model


@functools.cache
def reference():
    """The model that `fit` trains alone, traced once, its first weights and data."""
    model = build()
    data = [
        tf.data.Dataset.from_tensor_slices(rows).batch(15)
        for rows in ((X, Y), FIT["validation_data"])
    ]
    return model, model.get_weights(), *data


def fit_alone(rate, callbacks, epochs):
    """Train as `fit` does a fresh model."""
    model, weights, train, held_out = reference()
    for variable in model.optimizer.variables:
        variable.assign(tf.zeros_like(variable))
    model.optimizer.learning_rate = rate
    model.set_weights(weights)
    return model.fit(
        train, validation_data=held_out, callbacks=callbacks, epochs=epochs, shuffle=False,
        verbose=0,
    ).history  # fmt: skip


def train_members(rates, callbacks, epochs):
    """Train one member with each list of callbacks; return histories and models."""
    models = [build(rate) for rate in rates]
    for model in models:
        model.set_weights(reference()[1])
    population = Population.from_models(models)
    arguments = {"callbacks": callbacks, "epochs": epochs, "accelerate": False, **FIT}
    return population.fit(X, Y, **arguments), population.unstack()


def check(history, model, expected, end):
    """Check a member against what `fit` gave and ended with."""
    assert set(history) == set(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(history[name], values, rtol=1e-7, atol=1e-9, err_msg=name)
    for one, other in zip(model.get_weights(), end, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-8, atol=1e-8)


def check_against_fit(make_all, epochs):
    """Train each member with its callbacks, and alone by `fit`.

    Args:
        make_all: each returns a member's callbacks, given `"member"` or `"fit"`.

    Returns:
        For each its callbacks and those of `fit`.
    """
    rates = [(0.3, 0.03, 0.1)[k] for k in range(len(make_all))]
    stacked = [make("member") for make in make_all]
    histories, models = train_members(rates, stacked, epochs)
    alone = [make("fit") for make in make_all]
    for rate, callbacks, history, model in zip(rates, alone, histories, models, strict=True):
        expected = fit_alone(rate, callbacks, epochs)
        check(history, model, expected, reference()[0].get_weights())
        assert model.optimizer.learning_rate == reference()[0].optimizer.learning_rate
    return list(zip(stacked, alone, strict=True))


# ---- directions and restored weights -----------------------------------------------------------


class Recorder(C.Callback):
    """Records the logs and the weights of each epoch."""

    def on_train_begin(self, logs=None):
        self.epochs = []

    def on_epoch_end(self, epoch, logs=None):
        self.epochs.append((dict(logs), self.model.get_weights()))


@functools.cache
def recorded(rate):
    recorder = Recorder()
    fit_alone(rate, [recorder], EPOCHS)
    return recorder.epochs


def check_stopping(make_all, rate=0.3):
    """Compare members that stop with Keras's own callbacks, replayed over the epochs of `fit`.

    Returns:
        How many epochs each took.
    """
    histories, models = train_members([rate] * len(make_all), [make() for make in make_all], EPOCHS)
    epochs, replay = recorded(rate), reference()[0]
    for make, history, model in zip(make_all, histories, models, strict=True):
        callbacks = C.CallbackList(make(), model=replay)
        replay.stop_training = False
        callbacks.on_train_begin()
        logs_so_far = []
        for epoch, (logs, weights) in enumerate(epochs):
            replay.set_weights(weights)
            logs_so_far.append(logs)
            callbacks.on_epoch_end(epoch, logs)
            if replay.stop_training:
                break
        callbacks.on_train_end(logs)
        expected = {name: [logs[name] for logs in logs_so_far] for name in logs}
        check(history, model, expected, replay.get_weights())
    return [len(history["loss"]) for history in histories]


def stopping(monitor, patience=2, **options):
    return C.EarlyStopping(monitor, patience=patience, **{"restore_best_weights": True, **options})


def test_direction_is_inferred_as_keras_does(double):
    lengths = check_stopping(
        [
            lambda: [stopping("val_share")],
            lambda: [stopping("val_mae", min_delta=0.004)],
            lambda: [stopping("accuracy", min_delta=0.03)],
            lambda: [stopping("val_loss", min_delta=0.01)],
        ]
    )
    assert len(set(lengths)) > 1


def test_each_that_restores_has_weights_of_its_own(double):
    """Each has its own best epoch; the one that restores last has the last word."""
    monitors = ["val_accuracy", "val_loss"]
    check_stopping(
        [
            lambda: [stopping(monitor, patience=6) for monitor in monitors],
            lambda: [stopping(monitor, patience=6) for monitor in reversed(monitors)],
            lambda: [  # one that never improves restores its first epoch
                stopping("val_loss", patience=8),
                stopping("val_loss", mode="max", patience=8, min_delta=9),
                stopping("loss", patience=8, restore_best_weights=False),
            ],
        ]
    )


def test_a_metric_that_is_no_mean_has_a_direction():
    model = plain()
    model.compile("sgd", "mse", metrics=[keras.metrics.AUC(name="area")])
    (history,) = Population.from_models([model]).fit(
        X, Y, callbacks=[stopping("val_area", patience=1)], epochs=6, **FIT
    )
    values = history["val_area"]
    assert len(values) > 1
    assert np.all(np.diff(values[:-1]) > 0)  # it stops where more would have been better
    assert len(values) == 6 or values[-1] <= values[-2]


# ---- callbacks that look at the model ----------------------------------------------------------


class Watcher(C.Callback):
    """Looks at all that a model shows, and changes what may be changed."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_train_begin(self, logs=None):
        assert isinstance(self.model, keras.Sequential)
        assert isinstance(self.model.optimizer, keras.optimizers.Adam)
        self.kernel = self.model.get_layer("body").kernel  # held, and looked at later
        self.seen.append([logs, dict(self.params)])

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 2:
            self.model.optimizer.learning_rate = self.model.optimizer.learning_rate * 0.5
        if epoch == 3:
            self.model.optimizer.learning_rate.assign(0.01)

    def on_epoch_end(self, epoch, logs=None):
        self.seen.append([epoch, list(logs), float(np.sum(self.kernel))])  # names in order, too
        if epoch == 1:
            self.model.set_weights([0.9 * weight for weight in self.model.get_weights()])
        if epoch == 2:
            self.kernel.assign(0.5 * self.kernel)
        if epoch == 3:
            self.model.optimizer.variables[2].assign(self.kernel * 0.01)  # a momentum
        optimizer = self.model.optimizer
        self.seen.append([float(np.sum(v)) for v in optimizer.variables])
        self.seen.append([int(optimizer.iterations), float(np.sum(self.model(X)))])
        self.seen.append({name: len(v) for name, v in self.model.history.history.items()})
        logs["mine"] = float(epoch)
        if epoch == 4:
            self.model.stop_training = True

    def on_test_end(self, logs=None):
        self.seen.append([list(logs), logs["loss"]])

    def on_train_end(self, logs=None):
        self.seen.append([logs, float(np.sum(self.model.get_weights()[0]))])


class Shifting(C.Callback):
    """Sets the rate, and writes weights after or before others have kept them."""

    def on_epoch_end(self, epoch, logs=None):
        self.model.optimizer.learning_rate *= 0.9
        self.model.layers[-1].bias.assign(self.model.layers[-1].bias + 0.3)


class OwnStopping(C.EarlyStopping):
    """A user's subclass that looks into the weights it keeps."""

    def on_train_end(self, logs=None):
        self.sizes = [weight.shape for weight in self.best_weights]
        super().on_train_end(logs)


class Averaging(C.Callback):
    """Ends a training with the mean of its weights, after another one has restored some."""

    def on_train_begin(self, logs=None):
        self.sums = [np.zeros_like(weight) for weight in self.model.get_weights()]

    def on_epoch_end(self, epoch, logs=None):
        self.sums = [a + b for a, b in zip(self.sums, self.model.get_weights(), strict=True)]

    def on_train_end(self, logs=None):
        self.restored = float(np.sum(self.model.get_weights()[0]))
        self.model.set_weights([weight / 6 for weight in self.sums])


def equal(one, other):
    """Whether two nested records are equal, numbers nearly."""
    if isinstance(one, dict):
        return set(one) == set(other) and all(equal(one[name], other[name]) for name in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(equal, one, other))
    if isinstance(one, str) or one is None:
        return one == other
    return math.isclose(one, other, rel_tol=1e-7, abs_tol=1e-9)


def test_own_callbacks_see_and_change_a_model_of_the_member_s_own(double):
    lines = []

    def averaged(_):
        lines.append([])
        note = lines[-1].append
        told = C.LambdaCallback(
            on_train_begin=note,
            on_epoch_end=lambda epoch, logs: note([epoch, logs["val_loss"]]),
            on_train_end=note,
        )
        plateau = C.ReduceLROnPlateau("val_accuracy", factor=0.3, patience=1)
        return [stopping("val_loss", patience=9), Shifting(), Averaging(), told, plateau]

    own, average, restoring = check_against_fit(
        [
            lambda _: [Watcher()],
            averaged,
            lambda _: [OwnStopping("val_loss", patience=9, restore_best_weights=True), Shifting()],
        ],
        epochs=6,
    )
    seen, expected = own[0][0].seen, own[1][0].seen
    assert len(seen) == len(expected) > 20
    for one, other in zip(seen, expected, strict=True):
        assert equal(one, other), (one, other)
    assert equal(average[0][2].restored, average[1][2].restored)
    assert len(lines[0]) == 6 + 2
    assert equal(lines[0], lines[1])
    assert restoring[0][0].sizes == [(5, 6), (6,), (6, 1), (1,)]


# ---- callbacks that write files ----------------------------------------------------------------


def numbers_in(file):
    """Every array of an HDF5 file by its path."""
    arrays = {}
    with h5py.File(file) as opened:
        opened.visititems(
            lambda name, item: (
                arrays.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None
            )
        )
    return arrays


def events_in(folder):
    """Every number and histogram of TensorBoard's files by part, tag and step."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return {
        (part, tag, event.step): tf.make_ndarray(event.tensor_proto)
        for part in ("train", "validation")
        for events in [EventAccumulator(f"{folder}/{part}").Reload()]
        for tag in events.Tags()["tensors"]
        if tag != "keras"  # the structure of the model, with its name
        for event in events.Tensors(tag)
    }


def test_files_are_those_that_fit_writes(double, tmp_path):
    def writers(who):
        folder = tmp_path / who
        folder.mkdir()
        return [
            C.ModelCheckpoint(f"{folder}/best.keras", "val_accuracy", save_best_only=True),
            C.ModelCheckpoint(f"{folder}/{{epoch}}.weights.h5", save_weights_only=True),
            C.ReduceLROnPlateau("loss"),
            C.CSVLogger(f"{folder}/log.csv", ";"),
            C.TensorBoard(folder, histogram_freq=2),
        ]

    check_against_fit([writers, lambda _: [Shifting()]], epochs=3)
    stacked, alone = tmp_path / "member", tmp_path / "fit"
    saved, expected = (
        keras.saving.load_model(folder / "best.keras", compile=False).get_weights()
        for folder in (stacked, alone)
    )
    for one, other in zip(saved, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-8, atol=1e-9)
    for epoch in (1, 2, 3):
        mine, of_keras = (numbers_in(f / f"{epoch}.weights.h5") for f in (stacked, alone))
        assert mine.keys() == of_keras.keys()
        assert any("optimizer" in name for name in mine)
        for name, values in of_keras.items():
            np.testing.assert_allclose(mine[name], values, rtol=1e-7, atol=1e-9, err_msg=name)
    tables = [
        list(csv.DictReader((folder / "log.csv").read_text().splitlines(), delimiter=";"))
        for folder in (stacked, alone)
    ]
    assert len(tables[0]) == 3
    for mine, of_keras in zip(*tables, strict=True):
        assert list(mine) == list(of_keras)
        assert "learning_rate" in mine
        for name, number in of_keras.items():
            assert float(mine[name]) == pytest.approx(float(number), rel=1e-7)
    mine, of_keras = map(events_in, (stacked, alone))
    assert mine.keys() == of_keras.keys()
    assert ("train", "net/body/kernel/histogram", 2) in mine
    assert ("validation", "evaluation_loss_vs_iterations", 8) in mine
    for key, numbers in of_keras.items():
        np.testing.assert_allclose(mine[key], numbers, rtol=1e-5, atol=1e-7, err_msg=str(key))


# ---- what is refused, and what raises ----------------------------------------------------------


class Batchwise(C.ModelCheckpoint):
    """By epoch, as far as Keras's own hooks go."""

    def on_train_batch_begin(self, batch, logs=None):
        pass


HOOKS = {
    "lambda": (lambda: C.LambdaCallback(on_train_batch_end=print), ["on_train_batch_end"]),
    "checkpoint by batch": (
        lambda: C.ModelCheckpoint("a.keras", save_freq=9), ["on_train_batch_end"],
    ),
    "checkpoint by epoch": (lambda: C.ModelCheckpoint("a.keras"), []),
    "derived": (lambda: Batchwise("a.keras"), ["on_train_batch_begin"]),
    "tensorboard by batch": (
        lambda: C.TensorBoard("a", update_freq=3),
        ["on_train_batch_begin", "on_train_batch_end", "on_test_batch_begin"],
    ),
    "tensorboard": (lambda: C.TensorBoard("a", histogram_freq=1, write_images=True), []),
    "nan": (lambda: C.TerminateOnNaN(raise_error=True), []),
    "backup": (lambda: C.BackupAndRestore("a"), ["on_train_batch_end"]),
    "averages": (C.SwapEMAWeights, []),
    "epochs": (lambda: C.LambdaCallback(on_epoch_end=print, on_train_begin=print), []),
    "own": (Watcher, []),
}  # fmt: skip


@pytest.mark.parametrize("name", HOOKS)
def test_hooks_of_batches_are_named(name):
    make, hooks = HOOKS[name]
    callback = make()
    assert batch_hooks(callback) == hooks
    if hooks:
        message = f"{type(callback).__name__} has {', '.join(hooks)}"
        with pytest.raises(NotStackable, match=message):
            Population.from_models([plain()]).fit(X, Y, callbacks=[callback])


def plain(rate=0.1):
    model = keras.Sequential([keras.Input((5,)), layers.Dense(1)])
    model.compile(keras.optimizers.SGD(rate), "mse")
    return model


class Acting(C.Callback):
    """Does something to its model in one epoch, or before the first."""

    def __init__(self, act, epoch=None):
        super().__init__()
        self.act, self.epoch = act, epoch

    def on_train_begin(self, logs=None):
        if self.epoch is None:
            self.act(self.model)

    def on_epoch_end(self, epoch, logs=None):
        if epoch == self.epoch:
            self.act(self.model)


def freeze(model):
    model.layers[-1].trainable = False


def compile_anew(model):
    model.compile("sgd", "mse")


def decay(model):
    model.optimizer.weight_decay = 0.1


@pytest.mark.parametrize(
    ("act", "epoch", "message"),
    [
        (freeze, 1, "Acting changes which weights are trained"),
        (compile_anew, None, "`model.compile`"),
        (decay, None, "`model.optimizer.weight_decay`"),
    ],
)
def test_what_a_population_cannot_follow_is_refused_and_models_are_as_they_were(
    act, epoch, message
):
    models = [plain(), plain()]
    before = [model.get_weights() for model in models]
    with pytest.raises(NotStackable, match=message):
        Population.from_models(models).fit(X, Y, callbacks=[Acting(act, epoch)], epochs=3)
    for model, weights in zip(models, before, strict=True):
        assert all(map(np.array_equal, model.get_weights(), weights))
        assert int(model.optimizer.iterations) == 0


def test_what_a_callback_raises_is_raised():
    def distance(y, prediction):
        return keras.ops.mean(keras.ops.abs(keras.ops.cast(y, "float32") - prediction), -1)

    model = plain()
    metric = keras.metrics.MeanMetricWrapper(distance, name="distance")
    model.compile("sgd", "mse", metrics=[metric])
    population = Population.from_models([model])
    with pytest.raises(ValueError, match="isn't able to automatically determine"):
        population.fit(X, Y, callbacks=[stopping("distance")])
    with pytest.raises(RuntimeError, match="NaN or Inf loss"):
        population.fit(X * 1e30, Y, callbacks=[C.TerminateOnNaN(raise_error=True)], epochs=2)


def test_lists_of_members_are_checked():
    population = Population.from_models([plain(), plain()])
    logger = C.CSVLogger("log.csv")
    for callbacks, error, message in (
        ([[logger]], ValueError, r"one a member \(2\). Received: 1 lists"),
        ([[logger], [logger]], ValueError, "one object twice"),
        ([[], ["log"]], TypeError, "must hold keras callbacks"),
        ([logger], NotStackable, r"a list for each member, \[\[CSVLogger"),
    ):
        with pytest.raises(error, match=message):
            population.fit(X, Y, callbacks=callbacks)


# ---- what it costs -----------------------------------------------------------------------------


class Scheduling(C.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        self.model.optimizer.learning_rate = 0.1 / (epoch + 1)

    def on_epoch_end(self, epoch, logs=None):
        self.model.stop_training = epoch == 2 or self.model.stop_training


def test_weights_leave_the_device_only_when_they_are_looked_at(monkeypatch):
    read = []
    original = Program.weights_of

    def weights_of(program, positions, kept=None, **named):
        read.append(positions)
        return original(program, positions, kept, **named)

    monkeypatch.setattr(Program, "weights_of", weights_of)
    noting = C.LambdaCallback(on_epoch_end=lambda epoch, logs: None)
    cases = [
        [Scheduling(), noting],
        [stopping("loss", patience=1), C.ReduceLROnPlateau("loss")],
        [],
        [Acting(lambda model: model.get_weights(), epoch=1)],
    ]
    histories = Population.from_models([plain() for _ in cases]).fit(
        X, Y, callbacks=cases, epochs=4
    )
    assert [len(history["loss"]) for history in histories] == [3, 4, 4, 4]
    # as it leaves each is read twice. The last one looks in its second epoch; from there on it may
    # hold a layer, so that it is shown the weights of each epoch
    assert len(read) == 2 * len(cases) + 3


@pytest.mark.slow
def test_what_several_look_at_is_read_once_an_epoch(monkeypatch):
    reads, seen = [], {}
    original = Program.read
    monkeypatch.setattr(Program, "read", lambda self: reads.append(1) or original(self))

    class Looking(C.Callback):
        def __init__(self, member, factor):
            super().__init__()
            self.member, self.factor = member, factor

        def on_epoch_end(self, epoch, logs=None):
            weights = self.model.get_weights()
            seen[self.member] = [self.factor * weight for weight in weights]
            if self.factor != 1:
                self.model.set_weights(seen[self.member])

    population = Population.from_models([plain() for _ in range(3)])
    factors = (1, 0.5, 1)  # what one changes is not what the others look at
    callbacks = [[Looking(member, factor)] for member, factor in enumerate(factors)]
    population.fit(X, Y, callbacks=callbacks, epochs=4)
    assert len(reads) == 4
    for member, model in enumerate(population.unstack()):
        for expected, weight in zip(seen[member], model.get_weights(), strict=True):
            np.testing.assert_array_equal(weight, expected)


def test_what_looks_at_weights_leaves_the_optimizer_alone(monkeypatch):
    reads = []
    original = Program.state_of
    monkeypatch.setattr(
        Program, "state_of", lambda self, slot: reads.append(slot) or original(self, slot)
    )
    population = Population.from_models([plain()])
    population.fit(X, Y, callbacks=[Acting(lambda model: model.get_weights(), epoch=1)], epochs=4)
    assert reads == [0, 0]  # as the job begins and ends


def averaged(rate):
    """A model whose optimizer keeps averages of the weights."""
    dense = layers.Dense(1, kernel_initializer="zeros")
    model = keras.Sequential([keras.Input((5,)), dense])
    model.compile(keras.optimizers.SGD(rate, use_ema=True, ema_momentum=0.9), "mse")
    return model


@pytest.mark.slow
@pytest.mark.parametrize("validated", [True, False])
def test_a_schedule_is_in_step_beside_averages_that_are_swapped(validated):
    """Validation sees averages of the weights, which go into the slot and out again."""
    schedule = keras.optimizers.schedules.CosineDecay(0.1, 40)
    fit = {"epochs": 5, "batch_size": 8, "shuffle": False, "verbose": 0}
    fit["validation_data"] = (X, Y) if validated else None
    alone = averaged(schedule)
    expected = alone.fit(X, Y, callbacks=[C.SwapEMAWeights()], **fit).history
    population = Population.from_models([averaged(schedule)])
    (history,) = population.fit(X, Y, callbacks=[C.SwapEMAWeights()], **fit)
    np.testing.assert_allclose(history["loss"], expected["loss"], rtol=1e-5)
    for one, other in zip(population[0].get_weights(), alone.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_interrupted_fit_leaves_all_members_as_before(error):
    def look_and_raise(model):
        model.get_weights()
        raise error("stop")

    models = [plain(), plain()]
    before = [model.get_weights() for model in models]
    population = Population.from_models(models)
    looking = Acting(lambda model: model.get_weights(), 1)
    with pytest.raises(error, match="stop"):
        population.fit(X, Y, callbacks=[[Acting(look_and_raise, 1)], [looking]], epochs=3)
    for model, weights in zip(models, before, strict=True):
        assert all(map(np.array_equal, model.get_weights(), weights))
        assert int(model.optimizer.iterations) == 0


def test_a_validation_freq_of_numpy_is_an_integer():
    fit = {"validation_data": (X, Y), "epochs": 2}
    (history,) = Population.from_models([plain()]).fit(X, Y, validation_freq=np.int64(2), **fit)
    assert (len(history["loss"]), len(history["val_loss"])) == (2, 1)


class Ending(C.Callback):
    """Looks at the weights when training ends, and may change them."""

    def __init__(self, change):
        super().__init__()
        self.change, self.seen = change, None

    def on_train_end(self, logs=None):
        self.seen = self.model.get_weights()
        if self.change:
            self.model.set_weights([weight + 1 for weight in self.seen])


@pytest.mark.slow
def test_averages_are_written_before_callbacks_hear_of_the_end():
    stopping = C.EarlyStopping("loss", restore_best_weights=True)
    lists = [[Ending(False)], [Ending(True)], [stopping, Ending(False)]]
    fit = {"epochs": 3, "batch_size": 8, "shuffle": False}
    population = Population.from_models([averaged(0.05) for _ in lists])
    population.fit(X, Y, callbacks=lists, **fit)
    for callbacks, model in zip(lists, population.unstack(), strict=True):
        ours = callbacks[-1].seen
        alone = averaged(0.05)
        alone.fit(X, Y, callbacks=callbacks, verbose=0, **fit)
        pairs = zip(
            ours + model.get_weights(), callbacks[-1].seen + alone.get_weights(), strict=True
        )
        for one, other in pairs:
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


NUMBERS = [
    0.0, -0.0, 0.1, 0.1 + 1e-10, 0.1 + 1e-8, -0.1, 1e-40, 2e-40, -1e-40, 1e30, 3.5e38, 1e300,
    float("inf"), -float("inf"), float("nan"), 1 / 3, np.float64(0.1), np.float64(0.1 + 1e-10),
    np.float32(0.1), 3, 1.1754943508222875e-38,
]  # fmt: skip


@pytest.mark.parametrize("given", [keras.ops.less, keras.ops.greater], ids=["less", "greater"])
def test_numbers_are_compared_as_keras_does(given):
    def compared(compare, *numbers):
        try:
            return bool(compare(*numbers))
        except ValueError as error:  # TensorFlow refuses numbers beyond single precision
            return str(error)

    quick = functools.partial(_compare, given, _COMPARISONS[given])
    for pair in itertools.product(NUMBERS, repeat=2):
        assert compared(quick, *pair) == compared(given, *pair), pair


@pytest.mark.parametrize("mode", ["min", "max"])
def test_early_stopping_runs_no_operation_and_stays_as_it_is(monkeypatch, mode):
    given = {"min": keras.ops.less, "max": keras.ops.greater}[mode]
    stopping = keras.callbacks.EarlyStopping("loss", mode=mode, patience=2)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    population = Population.from_models([model])
    calls = []
    for name in ("less", "greater"):
        monkeypatch.setattr(backend_numpy, name, lambda *_: calls.append(1))
    x = np.ones((8, 2), "float32")
    population.fit(x, x[:, :1], epochs=5, callbacks=[[stopping]])
    assert len(population.history[0]["loss"]) == (5 if mode == "min" else 3)
    assert stopping.monitor_op is given
    assert calls == []
