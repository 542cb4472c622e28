"""A griffe extension: lazily loaded names are documented as `kregs.NAME`, doctests as code."""

from __future__ import annotations

import ast
import re
from typing import Any

import griffe

_DOCTEST = re.compile(r"^>>> .*(?:\n.+)*", re.MULTILINE)


class PublicNames(griffe.Extension):
    """Adds an alias to the package for each name in its `_HOMES`, and fences to doctests."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        for subpackage in pkg.modules.values():
            _add_aliases(subpackage)
        _add_aliases(pkg)

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = _DOCTEST.sub(r"```pycon\n\g<0>\n```", obj.docstring.value)


def _add_aliases(package: griffe.Module) -> None:
    for name, module in _homes(package).items():
        if name in package.members:
            continue
        # a subpackage may load its names on first use, too
        further = _homes(package.modules_collection[module])
        path = f"{further.get(name, module)}.{name}"
        # the function `linear` stands in a module of its name
        if package.modules_collection[path].is_module:
            path = f"{path}.{name}"
        package.set_member(name, griffe.Alias(name, path))


def _homes(module: griffe.Object) -> dict[str, str]:
    homes = module.members.get("_HOMES")
    return {} if homes is None else ast.literal_eval(str(homes.value))
