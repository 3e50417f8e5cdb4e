"""`pytest bench --benchmark-compare`: the verdicts, with a stand-in for the worker processes."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from gates import (
    CONV,
    LENET5,
    Columns,
    Patch,
    Run,
    Worker,
    found,
    head,
    history,
    live,
    new_commit,
)
from snapshots import check, session
from workers import git

from convmark.cli import main
from convmark.compare.files import read_verdicts
from convmark.compare.judgement import LiveSession
from convmark.compare.live import gate, tree
from convmark.compare.live.case_result import LiveOptions
from convmark.compare.sessions_file import KeptSession, conditions_of, write
from convmark.core.installed import version_of
from convmark.plugin.pytest_run import PytestRun
from convmark.results.code.manifest import NOWHERE, Code, CodeFile, Place
from convmark.results.reading import read_run
from convmark.worker.protocol import file_digest

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


def test_the_first_run_is_new_and_passes(run: Run, pytester: pytest.Pytester) -> None:
    assert run("--benchmark-compare").ret == 0
    assert found(pytester, LENET5) == "new"


def test_an_option_of_convmark_run_is_refused_with_what_to_do(run: Run) -> None:
    result = run("--tasks=infer")
    assert result.ret == 4
    (line,) = [one for one in result.stderr.lines if one.startswith("ERROR: ")]
    assert line.startswith("ERROR: --tasks: is an option of `convmark run`; pytest measures the ")


def test_a_session_ends_with_what_it_means_and_colours_verdicts(
    run: Run, worker: Worker, pytester: pytest.Pytester, monkeypatch: Patch
) -> None:
    def last(*options: str) -> str:
        text = run(*options).stdout.str()
        assert text.count("\nconvmark: next:") == 1
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
    assert "the gate failed with exit status 1: 2 of 2 cases against git:HEAD~1 (" in failed
    assert f"\nBenchmark-Accept: {CONV}" in failed
    assert "\x1b[31mregressed\x1b[0m" in failed
    for options in (["--color=no"], ["-q"]):
        assert (
            "\x1b[31mregressed" not in run("--benchmark-compare=git:HEAD~1", *options).stdout.str()
        )
    assert "next:" not in run("-q").stdout.str()
    short = run("--benchmark-compare=git:HEAD~1", "-q").stdout.str()
    end = short[short.index("convmark: the gate failed with exit status 1: 2 of 2 cases ") :]
    lines = [line for line in end.splitlines() if line.startswith("convmark: ")]
    assert len(lines) == 4, end
    assert re.search(r"^convmark:   \S+: step time \+", lines[1])
    assert "\nconvmark: next:\nconvmark ab git:" in end
    monkeypatch.delenv("PY_COLORS", raising=False)  # pytester's own
    for variable, colours in (("FORCE_COLOR", True), ("NO_COLOR", False)):  # the second one wins
        monkeypatch.setenv(variable, "1")
        shown = run("--benchmark-compare=git:HEAD~1").stdout.str()
        assert ("\x1b[31mregressed" in shown) is colours
        assert ("\x1b[" in shown) is colours


def test_the_last_screen_of_a_failed_gate_says_all_that_decides(
    run: Run, pytester: pytest.Pytester, monkeypatch: Patch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    history(run, 1)
    new_commit(pytester)
    live(monkeypatch, "regressed", 0.2)
    lines = run("--benchmark-compare=git:HEAD~1").stdout.lines
    commit = git(pytester.path, "rev-parse", "HEAD~1").strip()[:12]
    day = git(pytester.path, "show", "-s", "--format=%cs", "HEAD~1").strip()
    screen = "\n".join(lines[-24:])
    plain = " ".join(screen.replace("\nconvmark:", " ").split())
    against = f"git:HEAD~1 ({commit}, {day})"
    assert f"the gate failed with exit status 1: 2 of 2 cases against {against}" in plain
    for case in (CONV, LENET5):
        assert re.search(rf"{case}: step time \+\d+\.\d % \[.*?\], [\d.]+ ms -> [\d.]+ ms", plain)
    assert f"Benchmark-Accept: {CONV}" in screen
    assert f"next: convmark ab git:{commit} . --models " in plain
    assert "--layers" in plain
    assert f"compared with {against}" in "\n".join(lines)
    assert re.search(r"regressed \(failed\)", "\n".join(lines))


def test_other_code_of_the_same_speed_is_unchanged_and_passes(
    run: Run, pytester: pytest.Pytester, monkeypatch: Patch
) -> None:
    live(monkeypatch, "unchanged", 0.0)
    history(run, 1)
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
            "clean and its files were not saved; measure the old code again and `convmark accept` *"
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
    taken_back = verdict == "unchanged"  # its history says otherwise
    history(run, 3 if taken_back else 1)
    new_commit(pytester)
    worker.factor = 1.5
    calls = live(monkeypatch, verdict, estimate)
    result = run("--benchmark-compare", "-k", "lenet5")
    assert result.ret == status
    assert calls == [LENET5]
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
    why = f"convmark: {LENET5}: no layers: budget spent: 2 sessions *; this measures them:"
    commit = git(pytester.path, "rev-parse", "HEAD~1")[:12]
    result.stdout.fnmatch_lines([why, f"convmark ab git:{commit} . --models lenet5 * --layers*"])
    assert not list(pytester.path.glob("results/*/0002.layers.csv"))


def test_verdicts_are_kept_before_the_layers_of_slower_cases_are_measured(
    run: Run, worker: Worker, pytester: pytest.Pytester, monkeypatch: Patch
) -> None:
    new_commit(pytester)
    live(monkeypatch, "regressed", 0.2)
    there: list[tuple[str, str]] = []

    def factor(one: object) -> float:  # asked for while layers are measured
        there.append((found(pytester, LENET5), found(pytester, CONV)))
        return 1.0

    monkeypatch.setattr(worker, "layer_factor", property(factor))
    assert run("--benchmark-compare=git:HEAD~1").ret == 1
    assert set(there) == {("regressed", "regressed")}


def test_a_case_that_runs_another_tree_s_code_is_told_why_it_has_no_live_verdict(
    run: Run, worker: Worker, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    history(run, 1)
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
    history(run, 1)
    new_commit(pytester)
    worker.factor = 1.5
    live(monkeypatch, "regressed", 0.5, closed={CONV: "interrupted"})
    options = ("bench", "--benchmark-compare", "--junit-xml=junit.xml")
    result = pytester.runpytest_inprocess(*options, no_reraise_ctrlc=True)
    assert result.ret == pytest.ExitCode.INTERRUPTED
    errors = ElementTree.parse(pytester.path / "junit.xml").findall(".//error")
    told = [one.get("message", "") for one in errors]  # of each test, none of which has run
    assert ["the gate has not passed; --" in one for one in told] == [True, True]
    assert found(pytester, LENET5) == "regressed"
    assert found(pytester, CONV) == "inconclusive"
    result.stdout.fnmatch_lines([f"{CONV}*step_time*inconclusive*no live comparison*interrupted*"])
    newest = max(pytester.path.glob("results/*/[0-9]*[0-9].csv"))
    assert len(read_run(newest)) == 6  # no further processes


def test_a_gate_that_goes_on_begins_with_what_ctrl_c_left_undecided(
    run: Run, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    history(run, 1)
    new_commit(pytester)
    live(monkeypatch, "regressed", 0.5, closed={CONV: "interrupted"})
    options = ("bench", "--benchmark-compare", "-p", "no:cacheprovider")
    result = pytester.runpytest_inprocess(*options, no_reraise_ctrlc=True)
    assert result.ret == pytest.ExitCode.INTERRUPTED
    first: list[set[str]] = []
    taken: list[LiveSession] = []
    compare_live = gate.compare_live
    (path,) = pytester.path.glob("results/*/0002.csv")
    row = next(row for row in read_run(path) if row.case.name == CONV)
    session = KeptSession(
        case=CONV, conditions=conditions_of(row), anchor="a", old_code="old", new_code="new",
        commit=None, decided=False, run=None, apart=False, wall=0.1, cpu=None, seconds=1.0,
    )  # fmt: skip
    write(path, [session])

    def noted(pairings: Any, terms: LiveOptions, say: Any) -> Any:
        first.append(set(terms.left_over))
        taken.extend(terms.earlier.of(CONV, "old", "new", apart=False).sessions)
        return compare_live(pairings, terms, say)

    monkeypatch.setattr(gate, "compare_live", noted)
    run("--benchmark-compare", "--resume")
    assert first == [{CONV}]
    assert [(one.wall, one.run) for one in taken] == [(0.1, "")]  # its own, no earlier run's


def test_what_was_decided_before_ctrl_c_is_compared_again_only_where_something_has_changed(
    run: Run, coded: Columns, pytester: pytest.Pytester, monkeypatch: Patch, tmp_path: Path
) -> None:
    history(run, 1)
    new_commit(pytester)
    weights = tmp_path / "weights.h5"
    weights.write_text("1")
    size, sha256 = file_digest(weights) or (0, "")
    ran = Code(files=(CodeFile(Place(NOWHERE, str(weights)), sha256, size),), packages={})
    monkeypatch.setattr(PytestRun, "codes", {"c2": ran})
    coded.update(code="c2")
    live(monkeypatch, "regressed", 0.5, closed={CONV: "interrupted"})
    options = ("bench", "--benchmark-compare", "-p", "no:cacheprovider")
    result = pytester.runpytest_inprocess(*options, no_reraise_ctrlc=True)
    assert result.ret == pytest.ExitCode.INTERRUPTED
    calls = live(monkeypatch, "unchanged", 0.0)

    def again(*more: str) -> tuple[int, list[str]]:
        calls.clear()
        result = run("--benchmark-compare", "--resume", *more)
        return int(result.ret), sorted(calls)

    shares: list[int] = []
    stand_in = gate.compare_live
    monkeypatch.setattr(
        *(gate, "compare_live"),
        lambda pairings, terms, say: (
            shares.append(terms.decided_before) or stand_in(pairings, terms, say)
        ),
    )
    assert again() == (1, [CONV])
    assert shares[0] == 1  # of the error rate
    assert (found(pytester, CONV), found(pytester, LENET5)) == ("unchanged", "regressed")
    assert again() == (1, [])
    assert again("--margin=0.7") == (0, [LENET5])
    assert again("--margin=0.7") == (0, [])
    live(monkeypatch, "regressed", 0.5)
    weights.write_text("2")
    assert again()[0] == 1
    weights.write_text("1")
    calls = live(monkeypatch, "unchanged", 0.0)
    assert again("--allow-change=*") == (0, [])
    assert again() == (0, [CONV, LENET5])  # what was accepted may be accepted no more
    own = tmp_path / "site/fromgit-1.0.dist-info"  # installed from an address
    own.mkdir(parents=True)
    for name, text in (("METADATA", "Name: fromgit\nVersion: 1.0\n"), ("direct_url.json", "{}")):
        (own / name).write_text(text)
    monkeypatch.syspath_prepend(own.parent)
    hashed = {"fromgit": version_of("fromgit")}
    packages = ({"pytest": pytest.__version__}, {"pytest": "0"}, hashed, {"fromgit": "1.0@0"})
    for named, compared in zip(packages, ([], [CONV, LENET5]) * 2, strict=True):
        monkeypatch.setattr(PytestRun, "codes", {"c2": replace(ran, packages=named)})
        assert again() == (0, compared)
    monkeypatch.setattr(PytestRun, "codes", {"c2": ran})
    assert again() == (0, [])
    run("--benchmark-compare=git:HEAD~1", "--resume")
    assert sorted(calls) == [CONV, LENET5]  # another baseline


def test_every_case_of_other_code_is_compared_live_and_none_without_a_budget(
    run: Run, worker: Worker, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    history(run, 1)
    new_commit(pytester)
    calls = live(monkeypatch, "unchanged", 0.0)
    assert run("--benchmark-compare", "--compare-budget=0").ret == 0
    assert calls == []
    result = run("--benchmark-compare")
    assert result.ret == 0
    assert sorted(calls) == [CONV, LENET5]
    result.stdout.fnmatch_lines(["convmark: 2 cases to compare live with *, about * as before*"])


def test_cases_with_the_code_of_the_commit_are_named_before_anything_is_measured(
    run: Run, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    live(monkeypatch, "unchanged", 0.0)
    said = (
        "*2 of 2 cases have the code of git:HEAD, judging by the files so far: they are measured "
        "but not compared; none is left"
    )
    lines = run("--benchmark-compare=git:HEAD").outlines
    place = next(place for place, line in enumerate(lines) if fnmatchcase(line, said))
    measured = next(place for place, line in enumerate(lines) if "to measure, about" in line)
    assert place < measured
    with monkeypatch.context() as patch:
        patch.setattr(gate, "has_code_of", lambda origin, sha, code, results: code is None)
        patch.setattr(PytestRun, "known_codes", lambda run: {LENET5: object()})
        result = run("--benchmark-compare=git:HEAD", "--compare-budget=120")
    result.stdout.fnmatch_lines(
        ["*1 of 2 cases have *but not compared; 1 case left to compare live, in at most 2 min"]
    )
    (pytester.path / "models" / "registry.py").write_text("edited = True\n")
    run("--benchmark-compare=git:HEAD").stdout.no_fnmatch_line("*by the files so far*")


def test_a_gate_says_before_it_measures_what_it_compares_with_and_how_long_at_most(
    run: Run, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    def plan(*options: str) -> str:
        lines = run(*options).outlines
        place = next(place for place, line in enumerate(lines) if "to measure, about" in line)
        (told,) = [line for line in lines[:place] if "then compared with" in line] or [""]
        return told.removeprefix("convmark: each case is measured, then compared with ")

    live(monkeypatch, "unchanged", 0.0)
    assert plan("--benchmark-compare") == ""
    long = "live where its code has changed, in at most 10 min"
    assert plan("--benchmark-compare") == f"its first run, {long}"
    assert plan("--benchmark-compare=1") == f"run 0001, {long}"
    assert plan("--benchmark-compare=1", "--compare-budget=0") == "run 0001, by its figures alone"
    commit = head(pytester.path)[:8]
    several = f"run 0004, the newest of 4 runs of commit {commit}, {long}"
    assert plan(f"--benchmark-compare={commit}") == several
    monkeypatch.chdir(pytester.path)
    assert main(["accept", "1", "--case", CONV, "--reason", "x"]) == 0
    assert plan("--benchmark-compare") == f"its accepted run (0001), or its first run, {long}"
    assert main(["accept", "1", "--reason", "x"]) == 0
    unlimited = plan("--benchmark-compare", "--compare-budget=unlimited")
    assert unlimited == "its accepted run (0001), live where its code has changed"
    assert main(["accept", "2", "--reason", "x"]) == 0
    assert plan("--benchmark-compare") == f"its accepted run (0002), {long}"
    (pytester.path / "models" / "registry.py").write_text("edited = True\n")
    day = git(pytester.path, "show", "-s", "--format=%cs", "HEAD").strip()
    against = f"git:HEAD ({head(pytester.path)[:12]}, {day})"
    assert plan("--benchmark-compare=git:HEAD") == f"{against}, {long}"


def test_a_branch_that_lacks_commits_of_its_baseline_is_said_to(
    run: Run, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An improvement of the main branch would be a slowdown of every older branch."""
    live(monkeypatch, "regressed", 0.2)
    began = head(pytester.path)
    git(pytester.path, "checkout", "-q", "-b", "mine")
    new_commit(pytester)
    assert "HEAD lacks" not in run("--benchmark-compare=git:main").stdout.str()
    git(pytester.path, "checkout", "-q", "main")
    git(pytester.path, "commit", "-q", "--allow-empty", "-m", "faster")
    git(pytester.path, "checkout", "-q", "mine")
    result = run("--benchmark-compare=git:main")
    lacks = (
        "HEAD lacks 1 commit of git:main, whose changes count as changes of this code; "
        f"git:{began[:12]}, where the two part, leaves them out"
    )
    result.stdout.fnmatch_lines([f"convmark: {lacks}", "*the gate failed*, 1 ahead of HEAD)*"])
    git(pytester.path, "merge", "-q", "--no-edit", "main")
    tips = git(pytester.path, "rev-parse", "mine", "main")
    (pytester.path / ".git" / "shallow").write_text(tips)  # git sees no commit before these
    assert "HEAD lacks" not in run("--benchmark-compare=git:main").stdout.str()


def test_a_gate_of_models_of_another_clone_says_so_before_it_measures(
    run: Run, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    live(monkeypatch, "unchanged", 0.0)
    history(run, 1)
    monkeypatch.setattr(tree, "other_clone", lambda repository, stands: Path("elsewhere"))
    told = "2 cases will have no verdict of the step time: the model comes from *, but the working "
    run("--benchmark-compare").stdout.fnmatch_lines(
        [f"convmark: {told}folder is in elsewhere, another clone *", "*to measure, about*"]
    )


def test_figures_that_a_commit_does_not_have_are_said_not_to_be_compared(
    run: Run, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = "*has no figures of memory, accuracy or first steps: only a run has, so they are not *"
    live(monkeypatch, "unchanged", 0.0)
    history(run, 1)
    new_commit(pytester)
    run("--benchmark-compare=git:HEAD~1").stdout.fnmatch_lines([f"convmark: git:HEAD~1 {told}"])
    for same in ("--benchmark-compare=git:HEAD", "--benchmark-compare"):
        run(same).stdout.no_fnmatch_line(told)


def test_a_ref_needs_no_history_and_compares_every_case_live(
    run: Run, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = live(monkeypatch, "regressed", 0.2)
    new_commit(pytester)
    result = run("--benchmark-compare=git:HEAD~1")
    assert result.ret == 1
    assert sorted(calls) == [CONV, LENET5]
    result.stdout.fnmatch_lines(["step_time regressed by +22.1 %*"])


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
    differs = (
        f"uv.lock differs from {old[:12]}: both codes ran with the packages installed here, not "
        "with what that commit would have installed"
    )
    result = run("--benchmark-compare=git:HEAD~1")
    result.stdout.fnmatch_lines([f"*{differs}; `convmark ab` compares two environments"])
    (newest,) = pytester.path.glob("results/*/[0-9]*[0-9].csv")
    notes = [one.note for one in read_verdicts(newest) if one.metric == "step_time"]
    assert [differs in note for note in notes] == [True, True]
    new_commit(pytester)
    result = run("--benchmark-compare=git:HEAD~1")
    result.stdout.no_fnmatch_line("*packages installed here*")


def test_a_raised_margin_by_which_a_case_passes_is_said(
    run: Run, pytester: pytest.Pytester, monkeypatch: Patch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whether the command line or a commit has raised it; one that lets nothing pass is not."""

    def commit_margin(margin: float) -> str:
        text = f"[tool.pytest.ini_options]\n[tool.convmark]\nshort_options = true\n{margin = }\n"
        (pytester.path / "pyproject.toml").write_text(text)
        git(pytester.path, "commit", "-qam", "another margin")
        return head(pytester.path)[:12]

    new_commit(pytester)
    live(monkeypatch, "slower_within_margin", 0.06)
    result = run("--benchmark-compare=git:HEAD~1", "--margin=0.1")
    assert result.ret == 0
    told = "2 cases passed by a margin of 10 %, which is 3 % by default"
    result.stdout.fnmatch_lines([f"*became slower; {told}*"])
    monkeypatch.chdir(pytester.path)
    assert main(["comment"]) == 0
    assert f"`{told}`." in capsys.readouterr().out
    then = commit_margin(0.05)
    commit_margin(0.1)
    result = run("--benchmark-compare=git:HEAD~1")
    result.stdout.fnmatch_lines([f"*; 2 cases passed by a margin of 10 %, which was 5 % in {then}"])
    new_commit(pytester)
    result = run("--benchmark-compare=git:HEAD~1")
    result.stdout.no_fnmatch_line("*passed by a margin*")
    live(monkeypatch, "unchanged", 0.0)
    result = run("--benchmark-compare=git:HEAD~2")
    result.stdout.no_fnmatch_line("*passed by a margin*")


def test_a_raised_margin_is_held_to_that_of_each_case_s_own_baseline(
    run: Run, pytester: pytest.Pytester, monkeypatch: Patch
) -> None:
    """Another case's may have been raised before it was accepted."""
    history(run, 1)
    text = "[tool.pytest.ini_options]\n[tool.convmark]\nshort_options = true\nmargin = 0.1\n"
    (pytester.path / "pyproject.toml").write_text(text)
    git(pytester.path, "commit", "-qam", "another margin")
    history(run, 1)
    monkeypatch.chdir(pytester.path)
    assert main(["accept", "2", "--reason", "x", "--case", CONV]) == 0
    new_commit(pytester)
    live(monkeypatch, "slower_within_margin", 0.06)
    result = run("--benchmark-compare")
    told = "1 case passed by a margin of 10 %, which is 3 % by default"
    result.stdout.fnmatch_lines([f"*became slower; {told}*"])
    live(monkeypatch, "undecided", 0.09)
    result = run("--benchmark-compare")
    told = "1 case undecided by a margin of 10 %, which is 3 % by default"
    result.stdout.fnmatch_lines([f"*2 of 2 step times not decided*; {told}*"])


def test_a_ref_cannot_be_compared_with_nothing_live(run: Run, pytester: pytest.Pytester) -> None:
    result = run("--benchmark-compare=git:HEAD", "--compare-budget=0")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["ERROR: *git:HEAD is compared live, and --compare-budget 0 *"])
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
    result.stdout.fnmatch_lines(["step_time regressed by +* against run 0001*"])


def test_an_unknown_ref_is_a_usage_error_before_anything_is_measured(
    run: Run, pytester: pytest.Pytester, worker: Worker
) -> None:
    result = run("--benchmark-compare=git:no-such-branch")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["ERROR: *git knows no commit 'no-such-branch'*"])
    for asked, near in (("git:HAED", "HEAD"), ("git:mian", "main"), ("lattest", "latest")):
        result = run(f"--benchmark-compare={asked}")
        assert result.ret == 4
        result.stderr.fnmatch_lines([f"ERROR: *'; did you mean {near}[?]*"])
    assert worker.made == 0  # it is known before an interpreter is started
    assert not list(pytester.path.glob("results/*/*.csv"))


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
