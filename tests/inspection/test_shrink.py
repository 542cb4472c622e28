"""`kregs.shrink`: what goes is what was planned, and the outputs stay, over random networks."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import kregs

L = keras.layers
numpy_of = keras.ops.convert_to_numpy


@pytest.fixture
def rng():
    return np.random.default_rng(0)


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
    value = numpy_of(getattr(layer, weight)).copy()
    value[..., units] = 0.0
    getattr(layer, weight).assign(value)


def ignore(layer, inputs, axis=-2):
    """Let no weight lead from these inputs."""
    value = np.moveaxis(numpy_of(layer.kernel).copy(), axis, 0)
    value[inputs] = 0.0
    layer.kernel.assign(np.moveaxis(value, 0, axis))


def error(model, smaller, x):
    """Return the largest difference of an output, beside outputs of size 1."""
    before, after = (keras.tree.flatten(m(x, training=False)) for m in (model, smaller))
    return max(
        float(np.max(np.abs(a - b) / (1 + np.abs(a))))
        for a, b in zip(map(numpy_of, before), map(numpy_of, after), strict=True)
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


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("convolutional", [False, True])
def test_random_chains_in_double_precision(double, seed, convolutional):
    check_plan(Plan(np.random.default_rng(seed), convolutional), 1e-10)


@pytest.mark.parametrize("seed", range(100, 102))
def test_random_chains_in_single_precision(seed):
    check_plan(Plan(np.random.default_rng(seed), True), 1e-5)


@pytest.mark.nightly
@pytest.mark.parametrize("convolutional", [False, True])
def test_more_random_chains(double, convolutional):
    planned = set()
    for seed in range(200, 230):
        plan = Plan(np.random.default_rng(seed), convolutional)
        check_plan(plan, 1e-10)
        planned |= {(removed > 0, left > 0) for removed, left in
                    zip(plan.removed.values(), plan.left.values(), strict=True)}  # fmt: skip
    assert len(planned) == (4 if convolutional else 2)  # what goes and what stays both came up


# ---- graphs ---------------------------------------------------------------------------------


def branches(rng):
    """Two branches that are summed twice, and an output on each sum; x + y is no layer."""
    inputs = keras.Input((5,))
    a = L.Dense(6, "tanh", name="a")(inputs)
    b = L.Dense(6, name="b")(inputs)
    first = L.Add()([a, b])
    second = a + first
    hidden = L.Dense(4, "relu", name="hidden")(second)
    outputs = {"one": L.Dense(2, name="one")(first), "two": L.Dense(1, name="two")(hidden)}
    model = keras.Model(inputs, outputs)
    widen(model, rng)
    return model


def test_what_is_summed_goes_only_if_it_is_dead_in_all_branches(double, rng):
    model = branches(rng)
    silence(model.get_layer("a"), [0, 1, 4])
    silence(model.get_layer("b"), [0, 2, 4])
    shrunk = kregs.shrink(model)
    assert shrunk.removed == {"a": 2, "b": 2}
    assert error(model, shrunk.model, rng.normal(size=(8, 5))) < 1e-12
    rows = {row.layer: row for row in shrunk.layers}
    assert (rows["a"].left, rows["b"].left) == (1, 1)
    assert "tied to a channel that one reads" in shrunk.left["a"]
    assert "tied to a channel that hidden reads" in shrunk.left["b"]
    assert list(shrunk.model.output) == ["one", "two"]


def test_an_output_that_nobody_reads_frees_what_leads_to_it(double, rng):
    """Unread units are found back through layers: what only they read goes, too."""
    inputs = keras.Input((5,))
    first = L.Dense(6, "relu", name="first")(inputs)
    second = L.Dense(5, "relu", name="second")(first)
    model = keras.Model(inputs, L.Dense(2, name="head")(second))
    widen(model, rng)
    ignore(model.get_layer("head"), [1, 2])
    kernel = numpy_of(model.get_layer("second").kernel).copy()
    kernel[3, [0, 3, 4]] = 0.0  # unit 3 is read by units 1 and 2 alone
    model.get_layer("second").kernel.assign(kernel)
    shrunk = kregs.shrink(model)
    assert shrunk.removed == {"first": 1, "second": 2}
    assert error(model, shrunk.model, rng.normal(size=(8, 5))) < 1e-12


def test_constants_go_on_through_layers_and_a_missing_bias_is_added(double, rng):
    layers = [
        keras.Input((5,)),
        L.Dense(4, "sigmoid", use_bias=False, name="first"),
        L.Dense(3, "tanh", use_bias=False, name="second"),
        L.Dense(2, use_bias=False, name="head"),
    ]
    model = keras.Sequential(layers)
    widen(model, rng)
    silence(model.layers[0], [0, 2])  # 1/2 each
    kernel = numpy_of(model.layers[1].kernel).copy()
    kernel[[1, 3], 1] = 0.0  # unit 1 reads these constants alone, so that it is one
    model.layers[1].kernel.assign(kernel)
    shrunk = kregs.shrink(model)
    assert shrunk.removed == {"first": 2, "second": 1}
    assert [layer.use_bias for layer in shrunk.model.layers] == [False, True, True]
    expected = np.tanh(0.5 * kernel[[0, 2], 1].sum()) * numpy_of(model.layers[2].kernel)[1]
    np.testing.assert_allclose(numpy_of(shrunk.model.layers[2].bias), expected, rtol=1e-12)
    assert error(model, shrunk.model, rng.normal(size=(8, 5))) < 1e-12


def test_a_layer_without_living_units_keeps_one(double, rng):
    layers = [keras.Input((3,)), L.Dense(4, "relu"), L.BatchNormalization(), L.Dense(5), L.Dense(2)]
    model = keras.Sequential(layers)
    widen(model, rng)
    silence(model.layers[0], range(4))
    silence(model.layers[2], range(5))
    shrunk = kregs.shrink(model)
    assert [row.units - row.removed for row in shrunk.layers] == [1, 1, 2]
    assert shrunk.layers[0].reason == "is the last one of its layer"
    assert error(model, shrunk.model, rng.normal(size=(8, 3))) < 1e-12


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_a_constant_goes_before_padding_only_if_it_is_zero(double, rng, padding):
    layers = [
        keras.Input((6, 6, 2)),
        L.Conv2D(5, 3, activation="relu", name="first"),
        L.Conv2D(4, 3, padding=padding, name="second"),
        L.GlobalAveragePooling2D(),
        L.Dense(2),
    ]
    model = keras.Sequential(layers)
    widen(model, rng)
    silence(model.layers[0], [0, 1, 2])
    bias = numpy_of(model.layers[0].bias).copy()
    bias[:3] = [0.7, -0.7, 0.0]
    model.layers[0].bias.assign(bias)
    shrunk = kregs.shrink(model)
    assert shrunk.removed == {"first": 2 if padding == "same" else 3}
    assert ("beyond the edge" in shrunk.left.get("first", "")) == (padding == "same")
    assert error(model, shrunk.model, rng.normal(size=(3, 6, 6, 2))) < 1e-12


def test_flatten_reshape_and_concatenate_keep_who_is_who(double, rng):
    inputs, other = keras.Input((6, 5, 2)), keras.Input((3,))
    image = L.Conv2D(4, 2, name="image")(inputs)
    vector = L.Flatten()(image)
    again = L.Flatten()(L.Reshape((10, 8))(image))
    table = L.Dense(5, "relu", name="table")(other)
    merged = L.Concatenate()([vector, table, again])
    model = keras.Model([inputs, other], L.Dense(3, name="head")(merged))
    widen(model, rng)
    silence(model.get_layer("image"), [1, 2])
    ignore(model.get_layer("head"), [80 + 3, 80 + 4])
    shrunk = kregs.shrink(model)
    assert shrunk.removed == {"image": 2, "table": 2}
    x = [rng.normal(size=(4, 6, 5, 2)), rng.normal(size=(4, 3))]
    assert error(model, shrunk.model, x) < 1e-12


def test_depthwise_separable_and_transposed_convolutions(double, rng):
    layers = [
        keras.Input((7, 7, 3)),
        L.SeparableConv2D(6, 3, depth_multiplier=2, activation="tanh", name="separable"),
        L.DepthwiseConv2D(2, depth_multiplier=2, activation="sigmoid", name="depthwise"),
        L.PReLU(shared_axes=[1, 2]),
        L.Conv2DTranspose(5, 3, strides=2, name="transposed"),
        L.SeparableConv2D(4, 2, name="last"),
        L.GlobalMaxPooling2D(),
        L.Dense(2),
    ]
    model = keras.Sequential(layers)
    widen(model, rng)
    silence(model.layers[0], [0, 5], "pointwise_kernel")  # not 0 before a transposed convolution
    kernel = numpy_of(model.layers[3].kernel).copy()
    kernel[..., [2, 3]] = 0.0  # (height, width, out, in): it reads nothing of channel 1
    kernel[:, :, 4] = 0.0
    model.layers[3].kernel.assign(kernel)
    shrunk = kregs.shrink(model)
    assert shrunk.removed == {"separable": 1, "depthwise": 2, "transposed": 1}
    assert shrunk.model.get_layer("depthwise").kernel.shape == (2, 2, 5, 2)
    assert "separable" in shrunk.left
    assert error(model, shrunk.model, rng.normal(size=(2, 7, 7, 3))) < 1e-12


@pytest.mark.parametrize(
    ("shape", "axes", "removed"),
    [((6,), [1], 2), ((4, 4, 2), [1, 2, 3], 2), ((4, 4, 2), [3], 1)],
)
def test_slopes_that_channels_share(double, rng, shape, axes, removed):
    first = L.Conv2D(5, 2, name="first") if len(shape) == 3 else L.Dense(5, name="first")
    head = L.Dense(2, name="head")
    layers = [first, L.PReLU(shared_axes=axes), *([L.GlobalMaxPooling2D()] * (len(shape) == 3))]
    model = keras.Sequential([keras.Input(shape), *layers, head])
    widen(model, rng)
    silence(first, [1])
    first.bias.assign(np.where(np.arange(5) == 1, -0.5, numpy_of(first.bias)))
    ignore(head, [3])
    shrunk = kregs.shrink(model)  # a slope that differs by position makes no constant
    assert shrunk.removed == {"first": removed}
    assert error(model, shrunk.model, rng.normal(size=(4, *shape))) < 1e-12


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize(
    ("make", "goes"),
    [(L.BatchNormalization, 0), (lambda: L.GaussianNoise(0.5), 0), (lambda: L.Dropout(0.5), 1)],
)
def test_a_call_that_is_always_in_training_makes_no_constant(double, rng, make, goes, nested):
    """Units 1 and 2 are constant, 0 and 0.5; of all, only 0 stays what it is under dropout."""
    inputs, layer = keras.Input((5,)), make()
    if nested:
        layer = keras.Sequential([keras.Input((4,)), layer])
    x = layer(L.Dense(4, "relu", name="first")(inputs), training=True)
    model = keras.Model(inputs, L.Dense(2, name="head")(x))
    widen(model, rng)
    first = model.get_layer("first")
    silence(first, [1, 2])
    first.bias.assign(np.array([0.1, -0.5, 0.5, 0.3]))
    assert kregs.shrink(model).removed.get("first", 0) == goes


def test_a_normalization_that_is_in_training_in_one_call_of_two(double, rng):
    inputs, layer = keras.Input((5,)), L.BatchNormalization()
    x = L.Dense(4, "relu", name="first")(inputs)
    model = keras.Model(inputs, L.Dense(2)(layer(x) + layer(x, training=True)))
    widen(model, rng)
    silence(model.get_layer("first"), [1])
    assert kregs.shrink(model).removed == {}


def test_a_depthwise_filter_of_zeros_is_a_constant(double, rng):
    layers = [
        keras.Input((12, 3)),
        L.Conv1D(4, 3, name="first"),
        L.DepthwiseConv1D(3, name="depthwise"),
        L.Conv1D(3, 2, name="last"),
        L.Flatten(),
        L.Dense(2),
    ]
    model = keras.Sequential(layers)
    widen(model, rng)
    kernel = numpy_of(model.layers[1].kernel).copy()
    kernel[:, 2] = 0.0
    model.layers[1].kernel.assign(kernel)
    shrunk = kregs.shrink(model)
    assert shrunk.removed == {"first": 1, "depthwise": 1}
    assert error(model, shrunk.model, rng.normal(size=(2, 12, 3))) < 1e-12


def test_shared_layers_lose_what_no_call_needs(double, rng):
    shared = L.Dense(5, "relu", name="shared")
    inputs = {name: keras.Input((4,)) for name in ("a", "b")}
    first, second = (shared(L.Dense(4, "tanh", name=name)(x)) for name, x in inputs.items())
    outputs = L.Dense(2, name="head")(L.Concatenate()([first, second]))
    model = keras.Model(list(inputs.values()), outputs)
    widen(model, rng)
    silence(model.get_layer("shared"), [1])
    ignore(model.get_layer("head"), [2, 3, 5 + 2])  # unit 3 is read in the second call
    silence(model.get_layer("a"), [0, 1])
    silence(model.get_layer("b"), [0, 1])
    for name, values in (("a", [0.2, 0.3]), ("b", [0.2, 0.4])):  # only the first is the same
        bias = numpy_of(model.get_layer(name).bias).copy()
        bias[:2] = values
        model.get_layer(name).bias.assign(bias)
    shrunk = kregs.shrink(model)
    assert shrunk.removed == {"shared": 2, "a": 1, "b": 1}
    assert "a constant that its bias cannot take" in shrunk.left["a"]
    assert error(model, shrunk.model, [rng.normal(size=(6, 4)) for _ in "ab"]) < 1e-12


def test_a_tied_autoencoder_keeps_what_it_calls_both_ways(double, rng):
    model = kregs.autoencoder((5,), units=(4, 3), tied=True)
    widen(model, rng)
    tied = next(layer for layer in model.layers if hasattr(layer, "reverse_bias"))
    silence(tied, [1])
    ignore(tied, [2])
    shrunk = kregs.shrink(model)
    assert shrunk.removed == {}
    assert error(model, shrunk.model, rng.normal(size=(4, 5))) < 1e-12


def test_shared_layers_called_on_different_widths(double, rng):
    """`Reshape` and `Add` see each call by itself; softmax needs all of each."""
    inputs = keras.Input((12,))
    first = L.Conv1D(3, 1, name="first")(L.Reshape((4, 3))(inputs))
    second = L.Conv1D(6, 1, name="second")(L.Reshape((2, 6))(inputs))
    third = L.Dense(4, name="third")(inputs)
    fourth = L.Dense(3, name="fourth")(inputs)
    flat, softmax, add = L.Reshape((12,)), L.Softmax(), L.Add()
    one, two = add([first, first]), add([second, L.Reshape((2, 1))(L.Dense(2)(inputs))])
    parts = [flat(one), flat(two), softmax(third), softmax(fourth)]
    model = keras.Model(inputs, L.Dense(2, name="head")(L.Concatenate()(parts)))
    widen(model, rng)
    silence(model.get_layer("first"), [1])
    silence(model.get_layer("third"), [0, 2])
    shrunk = kregs.shrink(model)
    assert "third" not in shrunk.removed
    assert error(model, shrunk.model, rng.normal(size=(4, 12))) < 1e-12


def test_models_inside_models(double, rng):
    def inner(units):
        x = keras.Input((5,), name="features")
        return keras.Model(x, L.Dense(units, "relu", name="inside")(L.ReLU()(x)), name="inner")

    twice, once = inner(5), keras.Sequential([keras.Input((5,)), L.Dense(4, name="last")])
    inputs = keras.Input((3,))
    x = L.Dense(5, name="before")(inputs)
    model = keras.Model(inputs, L.Dense(2, name="head")(once(twice(twice(x)))))
    widen(model, rng)
    silence(model.get_layer("before"), [0, 2])
    silence(twice.get_layer("inside"), [0, 2, 3])
    ignore(model.get_layer("head"), [1])
    before, inside = model.get_layer("before"), twice.get_layer("inside")
    for layer in (before, inside):  # constants that are the same in both calls
        layer.bias.assign(np.where(np.isin(np.arange(5), [0, 2]), 0.25, numpy_of(layer.bias)))
    shrunk = kregs.shrink(model)
    assert shrunk.removed == {"before": 2, "inside": 2, "last": 1}
    smaller = shrunk.model.get_layer("inner")
    assert smaller.input_shape == (None, 3)
    assert isinstance(shrunk.model.layers[-2], keras.Sequential)
    assert error(model, shrunk.model, rng.normal(size=(6, 3))) < 1e-12


@pytest.mark.parametrize("kind", [L.SimpleRNN, L.GRU, L.LSTM])
def test_recurrent_layers_lose_units_and_inputs(double, rng, kind):
    tokens = keras.Input((None,), dtype="int32")
    x = L.Embedding(9, 5, mask_zero=True, name="embedding")(tokens)
    layer = kind(6, name="recurrent")
    model = keras.Model(tokens, L.Dense(2, name="head")(layer(x)))
    widen(model, rng)
    table = numpy_of(model.get_layer("embedding").embeddings).copy()
    table[:, 2] = 0.3
    model.get_layer("embedding").embeddings.assign(table)
    cell = layer.cell
    gates = cell.kernel.shape[1] // 6
    recurrent = numpy_of(cell.recurrent_kernel).copy()
    recurrent[3, np.arange(gates * 6) % 6 != 3] = 0.0  # unit 3 is read by itself alone
    recurrent[4, np.arange(gates * 6) % 6 != 5] = 0.0  # unit 4 by unit 5, which is read
    ignore(model.get_layer("head"), [3, 4])
    candidate = (gates > 1) * 2 * 6 + 1  # unit 1 has nothing to enter its state
    recurrent[:, candidate] = 0.0
    cell.recurrent_kernel.assign(recurrent)
    kernel, bias = numpy_of(cell.kernel).copy(), numpy_of(cell.bias).copy()
    kernel[:, candidate] = 0.0
    bias[..., candidate] = 0.0
    cell.kernel.assign(kernel)
    cell.bias.assign(bias)
    shrunk = kregs.shrink(model)
    assert shrunk.removed == {"embedding": 1, "recurrent": 2}
    assert shrunk.left == {}
    x = rng.integers(0, 9, (5, 7))
    x[:, 0] = 1  # no row is masked as a whole
    assert error(model, shrunk.model, x) < 1e-12


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: L.LayerNormalization(name="it"),
            "it (LayerNormalization) needs all of its channels",
        ),
        (lambda: L.GroupNormalization(2, name="it"), "it (GroupNormalization) needs all"),
        (
            lambda: L.Activation("softmax", name="it"),
            "it has the activation softmax, which may mix",
        ),
        (lambda: L.Activation(lambda x: x[..., ::-1], name="it"), "which may mix its channels"),
        (lambda: L.Conv1D(4, 1, groups=2, name="it"), "it (Conv1D) has groups of channels"),
        (lambda: L.Bidirectional(L.GRU(2), name="it"), "it (Bidirectional) needs all"),
        (lambda: L.Permute((2, 1), name="it"), "it (Permute) needs all"),
        (
            lambda: L.BatchNormalization(axis=1, name="it"),
            "it (BatchNormalization) has another axis",
        ),
        (lambda: L.Dropout(0.5, noise_shape=(None, 1, 4), name="it"), "it (Dropout) needs all"),
        (lambda: L.Dense(3, "softmax", name="it"), ""),
    ],
)
def test_what_needs_all_channels_keeps_them(double, rng, make, words):
    inputs = keras.Input((6, 3))
    x = make()(L.Conv1D(4, 3, name="first")(inputs))
    model = keras.Model(inputs, L.Dense(2)(L.Flatten()(x)))
    widen(model, rng)
    silence(model.get_layer("first"), [1])
    shrunk = kregs.shrink(model)
    assert words in shrunk.left.get("first", "")
    assert bool(shrunk.removed) == (not words)
    assert error(model, shrunk.model, rng.normal(size=(4, 6, 3))) < 1e-12


@pytest.mark.parametrize("normalization", ["batch", None])
def test_our_residual_network(double, rng, normalization):
    model = kregs.resnet(
        (8, 8, 1),
        3,
        filters=(4, 6),
        blocks_per_stage=1,
        regularization=kregs.Regularization(
            normalization=normalization, drop_path=0.2, dropout=0.1
        ),
        use_bias=False,
    )
    widen(model, rng)
    for layer in model.layers:
        if isinstance(layer, L.BatchNormalization):  # a constant 0 stays 0
            layer.beta.assign(numpy_of(layer.beta) * 0)
            layer.moving_mean.assign(numpy_of(layer.moving_mean) * 0)
        if isinstance(layer, L.Conv2D):
            silence(layer, [1])
    shrunk = kregs.shrink(model)
    convolutions = [layer for layer in model.layers if isinstance(layer, L.Conv2D)]
    assert shrunk.removed == {layer.name: 1 for layer in convolutions}
    assert error(model, shrunk.model, rng.normal(size=(2, 8, 8, 1))) < 1e-12


# ---- what comes back ------------------------------------------------------------------------


def test_the_original_stays_and_the_copy_is_saved(tmp_path, rng):
    model = Plan(np.random.default_rng(3), True).model
    model.compile("adam", "mse")
    before = [numpy_of(w).copy() for w in model.weights]
    shrunk = kregs.shrink(model)
    for old, new in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(old, numpy_of(new))
    assert model.compiled
    assert not shrunk.model.compiled
    assert type(shrunk.model) is keras.Sequential
    assert [layer.name for layer in shrunk.model.layers] == [layer.name for layer in model.layers]
    x = rng.normal(size=(4, 9, 8, 2)).astype("float32")
    shrunk.model.save(tmp_path / "smaller.keras")
    loaded = keras.models.load_model(tmp_path / "smaller.keras")
    np.testing.assert_array_equal(numpy_of(loaded(x)), numpy_of(shrunk.model(x)))


def test_mixed_precision(rng):
    model = keras.Sequential(
        [
            keras.Input((5,)),
            L.Dense(6, "tanh", dtype="mixed_float16", name="first"),
            L.Dense(2, dtype="float32"),
        ]
    )
    widen(model, rng)
    silence(model.layers[0], [1, 2])
    shrunk = kregs.shrink(model)
    assert shrunk.removed == {"first": 2}
    assert shrunk.model.layers[0].compute_dtype == "float16"
    assert error(model, shrunk.model, rng.normal(size=(8, 5)).astype("float32")) < 2e-3


def test_a_model_without_zeros_stays_as_it_is(rng):
    model = branches(rng)
    shrunk = kregs.shrink(model)
    assert shrunk.weights_before == shrunk.weights_after
    assert shrunk.removed == shrunk.left == {}
    for old, new in zip(model.weights, shrunk.model.weights, strict=True):
        np.testing.assert_array_equal(numpy_of(old), numpy_of(new))


def test_it_is_told_in_words_and_as_a_table(rng):
    model = branches(rng)
    silence(model.get_layer("a"), [0, 1])
    silence(model.get_layer("b"), [0])
    shrunk = kregs.shrink(model)
    frame = shrunk.to_frame().set_index("layer")
    assert frame.loc["a", ["units", "removed", "left"]].tolist() == [6, 1, 1]
    assert frame.loc["head" if "head" in frame.index else "one", "removed"] == 0
    lines = str(shrunk).splitlines()
    share = shrunk.weights_after / shrunk.weights_before
    assert lines[0].endswith(
        f"{shrunk.weights_before} -> {shrunk.weights_after} weights ({share:.0%})"
    )
    assert any(
        line.split()[:6] == ["a", "5", "of", "6", "units", "stay;"]
        and "1 that does nothing" in line
        for line in lines
    )
    assert repr(shrunk).startswith("<Shrunk ")


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.layer = L.Dense(2)

    def call(self, x):
        return self.layer(x)

    def get_config(self):
        return {}

    @classmethod
    def from_config(cls, config):
        return cls()


@pytest.mark.parametrize(
    ("model", "kind", "message"),
    [
        (lambda: Subclassed(), ValueError, "Sequential or Functional.*Received: Subclassed"),
        (lambda: keras.Sequential([L.Dense(2)]), ValueError, "must be built.*keras.Input first"),
        (lambda: L.Dense(2), TypeError, "`model` must be a keras.Model"),
    ],
)
def test_what_is_no_model_to_follow(model, kind, message):
    with pytest.raises(kind, match=message):
        kregs.shrink(model())


def test_a_subclassed_model_inside_keeps_its_channels(double, rng):
    inputs = keras.Input((4,))
    x = Subclassed()(L.Dense(5, "relu", name="first")(inputs))
    model = keras.Model(inputs, L.Dense(2)(L.Dense(3, name="second")(x)))
    widen(model, rng)
    silence(model.get_layer("first"), [0])
    silence(model.get_layer("second"), [0])
    with keras.saving.custom_object_scope({"Subclassed": Subclassed}):
        shrunk = kregs.shrink(model)
    assert shrunk.removed == {"second": 1}
    assert "(Subclassed) needs all of its channels" in shrunk.left["first"]
    assert error(model, shrunk.model, rng.normal(size=(6, 4))) < 1e-12
