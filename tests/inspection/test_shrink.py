"""`kregs.shrink`: what goes is what was planned, and the outputs stay, over random networks."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import kregs

L = keras.layers


def widen(model, rng):
    """Draw all weights anew, none of them zero; variances are positive."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            widen(layer, rng)
            continue
        for weight in layer.weights:
            positive = "variance" in weight.path or "gamma" in weight.path
            low = 0.5 if positive else 0.1
            value = rng.uniform(low, 1.0, weight.shape)
            if not positive:
                value *= rng.choice([-1.0, 1.0], weight.shape) / np.sqrt(np.prod(weight.shape[:-1]))
            weight.assign(value)


def silence(layer, units, weight="kernel"):
    """Let no weight lead to these units."""
    value = np.array(getattr(layer, weight))
    value[..., units] = 0.0
    getattr(layer, weight).assign(value)


def ignore(layer, inputs, axis=-2):
    """Let no weight lead from these inputs."""
    value = np.moveaxis(np.array(layer.kernel), axis, 0)
    value[inputs] = 0.0
    layer.kernel.assign(np.moveaxis(value, 0, axis))


def error(model, smaller, x):
    """Return the largest difference of an output, beside outputs of size 1."""
    before, after = (keras.tree.flatten(m(x, training=False)) for m in (model, smaller))
    return max(
        float(np.max(np.abs(np.asarray(a) - np.asarray(b)) / (1 + np.abs(np.asarray(a)))))
        for a, b in zip(before, after, strict=True)
    )


ACTIVATIONS = {
    "relu": lambda c: max(c, 0.0),
    "tanh": np.tanh,
    "linear": lambda c: c,
    "sigmoid": lambda c: 1 / (1 + np.exp(-c)),
}


class Plan:
    """A random chain of layers, and how many units of each must go, by arithmetic on numbers."""

    def __init__(self, rng, convolutional):
        self.rng = rng
        self.removed, self.left = {}, {}
        shape = (9, 8, 2) if convolutional else (6,)
        layers, hidden = [keras.Input(shape)], []
        for i in range(rng.integers(1, 4)):
            block = self.block(f"layer{i}", convolutional)
            hidden.append(block)
            layers += block
        if convolutional:
            layers.append(
                self.one_of(L.Flatten(), L.GlobalAveragePooling2D(), L.GlobalMaxPooling2D())
            )
            if rng.random() < 0.5:
                hidden.append(self.block("between", False))
                layers += hidden[-1]
        layers.append(L.Dense(3, self.one_of("softmax", None, "sigmoid"), name="head"))
        self.model = keras.Sequential(layers)
        widen(self.model, rng)
        readers = [block[0] for block in hidden[1:]] + [layers[-1]]
        for block, reader in zip(hidden, readers, strict=True):
            self.plant(block, reader)
        self.x = rng.normal(size=(4, *shape))

    def one_of(self, *options):
        return options[self.rng.integers(len(options))]

    def block(self, name, convolutional):
        units, rng = int(self.rng.integers(3, 9)), self.rng
        options = {
            "activation": self.one_of(*ACTIVATIONS),
            "use_bias": bool(rng.random() < 0.7),
            "name": name,
        }
        if convolutional:
            padding = self.one_of("valid", "same")
            layer = L.Conv2D(units, int(rng.integers(1, 4)), padding=padding, **options)
        else:
            layer = L.Dense(units, **options)
        followers = [L.BatchNormalization(name=f"{name}_norm"), L.Dropout(0.3), L.ReLU()]
        if convolutional:
            followers += [L.AveragePooling2D(2, 1), L.SpatialDropout2D(0.1)]
            followers.append(L.MaxPooling2D(2, 1, padding="same"))
        return [layer, *[f for f in followers if rng.random() < 0.5]]

    def plant(self, block, reader):
        layer, units = block[0], block[0].kernel.shape[-1]
        order = self.rng.permutation(units)
        silent, unread = np.split(order[: units - 1], [self.rng.integers(0, units - 1)])
        unread = unread[: len(unread) // 2]
        silence(layer, silent)
        inputs = reader.kernel.shape[-2]
        ignore(reader, [i for i in range(inputs) if i % units in unread])
        constants = {unit: self.constant(block, unit) for unit in silent}
        pads = getattr(reader, "padding", "") == "same" and max(reader.kernel_size) > 1
        stay = [unit for unit, c in constants.items() if pads and c != 0.0]
        self.removed[layer.name] = len(silent) + len(unread) - len(stay)
        self.left[layer.name] = len(stay)

    def constant(self, block, unit):
        layer = block[0]
        c = ACTIVATIONS[layer.activation.__name__](
            float(layer.bias[unit]) if layer.use_bias else 0.0
        )
        for follower in block[1:]:
            if isinstance(follower, L.BatchNormalization):
                gamma, beta, mean, variance = (float(w[unit]) for w in follower.weights)
                c = gamma * (c - mean) / np.sqrt(variance + follower.epsilon) + beta
            elif isinstance(follower, L.ReLU):
                c = max(c, 0.0)
        return c


def check_plan(plan, tolerance):
    shrunk = kregs.shrink(plan.model)
    rows = {row.layer: row for row in shrunk.layers}
    for name, removed in plan.removed.items():
        assert rows[name].removed == removed
        assert rows[name].left == plan.left[name]
        layer = shrunk.model.get_layer(name)
        assert layer.kernel.shape[-1] == rows[name].units - removed
    assert rows["head"].removed == 0
    assert error(plan.model, shrunk.model, plan.x) < tolerance
    assert shrunk.weights_after == shrunk.model.count_params()
    return shrunk


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("convolutional", [False, True])
def test_random_chains_in_double_precision(double, seed, convolutional):
    check_plan(Plan(np.random.default_rng(seed), convolutional), 1e-10)


@pytest.mark.parametrize("seed", range(100, 105))
def test_random_chains_in_single_precision(seed):
    check_plan(Plan(np.random.default_rng(seed), True), 1e-5)
