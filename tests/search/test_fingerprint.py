"""Fingerprints of models: equal for equal builds in any process, and a search is held to them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap

import keras
import pytest

import kregs
from kregs.search.fingerprint import difference, fingerprint

BUILD = textwrap.dedent(
    """
    import keras

    class Scaled(keras.layers.Layer):
        def __init__(self, factor=2.0, **options):
            super().__init__(**options)
            self.factor = factor

        def call(self, inputs):
            return inputs * self.factor if "b" in {"a", "b", "c", "d"} else inputs

    def make_loss(power):
        def loss(y, prediction):
            return keras.ops.mean(keras.ops.abs(y - prediction) ** power)
        return loss

    def build(units=4, power=2.0, factor=2.0, l2=0.01, rate=0.1, activation="relu", clip=None):
        inputs = keras.Input((3,))
        first = keras.layers.Dense(units, activation)(inputs)
        second = Scaled(factor)(keras.layers.Dropout(0.3)(first))
        second = keras.layers.Lambda(lambda values: values * 3)(second)
        joined = keras.layers.Add()([first, second])
        inner = keras.Sequential(
            [keras.layers.Dense(1, kernel_regularizer=keras.regularizers.L2(l2)),
             keras.layers.BatchNormalization()])
        model = keras.Model(inputs, inner(joined))
        schedule = keras.optimizers.schedules.ExponentialDecay(rate, 10, 0.9)
        model.compile(keras.optimizers.Adam(schedule, clipnorm=clip), make_loss(power),
                      metrics=["mae", keras.metrics.MeanSquaredError(name="mine")])
        return model
    """
)
names = {"__name__": "built"}
exec(compile(BUILD, "built", "exec"), names)
build = names["build"]


def test_names_that_count_up_say_nothing():
    build(units=9)
    assert fingerprint(build()) == fingerprint(build())
    assert difference(fingerprint(build()), fingerprint(build())) is None
    assert json.loads(json.dumps(fingerprint(build()))) == fingerprint(build())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"units": 64}, "layer 1 (Dense), units"),
        ({"activation": "tanh"}, "layer 1 (Dense), activation"),
        ({"factor": 3.0}, "layer 3 (Scaled), factor"),
        ({"l2": 0.1}, "layer 6 (Sequential), layers, 1, kernel_regularizer, l2"),
        ({"rate": 0.2}, "optimizer, learning_rate, initial_learning_rate"),
        ({"clip": 1.0}, "optimizer, clipnorm"),
        ({"power": 1.0}, "code, code of make_loss.<locals>.loss"),
    ],
)
def test_what_differs_is_named(changes, words):
    first = dict.fromkeys(changes)
    defaults = build.__defaults__
    arguments = build.__code__.co_varnames[: len(defaults)]
    before, now = fingerprint(build()), fingerprint(build(**changes))
    name, one, other = difference(before, now)
    assert name == words
    if not name.startswith("code"):
        (argument,) = first
        assert (one, other) == (
            dict(zip(arguments, defaults, strict=True))[argument],
            changes[argument],
        )


def test_layers_that_are_more_or_others():
    def chain(*layers):
        model = keras.Sequential([keras.Input((3,)), *layers])
        model.compile("sgd", "mse")
        return fingerprint(model)

    dense = keras.layers.Dense
    assert difference(chain(dense(2)), chain(dense(2), dense(2)))[1:] == (2, 3)
    found = difference(chain(dense(2)), chain(keras.layers.Dropout(0.5)))
    assert found == ("layer 1", "Dense", "Dropout")
    policy = keras.layers.Dense(2, dtype="mixed_bfloat16")
    name, before, now = difference(chain(dense(2)), chain(policy))
    assert (name, before, now) == ("layer 1 (Dense), dtype, name", "float32", "mixed_bfloat16")


@pytest.mark.nightly  # two processes
def test_it_is_the_same_in_every_process():
    program = BUILD + textwrap.dedent(
        """
        import json
        from kregs.search.fingerprint import fingerprint
        keras.layers.Dense(1), keras.layers.Dense(1)
        print(json.dumps(fingerprint(build()), sort_keys=True))
        """
    )
    printed = [
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed, "TF_CPP_MIN_LOG_LEVEL": "3"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert printed[0] == printed[1]
    assert len(printed[0]) > 1000


# ---- a search is held to it ----------------------------------------------------------------


def searched(units, more=0, loss="mse"):
    """A build whose trials are alike to the oracle, whatever `units` is."""

    def function(hp):
        rate = hp.Choice("rate", [0.03, 0.1])
        model = keras.Sequential(
            [
                keras.Input((3,)),
                keras.layers.Dense(units + (more if rate == 0.1 else 0)),
                keras.layers.Dense(1),
            ]
        )
        return kregs.compile_model(model, loss, learning_rate=rate)

    return function


def tune(function, data, path, **changes):
    few = {"oracle": "grid", "epochs": 1, "directory": path, "verbose": 0}
    return kregs.tune(function, *data, **few | changes)


def test_a_search_goes_on_with_the_model_that_it_began_with_only(linear_data, tmp_path):
    tune(searched(4), linear_data, tmp_path, max_trials=1)
    before = (tmp_path / "search" / "result.json").read_bytes()
    for other, words in (
        (searched(64), r"layer 1 \(Dense\), units: 4\. Received: 64"),
        (searched(4, loss="mae"), "loss"),
    ):
        with pytest.raises(ValueError, match=rf"`resume`.*`build` makes another.*{words}"):
            tune(other, linear_data, tmp_path, resume=True)
    assert (tmp_path / "search" / "result.json").read_bytes() == before
    result = tune(searched(4), linear_data, tmp_path, resume=True)
    assert len(result.trials()) == 2


def test_a_trial_is_built_as_it_was(linear_data, tmp_path):
    result = tune(searched(4), linear_data, tmp_path)
    rates = {t["hyperparameters"]["rate"]: t["trial"] for t in result.record.trials}
    # the same at the default point, another one at 0.1
    other = kregs.load_result(result.path, build=searched(4, more=3))
    assert other.build_model(rates[0.03]).count_params() == 21
    with pytest.raises(ValueError, match=rf"trial {rates[0.1]} .*units: 4\. Received: 7"):
        other.build_model(rates[0.1])
    assert result.chosen_trial == rates[0.1]
    for use in (other.best_model, lambda: other.refit(*linear_data), lambda: other.ensemble(2)):
        with pytest.raises(ValueError, match="`build` makes another model of trial"):
            use()
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        with pytest.raises(ValueError, match=r"dtype, name: float32\. Received: mixed_bfloat16"):
            result.best_model()
    finally:
        keras.config.set_dtype_policy(policy)


def test_what_trained_each_trial_is_recorded(linear_data, tmp_path, eager):
    for engine in ("population", "sequential"):
        result = tune(searched(4), linear_data, tmp_path, engine=engine, project_name=engine)
        assert [trial["engine"] for trial in result.record.trials] == [engine] * 2
        assert result.protocol.dtype_policy == "float32"


def test_a_promoted_trial_has_the_model_that_it_goes_on_from(linear_data, tmp_path):
    class Changed:
        """Another model once the first round has ended."""

        changed = False

        def __call__(self, hp):
            hp.Float("nothing", 0.0, 1.0)
            units = 5 if self.changed and "tuner/trial_id" in hp.values else 4
            return searched(units)(hp)

    function = Changed()
    tuner = kregs.PopulationTuner(
        function, "val_loss", oracle="hyperband", max_epochs=4, factor=2, seed=1,
        max_consecutive_failed_trials=99, directory=tmp_path,
    )  # fmt: skip
    end = tuner.on_trial_end

    def on_trial_end(trial):
        function.changed = True
        end(trial)

    tuner.on_trial_end = on_trial_end
    x, y = linear_data
    tuner.search(x, y, validation_data=(x, y), verbose=0)
    promoted = [
        t for t in tuner.oracle.trials.values() if t.hyperparameters.values.get("tuner/trial_id")
    ]
    assert promoted
    for trial in promoted:
        assert trial.status == "FAILED"
        assert "which this one goes on from" in trial.message


def test_the_code_of_a_metric_counts():
    def model_with(metric):
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse", metrics=[metric])
        return model

    def spread(y, prediction):
        return keras.ops.std(prediction)

    first = fingerprint(model_with(spread))

    def spread(y, prediction):
        return keras.ops.std(y)

    assert difference(first, fingerprint(model_with(spread))) is not None
