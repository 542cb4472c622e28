"""The consoles that kregs prints on: what is printed is text, never markup or emoji codes."""

from __future__ import annotations

from typing import Any

from rich.console import Console


def make_console(**options: Any) -> Console:
    """Return a console that prints names such as `l2[0]` or `:x:` as they are.

    Args:
        **options: of `rich.console.Console`. Default: standard output.

    Example:

    >>> make_console(width=40).print("weight [kg], [/a], :warning:")
    weight [kg], [/a], :warning:
    """
    return Console(markup=False, emoji=False, **options)
