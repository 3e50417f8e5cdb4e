"""Gates of a sample repository in this process, with a stand-in for the worker processes."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import fake_worker
import pytest
import scipy.special  # noqa: F401 - an in-process session forgets what it was first to import
from forks import SESSION, Forks
from workers import git

import convmark.session.run as run_module
from convmark.compare.files import read_verdicts

# modules that are patched must be loaded here: an in-process session drops those that it loads
from convmark.compare.live import anchor, gate
from convmark.compare.live.anchor import AnchorCode
from convmark.compare.live.case_result import CaseResult
from convmark.compare.live.session import Pairing
from convmark.compare.rule.decision import Decision
from convmark.core.interval import Interval
from convmark.plugin import selection
from convmark.session.result import Result

SUITE = """
import pytest
from convmark.core.suites import Suite

SUITE = Suite(models=("lenet5", "conv_layer"), tasks=("train",), batch_sizes=(32,))


@pytest.mark.convmark(SUITE)
def test_speed(measured, benchmark):
    measured.replay(benchmark)
"""

LENET5 = "lenet5-train-cpu-b32-float32"
CONV = "conv_layer-train-cpu-b32-float32"

Worker = type[fake_worker.FakeInterpreter]
Run = Callable[..., pytest.RunResult]
Patch = pytest.MonkeyPatch
Columns = dict[str, Any]


def head(folder: Path) -> str:
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Worker:
    class Fake(fake_worker.FakeInterpreter):
        made = 0

    monkeypatch.setattr("convmark.interpreter.Interpreter", Fake)
    monkeypatch.setattr("convmark.machine.hardware.load_nvml", lambda: None)
    return Fake


@pytest.fixture
def collected_in_a_fork(harness: Forks, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the suites of a commit be collected by a fork; in `test_removed.py` a process does it.

    That process would import pytest, its plugins and convmark first.
    """

    def run(command: list[str], *, cwd: Path, env: dict[str, str], **how: Any) -> Any:
        assert command[:3] == [sys.executable, "-m", "pytest"]
        first = env["PYTHONPATH"].split(os.pathsep)
        code = f"import sys\nsys.path[:0] = {list(filter(None, first))}\n{SESSION}"
        return harness.run(code, *command[3:], cwd=cwd, environ=env)

    forked = SimpleNamespace(
        run=run, DEVNULL=subprocess.DEVNULL, SubprocessError=subprocess.SubprocessError
    )
    monkeypatch.setattr(selection, "subprocess", forked)


@pytest.fixture
def run(
    pytester: pytest.Pytester,
    worker: Worker,
    monkeypatch: pytest.MonkeyPatch,
    collected_in_a_fork: None,
) -> Run:
    folder = pytester.mkdir("bench")
    (folder / "test_speed.py").write_text(SUITE)
    (pytester.path / "pyproject.toml").write_text(
        "[tool.pytest.ini_options]\n[tool.convmark]\nshort_options = true\n"
    )
    models = pytester.mkdir("models")
    (models / "registry.py").write_text("")
    monkeypatch.setattr(anchor, "zoo_folder", lambda: models)
    monkeypatch.setenv("COLUMNS", "300")
    git(pytester.path, "init", "-q", "-b", "main")
    git(pytester.path, "add", "bench", "models", "pyproject.toml")
    git(pytester.path, "commit", "-qm", "one")

    def run_bench(*options: str) -> pytest.RunResult:
        return pytester.runpytest_inprocess("bench", "-p", "no:cacheprovider", *options)

    return run_bench


@pytest.fixture
def coded(monkeypatch: pytest.MonkeyPatch) -> Columns:
    """Columns that every row has, as a worker that reads its code and state back would say."""
    columns: Columns = {}
    plain = run_module.result_of

    def result_of(*arguments: Any) -> Result:
        result = plain(*arguments)
        return replace(result, record=replace(result.record, **columns))

    monkeypatch.setattr(run_module, "result_of", result_of)
    return columns


def new_commit(pytester: pytest.Pytester) -> None:
    git(pytester.path, "commit", "-q", "--allow-empty", "-m", "more")


def history(run: Run, runs: int = 3) -> None:
    """Run the suite so often; fewer than three runs tell no spread, a live verdict needs none."""
    for _ in range(runs):
        assert run("-q").ret == 0


def found(pytester: pytest.Pytester, case: str, metric: str = "step_time") -> str:
    newest = max(pytester.path.glob("results/*/[0-9]*[0-9].csv"))
    (verdict,) = [row for row in read_verdicts(newest) if (row.case, row.metric) == (case, metric)]
    return verdict.verdict


def live(
    monkeypatch: pytest.MonkeyPatch,
    verdict: str,
    estimate: float,
    sizes: dict[str, int] | None = None,
    closed: dict[str, str] | None = None,
    precisions: tuple[str, str] | None = None,
    against: Mapping[str, tuple[str, float]] = MappingProxyType({}),
) -> list[str]:
    """Have every live comparison give this verdict; return the list of cases it is asked for.

    Args:
        closed: cases without a verdict, and why.
        against: by commit another verdict with its estimate; an empty one for code that cannot run.
    """
    calls: list[str] = []
    commits: list[str] = []
    decided = Decision(
        verdict=verdict,  # type: ignore[arg-type] # one of them
        sessions=3,
        estimate=estimate,
        interval=Interval.around(estimate, 0.01),
        smallest_visible=0.03,
        spread=0.01,
        freedom=9.0,
    )
    undecided = replace(decided, verdict="undecided", estimate=None, sessions=0)

    def compare_live(pairings: Sequence[Pairing], terms: object, say: object) -> list[CaseResult]:
        names = [pairing.case.name for pairing in pairings]
        calls.extend(names)
        if names and commits[-1] in against:
            other, change = against[commits[-1]]
            around = Interval.around(change, 0.01)
            told = replace(decided, verdict=other, estimate=change, interval=around)
            cannot_run = CaseResult(decision=undecided, closed="the old code cannot be run")
            alike = {"old": sizes or {}}
            return [CaseResult(decision=told, sizes=alike) if other else cannot_run for _ in names]
        return [
            CaseResult(decision=undecided, closed=closed[name])
            if closed and name in closed
            else CaseResult(decision=undecided, closed="precision differs", precisions=precisions)
            if precisions and name == LENET5
            else CaseResult(decision=decided, sizes={"old": sizes or {}})
            for name in names
        ]

    @contextlib.contextmanager
    def trees(origin: object, anchor: AnchorCode) -> Iterator[tuple[None, None]]:
        commits.append(anchor.commit)
        yield None, None

    monkeypatch.setattr(gate, "anchor_trees", trees)
    monkeypatch.setattr(gate, "compare_live", compare_live)
    return calls
