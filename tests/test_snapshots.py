"""What the commands print, held against stored texts; `snapshots` says how to renew them."""

from __future__ import annotations

import argparse
import csv
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import fake_worker
import pytest
import scipy.special  # noqa: F401 - an in-process session forgets what it was first to import
from histories import MACHINE, keep, run_of
from report_rows import SLOW, keep_prices, results_of_two_machines
from rich_rows import rich_results
from snapshots import check, plain, session
from test_plugin import SUITE

from convmark.cli import main
from convmark.cli.parsers import parsers
from convmark.results.store import Store

LENET = "lenet5-train-cpu-b32-float32"
ONE = ("--models", "lenet5", "--tasks", "train")

OF_THE_MACHINE = (
    *("started", "convmark", "commit", "dirty", "plan", "machine", "node", "cpu", "cores"),
    *("ram_bytes", "gpu", "gpu_memory_bytes", "driver", "gpu_uuid", "compute_capability"),
    *("driver_cuda", "pcie", "ecc", "mig", "power_limit_w", "max_sm_clock_mhz"),
    *("max_memory_clock_mhz", "os", "flags", "command_started", "took_s"),
)
"""Columns whose cells vary from machine to machine or from run to run."""


@pytest.fixture
def transcript(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Returns what a command prints with its exit status, in a folder without results."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("CONVMARK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("convmark.interpreter.Interpreter", fake_worker.FakeInterpreter)
    monkeypatch.setattr("convmark.machine.hardware.load_nvml", lambda: None)

    def printed(*arguments: str) -> str:
        try:
            status: object = main(arguments)
        except SystemExit as left:
            status = left.code
        out, err = capsys.readouterr()
        return plain(f"$ convmark {' '.join(arguments)}\n{err}{out}exit {status}\n\n", tmp_path)

    return printed


def test_help_of_every_command(transcript: Callable[..., str]) -> None:
    pages = [transcript("--help"), *(transcript(*words, "--help") for words in sorted(commands()))]
    wrapped = re.compile(r"\n {20,}")  # where a line is broken depends on the version of Python
    check("help", wrapped.sub(" ", "".join(pages)))


def commands() -> Iterator[tuple[str, ...]]:
    """Every command, and every action of a command."""
    for name, parser in parsers()[1].items():
        yield (name,)
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                yield from ((name, choice) for choice in action.choices)


def test_help_of_the_options_of_pytest(pytester: pytest.Pytester) -> None:
    lines = pytester.runpytest_inprocess("--help").outlines
    begin = next(place for place, line in enumerate(lines) if line.startswith("convmark"))
    end = next(place for place in range(begin + 1, len(lines)) if not lines[place].startswith(" "))
    shown = re.sub(r"\n {20,}", " ", "\n".join(lines[begin:end]))
    check("pytest_help", plain(shown))


def test_runs_and_what_can_be_asked_of_their_rows(
    transcript: Callable[..., str], tmp_path: Path
) -> None:
    models = ("run", "--models", "lenet5,broken", "--batch-sizes", "1", "--ceilings", "off")
    learned = ("--tasks", "accuracy,waterfall", "--seeds", "2", "--mnist", "digits.npz")
    case = LENET.replace("b32", "b1")
    found = [
        transcript(*models, "--processes", "2"),
        transcript("run", "--models", "lenet5", *learned),
        transcript("run", *ONE, "--replicas", "1,2", "--ceilings", "off", "--describe"),
        transcript("compare", "0001", "0001"),
        transcript("history", case),
        transcript("accept", "0001", "--reason", "the first"),
        transcript(*models, "--processes", "2", "--resume"),
        transcript(*models, "--processes", "2", "--resume", "0001"),
        transcript("merge", "results", "--results", "joined"),
        transcript("env", "list"),
    ]
    check("run", "".join(found))
    first, second, _ = sorted(tmp_path.glob("results/*/000?.csv"))
    check("rows", "".join(cells(row) for path in (first, second) for row in newest(path)))


def newest(path: Path) -> list[dict[str, str]]:
    """Return the last row of each model and task, cell by cell."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = {(row["model"], row["task"]): row for row in csv.DictReader(file)}
    return [rows[key] for key in sorted(rows)]


def cells(row: dict[str, str]) -> str:
    known = {name: text for name, text in row.items() if name not in OF_THE_MACHINE}
    text = "".join(f"{name} {text}\n" for name, text in known.items() if text) + "\n"
    return re.sub(r"(\d\.\d{7})\d+", r"\1", text)  # the last digits depend on the version of NumPy


def test_what_doctor_tells_of_a_machine(transcript: Callable[..., str]) -> None:
    told = transcript("doctor").partition("What will make")[0]
    check("doctor", re.sub(r"(?m)^(  \S.*?)  .*(?:\n {4,}.*)*$", r"\1", told))


def test_judgements_of_a_history(transcript: Callable[..., str]) -> None:
    store = Store(Path("results"))
    for number in range(1, 11):
        keep(store, run_of(f"{number:04d}", -0.005, 0.005, code="c1"))
    keep(store, run_of("0011", 0.3, 0.31, code="c2", parameters=61_707))
    forms = ("text", "markdown", "json", "github")
    found = [transcript("compare", "--machine", MACHINE, "--format", form) for form in forms]
    found += [
        transcript("compare", "1", "2"),
        transcript("compare", "--allow-change", "lenet5-*"),
        transcript("history", LENET, "--machine", MACHINE),
    ]
    keep(store, run_of("0012", -0.1, -0.11, tensorflow="2.22.0"))
    found.append(transcript("compare"))
    found.append(transcript("compare", "--across", "tensorflow"))
    check("judgements", "".join(found))


@pytest.mark.parametrize("form", ["markdown", "text"])
def test_a_report_of_two_machines(transcript: Callable[..., str], form: str) -> None:
    results_of_two_machines(Path())
    keep_prices(Path(), SLOW)
    check(f"report_{form}", transcript("report", "--format", form, "--prices", "prices.toml"))


def test_a_report_of_all_kinds_of_rows(transcript: Callable[..., str]) -> None:
    rich_results(Path())
    blocks = re.sub(r" {3,}", "  ", re.sub(r"-{4,}", "---", transcript("report"))).split("\n\n")
    check("report_rich", "\n\n".join("\n".join(block.split("\n")[:8]) for block in blocks))


def test_sessions_of_pytest(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    class Worker(fake_worker.FakeInterpreter):
        """One whose speed this test changes."""

    monkeypatch.setattr("convmark.interpreter.Interpreter", Worker)
    monkeypatch.setattr("convmark.machine.hardware.load_nvml", lambda: None)
    monkeypatch.setenv("COLUMNS", "100")
    (pytester.mkdir("bench") / "test_speed.py").write_text(SUITE)
    (pytester.path / "pyproject.toml").write_text("[tool.pytest.ini_options]\n[tool.convmark]\n")

    def printed(*options: str) -> str:
        shown = session(
            pytester.runpytest_inprocess("bench", "-p", "no:cacheprovider", *options), pytester.path
        )
        return f"$ pytest bench {' '.join(options)}\n{shown}"

    found = [
        printed("--convmark-models=lenet5,broken", "--convmark-processes=2"),
        printed("--convmark-models=lenet6"),
        printed("--collect-only", "-q"),
        printed(),
    ]
    Worker.factor = 1.2
    found.append(printed("--benchmark-compare=0002", "--benchmark-compare-fail=median:5%"))
    found.append(printed("--benchmark-compare"))
    check("pytest", "".join(found))
