"""Random numbers of members, by the generator Threefry: a function of seed, layer and step alone.

So a member's noise does not depend on who else is in the population or where it stands, and members
with one seed get the same noise at the same step (common random numbers).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import tensorflow as tf

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA
_ROUNDS = 13


def threefry(
    key: tuple[tf.Tensor, tf.Tensor], counter: tuple[tf.Tensor, tf.Tensor], rounds: int = 20
):
    """Return two uint32 tensors: Threefry-2x32.

    Plain tensor arithmetic, so that one call draws for all members, each with its own key:
    TensorFlow's stateless generators take one key a call.

    Args:
        key, counter: pairs of uint32 tensors that broadcast against each other.
        rounds: 13 pass all of the paper's statistical tests (BigCrush); 20 have a margin.

    Reference:
        Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011.
    """
    keys = (*key, key[0] ^ key[1] ^ tf.constant(_PARITY, tf.uint32))
    a, b = counter[0] + keys[0], counter[1] + keys[1]
    for number in range(rounds):
        group, place = divmod(number, 4)
        turn = _ROTATIONS[group % 2][place]
        a = a + b
        b = tf.bitwise.left_shift(b, tf.constant(turn, tf.uint32)) | tf.bitwise.right_shift(
            b, tf.constant(32 - turn, tf.uint32)
        )
        b = b ^ a
        if place < 3:
            continue
        a = a + keys[(group + 1) % 3]
        b = b + keys[(group + 2) % 3] + tf.constant(group + 1, tf.uint32)
    return a, b


class Noise:
    """The random numbers of one training step.

    Args:
        seeds: one a member, int32 tensor of shape `(K,)`.
        steps: the training step each member is at, int32 tensor of shape `(K,)`.
        batch: rows of a full step. A shorter step gets the first rows of a full step's noise.
        compiled: whether all of the step is compiled with XLA. If not, the generator still is:
            it is a hundred small operations, which XLA makes one.
    """

    def __init__(self, seeds: tf.Tensor, steps: tf.Tensor, *, batch: int, compiled: bool) -> None:
        self._seeds = tf.convert_to_tensor(seeds)
        self._steps = tf.convert_to_tensor(steps)
        self._batch = batch
        self._compiled = compiled

    def kept(self, shape: list, stream: int, rate: tf.Tensor) -> tf.Tensor:
        """Draw which of `(K, *shape)` are kept, each with probability 1 - rate.

        Args:
            shape: of one member's draw; its first entry is the rows, which may be a tensor.
            stream: tells the layers apart.
            rate: of each member, `(K,)`.
        """
        return self._draw(_kept, shape, stream, tf.cast(rate, tf.float32))

    def normal(self, shape: list, stream: int) -> tf.Tensor:
        """Draw float32 from the standard normal distribution, shape `(K, *shape)`."""
        return self._draw(_normal, shape, stream)

    def uniform(self, shape: list, stream: int) -> tf.Tensor:
        """Draw float32 between 0 and 1, never one of these, shape `(K, *shape)`."""
        return self._draw(_uniform, shape, stream)

    def words(self, count: int, stream: int) -> tf.Tensor:
        """Draw random words of 32 bits, uint32 of shape `(K, count)`."""
        function = _bits if self._compiled else _with_xla(_bits)
        return function(self._seeds, self._steps, stream, count)

    def _draw(self, draw: Callable, shape: list, stream: int, *vectors: tf.Tensor) -> tf.Tensor:
        rows, *inner = shape
        full = (rows if isinstance(rows, int) else self._batch, *inner)
        function = draw if self._compiled else _with_xla(draw)
        drawn = function(self._seeds, self._steps, stream, full, *vectors)
        return drawn if isinstance(rows, int) else drawn[:, :rows]


@functools.cache
def _with_xla(draw: Callable) -> Callable:
    return tf.function(draw, jit_compile=True, autograph=False)


def _kept(
    seeds: tf.Tensor, steps: tf.Tensor, stream: int, shape: tuple, rate: tf.Tensor
) -> tf.Tensor:
    # 16 bits a draw halve the cost; they round a rate to 1 / 65536
    size = math.prod(shape)
    words = _bits(seeds, steps, stream, (size + 1) // 2)
    low = words & tf.constant(0xFFFF, tf.uint32)
    high = tf.bitwise.right_shift(words, tf.constant(16, tf.uint32))
    draws = tf.cast(tf.concat([low, high], axis=1)[:, :size], tf.int32)
    threshold = tf.cast(tf.round(rate * 2.0**16), tf.int32)
    return tf.reshape(draws >= threshold[:, None], [-1, *shape])


def _uniform(seeds: tf.Tensor, steps: tf.Tensor, stream: int, shape: tuple) -> tf.Tensor:
    bits = _bits(seeds, steps, stream, math.prod(shape))
    # 23 bits and a half: 0 and 1 are not among them, where the inverse of a normal is infinite
    bits = tf.bitwise.right_shift(bits, tf.constant(9, tf.uint32))
    return tf.reshape((tf.cast(bits, tf.float32) + 0.5) * 2.0**-23, [-1, *shape])


def _normal(seeds: tf.Tensor, steps: tf.Tensor, stream: int, shape: tuple) -> tf.Tensor:
    uniform = _uniform(seeds, steps, stream, shape)
    return math.sqrt(2.0) * tf.math.erfinv(2.0 * uniform - 1.0)


def _bits(seeds: tf.Tensor, steps: tf.Tensor, stream: int, size: int) -> tf.Tensor:
    """Return `(K, size)` random words of 32 bits."""
    half = (size + 1) // 2
    key = tuple(tf.cast(word, tf.uint32)[:, None] for word in (seeds, steps))
    counter = (
        tf.cast(tf.range(half), tf.uint32)[None, :],
        tf.fill([1, half], tf.constant(stream, tf.uint32)),
    )
    return tf.concat(threefry(key, counter, _ROUNDS), axis=1)[:, :size]
