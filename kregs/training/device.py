"""`set_up_gpu`: GPU memory growth and mixed precision, only where a script asks for them."""

from __future__ import annotations

import os

import keras
import tensorflow as tf

from kregs.validation import check_flag


def set_up_gpu(*, mixed_precision: bool = False, memory_growth: bool = True) -> str:
    """Prepare the GPUs of this process and say which device will be used.

    For scripts and the command line; nothing else in kregs calls it. Call it before the first
    model is built.

    Args:
        mixed_precision: whether to compute in float16 and keep weights in float32, by setting
            Keras's global dtype policy to `"mixed_float16"`. Only where there is a GPU: on a CPU
            it is slower, and the policy is left alone.
        memory_growth: whether TensorFlow takes GPU memory as it needs it, not all at once.

    Returns:
        One line for the user.

    Example:

    >>> set_up_gpu().startswith("Device: ")
    True
    """
    check_flag("mixed_precision", mixed_precision)
    check_flag("memory_growth", memory_growth)
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        remark = "; mixed precision is left off without a GPU" if mixed_precision else ""
        return f"Device: CPU ({_cpu_threads()}){remark}"
    remarks = []
    if memory_growth:
        try:
            for gpu in gpus:
                tf.config.experimental.set_memory_growth(gpu, True)
        except RuntimeError:  # TensorFlow fixes it when the GPU is first used
            remarks.append("memory growth unchanged: the GPU is already in use")
    if mixed_precision:
        keras.config.set_dtype_policy("mixed_float16")
        remarks.append("mixed precision (float16)")
    names = [tf.config.experimental.get_device_details(g).get("device_name", g.name) for g in gpus]
    kind = f"{len(gpus)} x {names[0]}" if len(gpus) > 1 else names[0]
    return f"Device: GPU, {kind}" + "".join(f"; {remark}" for remark in remarks)


def _cpu_threads() -> str:
    count = os.cpu_count() or 1
    return "1 core" if count == 1 else f"{count} cores"
