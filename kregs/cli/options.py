"""Checks of a command's options before it does anything: all that is wrong is said at once."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable
from typing import Any

from kregs.catalog.definitions import is_file
from kregs.catalog.entries import CLAIMS, RECIPES, check_name
from kregs.search.protocol import ORACLES, SELECTIONS
from kregs.validation import check_choice, check_integer, check_number


class Unread(str):
    """What was given for an option that takes a number, and is none."""


def number_or_unread(kind: type) -> Callable[[str], Any]:
    """Return a `type=` of argparse that leaves the complaint about no number to `check_options`.

    argparse would stop at the first.

    Args:
        kind: `int` or `float`.

    Example:

    >>> number_or_unread(int)("3"), number_or_unread(int)("x")
    (3, 'x')
    """

    def read(text: str) -> Any:
        try:
            return kind(text)
        except ValueError:
            return Unread(text)

    return read


def _integer(minimum: int) -> Callable[[str, Any], Any]:
    return lambda name, value: check_integer(name, value, minimum=minimum)


def _choice(options: tuple[str, ...]) -> Callable[[str, Any], Any]:
    return lambda name, value: check_choice(name, value, options)


def _table_choice(module: str, constant: str) -> Callable[[str, Any], Any]:
    """Return a check that loads pandas only where the option is used."""

    def check(name: str, value: Any) -> Any:
        options = getattr(importlib.import_module(f"kregs.tables.{module}"), constant)
        return check_choice(name, value, options)

    return check


# what a command of any of these options needs; `None` is the default of the study or the library
_CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "max_trials": _integer(1),
    "epochs": _integer(1),
    "folds": _integer(2),
    "seeds": _integer(1),
    "test_seeds": _integer(1),
    "seed": _integer(0),
    "workers": _integer(1),
    "batch_size": _integer(1),
    "max_time": lambda name, value: check_number(name, value, above=0.0),
    "oracle": _choice(ORACLES),
    "selection": _choice(SELECTIONS),
    "test_share": lambda name, value: check_number(name, value, above=0.0, below=1.0),
    "scaling": _table_choice("preprocessing", "SCALING_OPTIONS"),
    "decimal": _table_choice("numerals", "DECIMALS"),
    "thousands": _table_choice("numerals", "THOUSANDS"),
    "class_weight": _choice(("balanced",)),
}


def check_options(arguments: argparse.Namespace) -> list[str]:
    """Return what is wrong with the options of a command, one message for each.

    A recipe's or demo's wrong name is among them; where it is all that is wrong, the command says
    so itself.

    Args:
        arguments: what argparse has read.

    Example:

    >>> check_options(argparse.Namespace(epochs=-1, folds=5, seed=0))
    ['--epochs must be an integer >= 1. Received: --epochs -1']
    """
    options = {name: value for name, value in vars(arguments).items() if value is not None}
    messages = []
    for name, value in options.items():
        check = _CHECKS.get(name)
        if name == "max_trials" and "target" in options:  # of a table: 0 is its preset
            check = _integer(0)
        try:
            if check is not None:
                check(name, value)
            elif isinstance(value, Unread):
                raise ValueError(f"`{name}` must be a number. Received: {name}={value!r}")
        except (ValueError, TypeError) as error:
            option = f"--{name.replace('_', '-')}"
            words = str(error).replace(f"`{name}`", option).replace(f"{name}=", f"{option} ")
            messages.append(words)
    if messages and "name" in options and not is_file(options["name"]):
        try:
            check_name(CLAIMS if options.get("word") == "demo" else RECIPES, options["name"])
        except ValueError as error:
            messages.insert(0, str(error))
    return messages
