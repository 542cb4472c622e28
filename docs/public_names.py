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
        homes = pkg.members.get("_HOMES")
        if homes is None:
            return
        for name, module in ast.literal_eval(str(homes.value)).items():
            if name in pkg.members:
                continue
            path = f"{module}.{name}"
            # the function `linear` stands in a module of its name
            if pkg.modules_collection[path].is_module:
                path = f"{path}.{name}"
            pkg.set_member(name, griffe.Alias(name, path))

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = _DOCTEST.sub(r"```pycon\n\g<0>\n```", obj.docstring.value)
