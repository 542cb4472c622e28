"""kregs on the oldest versions that pyproject.toml admits: each builder, a population, a search.

`python tests/lower_bounds.py` prints these versions, for pip. In an environment that holds them,
`pytest tests/lower_bounds.py` runs what is here; its name keeps it out of the other tests.
"""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

_REQUIREMENT = re.compile(r"([\w-]+)>=([\d.]+)$")
_ROWS = 64
_REGULARIZATION = {"l1": 1e-5, "l2": 1e-3, "dropout": 0.1, "normalization": "batch"}


def oldest_versions() -> dict[str, str]:
    """Return the oldest admitted version of each dependency that has a lower bound."""
    path = Path(__file__).resolve().parents[1] / "pyproject.toml"
    dependencies = tomllib.loads(path.read_text(encoding="utf-8"))["project"]["dependencies"]
    return dict(match.groups() for match in map(_REQUIREMENT.match, dependencies) if match)


@pytest.mark.parametrize(("package", "oldest"), oldest_versions().items())
def test_the_oldest_version_is_installed(package, oldest):
    version = importlib.metadata.version(package)
    assert f"{version}.0.0".startswith(f"{oldest}."), f"{package} {version} is not {oldest}"


def test_list_loads_no_tensorflow():
    program = (
        "import sys, kregs; from kregs.cli import main; main(['list']);"
        "sys.exit(sorted({'tensorflow', 'keras', 'keras_tuner'} & set(sys.modules)) or 0)"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")
    assert "digits_mlp" in run.stdout


def make_data(shape: tuple[int, ...], *, vocabulary: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    if vocabulary:
        return rng.integers(1, vocabulary, (_ROWS, *shape)), rng.integers(0, 3, _ROWS)
    return rng.normal(size=(_ROWS, *shape)).astype("float32"), rng.integers(0, 3, _ROWS)


@pytest.mark.parametrize(
    ("builder", "shape", "options"),
    [
        ("mlp", (6,), {"units": (8,)}),
        ("linear", (6,), {"head_activation": "softmax"}),
        ("convnet", (8, 8, 1), {"filters": (4,)}),
        ("resnet", (8, 8, 1), {"filters": (4,), "blocks_per_stage": 1}),
        ("text_cnn", (12,), {"embedding_units": 4, "filters": 4, "kernel_sizes": (3,)}),
        ("recurrent", (12,), {"embedding_units": 4, "units": (4,)}),
    ],
)
def test_each_builder_trains(builder, shape, options):
    import kregs

    accepted = {"l1": 1e-5, "l2": 1e-3} if builder == "linear" else dict(_REGULARIZATION)
    if builder == "recurrent":
        accepted["normalization"] = "layer"
    regularization = kregs.Regularization(**accepted)
    of_text = builder in ("text_cnn", "recurrent")
    first = 20 if of_text else shape
    if of_text:
        options = options | {"sequence_length": shape[0]}
    model = getattr(kregs, builder)(first, 3, regularization=regularization, seed=0, **options)
    kregs.compile_model(model, "sparse_categorical_crossentropy", metrics=["accuracy"])
    x, y = make_data(shape, vocabulary=20 if of_text else 0)
    history = model.fit(x, y, epochs=2, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    assert history["data_loss"][-1] < history["loss"][-1]


def test_an_autoencoder_trains():
    import kregs

    model = kregs.autoencoder((6,), units=(4, 2), seed=0)
    kregs.compile_model(model, "mse")
    x, _ = make_data((6,))
    assert np.isfinite(model.fit(x, x, batch_size=_ROWS, verbose=0).history["loss"]).all()


def test_a_coefficient_is_read_back_to_the_last_digit_and_compiles_with_xla():
    import keras

    penalty = keras.regularizers.L2(1e-3)
    assert penalty.get_config() == {"l2": 1e-3}
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(1, kernel_regularizer=penalty)])
    model.compile("adam", "mse", jit_compile=True)
    x, y = make_data((6,))
    assert np.isfinite(model.fit(x, y, verbose=0).history["loss"]).all()


def build(hp):
    import kregs

    regularization = kregs.Regularization.from_hp(hp, l2=(0, 1e-6, 1e-2), dropout=(0.0, 0.5))
    model = kregs.mlp((6,), 3, units=(8,), regularization=regularization, seed=0)
    return kregs.compile_model(
        model, "sparse_categorical_crossentropy", learning_rate=0.01, metrics=["accuracy"]
    )


def test_members_of_a_population_end_where_fit_ends():
    import keras_tuner

    import kregs

    def make_models():
        return [build(keras_tuner.HyperParameters()) for _ in range(2)]

    x, y = make_data((6,))
    population = kregs.Population.from_models(make_models())
    population.fit(x, y, batch_size=16, epochs=2, shuffle=False)
    alone = make_models()[0]
    alone.fit(x, y, batch_size=16, epochs=2, shuffle=False, verbose=0)
    for stacked, fitted in zip(
        population.unstack()[0].get_weights(), alone.get_weights(), strict=True
    ):
        np.testing.assert_allclose(stacked, fitted, atol=1e-5)


def test_a_search_with_folds_and_its_report(tmp_path):
    import kregs

    x, y = make_data((6,))
    options = {"folds": 2, "max_trials": 3, "epochs": 2, "verbose": 0, "directory": tmp_path}
    result = kregs.tune(build, x, y, **options)
    assert result.trials()["status"].tolist() == ["completed"] * 3
    assert result.best_model().predict(x[:2], verbose=0).shape == (2, 3)
    assert kregs.load_result(result.path).best_score == result.best_score
    assert result.report().stat().st_size > 0


if __name__ == "__main__":
    print(*(f"{package}=={version}" for package, version in oldest_versions().items()))
