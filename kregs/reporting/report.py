"""The report of a search: one HTML page that needs nothing else."""

from __future__ import annotations

import base64
import functools
import hashlib
import os
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import jinja2
import markupsafe

from kregs.files import write_text
from kregs.reporting.report_sections.comparison import comparison as networks_compared
from kregs.reporting.report_sections.curves import curves
from kregs.reporting.report_sections.durations import durations
from kregs.reporting.report_sections.facts import read_facts
from kregs.reporting.report_sections.failures import failures
from kregs.reporting.report_sections.gap import gap
from kregs.reporting.report_sections.importance import importance
from kregs.reporting.report_sections.judging import judging
from kregs.reporting.report_sections.landscape import landscape
from kregs.reporting.report_sections.nested import nested
from kregs.reporting.report_sections.next_step import next_step
from kregs.reporting.report_sections.ranking import ranking
from kregs.reporting.report_sections.repetition import repetition
from kregs.reporting.report_sections.space import space
from kregs.reporting.report_sections.summary import summary
from kregs.reporting.report_sections.table import read_table_record
from kregs.reporting.report_sections.table import table as table_learnt_from
from kregs.search.storage import REPORT_FILE

if TYPE_CHECKING:
    import pandas as pd

    from kregs.search.result import SearchResult

_TEMPLATES = files("kregs.reporting").joinpath("templates")


def write_report(
    result: SearchResult,
    path: str | os.PathLike[str] | None = None,
    *,
    command: str | None = None,
    comparison: tuple[str, pd.DataFrame] | None = None,
) -> Path:
    """Write a search's report: one HTML page with all its pictures inside.

    A search on a table, by `kregs.tune_table`, begins with the table and its test scores.

    The page loads nothing from elsewhere. Its one script sorts and filters the table of all trials;
    the page's policy allows that script, known by its hash, and no other.

    Args:
        result: a `SearchResult`; files are only read.
        path: the page, if it ends in `.html`; else a folder, made if it does not exist, for
            `report.html`. Default: the search's own folder.
        command: the command line that ran the search, if it was one, to be shown beside the call
            of `kregs.tune`.
        comparison: a title and a table of what came after the search, such as test scores.

    Returns:
        The page's path.

    Raises:
        RuntimeError: no trial has completed.
        ValueError: `path` cannot be written.

    Example:

    >>> write_report(kregs.load_result("tuned/digits_mlp"), "digits.html")  # doctest: +SKIP
    PosixPath('digits.html')
    """
    target = Path(result.path if path is None else path)
    if target.suffix.lower() not in (".html", ".htm"):
        target = target / REPORT_FILE
    page = render_report(result, command=command, comparison=comparison)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_text(target, page)
    except OSError as error:
        raise ValueError(
            "`path` must be a folder that can be written, or an .html file in one. "
            f"Received: {os.fspath(path or result.path)!r}, {error.strerror or error}"
        ) from error
    return target


def render_report(
    result: SearchResult,
    *,
    command: str | None = None,
    comparison: tuple[str, pd.DataFrame] | None = None,
) -> str:
    """Return the page that `write_report` writes.

    Raises:
        RuntimeError: no trial has completed.
    """
    facts = read_facts(result)
    table = table_learnt_from(read_table_record(Path(result.path)), Path(result.path))
    style, script = _text_of("report.css"), _text_of("report.js")
    return _template().render(
        policy=_content_security_policy(style, script),
        style=markupsafe.Markup(style),
        script=markupsafe.Markup(script),
        summary=summary(facts),
        table=table,
        space=space(facts),
        judging=judging(facts),
        ranking=ranking(facts),
        nested=nested(facts),
        comparison=networks_compared(comparison),
        landscape=landscape(facts),
        curves=curves(facts),
        importance=importance(facts),
        gap=gap(facts),
        durations=durations(facts),
        failures=failures(facts),
        next_step=next_step(facts),
        repetition=repetition(
            facts,
            table.command if table and command is None else command,
            table.call if table else None,
        ),
    )


def code_spans(sentence: str) -> markupsafe.Markup:
    """Return a sentence as HTML in which what stands between backquotes is code.

    Whatever else stands in it, it stays text.

    Example:

    >>> code_spans("`a < b` is <b>, not `c")
    Markup('<code>a &lt; b</code> is &lt;b&gt;, not `c')
    """
    parts = sentence.split("`")
    html = markupsafe.Markup()
    for place, part in enumerate(parts):
        if place % 2 == 0:
            html += part
        elif place < len(parts) - 1:
            html += markupsafe.Markup("<code>{}</code>").format(part)
        else:
            html += f"`{part}"
    return html


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_text_of),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["code_spans"] = code_spans
    environment.tests["text"] = lambda value: isinstance(value, str)
    return environment.get_template("report.html.j2")


def _text_of(name: str) -> str:
    return _TEMPLATES.joinpath(name).read_text(encoding="utf-8")


def _content_security_policy(style: str, script: str) -> str:
    return (
        "default-src 'none'; base-uri 'none'; form-action 'none'; img-src data:; "
        f"style-src {_source_of(style)}; script-src {_source_of(script)}"
    )


def _source_of(text: str) -> str:
    """Return how a policy names one inline script or style: by the hash of its text."""
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"
