"""Augmentation: Keras's layers in the right place, and the arithmetic of mixed labels."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import kregs

RNG = np.random.default_rng(0)
N, SIZE, CLASSES = 24, 8, 24


def constant_images():
    """Image i is filled with the value i, and its label is i: a mix shows what it is made of."""
    x = np.repeat(np.arange(N, dtype="float32"), SIZE * SIZE).reshape(N, SIZE, SIZE, 1)
    return x, np.arange(N)


def collect(data):
    batches = [tuple(part.numpy() for part in element) for element in data]
    return [np.concatenate(parts) for parts in zip(*batches, strict=True)]


def test_layers_are_stock_and_configured():
    layers = kregs.augmentation_layers(
        flip="vertical", rotation=0.1, translation=0.2, zoom=0.3, rand_augment=0.4, seed=0
    )
    names = ["RandomFlip", "RandomRotation", "RandomTranslation", "RandomZoom", "RandAugment"]
    assert [type(layer).__name__ for layer in layers] == names
    assert all(type(layer) is getattr(keras.layers, type(layer).__name__) for layer in layers)
    seeds = [layer.get_config()["seed"] for layer in layers]
    assert len(set(seeds)) == 5
    assert kregs.augmentation_layers(flip=None) == []


def test_layers_do_nothing_in_inference():
    model = keras.Sequential(
        [keras.Input((SIZE, SIZE, 3)), *kregs.augmentation_layers(rotation=0.2, rand_augment=0.5)]
    )
    x = RNG.uniform(0, 255, size=(4, SIZE, SIZE, 3)).astype("float32")
    np.testing.assert_allclose(model(x, training=False), x)


def test_flip_gives_the_image_or_its_mirror():
    x = RNG.uniform(0, 255, size=(N, SIZE, SIZE, 1)).astype("float32")
    images, labels = collect(kregs.augment(x, np.arange(N), batch_size=7, shuffle=False, seed=0))
    assert labels.tolist() == list(range(N))
    same = [np.allclose(images[i], x[i]) for i in range(N)]
    mirrored = [np.allclose(images[i], x[i, :, ::-1]) for i in range(N)]
    assert all(a or b for a, b in zip(same, mirrored, strict=True))
    assert any(same)
    assert any(mirrored)


def test_originals_are_not_altered_and_epochs_differ():
    x = RNG.integers(0, 256, size=(N, SIZE, SIZE, 3)).astype("uint8")
    y = np.arange(N)
    x_before, y_before = x.copy(), y.copy()
    data = kregs.augment(
        x, y, batch_size=8, classes=N, rotation=0.2, rand_augment=0.5, mixup=0.4, cutmix=1.0, seed=1
    )
    first, second = collect(data), collect(data)
    np.testing.assert_array_equal(x, x_before)
    np.testing.assert_array_equal(y, y_before)
    assert first[0].dtype == np.float32
    assert first[0].shape == x.shape
    assert not np.allclose(first[0], second[0])


def test_seed_makes_it_repeatable():
    x, y = constant_images()
    options = {"batch_size": 5, "classes": N, "rotation": 0.2, "mixup": 0.4, "cutmix": 1.0}
    one, two, other = (collect(kregs.augment(x, y, seed=s, **options)) for s in (3, 3, 4))
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.allclose(one[1], other[1])


def test_shuffles_arrays_unless_told_not_to():
    x, y = constant_images()
    plain = collect(kregs.augment(x, y, batch_size=N, flip=None, shuffle=False))[1]
    assert plain.tolist() == y.tolist()
    data = kregs.augment(x, y, batch_size=N, flip=None, seed=0)
    images, labels = collect(data)
    assert labels.tolist() != y.tolist()
    assert sorted(labels) == y.tolist()
    np.testing.assert_array_equal(images[:, 0, 0, 0], labels)
    assert collect(data)[1].tolist() != labels.tolist()


def test_mixup_mixes_labels_as_images():
    x, y = constant_images()
    images, labels = collect(
        kregs.augment(x, y, batch_size=8, classes=N, flip=None, mixup=0.5, seed=0)
    )
    np.testing.assert_allclose(labels.sum(axis=1), 1.0, rtol=1e-5)
    # a mix of constant images is constant, with the labels' mean as its value
    np.testing.assert_allclose(images.std(axis=(1, 2, 3)), 0.0, atol=1e-5)
    np.testing.assert_allclose(images.mean(axis=(1, 2, 3)), labels @ np.arange(N), rtol=1e-4)
    assert (np.count_nonzero(labels > 1e-3, axis=1) == 2).sum() > N / 4


def test_cutmix_labels_follow_the_area():
    x, y = constant_images()
    images, labels = collect(
        kregs.augment(x, y, batch_size=8, classes=N, flip=None, cutmix=1.0, seed=0)
    )
    np.testing.assert_allclose(labels.sum(axis=1), 1.0, rtol=1e-5)
    shares = np.array([[np.mean(image == i) for i in range(N)] for image in images])
    np.testing.assert_allclose(shares.sum(axis=1), 1.0)  # every pixel is from one of two images
    assert (np.count_nonzero(shares, axis=1) <= 2).all()
    # Keras takes the area of the box, whose edges lie between pixels
    np.testing.assert_allclose(shares, labels, atol=2 / SIZE)
    assert (np.count_nonzero(shares, axis=1) == 2).sum() > N / 4


def test_both_mixes_take_turns_by_batch():
    x, y = constant_images()
    data = kregs.augment(
        np.repeat(x, 4, axis=0), np.repeat(y, 4), batch_size=6, classes=N, flip=None,
        mixup=1.0, cutmix=1.0, seed=0,
    )  # fmt: skip
    kinds = []
    for images, _ in data:
        blended = (images.numpy() % 1 > 1e-3).any()
        kinds.append("mixup" if blended else "cutmix")
    assert 3 <= kinds.count("mixup") <= 13
    assert len(kinds) == 16


@pytest.mark.parametrize("batched", [False, True])
def test_datasets(batched):
    x, y = constant_images()
    source = tf.data.Dataset.from_tensor_slices((x, y))
    source = source.batch(6) if batched else source
    data = kregs.augment(
        source, batch_size=None if batched else 6, classes=N, flip=None, mixup=0.2, seed=0
    )
    images, labels = collect(data)
    assert images.shape == x.shape
    np.testing.assert_allclose(images.mean(axis=(1, 2, 3)), labels @ np.arange(N), rtol=1e-4)


def test_sample_weights_pass_through():
    x, y = constant_images()
    source = tf.data.Dataset.from_tensor_slices((x, y, np.arange(N, dtype="float32"))).batch(6)
    assert collect(kregs.augment(source))[2].tolist() == list(range(N))
    with pytest.raises(ValueError, match="cannot mix sample weights"):
        kregs.augment(source, mixup=0.2, classes=N)


def test_trains_under_mixed_labels():
    x, y = constant_images()
    model = keras.Sequential(
        [keras.Input(x.shape[1:]), keras.layers.Flatten(), keras.layers.Dense(N, "softmax")]
    )
    kregs.compile_model(model, "categorical_crossentropy")
    data = kregs.augment(x, y, batch_size=8, classes=N, mixup=0.2)
    history = model.fit(data, shuffle=False, verbose=0).history
    assert np.isfinite(history["data_loss"]).all()


X, Y = constant_images()


@pytest.mark.parametrize(
    ("data", "options", "error", "message"),
    [
        ((X, Y), {"mixup": 0.2}, ValueError, "`classes` must be given"),
        ((X, Y[:, None]), {"mixup": 0.2}, ValueError, "`classes` must be given"),
        ((X,), {"mixup": 0.2}, ValueError, "need labels"),
        ((X, np.eye(N)), {"classes": 3}, ValueError, "`classes` must be the number of columns"),
        ((X, Y), {"batch_size": None}, ValueError, "`batch_size` must be given"),
        ((X, Y[:-1]), {}, ValueError, "same number of rows"),
        ((X[..., 0], Y), {}, ValueError, "`x` must be images of shape"),
        ((X * np.nan, Y), {}, ValueError, "`x` must be finite"),
        ((X, Y), {"flip": "sideways"}, ValueError, "`flip` must be one of"),
        ((X, Y), {"rotation": -0.1}, ValueError, "`rotation` must be"),
        ((X, Y), {"zoom": 1.0}, ValueError, "`zoom` must be"),
        ((X, Y), {"cutmix": 1.5}, ValueError, "`cutmix` must be"),
        ((X, Y), {"mixup": "yes"}, TypeError, "`mixup` must be"),
        ((X, Y), {"value_range": (1, 0)}, ValueError, "`value_range"),
        ((X, Y), {"value_range": 255}, ValueError, "`value_range"),
        ((X / 255, Y), {"rand_augment": 0.5}, ValueError, "pixels from 0 to"),
        ((X, Y), {"rand_augment": 0.5, "value_range": (0, 1)}, ValueError, "pixels from 0 to 23"),
        ((tf.data.Dataset.from_tensors((X, Y)),), {}, ValueError, "`batch_size` must be None"),
        ((tf.data.Dataset.from_tensors((X, Y)), Y), {}, ValueError, "`y` must be None"),
    ],
)
def test_wrong_arguments(data, options, error, message):
    with pytest.raises(error, match=message):
        kregs.augment(*data, **{"batch_size": 4, **options})


def test_labels_outside_the_classes_are_an_error_or_stop_the_pipeline():
    with pytest.raises(ValueError, match=r"`y` must hold class numbers in \[0, 3\)"):
        kregs.augment(X, Y, batch_size=4, classes=3)
    dataset = tf.data.Dataset.from_tensor_slices((X, Y)).batch(4)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"class numbers in \[0, 3\)"):
        collect(kregs.augment(dataset, classes=3))
