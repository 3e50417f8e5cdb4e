"""What a gate lets pass because it is meant, by an option or by a trailer of a commit."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from gates import (
    CONV,
    LENET5,
    Columns,
    Patch,
    Run,
    found,
    head,
    history,
    live,
    new_commit,
)
from workers import git

from convmark.cli import main
from convmark.compare import intended
from convmark.compare.files import read_verdicts
from convmark.compare.live import anchor, gate
from convmark.compare.live.anchor import AnchorCode
from convmark.compare.live.worktree import merged
from convmark.compare.sessions_file import KeptSession, conditions_of, write
from convmark.core.git import GitError
from convmark.core.interval import Interval
from convmark.plugin import judging
from convmark.results.reading import read_run

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


def test_a_model_of_other_sizes_than_at_the_commit_fails_whatever_its_speed(
    run: Run, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    live(monkeypatch, "unchanged", 0.0, sizes={"parameters": 50_000})
    new_commit(pytester)
    result = run("--benchmark-compare=git:HEAD~1")
    assert result.ret == 1
    told = "parameters 50,000 -> 61,706; if it is meant: --allow-change, *"
    result.stdout.fnmatch_lines(
        [f"sizes changed*; {told}", f"FAILED *{LENET5}* - Failed: sizes changed*"]
    )


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
        told = f"accepted by commit {sha}, whose code this is"
        result.stdout.fnmatch_lines([f"{CONV}*step_time*regressed*; {told}"])
    assert run("--benchmark-compare=git:HEAD~1").ret == 1
    assert found(pytester, CONV) == "regressed"


ACCEPTS = ("commit", "-q", "--allow-empty", "-m", "x", "-m", "Benchmark-Accept: *")
CANNOT_RUN = ("", 0.0)


@pytest.mark.parametrize("baseline", ["--benchmark-compare", "--benchmark-compare=git:HEAD~2"])
def test_a_trailer_lets_no_more_pass_than_its_commit_has_changed(
    run: Run, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, baseline: str
) -> None:
    """Whatever earlier runs say; in a new results folder there is none."""
    history(run, 1)
    git(pytester.path, *ACCEPTS)
    accepted = head(pytester.path)
    sha = accepted[:12]
    new_commit(pytester)
    live(monkeypatch, "regressed", 0.6, against={accepted: ("unchanged", 0.0)})
    result = run(baseline)
    assert result.ret == 0
    told = f"accepted by commit {sha}, +0.0 % [[]-1.0, +1.0[]] against {sha}"
    result.stdout.fnmatch_lines([f"{LENET5}*regressed*; {told}", "*changed as accepted*"])

    live(monkeypatch, "regressed", 0.6, against={accepted: ("undecided", 0.2)})
    result = run(baseline)
    assert result.ret == 0
    assert found(pytester, LENET5) == found(pytester, LENET5, "throughput") == "inconclusive"
    more = f"whether it is more than what is accepted by commit {sha} is not decided: +22.1 %"
    step = "2 of 2 step times not decided, so they may have changed (2 of them perhaps by more *"
    result.stdout.fnmatch_lines([f"{LENET5}*; {more}*", f"*{step}"])

    live(monkeypatch, "regressed", 0.6, against={accepted: ("regressed", 0.2)})
    result = run(baseline)
    assert result.ret == 1
    more = f"against {sha}, which is more than what is accepted by commit {sha}: this is another"
    result.stdout.fnmatch_lines([f"step_time regressed by +82.2 %*; +22.1 %*{more} *"])

    monkeypatch.chdir(pytester.path)
    repeated = [["compare"], ["compare", "1", "4"]][: 1 + ("git" not in baseline)]
    assert [main(command) for command in repeated] == [1] * len(repeated)

    git(pytester.path, *ACCEPTS)
    assert run(baseline.replace("2", "3")).ret == 0


def test_an_earlier_run_bounds_a_trailer_where_its_code_does_not_decide(
    run: Run, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However little time is left for the comparison."""
    history(run, 1)
    git(pytester.path, *ACCEPTS)
    accepted = head(pytester.path)
    live(monkeypatch, "regressed", 0.2)
    assert run("--benchmark-compare").ret == 0
    new_commit(pytester)
    live(monkeypatch, "regressed", 0.21, against={accepted: ("undecided", 0.01)})
    assert run("--benchmark-compare").ret == 0
    assert found(pytester, LENET5) == "inconclusive"
    live(monkeypatch, "regressed", 0.6, against={accepted: ("undecided", 0.4)})
    result = run("--benchmark-compare")
    assert result.ret == 1
    told = f"what is accepted by commit {accepted[:12]} was of +22.1 % in run 0002, and this is *"
    result.stdout.fnmatch_lines([f"step_time regressed by +82.2 %*; {told}"])


def test_cases_that_no_time_decides_leave_accepted_ones_a_part_of_the_budget(
    run: Run, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else these would be open in every run, and never fail."""
    git(pytester.path, *ACCEPTS)
    accepted = head(pytester.path)
    new_commit(pytester)
    live(monkeypatch, "regressed", 0.2, against={accepted: ("unchanged", 0.0)})
    stand_in, left_s = gate.compare_live, []

    def compare_live(pairings: Any, terms: Any, say: Any) -> Any:
        left_s.append(terms.seconds_left())
        return stand_in(pairings, terms, say)

    monkeypatch.setattr(gate, "compare_live", compare_live)
    clock = SimpleNamespace(monotonic=iter([0.0, 500.0, 0.0, 100.0]).__next__)
    monkeypatch.setattr(judging, "time", clock)
    for _ in range(2):
        assert run("--benchmark-compare=git:HEAD~2", "--compare-budget=400").ret == 0
    assert left_s == [pytest.approx(seconds, abs=5) for seconds in (400, 100, 400, 300)]


def test_accepted_cases_that_were_left_undecided_come_first_in_the_next_run(
    run: Run, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(pytester.path, *ACCEPTS)
    accepted = head(pytester.path)
    new_commit(pytester)
    live(monkeypatch, "regressed", 0.2, against={accepted: ("undecided", 0.2)})
    stand_in, first = gate.compare_live, []

    def compare_live(pairings: Any, terms: Any, say: Any) -> Any:
        first.append(set(terms.left_over))
        return stand_in(pairings, terms, say)

    monkeypatch.setattr(gate, "compare_live", compare_live)
    for _ in range(2):
        assert run("--benchmark-compare=git:HEAD~2").ret == 0
    assert first == [set(), set(), set(), {LENET5, CONV}]


@pytest.mark.parametrize("needs_s", [40.0, None])
def test_an_accepted_case_that_is_left_open_is_no_pass_and_all_say_what_decides_it(
    run: Run,
    pytester: pytest.Pytester,
    monkeypatch: Patch,
    capsys: pytest.CaptureFixture[str],
    needs_s: float | None,
) -> None:
    git(pytester.path, *ACCEPTS)
    accepted = head(pytester.path)
    new_commit(pytester)
    live(monkeypatch, "regressed", 0.2, against={accepted: ("undecided", 0.2)})
    stand_in = gate.compare_live

    def compare_live(pairings: Any, terms: Any, say: Any) -> Any:
        found = stand_in(pairings, terms, say)
        for pairing, one in zip(pairings, found, strict=True):
            one.needs_s = needs_s
            if pairing.case.name == CONV:
                around = Interval.around(0.0, 0.01)
                one.decision = replace(
                    one.decision, verdict="unchanged", estimate=0.0, interval=around
                )
        return found

    monkeypatch.setattr(gate, "compare_live", compare_live)
    remedy = "close other programs and run"
    if needs_s:
        remedy = "run the command again, or with --convmark-compare-budget unlimited"
    result = run("--benchmark-compare=git:HEAD~2")
    assert result.ret == 0
    last = result.outlines[-6:]
    assert any("1 of 2 step times not decided" in one for one in last)
    assert any(one.startswith(f"convmark: next: {remedy}") for one in last)
    monkeypatch.chdir(pytester.path)
    capsys.readouterr()
    for command in (["compare", "--format", "json"], ["compare", "--format", "github"]):
        assert main(command) == 0
        told = capsys.readouterr().out
        assert f"whether it is more than what is accepted by commit {accepted[:12]}" in told
        assert ("with --convmark-compare-budget unlimited" if needs_s else remedy) in told
    assert main(["comment"]) == 0
    told = capsys.readouterr().out
    assert "no regression found, 1 of 2 cases not decided; of 2 cases 1 inconclusive" in told
    assert (
        f"**1 case may have changed by more than was accepted{'' if needs_s else ', and '}" in told
    )
    assert remedy in told


def test_ctrl_c_before_the_accepted_code_is_compared_keeps_the_verdicts_and_leaves_it_open(
    run: Run, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(pytester.path, *ACCEPTS)
    accepted = head(pytester.path)
    new_commit(pytester)
    live(monkeypatch, "regressed", 0.2)
    laid_out = gate.anchor_trees

    def trees(origin: Any, code: AnchorCode) -> Any:
        if code.commit == accepted:
            raise KeyboardInterrupt
        return laid_out(origin, code)

    monkeypatch.setattr(gate, "anchor_trees", trees)
    assert run("--benchmark-compare=git:HEAD~2").ret == 2
    assert found(pytester, LENET5) == "inconclusive"


def test_code_that_is_slower_than_what_is_accepted_fails_though_the_baseline_does_not_tell(
    run: Run, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Code of another precision is not compared with the baseline's."""
    history(run, 1)
    git(pytester.path, *ACCEPTS)
    accepted = head(pytester.path)
    new_commit(pytester)
    precisions = ("float32", "mixed_bfloat16")
    against = {accepted: ("unchanged", 0.0)}
    live(monkeypatch, "unchanged", 0.0, precisions=precisions, against=against)
    assert run("--benchmark-compare").ret == 0
    assert found(pytester, LENET5) == "inconclusive"
    against = {accepted: ("regressed", 0.3)}
    live(monkeypatch, "unchanged", 0.0, precisions=precisions, against=against)
    result = run("--benchmark-compare")
    assert result.ret == 1
    told = f"against {accepted[:12]}, which is more than what is accepted by commit"
    result.stdout.fnmatch_lines([f"step_time regressed*+35.0 %*{told} *"])
    monkeypatch.chdir(pytester.path)
    assert [main(command) for command in (["compare"], ["compare", "1", "3"])] == [1, 1]


def test_compare_repeats_of_two_runs_what_fails_by_sizes_and_precision(
    run: Run, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, coded: Columns
) -> None:
    history(run, 1)
    new_commit(pytester)
    live(monkeypatch, "unchanged", 0.0, precisions=("float32", "mixed_bfloat16"))
    assert run("--benchmark-compare").ret == 1
    git(pytester.path, *ACCEPTS)
    accepted = head(pytester.path)
    new_commit(pytester)
    coded["parameters"] = 70_000
    against = {accepted: ("unchanged", 0.0)}
    live(monkeypatch, "unchanged", 0.0, sizes={"parameters": 61_706}, against=against)
    result = run("--benchmark-compare")
    assert result.ret == 1
    result.stdout.fnmatch_lines([f"*parameters 61,706 -> 70,000 against {accepted[:12]}, which *"])
    monkeypatch.chdir(pytester.path)
    assert [main(["compare", "1", one]) for one in ("2", "3")] == [1, 1]


def test_a_case_whose_process_fails_is_not_compared_with_what_is_accepted(
    run: Run, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, coded: Columns
) -> None:
    git(pytester.path, *ACCEPTS)
    new_commit(pytester)
    calls = live(monkeypatch, "unchanged", 0.0)
    coded.update(status="error", error="it broke")
    assert run("--benchmark-compare=git:HEAD~2").ret == 1
    assert calls == []


def test_what_was_faster_meanwhile_does_not_count_against_what_is_accepted(
    run: Run, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slowdown against the baseline counts from there, one against accepted code from that."""
    history(run, 1)
    git(pytester.path, *ACCEPTS)
    accepted = head(pytester.path)
    new_commit(pytester)
    live(monkeypatch, "regressed", 0.2, against={accepted: ("unchanged", 0.0)})
    stand_in, bars = gate.compare_live, []
    (path,) = pytester.path.glob("results/*/0001.csv")
    conditions = {row.case.name: conditions_of(row) for row in read_run(path)}
    shared = {"anchor": "a", "old_code": "old", "new_code": "faster", "commit": accepted}
    kept = [
        KeptSession(
            **shared, case=LENET5, conditions=conditions[LENET5], wall=wall,
            cpu=None, decided=True, run=None, apart=False, seconds=1.0,
        )
        for wall in (-0.101, -0.1, -0.099)
    ]  # fmt: skip
    write(path, kept)

    def compare_live(pairings: Any, terms: Any, say: Any) -> Any:
        bars.append(terms.earlier.of(LENET5, "old", "new", apart=False).bar)
        return stand_in(pairings, terms, say)

    monkeypatch.setattr(gate, "compare_live", compare_live)
    assert run("--benchmark-compare").ret == 0
    assert bars == [pytest.approx(-0.09, abs=0.01), 0.0]


def test_code_that_lacks_the_baseline_is_merged_with_it_before_it_is_a_bound(
    run: Run, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be slower or faster by what the baseline has changed since."""
    git(pytester.path, "switch", "-qc", "branch")
    git(pytester.path, *ACCEPTS)
    accepted = head(pytester.path)
    git(pytester.path, "switch", "-q", "main")
    new_commit(pytester)
    git(pytester.path, "switch", "-q", "branch")
    base = git(pytester.path, "rev-parse", "main")
    git(pytester.path, "merge", "-q", "--no-ff", "--no-edit", "main")
    new_commit(pytester)
    both = merged(pytester.path, accepted, base)
    assert git(pytester.path, "rev-parse", f"{both}^1", f"{both}^2").split() == [accepted, base]
    for verdict, status in (("unchanged", 0), ("regressed", 1)):
        against = {accepted: ("regressed", 0.2), both: (verdict, 0.2)}
        live(monkeypatch, "regressed", 0.6, against=against)
        result = run("--benchmark-compare=git:main")
        assert result.ret == status
        result.stdout.fnmatch_lines([f"* against {accepted[:12]} with {base[:12]}*"])


def test_code_that_does_not_merge_with_the_baseline_is_said_to_be_no_bound(
    run: Run, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(pytester.path, "switch", "-qc", "branch")
    for branch, text in (("branch", "a = 1\n"), ("main", "a = 2\n")):
        git(pytester.path, "switch", "-q", branch)
        (pytester.path / "models" / "registry.py").write_text(text)
        git(pytester.path, "commit", "-qam", "x", "-m", "Benchmark-Accept: *")
    git(pytester.path, "switch", "-q", "branch")
    accepted = head(pytester.path)
    git(pytester.path, "merge", "-q", "-X", "ours", "--no-edit", "main")
    old = Mock(side_effect=GitError("needs git 2.38 or newer"))
    whys = ("the two do not merge", "git cannot merge the two here (needs git 2.38 or newer)")
    for why, merge in zip(whys, (merged, old), strict=True):
        monkeypatch.setattr(intended, "merged", merge)
        live(monkeypatch, "regressed", 0.2)
        result = run("--benchmark-compare=git:main")
        assert result.ret == 0
        told = f"*{accepted[:12]}: its code cannot be compared, because it lacks * and {why}, so*"
        result.stdout.fnmatch_lines([told])


@pytest.fixture
def nets(
    run: Run, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Path:
    """A submodule that has the models."""
    git(tmp_path, "init", "-q", "-b", "main")
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "one")
    added = ("submodule", "--quiet", "add", str(tmp_path), "nets")
    git(pytester.path, "-c", "protocol.file.allow=always", *added)
    git(pytester.path, "commit", "-qm", "with a submodule")
    nets = pytester.path / "nets"
    monkeypatch.setattr(anchor, "zoo_folder", lambda: nets)
    return nets


def test_a_trailer_of_the_repository_around_a_submodule_counts(
    run: Run, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, nets: Path
) -> None:
    """What it accepts is the change up to the commit that it has of the submodule."""
    commits = []
    for number, message in enumerate(("Benchmark-Accept: *", "no more"), 1):
        git(nets, "commit", "-q", "--allow-empty", "-m", "slower")
        git(pytester.path, "commit", "-qam", "x", "-m", message)
        commits.append(head(nets))
        live(monkeypatch, "regressed", 0.6, against={commits[0]: ("regressed", 0.2)})
        assert run(f"--benchmark-compare=git:main~{number}").ret == number - 1


def test_a_later_trailer_around_a_submodule_accepts_more_than_one_in_it(
    run: Run, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, nets: Path
) -> None:
    accept = ("-m", "Benchmark-Accept: *")
    git(nets, "commit", "-q", "--allow-empty", "-m", "slower", *accept)
    accepted = head(nets)
    git(pytester.path, "commit", "-qam", "x")
    live(monkeypatch, "regressed", 0.6, against={accepted: ("regressed", 0.2)})
    for more, status in (((), 1), (accept, 0)):
        git(nets, "commit", "-q", "--allow-empty", "-m", "slower still")
        git(pytester.path, "commit", "-qam", "x", *more)
        assert run(f"--benchmark-compare=git:main~{3 - status}").ret == status


def test_a_trailer_whose_code_cannot_run_lets_no_more_pass_than_it_did_at_first(
    run: Run, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stays in the history, and what a later commit does is another change."""
    history(run, 1)
    git(pytester.path, *ACCEPTS)
    accepted = head(pytester.path)
    sha = accepted[:12]
    new_commit(pytester)
    for change, status in ((0.2, 0), (0.24, 0), (0.4, 1)):
        live(monkeypatch, "regressed", change, against={accepted: CANNOT_RUN})
        result = run("--benchmark-compare")
        assert result.ret == status
    told = f"what is accepted by commit {sha} was of +22.1 % in run 0002, and this is another"
    result.stdout.fnmatch_lines([f"step_time regressed by +49.2 %*; {told} change"])
    git(pytester.path, *ACCEPTS)
    assert run("--benchmark-compare").ret == 0


def test_a_trailer_bounds_the_sizes_too(
    run: Run, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, coded: Columns
) -> None:
    history(run, 1)
    git(pytester.path, *ACCEPTS)
    new_commit(pytester)
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
    result.stdout.fnmatch_lines([told, f"FAILED *{LENET5}* - Failed: *"])
    result.stdout.fnmatch_lines([f"*Benchmark-Accept: {LENET5}"])
    assert run("--benchmark-compare", "--allow-change=lenet5-*").ret == 0
    git(pytester.path, *ACCEPTS)
    accepted = head(pytester.path)
    assert run("--benchmark-compare").ret == 0
    new_commit(pytester)
    other = ("float32", "mixed_float16")
    live(monkeypatch, "unchanged", 0.0, precisions=other, against={accepted: CANNOT_RUN})
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
    git(pytester.path, *ACCEPTS)
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
