"""The audit of a model: rules that find faults in its regularization, a view of it, a repair."""

from kregs.inspection.audit.auditing import Audit, audit
from kregs.inspection.audit.findings import Finding, Rule
from kregs.inspection.audit.repair import Repair
from kregs.inspection.audit.rules import RULES

__all__ = ["RULES", "Audit", "Finding", "Repair", "Rule", "audit"]
