"""A stacked training epoch on an accelerator that has JAX and no TensorFlow: export it, run it.

    python tests/benchmarks/exported_epoch.py export FOLDER [mlp convnet] [--members 1 16 256 4096]
    python tests/benchmarks/exported_epoch.py run FOLDER [--repeats 5]

`export` needs kregs, TensorFlow and a CPU: it traces the epoch as `Program.train` compiles it,
writes it as StableHLO with its arguments, and with what TensorFlow returned for them where that
takes no more than `--checked` members. `run` needs JAX and NumPy only: it compiles each program
with JAX's XLA, compares the outputs, and prints the time of a member's step by the number of
members. That is TensorFlow's program compiled by JAX, not TensorFlow on that machine.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

BATCH, STEPS = 32, 20


def export(folder: Path, cases: list[str], member_counts: list[int], checked: int) -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf
    from members_at_once import make_models

    from kregs.population.layout import Layout
    from kregs.population.program import Program
    from kregs.population.signature import read_member

    folder.mkdir(parents=True, exist_ok=True)
    for case in cases:
        x_shape = (64,) if case == "mlp" else (8, 8, 1)
        models = make_models(case, 2)
        members = [read_member(model) for model in models]
        layout = Layout(members)
        for count in member_counts:
            rng = np.random.default_rng(0)
            program = Program(
                layout, count, np.zeros(8, np.int32), batch_size=BATCH, accelerate=True
            )
            chosen = [members[k % 2] for k in range(count)]
            program.fill(
                range(count),
                [[v.value.numpy() for v in member.weights] for member in chosen],
                [layout.settings_of(member) for member in chosen],
                range(count),
                [None] * count,
            )
            # all members take the same batches: what a search does whose trials share their seed
            x = tf.constant(rng.normal(size=(STEPS, 1, BATCH, *x_shape)), tf.float32)
            y = tf.constant(rng.integers(0, 10, size=(STEPS, 1, BATCH)), tf.int32)
            rates = tf.fill([count, STEPS], 1e-3)
            function = tf.function(epoch_of(program, count), jit_compile=True, autograph=False)
            concrete = function.get_concrete_function(x, y, rates)
            text = function.experimental_get_compiler_ir(x, y, rates)(stage="stablehlo")
            captured = {id(v.handle): v for v in concrete.variables}
            values = [captured[id(handle)] for handle in concrete.captured_inputs]
            arrays = {f"arg{i}": v.numpy() for i, v in enumerate([x, y, rates, *values])}
            if count <= checked:
                arrays |= {f"out{i}": v.numpy() for i, v in enumerate(function(x, y, rates))}
            name = f"{case}-{count}"
            (folder / f"{name}.stablehlo").write_text(text, encoding="utf-8")
            np.savez(folder / f"{name}.npz", **arrays)
            print(f"{name}: {len(values)} variables, {len(text) >> 10} KiB", flush=True)


def epoch_of(program: Any, count: int) -> Callable:
    """Return the training epoch of a program as a function of batches and learning rates."""
    import tensorflow as tf

    from kregs.population.program import _Kind

    kind = _Kind(train=True, masked=False, idle=False, weighted=False, collect=False, shared=True)

    def epoch(x, y, rates):
        def fetch(step):
            return *(tf.repeat(part[step], count, axis=0) for part in (x, y)), None, None

        totals, counts, _ = program._loop(fetch, STEPS, BATCH, rates, kind)
        return totals, counts, *(tf.convert_to_tensor(weight) for weight in program.weights)

    return epoch


def run(folder: Path, repeats: int) -> None:
    import jax
    from jax._src.lib import xla_client  # the way to a program that is not JAX's own
    from jax.extend import backend

    device = jax.devices()[0]
    print(f"{device.device_kind}, jax {jax.__version__}: TensorFlow's program, compiled by JAX")
    print("| case | members | compiled s | epoch s | member-step us | largest gap |")
    print("|---|---|---|---|---|---|")
    for program in sorted(
        folder.glob("*.stablehlo"), key=lambda p: (p.stem.split("-")[0], p.stat().st_size)
    ):
        case, members = program.stem.rsplit("-", 1)
        data = np.load(program.with_suffix(".npz"))
        began = time.perf_counter()
        executable = backend.get_backend().compile_and_load(
            program.read_text(encoding="utf-8"),
            xla_client.DeviceList((device,)),
            xla_client.CompileOptions(),
        )
        compiled = time.perf_counter() - began
        count = sum(name.startswith("arg") for name in data.files)

        def call(executable=executable, data=data, count=count):
            # the program writes its variables in place, so that each call needs new ones
            buffers = [jax.device_put(data[f"arg{i}"], device) for i in range(count)]
            jax.block_until_ready(buffers)
            began = time.perf_counter()
            results = executable.execute_sharded(buffers).disassemble_into_single_device_arrays()
            outputs = [parts[0].block_until_ready() for parts in results]
            return outputs, time.perf_counter() - began

        outputs = [np.asarray(each) for each in call()[0]]
        wanted = [data[f"out{i}"] for i in range(sum(n.startswith("out") for n in data.files))]
        gaps = [
            np.abs(own - other).max() for own, other in zip(outputs, wanted, strict=False)
        ]  # the program returns its variables after these
        median = statistics.median(call()[1] for _ in range(repeats))
        step = 1e6 * median / STEPS / int(members)
        gap = f"{max(gaps):.1e}" if gaps else "not compared"
        print(
            f"| {case} | {members} | {compiled:.1f} | {median:.4f} | {step:.2f} | {gap} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=["export", "run"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("cases", nargs="*", default=["mlp", "convnet"], metavar="case")
    parser.add_argument("--members", type=int, nargs="+", default=[1, 16, 256, 4096])
    parser.add_argument("--checked", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    if arguments.action == "export":
        export(arguments.folder, arguments.cases, arguments.members, arguments.checked)
    else:
        run(arguments.folder, arguments.repeats)


if __name__ == "__main__":
    main()
