"""What is today's for both codes of a gate, though its baseline's commit has it otherwise."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from gates import Patch, Run, Worker, head, live, new_commit, run, worker
from workers import git

from convmark.cli import main
from convmark.compare.files import read_verdicts
from convmark.compare.live.todays import changed_variables, todays
from convmark.core.options import Options, read
from convmark.core.pyproject import pyproject_settings

__all__ = ["Run", "Worker", "run", "worker"]
pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")

SETTINGS = "[tool.convmark]\ntime_budget = 0.5\nmargin = 0.03\nprocesses = 3\n"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    (tmp_path / "pyproject.toml").write_text(SETTINGS)
    (tmp_path / "nets.py").write_text("THREADS = 2\n")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "keras.json").write_text("{}")
    git(tmp_path, "init", "-q", "-b", "main")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "one")
    return tmp_path


def lines(repository: Path, *variables: str, typed: dict[str, str] | None = None) -> list[str]:
    """Return what is told of today's files beside the commit, without the commit."""
    options = read(typed or {}, pyproject_settings(repository))
    sha = head(repository).strip()
    told = todays(repository, sha, options=options, folder=repository, variables=variables)
    return [line.replace(f" from {sha[:12]}: both codes ran with today's", " ->") for line in told]


def test_options_whose_value_is_another_by_the_file_are_told(repository: Path) -> None:
    """However it is written, and but for those of which other words tell."""
    assert lines(repository) == []
    text = SETTINGS.replace("0.03", "0.1").replace("= 3", '= "3"').replace("0.5", "0.2")
    (repository / "pyproject.toml").write_text(f"{text}input-shape = '8x8x1'\n")
    told = "[tool.convmark] time-budget, input-shape differ -> settings"
    assert lines(repository) == [told]
    both = {"time_budget": "0.2", "input_shape": "8x8x1"}
    assert lines(repository, typed=both) == []  # the command line has the word for both codes
    (repository / "pyproject.toml").unlink()
    assert lines(repository) == ["[tool.convmark] time-budget differs -> settings"]


def test_options_are_told_where_the_commit_has_a_value_that_is_refused_today(
    repository: Path,
) -> None:
    """That value as it is written, and each other one too."""
    text = SETTINGS.replace("0.5", '"short"').replace("= 3", "= 2")
    (repository / "pyproject.toml").write_text(text)
    git(repository, "commit", "-qam", "of an earlier version")
    (repository / "pyproject.toml").write_text(SETTINGS)
    assert lines(repository) == ["[tool.convmark] processes, time-budget differ -> settings"]
    typed = {"time_budget": "0.2", "processes": "2"}
    assert lines(repository, typed=typed) == []


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("pytest.ini", "addopts = --convmark-threads=1", True),
        ("tox.ini", "commands = pytest bench --input-shape 8x8x1", True),
        (".github/workflows/gate.yml", "- run: pytest bench --convmark-allow-change='*'", True),
        (".github/workflows/gate.yml", "- run: uv venv --python 3.12 --seed", False),
        ("README.md", "pytest bench --convmark-threads=1", False),
    ],
)
def test_options_in_files_of_commands_are_told(
    repository: Path, name: str, text: str, told: bool
) -> None:
    (repository / name).parent.mkdir(parents=True, exist_ok=True)
    (repository / name).write_text(f"{text}\n")
    git(repository, "add", "-A")
    assert lines(repository) == [f"{name} differs -> options"] * told


def test_options_of_a_folder_that_has_not_the_commit_are_not_told(
    repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The models may lie in another repository than the suites."""
    elsewhere = tmp_path_factory.mktemp("suites")
    options = replace(Options(), time_budget_s=0.1)
    asked = {"options": options, "folder": elsewhere, "variables": ()}
    assert list(todays(repository, head(repository).strip(), **asked)) == []


def test_files_that_are_read_before_a_model_s_code_are_told(repository: Path) -> None:
    (repository / "home" / "keras.json").write_text('{"floatx": "float16"}')
    assert lines(repository) == ["home/keras.json differs ->"]


def test_a_file_counts_that_has_changed_in_a_line_with_a_variable_that_was_set(
    repository: Path,
) -> None:
    before = {"A": "1", "B": "1", "PYTEST_X": "1"}
    now = {"A": "1", "OMP_NUM_THREADS": "1", "CONVMARK_X": "1"}
    assert changed_variables(before, now) == ["B", "OMP_NUM_THREADS"]
    (repository / "nets.py").write_text("import os\nos.environ['OMP_NUM_THREADS'] = '1'\n")
    told = "nets.py differs -> variables (B, OMP_NUM_THREADS)"
    assert lines(repository, "B", "OMP_NUM_THREADS") == [told]
    assert lines(repository, "NUM_THREADS") == []


def test_a_gate_says_which_settings_both_of_its_codes_had(
    run: Run, pytester: pytest.Pytester, monkeypatch: Patch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both may be faster, or slower, by them alike, and no ratio tells."""
    live(monkeypatch, "unchanged", 0.0)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    new_commit(pytester)
    old = head(pytester.path)[:12]
    with (pytester.path / "pyproject.toml").open("a") as file:
        file.write("time_budget = 0.1\n")
    (pytester.path / "conftest.py").write_text("import os\nos.environ['OMP_NUM_THREADS'] = '1'\n")
    git(pytester.path, "add", "conftest.py")
    git(pytester.path, "commit", "-qam", "other settings")
    told = [
        f"[tool.convmark] time-budget differs from {old}: both codes ran with today's settings",
        f"conftest.py differs from {old}: both codes ran with today's variables (OMP_NUM_THREADS)",
    ]
    text = " ".join(run("--benchmark-compare=git:HEAD~1").stdout.str().split())
    assert all(f"convmark: {line} " in text for line in told)
    assert f"; {told[0]}; {told[1]} convmark: next: " in text
    (newest,) = pytester.path.glob("results/*/[0-9]*[0-9].csv")
    notes = [one.note for one in read_verdicts(newest) if one.metric == "step_time"]
    assert [note.endswith("; ".join(told)) for note in notes] == [True, True]
    monkeypatch.chdir(pytester.path)
    assert main(["comment"]) == 0
    assert f"Not compared: `{told[0]}`." in capsys.readouterr().out
    new_commit(pytester)
    run("--benchmark-compare=git:HEAD~1").stdout.no_fnmatch_line("*both codes ran*")
