"""Weight decay as a field of `Regularization`: AdamW's decoupled one, of kernels."""

import keras
import numpy as np
import pytest
from keras import optimizers

import kregs
from kregs import Regularization
from kregs.builders.unapplied import unapplied
from kregs.inspection.audit import audit
from kregs.search.fingerprint import fingerprint
from kregs.search.judging.model_restraints import model_restraints

R = Regularization(weight_decay=0.2)
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(8, 4)).astype("float32"), RNG.normal(size=(8, 3)).astype("float32")


def mlp(r=None):
    return kregs.mlp((4,), 3, units=(5,), head_activation=None, regularization=r, seed=0)


def decayed(model):
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    return [optimizer._use_weight_decay(v) for v in model.trainable_variables]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["adam", "adamw", "sgd", "nadam", "proximal"])
def test_each_step_multiplies_kernels(name):
    """Loshchilov and Hutter 2019, algorithm 2, as Keras has it: w - rate * decay * w, then Adam."""
    r = R.replace(proximal_l1=1e-12) if name == "proximal" else R
    optimizer = "adam" if name == "proximal" else name
    model, plain = mlp(r), mlp(r.unregularized())
    plain.set_weights(model.get_weights())
    kregs.compile_model(model, "mse", optimizer=optimizer, learning_rate=0.1, regularization=r)
    assert decayed(model) == [True, False, True, False]
    before = model.get_weights()
    model.train_on_batch(X, Y)
    # of the first step of any of these, only the decay depends on the weight itself
    kregs.compile_model(plain, "mse", optimizer=optimizer, learning_rate=0.1, weight_decay=0.0)
    plain.train_on_batch(X, Y)
    for old, new, without in zip(before, model.get_weights(), plain.get_weights(), strict=True):
        factor = 0.1 * 0.2 if old.ndim == 2 else 0.0
        np.testing.assert_allclose(new, without - factor * old, rtol=1e-5, atol=1e-6)


def test_what_is_given_by_name_or_as_an_object():
    adamw = kregs.compile_model(mlp(), "mse", optimizer="adamw", regularization=Regularization())
    assert adamw.optimizer.weight_decay == 0.0  # not Keras's 0.004: nothing restrains
    assert kregs.compile_model(mlp(), "mse", optimizer="adamw").optimizer.weight_decay == 0.004
    given = optimizers.Adam(0.01, beta_1=0.5, name="mine")
    model = kregs.compile_model(mlp(R), "mse", optimizer=given, regularization=R)
    config = model.optimizer.get_config()
    assert config | {"weight_decay": None} == given.get_config()
    assert (config["weight_decay"], given.weight_decay) == (0.2, None)
    assert decayed(model) == [True, False, True, False]
    own = optimizers.SGD(weight_decay=0.2)
    assert kregs.compile_model(mlp(R), "mse", optimizer=own, regularization=R).optimizer is own
    assert decayed(model) == [True, False, True, False]
    schedule = kregs.warmup_cosine(0.1, steps=10)
    model = kregs.compile_model(mlp(R), "mse", optimizer=optimizers.SGD(schedule), regularization=R)
    assert model.optimizer._learning_rate is schedule


def test_a_copy_leaves_out_what_the_optimizer_was_told():
    model = mlp(R)
    for told, expected in (
        ({"var_names": ["kernel"]}, [False] * 4),
        ({"var_list": model.trainable_variables[:1]}, [False, False, True, False]),
    ):
        optimizer = optimizers.Adam(0.01)
        optimizer.exclude_from_weight_decay(**told)
        kregs.compile_model(model, "mse", optimizer=optimizer, regularization=R)
        assert decayed(model) == expected


def test_two_decays_are_refused():
    with pytest.raises(
        ValueError, match=r"weight decay of its own, 0.004, and.*is 0.2. Give it on"
    ):
        kregs.compile_model(mlp(R), "mse", optimizer=optimizers.AdamW(), regularization=R)
    with pytest.raises(ValueError, match=r"`weight_decay` is set twice.*0.2.*weight_decay=0.1"):
        kregs.compile_model(mlp(R), "mse", weight_decay=0.1, regularization=R)
    kregs.compile_model(mlp(R), "mse", weight_decay=0.2, regularization=R)
    around = optimizers.LossScaleOptimizer(optimizers.SGD())
    with pytest.raises(ValueError, match="must be a fresh optimizer of Keras"):
        kregs.compile_model(mlp(R), "mse", optimizer=around, regularization=R)
    around = optimizers.LossScaleOptimizer(optimizers.SGD(weight_decay=0.2))
    kregs.compile_model(mlp(R), "mse", optimizer=around, regularization=R)


def test_a_built_model_refuses_to_go_without():
    model = mlp(R)
    assert unapplied(model).regularization == R
    message = r"built with Regularization\(weight_decay=0.2\), which belongs to the optimizer: comp"
    for optimizer in ("adamw", optimizers.SGD(weight_decay=0.1)):
        with pytest.raises(ValueError, match=message):
            model.compile(optimizer, "mse")
    model.compile(optimizers.SGD(weight_decay=0.2), "mse")
    with pytest.raises(ValueError, match=message):
        kregs.compile_model(model, "mse")
    both = R.replace(proximal_l1=0.1)
    with pytest.raises(ValueError, match="belongs to the optimizer"):
        kregs.compile_model(mlp(both), "mse", optimizer=kregs.proximal("adam", l1=0.1))
    decaying = kregs.proximal(optimizers.Adam(weight_decay=0.2), l1=0.1)
    kregs.compile_model(mlp(both), "mse", optimizer=decaying)


def test_regularize_decays_the_chosen_layers():
    model = kregs.regularize(mlp(), R, layers=["head"])
    kregs.compile_model(model, "mse", regularization=R)
    assert decayed(model) == [False, False, True, False]
    frame = kregs.regularization_summary(mlp(), R, layers=["head"]).set_index("layer")["done"]
    assert "kernel weight_decay=0.2 by compile_model" in frame["head"]
    assert "decay" not in frame["dense_1"]


def test_tables_show_it():
    model = kregs.compile_model(mlp(R), "mse", regularization=R)
    assert model_restraints(model)["numbers"]["weight_decay"] == {"": 0.2}
    overview = audit(model).overview()
    assert overview.set_index("layer")["decayed"]["head"] == "kernel"
    other = R.replace(weight_decay=0.1)
    descriptions = [fingerprint(kregs.compile_model(mlp(r), "mse", regularization=r))
                    for r in (R, other, R)]  # fmt: skip
    assert descriptions[0] == descriptions[2] != descriptions[1]


def test_files_load_without_it(tmp_path):
    model = kregs.compile_model(mlp(R), "mse", regularization=R)
    model.optimizer.build(model.trainable_variables)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.optimizer.weight_decay == 0.2
