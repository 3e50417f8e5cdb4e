"""Who imports whom, read from the source: an import inside a function counts too.

The order of the rooms is a contract of import-linter in pyproject.toml; here are the rules that a
single room has, and that no contract can say.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent

FRAMEWORKS = {"tensorflow", "keras", "jax", "torch"}
HARNESS_ONLY = {"pandas", "pytest", "pytest_benchmark", "psutil", "tabulate", "rich"}
OF_THE_HARNESS_FOR_THE_WORKER = {
    f"convmark.core.{name}"
    for name in (
        "backends",
        "case",
        "errors",
        "installed",
        "model_name",
        "processes",
        "runtimes",
        "tasks",
    )
}
FOR_THE_HARNESS = {f"convmark.worker.{name}" for name in ("protocol", "timing", "turns")}
"""Of the worker: how both sides speak, and how steps take turns, of one process or of several."""
NOT_FOR_REPORTS = tuple(
    f"convmark.{name}"
    for name in (
        *("cli", "plugin", "compare.live", "interpreter.inspection", "interpreter.launch"),
        *("interpreter.server", "session.facts", "session.progress"),
        *("session.result", "session.run"),
    )
)


def modules(folder: str) -> dict[str, Path]:
    """Return the files of a package by their dotted names."""
    found = {}
    for path in sorted((ROOT / folder).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(part for part in parts if part != "__init__")] = path
    return found


HARNESS = modules("convmark")
WORKER = {name: path for name, path in HARNESS.items() if name.startswith("convmark.worker")}
ZOO = modules("models")
BENCH = modules("bench")
KNOWN = {**HARNESS, **ZOO}
IMPORTS: dict[str, set[str]] = {}


def imports(name: str) -> set[str]:
    """Return the modules that a file imports anywhere, as full dotted names."""
    if name not in IMPORTS:
        path = {**KNOWN, **BENCH}[name]
        tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        IMPORTS[name] = {found for node in ast.walk(tree) for found in _imported(node, package)}
    return IMPORTS[name]


def _imported(node: ast.AST, package: str) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        source = node.module or ""
        if node.level:
            above = package.split(".")
            above = above[: len(above) - node.level + 1]
            source = ".".join([*above, source] if source else above)
        for alias in node.names:
            whole = f"{source}.{alias.name}"
            yield whole if whole in KNOWN else source


def tops(names: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


def breaking(names: Iterator[str] | list[str], forbidden: set[str]) -> dict[str, set[str]]:
    """Return the modules that import something whose top-level name is forbidden, and what."""
    found = {name: tops(imports(name)) & forbidden for name in names}
    return {name: broken for name, broken in found.items() if broken}


def test_imports_are_read_from_functions_and_relative_ones_too() -> None:
    assert {"convmark.core.case", "convmark.worker.protocol", "functools"} <= imports(
        "convmark.session.run"
    )
    assert {"models.keras_api", "models.shape"} <= imports("models.lenet")


def test_every_room_has_its_place_in_the_contract() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    (layers,) = [one["layers"] for one in settings["contracts"] if one["type"] == "layers"]
    rooms = {path.parent.name for path in (ROOT / "convmark").glob("*/__init__.py")}
    assert {layer.removeprefix("convmark.") for layer in layers} == rooms
    loose = {path.name for path in (ROOT / "convmark").glob("*.py")}
    assert loose == {"__init__.py", "__main__.py"}


def test_frameworks_are_imported_by_the_backends_and_the_zoo_alone() -> None:
    known = ("convmark.worker.backends.", "convmark.worker.runtimes.")
    others = [name for name in HARNESS if not name.startswith(known)]
    assert not breaking([*others, *BENCH], FRAMEWORKS)


def test_ray_is_imported_by_one_module_alone() -> None:
    assert set(breaking([*HARNESS, *BENCH], {"ray"})) == {"convmark.session.fleet.ray"}


def test_worker_and_zoo_need_nothing_that_only_the_harness_installs() -> None:
    assert not breaking([*WORKER, *ZOO], HARNESS_ONLY)


def test_the_worker_imports_nothing_else_at_all() -> None:
    standard = set(sys.stdlib_module_names)
    allowed = standard | FRAMEWORKS | {"h5py", "numpy", "convmark", "convmark_zoo"}
    others = [name for name in WORKER if tops(imports(name)) - allowed]
    assert all(name.startswith("convmark.worker.runtimes.") for name in others), others


def test_the_worker_imports_of_the_harness_the_case_and_the_errors_alone() -> None:
    for name in WORKER:
        ours = {found for found in imports(name) if found.startswith("convmark.")}
        harness = {found for found in ours if not found.startswith("convmark.worker")}
        assert harness <= OF_THE_HARNESS_FOR_THE_WORKER, name


def test_what_the_worker_takes_from_the_harness_needs_the_standard_library_alone() -> None:
    for name in {"convmark", "convmark.core", *OF_THE_HARNESS_FOR_THE_WORKER}:
        assert tops(imports(name)) <= {*sys.stdlib_module_names, "convmark"}, name


def test_the_harness_imports_of_the_worker_the_protocol_and_the_turns_alone() -> None:
    for name in HARNESS.keys() - WORKER.keys() | FOR_THE_HARNESS:
        assert {found for found in imports(name) if found in WORKER} <= FOR_THE_HARNESS, name


def test_the_zoo_imports_keras_and_itself_alone() -> None:
    allowed = set(sys.stdlib_module_names) | {"keras", "tf_keras", "tensorflow", "models"}
    for name in ZOO:
        assert tops(imports(name)) <= allowed, name


def test_reports_are_made_without_what_measures() -> None:
    for name in HARNESS:
        if name.startswith("convmark.report"):
            assert not [one for one in imports(name) if one.startswith(NOT_FOR_REPORTS)], name


def test_there_is_no_circle_even_of_modules_that_are_named_by_a_text() -> None:
    """The contract of import-linter reads no texts; `worker.bootstrap` is told what it starts."""
    known: dict[str, set[str]] = {}
    for name, path in HARNESS.items():
        nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        texts = {node.value for node in nodes if isinstance(node, ast.Constant)}
        known[name] = (imports(name) | texts) & HARNESS.keys() - {name, "convmark"}
    TopologicalSorter(known).prepare()  # raises CycleError


def test_no_test_file_imports_a_framework_while_it_is_collected(
    imported_by_test_files: list[str],
) -> None:
    """Each process of the tests would take seconds more."""
    assert imported_by_test_files == []
