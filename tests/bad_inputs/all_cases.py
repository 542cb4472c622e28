"""All bad inputs, by subject."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from harness import Case

SUBJECTS = ("builder", "training", "population", "search", "result", "inspection")


def make_cases(subject: str, folder: str) -> list[Case]:
    """Return the cases of a subject; what they write is in `folder`."""
    return importlib.import_module(f"{subject}_cases").cases(folder)


def good_calls(subject: str, folder: str) -> dict[str, Callable[[], Any]]:
    """Return the calls of a subject with good values only, which must pass."""
    return importlib.import_module(f"{subject}_cases").good_calls(folder)
