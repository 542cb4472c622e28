"""`kregs audit`: prints the faults of a saved model, without running code that its file holds.

Exit code 0 when nothing is graver than info, 1 when something is, 2 for bad use.
"""

from __future__ import annotations

import argparse
import importlib
import json
import re
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import kregs
from kregs.cli.terminal import BROKEN, DONE, make_console, quiet_tensorflow

_UNKNOWN_CLASS = re.compile(r"Could not locate (?:class|function) '([^']+)'")


def audit_model(arguments: argparse.Namespace, argv: Sequence[str]) -> int:
    path = _model_file(arguments.model)
    with quiet_tensorflow():
        from kregs.training.stock_optimizers import unwrapped
    model, optimizer, notes = read_model(path)
    ignored = [code.strip() for codes in arguments.ignore for code in codes.split(",")]
    if getattr(unwrapped(optimizer), "weight_decay", None):
        ignored.append("KR022")
        notes.append(
            "which weights are left out of weight decay is in no Keras file: KR022 was not "
            "looked for"
        )
    result = kregs.audit(
        model, optimizer=optimizer, batch_size=arguments.batch_size, ignore=ignored
    )
    if arguments.json:
        print(json.dumps(result.to_dict() | {"notes": notes}, indent=2))
    else:
        _print_audit(result, notes, layers=arguments.layers)
    return DONE if result.passed else BROKEN


def _print_audit(result: kregs.Audit, notes: list[str], *, layers: bool) -> None:
    from kregs.reporting import make_table

    console = make_console()
    if layers:
        shown = result.overview().fillna("unknown")
        console.print(make_table(shown, title=f"Layers of {result.model!r}"))
    if result.findings:
        console.print(make_table(result.to_frame()[["code", "severity", "layer", "what"]]))
    console.print(str(result), highlight=False, soft_wrap=True)
    for note in notes:
        console.print(f"note: {note}", highlight=False, soft_wrap=True)


def _model_file(given: str) -> Path:
    """Return the path of what looks like a saved Keras model, or raise and say what it is not."""
    path = Path(given)
    if not path.exists():
        raise FileNotFoundError(f"there is no file {given!r}")
    if path.is_dir():
        raise ValueError(
            f"{given!r} is a folder: expected the file that model.save() wrote, *.keras"
        )
    if path.suffix in (".h5", ".hdf5"):
        raise ValueError(
            f"{given!r} is of an older format, or holds weights only: load it where it was made "
            "and save it by model.save('model.keras')"
        )
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{given!r} is no Keras model: expected the file that model.save() wrote")
    with zipfile.ZipFile(path) as archive:
        if "config.json" not in archive.namelist():
            raise ValueError(f"{given!r} is no Keras model: it has no config.json inside")
    return path


def read_model(path: Path) -> tuple[Any, Any, list[str]]:
    """Return a saved model, its optimizer or `None`, and notes on what could not be read.

    No code from the file is run.

    Args:
        path: of a `.keras` file.

    Raises:
        ValueError: it needs classes that are not known, or code that it holds, or is broken.
    """
    import keras

    importlib.import_module("kregs.layers")  # so that Keras knows them
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # such as of an optimizer's variables
        try:
            model = keras.saving.load_model(path, safe_mode=True)
            return model, getattr(model, "optimizer", None), []
        except Exception as error:
            first = error
        try:  # a loss or metric of one's own is no matter
            model = keras.saving.load_model(path, compile=False, safe_mode=True)
        except Exception as error:
            raise ValueError(_reason(path, error)) from error
    reason = str(first).strip().splitlines()[0]
    optimizer = _optimizer(path)
    unread = "its loss and metrics" if optimizer is not None else "what it was compiled with"
    return model, optimizer, [f"{unread} could not be read: {reason}"]


def _optimizer(path: Path) -> Any:
    """Return the optimizer that a file tells of, without its state; `None` if there is none."""
    import keras

    with zipfile.ZipFile(path) as archive:
        config = json.loads(archive.read("config.json")).get("compile_config") or {}
    try:
        optimizer = keras.optimizers.deserialize(config["optimizer"])
    except Exception:  # one's own, or none
        return None
    return optimizer if isinstance(optimizer, keras.optimizers.Optimizer) else None


def _reason(path: Path, error: Exception) -> str:
    text = " ".join(str(error).split())
    unknown = _UNKNOWN_CLASS.search(text)
    if unknown:
        return (
            f"{str(path)!r} needs {unknown[1]!r}, which is not part of Keras: import it in a "
            "script and call kregs.audit(model) there"
        )
    if "safe_mode" in text or "lambda" in text.lower():
        return (
            f"{str(path)!r} holds code (a Lambda layer), which is not run: load it in a script, if "
            "you trust the file, and call kregs.audit(model) there"
        )
    return f"{str(path)!r} could not be read as a Keras model: {text[:300]}"
