"""Parameters that stand for the network's own values until they are given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kregs.regularization import Regularization
from kregs.validation import check_names

REGULARIZATION = "regularization__"  # before a field's name, among the parameters
FIELDS = tuple(Regularization().get_config())
PRESET = "preset"


def given_or(given: Any, default: Any) -> Any:
    """Return a parameter, or where it is `None` the network's own value."""
    return default if given is None else given


def changeable(regularization: Any, network: Any) -> Any:
    """Return what has the fields that parameters name: a value, or of a preset those changed."""
    if regularization is None:
        return {} if network == PRESET else Regularization()
    return regularization


def checked_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a regularization that are not `None`, or raise if one is wrong."""
    check_names("regularization", fields, FIELDS)
    given = {name: value for name, value in fields.items() if value is not None}
    checked = Regularization(**given)
    return {name: getattr(checked, name) for name in given}
