"""Label smoothing of class numbers: the loss, `compile_model` and the field of `Regularization`."""

import functools

import keras
import numpy as np
import pytest

import kregs
from kregs import Regularization, SmoothedSparseCategoricalCrossentropy
from kregs.builders.unapplied import unapplied
from kregs.training.label_smoothing import smoothing_of, with_smoothing, without_smoothing

SPARSE = "sparse_categorical_crossentropy"
RNG = np.random.default_rng(0)
X = RNG.normal(size=(12, 4)).astype("float32")
Y = RNG.integers(0, 3, 12)


def softmax(logits):
    shares = np.exp(logits - logits.max(-1, keepdims=True))
    return shares / shares.sum(-1, keepdims=True)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.6])
@pytest.mark.parametrize("from_logits", [False, True])
@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "sum", "none"])
def test_the_loss_is_that_of_smoothed_one_hot_labels(smoothing, from_logits, reduction):
    """Szegedy et al. 2016, equation 7 of section 7: q' = (1 - eps) q + eps / K."""
    logits = RNG.normal(size=(12, 3))
    weight = RNG.uniform(0, 2, 12)
    options = {"from_logits": from_logits, "reduction": reduction, "dtype": "float64"}
    loss = SmoothedSparseCategoricalCrossentropy(smoothing, **options)
    stock = keras.losses.CategoricalCrossentropy(label_smoothing=smoothing, **options)
    outputs = logits if from_logits else softmax(logits)
    target = (1 - smoothing) * np.eye(3)[Y] + smoothing / 3
    expected = -(target * np.log(softmax(logits))).sum(1) * weight
    if reduction != "none":
        expected = expected.sum() / (12 if reduction == "sum_over_batch_size" else 1)
    value = loss(Y, outputs, weight)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    np.testing.assert_allclose(value, stock(np.eye(3)[Y], outputs, weight), rtol=1e-6)
    np.testing.assert_allclose(loss(Y[:, None], outputs, weight), value, rtol=1e-12)


def test_sequences_and_gradients_of_the_loss():
    logits = RNG.normal(size=(4, 5, 3)).astype("float32")
    labels = RNG.integers(0, 3, (4, 5))
    loss = SmoothedSparseCategoricalCrossentropy(0.2, from_logits=True)
    stock = keras.losses.CategoricalCrossentropy(label_smoothing=0.2, from_logits=True)
    one_hot = np.eye(3)[labels]
    np.testing.assert_allclose(loss(labels, logits), stock(one_hot, logits), rtol=1e-5)


def test_round_trip_of_the_loss():
    loss = SmoothedSparseCategoricalCrossentropy(0.3, from_logits=True, reduction="sum", name="own")
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
    assert type(again) is SmoothedSparseCategoricalCrossentropy
    assert again.get_config() == loss.get_config()
    np.testing.assert_allclose(again(Y, X[:, :3]), loss(Y, X[:, :3]))


def test_smoothing_is_put_in_and_taken_out():
    stock = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="sum", name="a")
    loss = with_smoothing(stock, 0.3)
    assert (smoothing_of(stock), smoothing_of(loss)) == (0.0, 0.3)
    assert type(with_smoothing(loss, 0.4)) is type(loss)
    back = without_smoothing(loss)
    assert type(back) is keras.losses.SparseCategoricalCrossentropy
    assert back.get_config() == stock.get_config()
    np.testing.assert_array_equal(back(Y, X[:, :3]), stock(Y, X[:, :3]))
    assert without_smoothing(stock) is stock
    ignoring = keras.losses.SparseCategoricalCrossentropy(ignore_class=0)
    assert smoothing_of(ignoring) is None
    with pytest.raises(ValueError, match=r"`ignore_class` must be None.*ignore_class=0"):
        SmoothedSparseCategoricalCrossentropy(0.1, ignore_class=0)


def mlp(r=None, head="softmax", outputs=3):
    return kregs.mlp(
        (4,), outputs, units=(5,), head_activation=head, regularization=r, seed=0, activation="tanh"
    )


@pytest.mark.slow
def test_training_on_class_numbers_is_training_on_one_hot_labels():
    r = Regularization(label_smoothing=0.2, l2=0.01)
    sparse = kregs.compile_model(mlp(r), SPARSE, optimizer="sgd", regularization=r)
    one_hot = mlp(r.replace(label_smoothing=0.0))
    loss = keras.losses.CategoricalCrossentropy(label_smoothing=0.2)
    kregs.compile_model(one_hot, loss, optimizer="sgd")
    one_hot.set_weights(sparse.get_weights())
    fit = functools.partial(keras.Model.fit, batch_size=4, epochs=3, shuffle=False, verbose=0)
    first = fit(sparse, X, Y, validation_data=(X, Y)).history
    second = fit(one_hot, X, np.eye(3)[Y], validation_data=(X, np.eye(3)[Y])).history
    for name in ("loss", "data_loss", "val_loss", "val_data_loss"):
        np.testing.assert_allclose(first[name], second[name], rtol=1e-5, err_msg=name)
    assert first["loss"][0] > first["data_loss"][0]
    p = sparse.predict(X, verbose=0).astype("float64")
    judged = -np.log(p[np.arange(12), Y]).mean()  # as it is: neither smoothed nor penalized
    assert first["val_data_loss"][-1] == pytest.approx(judged, rel=1e-5)


def test_a_saved_file_holds_stock_losses(tmp_path):
    model = kregs.compile_model(mlp(), SPARSE, label_smoothing=0.2)
    assert type(model.loss) is SmoothedSparseCategoricalCrossentropy
    model.optimizer.build(model.trainable_variables)
    model.save(tmp_path / "model.keras")
    assert "kregs" not in str(model.get_compile_config())
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert type(loaded.loss) is keras.losses.SparseCategoricalCrossentropy
    several = two_outputs()
    kregs.compile_model(several, {"kind": SPARSE, "size": "mse"}, regularization=SMOOTHED)
    assert "kregs" not in str(several.get_compile_config())


# ---- the field -----------------------------------------------------------------------------

SMOOTHED = Regularization(label_smoothing=0.1)


def test_a_built_model_refuses_to_go_without():
    model = mlp(SMOOTHED)
    assert unapplied(model).regularization == SMOOTHED
    message = (
        r"built with Regularization\(label_smoothing=0.1\), which belongs to the loss: compile"
    )
    with pytest.raises(ValueError, match=message):
        model.compile("adam", SPARSE)
    with pytest.raises(ValueError, match=message):
        kregs.compile_model(model, SPARSE)
    around = keras.Sequential([keras.Input((4,)), model])
    with pytest.raises(ValueError, match=message):
        kregs.compile_model(around, SPARSE)
    kregs.compile_model(around, SPARSE, label_smoothing=0.1)
    model.compile("adam", SmoothedSparseCategoricalCrossentropy(0.1))
    model.compile("adam", loss=keras.losses.CategoricalCrossentropy(label_smoothing=0.1))
    kregs.compile_model(model, SPARSE, label_smoothing=0.1)
    kregs.compile_model(model, SPARSE, label_smoothing=0.1, regularization=SMOOTHED)
    assert smoothing_of(model.loss) == 0.1
    with pytest.raises(ValueError, match="must be the value that the model was built with"):
        kregs.compile_model(model, SPARSE, regularization=SMOOTHED.replace(label_smoothing=0.2))
    with pytest.raises(ValueError, match="`label_smoothing` is set twice"):
        kregs.compile_model(model, SPARSE, label_smoothing=0.2, regularization=SMOOTHED)
    with pytest.raises(ValueError, match="`label_smoothing` is known to these losses only"):
        kregs.compile_model(mlp(SMOOTHED), "mse", regularization=SMOOTHED)


@pytest.mark.parametrize("loss", ["categorical_crossentropy", "binary_crossentropy", SPARSE])
def test_compile_model_applies_it_to_every_loss_that_knows_it(loss):
    model = kregs.compile_model(mlp(SMOOTHED), loss, regularization=SMOOTHED)
    assert smoothing_of(model.loss) == 0.1
    given = keras.losses.get(model.loss.get_config()["name"] if loss == SPARSE else loss)
    again = kregs.compile_model(mlp(), given, regularization=Regularization(dropout=0.5))
    assert not smoothing_of(again.loss)


def two_outputs():
    inputs = keras.Input((4,))
    kind = keras.layers.Dense(3, "softmax", name="kind")(inputs)
    return keras.Model(inputs, {"kind": kind, "size": keras.layers.Dense(1, name="size")(inputs)})


def test_of_several_outputs_those_that_know_it():
    model = two_outputs()
    losses = {"kind": SPARSE, "size": "mse"}
    kregs.compile_model(model, losses, regularization=SMOOTHED)
    assert {name: smoothing_of(loss) for name, loss in model.loss.items()} == {
        "kind": 0.1, "size": None,
    }  # fmt: skip
    with pytest.raises(ValueError, match="known to these losses only"):
        kregs.compile_model(model, losses, label_smoothing=0.1)
    with pytest.raises(ValueError, match="known to these losses only"):
        kregs.compile_model(model, "mse", regularization=SMOOTHED)


def test_the_summary_tells_of_it():
    frame = kregs.regularization_summary(mlp(), SMOOTHED).set_index("layer")["done"]
    assert "label_smoothing=0.1 by compile_model" in frame["head"]
    assert "smoothing" not in frame["dense_1"]
