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

_VALUES = [value for family in _FAMILIES for value in vars(family).values()]
RULES = tuple(sorted((v for v in _VALUES if isinstance(v, Rule)), key=lambda rule: rule.code))
