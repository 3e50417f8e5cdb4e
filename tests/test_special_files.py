"""A pipe where a file of results should be is refused or passed over: no reader waits for it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest
from report_rows import FAST, results_of_two_machines

from convmark.cli import main

LIMIT_S = 30


@pytest.fixture(autouse=True)
def time_limit() -> Iterator[None]:
    def ends(number: int, frame: FrameType | None) -> None:
        raise AssertionError(f"waited for a pipe for {LIMIT_S} s")

    before = signal.signal(signal.SIGALRM, ends)
    signal.alarm(LIMIT_S)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


COMMANDS = {
    "report": ["report", "results", "-o", "page.html"],
    "history": [
        "history",
        "lenet5-train-cpu-b32-float32",
        "--results",
        "results",
        "--machine",
        FAST,
    ],
    "compare": ["compare", "--across", "tensorflow", "--results", "results", "--machine", FAST],
    "merge": ["merge", "results", "--results", "merged"],
}
FILES = [
    "0001.csv",
    "0003.csv",
    "0001.steps.npz",
    "0001.epochs.csv",
    "0001.code.json",
    "0001.part.json",
    "0001.verdicts.csv",
    "accepted.csv",
    "verdicts.csv",
    "ceilings.csv",
    "noise.csv",
]


@pytest.mark.filterwarnings("ignore::convmark.results.reading.StoreWarning")
@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_a_pipe_among_the_results_is_refused_or_passed_over(
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = results_of_two_machines(tmp_path) / FAST
    for name in FILES:
        kept = (folder / name).read_bytes() if (folder / name).exists() else None
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)
        status = main([word.replace("merged", f"merged-{name}") for word in COMMANDS[command]])
        printed = capsys.readouterr()
        if status:
            assert f"{name}: " in printed.err, printed
            assert "must be a regular file, it is a pipe" in printed.err
            assert len(printed.err.splitlines()) < 5
        (folder / name).unlink()
        if kept is not None:
            (folder / name).write_bytes(kept)
