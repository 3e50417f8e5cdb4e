"""The newest run's verdicts against a commit: live ones first, else those of history."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from histories import A_COMMIT, ANOTHER_COMMIT, MACHINE, keep, keep_said, run_of
from test_verdicts_file import judgement
from workers import git

from convmark.cli import main
from convmark.core.errors import OptionError, StoreError
from convmark.report.verdicts import verdicts_against
from convmark.results.store import Store

LENET = "lenet5-train-cpu-b32-float32"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.chdir(tmp_path)
    return Store(tmp_path / "results")


def repository(folder: Path) -> str:
    """Make a repository with one commit on `main` and return the commit."""

    def git(*words: str) -> str:
        name = ("-c", "user.name=a", "-c", "user.email=a@b")
        done = subprocess.run(
            ["git", *name, *words], cwd=folder, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    git("init", "-q", "-b", "main")
    git("commit", "-q", "--allow-empty", "-m", "first")
    return git("rev-parse", "HEAD")


def two_runs(store: Store, before: str, **changes: object) -> None:
    """Write a run of a commit, and one of another with a larger model."""
    keep(store, run_of("0001", 0.0, 0.0, commit=before))
    keep(store, run_of("0002", 0.0, 0.0, commit=ANOTHER_COMMIT, parameters=70_000,
                       started="2026-02-02T03:04:05.678+00:00", **changes))  # fmt: skip


def test_a_ref_is_judged_from_the_history_of_its_commit(store: Store, tmp_path: Path) -> None:
    commit = repository(tmp_path)
    two_runs(store, commit)
    table = verdicts_against([store.folder], "main", tmp_path)
    found = {row["metric"]: row["verdict"] for row in table.records()}
    assert (found["parameters"], found["sizes"]) == ("changed", "changed (failed)")
    assert "step_time" in found
    head = ANOTHER_COMMIT[:12]
    told = f"Verdicts: 1 of 1 case fails, main ({commit[:12]}) -> run 0002 ({head})"
    assert table.title == told
    assert f"Run 0002 against run 0001 of main ({commit[:12]}), from history" in table.caption


def test_of_several_runs_of_the_commit_the_newest_is_taken_and_said_to_be(
    store: Store, tmp_path: Path
) -> None:
    commit = repository(tmp_path)
    keep(store, run_of("0001", 0.0, 0.0, commit=commit))
    keep(store, run_of("0002", 0.0, 0.0, commit=commit))
    keep(store, run_of("0003", 0.0, 0.0, commit=commit, dirty=True))
    keep(store, run_of("0004", 0.0, 0.0, commit=ANOTHER_COMMIT))
    for name, of in (("main", f"main ({commit[:12]})"), (commit[:12], commit[:12])):
        told = f"Run 0004 against run 0002, the newest of 2 runs of {of}, from history"
        assert told in verdicts_against([store.folder], name, tmp_path).caption


def test_a_run_of_edited_files_is_not_the_commits(store: Store, tmp_path: Path) -> None:
    commit = repository(tmp_path)
    keep(store, run_of("0001", 0.0, 0.0, commit=commit, dirty=True))
    keep(store, run_of("0002", 0.0, 0.0, commit=ANOTHER_COMMIT, parameters=70_000))
    with pytest.raises(OptionError, match="which no run measured"):
        verdicts_against([store.folder], "main", tmp_path)


def test_live_verdicts_beside_the_commit_come_before_history(store: Store, tmp_path: Path) -> None:
    commit = repository(tmp_path)
    two_runs(store, commit)
    live = judgement(run="0002", case=LENET, verdict="improved", fails=False,
                     note=f"8 sessions against {commit[:12]}")  # fmt: skip
    older = judgement(run="0001", case=LENET, verdict="regressed", note=live.note)
    keep_said(store.folder / MACHINE, older, live)
    table = verdicts_against([store.folder], "main", tmp_path)
    assert table.column("verdict") == ["improved"]
    assert table.title.startswith(f"Verdicts: none of 1 case fails, main ({commit[:12]}) -> run ")
    assert table.caption.startswith(f"Run 0002 against main ({commit[:12]}), live.")


def test_a_gate_that_could_compare_nothing_is_shown_against_its_commit(
    store: Store, tmp_path: Path
) -> None:
    commit = repository(tmp_path)
    keep(store, run_of("0001", 0.0, 0.0, commit=ANOTHER_COMMIT))
    edited = judgement(run="0001", case=LENET, verdict="inconclusive", fails=False, change=None,
                       note="no live comparison", against=commit[:12])  # fmt: skip
    keep_said(store.folder / MACHINE, edited)
    table = verdicts_against([store.folder], "main", tmp_path)
    assert table.column("verdict") == ["inconclusive"]


def test_live_verdicts_beside_another_commit_are_not_taken(store: Store, tmp_path: Path) -> None:
    commit = repository(tmp_path)
    two_runs(store, commit)
    live = judgement(run="0002", case=LENET, note=f"8 sessions against {A_COMMIT[:12]}")
    keep_said(store.folder / MACHINE, live)
    assert "from history" in verdicts_against([store.folder], "main", tmp_path).caption


def test_the_newest_run_is_that_of_the_highest_number_though_the_clock_was_set_back(
    store: Store, tmp_path: Path
) -> None:
    commit = repository(tmp_path)
    two_runs(store, commit)
    keep(store, run_of("0003", 0.0, 0.0, commit=ANOTHER_COMMIT,
                       started="2025-01-01T00:00:00.000+00:00"))  # fmt: skip
    assert "Run 0003 against run 0001" in verdicts_against([store.folder], "main", tmp_path).caption


def test_a_run_is_not_judged_against_itself(store: Store, tmp_path: Path) -> None:
    commit = repository(tmp_path)
    keep(store, run_of("0001", 0.0, 0.0, commit=commit))
    with pytest.raises(OptionError, match="`pytest bench --benchmark-compare=git:main` compares"):
        verdicts_against([store.folder], "main", tmp_path)


def test_a_number_names_a_run(store: Store, tmp_path: Path) -> None:
    two_runs(store, A_COMMIT)
    table = verdicts_against([store.folder], "1", tmp_path)
    assert "against run 0001 of 1" in table.caption
    assert f", run 0001 ({A_COMMIT[:12]}) -> run 0002 (" in table.title
    with pytest.raises(StoreError, match="no run 'nowhere'"):
        verdicts_against([store.folder], "nowhere", tmp_path)


def test_a_named_run_has_the_verdicts_that_compare_prints(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    two_runs(store, A_COMMIT)
    live = judgement(run="0002", case=LENET, verdict="regressed", change=0.2, low=0.18, high=0.22,
                     baseline_runs=("0001",), note="8 sessions against 1234567")  # fmt: skip
    keep_said(store.folder / MACHINE, live)
    table = verdicts_against([store.folder], "0001", tmp_path)
    assert "regressed (failed)" in table.column("verdict")
    assert "against run 0001 of 0001, live, or else from history." in table.caption
    assert main(["compare", "0001", "0002"]) == 1
    assert "+20.0 % [+18.0, +22.0]  regressed" in capsys.readouterr().out
    other = keep(Store(tmp_path / "other"), run_of("0001", 0.0, 0.0, commit=A_COMMIT))
    told = verdicts_against([store.folder], str(other), tmp_path)
    assert "without a live comparison" in told.caption  # of another folder's run 0001


def surfaces(capsys: pytest.CaptureFixture[str]) -> list[bool]:
    """Whether the newest run, run 2, fails in each place that shows it."""
    against = verdicts_against([Path("results")], "1", Path())
    found = ["(failed)" in " ".join(against.column("verdict")) or "1 of 1" in against.title]
    found += [bool(main(words)) for words in (["compare"], ["compare", "1", "2"])]
    capsys.readouterr()
    for words in (["comment"], ["list", "--format", "csv"], ["report", "--format", "markdown"]):
        assert main(words) == 0
        text = capsys.readouterr().out
        failed = r"gate failed|1 changed in size|\| failed +\| 1 of 1 case in run 0002 "
        found.append(bool(re.search(failed, text)))
    return found


def test_what_is_accepted_passes_in_every_place_that_shows_the_run(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    two_runs(store, A_COMMIT)
    sizes = judgement(run="0002", case=LENET, metric="sizes", verdict="changed", change=None,
                      low=None, high=None, baseline=None, value=None, unit="", note="larger",
                      baseline_runs=("0001",))  # fmt: skip
    keep_said(store.folder / MACHINE, sizes)
    assert surfaces(capsys) == [True] * 6
    assert main(["accept", "2", "--reason", "meant"]) == 0
    assert surfaces(capsys) == [False] * 6


def test_what_was_accepted_of_another_run_of_that_number_lets_nothing_pass(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    keep(store, run_of("0001", 0.0, 0.0, commit=A_COMMIT))
    keep(store, run_of("0002", 0.0, 0.0, commit=A_COMMIT))
    assert main(["accept", "2", "--reason", "meant"]) == 0
    two_runs(store, A_COMMIT)
    assert main(["compare"]) == 1
    capsys.readouterr()


def test_what_a_trailer_no_longer_lets_pass_fails_for_every_baseline_by_its_number(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = repository(tmp_path)
    words = ("-q", "--allow-empty", "-m", "x", "-m", "Benchmark-Accept: *")
    git(tmp_path, "commit", *words)
    sha = git(tmp_path, "rev-parse", "HEAD")
    against = f"run 0001 ({first[:12]})"
    keep(store, run_of("0001", 0.0, 0.0, commit=first))
    passed = judgement(run="0002", case=LENET, fails=False, against=against,
                       accepted=f"accepted by commit {sha[:12]}")  # fmt: skip
    slower = judgement(run="0003", case=LENET, change=0.4, low=0.38, high=0.42,
                       against=against, baseline_runs=("0001",))  # fmt: skip
    for number in ("0002", "0003"):
        keep(store, run_of(number, 0.0, 0.0, commit=sha))
    keep_said(store.folder / MACHINE, passed, slower)
    assert main(["compare", "1", "3"]) == 1
    assert "1 of 1 case fails" in verdicts_against([store.folder], "1", tmp_path).title
    capsys.readouterr()


def test_a_job_summary_has_the_verdicts_first_and_folds_the_rest(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    two_runs(store, repository(tmp_path))
    assert main(["report", "--format", "markdown", "--against", "main"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("## Verdicts: 1 of 1 case fails, main (")
    assert text.index("changed (failed)") < text.index("<details>")
    assert text.count("## ") == 1  # the rest is folded, and says how much it is
    assert "<details><summary>Data quality: 1 row</summary>" in text
    assert "<details><summary>Architectures: 1 row</summary>" in text


def test_a_named_run_is_not_the_newest_itself(store: Store, tmp_path: Path) -> None:
    two_runs(store, A_COMMIT)
    with pytest.raises(StoreError, match=r"0002\.csv: is the run that is judged"):
        verdicts_against([store.folder], "2", tmp_path)
    with pytest.raises(StoreError, match="0002 is the run that is judged"):
        verdicts_against([store.folder], ANOTHER_COMMIT[:9], tmp_path)
