"""Fields that belong to the optimizer: builders mark them, compile_model applies them."""

import keras
import keras_tuner
import numpy as np
import pytest
from keras import layers, optimizers

import kregs
from kregs import Regularization
from kregs.builders.unapplied import unapplied
from kregs.search.fingerprint import fingerprint
from kregs.search.judging.model_restraints import model_restraints
from kregs.search.judging.restraint import compare_restraints
from kregs.training.proximal import is_proximal

FIELDS = Regularization(proximal_l1=0.1, group_l1=0.2, l2=0.01)
LEFT = Regularization(proximal_l1=0.1, group_l1=0.2)
BUILDERS = {
    "mlp": lambda r: kregs.mlp((4,), 3, units=(5,), regularization=r),
    "linear": lambda r: kregs.linear((4,), 1, regularization=r),
    "convnet": lambda r: kregs.convnet((8, 8, 1), 3, filters=(4,), regularization=r),
    "resnet": lambda r: kregs.resnet(
        (8, 8, 1), 3, filters=(4,), blocks_per_stage=1, regularization=r
    ),
    "text_cnn": lambda r: kregs.text_cnn(
        20, 3, sequence_length=6, embedding_units=3, filters=4, kernel_sizes=(2,), regularization=r
    ),
    "autoencoder": lambda r: kregs.autoencoder((4,), units=(3, 2), regularization=r),
    "tied": lambda r: kregs.autoencoder((4,), units=(3, 2), tied=True, regularization=r),
    "table_mlp": lambda r: kregs.table_mlp(
        3, 2, categories=(2,), units=(3, 3), embedding="piecewise", ensemble=2, scaling=True,
        head_activation=None, regularization=r,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BUILDERS)
def test_builders_leave_them_to_the_optimizer(name):
    model = BUILDERS[name](FIELDS)
    assert unapplied(model).regularization == LEFT
    message = r"built with Regularization\(proximal_l1=0.1, group_l1=0.2\), which belongs to the"
    for optimizer in ("adam", kregs.proximal("adam", l1=0.1)):
        with pytest.raises(ValueError, match=message):
            model.compile(optimizer, "mse")
    with pytest.raises(ValueError, match=message):
        kregs.compile_model(model, "mse")
    assert not model.compiled
    kregs.compile_model(model, "mse", optimizer="sgd", regularization=FIELDS)
    model.optimizer.build(model.trainable_variables)
    thresholds = model.optimizer.thresholds(model.trainable_variables)
    for variable, threshold in zip(model.trainable_variables, thresholds, strict=True):
        expected = (0.1, 0.2) if variable.name == "kernel" else (0.0, 0.0)
        assert (threshold.l1, threshold.group_l1) == expected, variable.path
    assert unapplied(BUILDERS[name](Regularization(l2=0.1))) is None


def test_recurrent_kernels_have_no_groups():
    with pytest.raises(ValueError, match=r"`regularization.group_l1` has no meaning for recurrent"):
        kregs.recurrent(
            9, 2, embedding_units=3, units=(2,), regularization=Regularization(group_l1=0.1)
        )
    r = Regularization(proximal_l1=0.1)
    model = kregs.recurrent(9, 2, embedding_units=3, units=(2,), regularization=r)
    kregs.compile_model(model, "mse", regularization=r)
    numbers = model_restraints(model)["numbers"]["proximal_l1"]
    assert len(numbers) == 3  # of inputs, of states, of the output layer


def test_compile_model_wants_the_builders_value():
    model = BUILDERS["mlp"](FIELDS)
    with pytest.raises(ValueError, match="must be the value that the model was built with"):
        kregs.compile_model(model, "mse", regularization=Regularization(proximal_l1=0.3))
    with pytest.raises(TypeError, match=r"`regularization` must be a kregs.Regularization"):
        kregs.compile_model(model, "mse", regularization=0.1)
    with pytest.raises(ValueError, match=r"must be one of Adadelta.*Received: Muon"):
        kregs.compile_model(model, "mse", optimizer="muon", regularization=FIELDS)
    kregs.compile_model(model, "mse", regularization=FIELDS)
    kregs.compile_model(model, "mse", optimizer="rmsprop", regularization=FIELDS)
    model.compile(kregs.proximal("adam", l1=0.1, group_l1=0.2), "mse")
    plain = BUILDERS["mlp"](None)
    kregs.compile_model(plain, "mse", regularization=Regularization(dropout=0.5))
    assert not is_proximal(plain.optimizer)


def test_a_model_of_ones_own():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    kregs.compile_model(model, "mse", weight_decay=0.1, regularization=FIELDS)
    assert (model.optimizer.l1, model.optimizer.group_l1) == (0.1, 0.2)
    decayed = [v.name for v in model.trainable_variables if model.optimizer._use_weight_decay(v)]
    assert decayed == ["kernel"]
    lstm = keras.Sequential([keras.Input((4, 2)), layers.LSTM(2)])
    kregs.compile_model(lstm, "mse", regularization=Regularization(group_l1=0.2))
    with pytest.raises(ValueError, match="`group_l1` must concern at least one weight"):
        lstm.fit(np.ones((4, 4, 2)), np.ones((4, 2)), verbose=0)


def test_regularize_marks_the_chosen_layers():
    plain = kregs.mlp((4,), 3, units=(5, 5))
    model = kregs.regularize(plain, FIELDS, layers=["dense_2"])
    with pytest.raises(ValueError, match="belongs to the optimizer"):
        kregs.compile_model(model, "mse")
    kregs.compile_model(model, "mse", regularization=FIELDS)
    thresholds = model.optimizer.thresholds(model.trainable_variables)
    chosen = [
        v.path
        for v, threshold in zip(model.trainable_variables, thresholds, strict=True)
        if threshold.l1
    ]
    assert len(chosen) == 1
    assert chosen[0].endswith("dense_2/kernel")
    again = kregs.regularize(model, Regularization(l2=0.1))
    assert unapplied(again) is None
    kregs.compile_model(again, "mse")


def test_a_model_around_remembers():
    def around(inner):
        return keras.Sequential([keras.Input((4,)), layers.Rescaling(0.5), inner])

    model = around(BUILDERS["mlp"](FIELDS))
    with pytest.raises(ValueError, match="belongs to the optimizer"):
        kregs.compile_model(model, "mse")
    with pytest.raises(ValueError, match="must be the value that the model was built with"):
        kregs.compile_model(model, "mse", regularization=Regularization(proximal_l1=0.3))
    kregs.compile_model(model, "mse", optimizer=kregs.proximal("sgd", l1=0.1, group_l1=0.2))
    kregs.compile_model(model, "mse", regularization=FIELDS)
    plain = kregs.mlp((4,), 3, units=(5, 5))
    model = around(kregs.regularize(plain, FIELDS, layers=["dense_2"]))
    kregs.compile_model(model, "mse", regularization=FIELDS)
    thresholds = model.optimizer.thresholds(model.trainable_variables)
    chosen = [v.path for v, t in zip(model.trainable_variables, thresholds, strict=True) if t.l1]
    assert len(chosen) == 1
    assert "dense_2/kernel" in chosen[0]
    model = keras.Sequential(
        [keras.Input((4,)), BUILDERS["mlp"](FIELDS), kregs.linear((3,), 1, regularization=LEFT)]
    )
    kregs.compile_model(model, "mse", regularization=LEFT)
    other = kregs.linear((3,), 1, regularization=Regularization(group_l1=1.0))
    with pytest.raises(ValueError, match="built with the same fields"):
        kregs.compile_model(
            keras.Sequential([keras.Input((4,)), BUILDERS["mlp"](FIELDS), other]), "mse"
        )


def test_the_summary_tells_of_them():
    plain = kregs.mlp((4,), 3, units=(5,))
    frame = kregs.regularization_summary(plain, FIELDS, layers=["head"])
    words = "kernel proximal_l1=0.1 by compile_model, kernel group_l1=0.2 by compile_model"
    assert words in frame.set_index("layer")["done"]["head"]
    assert "proximal" not in frame.set_index("layer")["done"]["dense_1"]


def compiled(**fields):
    r = Regularization(**fields)
    model = kregs.mlp((4,), 3, units=(5,), regularization=r)
    return kregs.compile_model(model, "mse", regularization=r)


def test_they_count_as_restraint():
    restraints = [
        model_restraints(compiled(proximal_l1=l1, group_l1=group_l1))
        for l1, group_l1 in ((0.0, 0.0), (0.1, 0.0), (0.1, 0.1), (0.2, 0.0))
    ]
    assert restraints[0]["structure"] == restraints[2]["structure"] is not None
    assert compare_restraints(restraints[1], restraints[0]) == 1
    assert compare_restraints(restraints[2], restraints[1]) == 1
    assert compare_restraints(restraints[3], restraints[1]) == 1
    assert compare_restraints(restraints[3], restraints[2]) is None


def test_the_fingerprint_of_a_search_tells_them_apart():
    descriptions = [
        fingerprint(compiled(proximal_l1=l1, group_l1=group_l1))
        for l1, group_l1 in ((0.0, 0.0), (0.1, 0.0), (0.1, 0.1), (0.2, 0.0))
    ]
    assert all(a != b for i, a in enumerate(descriptions) for b in descriptions[:i])
    assert descriptions[1] == fingerprint(compiled(proximal_l1=0.1))


@pytest.mark.nightly
def test_a_search_samples_them(tmp_path):
    hp = keras_tuner.HyperParameters()
    hp.Fixed("use_proximal_l1", True)
    r = Regularization.from_hp(hp, proximal_l1=(0, 1e-3, 1.0), group_l1=(1e-4, 1e-2))
    assert (r.proximal_l1, r.group_l1) == (1e-3, 1e-4)

    def build(hp):
        r = Regularization.from_hp(hp, proximal_l1=[0.0, 0.5, 5.0])
        model = kregs.linear((4,), 1, head_activation=None, regularization=r, seed=0)
        return kregs.compile_model(model, "mse", optimizer=optimizers.Adam(0.05), regularization=r)

    x = np.random.default_rng(0).normal(size=(60, 4)).astype("float32")
    result = kregs.tune(
        build, x, x[:, 0], oracle="grid", max_trials=3, epochs=3, directory=tmp_path, verbose=0
    )
    assert len(result.trials()) == 3
    assert [trial["engine"] for trial in result.record.trials] == ["population"] * 3
    best = result.best_model()
    assert best.get_weights()[0].shape == (4, 1)


def test_a_search_whose_build_forgets_them(tmp_path):
    def build(hp):
        r = Regularization(proximal_l1=0.1)
        return kregs.compile_model(kregs.linear((4,), 1, regularization=r), "mse")

    with pytest.raises(ValueError, match="belongs to the optimizer"):
        kregs.tune(
            build, np.ones((20, 4)), np.ones(20), max_trials=1, directory=tmp_path, verbose=0
        )


@pytest.mark.nightly
def test_estimators_apply_them():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 6))
    model = kregs.KregsRegressor(
        (8,), regularization=Regularization(proximal_l1=0.1), epochs=40, learning_rate=0.02,
        early_stopping=False, random_state=0, network=kregs.mlp,
    ).fit(x, 3 * x[:, 0])  # fmt: skip
    kernel = model.model_.get_layer("dense_1").get_weights()[0]
    assert (kernel == 0).mean() > 0.3
    assert (kernel != 0).any()
