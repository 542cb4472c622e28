"""Seeds for trials, and Keras's and TensorFlow's global state put back as it was found."""

from __future__ import annotations

import contextlib
import gc
import random
from collections.abc import Iterator

import keras
import numpy as np
import tensorflow as tf

# private, and without a public way to read or restore: both are written by keras.utils.*
from keras.src.backend.common import global_state
from tensorflow.python.eager import context

# what a fresh session must not inherit; the rest (dtype policy, logging, ...) are settings
_SESSION_ONLY = (
    "object_name_uids", "global_seed_generator", "global_random_seed", "uninitialized_variables",
)  # fmt: skip


def derived_seed(seed: int, *path: int) -> int:
    """Return an integer in [1, 2**31) that depends on all arguments, well mixed.

    keras-tuner's oracles take a 0 for "no seed", and walk from one seed to the next integer, so
    that neighbouring seeds share proposals: they get mixed ones.

    Example:

    >>> derived_seed(0, 1) != derived_seed(0, 2) != derived_seed(1, 1)
    True
    """
    word = np.random.SeedSequence([seed, *path]).generate_state(1)[0]
    return 1 + int(word) % (2**31 - 1)


@contextlib.contextmanager
def preserved_state() -> Iterator[None]:
    """Put the random state and Keras's global state back when the block ends.

    Covers Python's `random`, NumPy's legacy generator, TensorFlow's global seed and the place in
    its sequence, and Keras's (seed generator, layer name counters, settings).
    """
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002
    eager = context.context()
    tf_seed, tf_sequence = eager._seed, getattr(eager, "_rng", None)
    trackers = global_state.GLOBAL_STATE_TRACKER, global_state.GLOBAL_SETTINGS_TRACKER
    try:
        fresh_session()
        yield
    finally:
        global_state.GLOBAL_STATE_TRACKER, global_state.GLOBAL_SETTINGS_TRACKER = trackers
        if tf_seed != eager._seed:
            tf.random.set_seed(tf_seed)
        if tf_sequence is not None:
            eager._rng = tf_sequence
        random.setstate(python_state)
        np.random.set_state(numpy_state)  # noqa: NPY002


def fresh_session() -> None:
    """Forget the names and graphs of earlier models, but keep Keras's settings.

    `keras.utils.clear_session`, which keras-tuner calls before every trial, drops the settings
    too: a mixed-precision policy would hold for no trial.
    """
    settings = {
        name: value
        for name, value in vars(global_state.GLOBAL_STATE_TRACKER).items()
        if name not in _SESSION_ONLY
    }
    others = dict(vars(global_state.GLOBAL_SETTINGS_TRACKER))
    keras.utils.clear_session(free_memory=False)
    vars(global_state.GLOBAL_STATE_TRACKER).update(settings)
    vars(global_state.GLOBAL_SETTINGS_TRACKER).update(others)


@contextlib.contextmanager
def cheap_collection() -> Iterator[None]:
    """Make `gc.collect` look only at what the block makes: 5 ms instead of 200 with TensorFlow."""
    mine = gc.get_freeze_count() == 0
    if mine:
        gc.collect()
        gc.freeze()
    try:
        yield
    finally:
        if mine:
            gc.unfreeze()
