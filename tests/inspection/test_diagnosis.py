"""`diagnose` on curves of known shape, on real trainings, in every form that a history has."""

from __future__ import annotations

import io
import json
import math

import keras
import numpy as np
import pandas as pd
import pytest

import kregs
from kregs.inspection.evidence import mean_evidence, measure_run
from kregs.inspection.histories import read_history
from kregs.inspection.verdicts import RELIABILITY

EPOCHS = np.arange(1, 41)
DECAY = np.exp(-EPOCHS / 4)
JITTER = np.random.default_rng(0).normal(size=(2, len(EPOCHS)))


def both(train, validation):
    return {"data_loss": list(train), "val_data_loss": list(validation)}


CURVES = {
    "overfitting": both(2 * DECAY + 0.01, 0.5 + 2 * DECAY + 0.01 * EPOCHS),
    "underfitting": both(1.3 + 0.3 * DECAY, 1.32 + 0.3 * DECAY),
    "just right": both(0.2 + 2 * DECAY, 0.215 + 2 * DECAY),
    "too short": both(*[np.array([2.3, 1.6, 1.15, 0.8, 0.58, 0.42]) + d for d in (0, 0.02)])
    | {"val_data_loss": [1.95, 1.45, 1.0, 0.74, 0.5, 0.43]},
    "learning rate too low": both(2.3 - 0.01 * EPOCHS, 2.31 - 0.0098 * EPOCHS),
    "learning rate too high": both(1 + 0.9 * (EPOCHS % 2), 1.1 + 0.9 * (EPOCHS % 2)),
    "noisy": both(0.3 + DECAY, 0.35 + DECAY + 0.3 * (EPOCHS % 2)),
    "diverging": both(1.2 * 1.2**EPOCHS, 1.3 * 1.2**EPOCHS),
}


@pytest.mark.parametrize("verdict", CURVES)
def test_curves_of_known_shape(verdict):
    diagnosis = kregs.diagnose(CURVES[verdict])
    assert diagnosis.verdict == verdict, str(diagnosis)
    assert 0 < diagnosis.confidence <= 1
    assert diagnosis.because
    assert len(diagnosis.next_steps) >= 2
    assert str(diagnosis).startswith(f"{verdict} (confidence ")
    assert diagnosis.next_steps[0] in " ".join(str(diagnosis).split())


TIME = EPOCHS / 40
NOT_SEEN = np.random.default_rng(4).normal(size=40)
TEXTBOOK = {
    "a valley, training done": ("overfitting", 2 * DECAY + 1e-3, 0.3 + 2 * DECAY + 0.02 * EPOCHS),
    "a valley, training goes on": (
        "overfitting",
        2.3 - 0.05 * EPOCHS,
        np.where(EPOCHS < 26, 2.3 - 0.05 * EPOCHS, 1.0 + 0.03 * (EPOCHS - 26)),
    ),
    "labels by heart, slowly": ("overfitting", 2.4 - 1.33 * TIME, 2.37 + 0.47 * TIME**1.5),
    "labels by heart, ever faster": ("overfitting", 2.4 - 0.6 * TIME**2, 2.32 + 0.25 * TIME**2),
    "an explosion": ("overfitting", [1, 0.9, 0.8, 0.6, 0.4, 0.1], [1, 0.9, 0.95, 1.2, 2, 4]),
    "a tenth above the lowest": (
        "overfitting",
        1 - 0.006 * EPOCHS,
        np.where(EPOCHS < 20, 1 - 0.006 * EPOCHS, 0.88 + 0.005 * (EPOCHS - 20)),
    ),
    "up at once, noisy": (
        "overfitting",
        2.3 * np.exp(-EPOCHS / 20),
        2.3 + 0.05 * EPOCHS + 0.1 * NOT_SEEN,
    ),
    "a gap that stays": ("overfitting", 0.01 + 2 * DECAY, 0.5 + 1.8 * DECAY),
    "negative, a valley": ("overfitting", np.arange(-1, -10, -1.6), [-1, -2, -2, -1, 3, 6]),
    "a hair above the lowest": ("just right", 0.3 + DECAY, 0.32 + DECAY + 3e-4 * EPOCHS),
    "flat and high": ("underfitting", 1.3 + 0.3 * DECAY, 1.32 + 0.3 * DECAY),
    "still steep": (
        "too short",
        2.3 * np.exp(-EPOCHS / 30) + 0.02 * JITTER[0],
        2.35 * np.exp(-EPOCHS / 30) + 0.03 * JITTER[1],
    ),
    "a creep": ("learning rate too low", 2.3 - 0.01 * EPOCHS, 2.31 - 0.0098 * EPOCHS),
    "both climb again": (
        "learning rate too high",
        0.5 + np.maximum(1.8 - 0.18 * EPOCHS, 0.04 * (EPOCHS - 10)),
        0.55 + np.maximum(1.8 - 0.18 * EPOCHS, 0.04 * (EPOCHS - 10)),
    ),
}


@pytest.mark.parametrize("shape", TEXTBOOK)
def test_textbook_shapes(shape):
    verdict, train, validation = TEXTBOOK[shape]
    diagnosis = kregs.diagnose(both(train, validation))
    assert diagnosis.verdict == verdict, str(diagnosis)


@pytest.mark.parametrize("epochs", [6, 30, 100])
@pytest.mark.parametrize("rise", [0.2, 0.5, 3.0])
@pytest.mark.parametrize("turn", [0.0, 0.3, 0.6])
def test_validation_that_rises_while_training_falls_is_overfitting(epochs, rise, turn):
    time = np.arange(epochs) / (epochs - 1)
    validation = np.where(
        time <= turn,
        2.3 - 0.8 * time,
        (2.3 - 0.8 * turn) * (1 + rise * (time - turn) / (1 - turn)),
    )
    for left, power in ((0.05, 0.5), (0.05, 2), (0.6, 1), (0.6, 2)):
        train = 2.3 * (1 - (1 - left) * time**power)
        for baseline in (None, math.log(10)):
            diagnosis = kregs.diagnose(both(train, validation), baseline=baseline)
            assert diagnosis.verdict == "overfitting", str(diagnosis)


@pytest.mark.parametrize("verdict", [name for name in CURVES if name != "diverging"])
def test_the_unit_of_the_loss_does_not_matter(verdict):
    scaled = {name: [1000 * v for v in values] for name, values in CURVES[verdict].items()}
    one, other = kregs.diagnose(CURVES[verdict]), kregs.diagnose(scaled)
    assert one.verdict == other.verdict
    assert one.confidence == pytest.approx(other.confidence)


def test_every_form_of_a_history_is_one_diagnosis(tmp_path):
    values = CURVES["overfitting"]
    history = keras.callbacks.History()
    history.history = values
    path = tmp_path / "log.csv"
    pd.DataFrame({"epoch": EPOCHS - 1, **values}).to_csv(path, index=False)
    expected = kregs.diagnose(values)
    for form in (history, pd.DataFrame(values), pd.read_csv(path)):
        assert kregs.diagnose(form).to_dict() == expected.to_dict()


def test_two_epochs_tell_a_fall_and_no_more():
    diagnosis = kregs.diagnose({"data_loss": [2.0, 1.2]}, held_out=1.3)
    assert diagnosis.verdict == "too short"
    assert any("2 epochs are few" in limit for limit in diagnosis.limits)


def test_bumps_of_a_training_loss_near_0_are_no_sign():
    train = 0.002 + DECAY + 0.002 * (EPOCHS % 2)
    values = both(train, 0.4 + DECAY)
    assert kregs.diagnose(values).verdict == "overfitting"


def test_the_numbers_are_what_they_are_called():
    generator = np.random.default_rng(3)
    train, validation, penalty = generator.uniform(0.5, 1.0, (3, 7))
    table = read_history({"loss": train + penalty, "data_loss": train, "val_data_loss": validation})
    evidence = measure_run(table, baseline=2.0)
    assert evidence.left == pytest.approx(train[-1] / 2)
    assert evidence.gap == pytest.approx((validation[-1] - train[-1]) / validation[-1])
    assert evidence.rise == pytest.approx(1 - validation.min() / validation[-1])
    assert evidence.validation_fall == pytest.approx(1 - validation[-1] / validation[2])
    assert evidence.train_fall == pytest.approx(1 - train[-1] / train[2])
    steps = np.diff(train[2:])
    assert evidence.bumps == pytest.approx(
        steps[steps > 0].sum() / len(steps) / max(train[-1], validation[-1])
    )
    second = validation[2:] - 2 * validation[1:-1] + validation[:-2]
    assert evidence.noise == pytest.approx(np.abs(second).mean() / 2 / validation[-1])
    assert evidence.penalty == pytest.approx(penalty[-1] / (penalty[-1] + train[-1]))


# ---- penalties ---------------------------------------------------------------------------------


def test_penalties_that_are_told_are_as_good_as_a_data_loss():
    logged = CURVES["overfitting"]
    total = {
        "loss": [value + 0.4 for value in logged["data_loss"]],
        "val_loss": [value + 0.4 for value in logged["val_data_loss"]],
    }
    told = kregs.diagnose(total, penalties=0.4)
    assert told.evidence.gap == pytest.approx(kregs.diagnose(logged).evidence.gap)
    assert told.evidence.penalty == pytest.approx(0.4 / total["loss"][-1], abs=0.1)
    each = kregs.diagnose(total, penalties=[0.4] * len(EPOCHS))
    assert each.evidence == told.evidence
    table = pd.DataFrame({**total, "penalty": 0.4})
    assert kregs.diagnose(table, penalties=table["penalty"]).evidence == told.evidence
    # not told, they hide a part of the gap, and this is said
    hidden = kregs.diagnose(total)
    assert hidden.evidence.gap < told.evidence.gap
    assert not any(name.startswith("λ") for name in hidden.others)
    assert any("may contain penalties" in limit for limit in hidden.limits)
    assert not any("may contain penalties" in limit for limit in told.limits)


@pytest.mark.parametrize(("share", "others"), [(0.9, {"λ too strong"}), (0.0, set())])
def test_lambda_is_too_strong_where_penalties_are_the_loss(share, others):
    values = dict(CURVES["underfitting"])
    penalty = share / (1 - share) * values["data_loss"][-1]
    values["loss"] = [value + penalty for value in values["data_loss"]]
    diagnosis = kregs.diagnose(values)
    assert diagnosis.verdict == "underfitting"
    assert {name for name in diagnosis.others if name.startswith("λ")} == others
    assert ("divide λ" in diagnosis.next_steps[0]) == bool(others)


def test_lambda_is_too_weak_where_nothing_restrains_an_overfitted_network():
    values = CURVES["overfitting"]
    diagnosis = kregs.diagnose({**values, "loss": values["data_loss"]})
    assert "λ too weak" in diagnosis.others
    assert "multiply λ" in diagnosis.next_steps[0]
    heavy = kregs.diagnose({**values, "loss": [v + 2 for v in values["data_loss"]]})
    assert "λ too weak" not in heavy.others
    assert "dropout" in heavy.next_steps[0]


# ---- what is missing ---------------------------------------------------------------------------


def test_without_validation_overfitting_is_not_seen_and_this_is_said():
    diagnosis = kregs.diagnose({"loss": CURVES["overfitting"]["data_loss"]})
    assert diagnosis.verdict != "overfitting"
    assert diagnosis.evidence.gap is None
    assert any("no validation loss" in limit for limit in diagnosis.limits)


def test_one_loss_on_other_rows_tells_the_gap():
    train = {"data_loss": CURVES["overfitting"]["data_loss"]}
    assert kregs.diagnose(train, held_out=0.9).verdict == "overfitting"
    assert kregs.diagnose(train, held_out=0.0102).verdict != "overfitting"
    assert kregs.diagnose(train, held_out=math.nan).verdict == "diverging"


def test_what_is_validated_every_third_epoch():
    values = CURVES["overfitting"]
    rare = {**values, "val_data_loss": values["val_data_loss"][2::3]}
    table = pd.DataFrame(values)
    table.loc[table.index % 3 != 2, "val_data_loss"] = np.nan  # as CSVLogger has it
    for history in (rare, table):
        diagnosis = kregs.diagnose(history)
        assert diagnosis.verdict == "overfitting"
        assert diagnosis.evidence.lost == 0


@pytest.mark.parametrize("lost", [math.nan, math.inf])
@pytest.mark.parametrize("name", ["data_loss", "val_data_loss"])
def test_a_loss_that_is_no_number_diverged(name, lost):
    values = {key: list(curve) for key, curve in CURVES["just right"].items()}
    values[name][-3:] = [lost] * 3
    diagnosis = kregs.diagnose(values)
    assert diagnosis.verdict == "diverging"
    assert "learning rate" in diagnosis.next_steps[0]
    assert kregs.diagnose({"loss": [lost]}).verdict == "diverging"


def test_a_likelihood_may_be_negative():
    values = {name: [v - 5 for v in curve] for name, curve in CURVES["overfitting"].items()}
    diagnosis = kregs.diagnose(values)
    assert diagnosis.verdict == "overfitting"
    # what is printed are the losses of the history
    evidence = diagnosis.evidence
    assert evidence.train == pytest.approx(np.mean(values["data_loss"][-4:]))
    assert evidence.validation == pytest.approx(np.mean(values["val_data_loss"][-4:]))
    assert evidence.start == pytest.approx(values["val_data_loss"][0])
    assert "the validation loss is -4.11, the training loss -4.99" in str(diagnosis)
    assert any("goes below 0" in limit for limit in diagnosis.limits)
    assert not any("goes below 0" in limit for limit in kregs.diagnose(CURVES["noisy"]).limits)
    # a share of what may be negative says nothing
    penalized = kregs.diagnose({**values, "loss": [v + 1 for v in values["data_loss"]]})
    assert penalized.evidence.penalty is None


def test_a_file_that_was_appended_to_holds_several_trainings():
    first, second = (
        pd.DataFrame({"epoch": EPOCHS - 1, **CURVES[name]}) for name in ("just right", "noisy")
    )
    diagnosis = kregs.diagnose(pd.concat([first, second], ignore_index=True))
    parts = [kregs.diagnose(run).evidence for run in (first, second)]
    assert diagnosis.evidence == mean_evidence(parts)
    assert any("of 2 trainings" in limit for limit in diagnosis.limits)
    assert not any("trainings" in limit for limit in kregs.diagnose(first).limits)
    axes = diagnosis.plot().axes[0]
    assert max(len(line.get_xdata()) for line in axes.lines) == len(EPOCHS)


def test_weights_of_the_best_epoch_are_not_blamed_for_later_ones():
    values = both(0.3 + DECAY, np.where(EPOCHS < 20, 0.31 + DECAY, 0.31 + 0.01 * EPOCHS))
    assert kregs.diagnose(values).evidence.rise > 0.4
    kept = kregs.diagnose(values, best_epoch=19)
    assert kept.evidence.rise == 0
    assert kept.verdict == "just right"


def test_folds_and_seeds_are_diagnosed_together():
    good, bad = (pd.DataFrame(CURVES[name]) for name in ("just right", "overfitting"))
    lost = good.assign(data_loss=math.nan)
    runs = [run.assign(fold=fold) for fold, run in enumerate((good, bad, lost))]
    diagnosis = kregs.diagnose(pd.concat(runs))
    parts = [kregs.diagnose(run).evidence for run in (good, bad)]
    assert diagnosis.evidence.lost == pytest.approx(1 / 3)
    assert diagnosis.evidence.gap == pytest.approx(np.mean([part.gap for part in parts]))


@pytest.mark.parametrize(
    ("history", "options", "error", "message"),
    [
        (None, {}, TypeError, "must be what `fit` returned"),
        ("log.csv", {}, TypeError, "pandas.read_csv"),
        ({}, {}, ValueError, "must hold the epochs"),
        ({"loss": []}, {}, ValueError, "must hold the epochs"),
        ({"loss": [1.0]}, {}, ValueError, "at least 2 epochs"),
        ({"accuracy": [0.5, 0.6]}, {}, ValueError, "must have a `loss`"),
        ({"loss": 3.0}, {}, ValueError, "loss=3.0"),
        ({"loss": ["a", "b"]}, {}, ValueError, "must hold numbers"),
        ({"loss": [3.0, 2.0], "val_loss": [1.0] * 3}, {}, ValueError, "equally many"),
        ({"loss": [3.0, 2.0]}, {"baseline": 0.0}, ValueError, "`baseline`"),
        ({"loss": [3.0, 2.0]}, {"penalties": [0.1]}, ValueError, "`penalties`"),
        ({"loss": [3.0, 2.0]}, {"penalties": -0.1}, ValueError, "`penalties`"),
        ({"loss": [3.0, 2.0]}, {"penalties": 5}, ValueError, "a part of `loss`"),
        ({"loss": [3.0, 2.0]}, {"penalties": [1.0, 2.5]}, ValueError, "a part of `loss`"),
        ({"loss": [3.0, 2.0]}, {"held_out": "low"}, TypeError, "`held_out`"),
        ({"loss": [3.0, 2.0]}, {"best_epoch": 3}, ValueError, "`best_epoch`"),
    ],
)
def test_bad_input_is_a_clear_error(history, options, error, message):
    with pytest.raises(error, match=message):
        kregs.diagnose(history, **options)


def test_a_search_as_a_whole_is_refused():
    class Result:
        def history(self, trial):
            return {}

    with pytest.raises(TypeError, match=r"pass result.history\(trial\)"):
        kregs.diagnose(Result())


# ---- figure, records ---------------------------------------------------------------------------


@pytest.mark.parametrize("verdict", CURVES)
def test_the_figure_shows_the_verdict_and_what_to_do(verdict):
    diagnosis = kregs.diagnose(CURVES[verdict])
    figure = diagnosis.plot()
    axes = figure.axes[0]
    assert axes.get_title(loc="left") == diagnosis.headline
    assert "1. " + diagnosis.next_steps[0][:30] in axes.get_xlabel()
    lines = {line.get_label(): line.get_ydata() for line in axes.lines}
    np.testing.assert_allclose(lines["training"], CURVES[verdict]["data_loss"])
    np.testing.assert_allclose(lines["validation"], CURVES[verdict]["val_data_loss"])
    figure.savefig(io.BytesIO())


def test_the_figure_of_a_loss_that_is_no_number():
    figure = kregs.diagnose({"loss": [1.0, 0.5, math.nan], "val_loss": [1.0, 0.7, 0.5]}).plot()
    assert "NaN or infinite" in figure.axes[0].texts[0].get_text()
    kregs.diagnose({"loss": [math.nan]}).plot().savefig(io.BytesIO())


def test_in_the_figures_mean_a_fold_that_stopped_early_goes_on_at_its_last_value():
    first = pd.DataFrame({"fold": 0, "loss": [3.0, 2.0, 1.0], "val_loss": [3.0, 1.0, 2.0]})
    second = pd.DataFrame({"fold": 1, "loss": [5.0, 4.0], "val_loss": [5.0, 4.0]})
    history = pd.concat([first, second], ignore_index=True)
    history["epoch"] = [1, 2, 3, 1, 2]
    lines = {line.get_label(): line for line in kregs.diagnose(history).plot().axes[0].lines}
    assert lines["training"].get_ydata().tolist() == [4.0, 3.0, 2.5]
    assert lines["validation"].get_ydata().tolist() == [4.0, 2.5, 3.0]
    assert lines["lowest, epoch 2"].get_ydata() == [2.5]


def test_reliabilities_are_those_of_the_record(repository):
    """Else run tests/benchmarks/diagnosis_truth.py and copy them."""
    record = json.loads((repository / "tuning/results/diagnosis.json").read_text("utf-8"))
    tuned = record["outcome"]["tuned on"]
    measured = {name: values["helped"] for name, values in tuned["classes"].items()}
    measured |= {name: values["precision"] for name, values in tuned["lambda"].items()}
    measured["noisy"] = measured["learning rate too high"]
    for verdict in RELIABILITY.keys() - {"diverging"}:
        assert RELIABILITY[verdict] == pytest.approx(measured[verdict], abs=0.006)


def test_the_page_has_the_numbers_of_the_record(repository):
    record = json.loads((repository / "tuning/results/diagnosis.json").read_text("utf-8"))
    page = (repository / "docs/diagnosis.md").read_text("utf-8")
    for truth, row in record["outcome"]["reported"]["confusion"].items():
        assert f"| {truth} | {' | '.join(str(count) for count in row.values())} |" in page


# ---- real trainings ----------------------------------------------------------------------------


@pytest.mark.nightly
def test_real_trainings_of_a_known_fault():
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype("float32")
    x, test_x, y, test_y = train_test_split(x, y, train_size=200, random_state=0, stratify=y)
    faults = {  # λ and learning rate
        "overfitting": (0.0, 1e-2),
        "underfitting": (1.0, 1e-2),
        "learning rate too low": (0.0, 1e-6),
        "learning rate too high": (0.0, 100.0),
    }
    models = [
        kregs.compile_model(
            kregs.mlp((64,), 10, units=(64, 64), regularization=kregs.Regularization(l2=l2)),
            "sparse_categorical_crossentropy",
            learning_rate=rate,
        )
        for l2, rate in faults.values()
    ]
    labels = np.random.default_rng(0).permutation(y)  # which nothing but the rows can tell
    population = kregs.Population.from_models(models)
    histories = population.fit(x, labels, validation_data=(test_x, test_y), epochs=40)
    diagnoses = [kregs.diagnose(h, baseline=math.log(10)) for h in histories]
    verdicts = [diagnosis.verdict for diagnosis in diagnoses]
    assert verdicts[:2] == ["overfitting", "underfitting"]
    assert verdicts[2] in ("learning rate too low", "underfitting")
    assert verdicts[3] in ("learning rate too high", "diverging", "noisy")
    # so large a λ left no weights, and so no penalties to tell it by
    assert any(step.startswith("divide λ") for step in diagnoses[1].next_steps)
