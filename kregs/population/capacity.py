"""How many members fit the cache and the memory of a device at once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np
import tensorflow as tf

from kregs.population.layout import Layout
from kregs.population.registry import form_of
from kregs.validation import check_integer

# members that fit the cache together; more only wait for memory
_CPU_MEMBERS = 32
_GPU_MEMBERS = 512


def members_at_once(layout: Layout, batch_size: int, max_members: int | None) -> int:
    """Return how many members should train together: what fits the cache and a quarter of memory.

    Args:
        layout: the members' common structure.
        batch_size: rows a step.
        max_members: the user's own number, which is returned if it is not `None`.

    Raises:
        TypeError, ValueError: `max_members` is no integer >= 1.
    """
    if max_members is not None:
        return check_integer("max_members", max_members, minimum=1)
    gpu = bool(tf.config.list_physical_devices("GPU"))
    # weights, gradients, best weights, optimizer state; activations once forward, twice backward
    weights = 5 * sum(int(np.prod(v.shape)) for v in layout.weights)
    nodes = layout.template.graph.nodes

    def shape(source: int) -> tuple[int | None, ...]:
        inputs = layout.template.model.inputs
        output = inputs[-1 - source] if source < 0 else nodes[source].layer.output
        return tuple(output.shape[1:])

    outputs = sum(form_of(n.layer).held(n.layer, shape(n.inputs[0].source)) for n in nodes)
    bytes_each = 4 * (weights + 3 * outputs * batch_size)
    budget = 0.25 * _memory_bytes(gpu)
    most = _GPU_MEMBERS if gpu else _CPU_MEMBERS
    return max(1, min(most, int(budget / max(1, bytes_each))))


def _memory_bytes(gpu: bool) -> float:
    if gpu:
        return 8 * 2**30
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
