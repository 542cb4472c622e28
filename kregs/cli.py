"""The command `kregs`."""

from __future__ import annotations

import _thread
import argparse
import contextlib
import importlib
import importlib.metadata
import os
import re
import shlex
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import kregs
from kregs import catalog

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_DONE, _BROKEN, _BAD_USE, _INTERRUPTED = 0, 1, 2, 130
_MOST_COLUMNS = 50  # of a table that is described
_REQUIREMENT = re.compile(r"([\w-]+)(?:>=([\d.]+))?$")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0, 1 broken, 2 bad use, 130 interrupted.

    Args:
        argv: the words after `kregs`. Default: those of this process.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    try:
        # argparse knows commands of one word only
        words = [" ".join(argv[:2]), *argv[2:]] if argv[:2] == ["tune", "table"] else argv
        arguments = _parser().parse_args(words)
        return arguments.command(arguments, argv)
    except KeyboardInterrupt:
        return _complain("interrupted", _INTERRUPTED)
    except BrokenPipeError:  # `kregs show NAME | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _DONE
    except SystemExit as stop:  # argparse has said what it had to
        return stop.code if isinstance(stop.code, int) else _BAD_USE
    except (ValueError, TypeError, OSError) as error:
        return _complain(str(error), _BAD_USE)
    except Exception as error:
        if "URL fetch failure" not in str(error):  # what keras.datasets raises without a network
            raise
        return _complain(f"the data could not be downloaded: {error}", _BROKEN)


def _complain(message: str, code: int) -> int:
    print(f"kregs: {' '.join(message.split())}", file=sys.stderr)
    return code


class _Parser(argparse.ArgumentParser):
    """argparse, except that bad use is answered by one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(_complain(f"{message} (see {self.prog} --help)", _BAD_USE))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="kregs",
        description="Keras models whose regularization is one explicit value, and the search "
        "that finds that value.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"kregs {kregs.__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, dest="word")

    def add(word: str, command: Any, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(word, help=text, description=text, allow_abbrev=False)
        sub.set_defaults(command=command)
        return sub

    add("list", _list, "List the recipes: what each shows and what it measured.")

    show = add("show", _show, "Print a recipe's source.")
    show.add_argument("name", metavar="NAME")

    run = add("run", _run, "Train a recipe's tuned model and print its test scores.")
    run.add_argument("name", metavar="NAME")
    run.add_argument("--quick", action="store_true", help="a few seconds on a small subset")
    _add_seed(run)
    _add_mixed_precision(run)

    tune = add(
        "tune",
        _tune,
        "Search a recipe's regularization, then compare it on the test set with none.",
    )
    tune.add_argument("name", metavar="NAME")
    tune.add_argument("--max-trials", type=int, metavar="N", help="default: the study's")
    tune.add_argument("--epochs", type=int, metavar="N", help="of a trial; default: the study's")
    tune.add_argument(
        "--oracle", metavar="NAME", help="random, bayesian, hyperband or grid; default: the study's"
    )
    tune.add_argument("--folds", type=int, metavar="N", help="judge trials by cross-validation")
    tune.add_argument(
        "--selection",
        metavar="RULE",
        help="which trial to end with: best, or with --folds one_standard_error; default: best",
    )
    tune.add_argument(
        "--max-time", type=float, metavar="SECONDS", help="end the search then, with what it has"
    )
    _add_seed(tune)
    tune.add_argument(
        "--seeds", type=int, default=3, metavar="N", help="models per test score; default: 3"
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
        _tune_table,
        "Search a network for a table of yours, test it, and save what predicts on its rows.",
    )
    table.add_argument("--data", required=True, metavar="FILE", help="CSV or Parquet")
    table.add_argument("--target", required=True, metavar="COLUMN", help="what is to be predicted")
    table.add_argument(
        "--task", metavar="TASK", help="classification or regression; default: as the target looks"
    )
    for option, text in (
        ("--categorical", "its numbers are codes of categories; may be repeated"),
        ("--drop", "leave it out; may be repeated"),
    ):
        table.add_argument(option, action="append", default=[], metavar="COLUMN", help=text)
    table.add_argument("--folds", type=int, default=5, metavar="N", help="default: 5")
    table.add_argument("--max-trials", type=int, default=20, metavar="N", help="default: 20")
    table.add_argument(
        "--epochs", type=int, default=60, metavar="N", help="the most of a trial; default: 60"
    )
    table.add_argument(
        "--oracle", default="random", metavar="NAME", help="as of kregs tune; default: random"
    )
    _add_seed(table)
    table.add_argument("--resume", action="store_true", help="go on with an earlier search")
    table.add_argument("--output", default="kregs_runs", metavar="DIR", help="default: kregs_runs")

    predict = add("predict", _predict, "Predict on the rows of a file with a run of tune table.")
    predict.add_argument("run", metavar="RUN", help="its folder")
    predict.add_argument("rows", metavar="FILE", help="CSV or Parquet")
    predict.add_argument("--output", metavar="FILE", help="CSV; default: printed")

    copy = add("copy", _copy, "Copy a recipe into your project.")
    copy.add_argument("name", metavar="NAME")
    copy.add_argument("destination", nargs="?", default=".", metavar="DEST", help="folder or file")
    copy.add_argument("--force", action="store_true", help="overwrite a file that exists")

    add("doctor", _doctor, "Say which versions and devices there are, and what is missing.")
    return parser


def _add_seed(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default: 0")


def _add_mixed_precision(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--mixed-precision", action="store_true", help="compute in float16 where there is a GPU"
    )


def _list(arguments: argparse.Namespace, argv: Sequence[str]) -> int:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("recipe", no_wrap=True)
    table.add_column("what it shows")
    table.add_column("measured")
    for entry in catalog.recipes():
        table.add_row(entry.name, entry.summary, entry.fields.get("result", ""))
    _console().print(table)
    return _DONE


def _show(arguments: argparse.Namespace, argv: Sequence[str]) -> int:
    print(catalog.show(arguments.name), end="")
    return _DONE


def _copy(arguments: argparse.Namespace, argv: Sequence[str]) -> int:
    try:
        target = catalog.copy(arguments.name, arguments.destination, force=arguments.force)
    except FileExistsError as error:
        return _complain(str(error).replace("pass force=True", "use --force"), _BAD_USE)
    print(f"copied to {target}")
    return _DONE


def _run(arguments: argparse.Namespace, argv: Sequence[str]) -> int:
    catalog.show(arguments.name)  # a wrong name is said before TensorFlow is loaded
    _prepare(arguments)
    catalog.run(arguments.name, quick=arguments.quick, seed=arguments.seed)
    return _DONE


def _tune(arguments: argparse.Namespace, argv: Sequence[str]) -> int:
    catalog.show(arguments.name)
    folder = Path(arguments.output) / arguments.name
    resume = _resume_command(arguments, argv)
    if folder.exists() and not arguments.resume:
        return _complain_of_earlier(folder, resume)
    _prepare(arguments)
    try:
        with _insistent_interrupt():
            outcome = catalog.run_study(
                arguments.name,
                max_trials=arguments.max_trials,
                epochs=arguments.epochs,
                oracle=arguments.oracle,
                folds=arguments.folds,
                selection=arguments.selection,
                max_time=arguments.max_time,
                seed=arguments.seed,
                seeds=arguments.seeds,
                resume=arguments.resume,
                workers=arguments.workers,
                output=arguments.output,
                log=_console().print,
            )
    except KeyboardInterrupt:
        return _complain_of_interrupt(folder, resume)
    _print_outcome(_console(), outcome)
    return _DONE


def _tune_table(arguments: argparse.Namespace, argv: Sequence[str]) -> int:
    from kregs.tables import read_table

    folder = Path(arguments.output) / Path(arguments.data).stem
    resume = _resume_command(arguments, argv)
    try:
        table = read_table(
            arguments.data,
            arguments.target,
            task=arguments.task,
            categorical=arguments.categorical,
            drop=arguments.drop,
        )
    except ImportError as error:  # of what reads Parquet
        return _complain(str(error), _BROKEN)
    if folder.exists() and not arguments.resume:
        return _complain_of_earlier(folder, resume)
    _print_table(_console(), table)
    with _quiet_tensorflow():
        importlib.import_module("keras")
    try:
        with _insistent_interrupt():
            run = kregs.tune_table(
                table,
                folds=arguments.folds,
                max_trials=arguments.max_trials,
                epochs=arguments.epochs,
                oracle=arguments.oracle,
                seed=arguments.seed,
                resume=arguments.resume,
                directory=folder.parent,
                project_name=folder.name,
                command=shlex.join(["kregs", *argv]),
            )
    except KeyboardInterrupt:
        return _complain_of_interrupt(folder, resume)
    _print_table_run(_console(), run)
    return _DONE


def _print_table(console: Console, table: kregs.Table) -> None:
    from kregs.reporting import make_table

    rows, words = len(table.target), ""
    if table.classes is not None:
        words = f", {len(table.classes)} classes"
    columns = table.describe()
    console.print(make_table(columns, rows=_MOST_COLUMNS))
    if len(columns) > _MOST_COLUMNS:
        console.print(f"... and {len(columns) - _MOST_COLUMNS} more columns")
    console.print(f"{rows} rows, {table.task} of {table.target_name!r}{words}", highlight=False)
    for note in table.notes:
        console.print(f"note: {note}", highlight=False, markup=False)


def _print_table_run(console: Console, run: kregs.TableRun) -> None:
    from kregs.reporting import make_table

    console.print(_best_trials(run.search))
    scores = run.scores.rename(columns=lambda name: name.replace("_", " "))
    count = run.record["rows"]["test"]
    title = f"Test part, {count} rows that the search has not seen"
    console.print(make_table(scores.rename_axis("model").reset_index(), title=title))
    if run.record["classes_weighted"]:
        console.print(
            "note: a class is rare, so all were given the same weight; probabilities are those of "
            "equally frequent classes"
        )
    for kind, path in run.files.items():
        console.print(f"{kind:14} {path}", highlight=False, soft_wrap=True)
    command = shlex.join(["kregs", "predict", str(run.search.path), "ROWS.csv"])
    console.print(f"Predict on new rows: {command}", highlight=False, soft_wrap=True)


def _predict(arguments: argparse.Namespace, argv: Sequence[str]) -> int:
    from kregs.files import write_text

    with _quiet_tensorflow(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        try:
            predictions = kregs.predict_table(arguments.run, arguments.rows)
        except ImportError as error:  # of what reads Parquet
            return _complain(str(error), _BROKEN)
    for warning in caught:
        _complain(f"warning: {warning.message}", _DONE)
    text = predictions.to_csv(index=False)
    if arguments.output is None:
        print(text, end="")
    else:
        write_text(arguments.output, text)
        print(f"{len(predictions)} predictions written to {arguments.output}")
    return _DONE


def _resume_command(arguments: argparse.Namespace, argv: Sequence[str]) -> str:
    return shlex.join(["kregs", *argv, *([] if arguments.resume else ["--resume"])])


def _complain_of_earlier(folder: Path, resume: str) -> int:
    return _complain(
        f"{str(folder)!r} holds an earlier run. Go on with it: {resume} "
        "— or begin anew elsewhere: --output DIR",
        _BAD_USE,
    )


def _complain_of_interrupt(folder: Path, resume: str) -> int:
    return _complain(
        f"interrupted; {_kept(folder)} in {str(folder)!r}. Go on: {resume}", _INTERRUPTED
    )


def _kept(folder: Path) -> str:
    """Say how many finished trials a project folder holds."""
    try:
        trials = kregs.load_result(folder).trials()
        finished = int((trials["status"] == "completed").sum())
    except (ValueError, OSError):  # stopped before anything was finished
        finished = 0
    return f"{finished} finished trial{'' if finished == 1 else 's'} kept"


def _print_outcome(console: Console, outcome: catalog.StudyRun) -> None:
    from rich.table import Table

    console.print(_best_trials(outcome.search))
    record = outcome.record
    tuned, unregularized = record["test"]["tuned"], record["test"]["unregularized"]
    count = len(record["seeds"])
    table = Table(
        title=f"Test set, {record['examples']['test']} examples: mean ± sd of {count} "
        f"seed{'' if count == 1 else 's'}",
        title_justify="left",
    )
    table.add_column("")
    table.add_column("tuned")
    table.add_column("unregularized")
    for metric in tuned:
        name = metric.replace("_", " ")
        if metric == "epochs":
            table.add_row(name, str(tuned[metric]), str(unregularized[metric]))
        else:
            table.add_row(
                name, catalog.spread(tuned[metric]), catalog.spread(unregularized[metric])
            )
    console.print(table)
    for kind, path in outcome.files.items():
        console.print(f"{kind:12} {path}", highlight=False, soft_wrap=True)


def _best_trials(search: kregs.SearchResult, *, rows: int = 5) -> Table:
    from kregs.reporting import format_values, make_table

    trials = search.trials().head(rows)
    facts = trials[["trial", "score", "best_epoch"]]
    values = trials.drop(columns=["trial", "score", "best_epoch", "seconds", "status"])
    values = values.drop(columns="standard_error", errors="ignore")
    values = values[[name for name in values if not name.startswith("use_")]]
    words = [format_values(row) for row in values.to_dict("records")]
    frame = facts.assign(hyperparameters=words).rename(columns={"score": search.objective})
    return make_table(frame, title="Best trials")


def _prepare(arguments: argparse.Namespace) -> None:
    """Load TensorFlow and set up the device."""
    with _quiet_tensorflow():
        importlib.import_module("keras")
    _console().print(kregs.set_up_gpu(mixed_precision=arguments.mixed_precision), highlight=False)


@contextlib.contextmanager
def _insistent_interrupt() -> Iterator[None]:
    """Repeat a Ctrl-C that Python has swallowed.

    Where it falls into a destructor or a weak reference's callback, of which Keras runs many
    between trials, Python prints "Exception ignored" and goes on.
    """
    previous = sys.unraisablehook

    def hook(unraisable: sys.UnraisableHookArgs) -> None:
        if unraisable.exc_type is KeyboardInterrupt:
            # from another thread: here it would be swallowed again
            threading.Timer(0.05, _thread.interrupt_main).start()
        else:
            previous(unraisable)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = previous


@contextlib.contextmanager
def _quiet_tensorflow() -> Iterator[None]:
    """Silence TensorFlow's log while it is loaded, unless TF_CPP_MIN_LOG_LEVEL=0 asks for it."""
    level = os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if level == "0" or "tensorflow" in sys.modules:
        yield
        return
    # TensorFlow 2.21 writes its first lines before it looks at the variable
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            yield
        except BaseException:
            said.seek(0)
            os.write(stderr, said.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def _console() -> Console:
    from rich.console import Console

    return Console()


def _doctor(arguments: argparse.Namespace, argv: Sequence[str]) -> int:
    problems = []
    print(f"{'python':14} {sys.version.split()[0]}")
    print(f"{'kregs':14} {kregs.__version__}")
    for package, oldest in _requirements():
        try:
            version = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            problems.append(f"{package} is missing: pip install {package}")
            continue
        print(f"{package:14} {version}")
        if oldest and _older(version, oldest):
            problems.append(f"{package} {version} is too old: pip install '{package}>={oldest}'")
    try:
        with _quiet_tensorflow():
            tensorflow = importlib.import_module("tensorflow")
            keras = importlib.import_module("keras")
    except Exception as error:
        problems.append(f"TensorFlow or Keras does not load: {error}")
    else:
        print(f"{'keras backend':14} {keras.backend.backend()}")
        if keras.backend.backend() != "tensorflow":
            problems.append("Keras does not run on TensorFlow: set KERAS_BACKEND=tensorflow")
        print(kregs.set_up_gpu())
        print(f"{'CUDA build':14} {'yes' if tensorflow.test.is_built_with_cuda() else 'no'}")
        print(f"{'oneDNN':14} {_onednn()}")
    for problem in problems:
        print(f"problem: {problem}")
    print("all is well" if not problems else 'see README.md, "Set up"')
    return _BROKEN if problems else _DONE


def _requirements() -> list[tuple[str, str | None]]:
    """Return the packages that kregs needs and their oldest versions, from its own metadata."""
    found = map(_REQUIREMENT.match, importlib.metadata.requires("kregs") or [])
    return [(match[1], match[2]) for match in found if match]  # extras do not match


def _older(version: str, oldest: str) -> bool:
    def numbers(text: str) -> list[int]:
        parts = text.split("+")[0].split(".")[:3]
        return [int("".join(c for c in part if c.isdigit()) or 0) for part in parts]

    return numbers(version) < numbers(oldest)


def _onednn() -> str:
    try:
        from tensorflow.python.util._pywrap_util_port import IsMklEnabled
    except ImportError:
        return "unknown"
    return "on" if IsMklEnabled() else "off: convolutions on the CPU are slower"
