"""Changes that are meant: by an option, by a commit's trailer, and what neither lets pass."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from histories import MACHINE, keep, process, run_of
from test_verdicts_file import judgement
from workers import git

from convmark.cli import main
from convmark.compare.accepted_code import held_to, is_open
from convmark.compare.files import keep_verdicts
from convmark.compare.intended import (
    IntendedChanges,
    TrailerRange,
    doubt_of,
    pass_intended,
    trailer_line,
)
from convmark.compare.judgement import NOT_JUDGED, SIZES, Judgement, LiveComparison
from convmark.core.options import Options
from convmark.report.advice import gate_step
from convmark.report.comment import Gate, comment_text
from convmark.results.store import Store

LENET = "lenet5-train-cpu-b32-float32"
VGG = "vgg16-train-cpu-b32-float32"

Commit = Callable[..., str]

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


@pytest.fixture
def commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Commit:
    """Makes a commit in a new repository and returns it."""
    monkeypatch.chdir(tmp_path)
    git(tmp_path, "init", "-q", "-b", "main")

    def make(*paragraphs: str) -> str:
        words = [word for text in ("a change", *paragraphs) for word in ("-m", text)]
        git(tmp_path, "commit", "-q", "--allow-empty", *words)
        return git(tmp_path, "rev-parse", "HEAD")

    return make


def meant(
    anchor: str, said: list[str] | None = None, *patterns: str, folder: str = "."
) -> IntendedChanges:
    """What is meant of two cases, by option and by the commits since an anchor."""
    since = TrailerRange(repository=Path(folder), anchor=anchor, head="HEAD", unknown="run 0001")
    names = {LENET: {LENET}, VGG: {VGG, "vgg16-train-cpu-b32-mixed_bfloat16"}}
    told: list[str] = [] if said is None else said
    return IntendedChanges(names, patterns, lambda case: since, told.append)


def one(found: list[Judgement]) -> tuple[str, bool, str]:
    (only,) = found
    return only.verdict, only.fails, only.note


# The trailer


def test_a_trailer_since_the_anchor_lets_its_cases_pass_and_names_its_commit(
    commit: Commit,
) -> None:
    anchor = commit()
    sha = commit("why", "Signed-off-by: a\nBenchmark-Accept: lenet5-*,\n vgg16-*bfloat16")
    commit()
    found = meant(anchor)
    assert found.reason(LENET) == f"accepted by commit {sha[:12]}"
    assert found.reason(VGG) == f"accepted by commit {sha[:12]}"  # by the name that was asked for
    passed = pass_intended([judgement(case=LENET, note="slower")], found)
    later = "and so is what 1 later commit changed, because no earlier run limits it"
    assert one(passed) == ("regressed", False, f"slower; accepted by commit {sha[:12]}, {later}")


@pytest.mark.parametrize(
    "model",
    ["lenet5", "nets:wide(8, kernels=[3, 5])", "./net[1]*.keras", "./a|`.keras", "./net,8" * 60],
)
def test_the_line_that_is_proposed_accepts_its_case_whatever_the_name_holds(
    commit: Commit, model: str
) -> None:
    cases = [f"{model}-train-cpu-b32-float32", f"{model}-infer-cpu-b32-float32"]
    anchor = commit()
    shown = [trailer_line(cases[:1])[0], trailer_line(cases[1:])[0]]
    told = comment_text(Gate([judgement(case=cases[0], fails=True)], passed=False))
    assert f"the line `{shown[0]}`." in told
    commit("\n".join(shown))
    since = TrailerRange(repository=Path(), anchor=anchor, head="HEAD")
    said: list[str] = []
    found = IntendedChanges({one: {one} for one in cases}, (), lambda case: since, said.append)
    assert all(found.reason(case) for case in cases)
    assert said == []


def test_a_trailer_that_the_anchor_has_does_not_count(commit: Commit, tmp_path: Path) -> None:
    commit()
    git(tmp_path, "switch", "-qc", "branch")
    commit()
    git(tmp_path, "switch", "-q", "main")
    anchor = commit("Benchmark-Accept: *")
    git(tmp_path, "switch", "-q", "branch")
    git(tmp_path, "merge", "-q", "--no-ff", "--no-edit", "main")
    commit("It says Benchmark-Accept: *\n\nin its text alone.")
    assert meant(anchor).reason(LENET) == ""
    sha = commit("Benchmark-Accept: vgg16-*")
    assert meant(anchor).reason(LENET) == ""
    assert meant(anchor).reason(VGG) == f"accepted by commit {sha[:12]}"


def test_a_trailer_that_matches_no_case_is_said(commit: Commit) -> None:
    anchor = commit()
    sha = commit("Benchmark-Accept: lenet-5, \x1b[31mresnet")
    said: list[str] = []
    found = meant(anchor, said)
    assert (found.reason(LENET), found.reason(VGG)) == ("", "")
    assert said == [
        f"{sha[:12]}: Benchmark-Accept: lenet-5 matches no case of this run",
        f"{sha[:12]}: Benchmark-Accept: resnet matches no case of this run",
    ]


def test_commits_that_are_not_known_are_said_once(commit: Commit, tmp_path: Path) -> None:
    anchor = commit()
    commit("Benchmark-Accept: *")
    commit()
    git(tmp_path, "clone", "-q", "--depth=1", f"file://{tmp_path}", "shallow")
    said: list[str] = []
    found = meant(anchor, said, folder="shallow")
    assert (found.reason(LENET), found.reason(VGG)) == ("", "")
    (line,) = said
    assert line.startswith("Benchmark-Accept trailers are not read: shallow has no history that ")
    assert line.endswith("git fetch --unshallow)")
    assert meant("", said).reason(LENET) == ""
    assert said[1:] == [
        "Benchmark-Accept trailers are not read: no commit has the code of run 0001"
    ]


def test_a_line_outside_the_last_paragraph_is_said_not_to_count(commit: Commit) -> None:
    """As of commits that were squashed into one, whose messages follow each other."""
    anchor = commit()
    sha = commit("* the new stem", "Benchmark-Accept: lenet5-*", "* a typo")
    commit("Benchmark-Accept: vgg16-*")
    said: list[str] = []
    assert meant(anchor, said).reason(LENET) == ""
    why = "because it is not in the last paragraph of the commit's message"
    assert said == [f"{sha[:12]}: its line Benchmark-Accept is not read, {why}"]


# What passes


@pytest.mark.parametrize(
    ("verdict", "passes"),
    [("regressed", True), ("changed", True), ("inconclusive", False)],
)
def test_a_change_passes_and_an_error_does_not(verdict: str, passes: bool) -> None:
    failing = judgement(case=LENET, verdict=verdict, note="why", fails=True)
    found = one(pass_intended([failing], meant("", None, "lenet5-*")))
    note = "why; allowed by --allow-change" if passes else "why"
    assert found == (verdict, not passes, note)


def passed_before(folder: Path, reason: str, *runs: str, **changes: object) -> list[Path]:
    """Keep what a trailer let pass in the first of the runs; return the files of all."""
    first = judgement(run=runs[0], case=LENET, fails=False, accepted=reason, **changes)
    keep_verdicts(folder / f"{runs[0]}.csv", [first])
    return [folder / f"{run}.csv" for run in runs]


def test_a_trailer_is_bounded_however_many_runs_ago_it_let_pass(
    commit: Commit, tmp_path: Path
) -> None:
    anchor, sha = commit(), commit("Benchmark-Accept: lenet5-*")
    reason = f"accepted by commit {sha[:12]}"
    runs = passed_before(tmp_path, reason, *(f"{number:04}" for number in range(1, 51)))
    slower = judgement(run="0051", case=LENET, change=0.4, low=0.38, high=0.42)
    assert one(pass_intended([slower], meant(anchor), runs))[1]
    assert not one(pass_intended([judgement(run="0051", case=LENET)], meant(anchor), runs))[1]
    noisy = judgement(run="0051", case=LENET, change=0.4, low=0.05, high=0.9)
    _, fails, note = one(pass_intended([noisy], meant(anchor), runs))
    assert not fails
    assert "perhaps more than the +12.0 % of run 0001, which noise hides: " in note
    (passed,) = pass_intended([noisy], meant(anchor), runs)
    assert doubt_of(passed).startswith("perhaps more than the +12.0 % of run 0001, which noise")
    assert doubt_of(passed) in comment_text(Gate([passed]))
    assert "changed as accepted, 1 of them perhaps by more: " in gate_step([passed], Options())


def test_a_trailer_bounds_memory_by_its_own_tolerance(commit: Commit, tmp_path: Path) -> None:
    anchor, sha = commit(), commit("Benchmark-Accept: lenet5-*")
    of = {"metric": "peak_host_memory", "unit": "bytes", "low": None, "high": None}
    of |= {"smallest_visible": 0.2}
    runs = passed_before(tmp_path, f"accepted by commit {sha[:12]}", "0001", change=0.3, **of)
    for change, fails in ((0.45, False), (0.6, True)):
        larger = judgement(run="0002", case=LENET, change=change, **of)
        assert one(pass_intended([larger], meant(anchor), runs))[1] == fails


def test_what_a_trailer_lets_pass_with_later_commits_says_so(
    commit: Commit, tmp_path: Path
) -> None:
    """As in the fresh folder of a workflow, where no earlier run bounds it."""
    anchor, sha = commit(), commit("Benchmark-Accept: lenet5-*")
    reason = f"accepted by commit {sha[:12]}"
    slower = judgement(run="0002", case=LENET, note="")
    assert one(pass_intended([slower], meant(anchor)))[2] == reason
    commit()
    commit()
    (found,) = pass_intended([slower], meant(anchor))
    told = "and so is what 2 later commits changed, because no earlier run limits it"
    assert (found.accepted, found.note) == (f"{reason}, {told}",) * 2
    runs = passed_before(tmp_path, found.accepted, "0001", change=0.12)
    assert one(pass_intended([slower], meant(anchor), runs))[2] == reason


def test_damaged_verdicts_of_an_earlier_run_are_said_to_bound_nothing(
    commit: Commit, tmp_path: Path
) -> None:
    anchor, _ = commit(), commit("Benchmark-Accept: lenet5-*")
    (tmp_path / "0001.verdicts.csv").write_text("run,case\n0001\n")
    said: list[str] = []
    pass_intended([judgement(case=LENET)], meant(anchor, said), [tmp_path / "0001.csv"])
    (line,) = said
    assert "0001.verdicts.csv" in line
    assert line.endswith("so a trailer Benchmark-Accept may let more pass than it did in that run")


def test_git_is_not_asked_where_nothing_fails() -> None:
    def since(case: str) -> TrailerRange | None:
        raise AssertionError(case)

    found = [judgement(verdict="improved", fails=False)]
    assert pass_intended(found, IntendedChanges({}, (), since, print)) == found


# convmark compare


def test_compare_lets_pass_what_an_option_or_a_commit_means(
    commit: Commit, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(tmp_path / "results")
    keep(store, run_of("0001", 0.0, commit=commit()))
    sha = commit("Benchmark-Accept: lenet5-*")
    keep(store, run_of("0002", 0.0, commit=sha, parameters=70000))
    commit()
    keep(store, run_of("0003", 0.0, commit=sha, dirty=True, parameters=70000))
    for arguments in (["compare", "2"], ["compare", "1", "2"]):
        assert main(arguments) == 0
        assert f"61,706 -> 70,000; accepted by commit {sha[:12]}" in capsys.readouterr().out
    assert main(["report", "--format", "markdown", "--against", "1"]) == 0
    assert "no commit has the code of run 0003" in capsys.readouterr().err
    assert main(["compare", "3"]) == 1
    assert "no commit has the code of run 0003" in capsys.readouterr().err
    keep(store, run_of("0004", 0.0, commit=sha, dirty=True, parameters=80000))
    assert main(["compare", "3", "4"]) == 1
    assert "no commit has the code of run 0003 and run 0004" in capsys.readouterr().err
    assert main(["compare", "3", "--allow-change", "nothing-*", "--machine", MACHINE]) == 2
    told = "--allow-change: must match a case of the run, got 'nothing-*'; known models: lenet5"
    assert told in capsys.readouterr().err
    assert main(["compare", "3", "--allow-change", "lenet5-train*"]) == 0
    assert "61,706 -> 70,000; allowed by --allow-change" in capsys.readouterr().out
    assert main(["compare", "--across", "commit", "--allow-change", LENET]) == 2


def test_compare_lets_no_error_pass(commit: Commit, tmp_path: Path) -> None:
    store = Store(tmp_path / "results")
    keep(store, run_of("0001", 0.0))
    keep(store, [process(run="0002", status="timeout", error="hung")])
    assert main(["compare", "--allow-change", "*"]) == 1


def test_a_disturbed_comparison_with_the_accepted_code_leaves_it_open() -> None:
    """It is no code that cannot be run."""
    disturbed = LiveComparison(decision=None, anchor="abc", reason=f"{NOT_JUDGED}: slowed; later")
    held = held_to(disturbed, judgement(case=LENET), {}, "accepted by commit abc")
    assert held is not None
    assert (is_open(held), held.fails) == (True, False)


def test_sizes_of_accepted_code_that_are_not_known_are_not_the_same() -> None:
    told = {"metric": "flops_per_sample", "verdict": "changed", "fails": False}
    now = {"flops_per_sample": judgement(case=LENET, baseline=1.0, value=2.0, **told)}
    failing = judgement(case=LENET, metric=SIZES, verdict="changed")
    for flops, is_told in ((None, False), (2, True)):
        sizes = {"parameters": 72, "flops_per_sample": flops}
        found = LiveComparison(decision=None, anchor="abc", reason="x", sizes=sizes)
        assert bool(held_to(found, failing, now, "accepted by commit abc")) is is_told


def test_another_precision_than_that_of_the_accepted_code_is_another_change() -> None:
    found = LiveComparison(
        decision=None, anchor="abc", reason="precision", precisions=("float32", "mixed_float16")
    )
    one = judgement(metric="precision", verdict="changed")
    held = held_to(found, one, {}, "accepted by commit abc")
    assert held is not None
    assert held.fails
    assert "float32 -> mixed_float16 against abc, which is more than what is accepted" in held.note
