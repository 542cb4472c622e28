"""What it takes to repeat the search: the call, the data's checksum, versions, the protocol."""

from __future__ import annotations

import dataclasses

from kregs.reporting.report_sections.facts import SearchFacts
from kregs.reporting.report_sections.parts import PageTable, table_of


@dataclasses.dataclass(frozen=True)
class Repetition:
    """The section; `command` is the command line that ran the search, if it was one."""

    command: str | None
    call: str
    checksum: str
    versions: PageTable | None
    protocol: PageTable | None


def repetition(facts: SearchFacts, command: str | None, call: str | None = None) -> Repetition:
    """Return the section.

    Args:
        facts: of the search.
        command: the command line that ran it, if it was one.
        call: what repeats it. Default: the call of `kregs.tune`.
    """
    result = facts.result
    checksum = result.protocol.data.checksum
    versions = [
        {"package": name, "version": str(version)} for name, version in result.versions.items()
    ]
    versions.append({"package": "seed", "version": str(result.protocol.seed)})
    values = dict(result.protocol.to_json())
    # what tells the data stands among the rest
    values |= {f"data: {name}": value for name, value in values.pop("data", {}).items()}
    return Repetition(
        command=command,
        call=result.protocol.call() if call is None else call,
        checksum="" if checksum is None else str(checksum),
        versions=table_of(versions),
        protocol=table_of({"name": name, "value": value} for name, value in values.items()),
    )
