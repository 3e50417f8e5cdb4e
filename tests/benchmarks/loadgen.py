"""The rate at a latency limit beside that of MLPerf's LoadGen, on the same step.

    pip install mlcommons-loadgen
    python tests/benchmarks/loadgen.py [--state=FILE] [--trials=4] [--limit=0.01] [--batch-sizes=1]

Each trial is a fresh process: it measures LeNet-5's inference as `convmark run` does, then has both
search the rate, the first of them by turns. LoadGen searches by itself (`FindPeakPerformance` of
the server scenario, tries of eight seconds); it has the same step answer what it issues, as many
requests at once as a batch has samples. A trial in the state's file is not made again. Prints both
rates of each trial and the mean ratio with its 95 % interval; exits 1 where it is 5 % or more
from 1.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from scipy.stats import t as student
from tabulate import tabulate

from convmark.core.case import Case

MOST_APART = 0.05
LOADGEN = "mlperf_loadgen"


def loadgen_rate(
    step: Callable[[], Any], backend: Any, batch_size: int, step_s: float, limit_s: float, seed: int
) -> dict[str, float]:
    """Return the rate that LoadGen finds, 1/s, and the 99th percentile there, s."""
    import mlperf_loadgen as loadgen

    def issue(samples: Sequence[Any]) -> None:
        for first in range(0, len(samples), batch_size):
            backend.synchronise(step())
            loadgen.QuerySamplesComplete(
                [
                    loadgen.QuerySampleResponse(one.id, 0, 0)
                    for one in samples[first : first + batch_size]
                ]
            )

    settings, logs = loadgen.TestSettings(), loadgen.LogSettings()
    settings.scenario = loadgen.TestScenario.Server
    settings.mode = loadgen.TestMode.FindPeakPerformance
    settings.server_target_latency_ns = round(limit_s * 1e9)
    settings.server_target_latency_percentile = 0.99
    settings.server_coalesce_queries = batch_size > 1
    settings.server_find_peak_qps_decimals_of_precision = 0
    settings.server_target_qps = round(0.3 * batch_size / step_s)
    settings.min_duration_ms, settings.min_query_count = 8000, 1
    settings.schedule_rng_seed = seed + 1
    sut = loadgen.ConstructSUT(issue, lambda: None)
    library = loadgen.ConstructQSL(1024, 1024, lambda samples: None, lambda samples: None)
    with tempfile.TemporaryDirectory() as folder:
        logs.log_output.outdir, logs.enable_trace = folder, False
        loadgen.StartTestWithLogSettings(sut, library, settings, logs, "")
        said = Path(folder, "mlperf_log_summary.txt").read_text()
    loadgen.DestroyQSL(library)
    loadgen.DestroySUT(sut)
    rate = re.search(r"^target_qps : ([0-9.]+)", said, re.MULTILINE)
    late = re.search(r"99.00 percentile latency \(ns\) *: ([0-9]+)", said)
    if rate is None or late is None:
        raise SystemExit(f"LoadGen has no result: {said}")
    return {"loadgen_per_s": float(rate[1]), "loadgen_p99_s": int(late[1]) / 1e9}


def trial(number: int, batch_size: int, limit_s: float) -> dict[str, float]:
    """Measure the case in this process, and have both search its rate."""
    from convmark.worker import arrivals, backends, child, measurement

    found: dict[str, Any] = {}

    def both(step: Any, backend: Any, samples: int, step_s: float, *others: Any) -> None:
        limit, seed, _, pulse = others

        def note(event: str, **told: Any) -> None:
            if event == "latency_limit":
                found["convmark_per_s"] = told["rate_per_s"]
                found["proved_per_s"], found["search_s"] = told["proved_per_s"], told["seconds"]
            elif event == "try":
                found["other_load"] = max(found.get("other_load", 0), told["other_cpu_share"] or 0)

        def ours() -> None:
            arrivals.at_limit(step, backend, samples, step_s, limit, seed, note, pulse)

        def theirs() -> None:
            found.update(loadgen_rate(step, backend, samples, step_s, limit, seed))

        for search in (ours, theirs) if number % 2 else (theirs, ours):
            search()
        found["step_s"] = step_s

    measurement.at_limit = both
    case = Case(model="lenet5", task="infer", batch_size=batch_size)
    request = {
        "kind": "measure",
        "case": case.as_fields(),
        "seed": number,
        "time_budget_s": 1.0,
        "smoke": False,
        "latency_limit_s": limit_s,
    }
    with open(os.devnull, "wb") as events:
        child.answer(request, backends.load("tensorflow"), [events.fileno()])
    return found


def fresh(number: int, batch_size: int, limit_s: float) -> dict[str, Any]:
    """Return what a trial finds in a process of its own."""
    asked = ["--trial", str(number), "--limit", str(limit_s), "--batch-sizes", str(batch_size)]
    command = [sys.executable, __file__, *asked]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {"batch_size": batch_size, "limit_s": limit_s, "trial": number, **found}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--state", type=Path, default=Path(tempfile.gettempdir()) / "convmark-loadgen.jsonl"
    )
    parser.add_argument("--trials", type=int, default=4)
    parser.add_argument("--limit", type=float, default=0.01, help="s")
    parser.add_argument("--batch-sizes", default="1")
    parser.add_argument("--trial", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if importlib.util.find_spec(LOADGEN) is None:
        print("not measured: pip install mlcommons-loadgen")
        return 0
    sizes = [int(size) for size in given.batch_sizes.split(",")]
    if given.trial is not None:
        print(json.dumps(trial(given.trial, sizes[0], given.limit)))
        return 0
    lines = given.state.read_text().splitlines() if given.state.exists() else []
    rows = [json.loads(line) for line in lines]
    worst = 0.0
    for size in sizes:
        for number in range(given.trials):
            key = (size, given.limit, number)
            if key not in {(one["batch_size"], one["limit_s"], one["trial"]) for one in rows}:
                rows.append(fresh(number, size, given.limit))
                with given.state.open("a") as file:
                    file.write(f"{json.dumps(rows[-1])}\n")
        of_size = [one for one in rows if (one["batch_size"], one["limit_s"]) == key[:2]]
        worst = max(worst, compared(of_size))
    return int(worst >= MOST_APART)


def compared(rows: Sequence[dict[str, Any]]) -> float:
    """Print the trials of a batch size; return how far the mean ratio is from 1."""
    ratios = [(one["convmark_per_s"] or math.nan) / one["loadgen_per_s"] for one in rows]
    shown = [{**one, "ratio": ratio} for one, ratio in zip(rows, ratios, strict=True)]
    print(tabulate(shown, headers="keys", floatfmt=".4g"))
    logs = [math.log(ratio) for ratio in ratios if ratio == ratio]
    if not logs:
        return math.inf
    mean, half = statistics.mean(logs), math.nan
    if len(logs) > 1:
        error = statistics.stdev(logs) / math.sqrt(len(logs))
        half = student.ppf(0.975, len(logs) - 1) * error
    print(
        f"convmark / LoadGen: {math.exp(mean):.3f} "
        f"({math.exp(mean - half):.3f} to {math.exp(mean + half):.3f})\n",
        flush=True,
    )
    if without := len(rows) - len(logs):
        print(f"{without} of {len(rows)} without a rate\n", flush=True)
        return math.inf
    return abs(math.expm1(mean))


if __name__ == "__main__":
    sys.exit(main())
