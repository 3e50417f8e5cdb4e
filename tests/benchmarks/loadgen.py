"""The rate at a latency limit beside that of MLPerf's LoadGen, on the same step.

    pip install mlcommons-loadgen
    python tests/benchmarks/loadgen.py [--state=FILE] [--trials=4] [--limit=0.01] [--batch-sizes=1]
    python tests/benchmarks/loadgen.py --turns=60 [--state=FILE] [--limit=0.01]

Each trial is a fresh process: it measures LeNet-5's inference as `convmark run` does, then has both
search the rate, the first of them by turns. LoadGen searches by itself (`FindPeakPerformance` of
the server scenario, tries of eight seconds); it has the same step answer what it issues, as many
requests at once as a batch has samples. A trial in the state's file is not made again. Prints both
rates of each trial and the mean ratio with its 95 % interval; exits 1 where it is 5 % or more
from 1.

A search ends where the machine was disturbed, and LoadGen's ends once. With `--turns` neither
searches: both serve the same rates by turns, eight seconds each, in random order. The rates follow
the limit and are drawn around it. What is compared is the rate at the same 99th percentile: the
mean difference of its logarithms over their slope, with the 95 % interval of 2,000 resamples of the
turns (Efron 1979).
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t as student
from tabulate import tabulate

from convmark.core.case import Case

MOST_APART = 0.05
LOADGEN = "mlperf_loadgen"
TURN_S = 8.0
TURNS_OF_A_PROCESS = 10
AROUND, FOLLOWED = 0.15, 0.06
"""Of the rates' logarithm: how far they are drawn around their centre, and how far it goes after
each turn, up where both percentiles together are below the limit."""
RESAMPLES = 2000


def loadgen_rate(
    step: Callable[[], Any], backend: Any, batch_size: int, step_s: float, limit_s: float, seed: int
) -> dict[str, float]:
    """Return the rate that LoadGen finds, 1/s, and the 99th percentile there, s."""
    said = loadgen_says(
        *(step, backend, batch_size, limit_s, seed),
        {
            "mode": "FindPeakPerformance",
            "server_find_peak_qps_decimals_of_precision": 0,
            "server_target_qps": round(0.3 * batch_size / step_s),
        },
    )
    rate = re.search(r"^target_qps : ([0-9.]+)", said, re.MULTILINE)
    if rate is None:
        raise SystemExit(f"LoadGen has no result: {said}")
    return {"loadgen_per_s": float(rate[1]), "loadgen_p99_s": p99_of(said)}


def loadgen_p99(
    step: Callable[[], Any], backend: Any, batch_size: int, rate: float, limit_s: float, seed: int
) -> float:
    """Return the 99th percentile of a turn at a rate, s."""
    asked = {"mode": "PerformanceOnly", "server_target_qps": rate}
    return p99_of(loadgen_says(step, backend, batch_size, limit_s, seed, asked))


def p99_of(said: str) -> float:
    late = re.search(r"99.00 percentile latency \(ns\) *: ([0-9]+)", said)
    if late is None:
        raise SystemExit(f"LoadGen has no result: {said}")
    return int(late[1]) / 1e9


def loadgen_says(
    step: Callable[[], Any],
    backend: Any,
    batch_size: int,
    limit_s: float,
    seed: int,
    asked: dict[str, Any],
) -> str:
    """Return the summary of LoadGen's server scenario, of turns of `TURN_S`."""
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
    for name, value in {**asked, "mode": getattr(loadgen.TestMode, asked["mode"])}.items():
        setattr(settings, name, value)
    settings.server_target_latency_ns = round(limit_s * 1e9)
    settings.server_target_latency_percentile = 0.99
    settings.server_coalesce_queries = batch_size > 1
    settings.min_duration_ms, settings.min_query_count = round(1000 * TURN_S), 1
    settings.schedule_rng_seed = seed + 1
    sut = loadgen.ConstructSUT(issue, lambda: None)
    library = loadgen.ConstructQSL(1024, 1024, lambda samples: None, lambda samples: None)
    with tempfile.TemporaryDirectory() as folder:
        logs.log_output.outdir, logs.enable_trace = folder, False
        loadgen.StartTestWithLogSettings(sut, library, settings, logs, "")
        said = Path(folder, "mlperf_log_summary.txt").read_text()
    loadgen.DestroyQSL(library)
    loadgen.DestroySUT(sut)
    return said


def by_turns(
    step: Any, backend: Any, batch_size: int, step_s: float, limit_s: float, seed: int
) -> list[dict[str, float]]:
    """Return the rate and both 99th percentiles of each turn, s."""
    from convmark.worker import arrivals

    draw, centre, turns = random.Random(seed), 0.7 * batch_size / step_s, []

    def ours(rate: float, number: int) -> float:
        due = arrivals.schedule(rate, round(TURN_S * rate), random.Random(f"{seed} {number}"))
        # no request is too late, so that the turn is served to its end as LoadGen's is
        return arrivals.serve(step, backend, batch_size, math.inf, rate, due).p99_s

    def theirs(rate: float, number: int) -> float:
        return loadgen_p99(step, backend, batch_size, rate, limit_s, 1000 * seed + number)

    for number in range(TURNS_OF_A_PROCESS):
        rate = centre * math.exp(draw.uniform(-AROUND, AROUND))
        sides = {"convmark_p99_s": ours, "loadgen_p99_s": theirs}
        turn = {name: sides[name](rate, number) for name in draw.sample(sorted(sides), 2)}
        turns.append({"rate_per_s": rate, "step_s": step_s, **turn})
        quick = math.prod(turn.values()) < limit_s**2
        centre *= math.exp(FOLLOWED if quick else -FOLLOWED)
    return turns


def trial(number: int, batch_size: int, limit_s: float, turns: bool) -> dict[str, Any]:
    """Measure the case in this process, and have both search its rate, or serve by turns."""
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

        if turns:
            found["turns"] = by_turns(step, backend, samples, step_s, limit, seed)
            return
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


def fresh(number: int, batch_size: int, limit_s: float, turns: int) -> dict[str, Any]:
    """Return what a trial finds in a process of its own."""
    asked = ["--trial", str(number), "--limit", str(limit_s), "--batch-sizes", str(batch_size)]
    command = [sys.executable, __file__, *asked, "--turns", str(turns)]
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
    parser.add_argument("--turns", type=int, default=0, help="serve by turns, neither searches")
    parser.add_argument("--limit", type=float, default=0.01, help="s")
    parser.add_argument("--batch-sizes", default="1")
    parser.add_argument("--trial", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if importlib.util.find_spec(LOADGEN) is None:
        print("not measured: pip install mlcommons-loadgen")
        return 0
    sizes, turns = [int(size) for size in given.batch_sizes.split(",")], given.turns
    if given.trial is not None:
        print(json.dumps(trial(given.trial, sizes[0], given.limit, bool(turns))))
        return 0
    trials = math.ceil(turns / TURNS_OF_A_PROCESS) if turns else given.trials
    worst = 0.0
    for size in sizes:
        of_size = {one["trial"]: one for one in kept(given.state, size, given.limit, bool(turns))}
        for number in range(trials):
            if number not in of_size:
                of_size[number] = fresh(number, size, given.limit, turns)
                with given.state.open("a") as file:
                    file.write(f"{json.dumps(of_size[number])}\n")
        look = compared_by_turns if turns else compared
        worst = max(worst, look(list(of_size.values())))
    return int(worst >= MOST_APART)


def kept(state: Path, batch_size: int, limit_s: float, turns: bool) -> list[dict[str, Any]]:
    """Return the trials of the state's file that are of this kind."""
    rows = [json.loads(line) for line in state.read_text().splitlines()] if state.exists() else []
    wanted = (batch_size, limit_s, turns)
    return [one for one in rows if (one["batch_size"], one["limit_s"], "turns" in one) == wanted]


def compared_by_turns(rows: Sequence[dict[str, Any]]) -> float:
    """Print the turns of a batch size; return how far the ratio of rates is from 1."""
    turns = [turn for row in rows for turn in row["turns"]]
    print(tabulate(turns, headers="keys", floatfmt=".4g"))
    rates = np.log([turn["rate_per_s"] * turn["step_s"] for turn in turns])
    ours, theirs = (
        np.log([turn[f"{side}_p99_s"] for turn in turns]) for side in ("convmark", "loadgen")
    )

    def ratio(chosen: Any) -> float:
        slope = np.polyfit(rates[chosen], (ours[chosen] + theirs[chosen]) / 2, 1)[0]
        return math.exp(np.mean(theirs[chosen] - ours[chosen]) / slope)

    found, draw = ratio(np.arange(len(turns))), np.random.default_rng(0)
    resampled = [ratio(draw.integers(len(turns), size=len(turns))) for _ in range(RESAMPLES)]
    low, high = np.quantile(resampled, (0.025, 0.975))
    apart = math.expm1(np.mean(ours - theirs))
    print(f"99th percentile, convmark / LoadGen - 1 at the same rate: {100 * apart:+.1f} %")
    print(f"rate at the same 99th percentile, convmark / LoadGen: {found:.3f} ({low:.3f} to "
          f"{high:.3f}), {len(turns)} turns\n")  # fmt: skip
    return abs(found - 1)


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
