"""`convmark bisect` with stand-ins for the workers."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest
from fake_sides import LENET5, Interpreter, folder
from json_tables import tables_of

from convmark.cli import bisect as bisect_command
from convmark.cli import main
from convmark.compare.live.anchor import Origin
from convmark.core.errors import BusyError, OptionError

__all__ = ["folder"]

VERSIONS = ["2.16.2", "2.17.0", "2.17.1", "2.18.0", "2.19.0", "2.20.0", "2.21.0"]
BISECT = ["bisect", *LENET5, "--versions", ",".join(VERSIONS)]


@pytest.mark.parametrize("first_bad", VERSIONS[1:])
def test_the_release_that_brought_a_slowdown_in_is_named(
    folder: Path, capsys: pytest.CaptureFixture[str], first_bad: str
) -> None:
    place = VERSIONS.index(first_bad)
    Interpreter.speeds = dict.fromkeys(VERSIONS[place:], 1.15)
    assert main([*BISECT, "--good", "2.16.2", "--bad", "2.21.0"]) == 0
    printed = capsys.readouterr()
    last = f"{VERSIONS[place - 1]} was the last version before it: "
    assert printed.out.startswith(f"{first_bad} brought the change, {last}")
    assert "results/ab/0001.csv" in printed.err


def test_a_bisection_is_two_tables_for_other_programs(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Interpreter.speeds = dict.fromkeys(VERSIONS[3:], 1.15)
    assert main([*BISECT, "--good", "2.16.2", "--bad", "2.21.0", "--format", "json"]) == 0
    tables = tables_of(capsys.readouterr().out, "bisect")
    (answer,) = tables["answer"]
    assert (answer["verdict"], answer["last_good"], answer["first_bad"]) == (
        *("found", "2.17.1", "2.18.0"),
    )
    assert answer["low"] <= answer["change"] <= answer["high"]
    first = tables["steps"][0]
    assert (first["earlier"], first["later"], first["void"]) == ("2.16.2", "2.21.0", False)
    assert first["change"] == pytest.approx(0.15, abs=0.05)


def test_no_change_between_the_ends_is_said_and_exits_1(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*BISECT, "--good", "2.16.2", "--bad", "2.21.0"]) == 1
    assert capsys.readouterr().out.startswith("no change larger than 5 % between 2.16.2 and 2.21.0")


@pytest.mark.parametrize(
    ("threads", "said"),
    [("1", "an idle machine, or with a larger"), ("2", "an idle machine, with --threads 1, or")],
)
def test_a_change_near_the_threshold_is_inconclusive_with_what_to_try(
    folder: Path, capsys: pytest.CaptureFixture[str], threads: str, said: str
) -> None:
    Interpreter.speeds = dict.fromkeys(VERSIONS[3:], 1.04)
    ends = ["--good", "2.16.2", "--bad", "2.21.0"]
    assert main([*BISECT, *ends, "--threads", threads]) == 1
    answer = capsys.readouterr().out
    assert answer.startswith("inconclusive: between 2.16.2 and 2.21.0, among 2.17.0, ")
    assert said in answer


def test_an_end_that_is_no_release_names_those_that_are(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*BISECT, "--good", "2.15.0", "--bad", "2.21.0"]) == 2
    assert "--good: no release '2.15.0'" in capsys.readouterr().err


def test_nothing_is_looked_up_while_another_run_is_active(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(**asked: object) -> NoReturn:
        raise BusyError("another benchmark run is active")

    asked: list[str] = []
    monkeypatch.setattr(bisect_command, "alone", busy)
    monkeypatch.setattr(bisect_command, "releases", asked.append)
    monkeypatch.setattr(bisect_command, "_origin", lambda options, case: asked.append("origin"))
    monkeypatch.setattr(bisect_command, "refuse_ref", lambda ref, models: None)
    for ends in (["2.16.2", "2.21.0"], ["git:main", "git:HEAD"]):
        assert main(["bisect", *LENET5, "--good", ends[0], "--bad", ends[1]]) == 2
        assert "another benchmark run is active" in capsys.readouterr().err
    assert asked == []


def test_a_bisection_between_two_names_of_one_commit_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    somewhere = Origin(repository=folder, folder=Path("models"), is_zoo=True)
    monkeypatch.setattr(bisect_command, "origin_of", lambda case, sources: somewhere)
    monkeypatch.setattr(bisect_command, "resolve_here", lambda repository, ref: "a" * 40)
    monkeypatch.setattr(bisect_command, "refuse_ref", lambda ref, models: None)
    assert main(["bisect", "--good", "git:main", "--bad", "git:HEAD", *LENET5]) == 2
    assert "must be another commit than --good, both are aaaaaaaaaaaa" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (["--devices", "all"], "--devices: bisect needs one device, such as cpu or gpu:0, got all"),
        (["--isolation", "none"], "--isolation: a comparison needs fresh processes, got none"),
        (["--models", "nets:small"], "--bad: {}: git knows no commit 'HAED'; did you mean HEAD?"),
    ],
)
def test_what_a_bisection_cannot_take_is_refused_before_anything_starts(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    asked: list[str],
    told: str,
) -> None:
    monkeypatch.setattr(Interpreter, "__enter__", None)
    (folder / "nets.py").write_text("def small(): ...\n")
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    git_commit = ("-c", "user.name=n", "-c", "user.email=e", "commit", "-qm", "x", "--allow-empty")
    subprocess.run(["git", *git_commit], cwd=folder, check=True)
    sides = ["--good", "git:HEAD", "--bad", "git:HAED"]
    assert main(["bisect", *sides, *LENET5, "--batch-sizes", "32", *asked]) == 2
    assert f"convmark bisect: {told.format(folder)}" in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_a_bisection_takes_the_commits_of_the_model_s_own_repository(folder: Path) -> None:
    """Of the zoo those of its folder; a model of one's own may read any file."""

    def git(*arguments: str) -> str:
        identity = ("-c", "user.name=n", "-c", "user.email=e@example.invalid")
        done = subprocess.run(
            ["git", *identity, *arguments], check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    git("init", "-q", "-b", "main")
    made = []
    for name in ("src/nets.py", "net.json", "src/nets.py"):
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(str(len(made)))
        git("add", name)
        git("commit", "-qm", name)
        made.append(git("rev-parse", "HEAD")[:12])
    own = Origin(repository=folder, folder=Path("src"), is_zoo=False)
    assert bisect_command._commits(own, made[0], "main") == made
    assert bisect_command._commits(replace(own, is_zoo=True), made[0], "main") == made[::2]
    with pytest.raises(OptionError, match="needs the model in a git repository"):
        bisect_command._commits(None, "main~1", "main")
