"""The report of a search that was run, saved and loaded."""

from __future__ import annotations

import ast
import html
import json

import matplotlib
import numpy as np
from page_parser import Page

import kregs
from kregs.reporting.tables import format_value


def build(hp):
    import keras

    r = kregs.Regularization.from_hp(hp, l2=(0, 1e-5, 1e-1), dropout=(0.0, 0.5))
    model = keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dropout(r.dropout),
            keras.layers.Dense(1, kernel_regularizer=keras.regularizers.L2(r.l2)),
        ]
    )
    return kregs.compile_model(model, "mse", learning_rate=0.05)


def test_a_real_search(tmp_path, monkeypatch):
    x = np.random.default_rng(0).normal(size=(60, 3)).astype("float32")
    y = x.sum(axis=1)
    result = kregs.tune(build, x, y, max_trials=2, epochs=2, directory=tmp_path, verbose=0)
    path = result.report()
    assert path == result.path / "report.html"
    page = Page(path)
    assert page.text.startswith("search: search report search")
    assert len(page.images()) == 8  # too few trials to tell what matters
    trials = result.trials()
    rows = page.table("trial", "val_data_loss")
    assert [row["val_data_loss"] for row in rows] == [format_value(s) for s in trials["score"]]
    assert [row["dropout"] for row in rows] == [format_value(d) for d in trials["dropout"]]
    history = result.history(trials["trial"][0]).set_index("epoch").loc[result.best_epoch]
    gap = history["val_data_loss"] - history["data_loss"]
    assert f"gap is {format_value(gap)}." in page.text
    assert "48 rows to train on, 12 to validate on" in page.text
    call = page.source.split("<pre>")[1].split("</pre>")[0]
    assert "validation_split=0.2" in call
    ast.parse(html.unescape(call))
    # a result that was saved and loaded says the same
    folder = result.save(tmp_path / "saved")["result"].parent
    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", lambda self, file, **_: None)
    loaded = Page(kregs.load_result(folder).report(tmp_path / "page.html", command="kregs tune x"))
    assert loaded.table("trial", "val_data_loss") == rows
    assert "kregs tune x" in loaded.text
    assert json.loads((folder / "result.json").read_text())["protocol"]["seed"] == 0
