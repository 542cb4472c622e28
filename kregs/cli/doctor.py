"""`kregs doctor`: versions of the packages that kregs needs, devices, and what is missing."""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import re
import sys
from collections.abc import Sequence

import kregs
from kregs.cli.terminal import BROKEN, DONE, quiet_tensorflow

README_SECTION = "Two commands"  # where README tells how to install
_REQUIREMENT = re.compile(r"([\w-]+)(?:>=([\d.]+))?$")


def check_installation(arguments: argparse.Namespace, argv: Sequence[str]) -> int:
    """Print versions, devices and what is wrong with them; exit code 1 if something is."""
    problems = []
    print(f"{'python':14} {sys.version.split()[0]}")
    print(f"{'kregs':14} {kregs.__version__}")
    for package, oldest in _requirements():
        try:
            version = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            problems.append(f"{package} is missing: pip install {package}")
            continue
        print(f"{package:14} {version}")
        if oldest and _older(version, oldest):
            problems.append(f"{package} {version} is too old: pip install '{package}>={oldest}'")
    try:
        with quiet_tensorflow():
            tensorflow = importlib.import_module("tensorflow")
            keras = importlib.import_module("keras")
    except Exception as error:
        problems.append(f"TensorFlow or Keras does not load: {error}")
    else:
        print(f"{'keras backend':14} {keras.backend.backend()}")
        if keras.backend.backend() != "tensorflow":
            problems.append("Keras does not run on TensorFlow: set KERAS_BACKEND=tensorflow")
        print(kregs.set_up_gpu())
        print(f"{'CUDA build':14} {'yes' if tensorflow.test.is_built_with_cuda() else 'no'}")
        print(f"{'oneDNN':14} {_onednn()}")
    for problem in problems:
        print(f"problem: {problem}")
    print("all is well" if not problems else f'see README.md, "{README_SECTION}"')
    return BROKEN if problems else DONE


def _requirements() -> list[tuple[str, str | None]]:
    """Return the packages that kregs needs and their oldest versions, from its own metadata."""
    matches = map(_REQUIREMENT.match, importlib.metadata.requires("kregs") or [])
    return [(match[1], match[2]) for match in matches if match]  # extras do not match


def _older(version: str, oldest: str) -> bool:
    def numbers(text: str) -> list[int]:
        parts = text.split("+")[0].split(".")[:3]
        return [int("".join(c for c in part if c.isdigit()) or 0) for part in parts]

    return numbers(version) < numbers(oldest)


def _onednn() -> str:
    try:
        from tensorflow.python.util._pywrap_util_port import IsMklEnabled
    except ImportError:
        return "unknown"
    return "on" if IsMklEnabled() else "off: convolutions on the CPU are slower"
