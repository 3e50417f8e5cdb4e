"""Forks command lines of convmark off one process that has imported it, and kills them in time.

Its argument is a file of orders. Each line is a JSON object: `argv`, `folder`, `output` (a file),
`kill_after_s` (None to let it end), `since_file` (whether that counts from the results file's
making instead of the process's), `piece` (bytes that each write takes at most, 0 for all) and
`torn` (whether to wait until a line is half written, then). Each line of standard output has that
process's status and the seconds between the file's making and its end. Not a test itself.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy  # noqa: F401 - what follows is imported before the first fork, for that is the point

import convmark.cli.run
import convmark.report.summary
import convmark.session.ceilings
import convmark.session.progress  # noqa: F401
from convmark.cli import main

_PR_SET_PDEATHSIG = 1


def _become(order: dict[str, Any]) -> None:
    """Run the command line in this fork, as a process of its own would."""
    status = 99
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        os.chdir(order["folder"])
        output = os.open(order["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(output, 1)
        os.dup2(output, 2)
        if order["piece"]:
            _write_in_pieces(order["piece"])
        status = main(order["argv"])
        sys.stdout.flush()
    finally:
        os._exit(status)


def _write_in_pieces(size: int) -> None:
    """Have each write to a file take `size` bytes and a moment, so that a kill can tear a line."""
    write = os.write

    def slowly(descriptor: int, data: Any) -> int:
        time.sleep(0.001)
        return write(descriptor, bytes(data)[:size])

    os.write = slowly


def serve() -> None:
    """Answer each line of the file."""
    signal.alarm(0)  # a fork of the tests' is ended in time; this one serves many of them
    with open(sys.argv[1], encoding="utf-8") as orders:
        for line in orders:
            order = json.loads(line)
            sys.stdout.flush()
            pid = os.fork()
            if pid == 0:
                _become(order)
            print(*_ended(pid, order), flush=True)


def _ended(pid: int, order: dict[str, Any]) -> tuple[int, float]:
    """Kill the process in time, and return its status and how long it lasted."""
    made_s = _await_file(order, pid) if order["since_file"] else time.monotonic()
    if order["kill_after_s"] is not None:
        time.sleep(order["kill_after_s"])
        while order["torn"] and not _is_torn(order) and not _has_ended(pid):
            time.sleep(0.0005)
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status), time.monotonic() - made_s


def _await_file(order: dict[str, Any], pid: int) -> float:
    """Return the time at which the run's file is there, or the process has ended without."""
    while not _files(order) and not _has_ended(pid):
        time.sleep(0.001)
    return time.monotonic()


def _is_torn(order: dict[str, Any]) -> bool:
    """Whether the run's file ends within a line."""
    return any(not path.read_bytes().endswith(b"\n") for path in _files(order))


def _files(order: dict[str, Any]) -> list[Path]:
    return list(Path(order["folder"]).glob("results/*/*.csv"))


def _has_ended(pid: int) -> bool:
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


if __name__ == "__main__":
    serve()
