"""Who imports whom: read from the source, so that an import inside a function counts too."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

LAYERS = (
    ("errors",),
    ("alone", "signals", "environments.pythons", "environments.requirement"),
    ("environments.installer", "environments.releases"),
    ("environments.cache",),
    ("environments.interpreter",),
    (
        *("batch_search", "case", "git", "model_name", "statistics", "text"),
        *("worker.protocol", "worker.timing"),
    ),
    ("cells", "cgroups", "cluster", "code.manifest", "csvlines"),
    (
        *("comparing.change_points", "comparing.pooling", "comparing.recent"),
        *("comparing.signs", "comparing.spending"),
        *("ranges", "steadiness"),
    ),
    ("comparing.decision", "comparing.levels", "worker.turns"),
    ("comparing.allotment",),
    ("comparing.sight",),
    ("gpu.commands", "gpu.nvml", "gpu.throttle"),
    ("gpu.devices", "gpu.processes", "gpu.seen"),
    ("gpu.amd", "gpu.apple", "gpu.sampler", "gpu.visible"),
    ("gpu.watch", "machine", "state"),
    ("environment", "gpu.diagnosis"),
    ("option_values",),
    ("option_table",),
    (
        "cautions",
        "code.snapshot",
        "commit",
        "judging.judgement",
        "options",
        "record",
        "waterfall",
    ),
    ("code.of_run", "parsers", "reading"),
    (
        *("beforehand", "doctor", "judging.comparability"),
        *("judging.metrics", "judging.tablefile", "runfile", "suites"),
    ),
    (
        *("judging.digest", "judging.noise_file", "judging.trend", "judging.verdicts_file"),
        "store",
    ),
    ("judging.accepted", "judging.index", "judging.sessions_file"),
    ("judging.history",),
    ("fleet.outliers", "judging.machine", "judging.meant", "judging.step_time"),
    ("judging.verdict",),
    ("report",),
    ("fleet.expected", "fleet.part", "fleet.shard"),
    ("fleet.nodes",),
    ("check.proofs",),
    ("launch.oom", "launch.roots"),
    ("launch.follower",),
    ("launch.server",),
    ("launch.interpreter",),
    ("launch",),
    ("lockstep.found", "lockstep.session", "lockstep.worktree"),
    ("lockstep.duets", "lockstep.tree"),
    (
        "lockstep.ab_files",
        "lockstep.anchor",
        "lockstep.bisect",
        "lockstep.processes",
        "lockstep.shown",
    ),
    ("lockstep.kept", "lockstep.live", "lockstep.sides"),
    ("lockstep.confirmation",),
    ("ceilings", "learning"),
    ("check.ceilings", "fleet.merge"),
    ("description", "facts", "inspection", "plan"),
    ("read_back",),
    ("result",),
    ("run",),
    ("fleet.scheduler", "interpreters", "progress", "resume"),
    ("fleet.drive", "fleet.files", "fleet.host", "fleet.progress"),
    ("fleet.earlier",),
    ("fleet.going_on",),
    ("fleet.campaign", "fleet.doctor", "fleet.ray"),
    ("auto_batch",),
    (
        "check.device",
        "commands.fleet",
        "commands.history",
        "commands.merge",
        "commands.run",
        "commands.doctor",
        "commands.env",
        "lockstep.ab",
    ),
    ("commands.ab",),
    ("commands.bisect", "commands.noise"),
    ("check.__main__", "cli", "plugin"),
)
"""Lowest first: a module imports from lower layers alone; `plugin`, `report` count as one."""

ONE_UNIT = {"plugin", "report"}

ROOTS = (
    "",
    ".check",
    ".code",
    ".commands",
    ".comparing",
    ".environments",
    ".fleet",
    ".gpu",
    ".judging",
    ".lockstep",
)

FRAMEWORKS = {"tensorflow", "keras", "jax", "torch"}
HARNESS_ONLY = {"pandas", "pytest", "pytest_benchmark", "psutil", "tabulate", "rich"}
OF_THE_HARNESS_FOR_THE_WORKER = {
    "convmark.core.case",
    "convmark.core.errors",
    "convmark.core.model_name",
}
FOR_THE_HARNESS = {f"convmark.worker.{name}" for name in ("protocol", "timing", "turns")}
"""Of the worker: how both sides speak, and how steps take turns, of one process or of several."""


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


def imports(name: str, path: Path) -> set[str]:
    """Return the modules that a file imports anywhere, as full dotted names."""
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    return {found for node in ast.walk(tree) for found in _imported(node, package)}


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


def unit(name: str) -> str:
    """Return a module's place in the table: `report` for convmark.core.units."""
    inside = name.removeprefix("convmark.")
    folder = inside.partition(".")[0]
    return folder if folder in ONE_UNIT else inside


def harness_modules() -> list[str]:
    """The harness without the roots, which import nothing, and without the worker."""
    roots = {f"convmark{folder}" for folder in ROOTS}
    inside = [name for name in HARNESS if name not in roots and name not in WORKER]
    return [*inside, *sorted(FOR_THE_HARNESS)]


def test_the_files_are_found_and_their_imports_read() -> None:
    assert imports("convmark.session.run", HARNESS["convmark.session.run"]) >= {
        "convmark.session.learning",
        "convmark.core.case",
        "convmark.worker.protocol",
        "functools",
    }
    assert imports("models.lenet", ZOO["models.lenet"]) >= {"models.keras_api", "models.shape"}
    plugin = imports("convmark.plugin", HARNESS["convmark.plugin"])
    assert "convmark.plugin.bridge" in plugin


@pytest.mark.parametrize("name", [*HARNESS, *BENCH])
def test_frameworks_are_imported_by_the_worker_and_the_zoo_alone(name: str) -> None:
    path = HARNESS.get(name) or BENCH[name]
    if name not in WORKER:
        assert not tops(imports(name, path)) & FRAMEWORKS


@pytest.mark.parametrize("name", [*HARNESS, *BENCH])
def test_ray_is_imported_by_one_module_alone(name: str) -> None:
    if name != "convmark.fleet.ray":
        assert "ray" not in tops(imports(name, HARNESS.get(name) or BENCH[name]))


@pytest.mark.parametrize("name", WORKER)
def test_in_the_worker_only_backends_import_a_framework(name: str) -> None:
    if not name.startswith("convmark.worker.backends."):
        assert not tops(imports(name, WORKER[name])) & FRAMEWORKS


@pytest.mark.parametrize("name", [*WORKER, *ZOO])
def test_worker_and_zoo_need_nothing_that_only_the_harness_installs(name: str) -> None:
    assert not tops(imports(name, KNOWN[name])) & HARNESS_ONLY


@pytest.mark.parametrize("name", WORKER)
def test_the_worker_imports_nothing_else_at_all(name: str) -> None:
    allowed = (
        set(sys.stdlib_module_names) | FRAMEWORKS | {"h5py", "numpy", "convmark", "convmark_zoo"}
    )
    assert tops(imports(name, WORKER[name])) <= allowed


@pytest.mark.parametrize("name", WORKER)
def test_the_worker_imports_of_the_harness_the_case_and_the_errors_alone(name: str) -> None:
    ours = {found for found in imports(name, WORKER[name]) if found.startswith("convmark.")}
    harness = {found for found in ours if not found.startswith("convmark.worker")}
    assert harness <= OF_THE_HARNESS_FOR_THE_WORKER


@pytest.mark.parametrize("name", sorted({"convmark", *OF_THE_HARNESS_FOR_THE_WORKER}))
def test_what_the_worker_takes_from_the_harness_needs_the_standard_library_alone(name: str) -> None:
    assert tops(imports(name, HARNESS[name])) <= {*sys.stdlib_module_names, "convmark"}


@pytest.mark.parametrize("name", harness_modules())
def test_the_harness_imports_of_the_worker_the_protocol_and_the_turns_alone(name: str) -> None:
    worker = {found for found in imports(name, HARNESS[name]) if found in WORKER}
    assert worker <= FOR_THE_HARNESS


@pytest.mark.parametrize("name", ZOO)
def test_the_zoo_imports_keras_and_itself_alone(name: str) -> None:
    allowed = set(sys.stdlib_module_names) | {"keras", "tf_keras", "tensorflow", "models"}
    assert tops(imports(name, ZOO[name])) <= allowed


@pytest.mark.parametrize("name", [f"convmark{folder}" for folder in ROOTS])
def test_the_roots_of_the_packages_import_nothing(name: str) -> None:
    assert imports(name, HARNESS[name]) <= {"__future__"}


def test_every_module_has_one_place_in_the_layers() -> None:
    placed = [name for layer in LAYERS for name in layer]
    assert len(placed) == len(set(placed))
    new = {unit(name) for name in harness_modules()} - set(placed)
    assert not new, "give a new module its place in LAYERS"


@pytest.mark.parametrize("name", harness_modules())
def test_a_module_imports_from_lower_layers_alone(name: str) -> None:
    height = {place: layer for layer, names in enumerate(LAYERS) for place in names}
    for found in imports(name, HARNESS[name]):
        if not found.startswith("convmark.") or unit(found) == unit(name):
            continue
        assert height[unit(found)] < height[unit(name)], f"{name} imports {found}"


@pytest.mark.parametrize("name", [name for name in HARNESS if name.startswith("convmark.report")])
def test_reports_are_made_without_what_measures(name: str) -> None:
    found = {unit(module) for module in imports(name, HARNESS[name])}
    assert not {name.partition(".")[0] for name in found} & {
        *("launch", "lockstep", "plugin", "cli", "progress"),
        *("facts", "inspection", "plan", "result", "run"),
    }
