"""Image augmentation from Keras's own layers, as a `tf.data` pipeline for the training data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kregs.training.data_checks import check_data
from kregs.validation import check_choice, check_flag, check_integer, check_number, check_seed

_FLIPS = (None, "horizontal", "vertical", "horizontal_and_vertical")


def augmentation_layers(
    *,
    flip: str | None = "horizontal",
    rotation: float = 0.0,
    translation: float = 0.0,
    zoom: float = 0.0,
    rand_augment: float = 0.0,
    rand_augment_ops: int = 2,
    value_range: tuple[float, float] = (0, 255),
    seed: int | None = None,
) -> list[keras.layers.Layer]:
    """Return stock Keras layers that move and distort images at random while training.

    Put them at the front of a model (they do nothing in inference), or let `kregs.augment` apply
    them to the data.

    Args:
        flip: `"horizontal"`, `"vertical"`, `"horizontal_and_vertical"`, or `None`, which digits and
            letters need.
        rotation: largest angle, as a part of a full turn, in [0, 1].
        translation: largest shift, as a part of the height and the width, in [0, 1].
        zoom: largest relative change of size, in [0, 1).
        rand_augment: strength of RandAugment, in [0, 1]; 0 leaves it out.
        rand_augment_ops: number of operations that RandAugment applies to an image.
        value_range: the lowest and highest pixel value; RandAugment needs it.
        seed: integer for repeatable results, or `None`.

    Returns:
        A list of layers, empty if everything is off.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: an argument is out of bounds.

    Example:

    >>> [type(layer).__name__ for layer in augmentation_layers(rotation=0.05, zoom=0.1, seed=0)]
    ['RandomFlip', 'RandomRotation', 'RandomZoom']

    References:
        Cubuk et al., "RandAugment", 2020.
    """
    check_choice("flip", flip, _FLIPS)
    rotation = check_number("rotation", rotation, minimum=0.0, maximum=1.0)
    translation = check_number("translation", translation, minimum=0.0, maximum=1.0)
    zoom = check_number("zoom", zoom, minimum=0.0, below=1.0)
    rand_augment = check_number("rand_augment", rand_augment, minimum=0.0, maximum=1.0)
    rand_augment_ops = check_integer("rand_augment_ops", rand_augment_ops, minimum=1)
    low, high = _check_value_range(value_range)
    seeds = _seeds(seed, 5)
    layers = []
    # float32 whatever the dtype policy: float16 has no room for pixel arithmetic
    if flip:
        layers.append(keras.layers.RandomFlip(flip, seed=seeds[0], dtype="float32"))
    if rotation:
        layers.append(keras.layers.RandomRotation(rotation, seed=seeds[1], dtype="float32"))
    if translation:
        layers.append(
            keras.layers.RandomTranslation(translation, translation, seed=seeds[2], dtype="float32")
        )
    if zoom:
        layers.append(keras.layers.RandomZoom(zoom, seed=seeds[3], dtype="float32"))
    if rand_augment:
        layers.append(
            keras.layers.RandAugment(
                value_range=(low, high),
                num_ops=rand_augment_ops,
                factor=rand_augment,
                seed=seeds[4],
                dtype="float32",
            )
        )
    return layers


def augment(
    x: Any,
    y: Any = None,
    *,
    batch_size: int | None = None,
    classes: int | None = None,
    flip: str | None = "horizontal",
    rotation: float = 0.0,
    translation: float = 0.0,
    zoom: float = 0.0,
    rand_augment: float = 0.0,
    rand_augment_ops: int = 2,
    mixup: float = 0.0,
    cutmix: float = 0.0,
    value_range: tuple[float, float] = (0, 255),
    shuffle: bool | None = None,
    seed: int | None = None,
) -> tf.data.Dataset:
    """Return a dataset of augmented batches of the training data, new ones in every epoch.

    For training data only: validate and test on the data as they are. `x` and `y` are not changed.
    Pass `shuffle=False` to `fit` with the result, or Keras warns that it does not shuffle datasets.

    Args:
        x: images, (n, height, width, channels), or a `tf.data.Dataset` of `(images, labels)`,
            batched or not.
        y: labels of an array `x`: class numbers, (n,) or (n, 1), or one row per sample.
        batch_size: images per batch; for arrays and unbatched datasets only.
        classes: number of classes; turns class numbers into one-hot labels, which MixUp and CutMix
            need. Train on them with `"categorical_crossentropy"`.
        flip, rotation, translation, zoom, rand_augment, rand_augment_ops, value_range: as in
            `kregs.augmentation_layers`.
        mixup: α of MixUp's Beta(α, α), >= 0; 0.2 is usual. 0 leaves it out.
        cutmix: in [0, 1]: CutMix draws its α evenly from [0, `cutmix`]; 1 is usual. 0 leaves it
            out. With MixUp too, each batch gets one of the two, by a fair coin.
        shuffle: whether to shuffle arrays anew in every epoch; default `True`. A dataset keeps its
            order.
        seed: integer for repeatable results (which makes the pipeline sequential), or `None`.

    Returns:
        A `tf.data.Dataset` of `(images, labels)`; images are float32, (batch, height, width,
        channels).

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: an argument is out of bounds, shapes do not fit, or labels cannot be mixed.

    Example:

    >>> import numpy as np
    >>> x = np.zeros((10, 8, 8, 1), "uint8")
    >>> y = np.arange(10) % 3
    >>> data = augment(x, y, batch_size=5, classes=3, mixup=0.2, seed=0)
    >>> images, labels = next(iter(data))
    >>> images.shape, labels.shape
    (TensorShape([5, 8, 8, 1]), TensorShape([5, 3]))

    References:
        Zhang et al., "mixup: Beyond Empirical Risk Minimization", 2018;
        Yun et al., "CutMix", 2019; Cubuk et al., "RandAugment", 2020.
    """
    mixup = check_number("mixup", mixup, minimum=0.0)
    cutmix = check_number("cutmix", cutmix, minimum=0.0, maximum=1.0)
    if classes is not None:
        classes = check_integer("classes", classes, minimum=2)
    if shuffle is not None:
        check_flag("shuffle", shuffle)
    layers = augmentation_layers(
        flip=flip,
        rotation=rotation,
        translation=translation,
        zoom=zoom,
        rand_augment=rand_augment,
        rand_augment_ops=rand_augment_ops,
        value_range=value_range,
        seed=seed,
    )
    if isinstance(x, tf.data.Dataset):
        data = _from_dataset(x, y, batch_size, shuffle)
    else:
        if rand_augment:
            _check_pixels(np.asarray(x), value_range)
        data = _from_arrays(x, y, batch_size, shuffle, seed)
        _check_labels(y, classes)
    encode = _label_encoder(data.element_spec, classes, bool(mixup or cutmix))
    mix = _mixer(mixup, cutmix, seed)

    def transform(images: tf.Tensor, *rest: tf.Tensor) -> Any:
        images = tf.cast(images, tf.float32)
        for layer in layers:
            images = layer(images, training=True)
        if not rest:
            return images
        labels = encode(rest[0])
        if mix is not None:
            images, labels = mix(images, labels)
        return (images, labels, *rest[1:])

    # parallel calls take numbers from one generator in any order
    parallel = None if seed is not None else tf.data.AUTOTUNE
    return data.map(transform, num_parallel_calls=parallel).prefetch(tf.data.AUTOTUNE)


def _check_value_range(value_range: Any) -> tuple[float, float]:
    try:
        low, high = value_range
    except (TypeError, ValueError):
        low = high = None
    if low is None or high is None:
        raise ValueError(
            f"`value_range` must be (low, high). Received: value_range={value_range!r}"
        )
    low = check_number("value_range[low]", low)
    return low, check_number("value_range[high]", high, above=low)


def _check_pixels(x: np.ndarray, value_range: Any) -> None:
    """Raise if pixels lie outside the range, or fill only [0, 1] of a range like (0, 255)."""
    low, high = _check_value_range(value_range)
    if not x.size:
        return
    least, most = float(x.min()), float(x.max())
    if least < low or most > high or (0 < most <= 1 < high and x.dtype.kind == "f"):
        raise ValueError(
            "`value_range` must be the range of the pixels, which RandAugment relies on. "
            f"Received: value_range={tuple(value_range)}, pixels from {least:g} to {most:g}"
        )


def _seeds(seed: int | None, count: int) -> list[int | None]:
    """Return `count` different seeds made from one, or as many `None`."""
    if seed is None:
        return [None] * count
    seed = check_seed("seed", seed)
    return [int(s) for s in np.random.SeedSequence(seed).generate_state(count) >> 1]


def _from_arrays(x: Any, y: Any, batch_size: Any, shuffle: Any, seed: int | None) -> Any:
    check_data(x, y)
    x = np.asarray(x)
    if x.dtype.kind not in "biufV":  # V: bfloat16
        raise TypeError(f"`x` must hold numbers. Received: dtype {x.dtype}")
    if x.ndim != 4:
        raise ValueError(
            "`x` must be images of shape (n, height, width, channels). "
            f"Received: x of shape {x.shape}"
        )
    if batch_size is None:
        raise ValueError("`batch_size` must be given for arrays. Received: batch_size=None")
    batch_size = check_integer("batch_size", batch_size, minimum=1)
    data = tf.data.Dataset.from_tensor_slices((x,) if y is None else (x, np.asarray(y)))
    if shuffle is None or shuffle:
        data = data.shuffle(len(x), seed=_seeds(seed, 6)[5], reshuffle_each_iteration=True)
    return data.batch(batch_size)


def _check_labels(y: Any, classes: int | None) -> None:
    """Raise if class numbers lie outside of [0, classes); a dataset's are checked as it is read."""
    if y is None or classes is None or np.size(y) != len(y):
        return
    labels = np.asarray(y).reshape(-1)
    wrong = (labels < 0) | (labels >= classes) | (labels != np.floor(labels))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ValueError(
            f"`y` must hold class numbers in [0, {classes}), since classes={classes}. "
            f"Received: {labels[row].item()!r} in row {row}"
        )


def _from_dataset(x: tf.data.Dataset, y: Any, batch_size: Any, shuffle: Any) -> Any:
    if y is not None:
        raise ValueError("`y` must be None if `x` is a dataset: the labels are in the dataset.")
    if shuffle:
        raise ValueError("`shuffle` is for arrays: shuffle the dataset before it is passed.")
    spec = x.element_spec
    spec = spec if isinstance(spec, tuple) else (spec,)
    if not all(isinstance(part, tf.TensorSpec) for part in spec) or len(spec) > 3:
        raise ValueError(
            f"`x` must be a dataset of images or (images, labels). Received: {x.element_spec}"
        )
    data = x if isinstance(x.element_spec, tuple) else x.map(lambda images: (images,))
    rank = spec[0].shape.rank
    if rank not in (3, 4):
        raise ValueError(
            "`x` must be a dataset of images (height, width, channels), or batches of them. "
            f"Received: images of shape {spec[0].shape}"
        )
    if rank == 4:
        if batch_size is not None:
            raise ValueError(
                "`batch_size` must be None for a dataset that is batched. "
                f"Received: batch_size={batch_size}, images of shape {spec[0].shape}"
            )
        return data
    if batch_size is None:
        raise ValueError(
            "`batch_size` must be given for a dataset of single images. Received: batch_size=None"
        )
    return data.batch(check_integer("batch_size", batch_size, minimum=1))


def _label_encoder(spec: tuple, classes: int | None, mixing: bool) -> Callable:
    """Return what turns a batch of labels into those that the model is trained on."""
    if len(spec) == 1:
        if mixing or classes:
            raise ValueError(
                "`mixup`, `cutmix` and `classes` need labels. Received: images only (y=None)"
            )
        return lambda labels: labels
    labels = spec[1]
    column = labels.shape.rank == 2 and labels.shape[-1] == 1
    numbers = labels.shape.rank == 1 or (column and (labels.dtype.is_integer or classes))
    if mixing and len(spec) == 3:
        raise ValueError("`mixup` and `cutmix` cannot mix sample weights: leave them out.")
    if mixing and numbers and classes is None:
        raise ValueError(
            "`classes` must be given: MixUp and CutMix mix one-hot labels. "
            f"Received: classes=None, labels of shape {labels.shape}"
        )
    if not numbers and classes not in (None, labels.shape[-1]):
        raise ValueError(
            "`classes` must be the number of columns of labels that are one-hot already. "
            f"Received: classes={classes}, labels of shape {labels.shape}"
        )

    def encode(batch: tf.Tensor) -> tf.Tensor:
        if numbers and classes is not None:
            batch = tf.cast(tf.reshape(batch, [-1]), tf.int64)
            within = tf.debugging.Assert(
                tf.reduce_all((batch >= 0) & (batch < classes)),
                [f"labels must be class numbers in [0, {classes})"],
            )
            with tf.control_dependencies([within]):
                return tf.one_hot(batch, classes)
        return tf.cast(batch, tf.float32) if mixing else batch

    return encode


def _mixer(mixup: float, cutmix: float, seed: int | None) -> Callable | None:
    """Return what mixes a batch of images and labels by Keras's layers, or `None`."""
    seeds = _seeds(seed, 9)[6:]
    layers = []
    if mixup:
        layers.append(keras.layers.MixUp(alpha=mixup, seed=seeds[0], dtype="float32"))
    if cutmix:
        layers.append(keras.layers.CutMix(factor=cutmix, seed=seeds[1], dtype="float32"))
    if not layers:
        return None
    coin = keras.random.SeedGenerator(seeds[2])

    def apply(layer: keras.layers.Layer, images: tf.Tensor, labels: tf.Tensor) -> Any:
        mixed = layer({"images": images, "labels": labels}, training=True)
        return mixed["images"], mixed["labels"]

    def mix(images: tf.Tensor, labels: tf.Tensor) -> Any:
        if len(layers) == 1:
            return apply(layers[0], images, labels)
        return tf.cond(
            keras.random.uniform((), seed=coin) < 0.5,
            lambda: apply(layers[0], images, labels),
            lambda: apply(layers[1], images, labels),
        )

    return mix
