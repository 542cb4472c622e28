"""MC dropout against closed forms; what else than dropout must not move; dropout's two forms."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.special import expit
from scipy.stats import entropy, norm

import kregs
from kregs.inspection.mc_dropout import DropoutSampler, McDropout, dropout_layers
from kregs.layers import DropBlock2D

L = keras.layers
RNG = np.random.default_rng(0)
X = RNG.normal(size=(6, 8)).astype("float32")


def linear(rate, **options):
    model = keras.Sequential([keras.Input((8,)), L.Dropout(rate, **options), L.Dense(1)])
    model.set_weights([RNG.normal(size=(8, 1)), np.array([0.3])])
    return model


@pytest.mark.parametrize("rate", [0.2, 0.5])
def test_a_linear_layer_has_the_variance_of_the_closed_form(rate):
    model = linear(rate)
    kernel, bias = model.get_weights()
    result = kregs.mc_dropout(model, X, samples=4000, seed=3, batch_size=4)
    variance = rate / (1 - rate) * ((X * kernel[:, 0]) ** 2).sum(axis=1)
    deviation = np.sqrt(variance)
    # five standard errors of a mean and of a deviation
    bound = 5 / np.sqrt(4000)
    assert (abs(result.mean[:, 0] - (X @ kernel + bias)[:, 0]) < bound * deviation).all()
    assert (abs(result.standard_deviation[:, 0] / deviation - 1) < bound).all()
    # rows have masks of their own: the same mask would correlate them
    products = X[0] * kernel[:, 0], X[1] * kernel[:, 0]
    shared = (products[0] * products[1]).sum() / np.sqrt(np.prod([(p**2).sum() for p in products]))
    measured = np.corrcoef(result.predictions[:, 0, 0], result.predictions[:, 1, 0])[0, 1]
    assert abs(measured) < bound
    assert abs(shared) > 2 * bound


def test_a_mask_that_is_common_to_a_batch_is_drawn_anew_for_each_sample():
    model = linear(0.5, noise_shape=(1, 8))
    result = kregs.mc_dropout(model, np.repeat(X[:1], 3, axis=0), samples=50)
    np.testing.assert_array_equal(result.predictions[:, 0], result.predictions[:, 1])
    assert len(np.unique(result.predictions[:, 0])) > 25


def test_only_dropout_acts():
    """Batch norm uses its moving statistics, noise and augmentation rest."""
    inner = keras.Sequential(
        [keras.Input((8,)), L.BatchNormalization(), L.GaussianNoise(1.0), L.Dropout(0.5)]
    )
    model = keras.Sequential([keras.Input((8,)), inner, L.Dense(2)])
    normalization = inner.layers[0]
    normalization.moving_mean.assign(RNG.normal(size=8))
    normalization.moving_variance.assign(RNG.uniform(0.5, 2.0, size=8))
    mean, variance = normalization.get_weights()[2:]
    kernel, bias = model.layers[-1].get_weights()
    normalized = (X - mean) / np.sqrt(variance + normalization.epsilon)
    result = kregs.mc_dropout(model, X, samples=3000)
    deviation = np.sqrt(np.einsum("rc,co->ro", normalized**2, kernel**2))  # rate 0.5
    assert (abs(result.mean - (normalized @ kernel + bias)) < 5 / np.sqrt(3000) * deviation).all()
    np.testing.assert_allclose(result.standard_deviation, deviation, rtol=5 / np.sqrt(3000))


def variables_of(model):
    return [v.numpy() for v in [*model.variables, *model.non_trainable_variables]]


def test_the_model_stays_as_it_is(eager):
    model = keras.Sequential(
        [
            keras.Input((2, 8)),
            L.LSTM(4, recurrent_dropout=0.3, unroll=True),
            L.BatchNormalization(),
            L.Dropout(0.5),
            L.Dense(2),
        ]
    )
    x = RNG.normal(size=(6, 2, 8)).astype("float32")
    predicted = model.predict(x, verbose=0)  # Keras's LSTM draws masks in inference, too
    before = variables_of(model)
    assert any("seed" in v.path for v in model.non_trainable_variables)
    tf.random.set_seed(1)
    expected_draw = tf.random.uniform(()).numpy()
    tf.random.set_seed(1)
    kregs.mc_dropout(model, x, samples=3)
    assert tf.random.uniform(()).numpy() == expected_draw
    for old, new in zip(before, variables_of(model), strict=True):
        np.testing.assert_array_equal(old, new)
    for layer in (*model.layers, model.layers[0].cell):
        assert "call" not in vars(layer)
    np.testing.assert_array_equal(predicted, model.predict(x, verbose=0))


def test_one_seed_one_result():
    model = keras.Sequential([keras.Input((8,)), L.Dropout(0.5), L.Dense(3), L.Dropout(0.5)])
    one, same, other = (
        kregs.mc_dropout(model, X, samples=4, seed=seed).predictions for seed in (5, 5, 6)
    )
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


def test_one_trace_for_all_samples_and_batches():
    traces = []

    class Counting(L.Layer):
        def call(self, inputs):
            traces.append(1)
            return inputs

    model = keras.Sequential([keras.Input((8,)), Counting(), L.Dropout(0.5), L.Dense(1)])
    sampler = DropoutSampler(model)
    del traces[:]
    sampler.predict(X, samples=20, batch_size=4)
    first = sampler.predict(X, samples=5, batch_size=6)
    assert len(traces) == 1
    model.set_weights([2 * w for w in model.get_weights()])  # read at each call
    np.testing.assert_allclose(sampler.predict(X, samples=5, batch_size=6), 2 * first, rtol=1e-5)
    assert len(traces) == 1


class Subclassed(keras.Model):
    """Layers in an attribute, and a base that is told to be in inference."""

    def __init__(self):
        super().__init__()
        self.base = keras.Sequential([L.Dense(4), L.Dropout(0.5)])
        self.head = L.Dense(1)

    def call(self, inputs, training=False):
        return self.head(self.base(inputs, training=False))


def image(layer):
    return keras.Sequential([keras.Input((6, 6, 2)), layer, L.Flatten()])


def sequence(layer):
    return keras.Sequential([keras.Input((6, 4)), layer, L.Flatten()])


def attention(layer):
    inputs = keras.Input((6, 4))
    return keras.Model(inputs, layer([inputs, inputs]))


class AlwaysDropping(L.Dropout):
    """As people write it; it knows no `training`, and passes it on by position."""

    def call(self, inputs):
        return super().call(inputs, True)


ACTING = {
    "a subclass": (lambda: sequence(AlwaysDropping(0.5)), (6, 4)),
    "Dropout": (lambda: linear(0.5), (8,)),
    "SpatialDropout1D": (lambda: sequence(L.SpatialDropout1D(0.5)), (6, 4)),
    "SpatialDropout2D": (lambda: image(L.SpatialDropout2D(0.5)), (6, 6, 2)),
    "DropBlock2D": (lambda: image(DropBlock2D(0.3, block_size=2)), (6, 6, 2)),
    "GaussianDropout": (lambda: sequence(L.GaussianDropout(0.5)), (6, 4)),
    "AlphaDropout": (lambda: sequence(L.AlphaDropout(0.5)), (6, 4)),
    "LSTM dropout": (lambda: sequence(L.LSTM(3, dropout=0.5)), (6, 4)),
    "GRU recurrent_dropout": (lambda: sequence(L.GRU(3, recurrent_dropout=0.5)), (6, 4)),
    "Bidirectional": (lambda: sequence(L.Bidirectional(L.LSTM(3, dropout=0.5))), (6, 4)),
    "RNN of a cell": (lambda: sequence(L.RNN(L.SimpleRNNCell(3, dropout=0.5))), (6, 4)),
    "TimeDistributed": (lambda: sequence(L.TimeDistributed(L.Dropout(0.5))), (6, 4)),
    "Attention": (lambda: attention(L.Attention(dropout=0.5)), (6, 4)),
    "MultiHeadAttention": (
        lambda: keras.Model(
            inputs := keras.Input((6, 4)),
            L.MultiHeadAttention(2, 3, dropout=0.5)(inputs, inputs),
        ),
        (6, 4),
    ),
    "subclassed": (Subclassed, (8,)),
}  # fmt: skip


# a loop to trace takes seconds
SLOW = ("GRU recurrent_dropout", "Bidirectional", "RNN of a cell", "MultiHeadAttention")


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.nightly] if name in SLOW else []) for name in ACTING],
)
def test_a_layer_that_drops_acts(name):
    build, shape = ACTING[name]
    model, x = build(), RNG.normal(size=(2, *shape)).astype("float32")
    model(x)
    result = kregs.mc_dropout(model, x, samples=30)
    assert result.standard_deviation.mean() > 0.01
    rows = result.predictions.reshape(30, -1)
    assert len(np.unique(rows, axis=0)) > 10  # each sample has masks of its own


def test_recurrent_masks_are_those_of_training():
    """The mean over the masks of an LSTM that only adds up its inputs, and its deviation."""
    cell = keras.Sequential(
        [keras.Input((1, 4)), L.SimpleRNN(1, activation=None, dropout=0.5, unroll=True)]
    )
    kernel = RNG.normal(size=(4, 1))
    cell.set_weights([kernel, np.zeros((1, 1)), np.zeros(1)])
    x = RNG.normal(size=(3, 1, 4))
    result = kregs.mc_dropout(cell, x, samples=4000)
    expected = np.sqrt(((x[:, 0] * kernel[:, 0]) ** 2).sum(axis=1))
    np.testing.assert_allclose(result.standard_deviation[:, 0], expected, rtol=5 / np.sqrt(4000))


def test_several_inputs_and_outputs_and_mixed_precision():
    a, b = keras.Input((8,), name="a"), keras.Input((8,), name="b")
    dropout = L.Dropout(0.5, dtype="mixed_float16")  # shared
    merged = L.Add(dtype="mixed_float16")([dropout(a), dropout(b)])
    outputs = {"one": L.Dense(1)(merged), "two": L.Dense(2, "softmax")(merged)}
    model = keras.Model({"a": a, "b": b}, outputs)
    x = {"a": X, "b": X}
    two = kregs.mc_dropout(model, x, samples=20, output="two")
    assert two.mean.shape == (6, 2)
    assert (two.predictive_entropy > 0).all()
    with pytest.raises(ValueError, match="`output` must be one of 'one', 'two'"):
        kregs.mc_dropout(model, x)
    listed = keras.Model([a, b], [L.Dense(1, name="three")(merged), merged])
    assert kregs.mc_dropout(listed, [X, X], samples=2, output="three").mean.shape == (6, 1)
    # of a shared layer, each call has its own mask
    sums = kregs.mc_dropout(
        keras.Model([a, b], merged), [np.ones_like(X), np.ones_like(X)], samples=9
    ).predictions
    assert set(np.unique(sums)) == {0.0, 2.0, 4.0}


def test_entropies_are_those_of_scipy():
    logits = RNG.normal(size=(7, 5, 3)).astype("float32")
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    for result in (McDropout(p), McDropout(logits, from_logits=True)):
        whole = entropy(p.mean(axis=0), axis=-1)
        np.testing.assert_allclose(result.predictive_entropy, whole, rtol=1e-5)
        expected = whole - entropy(p, axis=-1).mean(axis=0)
        np.testing.assert_allclose(result.mutual_information, expected, atol=1e-6)
        np.testing.assert_allclose(result.mean, p.mean(axis=0), rtol=1e-5)
    binary = McDropout(logits[..., :1], from_logits=True)
    q = expit(logits[..., 0].astype("float64"))
    expected = entropy(np.stack([q.mean(0), 1 - q.mean(0)]), axis=0)
    np.testing.assert_allclose(binary.predictive_entropy, expected, rtol=1e-5)
    np.testing.assert_allclose(binary.mean[:, 0], q.mean(axis=0), rtol=1e-5)
    with pytest.raises(ValueError, match="from_logits=True if they are logits"):
        _ = McDropout(logits).predictive_entropy


def test_logits_are_told_by_the_compiled_loss():
    model = keras.Sequential([keras.Input((8,)), L.Dropout(0.5), L.Dense(3)])
    assert kregs.mc_dropout(model, X, samples=2).from_logits is False
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    np.testing.assert_allclose(kregs.mc_dropout(model, X, samples=2).mean.sum(axis=-1), 1)
    assert kregs.mc_dropout(model, X, samples=2, from_logits=False).from_logits is False


@pytest.mark.parametrize("outputs", [1, 2])
def test_the_log_likelihood_is_that_of_a_mixture_of_normals(outputs):
    predictions = RNG.normal(size=(9, 5, outputs))
    y, precision = RNG.normal(size=(5, outputs)), 3.0
    densities = norm.pdf(y, loc=predictions, scale=precision**-0.5).prod(axis=-1)
    result = McDropout(predictions)
    expected = np.log(densities.mean(axis=0))
    np.testing.assert_allclose(result.log_likelihood(y, precision=precision), expected)
    best = result.best_precision(y)
    likelihoods = [
        result.log_likelihood(y, precision=best * factor).mean() for factor in (0.97, 1, 1.03)
    ]
    assert likelihoods[1] == max(likelihoods)
    # without disagreement it is one over the mean squared error
    alike = McDropout(np.repeat(predictions[:1], 4, axis=0))
    squared = ((predictions[0] - y) ** 2).mean()
    assert alike.best_precision(y) == pytest.approx(1 / squared, rel=1e-3)


def test_inverted_and_vanilla_dropout_are_equal(eager):
    """Scaling by 1 / (1 - rate) in training is scaling by 1 - rate at test, with other weights.

    Vanilla (Srivastava et al. 2014): activations are dropped in training and weights multiplied by
    the share kept at test. With weights that are larger by 1 / (1 - rate) it trains and predicts as
    the inverted form, which Keras has.
    """
    rate = 0.4
    keep = 1 - rate
    model = linear(rate)
    kernel, bias = model.get_weights()
    vanilla_kernel = kernel / keep
    masked = model.layers[0](np.ones_like(X), training=True).numpy()
    mask = masked > 0
    np.testing.assert_allclose(masked[mask], 1 / keep, rtol=1e-6)  # Keras's is inverted
    # in training, under one mask
    inverted_training = (X * masked) @ kernel + bias
    vanilla_training = (X * mask) @ vanilla_kernel + bias
    np.testing.assert_allclose(inverted_training, vanilla_training, rtol=1e-5, atol=1e-6)
    # at test, against Keras
    vanilla_test = X @ (keep * vanilla_kernel) + bias
    np.testing.assert_allclose(model.predict(X, verbose=0), vanilla_test, rtol=1e-5, atol=1e-6)
    # a step of gradient descent: the vanilla one takes it in weights that are larger by 1 / keep
    y, learning_rate = RNG.normal(size=(6, 1)), 0.1
    inverted_gradient = (X * masked).T @ (inverted_training - y)
    vanilla_gradient = (X * mask).T @ (vanilla_training - y)
    np.testing.assert_allclose(
        (kernel - learning_rate * inverted_gradient) / keep,
        vanilla_kernel - learning_rate / keep**2 * vanilla_gradient,
        rtol=1e-5,
        atol=1e-6,
    )


def test_tables_and_figures():
    probabilities = RNG.dirichlet(np.ones(3), size=(5, 40))
    result = McDropout(probabilities)
    frame = result.to_frame()
    assert len(frame) == 40
    assert list(frame)[-2:] == ["predictive_entropy", "mutual_information"]
    assert result.plot().axes[0].get_xlabel() == "predictive entropy, nats"
    y = RNG.integers(3, size=40)
    error = np.mean(probabilities.mean(axis=0).argmax(-1) != y)
    curve = result.plot(np.eye(3)[y]).axes[0].lines[0].get_ydata()
    assert curve[-1] == pytest.approx(error)
    numbers = McDropout(RNG.normal(size=(5, 40, 2)))
    assert list(numbers.to_frame()) == [
        "mean_0", "mean_1", "standard_deviation_0", "standard_deviation_1"
    ]  # fmt: skip
    targets = RNG.normal(size=(40, 2))
    curve = numbers.plot(targets).axes[0].lines[0].get_ydata()
    assert curve[-1] == pytest.approx(np.sqrt(((numbers.mean - targets) ** 2).mean()))


def test_bad_calls():
    plain = keras.Sequential([keras.Input((8,)), L.Dropout(0.0), L.Dense(1)])
    with pytest.raises(ValueError, match="`model` must have a dropout layer"):
        kregs.mc_dropout(plain, X)
    assert dropout_layers(plain) == []
    model = linear(0.5)
    with pytest.raises(ValueError, match="must be built"):
        kregs.mc_dropout(keras.Sequential([L.Dropout(0.5)]), X)
    with pytest.raises(TypeError, match=r"must be a keras.Model"):
        kregs.mc_dropout("model.keras", X)
    with pytest.raises(ValueError, match="`samples` must be an integer >= 1"):
        kregs.mc_dropout(model, X, samples=0)
    with pytest.raises(ValueError, match="`x` must be finite"):
        kregs.mc_dropout(model, np.full_like(X, np.nan))
    with pytest.raises(TypeError, match="`x` must be arrays"):
        kregs.mc_dropout(model, tf.data.Dataset.from_tensor_slices(X).batch(2))
    with pytest.raises(TypeError, match="`from_logits` must be True or False"):
        kregs.mc_dropout(model, X, from_logits="yes")
    result = kregs.mc_dropout(model, X, samples=2)
    with pytest.raises(ValueError, match=r"`y` must have shape \(6, 1\)"):
        result.log_likelihood(np.ones(5), precision=1.0)
    with pytest.raises(ValueError, match="`precision` must be a finite number > 0"):
        result.log_likelihood(np.ones(6), precision=0.0)


@pytest.mark.parametrize("logits", [True, False])
def test_several_labels_are_probabilities_by_themselves(eager, logits):
    activation = None if logits else "sigmoid"
    layers = [keras.layers.Dropout(0.5, seed=1), keras.layers.Dense(3, activation)]
    model = keras.Sequential([keras.Input((6,)), *layers])
    model.compile("sgd", keras.losses.BinaryCrossentropy(from_logits=logits))
    x = np.random.default_rng(2).normal(size=(5, 6)).astype("float32")
    result = kregs.mc_dropout(model, x, samples=20, seed=3)
    raw = kregs.mc_dropout(model, x, samples=20, seed=3, from_logits=False).predictions
    expected = 1 / (1 + np.exp(-raw)) if logits else raw
    np.testing.assert_allclose(result.mean, expected.mean(axis=0), atol=1e-6)
    assert not result.is_classification
    assert (abs(result.mean.sum(axis=1) - 1) > 0.05).any()
    if logits:
        assert 0 < result.mean.min() < result.mean.max() < 1


def test_the_loss_says_that_outputs_between_0_and_1_are_numbers(eager):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dropout(0.5), keras.layers.Dense(1)])
    model.set_weights([np.full((2, 1), 0.2), np.full(1, 0.1)])
    model.compile("sgd", "mse")
    result = kregs.mc_dropout(model, np.ones((4, 2)), samples=10)
    assert not result.is_classification
    assert "predictive_entropy" not in result.to_frame()
    assert result.log_likelihood(np.full(4, 0.37), precision=2.0).shape == (4,)
    with pytest.raises(ValueError, match="`y` must be finite"):
        result.best_precision(np.full(4, np.nan))
    with pytest.raises(TypeError, match="`y` must hold numbers"):
        result.log_likelihood(["a"] * 4, precision=1.0)


def test_logits_of_one_of_several_outputs(eager):
    inputs = keras.Input((4,))
    dropped = keras.layers.Dropout(0.5)(inputs)
    outputs = {
        "class": keras.layers.Dense(3, name="class")(dropped),
        "number": keras.layers.Dense(1, name="number")(dropped),
    }
    model = keras.Model(inputs, outputs)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", {"class": loss, "number": "mse"})
    x = np.random.default_rng(4).normal(size=(3, 4)).astype("float32")
    classes = kregs.mc_dropout(model, x, samples=10, output="class")
    np.testing.assert_allclose(classes.mean.sum(axis=1), 1, atol=1e-6)
    assert not kregs.mc_dropout(model, x, samples=10, output="number").is_classification


def test_the_deviation_is_that_over_the_masks():
    draws = np.random.default_rng(0).normal(size=(3, 4, 1))
    result = McDropout(draws)
    np.testing.assert_allclose(result.standard_deviation, draws.std(axis=0))
    np.testing.assert_allclose(result.mean, draws.mean(axis=0))
