"""`kregs audit`: exit codes, what it prints, files that are no model, files that hold code."""

from __future__ import annotations

import json
import runpy
import zipfile
from pathlib import Path

import keras
import pytest

import kregs
from kregs.cli import main
from kregs.inspection.audit import RULES

L = keras.layers
REPOSITORY = Path(__file__).resolve().parents[2]


def faulty():
    layers = [L.Dense(2), L.Dropout(0.9, name="d")]
    return keras.Sequential([keras.Input((4,)), *layers], name="m")


def saved(model, tmp_path):
    path = tmp_path / "model.keras"
    model.save(path)
    return str(path)


def test_exit_code_and_findings(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    path = saved(faulty(), tmp_path)
    assert main(["audit", path]) == 1
    printed = capsys.readouterr().out
    assert "KR007 error: d: Dropout acts on the model's output" in printed
    assert "why:" in printed
    assert main(["audit", path, "--ignore", "KR006,KR007", "--layers"]) == 0
    printed = capsys.readouterr().out
    assert "nothing found" in printed
    assert "0.9" in printed
    norm = keras.Sequential([keras.Input((4,)), L.BatchNormalization(), L.Dense(1)])
    assert main(["audit", saved(norm, tmp_path), "--batch-size", "2"]) == 1
    assert "KR012" in capsys.readouterr().out


def test_json(tmp_path, capsys):
    model = kregs.mlp((4,), 3, units=(8,), regularization=kregs.Regularization(l2=0.1))
    path = saved(kregs.compile_model(model, "mse"), tmp_path)
    assert main(["audit", path, "--json"]) == 0
    read = json.loads(capsys.readouterr().out)
    assert [finding["code"] for finding in read["findings"]] == ["KR021"]
    assert read["layers"][0]["penalized"] == "kernel l2=0.1"
    assert read["notes"] == []


class Own(L.Layer):
    def call(self, inputs):
        return inputs


def renamed(path, old, new):
    """Change a word in the config of a saved model."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    parts["config.json"] = parts["config.json"].replace(old.encode(), new.encode())
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)


def test_files_that_are_no_model(tmp_path, capsys):
    def complaint(path, *options):
        assert main(["audit", str(path), *options]) == 2
        return capsys.readouterr().err

    assert "no file" in complaint(tmp_path / "absent.keras")
    assert "is a folder" in complaint(tmp_path)
    (tmp_path / "text.keras").write_text("no model")
    assert "is no Keras model" in complaint(tmp_path / "text.keras")
    with zipfile.ZipFile(tmp_path / "zip.keras", "w") as archive:
        archive.writestr("a", "b")
    assert "is no Keras model" in complaint(tmp_path / "zip.keras")
    with zipfile.ZipFile(tmp_path / "broken.keras", "w") as archive:
        archive.writestr("config.json", "{}")
        archive.writestr("metadata.json", "{}")
    assert "could not be read" in complaint(tmp_path / "broken.keras")
    faulty().save_weights(tmp_path / "m.weights.h5")
    assert "weights only" in complaint(tmp_path / "m.weights.h5")
    path = saved(faulty(), tmp_path)
    assert "Did you mean 'KR0" in complaint(path, "--ignore", "KR1")
    assert "--batch-size" in complaint(path, "--batch-size", "0")


def test_custom_objects_and_code_are_refused(tmp_path, capsys):
    inputs = keras.Input((4,))
    path = saved(keras.Model(inputs, Own()(inputs)), tmp_path)
    renamed(path, "Own", "Absent")
    assert main(["audit", path]) == 2
    assert "'Absent', which is not part of Keras" in capsys.readouterr().err

    ran = []
    model = keras.Model(inputs, L.Lambda(lambda x: ran.append(1) or x)(inputs))
    path = saved(model, tmp_path)
    ran.clear()
    assert main(["audit", path]) == 2
    assert "holds code (a Lambda layer), which is not run" in capsys.readouterr().err
    assert ran == []


def test_a_loss_of_ones_own_does_not_matter(tmp_path, capsys):
    def loss_that_is_registered_nowhere(y_true, y_pred):
        return keras.ops.mean(y_true - y_pred)

    model = faulty()
    model.compile("adam", loss_that_is_registered_nowhere)
    assert main(["audit", saved(model, tmp_path)]) == 1
    printed = capsys.readouterr().out
    assert "KR007" in printed
    assert "note: its loss and metrics could not be read" in printed
    assert "no optimizer" not in printed
    regularized = keras.Sequential([keras.Input((4,)), L.Dense(1, kernel_regularizer="l2")])
    regularized.compile("adam", loss_that_is_registered_nowhere)
    assert main(["audit", saved(regularized, tmp_path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["findings"]
    assert [finding["code"] for finding in found] == ["KR021"]


def test_excluded_from_weight_decay_is_not_in_a_file(tmp_path, capsys):
    """KR022 would blame a model that `compile_model` decays rightly."""
    model = kregs.compile_model(kregs.mlp((4,), 3, units=(8,)), "mse", optimizer="adamw")
    assert main(["audit", saved(model, tmp_path), "--ignore", "KR007, KR001"]) == 0
    printed = capsys.readouterr().out
    assert "nothing found" in printed
    assert "note: which weights are left out of weight decay" in printed


def test_layers_of_kregs_are_known(tmp_path, capsys):
    model = kregs.convnet(
        (8, 8, 1), 2, filters=(4,), block_size=3,
        regularization=kregs.Regularization(spatial_dropout=0.2),
    )  # fmt: skip
    assert main(["audit", saved(model, tmp_path)]) == 0
    assert "nothing found" in capsys.readouterr().out


def test_the_page_lists_the_rules():
    page = (REPOSITORY / "docs" / "audit.md").read_text(encoding="utf-8")
    for rule in RULES:
        assert row_of(rule) in page
    assert page.count("\n| KR0") == len(RULES)


def row_of(rule):
    cells = (rule.code, " / ".join(rule.severities), rule.title, rule.source, rule.repair or "left")
    return f"| {' | '.join(cells)} |"


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["MobileNetV3Small", "EfficientNetB0", "ResNet50", "VGG16"])
def test_applications(name):
    """Published models: what is found in them is what docs/audit.md explains."""
    script = runpy.run_path(str(REPOSITORY / "tests/benchmarks/audit_applications.py"))
    audit = kregs.audit(script["build"](name))
    grave = {finding.code for finding in audit.findings if finding.severity != "info"}
    assert grave == ({"KR001"} if name == "VGG16" else set())
    assert audit.unseen == (
        "no optimizer: the model has none, and none was given (KR020 to KR022 need one)",
    )
    page = (REPOSITORY / "docs" / "audit.md").read_text(encoding="utf-8")
    explained = page[page.index("keras.applications") :]
    assert all(finding.code in explained for finding in audit.findings)
