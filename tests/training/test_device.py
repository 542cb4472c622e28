"""What `set_up_gpu` says and does; where there is no GPU it changes nothing."""

from __future__ import annotations

import keras
import pytest
import tensorflow as tf

import kregs

HAS_GPU = bool(tf.config.list_physical_devices("GPU"))


@pytest.mark.skipif(HAS_GPU, reason="there is a GPU")
def test_without_gpu():
    line = kregs.set_up_gpu(mixed_precision=True)
    assert line.startswith("Device: CPU (")
    assert line.endswith("mixed precision is left off without a GPU")
    assert "\n" not in line
    assert keras.config.dtype_policy().name == "float32"
    assert "mixed" not in kregs.set_up_gpu()


@pytest.mark.gpu
@pytest.mark.skipif(not HAS_GPU, reason="needs a GPU")
def test_with_gpu():
    before = keras.config.dtype_policy()
    try:
        line = kregs.set_up_gpu(mixed_precision=True)
        assert line.startswith("Device: GPU, ")
        assert "mixed precision" in line
        assert keras.config.dtype_policy().name == "mixed_float16"
    finally:
        keras.config.set_dtype_policy(before)


def test_with_simulated_gpus(monkeypatch):
    gpus = [tf.config.PhysicalDevice(f"/physical_device:GPU:{i}", "GPU") for i in range(2)]
    grown = []
    policies = []
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: gpus)
    monkeypatch.setattr(
        tf.config.experimental, "set_memory_growth", lambda gpu, on: grown.append((gpu.name, on))
    )
    monkeypatch.setattr(
        tf.config.experimental, "get_device_details", lambda gpu: {"device_name": "Card"}
    )
    monkeypatch.setattr(keras.config, "set_dtype_policy", policies.append)
    assert kregs.set_up_gpu() == "Device: GPU, 2 x Card"
    assert grown == [(gpu.name, True) for gpu in gpus]
    assert policies == []
    line = kregs.set_up_gpu(mixed_precision=True, memory_growth=False)
    assert line == "Device: GPU, 2 x Card; mixed precision (float16)"
    assert policies == ["mixed_float16"]
    assert len(grown) == 2


def test_memory_growth_too_late_is_told_not_raised(monkeypatch):
    def too_late(gpu, on):
        raise RuntimeError("Physical devices cannot be modified after being initialized")

    gpu = tf.config.PhysicalDevice("/physical_device:GPU:0", "GPU")
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: [gpu])
    monkeypatch.setattr(tf.config.experimental, "set_memory_growth", too_late)
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda gpu: {})
    assert "memory growth unchanged" in kregs.set_up_gpu()
