"""Checks that several stacked layers share: what has no stacked form is refused when it is read."""

from __future__ import annotations

from typing import Any

from kregs.population.registry import NotStackable


def check_channels_last(layer: Any) -> None:
    """Raise `NotStackable` if channels are not the last axis."""
    data_format = getattr(layer, "data_format", "channels_last")
    if data_format != "channels_last":
        raise NotStackable(f"layer {layer.name!r} has data_format={data_format!r}")


def check_plain_weights(layer: Any) -> None:
    """Raise `NotStackable` if weights are adapted (LoRA) or quantized."""
    if getattr(layer, "lora_enabled", False) or getattr(layer, "quantization_mode", None):
        raise NotStackable(f"layer {layer.name!r} uses LoRA or quantization")
