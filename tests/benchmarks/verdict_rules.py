"""False alarms and detections of the common rules and of screen and confirm, on the same data.

Run it from the checkout: `python tests/benchmarks/verdict_rules.py [--data DIR]`. It prints
markdown tables. `--data` is a folder with `noise/*.npz`; without it ../shared/data beside the
checkout is read, then the folder that CONVMARK_NOISE_DATA names.

Simulated noise of 5 % between processes means: the process means of the paired log ratio, on
identical code in one run, scatter by 5 % (their own errors, half of it, included), the runs by
another 2.5 %, and the lock-step sessions by 5 % (FACTS: 0.4 to 2 times the process noise) with
errors of their own of three quarters of that.
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rules import COMMON_RULES
from tabulate import tabulate

from convmark.judging.confirm import (
    CHANGED,
    ERROR_RATE,
    LOOKS,
    Decision,
    Session,
    Verdict,
    error_rate_per_case,
    judge,
)
from convmark.judging.processes import Process, Run, baseline_runs
from convmark.judging.screen import EXTRA_PROCESSES, Screening, screen, unconfirmed
from convmark.judging.spread import pooled_spread
from convmark.statistics import trimmed_mean

Array = npt.NDArray[np.float64]

NOISES = (0.01, 0.02, 0.05, 0.20)
SLOWDOWNS = (0.0, 0.05, 0.10)
STEPS = 100
"""Step times per process that the common rules see."""
STEP_NOISE = 0.05
"""Standard deviation of a step's log time within a process."""
LOCKSTEPS = {
    "quiet_1thread": "lockstep_quiet_1thread",
    "quiet_2threads": "lockstep_quiet_2threads",
    "loaded_1thread": "lockstep_loaded",
    "loaded_2threads": "lockstep_loaded",
}
"""Which lock-step file goes with which reference file; under load there is but one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """Noise of identical code, as standard deviations of log ratios."""

    process: float
    others: float | None = None
    """Noise between processes of the suite's other cases; None: the same."""
    run_share: float = 0.5
    error_share: float = 0.5
    session_share: float = 1.0
    session_error_share: float = 0.75
    heavy_tails: bool = False
    """Student's t with 4 degrees of freedom in place of the normal."""
    cases: int = 4
    runs: int = 6
    processes: int = 2

    def draw(self, rng: np.random.Generator, *shape: int) -> Array:
        """Return noise of standard deviation 1."""
        if self.heavy_tails:
            return rng.standard_t(4, shape) / math.sqrt(2)
        return rng.standard_normal(shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """The histories of some cases and today's processes; the first case is the one that counts."""

    histories: list[list[Run]]
    today: list[Run]
    extra: list[Process]
    """More processes of the first case, for a verdict without live comparison."""
    before_log: Array
    """Process means of the first case in the run before."""
    today_log: Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of the first case."""

    flagged: bool
    screened: Screening
    confirmed: Decision
    """What a live comparison says, whether or not the screen asks for one."""
    history_only: Decision | None
    """None where not flagged."""

    @property
    def verdict(self) -> Verdict | None:
        return self.confirmed.verdict if self.flagged else self.screened.verdict

    @property
    def smallest_visible(self) -> float:
        """The change that is printed with the verdict, as a share."""
        shown = self.confirmed if self.flagged else self.screened
        return math.expm1(shown.smallest_visible)


def simulated_suite(rng: np.random.Generator, noise: Noise, slowdown: float) -> Suite:
    """Return fresh processes; today's of the first case are slower by the share `slowdown`."""
    others = noise.process if noise.others is None else noise.others
    scales = np.array([noise.process] + [others] * (noise.cases - 1))[:, None, None]
    most = noise.processes + EXTRA_PROCESSES
    shape = (noise.cases, noise.runs + 1, most)
    means = noise.draw(rng, *shape) * scales
    means += noise.draw(rng, *shape[:2], 1) * scales * noise.run_share
    means[0, -1] += math.log1p(slowdown)
    errors = np.sqrt(rng.chisquare(60, shape) / 60) * scales * noise.error_share
    processes = [
        [
            [
                Process(log_ratio=mean, error=error, load=0.05)
                for mean, error in zip(run_means, run_errors, strict=True)
            ]
            for run_means, run_errors in zip(case_means, case_errors, strict=True)
        ]
        for case_means, case_errors in zip(means.tolist(), errors.tolist(), strict=True)
    ]
    count = noise.processes
    return Suite(
        histories=[[run[:count] for run in case[:-1]] for case in processes],
        today=[case[-1][:count] for case in processes],
        extra=processes[0][-1][count:],
        before_log=means[0, -2, :count],
        today_log=means[0, -1, :count],
    )


def simulated_sessions(rng: np.random.Generator, noise: Noise, slowdown: float) -> list[Session]:
    """Return as many lock-step sessions as the last look needs."""
    scale = noise.process * noise.session_share
    means = math.log1p(slowdown) + noise.draw(rng, LOOKS[-1]) * scale
    errors = np.sqrt(rng.chisquare(60, LOOKS[-1]) / 60) * scale * noise.session_error_share
    return [
        Session(log_ratio=mean, error=error)
        for mean, error in zip(means.tolist(), errors.tolist(), strict=True)
    ]


def confirm(sessions: Sequence[Session], error_rate: float) -> Decision:
    """Return the decision of the first look that gives a verdict."""
    for look, count in enumerate(LOOKS):
        decision = judge(sessions[:count], error_rate, look)
        if decision.verdict is not None:
            break
    return decision


def deploy(suite: Suite, sessions: Sequence[Session], *, split: bool = True) -> Outcome:
    """Screen all cases, confirm the first; without `split` it alone has the whole error rate."""
    baselines = [baseline_runs(history, 0.5) for history in suite.histories]
    spread = pooled_spread(baselines, suite.today)
    first, *others = zip(suite.today, baselines, strict=True)
    screened = screen(*first, spread)
    rate = ERROR_RATE
    if split:
        flagged = screened.flagged + sum(screen(*other, spread).flagged for other in others)
        rate = error_rate_per_case(flagged)
    history_only = None
    if screened.flagged and suite.extra:
        longer = [*suite.today[0], *suite.extra]
        spread = pooled_spread(baselines, [longer, *suite.today[1:]])
        history_only = unconfirmed(screen(longer, baselines[0], spread), rate)
    return Outcome(
        flagged=screened.flagged,
        screened=screened,
        confirmed=confirm(sessions, rate),
        history_only=history_only,
    )


def simulate(
    noise: Noise, slowdown: float, decisions: int, seed: int, *, split: bool = True
) -> list[Outcome]:
    """Return independent decisions, each on a suite and sessions of its own."""
    rng = np.random.default_rng(seed)
    return [
        deploy(
            simulated_suite(rng, noise, slowdown),
            simulated_sessions(rng, noise, slowdown),
            split=split,
        )
        for _ in range(decisions)
    ]


def simulated_common(noise: Noise, slowdown: float, decisions: int, seed: int) -> dict[str, float]:
    """Return how often each common rule calls today slower than the run before."""
    rng = np.random.default_rng(seed)
    alarms = dict.fromkeys(COMMON_RULES, 0)
    for _ in range(decisions):
        suite = simulated_suite(rng, noise, slowdown)
        before, now = (
            np.exp(means[:, None] + STEP_NOISE * rng.standard_normal((len(means), STEPS))).ravel()
            for means in (suite.before_log, suite.today_log)
        )
        for name, rule in COMMON_RULES.items():
            alarms[name] += rule(before, now)
    return {name: count / decisions for name, count in alarms.items()}


def default_data() -> Path | None:
    """Return the folder of recorded noise, or None where there is none."""
    beside = Path(__file__).parents[2].parent / "shared" / "data"
    named = os.environ.get("CONVMARK_NOISE_DATA")
    for folder in (beside, Path(named) if named else None):
        if folder is not None and (folder / "noise").is_dir():
            return folder
    return None


def recorded(data: Path, name: str) -> dict[str, Array]:
    """Return the arrays of one file of recorded noise, seconds."""
    with np.load(data / "noise" / f"{name}.npz", allow_pickle=False) as arrays:
        return {key: np.asarray(arrays[key], np.float64) for key in arrays}


def recorded_sessions(arrays: dict[str, Array], one: str, other: str, clock: str) -> list[Session]:
    """Return the recorded sessions of ln(one / other), such as `B` and `A1`.

    Args:
        clock: task and clock, such as `train_wall`; a slice's calls count by their median.
    """
    first, second = (np.median(arrays[f"{name}_{clock}_s"], axis=-1) for name in (one, other))
    estimates = [trimmed_mean(rounds) for rounds in np.log(first) - np.log(second)]
    return [Session(log_ratio=each.value, error=each.error or 0.0) for each in estimates]


def swapped(sessions: Sequence[Session], signs: Sequence[float]) -> list[Session]:
    """Return the sessions with the two sides exchanged where the sign is -1."""
    return [
        Session(log_ratio=sign * session.log_ratio, error=session.error)
        for session, sign in zip(sessions, signs, strict=True)
    ]


def recorded_processes(arrays: dict[str, Array], task: str) -> list[Process]:
    """Return the recorded processes' paired log ratios by wall time, warm-up cut off."""
    calls = 4 if task == "infer" else 1
    case, reference = (
        np.median(
            arrays[f"{task}{kind}_wall_s"].reshape(len(arrays[f"{task}_wall_s"]), -1, calls), 2
        )
        for kind in ("", "_reference")
    )
    ratios = np.log(case[:, 10:]) - np.log(reference[:, 10:])
    estimates = [trimmed_mean(rounds) for rounds in ratios]
    return [Process(log_ratio=each.value, error=each.error or 0.0, load=0.05) for each in estimates]


def halved(
    processes: dict[str, list[Process]], task: str, order: Sequence[int], shift: float
) -> Suite:
    """Return the first half of the processes as the one run of history, the others as today's."""
    half = len(order) // 2
    tasks = [task, *(name for name in processes if name != task)]
    today = [[processes[name][i] for i in order[half:]] for name in tasks]
    slower = [replace(process, log_ratio=process.log_ratio + shift) for process in today[0]]
    return Suite(
        histories=[[[processes[name][i] for i in order[:half]]] for name in tasks],
        today=[slower, *today[1:]],
        extra=[],
        before_log=np.array([]),
        today_log=np.array([]),
    )


def replay(data: Path, condition: str, task: str, splits: int, seed: int) -> list[dict[str, bool]]:
    """Return what each rule says of identical code, and with 5 and 10 % put on, per split.

    Half of the processes are the history, one run; the other half is today. The live comparison
    draws the recorded sessions with replacement, the two identical sides exchanged at random.
    """
    rng = np.random.default_rng(seed)
    arrays = recorded(data, f"reference_{condition}")
    processes = {name: recorded_processes(arrays, name) for name in ("train", "infer")}
    pairs = recorded_sessions(recorded(data, LOCKSTEPS[condition]), "A2", "A1", f"{task}_wall")
    times = arrays[f"{task}_wall_s"][:, 10:]
    rows = []
    for _ in range(splits):
        order = rng.permutation(len(times)).tolist()
        half = len(order) // 2
        before, now = times[order[:half]].ravel(), times[order[half:]].ravel()
        drawn = [pairs[i] for i in rng.integers(len(pairs), size=LOOKS[-1])]
        drawn = swapped(drawn, rng.choice((-1.0, 1.0), LOOKS[-1]).tolist())
        row = {}
        for slowdown in SLOWDOWNS:
            shift = math.log1p(slowdown)
            live = [replace(session, log_ratio=session.log_ratio + shift) for session in drawn]
            outcome = deploy(halved(processes, task, order, shift), live)
            row[f"screen {slowdown}"] = outcome.flagged
            row[f"ours {slowdown}"] = outcome.verdict == "regressed"
            for name, rule in COMMON_RULES.items():
                row[f"{name} {slowdown}"] = rule(before, now * (1 + slowdown))
        rows.append(row)
    return rows


def share(outcomes: Sequence[Outcome], holds: Callable[[Outcome], bool]) -> float:
    """Return the share of outcomes for which it holds."""
    return sum(map(holds, outcomes)) / len(outcomes)


def simulation_rows(noise: Noise, decisions: int) -> Iterator[tuple[object, ...]]:
    """Yield one row per rule: its name, and how often it calls 0, 5 and 10 % slower."""
    common = [simulated_common(noise, slowdown, decisions // 4, 1) for slowdown in SLOWDOWNS]
    for name in COMMON_RULES:
        yield (name, *(rates[name] for rates in common))
    ours = [simulate(noise, slowdown, decisions, 2) for slowdown in SLOWDOWNS]
    for name, holds in (
        ("screen flags (either way)", lambda o: o.flagged),
        ("confirm alone", lambda o: o.confirmed.verdict == "regressed"),
        ("**screen, then confirm**", lambda o: o.verdict == "regressed"),
        ("history only (unconfirmed)", lambda o: verdict_of(o.history_only) == "regressed"),
        ("*says unchanged*", lambda o: o.verdict == "unchanged"),
        ("*shows a smallest visible change of 10 % or less*", lambda o: o.smallest_visible <= 0.1),
    ):
        yield (name, *(share(outcomes, holds) for outcomes in ours))


def verdict_of(decision: Decision | None) -> Verdict | None:
    """Return the verdict, None where there was no decision."""
    return None if decision is None else decision.verdict


def replay_rows(data: Path, condition: str, task: str, splits: int) -> Iterator[tuple[object, ...]]:
    """Yield one row per rule, as `simulation_rows` does, for one recorded condition."""
    replayed = replay(data, condition, task, splits, 3)
    for name in (*COMMON_RULES, "screen", "ours"):
        counts = (sum(row[f"{name} {slowdown}"] for row in replayed) for slowdown in SLOWDOWNS)
        label = {"ours": "**screen, then confirm**", "screen": "screen flags"}.get(name, name)
        yield (label, *(count / splits for count in counts))


def plain_rows(data: Path, task: str, splits: int) -> Iterator[tuple[object, ...]]:
    """Yield one row per common rule on steps that have no reference beside them."""
    times = recorded(data, "plain_loaded_2threads")[f"{task}_wall_s"][:, 10:]
    rng = np.random.default_rng(4)
    orders = [rng.permutation(len(times)) for _ in range(splits)]
    half = len(times) // 2
    for name, rule in COMMON_RULES.items():
        yield (
            name,
            *(
                sum(
                    rule(times[order[:half]].ravel(), times[order[half:]].ravel() * (1 + slowdown))
                    for order in orders
                )
                / splits
                for slowdown in SLOWDOWNS
            ),
        )


def lockstep_rows(data: Path, draws: int) -> Iterator[tuple[object, ...]]:
    """Yield per file and clock: false alarms and detections at the first look, and half-width."""
    for name in sorted(set(LOCKSTEPS.values())):
        arrays = recorded(data, name)
        for clock in ("train_wall", "train_cpu", "infer_wall", "infer_cpu"):
            rng = np.random.default_rng(5)
            same = recorded_sessions(arrays, "A2", "A1", clock)
            slow = [
                session
                for anchor in ("A1", "A2")
                for session in recorded_sessions(arrays, "B", anchor, clock)
            ]
            alarms = found = 0
            widths = []
            for _ in range(draws):
                drawn = [same[i] for i in rng.integers(len(same), size=LOOKS[0])]
                drawn = swapped(drawn, rng.choice((-1.0, 1.0), LOOKS[0]).tolist())
                alarms += judge(drawn, ERROR_RATE, 0).verdict in CHANGED
                first = rng.permutation(len(same))[: LOOKS[0]] + len(same) * rng.integers(2)
                decision = judge([slow[i] for i in first], ERROR_RATE, 0)
                found += decision.verdict == "regressed"
                widths.append(decision.high - decision.estimate)
            yield (name, clock, alarms / draws, found / draws, float(np.median(widths)))


def in_short(tables: Sequence[Sequence[tuple[object, ...]]]) -> Iterator[tuple[object, ...]]:
    """Yield a row per rule, the shares of each table in one cell, per cent."""
    for rows in zip(*tables, strict=True):
        cells = (" / ".join(f"{100 * float(str(cell)):.0f}" for cell in row[1:]) for row in rows)
        yield (rows[0][0], *cells)


def print_table(title: str, rows: Iterator[tuple[object, ...]], headers: Sequence[str]) -> None:
    print(f"\n{title}\n")
    print(tabulate(list(rows), headers, tablefmt="pipe", floatfmt=".3f"))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=default_data(), help="folder of noise/*.npz")
    parser.add_argument("--decisions", type=int, default=2000, help="simulated ones per figure")
    parser.add_argument("--splits", type=int, default=200, help="random halves per condition")
    options = parser.parse_args()
    headers = ("called slower", "identical", "5 % slower", "10 % slower")
    simulated = {
        process: list(simulation_rows(Noise(process=process), options.decisions))
        for process in NOISES
    }
    title = "In short: called slower on identical code / 5 % slower / 10 % slower, in per cent"
    columns = ("rule", *(f"noise {process:.0%}" for process in NOISES))
    print_table(title, in_short(list(simulated.values())), columns)
    for process, rows in simulated.items():
        print_table(f"Simulated noise of {process:.0%} between processes", iter(rows), headers)
    for title, noise in (
        ("5 % in a suite whose other cases have 1 %", Noise(process=0.05, others=0.01)),
        ("5 %, Student's t with 4 degrees of freedom", Noise(process=0.05, heavy_tails=True)),
        ("2 %, sessions twice as noisy", Noise(process=0.02, session_share=2.0)),
        ("2 %, two baseline runs of two processes", Noise(process=0.02, runs=2)),
    ):
        print_table(f"Simulated: {title}", simulation_rows(noise, options.decisions), headers)
    if options.data is None:
        print("\nNo recorded noise: give --data, or set CONVMARK_NOISE_DATA.")
        return
    for task in ("train", "infer"):
        title = f"Recorded, loaded, 2 threads, {task}, steps alone: 7 processes against 7"
        print_table(title, plain_rows(options.data, task, options.splits), headers)
        for condition in LOCKSTEPS:
            title = f"Recorded, {condition}, {task}: half of the processes against the other half"
            print_table(title, replay_rows(options.data, condition, task, options.splits), headers)
    columns = ("lock-step file", "clock", "false alarms", "B found", "half-width")
    title = "Recorded lock-step sessions, five drawn, first look"
    print_table(title, lockstep_rows(options.data, options.splits), columns)


if __name__ == "__main__":
    main()
