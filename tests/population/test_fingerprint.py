"""Functions, classes and objects of one name are told apart by what they compute."""

from __future__ import annotations

import functools
import re

import keras
import numpy as np
import pytest
from keras import layers

from kregs.population import NotStackable, Population, StackedLayer, register
from kregs.population.fingerprint import fingerprint
from kregs.population.signature import read_member

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(40, 4)), RNG.normal(size=(40, 2))
EXPONENT = 2.0


def power(y, prediction, exponent=2.0):
    return keras.ops.mean(keras.ops.abs(y - prediction) ** exponent, axis=-1)


def build(number, *, loss=None, metric=None, activation=None, between=()):
    body = [layers.Dense(3, activation=activation), *between, layers.Dense(2)]
    model = keras.Sequential([keras.Input((4,)), *body])
    model.compile(keras.optimizers.SGD(number / 100), loss or "mse", metrics=metric and [metric])
    return model


def closure(n):
    def loss(y, prediction):
        return n * power(y, prediction)

    return build(n, loss=loss)


def nested_closure(n):
    def inner():
        return {"factors": [n]}

    return build(n, loss=lambda y, p: inner()["factors"][0] * power(y, p))


def default(n):
    def loss(y, prediction, factor=n):
        return factor * power(y, prediction)

    return build(n, loss=loss)


def partial(n):
    return build(n, loss=functools.partial(power, exponent=n))


def array(n):
    factors = np.array([1.0, n])
    return build(n, loss=lambda y, p: keras.ops.mean(factors * keras.ops.square(y - p), -1))


def bound_method(n):
    class Distance:
        def __init__(self):
            self.exponent = n

        def measure(self, y, prediction):
            return power(y, prediction, self.exponent)

    return build(n, loss=Distance().measure)


def loss_class(n):
    class Power(keras.losses.Loss):
        def call(self, y, prediction):
            return power(y, prediction, n)

    return build(n, loss=Power())


def loss_attribute(n):
    loss = OwnLoss()
    loss.exponent = n
    return build(n, loss=loss)


class OwnLoss(keras.losses.Loss):
    exponent = 2.0

    def call(self, y, prediction):
        return power(y, prediction, self.exponent)


def global_of_another_module(n):
    scope = {"keras": keras, "FACTOR": n}
    exec("def loss(y, p): return FACTOR * keras.ops.mean(keras.ops.abs(y - p), -1)", scope)
    return build(n, loss=scope["loss"])


def metric(n):
    def distance(y, prediction):
        return n * power(y, prediction)

    return build(n, metric=distance)


def metric_class(n):
    class Distance(keras.metrics.Mean):
        def update_state(self, y, prediction, sample_weight=None):
            return super().update_state(n * power(y, prediction), sample_weight)

    return build(n, metric=Distance(name="distance"))


class Distance(keras.metrics.MeanMetricWrapper):
    def __init__(self, n):
        super().__init__(power, name="distance", exponent=n)


def metric_argument(n):
    return build(n, metric=Distance(n))


def metric_attribute(n):
    metric = Distance(2.0)
    metric.factors = [n]
    return build(n, metric=metric)


def activation(n):
    def scaled(value):
        return keras.ops.tanh(n * value)

    return build(n, activation=scaled)


def activation_lambda(n):
    return build(n, activation=lambda value: keras.ops.tanh(n * value))


def activation_of_a_cell(n):
    def scaled(value):
        return keras.ops.tanh(n * value)

    between = [layers.Reshape((3, 1)), layers.LSTM(2, activation=scaled)]
    return build(n, between=between)


def activation_layer(n):
    def scaled(value):
        return keras.ops.tanh(n * value)

    return build(n, between=[layers.Activation(scaled)])


def long_mean(n):
    """Differs where NumPy abbreviates what it prints."""
    mean = np.zeros(2000)
    mean[1000] = n
    inputs = keras.Input((4,))
    wide = layers.Normalization(mean=mean, variance=np.ones(2000))(layers.Dense(2000)(inputs))
    model = keras.Model(inputs, layers.Dense(2)(wide))
    model.compile("sgd", "mse")
    return model


class Scale(keras.layers.Layer):
    """Its config does not tell the factor."""

    def __init__(self, factor, **kwargs):
        super().__init__(**kwargs)
        self._factor = factor

    def call(self, x):
        return self._factor * x

    def get_config(self):
        return {"name": self.name}


@register(Scale)
class StackedScale(StackedLayer):
    def call(self, x, *, context):
        return x.like(x.value * self.layer._factor)


def layer_attribute(n):
    return build(n, between=[Scale(n)])


def layer_class(n):
    class Shift(keras.layers.Layer):
        def call(self, x):
            return x + n

    @register(Shift)
    class StackedShift(StackedLayer):
        def call(self, x, *, context):
            return x.like(x.value + n)

    return build(n, between=[Shift()])


KINDS = [
    closure, nested_closure, default, partial, array, bound_method, loss_class, loss_attribute,
    global_of_another_module, metric, metric_class, metric_argument, metric_attribute, activation,
    activation_lambda, activation_of_a_cell, activation_layer, long_mean, layer_attribute,
    layer_class,
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_one_name_is_not_one_structure(kind):
    one, other, again = (read_member(kind(n)) for n in (3.0, 1.5, 3.0))
    assert one.signature != other.signature
    assert one.signature == again.signature
    with pytest.raises(NotStackable, match=r"differ in structure: .*field"):
        Population.from_models([one.model, other.model])


def test_the_message_names_what_is_closed_over():
    with pytest.raises(NotStackable, match=r"loss with n=3.0 and closure.<locals>.loss with n=1.5"):
        Population.from_models([closure(3.0), closure(1.5)])


def cycle():
    values = [1.0]
    values.append(values)

    def function():
        return values, function

    return function


def test_same_source_is_one_value_wherever_it_stands():
    one = fingerprint(lambda y: y * EXPONENT)
    other = fingerprint(lambda y: y * EXPONENT)
    assert one == other
    assert one != fingerprint(lambda y: y * -EXPONENT)
    assert fingerprint(cycle()) == fingerprint(cycle())
    assert fingerprint((1, True)) != fingerprint((1, 1))


class Slotted:
    __slots__ = ("value",)

    def __init__(self, value):
        self.value = value


class Number(float):
    """Its value is none of its attributes."""


def test_objects_are_their_class_and_attributes():
    assert fingerprint(Slotted(2.0)) == fingerprint(Slotted(2.0))
    assert fingerprint(Slotted(2.0)) != fingerprint(Slotted(1.0))
    assert fingerprint([Slotted]) != fingerprint([Number])
    # what is written in C is the same only if it is one object
    for one, other in ((Number(2.0), Number(1.0)), (re.compile("a"), re.compile("b"))):
        assert fingerprint(one) != fingerprint(other)
        assert fingerprint(one) == fingerprint(one)
    assert fingerprint(functools.lru_cache(power)) == fingerprint(functools.lru_cache(power))
    later = fingerprint(lambda: not_yet)
    not_yet = 1
    assert later != fingerprint(lambda: not_yet)


def test_globals_are_read_when_the_model_is():
    function = lambda y: y * EXPONENT  # noqa: E731
    before = fingerprint(function)
    globals()["EXPONENT"] = 3.0
    try:
        assert fingerprint(function) != before
    finally:
        globals()["EXPONENT"] = 2.0
    assert fingerprint(function) == before


def test_a_loss_that_uses_the_models_own_weights_cannot_be_stacked():
    model = build(2.0)
    kernel = model.layers[0].kernel
    model.compile("sgd", lambda y, p: power(y, p) + keras.ops.sum(kernel**2))
    with pytest.raises(NotStackable, match="a weight of the model itself"):
        Population.from_models([model])


def test_a_loss_may_use_the_weights_of_another_model():
    teacher = keras.Sequential([keras.Input((2,)), layers.Dense(2)])
    models = [build(n, loss=lambda y, p: power(teacher(y), p)) for n in (2.0, 1.0)]
    assert len(Population.from_models(models)) == 2
    other = keras.models.clone_model(teacher)
    with pytest.raises(NotStackable, match="field 'loss'"):
        Population.from_models([models[0], build(2.0, loss=lambda y, p: power(other(y), p))])


def test_each_member_begins_with_the_weights_of_its_own_initializer(double, eager):
    """An initializer is done once a model is built: it is no part of the structure."""

    def filled(n):
        def constant(shape, dtype=None):
            return keras.ops.full(shape, n / 10, dtype)

        inputs = keras.Input((4,))
        model = keras.Model(inputs, layers.Dense(2, kernel_initializer=constant)(inputs))
        model.compile(keras.optimizers.SGD(0.1), "mse")
        return model

    population = Population.from_models([filled(n) for n in (3.0, 1.5)])
    population.fit(X, Y, shuffle=False, accelerate=False)
    for model, n in zip(population.unstack(), (3.0, 1.5), strict=True):
        reference = filled(n)
        reference.fit(X, Y, shuffle=False, verbose=0)
        for one, other in zip(model.get_weights(), reference.get_weights(), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-8)


def own_regularizer(n):
    class L2(keras.regularizers.L2):  # the name of Keras's
        def __call__(self, weight):
            return n * super().__call__(weight)

    return {"kernel_regularizer": L2(0.1)}


def regularizer_function(n):
    return {"activity_regularizer": lambda value: n * keras.ops.sum(value)}


def own_constraint(n):
    class MaxNorm(keras.constraints.MaxNorm):
        def __call__(self, weight):
            return n * super().__call__(weight)

    return {"kernel_constraint": MaxNorm(1.0)}


def orthogonal(n):
    return {"kernel_regularizer": keras.regularizers.OrthogonalRegularizer(n)}


@pytest.mark.parametrize(
    "kind", [own_regularizer, regularizer_function, own_constraint, orthogonal]
)
def test_regularizers_and_constraints_of_ones_own_are_not_taken_for_keras(kind):
    def build(n, rate):
        model = keras.Sequential([keras.Input((4,)), layers.Dense(2, **kind(n))])
        model.compile(keras.optimizers.SGD(rate), "mse")
        return model

    models = [build(0.7, 0.1), build(0.7, 0.05)]
    twins = [build(0.7, 0.1), build(0.7, 0.05)]
    for model, twin in zip(models, twins, strict=True):
        twin.set_weights(model.get_weights())
    population = Population.from_models(models)
    fit = {"batch_size": len(X) // 2 + 1, "epochs": 3, "shuffle": False}  # the last step is short
    histories = population.fit(X, Y, **fit)
    for model, twin, history in zip(population.unstack(), twins, histories, strict=True):
        expected = twin.fit(X, Y, verbose=0, **fit).history
        np.testing.assert_allclose(history["loss"], expected["loss"], rtol=1e-5)
        np.testing.assert_allclose(model.get_weights()[0], twin.get_weights()[0], rtol=1e-5)
    with pytest.raises(NotStackable, match=r"differ in structure: .*(regularizer|constraint)"):
        Population.from_models([build(0.7, 0.1), build(0.9, 0.1)])


model = "a global of the name that an attribute has"


def test_an_attribute_is_no_global():
    class Settings:
        pass

    settings = Settings()
    settings.model = 3.0

    def loss(y, prediction):
        return settings.model * abs(y - prediction)

    global model
    before = fingerprint(loss)
    kept, model = model, "another"
    try:
        assert fingerprint(loss) == before
    finally:
        model = kept


def test_an_object_whose_config_fails_is_read_without():
    class Odd(keras.metrics.Mean):
        def get_config(self):
            raise AttributeError("gone")

    assert fingerprint(Odd(name="odd")) is not None
