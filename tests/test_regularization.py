from __future__ import annotations

import dataclasses
import json
import math

import keras_tuner
import pytest
from keras_tuner.engine.hyperparameters import Boolean, Choice, Float

from kregs import Regularization

FIELDS = [field.name for field in dataclasses.fields(Regularization)]
COEFFICIENTS = [
    "l1", "l2", "bias_l1", "bias_l2", "activity_l1", "activity_l2", "proximal_l1", "group_l1",
    "weight_decay", "gaussian_noise",
]  # fmt: skip
RATES = ["dropout", "input_dropout", "spatial_dropout", "drop_path", "label_smoothing"]
FULL = Regularization(
    l1=1e-5,
    l2=0.1,
    bias_l1=1e-3,
    bias_l2=1e-4,
    activity_l1=1e-6,
    activity_l2=1e-7,
    proximal_l1=1e-2,
    group_l1=1e-3,
    weight_decay=1e-2,
    label_smoothing=0.1,
    max_norm=3,
    dropout=0.5,
    input_dropout=0.1,
    spatial_dropout=0.2,
    gaussian_noise=0.05,
    drop_path=0.3,
    normalization="group",
)


@pytest.mark.parametrize("value", [Regularization(), Regularization(l2=1e-4), FULL])
def test_round_trips(value):
    assert Regularization.from_config(value.get_config()) == value
    assert Regularization.from_config(json.loads(json.dumps(value.get_config()))) == value
    assert eval(repr(value)) == value
    assert hash(eval(repr(value))) == hash(value)


def test_repr_shows_only_what_is_set():
    assert repr(Regularization()) == "Regularization()"
    assert repr(Regularization(l2=0.1, max_norm=3)) == "Regularization(l2=0.1, max_norm=3.0)"


def test_is_frozen_and_keyword_only():
    with pytest.raises(dataclasses.FrozenInstanceError):
        FULL.l2 = 1.0
    with pytest.raises(TypeError):
        Regularization(0.1)


def test_replace_and_unregularized():
    assert FULL.replace(l2=0.2).l2 == 0.2
    assert FULL.replace(l2=0.2).replace(l2=0.1) == FULL
    assert FULL.unregularized() == Regularization(normalization="group")
    with pytest.warns(DeprecationWarning, match=r"now called unregularized\(\)"):
        assert FULL.without_penalties() == FULL.unregularized()
    with pytest.raises(TypeError, match=r"no field 'droput'.*Did you mean 'dropout'"):
        FULL.replace(droput=0.1)
    with pytest.raises(TypeError, match=r"Received: 'l3'. Did you mean"):
        Regularization.from_config({"l3": 0.1})


@pytest.mark.parametrize("name", COEFFICIENTS)
@pytest.mark.parametrize("value", [-1e-9, math.nan, math.inf])
def test_bad_coefficients(name, value):
    with pytest.raises(ValueError, match=rf"`{name}` must be a finite number >= 0"):
        Regularization(**{name: value})


@pytest.mark.parametrize("name", RATES)
@pytest.mark.parametrize("value", [-0.1, 1.0, 1.5, math.nan])
def test_bad_rates(name, value):
    with pytest.raises(ValueError, match=rf"`{name}` must be a finite number >= 0.* and < 1"):
        Regularization(**{name: value})


@pytest.mark.parametrize("name", [*COEFFICIENTS, *RATES])
@pytest.mark.parametrize("value", ["0.1", None, True, [0.1]])
def test_no_numbers(name, value):
    with pytest.raises(TypeError, match=rf"`{name}` must be .*Received"):
        Regularization(**{name: value})


@pytest.mark.parametrize("value", [0, -1.0, math.inf])
def test_bad_max_norm(value):
    with pytest.raises(ValueError, match=r"`max_norm` must be a finite number > 0"):
        Regularization(max_norm=value)


def test_bad_normalization():
    with pytest.raises(ValueError, match=r"`normalization` must be one of .*Did you mean 'batch'"):
        Regularization(normalization="bach")


# (field, spec, the hyperparameters it makes: name -> (class, sampling or None))
SPACES = [
    ("l2", (1e-6, 1e-1), {"l2": (Float, "log")}),
    ("l2", (0, 1e-6, 1e-1), {"use_l2": (Boolean, None), "l2": (Float, "log")}),
    ("max_norm", (0.5, 4.0), {"max_norm": (Float, "log")}),
    ("dropout", (0.0, 0.6), {"dropout": (Float, "linear")}),
    ("gaussian_noise", (0.0, 0.5), {"gaussian_noise": (Float, "linear")}),
    ("drop_path", [0.0, 0.1, 0.2], {"drop_path": (Choice, None)}),
    ("max_norm", [None, 1.0, 3.0], {"max_norm": (Choice, None)}),
    ("normalization", ["batch", None], {"normalization": (Choice, None)}),
    ("l1", 0.25, {}),
]


@pytest.mark.parametrize(("field", "spec", "expected"), SPACES)
def test_from_hp_registers_and_samples(field, spec, expected):
    oracle = keras_tuner.oracles.RandomSearchOracle(
        objective=keras_tuner.Objective("val_data_loss", "min"), max_trials=60, seed=1
    )
    first = keras_tuner.HyperParameters()
    Regularization.from_hp(first, **{field: spec})
    oracle.update_space(first)
    if isinstance(spec, tuple) and len(spec) == 3:  # λ itself exists only where it is used
        use = keras_tuner.HyperParameters()
        use.values["use_l2"] = True
        Regularization.from_hp(use, **{field: spec})
        oracle.update_space(use)
    found = {
        hp.name: (type(hp), getattr(hp, "sampling", None)) for hp in oracle.hyperparameters.space
    }
    assert found == expected
    values = []
    for i in range(60):
        hp = oracle.hyperparameters.copy()
        if expected:
            hp.values = oracle.populate_space(str(i))["values"]
        value = getattr(Regularization.from_hp(hp, **{field: spec}), field)
        values.append(value)
    if isinstance(spec, list):
        assert set(values) == set(spec)
    elif isinstance(spec, tuple):
        low, high = spec[-2:]
        positive = [v for v in values if v > 0]
        assert all(low <= v <= high for v in positive)
        assert len(set(positive)) > 10
        assert (0.0 in values) == (len(spec) == 3)
        if next(iter(expected.values()))[1] == "log":
            # half of a log-uniform sample lies below the geometric mean
            below = sum(v < math.sqrt(low * high) for v in positive) / len(positive)
            assert 0.25 < below < 0.75
    else:
        assert set(values) == {spec}


def test_from_hp_base_gives_what_is_not_named_and_the_defaults():
    base = Regularization(l2=1e-3, dropout=0.4, normalization="batch", bias_l2=0.1)
    hp = keras_tuner.HyperParameters()
    sampled = Regularization.from_hp(
        hp, base=base, l2=(0, 1e-6, 1e-1), dropout=(0.0, 0.6), normalization=["layer", "batch"]
    )
    assert sampled == base
    assert hp.values == {"use_l2": True, "l2": 1e-3, "dropout": 0.4, "normalization": "batch"}


def test_from_hp_prefix():
    hp = keras_tuner.HyperParameters()
    Regularization.from_hp(hp, prefix="encoder_", l2=(1e-6, 1e-1), dropout=[0.0, 0.5])
    assert sorted(hp.values) == ["encoder_dropout", "encoder_l2"]


@pytest.mark.parametrize(
    ("space", "error", "message"),
    [
        ({"drop_out": (0, 0.5)}, TypeError, r"no field 'drop_out'.*Did you mean 'dropout'"),
        ({"l2": (0, 1e-1)}, ValueError, r"log scale.*pass \(0, low, 0.1\)"),
        ({"l2": (1e-1, 1e-3)}, ValueError, r"low < high"),
        ({"l2": (-1e-3, 1e-1)}, ValueError, r"`l2\[low\]` must be"),
        ({"dropout": (0.0, 1.0)}, ValueError, r"`dropout\[high\]` must be .* < 1"),
        ({"dropout": (0.1,)}, ValueError, r"`dropout` must be a range"),
        ({"dropout": (0, 0.1, 0.5)}, ValueError, r"`dropout` must be a range"),
        ({"dropout": []}, ValueError, r"at least one value"),
        ({"dropout": [0.1, 1.5]}, ValueError, r"`dropout` must be .* < 1"),
        ({"normalization": ["batch", "instance"]}, ValueError, r"`normalization` must be one of"),
        ({"normalization": ("batch", "layer")}, ValueError, r"`normalization` is no range"),
        ({"l2": -1.0}, ValueError, r"`l2` must be"),
    ],
)
def test_from_hp_errors(space, error, message):
    with pytest.raises(error, match=message):
        Regularization.from_hp(keras_tuner.HyperParameters(), **space)
