"""Gives `keras.datasets` the copies in `../shared`, so that recipes run without a network.

`python tests/offline_data.py NAME` records the study NAME with them. Fashion-MNIST is complete
there, and Keras reads it by `KERAS_HOME`. Of IMDB there are 25,000 of the 50,000 reviews, without
Keras's numbering of the words: their file has another checksum, which Keras would not take.
"""

from __future__ import annotations

import collections
import importlib.util
import os
import re
import sys
import tempfile
from pathlib import Path

import numpy as np


def shared_folder() -> Path | None:
    """Return the folder of the copies: `KREGS_SHARED`, or `../shared` of the repository."""
    beside = Path(__file__).resolve().parents[2] / "shared"
    folder = Path(os.environ.get("KREGS_SHARED") or beside)
    return folder if folder.is_dir() else None


def write_imdb(shared: Path, target: Path, *, reviews: int | None = None) -> None:
    """Write the reviews as Keras's `imdb.npz`: words numbered by how often they occur.

    Args:
        shared: the folder of the copies.
        target: the file to be written.
        reviews: how many of them, evenly spaced. Default: all.
    """
    spec = importlib.util.spec_from_file_location("shared_load", shared / "data" / "load.py")
    loader = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loader)
    rows = loader.imdb()
    if reviews is not None:
        rows = rows[:: max(1, len(rows) // reviews)]
    words = [re.findall(r"[a-z0-9']+", text.lower().replace("<br />", " ")) for *_, text in rows]
    counts = collections.Counter(word for review in words for word in review)
    number = {word: i for i, (word, _) in enumerate(counts.most_common(), start=1)}
    arrays = {}
    for part in ("train", "test"):
        chosen = [i for i, row in enumerate(rows) if row[0] == part]
        sequences = np.empty(len(chosen), dtype=object)
        sequences[:] = [[number[word] for word in words[i]] for i in chosen]
        arrays[f"x_{part}"] = sequences
        arrays[f"y_{part}"] = np.array([rows[i][1] for i in chosen])
    np.savez_compressed(target, **arrays)


def offline_get_file(shared: Path, scratch: Path, *, reviews: int | None = None):
    """Return what replaces Keras's `get_file`: the path of a copy instead of a download.

    Args:
        shared: the folder of the copies.
        scratch: a folder for the file that is made of the reviews.
        reviews: how many reviews it holds. Default: all.
    """

    def get_file(fname: str, *, cache_subdir: str = "datasets", **_: object) -> str:
        if fname == "imdb.npz":
            target = scratch / fname
            if not target.exists():
                write_imdb(shared, target, reviews=reviews)
            return str(target)
        return str(shared / "keras_home" / cache_subdir / fname)

    return get_file


def main() -> None:
    shared = shared_folder()
    if shared is None:
        sys.exit("../shared is not there: set KREGS_SHARED")
    with tempfile.TemporaryDirectory() as scratch:
        # Keras reads the variable when it is loaded, and no folder that it may not write into
        datasets = Path(scratch, "datasets")
        datasets.mkdir()
        for folder in (shared / "keras_home" / "datasets").iterdir():
            (datasets / folder.name).symlink_to(folder)
        os.environ["KERAS_HOME"] = scratch
        import keras.src.datasets.imdb as imdb

        from kregs import catalog

        imdb.get_file = offline_get_file(shared, Path(scratch))
        catalog.record_study(sys.argv[1], command=f"python tests/offline_data.py {sys.argv[1]}")


if __name__ == "__main__":
    main()
