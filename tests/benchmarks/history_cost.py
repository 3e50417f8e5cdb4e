"""What a long history costs: `compare`, the plugin's judging and `history`, in seconds and memory.

    python tests/benchmarks/history_cost.py [--runs 10,100,1000,10000] [--cases 100] [--metrics 3]

Writes one history that grows, 100 rows a run, with verdicts; runs each command in a process of its
own and prints one Markdown table: seconds of the clock and of CPU time, and the peak of memory,
imports included.
"""

from __future__ import annotations

import argparse
import csv
import io
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tabulate import tabulate

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from histories import MACHINE, process

from convmark.compare.files import verdicts_path
from convmark.compare.index import SETTLED_S
from convmark.compare.judgement import Judgement
from convmark.results.reading import HEADER
from convmark.results.record import ASCENDING, COLUMNS, Record, to_cells

SETTLED = "seconds until the index takes a file for whole (default: %(default)s)"
RUN, RATIO, STEP = "99990001", 0.0123456789, 0.0987654321
"""Stand in the template of a row where each run has its own value."""

FILL = {int: 12_345_678, float: 0.0234567890123456, bool: False}
"""A typical value of each type, so that rows are as long as those of a run."""

CASE = "model7-train-cpu-b32-float32"
METRICS = (
    "step_time",
    "throughput",
    "parameters",
    "model_bytes",
    "peak_host_memory",
    "latency_p50",
)


def whole_row(place: int, **changes: object) -> Record:
    """Return a row with every column filled that a run on a CPU fills."""
    empty = {column.name for column in COLUMNS if column.group != "run" and "gpu" in column.meaning}
    typical = {
        column.name: FILL[column.type]
        for column in COLUMNS
        if column.group in ("size", "time", "memory", "state") and column.type in FILL
    }
    typical |= {"throttle_reasons": None, "not_judged": None, "paired_log_ratio_se": 0.001}
    facts = {name: value for name, value in typical.items() if name not in empty}
    return process(
        **{
            **facts,
            "run": RUN,
            "model": f"model{place}",
            "order": place + 1,
            "reference": "large",
            "measurement_version": "abc",
            "reference_version": 1,
            "other_cpu_share": 0.2,
            "paired_log_ratio": RATIO,
            **dict.fromkeys((*ASCENDING, "step_time_mean_s"), STEP),
            "step_time_std_s": 0.0,
            "time_to_first_step_s": 2.5 * FILL[float],
            "throughput_samples_per_s": 32 / STEP,
            "cpu": "Intel(R) Xeon(R) Platinum 8259CL CPU @ 2.50GHz",
            "os": "Linux 6.8.0 (Ubuntu 24.04)",
            **changes,
        }
    )


def lines_of(rows: Sequence[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


class Writer:
    """Writes runs from templates: a million rows in seconds."""

    def __init__(self, folder: Path, cases: int, metrics: int) -> None:
        self._folder = folder / "results" / MACHINE
        self._folder.mkdir(parents=True)
        self._cases, self._metrics = cases, METRICS[:metrics]
        self._rows = [lines_of([to_cells(whole_row(place))]) for place in range(cases)]
        self._other = [
            lines_of([to_cells(whole_row(place, tensorflow="2.22.0"))]) for place in range(cases)
        ]
        self._rng = np.random.default_rng(0)
        self.runs = 0

    def grow(self, runs: int) -> None:
        """Add runs until there are so many."""
        while self.runs < runs:
            self.runs += 1
            path = self._folder / f"{self.runs:04d}.csv"
            path.write_text(self._run(self._rows, path.stem))
            verdicts_path(path).write_text(self._said(path.stem))

    def upgraded(self, path: Path) -> Path:
        """Write a run after the newest under another TensorFlow: nothing there is comparable."""
        path.write_text(self._run(self._other, f"{self.runs + 1:04d}"))
        return path

    def _run(self, rows: Sequence[str], run: str) -> str:
        levels = self._rng.normal(0, 0.01, len(rows))
        steps = 0.01 * np.exp(levels)
        told = zip(rows, levels.tolist(), steps.tolist(), strict=True)
        return lines_of([HEADER]) + "".join(
            row.replace(RUN, run).replace(str(RATIO), repr(level)).replace(str(STEP), repr(step))
            for row, level, step in told
        )

    def _said(self, run: str) -> str:
        return lines_of([list(Judgement.__dataclass_fields__)]) + "".join(
            f"{run},model{place}-train-cpu-b32-float32,model{place},train,cpu,32,float32,off,"
            f"default,{metric},s,0.0101,0.0100,-0.01,-0.02,0.01,unchanged,0.021,0001 0002,"
            "a change of 5 % is ruled out,false,0001,\n"
            for place in range(self._cases)
            for metric in self._metrics
        )


PLUGIN = """
import sys
from pathlib import Path
from types import SimpleNamespace
from convmark.core.case import Case
from convmark.compare.history import accepted_history
from convmark.compare.verdict import conclude, review
from convmark.plugin.bridge import CsvStorage
from convmark.results.reading import read_run
from convmark.results.store import Store
store, machine = Store(Path(sys.argv[1])), sys.argv[2]
records = read_run(Path(sys.argv[3]))
campaign = SimpleNamespace(
    store=store,
    machine=SimpleNamespace(name=machine),
    cases=[row.case for row in records],
    resumed=None,
)
newest = list(CsvStorage(campaign, None).load())
judgements = conclude(review(records, accepted_history(store, machine, records)))
assert newest and judgements, (len(newest), len(judgements))
"""


@dataclass(frozen=True)
class Cost:
    seconds: float
    busy_s: float
    """Of CPU time: what a busy machine leaves as it is."""
    peak_bytes: int

    def __str__(self) -> str:
        peak = f"{self.peak_bytes / 2**20:.0f} MiB"
        return f"{self.seconds:.1f} s, {self.busy_s:.2f} s of CPU, {peak}"


def cost(arguments: Sequence[str], folder: Path, cache: Path | str) -> Cost:
    """Run a command in a process of its own; it must end well."""
    environ = {**os.environ, "CONVMARK_CACHE": str(cache)}
    began = time.perf_counter()
    child = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=folder,
        env=environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    said = child.stderr.read() if child.stderr else b""
    _, status, used = os.wait4(child.pid, 0)
    seconds = time.perf_counter() - began
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode not in (0, 1) or b"Traceback" in said:  # 1: something regressed
        sys.exit(f"{' '.join(arguments)} ended with {child.returncode}: {said.decode()}")
    return Cost(seconds, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024)


def costs(folder: Path, writer: Writer) -> dict[str, Cost]:
    """Measure every command on the history as it is."""
    cache, nowhere = folder / "cache", "/dev/null/nowhere"
    shutil.rmtree(cache, ignore_errors=True)
    newest = f"results/{MACHINE}/{writer.runs:04d}.csv"
    upgraded = str(writer.upgraded(folder / "upgraded.csv"))
    command = ["-m", "convmark"]
    plugin = ["-c", PLUGIN, "results", MACHINE]
    asked = {
        "compare, no index": ([*command, "compare", newest], nowhere),
        "plugin, no index": ([*plugin, newest], nowhere),
        "history, index cannot be kept": ([*command, "history", CASE], nowhere),
        "history, makes the index": ([*command, "history", CASE], cache),
        "history, index": ([*command, "history", CASE], cache),
        "compare, index": ([*command, "compare", newest], cache),
        "compare after an upgrade, index": (
            [*command, "compare", upgraded, "--machine", MACHINE],
            cache,
        ),
        "plugin, index": ([*plugin, newest], cache),
        "plugin after an upgrade, index": ([*plugin, upgraded], cache),
    }
    found = {name: cost(how, folder, where) for name, (how, where) in asked.items()}
    writer.grow(writer.runs + 1)
    found["history, one run later"] = cost([*command, "history", CASE], folder, cache)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", default="10,100,1000,10000")
    parser.add_argument("--cases", type=int, default=100)
    parser.add_argument("--metrics", type=int, default=3, help="verdicts of a case, at most 6")
    parser.add_argument("--settled", type=float, default=SETTLED_S + 0.5, help=SETTLED)
    given = parser.parse_args()
    sizes = sorted(map(int, given.runs.split(",")))
    table: dict[str, list[str]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        writer = Writer(Path(temporary), given.cases, given.metrics)
        for runs in sizes:
            began = time.perf_counter()
            writer.grow(runs)
            time.sleep(given.settled)
            print(f"{runs} runs written in {time.perf_counter() - began:.0f} s", file=sys.stderr)
            for name, found in costs(Path(temporary), writer).items():
                print(f"{runs}: {name}: {found}", file=sys.stderr)
                table.setdefault(name, []).append(str(found))
    headers = ["", *(f"{runs:,} runs" for runs in sizes)]
    print(tabulate([[name, *cells] for name, cells in table.items()], headers, tablefmt="pipe"))


if __name__ == "__main__":
    main()
