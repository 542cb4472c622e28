"""Presets of tables: what is built is what they say, and what the study chose."""

from __future__ import annotations

import json
from importlib.resources import files

import keras
import numpy as np
import pytest

import kregs
from kregs.presets import TABLES, TablePreset, batch_rows, bin_count, epochs_of, for_table

CLASSES = {"binary": 2, "multiclass": 3, "regression": None}


@pytest.mark.parametrize("task", TABLES)
def test_a_preset_builds_a_compiled_network_that_trains(task):
    preset = for_table(CLASSES[task]).replace(units=(8,), ensemble=2)
    assert for_table(CLASSES[task]) is TABLES[task]
    model = preset.build(3, CLASSES[task], categories=(4,), rows=20, seed=0)
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=(20, 3)), rng.integers(0, 4, (20, 1))], axis=1)
    y = rng.normal(size=20) if task == "regression" else rng.integers(0, CLASSES[task], 20)
    model.run_eagerly = True
    history = model.fit(x, y, verbose=0, validation_data=(x, y)).history
    assert np.isfinite(history["val_data_loss"]).all()
    assert model.predict(x, verbose=0).shape == (20, CLASSES[task] if task == "multiclass" else 1)


def test_what_it_says_is_in_the_model():
    preset = TablePreset(
        units=(8, 4), scaling=True, ensemble=3, learning_rate=0.1, schedule="cosine",
        epochs=10, regularization=kregs.Regularization(
            dropout=0.2, l2=1e-3, weight_decay=0.5, label_smoothing=0.1
        ),
    )  # fmt: skip
    model = preset.build(3, 2, rows=100, seed=0)
    assert model.get_layer("dense_1").members == 3
    assert model.get_layer("dense_2").units == 4
    assert model.get_layer("dropout_1").rate == 0.2
    assert model.loss.label_smoothing == 0.1
    optimizer = model.optimizer
    assert (optimizer.weight_decay, optimizer.beta_2) == (0.5, 0.95)
    optimizer.build(model.trainable_variables)
    decayed = {v.name for v in model.trainable_variables if optimizer._use_weight_decay(v)}
    assert decayed == {"kernel"}
    # 10 epochs of 2 steps of 64 rows
    config = optimizer.get_config()["learning_rate"]["config"]
    assert (config["decay_steps"], config["warmup_steps"]) == (18, 2)
    assert config["warmup_target"] == pytest.approx(0.1)


def test_a_table_without_numbers_has_no_embedding_of_numbers():
    model = TABLES["binary"].build(0, 2, categories=(3, 2), rows=50)
    assert "number_embedding" not in [layer.name for layer in model.layers]
    edges = [[0.0, 1.0]] * 2
    preset = TABLES["binary"].replace(embedding="piecewise")
    layer = preset.build(2, 2, rows=50, edges=edges).get_layer("number_embedding")
    assert layer.get_config()["edges"] == edges
    assert keras.ops.shape(layer.edges)[0] == 2


@pytest.mark.parametrize(
    ("rows", "batch"),
    [(1, 64), (1024, 64), (1025, 128), (8193, 256), (100_000, 512), (10**6, 1024)],
)
def test_batches(rows, batch):
    assert batch_rows(rows) == batch


def test_steps_grow_as_the_root_of_the_rows_of_long_tables():
    preset = TABLES["regression"].replace(epochs=200)
    assert epochs_of(preset, 300) == epochs_of(preset, 4096) == 200
    steps = [epochs_of(preset, rows) * rows for rows in (4096, 8 * 4096)]
    assert steps[1] / steps[0] == pytest.approx(2.0, rel=0.02)  # the cube root of 8
    assert epochs_of(preset.replace(epochs=3), 10**7) == 3  # never more than asked for
    assert epochs_of(preset, 10**7) == 10


@pytest.mark.parametrize("classes", [0, 1, 2.5, "two"])
def test_bad_classes(classes):
    with pytest.raises((TypeError, ValueError), match=r"`classes` must be an integer"):
        for_table(classes)


@pytest.mark.parametrize("rows", [0, -1, 2.5, "many"])
@pytest.mark.parametrize(
    "of_rows", [batch_rows, bin_count, lambda rows: epochs_of(TABLES["binary"], rows)]
)
def test_bad_rows(of_rows, rows):
    with pytest.raises((TypeError, ValueError), match=r"`rows` must be an integer >= 1"):
        of_rows(rows)


def test_searched_is_a_flag():
    with pytest.raises(TypeError, match=r"`searched` must be .*'yes'"):
        for_table(2, searched="yes")


def test_the_presets_are_what_the_study_chose():
    from kregs.tuning import presets as study

    record = json.loads(files("kregs.tuning").joinpath("results/presets.json").read_text())
    classes = {"binary": 2, "multiclass": 5, "regression": None}
    for searched in (False, True):
        for task, name in study.choose(record, members=not searched).items():
            chosen = study.candidates(task, name.split(":")[0])[name]
            assert for_table(classes[task], searched=searched) == chosen, task
