"""What a large report costs: seconds, memory and page size of generated histories.

    python tests/benchmarks/report_cost.py [RUNS ...]      default: 1000, which are 100,000 rows

Each run has one row of each of 100 cases, on one of 3 machines.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from report_rows import measured

from convmark.results.record import to_cells
from convmark.results.store import HEADER

CASES, MACHINES = 100, 3
GOAL_S, GOAL_MEMORY, GOAL_PAGE = 10.0, 2**30, 3 * 10**6


DRAWN = 30
"""Runs whose figures are drawn; the others repeat them, for drawing a million rows takes long."""

RUN, STARTED, COMMIT, MACHINE, TENSORFLOW = (
    HEADER.index(name) for name in ("run", "started", "commit", "machine", "tensorflow")
)


def write_history(folder: Path, runs: int, machines: int = MACHINES, versions: int = 0) -> None:
    """Write the runs; as in a real history, each is a file of its own.

    Args:
        versions: of TensorFlow, that follow one another; 0 for those of the drawn rows.
    """
    drawn: dict[int, list[list[str]]] = {}
    first = datetime(2024, 1, 1, tzinfo=timezone.utc)
    for run in range(1, runs + 1):
        machine, place = f"machine-{run % machines}", run % DRAWN
        rows = drawn.get(place)
        if rows is None:
            rows = drawn[place] = [
                to_cells(measured(machine, place, f"model_{case // 4}", 1,
                                  batch_size=4 ** (case % 4)))
                for case in range(CASES)
            ]  # fmt: skip
        for row in rows:
            row[RUN], row[COMMIT] = f"{run:05d}", f"{run // 2:040x}"
            row[MACHINE] = machine
            if versions:
                row[TENSORFLOW] = f"2.{run // machines % versions}.0"
            row[STARTED] = (first + timedelta(hours=run)).isoformat(timespec="milliseconds")
        path = folder / machine / f"{run:05d}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([HEADER, *rows])


def main(sizes: list[int]) -> None:
    """Print one line per size."""
    goal = f"{GOAL_S:g} s, {GOAL_MEMORY >> 20} MiB, {GOAL_PAGE / 1e6:g} MB"
    print(f"rows      files   seconds    of CPU    peak memory    page    at 100,000: {goal}")
    for runs in sizes:
        with tempfile.TemporaryDirectory() as temporary:
            folder, page = Path(temporary) / "results", Path(temporary) / "report.html"
            write_history(folder, runs)
            command = [sys.executable, "-m", "convmark", "report", str(folder), "-o", str(page)]
            began = time.perf_counter()
            process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
            _, status, used = os.wait4(process.pid, 0)
            seconds = time.perf_counter() - began
            if os.waitstatus_to_exitcode(status):
                sys.exit(f"the report of {runs} runs failed: {' '.join(command)}")
            memory, busy = used.ru_maxrss * 1024, used.ru_utime + used.ru_stime
            print(
                f"{runs * CASES:<9,} {runs:<7,} {seconds:<10.1f} {busy:<9.1f} "
                f"{memory >> 20:>6,} MiB    {page.stat().st_size / 1e6:>6.2f} MB"
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("runs", type=int, nargs="*", default=[1000], help=f"of {CASES} rows each")
    main(parser.parse_args().runs)
