"""What a study searches: a recipe with its study's protocol, or a Python file of one's own."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kregs.catalog.entries import RECIPES, STUDIES, check_name, load
from kregs.validation import suggestion

if TYPE_CHECKING:
    from types import ModuleType

    import keras

    from kregs import Regularization

# arguments of `kregs.tune` that say where and by whom it is done, not how trials are judged
_NOT_PROTOCOL = ("build", "x", "y", "directory", "project_name", "resume", "workers")


@dataclasses.dataclass(frozen=True)
class RegularizedModel:
    """A network whose regularization can be replaced: the functions `sample` and `make_model`.

    Args:
        sample: `sample(hp)` returns the arguments of `make_model`, `regularization` among them;
            `sample(hp, regularization=r)` the same with this one, sampling only the others.
        make_model: returns a compiled model.
    """

    sample: Callable[..., Mapping[str, Any]]
    make_model: Callable[..., keras.Model]

    def arguments(self, hp: Any, regularization: Regularization | None = None) -> dict[str, Any]:
        """Return the arguments of `make_model`, with the given regularization if there is one."""
        if regularization is not None:
            return dict(self.sample(hp, regularization=regularization))
        arguments = dict(self.sample(hp))
        from kregs import Regularization as Expected

        value = arguments.get("regularization")
        if not isinstance(value, Expected):
            raise TypeError(
                "sample(hp) must return the arguments of make_model, `regularization` among them, "
                f"a kregs.Regularization. Received: regularization={value!r}"
            )
        return arguments

    def build(self, regularization: Regularization | None, hp: Any, **extra: Any) -> keras.Model:
        """Return the model of sampled values, with the given regularization if there is one."""
        return self.make_model(**{**self.arguments(hp, regularization), **extra})


@dataclasses.dataclass(frozen=True, kw_only=True)
class StudyDefinition:
    """What is searched, on which data, and how trials are judged.

    Args:
        name: of the run's folder.
        build: as of `kregs.tune`.
        load_data: returns `(x, y)`, or `(x_train, y_train), (x_test, y_test)`.
        protocol: arguments of `kregs.tune`.
        network: for a comparison with no regularization; `None` where that cannot be made.
    """

    name: str
    build: Callable[[Any], keras.Model]
    load_data: Callable[[], Any]
    protocol: Mapping[str, Any]
    network: RegularizedModel | None = None

    def model(
        self, hp: Any, *, seed: int, regularization: Regularization | None = None
    ) -> keras.Model:
        """Return a new model of sampled values, its initial weights drawn from a seed.

        Changes the global random state.

        Args:
            hp: keras-tuner's.
            seed: of the weights.
            regularization: instead of the sampled one.
        """
        import keras

        keras.utils.set_random_seed(seed)
        if self.network is None:
            return self.build(hp)
        if "seed" in inspect.signature(self.network.make_model).parameters:
            # layers that only one of two models has do not change the other layers' weights
            return self.network.build(regularization, hp, seed=seed)
        return self.network.build(regularization, hp)


def is_file(name: str) -> bool:
    """Whether a study's name is the path of a Python file.

    Example:

    >>> is_file("digits_mlp"), is_file("my_model.py")
    (False, True)
    """
    return name.endswith(".py") or os.sep in name


def study_name(name: str) -> str:
    """Return the name of a study's folder; raise where there is no such study, importing nothing.

    Args:
        name: a recipe, or the path of a file.

    Raises:
        ValueError: there is no such recipe, or the file cannot be imported by its name.
        FileNotFoundError: there is no such file.
    """
    if not is_file(name):
        if Path(f"{name}.py").is_file():
            with contextlib.suppress(ValueError):
                return check_name(RECIPES, name)
            raise ValueError(f"there is no recipe {name!r}. Did you mean '{name}.py'?")
        return check_name(RECIPES, name)
    path = Path(name)
    if path.is_dir():
        raise IsADirectoryError(f"{name!r} is a folder, no Python file with build(hp)")
    if not path.is_file():
        raise FileNotFoundError(f"the file {name!r} does not exist")
    if path.suffix != ".py" or not path.stem.isidentifier():
        raise ValueError(
            f"{name!r} cannot be imported by its name: expected letters, digits and _, and .py"
        )
    taken = sys.modules.get(path.stem)
    if taken is not None or path.stem in sys.stdlib_module_names:
        raise ValueError(f"{name!r} has the name of another module, {path.stem!r}: rename it")
    return path.stem


@contextlib.contextmanager
def study_definition(name: str) -> Iterator[StudyDefinition]:
    """Give what a recipe's study, or a file, defines; a file can be imported in the block only.

    Args:
        name: a recipe, or the path of a Python file with `build` and `load_data`, and if it likes
            `PROTOCOL`, `sample` and `make_model`.

    Raises:
        ValueError: there is no such recipe; the file cannot be imported, or lacks something.
        TypeError: something in the file is of another kind.
        FileNotFoundError: there is no such file.
    """
    folder_name = study_name(name)
    if not is_file(name):
        study = importlib.import_module(f"{STUDIES}.{check_name(STUDIES, name)}")
        yield _definition(load(name), study.PROTOCOL, folder_name)
        return
    with _imported(Path(name)) as module:
        _check_file(name, module)
        yield _definition(module, getattr(module, "PROTOCOL", {}), folder_name)


def _definition(module: ModuleType, protocol: Mapping[str, Any], name: str) -> StudyDefinition:
    sample, make_model = (getattr(module, word, None) for word in ("sample", "make_model"))
    network = None
    if callable(sample) and callable(make_model) and _takes_regularization(sample):
        network = RegularizedModel(sample, make_model)
    return StudyDefinition(
        name=name,
        build=module.build,
        load_data=module.load_data,
        protocol=protocol,
        network=network,
    )


def _takes_regularization(sample: Callable[..., Any]) -> bool:
    return "regularization" in inspect.signature(sample).parameters


@contextlib.contextmanager
def _imported(path: Path) -> Iterator[ModuleType]:
    """Import a file by its name, as processes that are started meanwhile can, too."""
    folder = str(path.parent.resolve())
    sys.path.insert(0, folder)
    importlib.invalidate_caches()
    try:
        try:
            module = importlib.import_module(path.stem)
        except SyntaxError as error:
            # it may be in another file, which this one imports
            place = f"{error.filename or str(path)}, line {error.lineno}"
            raise ValueError(f"{place}: {error.msg}") from error
        except Exception as error:
            raise ValueError(
                f"{str(path)!r} cannot be imported{_line_of(error, path)}: "
                f"{type(error).__name__}: {error}"
            ) from error
        yield module
    finally:
        sys.path.remove(folder)
        sys.modules.pop(path.stem, None)


def _line_of(error: Exception, path: Path) -> str:
    """Return which of a file's lines an error came from, if it is known."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(path.resolve())]
    return f", line {lines[-1]}" if lines else ""


def _check_file(name: str, module: ModuleType) -> None:
    """Raise if a file lacks what a study needs."""
    meanings = {
        "build": "build(hp), which returns a compiled model",
        "load_data": "load_data(), which returns (x, y) or (x_train, y_train), (x_test, y_test)",
    }
    present = [word for word, value in vars(module).items() if inspect.isfunction(value)]
    for word, meaning in meanings.items():
        if not hasattr(module, word):
            raise ValueError(f"{name!r} has no {meaning}.{suggestion(word, present)}")
        if not callable(getattr(module, word)):
            raise TypeError(f"`{word}` in {name!r} must be a function: {meaning}")
    protocol = getattr(module, "PROTOCOL", {})
    if not isinstance(protocol, Mapping):
        raise TypeError(
            f"`PROTOCOL` in {name!r} must be a dictionary of arguments of kregs.tune. "
            f"Received: {protocol!r}"
        )
    from kregs import tune

    known = [word for word in inspect.signature(tune).parameters if word not in _NOT_PROTOCOL]
    for word in protocol:
        if word not in known:
            raise ValueError(
                f"`PROTOCOL` in {name!r} has {word!r}, which is not one of the arguments of "
                f"kregs.tune that it may have.{suggestion(word, known)}"
            )
