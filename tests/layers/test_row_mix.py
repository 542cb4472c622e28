"""MixUp, CutMix and CutOut of rows against NumPy, alone and in populations."""

import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
from keras import layers

import kregs
from kregs import MixedLoss
from kregs.layers import RowMix
from kregs.layers.row_mix import cut_columns
from kregs.population import Population
from kregs.population.layers.own_layers import beta_quantile

RNG = np.random.default_rng(0)
X = RNG.normal(size=(16, 10)).astype("float32")
Y = RNG.integers(0, 3, 16)
SPARSE = "sparse_categorical_crossentropy"


def drawn(x=X, **options):
    """Call a layer as in training; return the rows, the partners and the weight of the labels."""
    layer = RowMix(seed=0, **options)
    layer.batch.has_loss = True
    for _ in range(120):
        rows = layer(x, training=True).numpy()
        partner, weight = layer.batch.partner, layer.batch.weight
        yield rows, None if partner is None else partner.numpy(), weight


@pytest.mark.slow
@pytest.mark.parametrize("alpha", [0.2, 1.0, 3.0])
def test_mixup_is_that_of_the_paper(alpha):
    """Zhang et al. 2018, equation 1 of the vicinal risk: lambda x_i + (1 - lambda) x_j."""
    weights = []
    for rows, partner, weight in drawn(mixup=alpha):
        assert sorted(partner) == list(range(16))
        w = float(weight)
        np.testing.assert_allclose(rows, w * X + (1 - w) * X[partner], rtol=1e-4, atol=1e-5)
        weights.append(w)
    test = scipy.stats.kstest(weights, scipy.stats.beta(alpha, alpha).cdf)
    assert test.pvalue > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("probability", [0.3, 1.0])
def test_cutmix_swaps_columns_with_partners(probability):
    """Kadra et al. 2021: max(1, int(u n)) columns, and the label's weight is that of the others."""
    cuts, columns_seen = [], np.zeros(10)
    for rows, partner, weight in drawn(cutmix=probability):
        swapped = (rows != X).any(0)
        # a column that is swapped is that of the partners, the others are as they were
        np.testing.assert_array_equal(rows, np.where(swapped, X[partner], X))
        assert float(weight) == pytest.approx(1 - swapped.sum() / 10)
        cuts.append(swapped.sum())
        columns_seen += swapped
    cuts = np.array(cuts)
    assert np.mean(cuts > 0) == pytest.approx(probability, abs=0.2)
    shares = np.maximum(1, np.floor(10 * (np.arange(10_000) + 0.5) / 10_000))
    assert cuts[cuts > 0].mean() == pytest.approx(shares.mean(), rel=0.25)
    assert columns_seen.min() > 0.3 * columns_seen.max()


@pytest.mark.slow
def test_cutout_sets_columns_to_0():
    cuts = []
    for rows, partner, _ in drawn(cutout=0.5, cutout_ratio=0.35):
        assert partner is None  # labels stay
        cut = (rows == 0).all(0)
        np.testing.assert_array_equal(rows, np.where(cut, 0, X))
        cuts.append(cut.sum())
    assert set(cuts) == {0, 3}
    assert np.mean(np.array(cuts) > 0) == pytest.approx(0.5, abs=0.2)
    assert int(cut_columns(0.05, 10)) == 1


def network(mix, loss=SPARSE, outputs=3):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((10,)), mix, layers.Dense(outputs, "softmax")])
    return kregs.compile_model(model, loss, optimizer="sgd")


@pytest.mark.slow
@pytest.mark.parametrize("loss", [SPARSE, "categorical_crossentropy"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_is_that_of_mixed_labels(loss, smoothing):
    mix = RowMix(mixup=0.5, seed=1)
    model = keras.Sequential([keras.Input((10,)), mix, layers.Dense(3, "softmax")])
    kregs.compile_model(model, loss, label_smoothing=smoothing)
    assert isinstance(model.loss, MixedLoss)
    y = Y if loss == SPARSE else np.eye(3)[Y]
    p = model(X, training=True)
    value = float(model.loss(y, p))
    w, partner = float(mix.batch.weight), mix.batch.partner.numpy()
    labels = (1 - smoothing) * (w * np.eye(3)[Y] + (1 - w) * np.eye(3)[Y[partner]]) + smoothing / 3
    assert value == pytest.approx(-(labels * np.log(p)).sum(1).mean(), rel=1e-5)
    model(X)  # while predicting nothing is mixed
    assert float(model.loss(y, p)) != pytest.approx(value)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"mixup": 1.0}, {"cutmix": 1.0}, {"cutout": 1.0}])
def test_a_step_follows_the_gradient_of_the_mixed_loss(options):
    """One step of gradient descent against the same step on rows and labels mixed by hand."""
    mix = RowMix(seed=3, **options)
    model = network(mix)
    start = [w.copy() for w in model.get_weights() if w.ndim]
    twin = network(RowMix(seed=3, **options))
    twin.layers[0].batch.has_loss = True
    rows = twin.layers[0](X, training=True).numpy()
    labels = np.eye(3)[Y]
    if twin.layers[0].batch.partner is not None:
        w = float(twin.layers[0].batch.weight)
        labels = w * labels + (1 - w) * labels[twin.layers[0].batch.partner.numpy()]
    logs = model.fit(X, Y, batch_size=16, verbose=0, shuffle=False, validation_data=(X, Y)).history
    kernel, bias = start
    logits = rows @ kernel + bias
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    assert logs["loss"][0] == pytest.approx(-(labels * np.log(p)).sum(1).mean(), rel=1e-4)
    assert logs["data_loss"][0] == pytest.approx(-np.log(p[np.arange(16), Y]).mean(), rel=1e-4)
    new_kernel = kernel - 0.01 * rows.T @ (p - labels) / 16
    np.testing.assert_allclose(model.get_layer(index=-1).kernel, new_kernel, rtol=1e-4, atol=1e-6)
    validation = model.evaluate(X, Y, verbose=0, return_dict=True)
    assert logs["val_loss"][0] == pytest.approx(validation["loss"], rel=1e-5)


def test_mixing_without_its_loss_is_refused():
    model = keras.Sequential([keras.Input((10,)), RowMix(mixup=0.2), layers.Dense(3, "softmax")])
    model.compile("sgd", SPARSE)
    with pytest.raises(ValueError, match="nothing mixes their labels: compile the model by kregs"):
        model.fit(X, Y, verbose=0)
    model.compile("sgd", MixedLoss(keras.losses.SparseCategoricalCrossentropy(), model))
    model.fit(X, Y, verbose=0)
    cutting = keras.Sequential([keras.Input((10,)), RowMix(cutout=0.2), layers.Dense(3, "softmax")])
    cutting.compile("sgd", SPARSE)
    cutting.fit(X, Y, verbose=0)


def test_files_and_compile_configs_hold_the_loss_itself(tmp_path):
    model = network(RowMix(mixup=0.2))
    assert "kregs" not in str(model.get_compile_config())
    own = keras.saving.serialize_keras_object(model.loss)
    again = keras.saving.deserialize_keras_object(own)
    assert type(again) is keras.losses.SparseCategoricalCrossentropy
    model.fit(X, Y, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded.predict(X, verbose=0), model.predict(X, verbose=0))
    assert loaded.layers[0].get_config() == model.layers[0].get_config()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"mixup": -1.0}, ValueError, "`mixup` must be"),
        ({"cutmix": 1.1}, ValueError, "`cutmix` must be"),
        ({"cutout": "a"}, TypeError, "`cutout` must be"),
        ({"cutout_ratio": 2}, ValueError, "`cutout_ratio` must be"),
        ({"mixup": 0.1, "cutmix": 0.1}, ValueError, "one of them must be 0"),
    ],
)
def test_wrong_arguments(options, error, message):
    with pytest.raises(error, match=message):
        RowMix(**options)


def test_wrong_inputs_and_models():
    with pytest.raises(ValueError, match=r"need \(batch, columns\)"):
        RowMix(cutmix=0.5)(np.ones((2, 3, 4)))
    plain = keras.Sequential([keras.Input((10,)), layers.Dense(1)])
    with pytest.raises(ValueError, match=r"`model` must have a layer kregs\.layers\.RowMix"):
        MixedLoss(keras.losses.MeanSquaredError(), plain)
    with pytest.raises(TypeError, match="`loss` must be"):
        MixedLoss("mse", plain)
    with pytest.raises(TypeError, match="`model` must be"):
        MixedLoss(keras.losses.MeanSquaredError(), "model")
    several = keras.Sequential([keras.Input((10,)), RowMix(mixup=0.5), RowMix(), layers.Dense(1)])
    with pytest.raises(ValueError, match="must have one layer RowMix"):
        kregs.compile_model(several, "mse")


# ---- populations ---------------------------------------------------------------------------


def test_quantiles_of_beta():
    alpha, u = np.meshgrid([0.05, 0.2, 1.0, 4.0], [0.01, 0.3, 0.5, 0.9])
    expected = scipy.stats.beta.ppf(u, alpha, alpha)
    for jit in (False, True):
        function = tf.function(beta_quantile, jit_compile=jit)
        ours = function(tf.constant(alpha.ravel()), tf.constant(u.ravel()))
        np.testing.assert_allclose(ours, expected.ravel(), atol=1e-6)
    assert float(beta_quantile(tf.constant([0.0]), tf.constant([0.3]))[0]) == 1.0


MEMBERS = (
    {"mixup": 0.4},
    {},
    {"cutmix": 0.7},
    {"cutout": 0.6, "cutout_ratio": 0.4},
    {"mixup": 2.0},
)
ROWS = RNG.normal(size=(80, 10)).astype("float32") + 1.0
LABELS = RNG.integers(0, 3, 80)


def member(k, learning_rate=0.0):
    keras.utils.set_random_seed(5)
    mix = [RowMix(**MEMBERS[k])] if MEMBERS[k] else []
    model = keras.Sequential([keras.Input((10,)), *mix, layers.Dense(3, "softmax")])
    return kregs.compile_model(
        model, SPARSE, optimizer=keras.optimizers.SGD(learning_rate), label_smoothing=0.1 * (k == 0)
    )


@pytest.mark.parametrize(
    "accelerate",
    [
        pytest.param(False, marks=pytest.mark.nightly),
        pytest.param(True, marks=pytest.mark.slow),
    ],
)
def test_members_mix_as_keras_does(accelerate):
    """With a learning rate of 0 the mean loss of an epoch depends on the mixing alone."""
    epochs = 30
    population = Population.from_models([member(k) for k in range(5)], seeds=range(5))
    fit = {"batch_size": 32, "epochs": epochs, "accelerate": accelerate}  # the last one is smaller
    histories = population.fit(ROWS, LABELS, **fit)
    for k in range(5):
        alone = member(k)
        theirs = alone.fit(ROWS, LABELS, batch_size=32, epochs=epochs, verbose=0).history
        for name in ("loss", "data_loss"):
            a, b = np.array(histories[k][name]), np.array(theirs[name])
            error = np.sqrt(a.var() / epochs + b.var() / epochs)
            assert abs(a.mean() - b.mean()) < 5 * error + 1e-6, (k, name)
            assert a.std() == pytest.approx(b.std(), rel=0.6, abs=1e-6), (k, name)


@pytest.mark.slow
def test_a_member_does_not_depend_on_the_others():
    def ends(which):
        models = [member(k, learning_rate=0.1) for k in which]
        population = Population.from_models(models, seeds=[10 + k for k in which])
        population.fit(ROWS, LABELS, batch_size=32, epochs=2, shuffle=False)
        return [[w for w in m.get_weights() if w.ndim] for m in population.unstack()]

    together = ends([0, 1, 2, 3])
    for k in (0, 2):
        for ours, theirs in zip(ends([k])[0], together[k], strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)
    alone = member(1, learning_rate=0.1)  # which has no such layer: exactly as by `fit`
    alone.fit(ROWS, LABELS, batch_size=32, epochs=2, shuffle=False, verbose=0)
    for ours, theirs in zip(together[1], alone.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)


@pytest.mark.slow
def test_members_mix_what_a_convolution_makes():
    """A stacked convolution has the members side by side on the channels."""
    images = np.random.default_rng(0).normal(size=(16, 6, 6, 2)).astype("float32")
    labels = np.arange(16) % 2

    def ends(alphas):
        models = []
        for alpha in alphas:
            keras.utils.set_random_seed(0)
            body = [layers.Conv2D(4, 3, activation="relu"), RowMix(mixup=alpha), layers.Flatten()]
            model = keras.Sequential([keras.Input((6, 6, 2)), *body, layers.Dense(2, "softmax")])
            models.append(kregs.compile_model(model, SPARSE, learning_rate=0.1))
        population = Population.from_models(models)
        population.fit(images, labels, batch_size=8, shuffle=False)
        return [[w for w in model.get_weights() if w.ndim] for model in population.unstack()]

    together = ends([0.2, 0.0, 2.0])
    for one, other in zip(ends([2.0])[0], together[2], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
    assert not np.allclose(together[0][0], together[1][0])
