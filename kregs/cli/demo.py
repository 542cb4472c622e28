"""`kregs demo`: lists what is taught, or measures one claim: table, verdict, figure."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from kregs import demos
from kregs.catalog.entries import CLAIMS, check_name
from kregs.cli.terminal import DONE, make_console, quiet_tensorflow


def demo(arguments: argparse.Namespace, argv: Sequence[str]) -> int:
    """List the demos, or run the one that is named."""
    if arguments.name is None:
        return _list_demos()
    from kregs.files import atomic_path
    from kregs.reporting import make_table

    check_name(CLAIMS, arguments.name)  # a wrong name is said before TensorFlow is loaded
    folder = Path(arguments.output)
    try:  # and a wrong folder before the training
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise ValueError(
            f"--output must be a folder, or the name of a new one. Received: {str(folder)!r}, "
            "which is a file or lies in one"
        ) from None
    with quiet_tensorflow():
        import keras  # noqa: F401
    shown = demos.run(arguments.name, quick=arguments.quick, seed=arguments.seed)
    picture = folder / f"{arguments.name}.png"
    with atomic_path(picture) as temporary:
        shown.plot().savefig(temporary)
    console = make_console()
    console.print(shown.claim, highlight=False, style="bold")
    console.print(make_table(shown.to_frame()))
    if arguments.quick:
        console.print("--quick: trained next to nothing, so that the verdict means nothing")
    console.print(str(shown.verdict), highlight=False, markup=False)
    console.print(f"picture: {picture}", highlight=False, soft_wrap=True)
    return DONE


def _list_demos() -> int:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("demo", no_wrap=True)
    table.add_column("claim")
    for entry in demos.demos():
        table.add_row(entry.name, entry.summary)
    make_console().print(table)
    return DONE
