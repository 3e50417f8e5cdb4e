"""What the tests of faults share: runs in a process of their own, on workers that cost nothing."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil
from forks import COMMAND, SESSION, STARTED, Forked, Forks

from convmark.results.reading import StoreWarning, read_run
from convmark.results.record import Record

CODE = {"convmark": COMMAND, "pytest": SESSION}
HARNESS: list[Forks] = []
"""What forks commands, where the fixture `forked_commands` has put it."""
FAST = ("--tasks", "train", "--batch-sizes", "1")
"""Options of a run whose cases are its models, one each."""


def fast_python(folder: Path) -> Path:
    """Return an interpreter that measures nothing and is there in 30 ms."""
    script = folder / "fast_python"
    worker = Path(__file__).with_name("fast_worker.py")
    command = shlex.join([sys.executable, "-S", "-E", str(worker)])
    script.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
    script.chmod(0o755)
    return script


def start(
    *command: str,
    folder: Path,
    before: Callable[[], Any] | None = None,
    through: tuple[str, ...] = (),
    environ: Mapping[str, str] | None = None,
) -> subprocess.Popen[str] | Forked:
    """Start `python -m` with the command, its output and errors together; by a fork where it can.

    Args:
        before: is called in the new process before the command.
        through: a command that starts this one, such as unshare.
    """
    if HARNESS and before is None and not through:
        given = {**os.environ, **(environ or {})}
        return HARNESS[-1].start(CODE[command[0]], *command[1:], cwd=folder, environ=given)
    process = subprocess.Popen(
        [*through, sys.executable, "-m", *command],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=before,
        env={**os.environ, **(environ or {})},
    )
    STARTED.append(process)
    return process


def measuring(
    *options: str, folder: Path, python: Path | None = None, **how: Any
) -> subprocess.Popen[str] | Forked:
    """Start `convmark run` on fast workers, its results below the folder."""
    fast = str(python or fast_python(folder))
    command = ("convmark", "run", "--python", fast, "--results", "results")
    return start(*command, *options, folder=folder, **how)


def run(*options: str, folder: Path, **how: Any) -> tuple[int, str, list[Record]]:
    """Have `convmark run` measure; return its status, what it said and the rows that it left."""
    process = measuring(*options, folder=folder, **how)
    output, _ = process.communicate(timeout=120)
    return process.returncode, output, rows_in(folder)


def run_files(folder: Path) -> list[Path]:
    """Return the run files below a folder, links followed."""
    found = [
        Path(at) / name for at, _, names in os.walk(folder, followlinks=True) for name in names
    ]
    return sorted(path for path in found if re.fullmatch(r"\d{4,}\.csv", path.name))


def rows_in(folder: Path) -> list[Record]:
    """Return all rows, each file read whole: a torn line would be an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", StoreWarning)
        return [row for path in run_files(folder) for row in read_run(path)]


def descendants(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


def fast_workers(pid: int) -> list[psutil.Process]:
    """Return the zygote of a run, then its workers and what these have started."""
    found = []
    for one in descendants(pid):
        with contextlib.suppress(psutil.NoSuchProcess):
            if "fast_worker.py" in " ".join(one.cmdline()):
                found.append(one)
    return found


def all_gone(processes: list[psutil.Process], within_s: float) -> bool:
    """Whether the processes have ended, or do so in time; a dead one that nobody fetched counts."""
    deadline = time.monotonic() + within_s
    while any(map(_lives, processes)):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def one_message(output: str) -> str:
    """Return what a run said besides its progress; it must hold no traceback."""
    assert "Traceback" not in output, output
    shown = re.compile(
        r"\[ *\d+/\d+\] |convmark: \d+ process(es)? to measure|convmark run: (load|gov)"
    )
    return "\n".join(line for line in output.splitlines() if line and not shown.match(line))
