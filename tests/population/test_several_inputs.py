"""Models with several inputs and outputs: each member ends where Keras's `fit` ends."""

import collections
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, losses, metrics, optimizers, regularizers

import kregs
from kregs.population import NotStackable, Population
from kregs.population.jobs import Job
from kregs.population.layout import Layout
from kregs.population.objective import StackedLoss
from kregs.population.rows import Feed, as_rows
from kregs.population.signature import read_member
from kregs.population.training import Training

RNG = np.random.default_rng(0)
ROWS = 22
FIT = {"epochs": 1, "batch_size": 8, "shuffle": False}
A, B = (RNG.normal(size=(ROWS, size)).astype("float32") for size in (3, 1))
KIND = np.eye(3, dtype="float32")[RNG.integers(0, 3, ROWS)]
SIZE = RNG.normal(size=ROWS).astype("float32")
WEIGHT = np.linspace(0.1, 2.0, ROWS).astype("float32")


def body(k):
    """Inputs, a layer that reads both, and one that reads a single one; by member, 0 or 1."""
    a, b = keras.Input((3,), name="a"), keras.Input((1,), name="b")
    hidden = layers.Concatenate()([b, a])
    penalty = regularizers.L2((0.2, 0.03)[k])
    return a, b, layers.Dense(4, "tanh", kernel_regularizer=penalty)(hidden), layers.Dense(2)(a)


def test_a_noise_layer_that_acts_on_several_tensors_is_named():
    """As in an encoder that two inputs share."""
    one, other = keras.Input((4,)), keras.Input((4,))
    encoder = keras.Sequential([layers.Dense(8), layers.Dropout(0.3, name="drop"), layers.Dense(2)])
    model = keras.Model([one, other], layers.Subtract()([encoder(one), encoder(other)]))
    model.compile("sgd", "mse")
    with pytest.raises(NotStackable, match="noise layer 'drop' acts on several tensors"):
        Population.from_models([model])


def sgd(k):
    return optimizers.SGD((0.2, 0.05)[k])


def two_inputs(k):
    """Two metrics of one name."""
    a, b, hidden, _ = body(k)
    model = keras.Model([b, a], layers.Dense(3, "softmax")(hidden))
    model.compile(
        sgd(k), "categorical_crossentropy", metrics=["accuracy"],
        weighted_metrics=["accuracy", "mse"],
    )  # fmt: skip
    return model


def two_outputs(k):
    """Lists; one output is read by the other."""
    a, b, hidden, _ = body(k)
    kind = layers.Dense(3, "softmax", name="kind")(hidden)
    size = layers.Dense(1, name="size")(layers.Concatenate()([kind, a]))
    model = keras.Model((a, b), [kind, size])
    model.compile(
        sgd(k), ["categorical_crossentropy", "mse"], loss_weights=[0.5, 3.0],
        metrics={"kind": ["accuracy"], "size": "mae"}, weighted_metrics=[None, ["mae"]],
    )  # fmt: skip
    return model


def dictionaries(k):
    """Keys in no alphabetical order; label smoothing of each member's own, and data losses."""
    a, b, hidden, other = body(k)
    outputs = {
        "size": layers.Dense(1, name="size")(other),
        "kind": layers.Dense(3, "softmax", name="kind")(hidden),
    }
    smoothed = losses.CategoricalCrossentropy(label_smoothing=(0.3, 0.1)[k])
    return kregs.compile_model(
        keras.Model({"b": b, "a": a}, outputs), {"size": "mse", "kind": smoothed},
        loss_weights={"kind": 2.0, "size": 0.5}, metrics={"size": ["mae"]}, optimizer=sgd(k),
    )  # fmt: skip


def cubes(y, prediction):
    """A loss of one's own, of which the engine knows no form."""
    return keras.ops.mean(keras.ops.abs(y - prediction) ** 3)


def own_loss(k):
    """One loss for both outputs, which are layers without names."""
    a, b, hidden, other = body(k)
    model = keras.Model([a, b], [layers.Dense(1)(hidden), layers.Dense(1)(other)])
    model.compile(sgd(k), cubes, weighted_metrics=["mse", "mae"])
    return model


TWO = [KIND, SIZE[:, None]]
# build, x, y, sample weights, how many rows to train on
CASES = {
    "two inputs": (two_inputs, [B, A], KIND, WEIGHT, 22),
    "two outputs": (two_outputs, {"a": A, "b": B[:, 0]}, TWO, WEIGHT, 16),
    "dictionaries": (dictionaries, {"a": A, "b": B}, {"kind": KIND, "size": SIZE}, None, 16),
    "own loss": (own_loss, (A, B), (SIZE[:, None], -SIZE), WEIGHT, 16),
}


def take(data, rows):
    return keras.tree.map_structure(lambda array: None if array is None else array[rows], data)


def pair_of(build):
    """Two members with different weights, always the same."""
    keras.utils.set_random_seed(3)
    return [build(0), build(1)]


def assert_close(ours, theirs, message=""):
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5, err_msg=message)


def assert_same_weights(model, reference):
    for ours, theirs in zip(model.get_weights(), reference.get_weights(), strict=True):
        assert_close(ours, theirs)


def assert_same_logs(ours, theirs):
    assert list(ours) == list(theirs)
    for name, values in theirs.items():
        assert_close(ours[name], values, name)


@pytest.mark.parametrize("name", CASES)
def test_a_member_is_what_fit_gives(name):
    build, x, y, weight, rows = CASES[name]
    held = take((x, y), slice(8))
    x, y, weight = take((x, y, weight), slice(rows))
    fit = {**FIT, "sample_weight": weight, "validation_data": held}
    population = Population.from_models(pair_of(build))
    logs = population.fit(x, y, accelerate=False, **fit)[1]
    scores, predictions = population.evaluate(*held, batch_size=8), population.predict(x)
    _, reference = pair_of(build)
    # without a trace: where batches are alike, Keras's loss of an output is the same
    reference.run_eagerly = True
    expected = reference.fit(x, y, verbose=0, **fit).history
    evaluated = reference.evaluate(*held, batch_size=8, verbose=0, return_dict=True)
    if name == "own loss":  # outputs without names are called as those of the first member
        first = population.models[0].output_names
        names = dict(zip(reference.output_names, first, strict=True))
        expected, evaluated = (
            {re.sub(r"dense_\d+", lambda found: names[found[0]], key): each[key] for key in each}
            for each in (expected, evaluated)
        )
        logs, scores, expected, evaluated = (
            dict(sorted(each.items())) for each in (logs, scores, expected, evaluated)
        )
    assert_same_logs(logs, expected)
    assert_same_logs({name: values[1] for name, values in scores.items()}, evaluated)
    assert_same_weights(population.unstack()[1], reference)
    theirs = reference.predict(x, verbose=0)
    keras.tree.assert_same_structure(predictions, theirs)
    keras.tree.map_structure(lambda own, each: assert_close(own[1], each), predictions, theirs)


def scored(k):
    """Two outputs; a metric of one is no mean over rows, so that predictions are collected."""
    a, b = keras.Input((3,)), keras.Input((1,))
    penalty = regularizers.L2((0.2, 0.03)[k])
    kind = layers.Dense(3, "softmax", kernel_regularizer=penalty, name="kind")(a)
    model = keras.Model([a, b], [kind, layers.Dense(1, name="size")(b)])
    model.compile(
        sgd(k), ["categorical_crossentropy", "mse"],
        weighted_metrics={"kind": [metrics.F1Score(name="f1")]},
    )  # fmt: skip
    return model


def test_with_xla():
    fit = {**FIT, "sample_weight": WEIGHT}
    population = Population.from_models(pair_of(scored))
    x, y = [A, B], {"size": SIZE[:, None], "kind": KIND}
    logs = population.fit(x, y, accelerate=True, **fit)[1]
    _, reference = pair_of(scored)
    reference.run_eagerly = True
    expected = reference.fit(x, [KIND, SIZE], verbose=0, **fit).history
    for name in ("loss", "kind_f1"):
        assert_close(logs[name], expected[name], name)
    assert_same_weights(population.unstack()[1], reference)


def test_members_with_rows_of_their_own():
    """One has no row any more while the other goes on; the last batch of each is short."""
    models = pair_of(two_outputs)
    members = [read_member(model) for model in models]
    rows = as_rows({"a": A, "b": B}, (KIND, SIZE[:, None]), WEIGHT)
    own = [(np.arange(22), np.arange(22)), (np.arange(9), np.arange(9, 18))]
    jobs = [
        Job(member, None, 0, [], 1, train_rows=train, validation_rows=held, keep_end=True)
        for member, (train, held) in zip(members, own, strict=True)
    ]
    feed = Feed(rows, rows, 8, shuffle=False)
    layout = Layout(members)
    for _ in Training(layout, 2, feed, accelerate=False).run(collections.deque(jobs)):
        pass
    _, reference = pair_of(two_outputs)
    train, held = (take(([A, B], [KIND, SIZE], WEIGHT), part) for part in own[1])
    expected = reference.fit(
        *train[:2], sample_weight=train[2], validation_data=held, epochs=1, batch_size=8,
        shuffle=False, verbose=0,
    ).history  # fmt: skip
    assert_same_logs(jobs[1].history, expected)
    for ours, variable in zip(jobs[1].best_weights, members[1].weights, strict=True):
        variable.assign(ours)
    assert_same_weights(models[1], reference)


@pytest.mark.parametrize("as_dictionaries", [True, False])
def test_datasets_are_streamed(as_dictionaries):
    """The same as arrays, whether their elements are dictionaries or tuples."""
    x, y = ({"a": A, "b": B}, {"kind": KIND, "size": SIZE[:, None]})
    if not as_dictionaries:
        x, y = (A, B), (KIND, SIZE[:, None])
    dataset = tf.data.Dataset.from_tensor_slices((x, y, WEIGHT)).batch(8)
    population = Population.from_models(pair_of(two_outputs))
    streamed = population.fit(dataset, epochs=1, accelerate=False)[1]
    _, reference = pair_of(two_outputs)
    reference.run_eagerly = True
    expected = reference.fit(dataset, epochs=1, shuffle=False, verbose=0).history
    for name in ("loss", "kind_accuracy", "size_weighted_mae"):
        assert_close(streamed[name], expected[name], name)
    assert_same_weights(population.unstack()[1], reference)


def named(name, inputs=("a", "b"), sizes=(1, 1)):
    ends = {key: keras.Input((size,), name=key) for key, size in zip(inputs, sizes, strict=True)}
    hidden = layers.Concatenate()(list(ends.values()))
    outputs = [layers.Dense(1, name=name)(hidden), layers.Dense(1)(hidden)]
    model = keras.Model(list(ends.values()), outputs)
    model.compile("sgd", "mse")
    return model


@pytest.mark.parametrize(
    ("first", "other", "message"),
    [
        (named("one"), named("two"), r"output names.*'one', 1.*'two', 1"),
        (named("one"), named("one", ("a", "c")), r"'inputs'.*'a', 'b'.*'a', 'c'"),
        (named("one", sizes=(1, 2)), named("one", sizes=(2, 1)), r"input shapes"),
    ],
)
def test_what_members_must_share(first, other, message):
    with pytest.raises(NotStackable, match=message):
        Population.from_models([first, other])


def test_names_that_keras_makes_may_differ():
    models = [named("one"), named("one")]
    assert models[0].output_names != models[1].output_names
    assert len(Population.from_models(models)) == 2


ONE = B[:, 0]


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        ({"x": {"a": B, "c": B}}, ValueError, "`x` .*inputs of this model, 'a', 'b'.*'a', 'c'"),
        ({"x": B}, ValueError, r"`x` must hold 2 input\(s\)"),
        ({"x": (A, B)}, ValueError, r"`x` .*shape \(1,\) for the input 'a'.* \(3,\)"),
        ({"x": [B, B[:9]]}, ValueError, r"x\[1\] has 9"),
        ({"y": ONE}, ValueError, r"`y` must hold targets for 2 output"),
        ({"y": {"one": ONE, "two": ONE}}, ValueError, "`y` and `loss` must fit the outputs"),
        ({"class_weight": {0: 2.0}}, ValueError, "`class_weight` must be None with several"),
        ({"sample_weight": {"one": ONE}}, TypeError, "`sample_weight` must be one number a row"),
        ({"sample_weight": [ONE, ONE]}, ValueError, "`sample_weight` must have 22 rows"),
    ],
)
def test_bad_data(data, error, message):
    population = Population.from_models([named("one")])
    with pytest.raises(error, match=message):
        population.fit(**{"x": [B, B], "y": [ONE, ONE], **data})


def test_weights_of_each_output_are_left_to_fit():
    with pytest.raises(NotStackable, match="`sample_weight` has weights for each output"):
        as_rows(A, (KIND, SIZE), {"kind": WEIGHT, "size": WEIGHT})


def test_a_loss_of_several_outputs_at_once_is_left_to_fit():
    x = keras.Input((1,))
    model = keras.Model(x, {"both": [layers.Dense(1)(x), layers.Dense(1)(x)]})
    model.compile("sgd", {"both": lambda y, prediction: y[0] + y[1] - prediction[0]})
    few = [{"both": [tf.zeros([2, 1]), tf.zeros([2, 1])]} for _ in range(2)]
    with pytest.raises(NotStackable, match="a loss compares several outputs at once"):
        StackedLoss(model, *few)


def test_an_output_without_a_loss_and_weight_decay_are_left_to_fit():
    """Keras decays no weight that has no gradient."""
    model = named("one")
    model.compile(optimizers.AdamW(), ["mse", None])
    with pytest.raises(NotStackable, match="weight decay, and an output without a loss"):
        Population.from_models([model]).fit([B, B], [ONE, ONE])
