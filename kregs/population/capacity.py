"""How many members fit the cache and the memory of a device at once."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import keras
import tensorflow as tf

from kregs.population.graph import Node
from kregs.population.keras_internals import gpu_bytes
from kregs.population.layout import Layout
from kregs.population.registry import form_of
from kregs.validation import check_integer

# Of which the benchmark `tests/benchmarks/members_at_once.py` tells: small models share the cost of
# a call, large ones only push each other out of the cache.
_CPU_MEMBERS = 32
_CPU_FEWEST = 4
_CPU_STEP_FLOPS = 1e9
_GPU_MEMBERS = 512
_GPU_BYTES = 8 * 2**30  # where TensorFlow does not tell


def most_members() -> int:
    """Return how many members at most train at once on a device of this machine."""
    return _GPU_MEMBERS if _has_gpu() else _CPU_MEMBERS


def members_at_once(layout: Layout, batch_size: int, max_members: int | None) -> int:
    """Return how many members should train together, a power of two.

    They fit a quarter of the memory. On a CPU, a step of all of them takes no more arithmetic than
    keeps the machine busy.

    Args:
        layout: the members' common structure.
        batch_size: rows a step.
        max_members: the user's own number, which is returned if it is not `None`.

    Raises:
        TypeError, ValueError: `max_members` is no integer >= 1.
    """
    if max_members is not None:
        return check_integer("max_members", max_members, minimum=1)
    gpu = _has_gpu()
    most = 0.25 * _memory_bytes(gpu) / max(1, member_bytes(layout, batch_size))
    if not gpu:
        busy = _CPU_STEP_FLOPS / max(1, member_flops(layout, batch_size))
        most = min(most, max(_CPU_FEWEST, busy))
    most = max(1, min(most, most_members()))
    return 2 ** int(math.log2(most))


def member_bytes(layout: Layout, batch_size: int) -> int:
    """Return about how many bytes one member takes while it trains.

    Args:
        layout: the members' common structure.
        batch_size: rows a step.
    """
    # weights, gradients, best weights, optimizer state; activations once forward, twice backward
    weights = 5 * sum(math.prod(variable.shape) for variable in layout.weights)
    nodes = layout.template.graph.nodes
    outputs = sum(
        form_of(node.layer).held(node.layer, _input_shape(layout, node)) for node in nodes
    )
    return 4 * (weights + 3 * outputs * batch_size)


def member_flops(layout: Layout, batch_size: int) -> int:
    """Return about how many operations one member's training step takes: its matrix products.

    Args:
        layout: the members' common structure.
        batch_size: rows a step.
    """
    total = 0
    for node in layout.template.graph.nodes:
        layer = node.layer
        if isinstance(layer, keras.layers.Embedding):  # it looks up
            continue
        kernels = [v for v in layer.trainable_weights if len(v.shape) >= 2]
        # a kernel is used at every position; a recurrent layer's at every step of its input
        inner = layer.output.shape[1:-1] if isinstance(layer.output, keras.KerasTensor) else ()
        positions = math.prod(size or 1 for size in inner or _input_shape(layout, node)[:-1])
        total += positions * sum(math.prod(v.shape) for v in kernels)
    return 3 * 2 * total * batch_size  # forward, and backward to the input and to the kernel


def _input_shape(layout: Layout, node: Node) -> tuple[int | None, ...]:
    """The shape of a node's first input, without the batch."""
    source = node.inputs[0].source
    inputs, nodes = layout.template.model.inputs, layout.template.graph.nodes
    output = inputs[-1 - source] if source < 0 else nodes[source].layer.output
    return tuple(output.shape[1:])


def _has_gpu() -> bool:
    return bool(tf.config.list_physical_devices("GPU"))


def _memory_bytes(gpu: bool) -> float:
    if gpu:
        return gpu_bytes() or _GPU_BYTES
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([physical, *_container_limits()])


def _container_limits(root: Path = Path("/")) -> Iterator[int]:
    """Yield the memory limits, in bytes, that control groups set for this process on Linux.

    A group's own limit is the least of those of the groups around it. Inside a container the
    path of the group may be that of the host: then the mounted root is the container's group.

    Source: the Linux kernel's Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    mounted = root / "sys/fs/cgroup"
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers == "":  # version 2
            folder, name = mounted, "memory.max"
        elif "memory" in controllers.split(","):
            folder, name = mounted / "memory", "memory.limit_in_bytes"
        else:
            continue
        path = PurePosixPath(group.lstrip("/"))
        for each in (path, *path.parents):
            try:
                text = (folder / each / name).read_text(encoding="utf-8").strip()
            except OSError:
                continue
            if text.isdigit():  # "max": none; version 1 writes a huge number
                yield int(text)
