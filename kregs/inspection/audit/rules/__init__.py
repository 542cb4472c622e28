"""The rules of the audit, one family a file; `RULES` lists them all."""

from kregs.inspection.audit.findings import Rule
from kregs.inspection.audit.rules import (
    callbacks,
    dropout,
    initializers,
    normalization,
    optimizer,
    penalties,
)

_FAMILIES = (initializers, dropout, normalization, penalties, optimizer, callbacks)

RULES = tuple(
    sorted(
        (
            value
            for family in _FAMILIES
            for value in vars(family).values()
            if isinstance(value, Rule)
        ),
        key=lambda rule: rule.code,
    )
)
