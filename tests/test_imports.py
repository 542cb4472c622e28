"""Who imports whom: one way, no circles, each library where it belongs."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(importlib.util.find_spec("kregs").origin).parent
# recipes and studies are users of kregs, which an installed package has within
FILES = sorted(
    path
    for path in PACKAGE.rglob("*.py")
    if path.relative_to(PACKAGE).parts[0] not in ("recipes", "tuning")
)

# who may be imported when a module is loaded; what is not listed here stands lowest
LAYERS = [
    {"cli", "doctor", "__main__"},
    {"catalog", "tables", "estimators", "demos"},
    {"reporting"},
    {"search"},
    {"inspection"},
    {"population", "training"},
    {"builders"},
]


def module_name(path: Path) -> str:
    parts = ["kregs", *path.relative_to(PACKAGE).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(nodes, module, is_package):
    """Yield the modules, and the names taken from them, of import statements."""
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, None
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".")
                parts = parts[: len(parts) - node.level + is_package]
                base = ".".join([*parts, base] if base else parts)
            for alias in node.names:
                yield base, alias.name


def statements(tree):
    """Yield what runs when a module is loaded: no bodies of functions, nothing for types only."""
    stack = list(tree.body)
    while stack:
        node = stack.pop()
        yield node
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            stack += node.orelse
            continue
        stack += list(ast.iter_child_nodes(node))


@pytest.fixture(scope="module")
def trees():
    return {module_name(p): (p, ast.parse(p.read_text(encoding="utf-8"))) for p in FILES}


@pytest.fixture(scope="module")
def loaded(trees):
    """module -> the modules of kregs that it loads."""
    graph = {}
    for module, (path, tree) in trees.items():
        targets = set()
        for base, name in imported(statements(tree), module, path.name == "__init__.py"):
            if not base.startswith("kregs"):
                continue
            whole = f"{base}.{name}"
            targets.add(whole if whole in trees else base)
        graph[module] = targets - {module}
    return graph


def area(module):
    return [*module.split("."), ""][1]


def test_no_circle(loaded):
    done, path = set(), []

    def visit(module):
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        if module in done:
            return
        path.append(module)
        for target in sorted(loaded.get(module, ())):
            visit(target)
        path.pop()
        done.add(module)

    for module in sorted(loaded):
        visit(module)


def test_imports_run_one_way(loaded):
    level = {name: number for number, names in enumerate(LAYERS) for name in names}
    upward = [
        f"{module} loads {target}"
        for module, targets in loaded.items()
        for target in targets
        if level.get(area(target), len(LAYERS)) < level.get(area(module), len(LAYERS))
    ]
    assert not upward


def test_keras_tuner_only_in_search(trees):
    users = {
        module
        for module, (path, tree) in trees.items()
        for base, _ in imported(ast.walk(tree), module, path.name == "__init__.py")
        if base.split(".")[0] == "keras_tuner"
    }
    assert users
    assert {module for module in users if area(module) != "search"} == set()


@pytest.mark.parametrize(
    ("library", "places"),
    [
        ("keras_tuner.src", {"kregs.search.keras_tuner_internals"}),
        (
            "keras.src",
            {
                "kregs.population.keras_internals",
                "kregs.search.randomness",
                "kregs.training.data_loss",
                "kregs.training.label_smoothing",
                "kregs.training.wrapped_loss",
            },
        ),
        ("rich", {"kregs.reporting", "kregs.cli", "kregs.catalog", "kregs.doctor"}),
        ("matplotlib", {"kregs.reporting"}),
    ],
)
def test_a_library_is_loaded_in_one_place(trees, library, places):
    for module, (path, tree) in trees.items():
        nodes = statements(tree) if library == "matplotlib" else ast.walk(tree)
        for base, _ in imported(nodes, module, path.name == "__init__.py"):
            if base == library or base.startswith(f"{library}."):
                allowed = any(module == p or module.startswith(f"{p}.") for p in places)
                typed = library in ("matplotlib", "rich") and area(module) == "search"
                assert allowed or typed, f"{module} imports {base}"


def test_private_names_stay_in_their_module(trees):
    taken = [
        f"{module} imports {name} from {base}"
        for module, (path, tree) in trees.items()
        for base, name in imported(ast.walk(tree), module, path.name == "__init__.py")
        if base.startswith("kregs") and name and name.startswith("_") and not name.endswith("__")
    ]
    assert not taken


def test_every_module_says_what_it_is(trees):
    silent = [module for module, (_, tree) in trees.items() if not ast.get_docstring(tree)]
    assert not silent


def test_tune_is_short(trees):
    _, tree = trees["kregs.search.tuning"]
    (tune,) = (n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "tune")
    first = tune.body[1]  # after the docstring
    assert tune.end_lineno - first.lineno < 120


READ = """
import sys
import kregs
result = kregs.load_result(sys.argv[1])
result.trials(), result.history(0), result.scores(0), result.failures(), result.best_score
print(result.protocol.sentences(), result.protocol.call(), repr(result))
print(sorted({"tensorflow", "keras", "keras_tuner", "matplotlib", "sklearn"} & set(sys.modules)))
"""


def test_reading_a_result_loads_no_tensorflow(tmp_path):
    from sklearn.datasets import load_iris

    import kregs

    def build(hp):
        r = kregs.Regularization.from_hp(hp, l2=(1e-6, 1e-2))
        return kregs.compile_model(
            kregs.linear((4,), 3, regularization=r), "sparse_categorical_crossentropy"
        )

    x, y = load_iris(return_X_y=True)
    result = kregs.tune(build, x, y, max_trials=2, epochs=1, verbose=0, directory=tmp_path)
    run = subprocess.run(
        [sys.executable, "-c", READ, str(result.path)], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[-1] == "[]"
