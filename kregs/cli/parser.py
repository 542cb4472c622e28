"""Command-line options of `kregs`, as an argparse parser."""

from __future__ import annotations

import argparse
from typing import Any, NoReturn

import kregs
from kregs.cli import commands, doctor, inspection
from kregs.cli.demo import demo
from kregs.cli.options import number_or_unread
from kregs.cli.terminal import BAD_USE, complain


class _OneLineParser(argparse.ArgumentParser):
    """argparse, except that bad use is answered by one line."""

    def add_argument(self, *names: Any, **options: Any) -> argparse.Action:
        if options.get("type") in (int, float):
            options["type"] = number_or_unread(options["type"])
        return super().add_argument(*names, **options)

    def error(self, message: str) -> NoReturn:
        self.exit(complain(f"{message} (see {self.prog} --help)", BAD_USE))


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands; `arguments.command` is the function to be called."""
    parser = _OneLineParser(
        prog="kregs",
        description="Keras models whose regularization is one explicit value, and the search "
        "that finds that value.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"kregs {kregs.__version__}")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True, dest="word")

    def add(word: str, command: Any, text: str) -> argparse.ArgumentParser:
        sub = subparsers.add_parser(word, help=text, description=text, allow_abbrev=False)
        sub.set_defaults(command=command)
        return sub

    add("list", commands.list_recipes, "List the recipes: what each shows and what it measured.")

    show = add("show", commands.show_source, "Print a recipe's source.")
    show.add_argument("name", metavar="NAME")

    run = add("run", commands.run_recipe, "Train a recipe's tuned model and print its test scores.")
    run.add_argument("name", metavar="NAME")
    run.add_argument("--quick", action="store_true", help="a few seconds on a small subset")
    _add_seed(run)
    _add_mixed_precision(run)

    tune = add(
        "tune",
        commands.tune_recipe,
        "Search a network's regularization, then compare it on the test set with none.",
    )
    tune.add_argument(
        "name", metavar="NAME", help="a recipe, or a Python file with build(hp) and load_data()"
    )
    tune.add_argument(
        "--max-trials",
        type=int,
        metavar="N",
        help="of each search; default: the study's",
    )
    tune.add_argument("--epochs", type=int, metavar="N", help="of a trial; default: the study's")
    tune.add_argument(
        "--oracle",
        metavar="NAME",
        help="random, random_from_defaults, bayesian, hyperband or grid; default: the study's",
    )
    tune.add_argument("--folds", type=int, metavar="N", help="judge trials by cross-validation")
    tune.add_argument(
        "--seeds",
        type=int,
        metavar="N",
        help="models per trial (and fold) in the search; default: 1, or the study's",
    )
    tune.add_argument(
        "--selection",
        metavar="RULE",
        help="which trial to end with: best, or with --folds one_standard_error; default: best",
    )
    tune.add_argument(
        "--max-time", type=float, metavar="SECONDS", help="end each search then, with what it has"
    )
    tune.add_argument(
        "--seed", type=int, metavar="N", help="of the searches; default: 0, or the study's"
    )
    tune.add_argument(
        "--test-seeds",
        type=int,
        default=5,
        metavar="N",
        help="models of each kind that are trained and tested at the end; default: 5",
    )
    tune.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="train in N processes, one GPU each where there are",
    )
    tune.add_argument("--resume", action="store_true", help="go on with an earlier search")
    tune.add_argument("--output", default="kregs_runs", metavar="DIR", help="default: kregs_runs")
    _add_mixed_precision(tune)

    table = add(
        "tune table",
        commands.tune_table,
        "Search a network for a table of yours, test it, and save what predicts on its rows.",
    )
    table.add_argument("--data", required=True, metavar="FILE", help="CSV or Parquet")
    table.add_argument("--target", required=True, metavar="COLUMN", help="what is to be predicted")
    table.add_argument(
        "--task", metavar="TASK", help="classification or regression; default: as the target looks"
    )
    for option, text in (
        ("--number", "it holds numbers; what is none is missing; may be repeated"),
        ("--categorical", "it holds categories, such as codes; may be repeated"),
        ("--date", "it holds dates; COLUMN=%%d/%%m/%%Y gives their format; may be repeated"),
        ("--keep", "use it even if it looks like row numbers; may be repeated"),
        ("--drop", "leave it out; may be repeated"),
    ):
        table.add_argument(option, action="append", default=[], metavar="COLUMN", help=text)
    _add_file_format(table)
    table.add_argument(
        "--groups",
        metavar="COLUMN",
        help="rows with one value of it are all trained on or all tested on",
    )
    table.add_argument(
        "--time", metavar="COLUMN", help="test on the latest rows by it, and validate on later ones"
    )
    table.add_argument(
        "--test-file", metavar="FILE", help="test on its rows, train on all of --data"
    )
    table.add_argument(
        "--test-share", type=float, metavar="PART", help="of the rows for the test; default: 0.2"
    )
    table.add_argument(
        "--scaling",
        metavar="NAME",
        help="of numbers: robust, quantile, standard or search; default: robust",
    )
    table.add_argument(
        "--metric",
        metavar="NAME",
        help="what to choose by: log_loss, accuracy, balanced_accuracy, roc_auc, f1_macro; rmse, "
        "mae, mse, r2; default: the loss without penalties",
    )
    table.add_argument(
        "--class-weight", metavar="WEIGHT", help="balanced: every class counts the same"
    )
    table.add_argument(
        "--ensemble",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="save the mean of several networks; --no-ensemble: one",
    )
    table.add_argument(
        "--folds", type=int, metavar="N", help="default: 5, of more than 5,000 rows 3, then 2"
    )
    table.add_argument(
        "--max-trials",
        type=int,
        default=20,
        metavar="N",
        help="networks to try, the preset first; 0: the preset, without a search; default: 20",
    )
    table.add_argument(
        "--epochs", type=int, metavar="N", help="the most of a trial; default: the preset's"
    )
    table.add_argument(
        "--oracle",
        default="random_from_defaults",
        metavar="NAME",
        help="as of kregs tune; default: random_from_defaults, the preset first",
    )
    table.add_argument(
        "--selection",
        default="best",
        metavar="RULE",
        help="which trial to end with: best or one_standard_error; default: best",
    )
    table.add_argument(
        "--max-time",
        type=float,
        metavar="SECONDS",
        help="end the search then, with what it has; default: 15 for each 1,000 rows",
    )
    table.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="train in N processes, one GPU each where there are",
    )
    _add_seed(table)
    table.add_argument("--resume", action="store_true", help="go on with an earlier search")
    table.add_argument("--output", default="kregs_runs", metavar="DIR", help="default: kregs_runs")

    predict = add(
        "predict", commands.predict, "Predict on the rows of a file with a run of tune table."
    )
    predict.add_argument("run", metavar="RUN", help="its folder")
    predict.add_argument("rows", metavar="FILE", help="CSV or Parquet")
    predict.add_argument(
        "--keep",
        "--id",
        action="append",
        default=[],
        metavar="COLUMN",
        help="put it before the predictions, such as an identifier; may be repeated",
    )
    _add_file_format(predict)
    predict.add_argument("--output", metavar="FILE", help="CSV; default: printed")

    report = add("report", commands.write_report, "Write the report of a search again.")
    report.add_argument("run", metavar="RUN", help="its folder; the search may still run")
    report.add_argument("--open", action="store_true", help="show it in the web browser")

    audit = add(
        "audit",
        inspection.audit_model,
        "Say what is wrong with a saved model's regularization, why, and what to change.",
    )
    audit.add_argument("model", metavar="FILE", help="that model.save() wrote: *.keras")
    audit.add_argument(
        "--ignore",
        action="append",
        default=[],
        metavar="CODES",
        help="rules to leave out, such as KR003,KR011; may be repeated",
    )
    audit.add_argument("--batch-size", type=int, metavar="N", help="that it is trained with")
    audit.add_argument("--layers", action="store_true", help="list what restrains each layer, too")
    audit.add_argument("--json", action="store_true", help="print JSON")

    copy = add("copy", commands.copy_recipe, "Copy a recipe into your project.")
    copy.add_argument("name", metavar="NAME")
    copy.add_argument("destination", nargs="?", default=".", metavar="DEST", help="folder or file")
    copy.add_argument("--force", action="store_true", help="overwrite a file that exists")

    shown = add(
        "demo",
        demo,
        "Measure a claim that is taught about regularization; without NAME, list them.",
    )
    shown.add_argument("name", nargs="?", metavar="NAME")
    shown.add_argument("--quick", action="store_true", help="seconds: to see that it runs")
    shown.add_argument(
        "--output",
        default="kregs_demos",
        metavar="DIR",
        help="of the picture; default: kregs_demos",
    )
    _add_seed(shown)

    add(
        "doctor",
        doctor.check_installation,
        "Say which versions and devices there are, and what is missing.",
    )
    return parser


def _add_seed(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default: 0")


def _add_file_format(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--encoding", metavar="NAME", help="of a CSV, as cp1252; default: UTF-8")
    parser.add_argument("--decimal", metavar="MARK", help="of numbers: . or ,")
    parser.add_argument(
        "--thousands", metavar="MARK", help="between thousands of numbers: , . ' a space, or none"
    )


def _add_mixed_precision(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--mixed-precision", action="store_true", help="compute in float16 where there is a GPU"
    )
