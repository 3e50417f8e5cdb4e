"""No command prints a line that is wider than the terminal, but for what is pasted or one word."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from pathlib import Path

import fake_sides
import pytest
import scipy.special  # noqa: F401 - an in-process session forgets what it was first to import
from fake_sides import LENET5, Interpreter
from histories import keep_said
from report_rows import FAST, SLOW, results_of_two_machines
from rich_rows import rich_results
from test_plugin import SUITE
from test_snapshots import commands
from test_verdicts_file import judgement

from convmark.cli import main
from convmark.core.errors import BusyError
from convmark.core.fitting import Grid, fitted

folder = fake_sides.folder

WIDTHS = (80, 120, 200)
SAID = r"convmark(?: [\w-]+)*: "
PASTED = re.compile(rf"(?:{SAID})?(?!{SAID})(?:next: )?(?:convmark|pytest|Benchmark-Accept:) ")
"""A command; what a command says begins with its name too, and is none."""
CASE = "lenet5-train-cpu-b32-float32"
MODELS = ["--models", "lenet5,mini_inception,broken", "--batch-sizes", "1", "--processes", "2"]
OF_TWO = ["--results", "two"]

LINES: dict[str, list[list[str]]] = {
    "run": [
        [*MODELS],
        [*MODELS, "--resume"],
        [*MODELS, "--dry-run"],
        [*MODELS, "--shard", "1/3"],
        ["--models", "lenet6"],
        ["--models", "lenet5", "--layers"],
    ],
    "doctor": [[]],
    "list": [[], OF_TWO],
    "show": [["1"], ["latest", *OF_TWO, "--machine", SLOW]],
    "report": [[], ["two"], ["rich"], ["two", "--style", "applications"]],
    "compare": [["1"], ["1", "2"], ["--across", "tensorflow", *OF_TWO, "--machine", SLOW], ["9"]],
    "comment": [["two", "--badge", "list.txt"]],
    "accept": [["1", "--reason", "a wider layer and many other words " * 4]],
    "history": [[CASE], ["vgg16"]],
    "merge": [["two", "--results", "whole"]],
    "fleet doctor": [["--ray", ""]],
    "ab": [
        ["2.20.0", "2.21.0", *LENET5, "--layers"],
        ["--dry-run"],
        ["--set-a", "jit=maybe", *LENET5],
    ],
    "layers": [["lenet5", "--ceilings", "off"], ["lenet6"]],
    "bisect": [["--good", "1", "--bad", "3", "--versions", "1,2,3", *LENET5], ["--good", "1"]],
    "noise": [["--models", "lenet5", "--devices", "cpu", "--seconds", "9"]],
    "env list": [[]],
    "env make": [["=="]],
    "env remove": [["nothing-of-this-name"]],
    "export": [["--to", "openmetrics", "-o", "figures.prom", "two"], ["--to", "otava", "two"]],
    "check-submission": [["two"]],
    "publish": [["two", "-o", "site"], ["two", "-o", "two/site"]],
}
"""Command lines of every command, good ones and bad ones."""


def test_every_command_has_its_lines() -> None:
    named = {" ".join(words) for words in commands()}
    groups = {name.partition(" ")[0] for name in named if " " in name}
    assert set(LINES) == named - groups


def too_wide(text: str, width: int) -> list[str]:
    """Return the lines that could be broken, and are wider than the terminal."""
    wide = [line for line in text.splitlines() if len(line) > width]
    return [
        line
        for line in wide
        if not PASTED.match(line) and len(max(line.split(), key=len)) + 8 <= width
    ]


@pytest.fixture
def filled(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with results of several kinds, and stand-ins for all that measures."""
    monkeypatch.setattr("convmark.machine.hardware.load_nvml", lambda: None)
    monkeypatch.setenv("CONVMARK_CACHE", str(folder / "cache"))
    results_of_two_machines(folder / "x")
    (folder / "x" / "results").rename(folder / "two")
    keep_said(folder / "two" / SLOW, judgement(run="0004"), judgement(run="0004", case="b" * 40))
    keep_said(folder / "two" / FAST, judgement(run="0002", fails=False, verdict="unchanged"))
    rich_results(folder / "y")
    (folder / "y" / "results").rename(folder / "rich")
    (folder / "list.txt").write_text("no badge")
    Interpreter.speeds = {"2.21.0": 1.1}
    return folder


def said(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    with contextlib.suppress(SystemExit):
        main(arguments)
    printed = capsys.readouterr()
    return printed.err + printed.out


def wrong(command: str) -> str:
    """Return a command as it is mistyped."""
    return command[:1] + command[2:]


TABLES = {"run", "list", "show", "report", "compare", "history", "ab", "layers"}
"""Commands that print tables for a terminal; the others print lines."""


def words(text: str) -> set[str]:
    """Return the words of a text, without the marks and lines that a layout adds."""
    bare = {word.strip(",:") for word in text.split()}
    return {word for word in bare if word.strip("-")}


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> list[set[str]]:
    """Each table that is fitted into the terminal is held to its cells; counted are its words."""
    seen = []

    def checked(grid: Grid, width: int, drawn: Callable[[Grid], str]) -> str:
        text = fitted(grid, width, drawn)
        cells = words(" ".join([*grid.labels, *(cell for row in grid.rows for cell in row)]))
        assert words(text) - cells <= {"in", "every", "row"}
        lines = " ".join(text.split())
        for row in grid.rows:
            for cell, is_number in zip(row, grid.numeric, strict=True):
                assert (cell in text) if is_number else (" ".join(cell.split()) in lines)
        seen.append(cells)
        return text

    monkeypatch.setattr("convmark.core.table.fitted", checked)
    return seen


@pytest.mark.parametrize("width", WIDTHS)
def test_no_line_of_a_command_is_wider_than_the_terminal_and_no_word_of_a_table_is_broken(
    width: int, filled: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    tables: list[set[str]],
) -> None:  # fmt: skip
    monkeypatch.setenv("COLUMNS", str(width))
    found = {}
    with_tables = set()
    for command, lines in LINES.items():
        for arguments in [*lines, ["--nonsense", "a word " * 30]]:
            tables.clear()
            text = said([*command.split(), *arguments], capsys)
            assert text, (command, arguments)
            found[f"{command} {arguments}"] = too_wide(text, width)
            if tables:
                with_tables.add(command)
        found[wrong(command)] = too_wide(said([wrong(command)], capsys), width)
        found[f"{command} --help"] = too_wide(said([*command.split(), "--help"], capsys), width)
    assert {name: lines for name, lines in found.items() if lines} == {}
    assert with_tables == TABLES


def test_another_run_is_named_in_lines_of_the_terminal(
    filled: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("convmark.session.session.alone", busy)
    text = said(["run", "--models", "lenet5"], capsys)
    assert text.startswith("convmark run: another benchmark run is active, process 7, and the ")
    assert max(map(len, text.splitlines())) <= 80


def test_a_path_is_in_one_line_whatever_spaces_it_has(
    filled: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    results = "results of a machine whose folder has a name that goes on beyond a line of 80"
    text = said(["run", *LENET5, "--results", results], capsys)
    (path,) = Path(results).glob("*/0001.csv")
    assert str(path) in text
    text = said(["ab", "2.20.0", "2.21.0", *LENET5, "--results", results], capsys)
    assert str(Path(results) / "ab" / "0001.csv") in text


def busy(**_: object) -> None:
    raise BusyError(
        "another benchmark run is active, process 7, and the two would disturb each other: wait "
        "for it with --wait, or measure anyway with --allow-concurrent"
    )


@pytest.mark.parametrize("width", WIDTHS)
def test_no_line_of_pytest_is_wider_than_the_terminal(
    width: int, pytester: pytest.Pytester, filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.chdir(pytester.path)
    (pytester.mkdir("bench") / "test_speed.py").write_text(SUITE)
    (pytester.path / "pyproject.toml").write_text(
        "[tool.pytest.ini_options]\n[tool.convmark]\nshort_options = true\n"
    )
    session: Callable[..., pytest.RunResult] = pytester.runpytest_inprocess
    for options in (
        ["--models=lenet5,broken"],
        ["--models=lenet5", "--benchmark-compare", "--compare-budget=0"],
        ["--models=lenet5", "--dry-run", "--benchmark-compare"],
        ["--models=lenet5,broken", "--resume=0001"],
        ["--models=lenet6"],
        ["--batch-sizes=auto", "--benchmark-compare"],
        ["--benchmark-compare=git:no-such-ref"],
        ["--resmue", "x"],
        ["--model=lenet5"],
    ):
        result = session("bench", "-p", "no:cacheprovider", *options)
        ours = [
            line
            for line in [*result.outlines, *result.errlines]
            if not re.match(
                r"(rootdir|plugins|platform|configfile|benchmark|FAILED|bench/|  /|\.\./)", line
            )
        ]
        assert too_wide("\n".join(ours), width) == [], options
