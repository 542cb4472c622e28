"""What each command of `kregs` does: calls the library and prints what came out.

Each function takes the parsed options and the command's words, and returns the exit code.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import shlex
import warnings
import webbrowser
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import kregs
from kregs import catalog
from kregs.cli.terminal import (
    BAD_USE,
    BROKEN,
    DONE,
    INTERRUPTED,
    complain,
    interrupts_repeated,
    make_console,
    quiet_tensorflow,
)

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_MOST_COLUMNS = 50  # of a table that is described


def list_recipes(arguments: argparse.Namespace, argv: Sequence[str]) -> int:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("recipe", no_wrap=True)
    table.add_column("what it shows")
    table.add_column("measured")
    for entry in catalog.recipes():
        table.add_row(entry.name, entry.summary, entry.fields.get("result", ""))
    make_console().print(table)
    return DONE


def show_source(arguments: argparse.Namespace, argv: Sequence[str]) -> int:
    print(catalog.show(arguments.name), end="")
    return DONE


def copy_recipe(arguments: argparse.Namespace, argv: Sequence[str]) -> int:
    try:
        target = catalog.copy(arguments.name, arguments.destination, force=arguments.force)
    except FileExistsError as error:
        return complain(str(error).replace("pass force=True", "use --force"), BAD_USE)
    print(f"copied to {target}")
    return DONE


def run_recipe(arguments: argparse.Namespace, argv: Sequence[str]) -> int:
    catalog.show(arguments.name)  # a wrong name is said before TensorFlow is loaded
    _set_up_device(arguments)
    catalog.run(arguments.name, quick=arguments.quick, seed=arguments.seed)
    return DONE


def tune_recipe(arguments: argparse.Namespace, argv: Sequence[str]) -> int:
    from kregs.search.storage import holds_files

    folder = Path(arguments.output) / catalog.study_name(arguments.name)
    resume = _resume_command(arguments, argv)
    if holds_files(folder) and not arguments.resume:
        return _refuse_earlier_run(folder, resume)
    _set_up_device(arguments)
    try:
        with interrupts_repeated():
            outcome = catalog.run_study(
                arguments.name,
                max_trials=arguments.max_trials,
                epochs=arguments.epochs,
                oracle=arguments.oracle,
                folds=arguments.folds,
                seeds=arguments.seeds,
                selection=arguments.selection,
                max_time=arguments.max_time,
                seed=arguments.seed,
                test_seeds=arguments.test_seeds,
                resume=arguments.resume,
                workers=arguments.workers,
                output=arguments.output,
                log=make_console().print,
            )
    except KeyboardInterrupt:
        return _report_interrupt(folder, resume)
    _print_outcome(make_console(), outcome)
    return DONE


def tune_table(arguments: argparse.Namespace, argv: Sequence[str]) -> int:
    from kregs.search.storage import holds_files
    from kregs.tables.splitting import labelled_rows

    folder = Path(arguments.output) / Path(arguments.data).stem
    resume = _resume_command(arguments, argv)
    try:
        table = kregs.read_table(
            arguments.data,
            arguments.target,
            task=arguments.task,
            number=arguments.number,
            categorical=arguments.categorical,
            date=arguments.date,
            keep=arguments.keep,
            drop=arguments.drop,
            groups=arguments.groups,
            time=arguments.time,
            encoding=arguments.encoding,
            decimal=arguments.decimal,
            thousands=arguments.thousands,
        )
        if arguments.test_file is not None:  # what is wrong with it is said at once
            with _warnings_as_lines():
                labelled_rows(arguments.test_file, table)
    except ImportError as error:  # of what reads Parquet
        return complain(str(error), BROKEN)
    if holds_files(folder) and not arguments.resume:
        return _refuse_earlier_run(folder, resume)
    _print_table(make_console(), table, at_random=arguments.test_file is None)
    with quiet_tensorflow():
        importlib.import_module("keras")
    try:
        with interrupts_repeated(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "column ")  # of the test file: they were said
            run = kregs.tune_table(
                table,
                scaling=arguments.scaling or "robust",
                test_share=0.2 if arguments.test_share is None else arguments.test_share,
                test_file=arguments.test_file,
                metric=arguments.metric,
                class_weight=arguments.class_weight,
                ensemble=arguments.ensemble,
                folds="auto" if arguments.folds is None else arguments.folds,
                max_trials=arguments.max_trials,
                epochs=arguments.epochs,
                oracle=arguments.oracle,
                selection=arguments.selection,
                max_time="auto" if arguments.max_time is None else arguments.max_time,
                workers=arguments.workers,
                seed=arguments.seed,
                resume=arguments.resume,
                directory=folder.parent,
                project_name=folder.name,
                command=shlex.join(["kregs", *argv]),
            )
    except KeyboardInterrupt:
        return _report_interrupt(folder, resume)
    _print_table_run(make_console(), run)
    return DONE


def _print_table(console: Console, table: kregs.Table, *, at_random: bool) -> None:
    from kregs.reporting import make_table

    rows = len(table.target)
    classes = "" if table.classes is None else f", {len(table.classes)} classes"
    columns = table.describe()
    columns = columns.rename(columns={"note": "why", "override": "to change it"})
    console.print(make_table(columns, rows=_MOST_COLUMNS))
    if len(columns) > _MOST_COLUMNS:
        console.print(f"... and {len(columns) - _MOST_COLUMNS} more columns")
    console.print(f"{rows} rows, {table.task} of {table.target_name!r}{classes}", highlight=False)
    for note in table.notes:
        console.print(f"note: {note}", highlight=False, soft_wrap=True)
    for warning in table.warnings if at_random else ():
        console.print(f"warning: {warning}", highlight=False, soft_wrap=True)


def _print_table_run(console: Console, run: kregs.TableRun) -> None:
    from kregs.reporting import make_table
    from kregs.reporting.table_scores import scores_table

    console.print(_best_trials(run.search))
    (title, *notes), scores = scores_table(run.record)
    scores = scores.rename(columns=lambda name: name.replace("_", " "))
    console.print(make_table(scores, title=title))
    if run.record["split"] != "at random":
        console.print(f"test rows      {run.record['split']}", highlight=False, soft_wrap=True)
    for note in notes:
        console.print(f"note: {note}", highlight=False)
    if run.record["class_weight"] is not None:
        console.print(
            "note: every class was given the same weight; probabilities are those of equally "
            "frequent classes"
        )
    for kind, path in run.files.items():
        console.print(f"{kind:14} {path}", highlight=False, soft_wrap=True)
    command = shlex.join(["kregs", "predict", str(run.search.path), "ROWS.csv"])
    console.print(f"Predict on new rows: {command}", highlight=False, soft_wrap=True)
    _print_advice(console, run.search)


def predict(arguments: argparse.Namespace, argv: Sequence[str]) -> int:
    from kregs.files import write_text

    failure: Exception | None = None
    # what is said comes after TensorFlow's first lines, which are thrown away
    with _warnings_as_lines(), quiet_tensorflow():
        try:
            predictions = kregs.predict_table(
                arguments.run,
                arguments.rows,
                keep=arguments.keep,
                encoding=arguments.encoding,
                decimal=arguments.decimal,
                thousands=arguments.thousands,
            )
        except ImportError as error:  # of what reads Parquet
            return complain(str(error), BROKEN)
        except (ValueError, TypeError, OSError) as error:
            failure = error
    if failure is not None:
        raise failure
    text = predictions.to_csv(index=False)
    if arguments.output is None:
        print(text, end="")
    else:
        write_text(arguments.output, text)
        print(f"{len(predictions)} predictions written to {arguments.output}")
    return DONE


@contextlib.contextmanager
def _warnings_as_lines() -> Iterator[None]:
    """Print the warnings that speak of rows on one line each."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        yield
    for warning in caught:
        complain(f"warning: {warning.message}", DONE)


def write_report(arguments: argparse.Namespace, argv: Sequence[str]) -> int:
    with quiet_tensorflow():
        from kregs import reporting
        from kregs.search.result import load_result
    search = load_result(arguments.run)
    record = _record_of(search.path)
    try:
        page = reporting.write_report(
            search,
            command=record.get("command"),
            comparison=catalog.comparison(record) if "best_trials" in record else None,
        ).resolve()
    except RuntimeError as error:  # no trial has completed
        return complain(str(error), BROKEN)
    print(page)
    if arguments.open and not webbrowser.open(page.as_uri()):
        return complain("no web browser was found to open the report with", BROKEN)
    return DONE


def _record_of(folder: Path) -> dict[str, Any]:
    """Return what a finished `kregs tune` noted, whichever of its two searches is in the folder."""
    for place in (folder, folder.resolve().parent):
        with contextlib.suppress(OSError, ValueError):
            return json.loads((place / "study.json").read_text(encoding="utf-8"))
    return {}


def _resume_command(arguments: argparse.Namespace, argv: Sequence[str]) -> str:
    return shlex.join(["kregs", *argv, *([] if arguments.resume else ["--resume"])])


def _refuse_earlier_run(folder: Path, resume: str) -> int:
    return complain(
        f"{str(folder)!r} holds an earlier run. Go on with it: {resume} "
        "— or begin anew elsewhere: --output DIR",
        BAD_USE,
    )


def _report_interrupt(folder: Path, resume: str) -> int:
    return complain(
        f"interrupted; {_finished_trials(folder)} in {str(folder)!r}. Go on: {resume}", INTERRUPTED
    )


def _finished_trials(folder: Path) -> str:
    """Say how many finished trials a folder holds, also of the search without regularization."""
    finished = 0
    for search in (folder, *folder.glob("unregularized*")):
        with contextlib.suppress(ValueError, OSError):  # stopped before anything was finished
            trials = kregs.load_result(search).trials()
            finished += int((trials["status"] == "completed").sum())
    return f"{finished} finished trial{'' if finished == 1 else 's'} kept"


def _print_outcome(console: Console, outcome: catalog.StudyRun) -> None:
    from kregs.reporting import make_table

    console.print(_best_trials(outcome.search))
    if outcome.control is not None:
        title = "Best trials without regularization"
        console.print(_best_trials(outcome.control, rows=3, title=title))
    title, table = catalog.comparison(outcome.record)
    console.print(make_table(table, title=title))
    if outcome.arguments is not None:
        words = ", ".join(f"{name}={value!r}" for name, value in outcome.arguments.items())
        console.print(f"{'tuned':13} {words}", highlight=False, markup=False, soft_wrap=True)
    for kind, path in outcome.files.items():
        console.print(f"{kind:13} {path}", highlight=False, soft_wrap=True)
    _print_advice(console, outcome.search)


def _print_advice(console: Console, search: kregs.SearchResult) -> None:
    from kregs.reporting.advice import advice_of

    for line in advice_of(search).lines():
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _best_trials(search: kregs.SearchResult, *, rows: int = 5, title: str = "Best trials") -> Table:
    from kregs.reporting import format_values, make_table

    trials = search.trials().head(rows)
    outcomes = trials[["trial", "score", "best_epoch"]]
    names = [name for name in search.hyperparameter_names if not name.startswith("use_")]
    searched = trials[names]
    hyperparameters = [format_values(row) for row in searched.to_dict("records")]
    frame = outcomes.assign(hyperparameters=hyperparameters)
    return make_table(frame.rename(columns={"score": search.objective}), title=title)


def _set_up_device(arguments: argparse.Namespace) -> None:
    """Load TensorFlow and set up the device."""
    with quiet_tensorflow():
        importlib.import_module("keras")
    device = kregs.set_up_gpu(mixed_precision=arguments.mixed_precision)
    make_console().print(device, highlight=False)
