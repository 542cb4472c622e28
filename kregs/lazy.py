"""Packages whose public names are loaded on first use, so that importing them is fast."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Collection, Mapping
from typing import Any

from kregs.validation import suggestion


def lazy_names(
    package: str, homes: Mapping[str, str], subpackages: Collection[str] = ()
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return a package's `__getattr__` and `__dir__`.

    Args:
        package: its name.
        homes: the module that each public name stands in.
        subpackages: subpackages that are loaded as attributes, too.

    Example:

    >>> get, names = lazy_names("kregs.lazy", {"dumps": "json"})
    >>> get("dumps")([1]), names()
    ('[1]', ['dumps'])
    """
    public = sorted([*homes, *subpackages])

    def get_attribute(name: str) -> Any:
        if name in homes:
            value = getattr(importlib.import_module(homes[name]), name)
        elif name in subpackages:
            value = importlib.import_module(f"{package}.{name}")
        else:
            raise AttributeError(
                f"module {package!r} has no attribute {name!r}.{suggestion(name, public)}"
            )
        # over a submodule of the same name, and so that it is found at once from now on
        setattr(sys.modules[package], name, value)
        return value

    return get_attribute, lambda: list(getattr(sys.modules[package], "__all__", public))
