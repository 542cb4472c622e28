"""`Protocol`: JSON both ways, differences, words, and the call that repeats a search."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json

import pytest

import kregs
from kregs.search.protocol import ENGINES, ORACLES, SCORE_AT, SELECTIONS, DataSummary, Protocol

SPLIT = DataSummary(
    validation="stratified split", validation_split=0.25, rows=90, validation_rows=30, checksum=7
)
FOLDS = DataSummary(
    validation="StratifiedGroupKFold(n_splits=5)",
    folds=5,
    rows=120,
    preprocess="StandardScaler()",
    held_out_share=0.25,
    checksum=7,
    folds_checksum=8,
)
PLAIN = Protocol(objective="val_data_loss", direction="min", data=SPLIT)
RICH = Protocol(
    objective='val_"quoted"',
    direction="max",
    data=FOLDS,
    oracle="MyOracle",
    max_trials=12,
    epochs=9,
    batch_size=None,
    seeds=3,
    selection="one_standard_error",
    restraint=("l2", "-units"),
    score_at="last_epoch",
    callbacks=("EarlyStopping(patience=3)", "CSVLogger"),
    callbacks_given=True,
    class_weight={"0": 1.0, "1": 2.5},
    engine="sequential",
    seed=11,
    dtype_policy="mixed_bfloat16",
)


@pytest.mark.parametrize("protocol", [PLAIN, RICH])
def test_json_both_ways(protocol):
    assert Protocol.from_json(json.loads(json.dumps(protocol.to_json()))) == protocol
    with pytest.raises(TypeError, match="colour"):
        Protocol.from_json({**protocol.to_json(), "colour": "red"})


def test_it_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        PLAIN.epochs = 3


CHANGES = {
    "objective": "val_loss", "direction": "max", "oracle": "grid", "epochs": 31, "batch_size": 64,
    "seeds": 2, "selection": "one_standard_error", "restraint": ("l2",), "score_at": "last_epoch",
    "epoch_chosen_on": "the same rows", "callbacks": ("CSVLogger",), "class_weight": {"0": 2.0},
    "engine": "population", "seed": 1, "dtype_policy": "float64",
    "scorer": "roc_auc",
}  # fmt: skip


def test_every_field_is_compared_but_for_what_may_change():
    uncompared = {"max_trials", "callbacks_given", "data"}
    assert {f.name for f in dataclasses.fields(Protocol)} == set(CHANGES) | uncompared
    for name, value in CHANGES.items():
        (difference,) = PLAIN.differences(dataclasses.replace(PLAIN, **{name: value}))
        assert difference.name == name
        before, now = difference.before, difference.now
        assert (before, now) == (getattr(PLAIN, name), value)
    assert PLAIN.differences(dataclasses.replace(PLAIN, max_trials=99)) == []


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("checksum", 9, "data"),
        ("folds_checksum", 9, "folds and groups"),
        ("held_out_share", 0.5, "folds and groups"),
        ("validation", "given", "validation"),
        ("preprocess", "MinMaxScaler()", "preprocess"),
    ],
)
def test_other_data_are_another_search(name, value, words):
    other = dataclasses.replace(RICH, data=dataclasses.replace(FOLDS, **{name: value}))
    assert [difference.name for difference in RICH.differences(other)] == [words]


def test_sentences():
    plain, rich = " ".join(PLAIN.sentences()), " ".join(RICH.sentences())
    assert "`val_data_loss`, lower is better; it is the loss without penalties" in plain
    assert "90 rows to train on, 30 to validate on (stratified split)" in plain
    assert "A trial is scored at its best epoch." in plain
    assert "higher is better" in rich
    assert "5 folds of 120 rows: `StratifiedGroupKFold(n_splits=5)`" in rich
    assert "trained 15 times, with 3 seeds a fold; its score is the mean" in rich
    assert "scored at its last epoch" in rich
    assert "`EarlyStopping(patience=3)`, `CSVLogger`" in rich
    assert "`StandardScaler()`, fitted on training rows" in rich


@pytest.mark.parametrize("protocol", [PLAIN, RICH])
def test_the_call_is_one_of_tune(protocol):
    call = ast.parse(protocol.call()).body[-1].value
    keywords = {keyword.arg: keyword.value for keyword in call.keywords}
    parameters = inspect.signature(kregs.tune).parameters
    assert set(keywords) <= set(parameters)
    for name in ("epochs", "seed", "max_trials"):
        if name in keywords:
            assert ast.literal_eval(keywords[name]) == getattr(protocol, name)
    assert ("callbacks" in keywords) == protocol.callbacks_given
    assert ("y" in [arg.id for arg in call.args]) == (protocol.batch_size is not None)


def test_the_rich_call_has_all_that_differs():
    call = RICH.call()
    for words in (
        "import keras_tuner\n",
        'objective=keras_tuner.Objective("val_\\"quoted\\"", "max")',
        "folds=5,  # StratifiedGroupKFold(n_splits=5)",
        "groups=groups",
        "preprocess=preprocess,  # StandardScaler()",
        "oracle=oracle,  # yours: MyOracle",
        'selection="one_standard_error"',
        'score_at="last_epoch"',
        'engine="sequential"',
        "class_weight=class_weight",
        "seeds=3,",
    ):
        assert words in call


def test_the_protocol_of_a_search(project):
    protocol = project.protocol
    assert (protocol.oracle, protocol.epochs, protocol.max_trials) == ("random", 3, 4)
    assert protocol.epoch_chosen_on == "the other half"
    assert protocol.callbacks == ("StrictEarlyStopping(patience=5)",)
    assert not protocol.callbacks_given
    assert protocol.data.rows == 64
    assert protocol.oracle in ORACLES
    assert protocol.selection in SELECTIONS
    assert protocol.score_at in SCORE_AT
    assert protocol.engine in ENGINES
