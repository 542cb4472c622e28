"""Bad inputs of `load_result`, the methods of `SearchResult`, the catalog, and the command line."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import keras
import numpy as np
from data_values import ROWS, bad_data
from harness import NO_COUNTS, NO_SEEDS, Bad, Case, bad
from population_cases import NO_CLASS_WEIGHTS, weights
from search_cases import builder

import kregs
from kregs import catalog
from kregs.cli import main

NO_PATHS = (3, True, None, ["a"], b"a", "", "a\0", object())


def search(folder: str) -> kregs.SearchResult:
    good, _, _ = bad_data("classes")
    return kregs.tune(
        builder(), good["x"], good["y"], max_trials=2, epochs=1, verbose=0,
        directory=folder, project_name="finished",
    )  # fmt: skip


def result_cases(folder: str, result: kregs.SearchResult) -> list[Case]:
    good, xs, ys = bad_data("classes")
    x, y = good["x"], good["y"]
    root = Path(folder)
    file = root / "a_file"
    file.write_text("no folder")
    for name, text in {
        "empty": None, "words": "words", "list": "[]", "other": '{"a": 1}', "null": "null",
    }.items():  # fmt: skip
        (root / name).mkdir()
        if text is not None:
            (root / name / "result.json").write_text(text)
    spoilt = root / "spoilt"
    result.save(spoilt)
    (spoilt / "best.keras").write_text("no model")
    words = (r"path|result", "(?i)received|not there|no result|no search|JSON|.keras")
    paths = [Bad(v, *words) for v in NO_PATHS]
    paths += [
        Bad(v, *words)
        for v in (
            root / "nowhere", file, str(root / "empty"), root / "words", root / "list",
            root / "other", root / "null", spoilt,
        )
    ]  # fmt: skip
    build = {"path": result.path}
    cases = bad(
        kregs.load_result,
        build,
        {"path": paths, "build": [3, "mlp", True, keras.Sequential, lambda: None]},
    )
    cases += bad(
        result.refit,
        {"x": x, "y": y},
        {
            "x": xs, "y": ys, "epochs": [v for v in NO_COUNTS if v is not None],
            "batch_size": [v for v in NO_COUNTS if v is not None],
            "sample_weight": weights(x), "seed": [v for v in NO_SEEDS if v is not None],
            "class_weight": [
                *NO_CLASS_WEIGHTS,
                Bad({0: 1.0}, "class_weight", call={"sample_weight": np.ones(ROWS)}),
            ],
            "callbacks": [3, "early", kregs.early_stopping("loss"), [3], [None]],
            "verbose": [None, 3, "yes", [1]],
        },
    )  # fmt: skip
    no_trials = [99, -1, "0", 0.5, True, [0], {}, "best", np.array([0]), 10**30]
    for method in (result.history, result.scores, result.hyperparameters):
        values = [Bad(v, "`trial`", "(?i)received") for v in no_trials]
        cases += bad(method, {}, {"trial": values})
    numbers = [Bad(v, "(?i)trial", "(?i)received") for v in (*no_trials, None)]
    cases += bad(result.compare, {"a": 0, "b": 1}, {"a": numbers, "b": numbers})
    cases.append(
        Case("SearchResult.compare", "one run", lambda: result.compare(0, 1), ("folds", "Received"))
    )
    cases += bad(
        result.ensemble,
        {"k": 1},
        {
            "k": [*NO_COUNTS, 99], "method": [None, "", "median", 3, ["mean"]],
            "x": [Bad(x, "`x`", call={"y": None}), Bad(x, "`x`", "greedy", call={"y": y})],
            "y": [Bad(None, "`y`", call={"x": x, "method": "greedy"})],
        },
    )  # fmt: skip
    cases += bad(
        result.refit_ensemble,
        {"x": x, "y": y, "counts": 1},
        {
            "x": xs, "y": ys, "sample_weight": weights(x),
            "seed": [v for v in NO_SEEDS if v is not None],
            "counts": [*NO_COUNTS, {}, {99: 1}, {0: 0}, {0: "2"}],
            "class_weight": [
                *NO_CLASS_WEIGHTS,
                Bad({0: 1.0}, "class_weight", call={"sample_weight": np.ones(ROWS)}),
            ],
        },
    )  # fmt: skip
    cases += bad(result.fold_ensemble, {}, {"size": [*NO_COUNTS, Bad(3, "folds")]})
    written = [v for v in NO_PATHS if v is not None]
    cases += bad(result.save, {}, {"path": [*NO_PATHS, str(file), Bad(root / "list", "overwrite")]})
    cases += bad(result.plot, {}, {"path": [*written, "map.xyz", str(root / "no" / "map.png")]})
    cases += bad(
        result.report, {}, {"path": [*written, str(file / "report")], "command": [3, ["a"]]}
    )
    alone = kregs.load_result(result.path)
    cases += [
        Case("SearchResult.refit", "without build", lambda: alone.refit(x, y), ("build",)),
        Case("SearchResult.ensemble", "without build", lambda: alone.ensemble(1), ("build",)),
    ]
    return cases


def catalog_cases(folder: str) -> list[Case]:
    names = ["digit_mlp", "", None, 3, "../secrets", "digits_mlp.py", ["digits_mlp"], b"digits_mlp"]
    cases = []
    for function in (catalog.show, catalog.load, catalog.run, catalog.result):
        values = [Bad(v, "there is no", "Known") for v in names]
        cases += bad(function, {}, {"name": values}, entry=f"catalog.{function.__name__}")
    file = Path(folder, "digits_mlp.py")
    file.write_text("mine")
    cases += bad(
        catalog.copy,
        {"name": "digits_mlp"},
        {
            "name": [Bad(v, "there is no", "Known") for v in names],
            "destination": [
                3, None, b"a", "", Bad(str(file), "exists", "force"),
                Bad(folder, "exists", "force"), Bad("/no/such/folder/a.py", "does not exist"),
            ],
        },
        entry="catalog.copy",
    )  # fmt: skip
    return cases + bad(
        catalog.run, {"name": "digits_mlp", "quick": True},
        {"seed": NO_SEEDS, "quick": [None, 3, "yes"]}, entry="catalog.run",
    )  # fmt: skip


class CommandFailed(ValueError):
    """A command ended with an exit code other than 0; the message is what stood on stderr."""


def command_cases(folder: str, result: kregs.SearchResult) -> list[Case]:
    file = Path(folder, "some_file")
    file.write_text("")
    empty = Path(folder, "empty")
    earlier = Path(folder, "earlier", "digits_mlp")
    earlier.mkdir(parents=True)
    (earlier / "result.json").write_text("{}")
    tune = ["tune", "digits_mlp", "--output", str(Path(folder, "tuned"))]
    lines = [
        ([], "COMMAND"), (["lst"], "lst"), ([""], "invalid choice"), (["--list"], "--list|COMMAND"),
        (["list", "more"], "more"), (["show"], "NAME"), (["show", "digit_mlp"], "'digits_mlp'"),
        (["show", ""], "there is no recipe"), (["show", "a", "b"], "b"), (["run"], "NAME"),
        (["run", "digit_mlp"], "'digits_mlp'"), (["run", "digits_mlp", "--sed", "1"], "--sed"),
        (["run", "digits_mlp", "--quick", "--seed", "x"], "--seed.*'x'"),
        (["run", "digits_mlp", "--quick", "--seed", "-1"], "seed.*-1"),
        (["run", "digits_mlp", "--quick", "--seed", "4294967296"], "seed.*4294967296"),
        (["run", "digits_mlp", "--quick", "--seed", "1.5"], "--seed.*'1.5'"),
        (["run", "digits_mlp", "--quick=3"], "--quick"), (["run", "digits_mlp", "--seed"], "--seed"),
        (["tune"], "NAME"), (["tune", "digit_mlp"], "'digits_mlp'"),
        (["copy"], "NAME"), (["copy", "digit_mlp"], "'digits_mlp'"),
        (["copy", "digits_mlp", "/no/such/folder/a.py"], "does not exist"),
        (["copy", "digits_mlp", str(file)], "exists.*--force"), (["copy", "a", "b", "c"], "c"),
        (["copy", "digits_mlp", ""], "destination"),
        (["report"], "RUN"), (["report", "nowhere"], "nowhere"), (["report", str(file)], "file"),
        (["report", str(empty)], "result"), (["report", ""], "path"), (["report", "a", "b"], "b"),
        (["doctor", "now"], "now"), (["predict"], "RUN"), (["predict", "nowhere"], "FILE"),
        (["tune", "digits_mlp", "--output", str(earlier.parent)], "earlier run.*--resume"),
        *(([*tune, *options], words) for options, words in (
            (["--max-trials", "0"], "max-trials.*0"), (["--max-trials", "x"], "--max-trials.*'x'"),
            (["--max-trials", "2.5"], "--max-trials"), (["--max-trials"], "--max-trials"),
            (["--epochs", "0"], "epochs.*0"), (["--epochs", "-3"], "epochs.*-3"),
            (["--epochs", "nan"], "--epochs.*'nan'"), (["--oracle", "randm"], "'random'"),
            (["--oracle", ""], "oracle"), (["--folds", "1"], "folds.*1"),
            (["--folds", "x"], "--folds.*'x'"), (["--folds", "-2"], "folds.*-2"),
            (["--selection", "bset"], "'best'"), (["--selection", "one_standard_error"], "folds"),
            (["--max-time", "0"], "max-time.*0"), (["--max-time", "-1"], "max-time.*-1"),
            (["--max-time", "nan"], "max-time.*nan"), (["--max-time", "inf"], "max-time.*inf"),
            (["--max-time", "soon"], "--max-time.*'soon'"), (["--seed", "-1"], "seed.*-1"),
            (["--seed", "4294967296"], "seed.*4294967296"), (["--seed", "1e3"], "--seed.*'1e3'"),
            (["--workers", "0"], "workers.*0"), (["--workers", "-2"], "workers.*-2"),
            (["--workers", "x"], "--workers.*'x'"), (["--max-tme", "3"], "--max-tme"),
            (["--output", str(file)], "--output|some_file"), (["--output", ""], "--output"),
            (["--max-time", "0.1", "--output", str(Path(folder, "short"))], "--max-time.*0.1"),
        )),
    ]  # fmt: skip

    def call(argv: list[str]) -> None:
        errors = io.StringIO()
        with contextlib.redirect_stderr(errors):
            code = main(argv)
        message = errors.getvalue()
        if code == 2 and message.startswith("kregs: ") and message.count("\n") == 1:
            raise CommandFailed(message)
        if code:
            raise RuntimeError(f"exit code {code}: {message}")

    return [
        Case("kregs (command)", " ".join(argv), lambda argv=argv: call(argv), (words,),
             frames=(Path(__file__).parent,), types=(CommandFailed,))
        for argv, words in lines
    ]  # fmt: skip


def cases(folder: str) -> list[Case]:
    result = search(folder)
    return [
        *result_cases(folder, result),
        *catalog_cases(folder),
        *command_cases(folder, result),
    ]


def good_calls(folder: str) -> dict:
    """Return calls without the bad value, which must pass: else the cases prove nothing."""
    good, _, _ = bad_data("classes")
    result = search(folder)

    def use() -> None:
        result.refit(good["x"], good["y"], class_weight="balanced", verbose=0)
        result.save(Path(folder, "saved"))
        result.history(0)
        result.plot(Path(folder, "map.png"))
        assert main(["show", "digits_mlp"]) == 0

    return {"result": use}
