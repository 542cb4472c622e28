"""Initial weights that are drawn late: the same numbers, errors and variables as at once."""

from __future__ import annotations

import copy
import threading

import keras
import numpy as np
import pytest
import tensorflow as tf

from kregs.population.keras_internals import decays_weight
from kregs.population.undrawn import InitialWeights, UndrawnVariable, is_drawn

STOCK = {
    name: getattr(keras.initializers, name)
    for name in (
        "Zeros", "Ones", "RandomNormal", "RandomUniform", "TruncatedNormal", "VarianceScaling",
        "GlorotNormal", "GlorotUniform", "HeNormal", "HeUniform", "LecunNormal", "LecunUniform",
    )
} | {"Constant": lambda: keras.initializers.Constant(0.3)}  # fmt: skip


def network(**dense):
    inputs = keras.Input((5,))
    x = keras.layers.Dense(7, "relu", **dense)(inputs)
    x = keras.layers.Dropout(0.5)(keras.layers.BatchNormalization()(x))
    model = keras.Model(inputs, keras.layers.Dense(3)(x))
    model.compile("adam", "mse", metrics=["mae"])
    return model


def built(build, late, seed=0, **arguments):
    keras.utils.clear_session()
    keras.utils.set_random_seed(seed)
    if not late:
        return build(**arguments)
    with InitialWeights().drawn_late():
        return build(**arguments)


def variables_of(model):
    return [*model.variables, *model.optimizer.variables]


@pytest.mark.parametrize("name", STOCK)
@pytest.mark.parametrize("dtype", ["float32", "float64", "mixed_float16"])
def test_all_numbers_are_those_that_keras_draws_at_once(name, dtype):
    make = {"kernel_initializer": STOCK[name], "dtype": dtype}
    plain = built(lambda: network(**{**make, "kernel_initializer": STOCK[name]()}), late=False)
    late = built(lambda: network(**{**make, "kernel_initializer": STOCK[name]()}), late=True)
    assert not any(map(is_drawn, variables_of(late)))
    for one, other in zip(variables_of(plain), variables_of(late), strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())
        assert not is_drawn(other)
        np.testing.assert_array_equal(one.numpy(), np.array(other))
        np.testing.assert_array_equal(one.numpy(), other.value.numpy())
        assert type(other) is keras.Variable
        assert one.value.name == other.value.name
        assert one.value.dtype == other.value.dtype
        assert one.value.trainable == other.value.trainable
        assert one.path == other.path


def test_fit_is_the_same():
    x = np.random.default_rng(0).normal(size=(64, 5)).astype("float32")
    histories = []
    for late in (False, True):
        model = built(network, late)
        keras.utils.set_random_seed(1)
        histories.append(model.fit(x, x[:, :3], epochs=3, verbose=0).history)
    assert histories[0] == histories[1]


def test_equal_draws_are_made_once(monkeypatch):
    calls = []
    draw = keras.initializers.HeNormal.__call__
    monkeypatch.setattr(
        keras.initializers.HeNormal,
        "__call__",
        lambda self, *args, **kwargs: calls.append(self.seed) or draw(self, *args, **kwargs),
    )
    initial_weights = InitialWeights()

    def kernel(seed):
        with initial_weights.drawn_late():
            layer = keras.layers.Dense(4, kernel_initializer=keras.initializers.HeNormal(seed))
            layer.build((None, 3))
        return layer.kernel

    first, second, other = kernel(1), kernel(1), kernel(2)
    assert calls == []
    np.testing.assert_array_equal(first.numpy(), second.numpy())
    first.assign(first + 1.0)  # its own from now on
    assert not np.array_equal(other.numpy(), second.numpy())
    np.testing.assert_array_equal(first.numpy(), second.numpy() + 1.0)
    assert calls == [1, 2]


def test_what_is_kept_has_a_bound(monkeypatch):
    monkeypatch.setattr("kregs.population.undrawn._KEPT_BYTES", 3 * 40)
    initial_weights = InitialWeights()
    with initial_weights.drawn_late():
        variables = [
            keras.Variable(keras.initializers.RandomNormal(seed=n), (10,)) for n in range(9)
        ]
    arrays = [variable.numpy() for variable in variables]
    assert len(initial_weights) == 3
    for variable, array in zip(variables, arrays, strict=True):
        np.testing.assert_array_equal(variable.numpy(), array)


def test_a_large_weight_is_made_at_once(monkeypatch):
    monkeypatch.setattr("kregs.population.undrawn._LARGEST_BYTES", 100)
    with InitialWeights().drawn_late():
        small, large = (keras.Variable("zeros", (n,), "float32") for n in (25, 26))
    assert [is_drawn(small), is_drawn(large)] == [False, True]


class Counting(keras.initializers.Initializer):
    """Each call draws what the calls before leave to it."""

    calls = 0

    def __call__(self, shape, dtype=None):
        Counting.calls += 1
        return keras.ops.full(shape, Counting.calls, dtype)


def test_what_depends_on_when_it_is_drawn_is_drawn_at_once():
    generator = keras.random.SeedGenerator(3)
    with InitialWeights().drawn_late():
        layers = [keras.layers.Dense(2, kernel_initializer=Counting()) for _ in range(2)]
        for layer in layers:
            layer.build((None, 2))
        normal = keras.initializers.RandomNormal(seed=generator)
        drawn = [keras.Variable(normal, (3,)) for _ in range(2)]
    assert [float(layer.kernel[0, 0]) for layer in layers] == [1.0, 2.0]
    assert all(map(is_drawn, [*drawn, *(layer.kernel for layer in layers)]))
    again = keras.random.SeedGenerator(3)
    expected = [keras.random.normal((3,), stddev=0.05, seed=again) for _ in range(2)]
    for variable, value in zip(drawn, expected, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


def test_an_initializer_that_is_changed_later_has_drawn_before():
    initializer = keras.initializers.RandomNormal(seed=1)
    with InitialWeights().drawn_late():
        variable = keras.Variable(initializer, (3,))
        initializer.seed = 2
    expected = keras.initializers.RandomNormal(seed=1)((3,))
    np.testing.assert_array_equal(variable.numpy(), expected)


def failing(shape, dtype):
    raise RuntimeError(f"no {dtype} of shape {shape}")


@pytest.mark.parametrize("initializer", ["orthogonal", "identity", failing])
def test_errors_come_as_the_weight_is_made(initializer):
    def error():
        try:
            keras.layers.Dense(2, bias_initializer=initializer).build((None, 2))
        except Exception as error:
            return type(error), str(error)
        return None

    plain = error()
    assert plain is not None
    with InitialWeights().drawn_late():
        assert error() == plain


def test_a_weight_frozen_before_it_is_drawn_can_be_trained_later():
    model = built(network, late=True)
    layer = model.layers[1]
    layer.trainable = False
    model(np.ones((2, 5), "float32"))
    assert layer.kernel.value.trainable
    assert not layer.kernel.trainable
    layer.trainable = True
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(tf.ones((2, 5))))
    assert tape.gradient(loss, layer.kernel.value) is not None


def test_assigned_loaded_and_copied_weights(tmp_path):
    source = built(network, late=False, seed=5)
    source.save_weights(tmp_path / "of.weights.h5")
    late = built(network, late=True)
    late.load_weights(tmp_path / "of.weights.h5")
    assert not any(map(is_drawn, late.weights))
    for one, other in zip(source.weights, late.weights, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())
    given = np.full(3, 2.0, "float32")
    bias = late.layers[-1].bias
    bias.assign(given)
    given[:] = 7.0
    copied = copy.deepcopy(bias)
    bias.assign_add(np.ones(3))
    assert copied.numpy().tolist() == [2.0] * 3
    assert bias.numpy().tolist() == [3.0] * 3
    with pytest.raises(ValueError, match="must match"):
        built(network, late=True).layers[-1].bias.assign(np.ones(4))


def test_first_used_in_a_graph():
    layer = built(lambda: keras.layers.Dense(3), late=True)
    with InitialWeights().drawn_late():
        layer.build((None, 2))
    expected = layer.kernel.numpy()

    @tf.function
    def product(x):
        return layer(x)

    np.testing.assert_array_equal(product(tf.eye(2)), expected)
    assert is_drawn(layer.kernel)

    with InitialWeights().drawn_late():
        bias = keras.Variable("zeros", (2,))

    @tf.function
    def add():
        bias.assign(bias + 1.0)

    add()
    add()
    assert bias.numpy().tolist() == [2.0, 2.0]


def test_a_stateless_scope_has_its_own_values():
    with InitialWeights().drawn_late():
        variable = keras.Variable("zeros", (2,))
    with keras.StatelessScope(state_mapping=[(variable, tf.ones(2))]):
        assert variable.numpy().tolist() == [1.0, 1.0]
    assert variable.numpy().tolist() == [0.0, 0.0]


def test_layers_that_are_built_when_they_are_called():
    def build():
        return keras.Sequential([keras.Input((4,)), Lazy()])

    class Lazy(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.inner = keras.layers.Dense(2)

        def call(self, inputs):
            return self.inner(inputs)

    arrays = [built(build, late).get_weights() for late in (False, True)]
    for one, other in zip(*arrays, strict=True):
        np.testing.assert_array_equal(one, other)


def test_other_threads_and_other_times_are_left_alone():
    made = []

    def make():
        made.append(keras.Variable("zeros", (2,)))

    before = dict(vars(keras.Variable))
    with InitialWeights().drawn_late():
        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        with InitialWeights().drawn_late():
            make()
        make()
    make()
    assert [is_drawn(variable) for variable in made] == [True, False, False, True]
    assert dict(vars(keras.Variable)) == before


def test_where_tensorflow_is_told_a_place_the_variable_is_made_there():
    with InitialWeights().drawn_late():
        with tf.device("CPU:0"):
            placed = keras.Variable("zeros", (2,))
        with tf.distribute.OneDeviceStrategy("CPU:0").scope():
            distributed = keras.Variable("zeros", (2,))
        creator_scope = tf.variable_creator_scope(lambda create, **kwargs: create(**kwargs))
        with creator_scope:
            created = keras.Variable("zeros", (2,))
    assert all(map(is_drawn, (placed, distributed, created)))


def test_drawn_by_several_threads_at_once():
    with InitialWeights().drawn_late():
        variables = [keras.Variable("ones", (3,)) for _ in range(20)]
    seen = [[] for _ in range(4)]

    def read(values):
        values += [variable.value for variable in variables]

    threads = [threading.Thread(target=read, args=(values,)) for values in seen]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for values in seen[1:]:
        assert all(one is other for one, other in zip(seen[0], values, strict=True))


def test_an_undrawn_variable_is_a_variable_of_keras():
    with InitialWeights().drawn_late():
        variable = keras.Variable("ones", (2,))
    assert isinstance(variable, keras.Variable)
    assert type(variable) is UndrawnVariable
    assert (tuple(variable.shape), variable.dtype) == ((2,), "float32")
    assert not is_drawn(variable)
    assert keras.ops.sum(variable) == 2.0


@pytest.mark.parametrize("names", [None, ["bias"], ["kernel", "gamma"]])
def test_weight_decay_is_asked_for_without_a_draw(names):
    def build():
        model = network()
        optimizer = keras.optimizers.AdamW()
        optimizer.exclude_from_weight_decay(var_names=names)
        model.compile(optimizer, "mse")
        return model

    plain, late = (built(build, late) for late in (False, True))
    decays = [[decays_weight(m.optimizer, v) for v in m.trainable_weights] for m in (plain, late)]
    assert decays[0] == decays[1]
    assert decays[0] == [plain.optimizer._use_weight_decay(v) for v in plain.trainable_weights]
    assert not any(map(is_drawn, late.weights))
    late.optimizer = keras.optimizers.AdamW()
    kernel = late.trainable_weights[0]
    late.optimizer.exclude_from_weight_decay(var_list=[kernel])
    assert [decays_weight(late.optimizer, v) for v in late.trainable_weights[:2]] == [False, True]
