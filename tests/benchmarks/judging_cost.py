"""What judging a run of 100 cases costs after 10, 100 and 1,000 runs of history.

Run it from the checkout: `python tests/benchmarks/judging_cost.py [--runs N,N] [--cases N]`. It
writes generated rows to a temporary folder, judges each history twice in a process of its own, and
prints a markdown table: seconds without and with the imports, then with what the first process has
kept in the index; the peak of memory and the runs that are judged against are the first one's.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from histories import A_COMMIT, ANOTHER_COMMIT, MACHINE, keep, process

from convmark.compare.index import SETTLED_S
from convmark.results.store import Store

SETTLED = "seconds until the index takes a file for whole (default: %(default)s)"
HISTORIES = ("one commit", "a new case", "another TensorFlow", "another commit each", "load moved")


def write(folder: Path, runs: int, cases: int, kind: str) -> None:
    """Write a history, and after it the run that is to be judged."""
    rng = np.random.default_rng(0)
    for number in range(1, runs + 2):
        last = number == runs + 1
        fresh = kind == "another commit each" and number > 1
        commit = f"{number:07x}" + ANOTHER_COMMIT[7:] if fresh else A_COMMIT
        facts = {
            "run": f"{number:04d}",
            "commit": commit,
            "tensorflow": "2.20.0" if kind == "another TensorFlow" and not last else "2.21.0",
            "other_cpu_share": 0.6 if kind == "load moved" and last else 0.2,
        }
        levels = rng.normal(0, 0.01, cases)
        rows = [
            process(
                model=f"model{place}" if place or not last or kind != "a new case" else "newcomer",
                order=place + 1,
                paired_log_ratio=float(level),
                cpu="Intel(R) Xeon(R) Platinum 8259CL CPU @ 2.50GHz",
                **facts,
            )
            for place, level in enumerate(levels)
        ]
        keep(Store(folder), rows)


def judge(folder: Path) -> None:
    """Judge the newest run and print what that cost, as JSON."""
    began = time.perf_counter()
    import scipy.special  # type: ignore[import-untyped] # noqa: F401, what the t quantile needs

    from convmark.compare.history import accepted_history
    from convmark.compare.verdict import conclude, review
    from convmark.results.store import read_run

    imported = time.perf_counter()
    store = Store(folder)
    records = read_run(store.runs(MACHINE)[-1])
    history = accepted_history(store, MACHINE, records)
    read = time.perf_counter()
    judgements = conclude(review(records, history))
    ended = time.perf_counter()
    names = sorted({rows[0].run for case in history.cases.values() for rows in case.runs})
    cost = {
        "reading": read - imported,
        "judging": ended - read,
        "imports": imported - began,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "rows": len(judgements),
        "against": f"{len(names)}: {', '.join([*names[:3], '...', *names[-1:]][: len(names) + 1])}",
    }
    print(json.dumps(cost))


def judged(folder: str) -> dict[str, Any]:
    """Judge in a process of its own; return what that cost."""
    done = subprocess.run(
        [sys.executable, __file__, "--judge", folder],
        env={**os.environ, "CONVMARK_CACHE": f"{folder}/cache"},
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", default="10,100,1000")
    parser.add_argument("--cases", type=int, default=100)
    parser.add_argument("--settled", type=float, default=SETTLED_S, help=SETTLED)
    parser.add_argument("--judge", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.judge is not None:
        judge(given.judge)
        return
    rows = []
    wanted = [(kind, runs) for kind in HISTORIES for runs in map(int, given.runs.split(","))]
    with tempfile.TemporaryDirectory() as temporary:
        folders = [f"{temporary}/{number}" for number in range(len(wanted))]
        for (kind, runs), folder in zip(wanted, folders, strict=True):
            write(Path(folder), runs, given.cases, kind)
        time.sleep(given.settled)
        for (kind, runs), folder in zip(wanted, folders, strict=True):
            cost, again = judged(folder), judged(folder)
            seconds = [f"{cost[name]:.2f} s" for name in ("reading", "judging", "imports")]
            seconds += [f"{one['reading'] + one['judging']:.2f} s" for one in (cost, again)]
            peak = f"{cost['peak']:.0f} MiB"
            rows.append([kind, runs, *seconds, peak, cost["rows"], cost["against"]])
            print(rows[-1], file=sys.stderr)
    headers = ("history", "runs", "reading", "judging", "imports", "total", "with the index")
    headers += ("peak", "rows", "read")
    print(tabulate(rows, headers=headers, tablefmt="pipe"))


if __name__ == "__main__":
    main()
