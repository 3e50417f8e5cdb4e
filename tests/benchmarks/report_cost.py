"""What a large report costs: seconds, memory and page size of generated histories.

    python tests/benchmarks/report_cost.py [RUNS ...]      default: 1000, which are 100,000 rows

Each run has one row of each of 100 cases, on one of 3 machines.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from report_rows import keep_run, measured

CASES, MACHINES = 100, 3
GOAL_S, GOAL_MEMORY, GOAL_PAGE = 10.0, 2**30, 8 * 10**6


def write_history(folder: Path, runs: int) -> None:
    """Write the runs; as in a real history, each is a file of its own."""
    for run in range(1, runs + 1):
        machine = f"machine-{run % MACHINES}"
        keep_run(
            folder,
            [
                measured(machine, run % 300, f"model_{case // 4}", 1, batch_size=4 ** (case % 4))
                for case in range(CASES)
            ],
            name=f"{run:05d}",
        )


def main(sizes: list[int]) -> None:
    """Print one line per size."""
    print("rows      files   seconds    peak memory     page    (goal for 100,000 rows: "
          f"{GOAL_S:g} s, {GOAL_MEMORY >> 20} MiB, {GOAL_PAGE / 1e6:g} MB)")  # fmt: skip
    for runs in sizes:
        with tempfile.TemporaryDirectory() as temporary:
            folder, page = Path(temporary) / "results", Path(temporary) / "report.html"
            write_history(folder, runs)
            command = [sys.executable, "-m", "convmark.cli", "report", str(folder), "-o", str(page)]
            began = time.perf_counter()
            process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
            _, status, used = os.wait4(process.pid, 0)
            seconds = time.perf_counter() - began
            if os.waitstatus_to_exitcode(status):
                sys.exit(f"the report of {runs} runs failed: {' '.join(command)}")
            memory = used.ru_maxrss * 1024
            print(
                f"{runs * CASES:<9,} {runs:<7,} {seconds:<10.1f} {memory >> 20:>6,} MiB    "
                f"{page.stat().st_size / 1e6:>6.2f} MB"
            )


if __name__ == "__main__":
    main([int(text) for text in sys.argv[1:]] or [1000])
