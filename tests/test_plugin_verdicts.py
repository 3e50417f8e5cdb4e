"""`pytest bench --benchmark-compare`: the verdicts, with a stand-in for the worker processes."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import fake_worker
import pytest
import scipy.special  # noqa: F401 - an in-process session forgets what it was first to import
from snapshots import check, session
from workers import git

import convmark.session.run as run_module
from convmark.cli import main
from convmark.compare.files import read_verdicts

# modules that are patched must be loaded here: an in-process session drops those that it loads
from convmark.compare.live import anchor, gate
from convmark.compare.live.case_result import CaseResult
from convmark.compare.live.live import Pairing
from convmark.compare.rule.decision import Decision
from convmark.core.interval import Interval
from convmark.plugin.pytest_run import PytestRun
from convmark.results.store import read_run
from convmark.session.result import Result

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")

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
def run(pytester: pytest.Pytester, worker: Worker, monkeypatch: pytest.MonkeyPatch) -> Run:
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


def history(run: Run, runs: int = 4) -> None:
    for _ in range(runs):
        assert run("-q").ret == 0


def found(pytester: pytest.Pytester, case: str, metric: str = "step_time") -> str:
    newest = max(pytester.path.glob("results/*/[0-9]*[0-9].csv"))
    (verdict,) = [row for row in read_verdicts(newest) if (row.case, row.metric) == (case, metric)]
    return verdict.verdict


def test_the_first_run_is_new_and_passes(run: Run, pytester: pytest.Pytester) -> None:
    assert run("--benchmark-compare").ret == 0
    assert found(pytester, LENET5) == "new"


def test_an_option_of_convmark_run_is_refused_with_what_to_do(run: Run) -> None:
    result = run("--tasks=infer")
    assert result.ret == 4
    (line,) = [one for one in result.stderr.lines if one.startswith("ERROR: ")]
    assert line.startswith("ERROR: --tasks: is of `convmark run`; pytest measures what ")


def test_a_session_ends_with_what_it_means_and_colours_verdicts(
    run: Run, worker: Worker, pytester: pytest.Pytester, monkeypatch: Patch
) -> None:
    def last(*options: str) -> str:
        text = run(*options).stdout.str()
        assert text.count("\nconvmark: next: ") == 1
        return " ".join(text.split())

    assert "all processes were measured; " in last()
    assert "nothing was compared, because there is no earlier run" in last(
        "--benchmark-compare", "--convmark-results=other"
    )
    assert "the code of each case is that of the baseline" in last("--benchmark-compare")
    new_commit(pytester)
    live(monkeypatch, "unchanged", 0.0)
    assert "the gate passed: no case became slower convmark: next: " in last(
        "--benchmark-compare=git:HEAD~1"
    )
    live(monkeypatch, "regressed", 0.2)
    failed = run("--benchmark-compare=git:HEAD~1", "--color=yes").stdout.str()
    assert "the gate failed: 2 of 2 cases (step_time regressed); an intended change" in failed
    assert f"\nconvmark: Benchmark-Accept: {CONV}" in failed
    assert "\x1b[31mregressed\x1b[0m" in failed
    for options in (["--color=no"], ["-q"]):
        assert (
            "\x1b[31mregressed" not in run("--benchmark-compare=git:HEAD~1", *options).stdout.str()
        )
    assert "next:" not in run("-q").stdout.str()
    monkeypatch.delenv("PY_COLORS", raising=False)  # pytester's own
    for variable, colours in (("FORCE_COLOR", True), ("NO_COLOR", False)):  # the second one wins
        monkeypatch.setenv(variable, "1")
        shown = run("--benchmark-compare=git:HEAD~1").stdout.str()
        assert ("\x1b[31mregressed" in shown) is colours
        assert ("\x1b[" in shown) is colours


def test_other_code_of_the_same_speed_is_unchanged_and_passes(
    run: Run, pytester: pytest.Pytester, monkeypatch: Patch
) -> None:
    live(monkeypatch, "unchanged", 0.0)
    history(run)
    new_commit(pytester)
    result = run("--benchmark-compare")
    assert result.ret == 0
    assert found(pytester, LENET5) == "unchanged"
    assert found(pytester, LENET5, "parameters") == "unchanged"
    result.stdout.fnmatch_lines(
        ["*convmark verdicts*", f"{LENET5}*step_time*", "could have detected changes above * %*"]
    )


def test_a_slowdown_that_nothing_can_be_run_beside_is_not_judged(
    run: Run, worker: Worker, pytester: pytest.Pytester, monkeypatch: Patch
) -> None:
    history(run)
    new_commit(pytester)
    worker.factor = 1.5
    monkeypatch.setattr(PytestRun, "origin", lambda self, case: None)
    result = run("--benchmark-compare")
    assert result.ret == 0
    assert found(pytester, LENET5) == "inconclusive"
    result.stdout.fnmatch_lines([f"{LENET5}*step_time*inconclusive*no git*by its history +*"])
    newest = max(pytester.path.glob("results/*/[0-9]*[0-9].csv"))
    assert len(read_run(newest)) == 6  # no further processes


def test_another_speed_of_the_same_commit_blames_nobody_and_is_not_called_unchanged(
    run: Run, worker: Worker, pytester: pytest.Pytester
) -> None:
    history(run)
    worker.factor = 1.5
    result = run("--benchmark-compare")
    assert result.ret == 0
    assert found(pytester, LENET5) == "inconclusive"
    result.stdout.fnmatch_lines(["*same commit, but +* % by its history: something has *"])


def test_the_same_code_is_not_compared_live_whatever_git_says(
    run: Run, coded: Columns, worker: Worker, pytester: pytest.Pytester, monkeypatch: Patch
) -> None:
    calls = live(monkeypatch, "regressed", 0.2)
    coded.update(code="c1", commit=None, dirty=True)
    history(run)
    new_commit(pytester)
    result = run("--benchmark-compare")
    assert result.ret == 0
    assert found(pytester, LENET5) == "unchanged"
    result.stdout.fnmatch_lines(
        [
            "convmark: 2 of 2 cases with the same code: nothing to compare",
            f"{LENET5}*step_time*unchanged*same code*",
        ]
    )
    worker.factor = 4.9
    result = run("--benchmark-compare")
    assert result.ret == 0
    assert found(pytester, LENET5) == "inconclusive"
    result.stdout.fnmatch_lines(
        ["*same code, but +39* % by its history: something that convmark *"]
    )
    assert calls == []


def test_other_code_at_the_same_clean_commit_is_compared_live(
    run: Run, coded: Columns, worker: Worker, pytester: pytest.Pytester, monkeypatch: Patch
) -> None:
    calls = live(monkeypatch, "regressed", 1.5)
    coded.update(code="c1")
    history(run, 1)
    coded.update(code="c2", commit=None)
    worker.factor = 4.9
    monkeypatch.setenv("COLUMNS", "100")
    result = run("--benchmark-compare")
    assert result.ret == 1
    check("verdicts", session(result, pytester.path))
    assert sorted(calls) == [CONV, LENET5]
    calls.clear()
    assert run("--benchmark-compare=git:HEAD").ret == 1  # its commit is no longer what ran
    assert sorted(calls) == [CONV, LENET5]


def test_a_first_run_without_runnable_code_says_so_and_what_helps(
    run: Run, worker: Worker, pytester: pytest.Pytester
) -> None:
    (pytester.path / "models" / "registry.py").write_text("edited = True\n")
    history(run, 1)
    worker.factor = 4.9
    result = run("--benchmark-compare")
    result.stdout.fnmatch_lines(
        [
            f"{LENET5}*no live comparison: run 0001 has no code to run again: its tree was not "
            "clean and its files were not kept; measure the old code anew and `convmark accept` *"
        ]
    )
    result.stdout.no_fnmatch_line("*to compare live with*")
    result.stdout.no_fnmatch_line("*; *`pytest bench --benchmark-compare`*")


def test_what_the_models_code_sets_is_compared_live_as_it_was_asked_for(
    run: Run, coded: Columns, pytester: pytest.Pytester, monkeypatch: Patch
) -> None:
    calls = live(monkeypatch, "regressed", 0.5)
    coded.update(code="c1")
    history(run, 1)
    coded.update(code="c2", commit=None, dirty=True, state="model:eager=True")
    assert run("--benchmark-compare", "-k", "lenet5").ret == 1
    assert calls == [LENET5]
    result = run("--benchmark-compare", "-k", "lenet5", "--compare-budget=0")
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        ["*no live comparison: --compare-budget 0; model:eager was the default, is True*"]
    )
    coded.update(state=None, precision="mixed_bfloat16", asked="precision=float32")
    calls.clear()
    assert run("--benchmark-compare", "-k", "lenet5").ret in (0, 1)
    assert calls == [LENET5]  # the case that both sides are asked for
    assert found(pytester, LENET5.replace("float32", "mixed_bfloat16")) == "regressed"


@pytest.mark.parametrize(
    ("verdict", "estimate", "status"),
    [("regressed", 0.2, 1), ("improved", -0.2, 0), ("unchanged", 0.0, 0), ("undecided", 0.1, 0)],
)
def test_a_case_of_other_code_gets_the_live_comparisons_verdict(
    run: Run,
    worker: Worker,
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    verdict: str,
    estimate: float,
    status: int,
) -> None:
    history(run)
    new_commit(pytester)
    worker.factor = 1.5
    calls = live(monkeypatch, verdict, estimate)
    result = run("--benchmark-compare", "-k", "lenet5")
    assert result.ret == status
    assert calls == [LENET5]
    taken_back = verdict == "unchanged"  # its history says otherwise
    expected = "inconclusive" if taken_back or verdict == "undecided" else verdict
    assert found(pytester, LENET5) == expected
    if taken_back:
        result.stdout.fnmatch_lines(["*no change in the live comparison, but +* % by its history*"])


def test_the_layers_of_a_slower_case_are_named_and_kept_and_change_no_verdict(
    run: Run, worker: Worker, pytester: pytest.Pytester, monkeypatch: Patch
) -> None:
    new_commit(pytester)
    live(monkeypatch, "regressed", 0.2)
    factors = iter([1.0, 1.5, 1.5, 1.0] * 2)  # of the old code and the new, as they alternate
    monkeypatch.setattr(worker, "layer_factor", property(lambda one: next(factors)))
    gate_run = ("--benchmark-compare=git:HEAD~1", "-k", "lenet5")
    result = run(*gate_run)
    assert result.ret == 1
    result.stdout.fnmatch_lines([f"{LENET5}: conv: +50 % * of the change"])
    (kept,) = pytester.path.glob("results/*/0001.layers.csv")
    assert len(kept.read_text().splitlines()) == 5  # its header, three layers and the rest
    result = run(*gate_run, "--compare-budget=20")  # which does not hold the sessions
    assert result.ret == 1
    result.stdout.fnmatch_lines([f"convmark: {LENET5}: no layers: 2 sessions * budget spent"])
    assert not list(pytester.path.glob("results/*/0002.layers.csv"))


def test_a_case_that_runs_another_tree_s_code_is_told_why_it_has_no_live_verdict(
    run: Run, worker: Worker, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    history(run)
    new_commit(pytester)
    worker.factor = 1.5
    foreign = "commit 0123: /home/a/net.json is not of the commit"
    calls = live(monkeypatch, "unchanged", 0.0, closed={LENET5: foreign})
    result = run("--benchmark-compare")
    assert sorted(calls) == [CONV, LENET5]
    assert result.ret == 0
    assert found(pytester, LENET5) == "inconclusive"
    result.stdout.fnmatch_lines(["*/home/a/net.json is not of the commit*"])


def test_ctrl_c_in_a_comparison_keeps_what_was_decided_and_ends_the_session(
    run: Run, worker: Worker, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    history(run)
    new_commit(pytester)
    worker.factor = 1.5
    live(monkeypatch, "regressed", 0.5, closed={CONV: "interrupted"})
    result = pytester.runpytest_inprocess("bench", "--benchmark-compare", no_reraise_ctrlc=True)
    assert result.ret == pytest.ExitCode.INTERRUPTED
    assert found(pytester, LENET5) == "regressed"
    assert found(pytester, CONV) == "inconclusive"
    result.stdout.fnmatch_lines([f"{CONV}*step_time*inconclusive*no live comparison*interrupted*"])
    newest = max(pytester.path.glob("results/*/[0-9]*[0-9].csv"))
    assert len(read_run(newest)) == 6  # no further processes


def test_every_case_of_other_code_is_compared_live_and_none_without_a_budget(
    run: Run, worker: Worker, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    history(run)
    new_commit(pytester)
    calls = live(monkeypatch, "unchanged", 0.0)
    assert run("--benchmark-compare", "--compare-budget=0").ret == 0
    assert calls == []
    result = run("--benchmark-compare")
    assert result.ret == 0
    assert sorted(calls) == [CONV, LENET5]
    result.stdout.fnmatch_lines(["convmark: 2 cases to compare live with *, about * as before*"])


def test_a_ref_needs_no_history_and_compares_every_case_live(
    run: Run, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = live(monkeypatch, "regressed", 0.2)
    new_commit(pytester)
    result = run("--benchmark-compare=git:HEAD~1")
    assert result.ret == 1
    assert sorted(calls) == [CONV, LENET5]
    result.stdout.fnmatch_lines([f"{LENET5}: step_time regressed by +22.1 %*"])


def test_packages_that_a_branch_names_anew_are_said_to_be_in_neither_side(
    run: Run, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    live(monkeypatch, "unchanged", 0.0)
    lock = pytester.path / "uv.lock"
    lock.write_text("keras 3.9")
    git(pytester.path, "add", "uv.lock")
    new_commit(pytester)
    old = head(pytester.path)
    lock.write_text("keras 3.12")
    git(pytester.path, "commit", "-qam", "newer packages")
    differs = f"uv.lock differs from {old[:12]}: both codes ran with the packages installed here"
    result = run("--benchmark-compare=git:HEAD~1")
    result.stdout.fnmatch_lines([f"*{differs}; `convmark ab` compares two environments"])
    (newest,) = pytester.path.glob("results/*/[0-9]*[0-9].csv")
    notes = [one.note for one in read_verdicts(newest) if one.metric == "step_time"]
    assert [differs in note for note in notes] == [True, True]
    new_commit(pytester)
    result = run("--benchmark-compare=git:HEAD~1")
    result.stdout.no_fnmatch_line("*packages installed here*")


def test_a_ref_cannot_be_compared_with_nothing_live(run: Run, pytester: pytest.Pytester) -> None:
    result = run("--benchmark-compare=git:HEAD", "--compare-budget=0")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["ERROR: *git:HEAD is compared live, and --compare-budget 0 *"])
    assert not list(pytester.path.glob("results/*/*.csv"))


def test_a_model_of_other_sizes_than_at_the_commit_fails_whatever_its_speed(
    run: Run, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    live(monkeypatch, "unchanged", 0.0, sizes={"parameters": 50_000})
    new_commit(pytester)
    result = run("--benchmark-compare=git:HEAD~1")
    assert result.ret == 1
    told = "parameters 50,000 -> 61,706; if it is meant: --allow-change, *"
    result.stdout.fnmatch_lines([f"{LENET5}: sizes changed*; {told}"])


def test_a_change_that_is_meant_passes_by_an_option_or_by_a_commit(
    run: Run, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    history(run, 1)
    live(monkeypatch, "regressed", 0.2, sizes={"parameters": 50_000})
    new_commit(pytester)
    result = run("--benchmark-compare=git:HEAD~1", "--allow-change=lenet5-*")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines([f"{LENET5}*step_time*regressed*; allowed by --allow-change"])
    git(
        pytester.path, "commit", "-q", "--allow-empty", "-m", "x", "-m", f"Benchmark-Accept: {CONV}"
    )
    sha = head(pytester.path)[:12]
    for baseline in ("--benchmark-compare=git:HEAD~2", "--benchmark-compare=1"):
        result = run(baseline, "--allow-change=lenet5-*")
        assert result.ret == 0
        result.stdout.fnmatch_lines([f"{CONV}*step_time*regressed*; accepted by commit {sha}"])
    assert run("--benchmark-compare=git:HEAD~1").ret == 1
    assert found(pytester, CONV) == "regressed"


def test_a_trailer_lets_no_more_pass_than_it_did_at_first(
    run: Run, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stays in the history, and what a later commit does is another change."""
    history(run, 1)
    git(pytester.path, "commit", "-q", "--allow-empty", "-m", "x", "-m", "Benchmark-Accept: *")
    sha = head(pytester.path)[:12]
    for change, status in ((0.2, 0), (0.24, 0), (0.4, 1)):
        live(monkeypatch, "regressed", change)
        result = run("--benchmark-compare")
        assert result.ret == status
    told = f"what is accepted by commit {sha} was of +22.1 % in run 0002, and this is another"
    result.stdout.fnmatch_lines([f"{LENET5}: step_time regressed by +49.2 %*; {told} change"])
    git(pytester.path, "commit", "-q", "--allow-empty", "-m", "x", "-m", "Benchmark-Accept: *")
    assert run("--benchmark-compare").ret == 0


def test_a_trailer_bounds_the_sizes_too(
    run: Run, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, coded: Columns
) -> None:
    history(run, 1)
    git(pytester.path, "commit", "-q", "--allow-empty", "-m", "x", "-m", "Benchmark-Accept: *")
    for parameters, status in ((70_000, 0), (70_000, 0), (80_000, 1)):
        coded["parameters"] = parameters
        live(monkeypatch, "unchanged", 0.0)
        result = run("--benchmark-compare")
        assert result.ret == status
    result.stdout.fnmatch_lines(["*was of 70,000 parameters in run 0002, and this is another*"])


def test_a_precision_that_the_new_code_sets_fails_until_it_is_accepted(
    run: Run, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its variables stay float32, so no size differs; and it is bounded as sizes are."""
    history(run, 1)
    new_commit(pytester)
    live(monkeypatch, "unchanged", 0.0, precisions=("float32", "mixed_bfloat16"))
    result = run("--benchmark-compare")
    assert result.ret == 1
    told = "precision changed*; float32 -> mixed_bfloat16; if it is meant: --allow-change, *"
    result.stdout.fnmatch_lines([f"{LENET5}: {told}"])
    result.stdout.fnmatch_lines([f"*Benchmark-Accept: {LENET5}"])
    assert run("--benchmark-compare", "--allow-change=lenet5-*").ret == 0
    git(pytester.path, "commit", "-q", "--allow-empty", "-m", "x", "-m", "Benchmark-Accept: *")
    assert run("--benchmark-compare").ret == 0
    assert run("--benchmark-compare").ret == 0
    live(monkeypatch, "unchanged", 0.0, precisions=("float32", "mixed_float16"))
    result = run("--benchmark-compare")
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        ["*was of float32 -> mixed_bfloat16 in run 000?, and this is another change*"]
    )


def test_compare_repeats_that_a_trailer_before_the_baseline_let_nothing_pass(
    run: Run, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The accepted run lies before the trailer, and the commit that was compared with after it."""
    history(run, 1)
    git(pytester.path, "commit", "-q", "--allow-empty", "-m", "x", "-m", "Benchmark-Accept: *")
    new_commit(pytester)
    live(monkeypatch, "regressed", 0.2)
    assert run("--benchmark-compare=git:HEAD~1").ret == 1
    monkeypatch.chdir(pytester.path)
    assert main(["compare"]) == 1


def test_a_size_that_does_not_fit_fails_for_compare_as_for_its_test(
    run: Run, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, coded: Columns
) -> None:
    live(monkeypatch, "unchanged", 0.0)
    coded.update(status="out_of_memory", error="too much")
    assert run("--benchmark-compare=git:HEAD").ret == 1
    monkeypatch.chdir(pytester.path)
    assert main(["compare"]) == 1


def test_verdicts_keep_what_they_are_against_and_by_what_a_change_is_meant(
    run: Run, pytester: pytest.Pytester, monkeypatch: Patch, capsys: pytest.CaptureFixture[str]
) -> None:
    history(run, 1)
    first = head(pytester.path)[:12]
    new_commit(pytester)
    new_commit(pytester)
    live(monkeypatch, "regressed", 0.2)
    assert run("--benchmark-compare=git:HEAD~1", "--allow-change=*").ret == 0
    newest = max(pytester.path.glob("results/*/[0-9]*[0-9].csv"))
    (step,) = [row for row in read_verdicts(newest) if row.case == CONV and row.fails is False
               and row.metric == "step_time"]  # fmt: skip
    base = subprocess.run(["git", "rev-parse", "HEAD~1"], cwd=pytester.path, check=True,
                          capture_output=True, text=True).stdout[:12]  # fmt: skip
    assert (step.against, step.accepted) == (base, "allowed by --allow-change")
    capsys.readouterr()
    assert main(["compare", "--format", "markdown"]) == 0
    between = f"{base} -&gt; run 0002 ({head(pytester.path)[:12]})"
    assert capsys.readouterr().out.startswith(f"**none of 2 cases fails: {between}**")
    assert run("--benchmark-compare=1", "--allow-change=*").ret == 0
    newest = max(pytester.path.glob("results/*/[0-9]*[0-9].csv"))
    assert {row.against for row in read_verdicts(newest)} <= {f"run 0001 ({first})", ""}


def test_a_pattern_of_no_case_is_refused_before_anything_is_measured(
    run: Run, pytester: pytest.Pytester
) -> None:
    result = run("--benchmark-compare", "--allow-change=lenet-train-cpu-b32-float32")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["ERROR: --allow-change: *, got 'lenet-*; did you mean lenet5-*"])
    assert run("--allow-change=*").ret == 4
    assert not list(pytester.path.glob("results/*/*.csv"))


def test_the_commit_of_head_named_with_an_edit_is_an_earlier_run_never_this_one(
    run: Run, worker: Worker, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    history(run, 1)
    (pytester.path / "models" / "registry.py").write_text("SLOW = True\n")
    worker.factor = 6.0
    calls = live(monkeypatch, "regressed", 1.8)
    result = run(f"--benchmark-compare={head(pytester.path)}")
    assert result.ret == 1
    assert sorted(calls) == [CONV, LENET5]
    result.stdout.fnmatch_lines([f"{LENET5}: step_time regressed by +* against run 0001*"])


def test_an_unknown_ref_is_a_usage_error_before_anything_is_measured(
    run: Run, pytester: pytest.Pytester
) -> None:
    result = run("--benchmark-compare=git:no-such-branch")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["ERROR: *git knows no commit 'no-such-branch'*"])
    assert not list(pytester.path.glob("results/*/*.csv"))


def test_a_case_of_the_baseline_that_did_not_run_is_missing_only_from_a_whole_run(
    run: Run, pytester: pytest.Pytester, monkeypatch: Patch
) -> None:
    live(monkeypatch, "unchanged", 0.0)
    history(run)
    text = SUITE.replace('"lenet5", "conv_layer"', '"lenet5",')
    (pytester.path / "bench" / "test_speed.py").write_text(text)
    assert run("--benchmark-compare").ret == 0
    assert found(pytester, CONV) == "missing"
    (pytester.path / "bench" / "test_speed.py").write_text(SUITE)
    assert CONV not in part(run("--benchmark-compare", "-k", "lenet5"))
    sub = pytester.mkdir("bench/sub")
    (sub / "test_sub.py").write_text(text)
    gate = ("-p", "no:cacheprovider", "--benchmark-compare")
    listed = text.replace("@pytest.mark.convmark(SUITE)", "").replace(
        "\n\n\n", "\n\npytestmark = [\n    pytest.mark.convmark(SUITE),\n]\n\n"
    )
    for other in (text, listed, text.replace("@pytest", "speed = pytest", 1)):
        (pytester.path / "bench" / "test_speed.py").write_text(other)
        assert CONV not in part(pytester.runpytest_inprocess("bench/sub", *gate))
    (pytester.path / "bench" / "test_speed.py").unlink()  # no other suite is left
    assert pytester.runpytest_inprocess("bench/sub", *gate).ret == 0
    assert found(pytester, CONV) == "missing"


def part(result: pytest.RunResult) -> str:
    """Return what a gate has said, with the number of cases that it was not asked for."""
    text = result.stdout.str()
    assert "1 case of the baseline left out, as only a part was asked for" in text
    return text


def test_a_suite_whose_every_case_has_another_name_is_no_pass(
    run: Run, pytester: pytest.Pytester, monkeypatch: Patch
) -> None:
    live(monkeypatch, "unchanged", 0.0)
    history(run)
    renamed = SUITE.replace("batch_sizes=(32,)", "batch_sizes=(16,)")
    (pytester.path / "bench" / "test_speed.py").write_text(renamed)
    for options in ((), ("-k", "b16")):
        text = run("--benchmark-compare", *options).stdout.str()
        assert "the gate compared nothing, which is no pass: the baseline has none" in text
        max(pytester.path.glob("results/*/[0-9]*[0-9].csv")).unlink()  # no baseline of the next


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ("--precisions=float32,mixed_bfloat16", "--precisions=mixed_bfloat16"),
        ("--jit=both", "--jit=on"),
        ("--backend=tensorflow,jax", "--backend=jax"),
    ],
)
def test_what_an_option_leaves_out_of_the_baseline_is_not_missing(
    first: str, then: str, run: Run, monkeypatch: Patch
) -> None:
    live(monkeypatch, "unchanged", 0.0)
    assert run(first).ret == 0
    assert "did not run" not in run("--benchmark-compare", then).stdout.str()
    assert "2 cases of the baseline did not run" in run("--benchmark-compare").stdout.str()


def test_a_case_that_was_removed_since_the_commit_is_missing_in_all_formats(
    run: Run, pytester: pytest.Pytester, monkeypatch: Patch, capsys: pytest.CaptureFixture[str]
) -> None:
    live(monkeypatch, "unchanged", 0.0)
    text = SUITE.replace('"lenet5", "conv_layer"', '"lenet5",')
    (pytester.path / "bench" / "test_speed.py").write_text(text)
    result = run("--benchmark-compare=git:HEAD")
    assert result.ret == 0
    result.stdout.fnmatch_lines([f"*{CONV} *missing*git:HEAD has it, this run has not",
                                 f"*1 case of the baseline did not run: {CONV}"])  # fmt: skip
    assert found(pytester, CONV) == "missing"
    monkeypatch.chdir(pytester.path)
    capsys.readouterr()
    for words in (["compare"], ["compare", "--format=github"], ["compare", "--format=markdown"],
                  ["compare", "--format=json"], ["comment"],
                  ["report", "--format=markdown", "--against=HEAD"]):  # fmt: skip
        assert main(words) == 0
        lines = capsys.readouterr().out
        assert CONV in lines.replace("\\", ""), words
        assert "missing" in lines
    (pytester.path / "bench" / "test_speed.py").write_text(f"{SUITE}\n\n")
    assert f"{CONV}*missing" not in run("--benchmark-compare=git:HEAD").stdout.str()
    assert found(pytester, CONV) == "unchanged"


def test_suites_of_the_commit_that_cannot_be_collected_are_said(
    run: Run, pytester: pytest.Pytester, monkeypatch: Patch
) -> None:
    live(monkeypatch, "unchanged", 0.0)
    (pytester.path / "bench" / "test_speed.py").write_text("raise RuntimeError")
    git(pytester.path, "commit", "-qam", "broken")
    (pytester.path / "bench" / "test_speed.py").write_text(SUITE)
    run("--benchmark-compare=git:HEAD").stdout.fnmatch_lines(
        ["convmark: cases of * that this run lacks are not known: pytest cannot collect its tests*"]
    )


def test_an_error_never_passes(run: Run, pytester: pytest.Pytester) -> None:
    history(run, 1)
    result = run("--benchmark-compare", "--models=broken,lenet5")
    assert result.ret == 1
    result.assert_outcomes(passed=1, failed=1)


def test_an_empty_baseline_or_one_of_another_schema_is_a_usage_error(
    run: Run, pytester: pytest.Pytester
) -> None:
    for name, text in (("empty.csv", ""), ("other.csv", "a,b\n1,2\n")):
        (pytester.path / name).write_text(text)
        result = run(f"--benchmark-compare={name}")
        assert result.ret == 4
        (line,) = [line for line in result.errlines if line]
        assert line.startswith(f"ERROR: {name}")


def live(
    monkeypatch: pytest.MonkeyPatch,
    verdict: str,
    estimate: float,
    sizes: dict[str, int] | None = None,
    closed: dict[str, str] | None = None,
    precisions: tuple[str, str] | None = None,
) -> list[str]:
    """Have every live comparison give this verdict; return the list of cases it is asked for.

    Args:
        closed: cases without a verdict, and why.
    """
    calls: list[str] = []
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
        return [
            CaseResult(decision=undecided, closed=closed[name])
            if closed and name in closed
            else CaseResult(decision=undecided, closed="precision differs", precisions=precisions)
            if precisions and name == LENET5
            else CaseResult(decision=decided, sizes={"old": sizes or {}})
            for name in names
        ]

    @contextlib.contextmanager
    def trees(origin: object, anchor: object) -> Iterator[tuple[None, None]]:
        yield None, None

    monkeypatch.setattr(gate, "anchor_trees", trees)
    monkeypatch.setattr(gate, "compare_live", compare_live)
    return calls
