"""What the rules in common use would call slower on recorded noise, beside this project's own.

Run it from the checkout: `python tests/benchmarks/rule_league.py [--data DIR] [--trials N]`. It
prints docs/rule_league.md. The data are step times of identical code (`noise/*.npz`); a slowdown is
put on by a factor. Each rule has its own kind of data: pooled steps of fresh processes on either
side, a history of runs, or pairs of steps that took turns. What it spends is the steps that it
reads, and a second for each process that it starts.
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
import scipy  # whose statistics are imported when they are first used
from tabulate import tabulate

from convmark.compare.rule.decision import FEWEST_SESSIONS, CaseSessions, decide
from convmark.core.statistics import trimmed_mean

Array = npt.NDArray[np.float64]

SLOWDOWNS = (0.0, 0.03, 0.05, 0.10)
WARM_UP_STEPS = 10
PROCESS_S = 1.0
"""What a fresh process costs before its first timed step."""
HISTORY_RUNS = 20
RUNS_AFTER = 5
"""Runs after the change that a search for change points is given."""
CASES = 16
MOST_SESSIONS = 60

THRESHOLD = 1.05
SIGNIFICANCE = 0.05
ASV_SIGNIFICANCE = 0.002
ASV_FACTOR = 1.1


@dataclass(frozen=True, kw_only=True)
class Noise:
    """Step times of identical code under one condition, seconds."""

    processes: Array
    """One row of steps for each fresh process."""
    pairs: tuple[Array, Array]
    """One row of steps for each session of two that take turns."""


@dataclass(frozen=True, kw_only=True)
class Heard:
    """What a rule said of one trial, and what it spent."""

    slower: bool
    seconds: float


Trial = Callable[[Noise, float, np.random.Generator], Heard]


def pooled(rule: Callable[[Array, Array], bool]) -> Trial:
    """Half of the processes against the other half, all their steps pooled."""

    def trial(noise: Noise, factor: float, rng: np.random.Generator) -> Heard:
        order = rng.permutation(len(noise.processes))
        half = len(order) // 2
        before, now = noise.processes[order[:half]], noise.processes[order[half:]] * factor
        return Heard(slower=rule(before.ravel(), now.ravel()), seconds=spent(before, now))

    return trial


def mean_slower(before_s: Array, now_s: Array) -> bool:
    """pytest-benchmark's `--benchmark-compare-fail=mean:5%`."""
    return bool(now_s.mean() > THRESHOLD * before_s.mean())


def median_slower(before_s: Array, now_s: Array) -> bool:
    """pytest-benchmark's `--benchmark-compare-fail=median:5%`."""
    return bool(np.median(now_s) > THRESHOLD * np.median(before_s))


def min_slower(before_s: Array, now_s: Array) -> bool:
    """pytest-benchmark's `--benchmark-compare-fail=min:5%`."""
    return bool(now_s.min() > THRESHOLD * before_s.min())


def mann_whitney_slower(before_s: Array, now_s: Array) -> bool:
    """Two-sided Mann-Whitney on pooled step times, p < 0.05, and the median is higher."""
    p_value = scipy.stats.mannwhitneyu(before_s, now_s, method="asymptotic").pvalue
    return bool(p_value < SIGNIFICANCE and np.median(now_s) > np.median(before_s))


def welch_slower(before_s: Array, now_s: Array) -> bool:
    """Two-sided Welch t test on pooled step times, p < 0.05, and the mean is higher."""
    p_value = scipy.stats.ttest_ind(before_s, now_s, equal_var=False).pvalue
    return bool(p_value < SIGNIFICANCE and now_s.mean() > before_s.mean())


def asv_slower(before_s: Array, now_s: Array) -> bool:
    """`asv continuous`: Mann-Whitney p < 0.002, and the median is over 1.1 times as high.

    Source:
        airspeed velocity: `is_different` of statistics.py, `_is_result_better` of
        commands/compare.py; `--factor` is 1.1 unless told otherwise.
    """
    p_value = scipy.stats.mannwhitneyu(before_s, now_s, method="asymptotic").pvalue
    higher = np.median(now_s) > ASV_FACTOR * np.median(before_s)
    return bool(p_value < ASV_SIGNIFICANCE and higher)


def codspeed_slower(before_s: Array, now_s: Array) -> bool:
    """CodSpeed's default threshold for a regression: 10 %, on the mean.

    Source:
        codspeed.io/docs, features, performance checks.
    """
    return bool(now_s.mean() > 1.10 * before_s.mean())


def nvbench_slower(before_s: Array, now_s: Array) -> bool:
    """The relative change is above the smaller of the two relative noises.

    Robust: median, and the quartile range over the median for noise.

    Source:
        NVBench, scripts/nvbench_compare.py: SAME where the change is within the smaller noise.
    """
    (low, middle, high), (low_now, middle_now, high_now) = (
        np.quantile(times, (0.25, 0.5, 0.75)) for times in (before_s, now_s)
    )
    noise = min((high - low) / middle, (high_now - low_now) / middle_now)
    return bool(middle_now / middle - 1 > noise)


def history(rule: Callable[[Array, float], bool]) -> Trial:
    """Run medians of twenty runs, and one run more that is judged."""

    def trial(noise: Noise, factor: float, rng: np.random.Generator) -> Heard:
        drawn = rng.integers(len(noise.processes), size=HISTORY_RUNS + 1)
        medians = run_medians(noise, drawn, rng)
        now = float(medians[-1] * factor)
        return Heard(
            slower=rule(medians[:-1], now), seconds=spent(noise.processes[drawn[-1:]] * factor)
        )

    return trial


def run_medians(noise: Noise, drawn: npt.NDArray[np.int64], rng: np.random.Generator) -> Array:
    """Return the median of each drawn process, of steps drawn anew: no two runs are the same."""
    steps = noise.processes[drawn]
    again = rng.integers(steps.shape[1], size=steps.shape)
    return np.asarray(np.median(np.take_along_axis(steps, again, axis=1), axis=1))


def rustc_slower(before_s: Array, now_s: float) -> bool:
    """The change from the run before is above the upper fence of the changes in the history.

    Source:
        rust-lang/rustc-perf, docs/comparison-analysis.md: Q3 + 3 IQR of the historical changes,
        at least 0.2 %.
    """
    changes = np.abs(np.diff(before_s) / before_s[:-1])
    low, high = np.quantile(changes, (0.25, 0.75))
    return bool(now_s / before_s[-1] - 1 > max(0.002, high + 3 * (high - low)))


def conbench_slower(before_s: Array, now_s: float) -> bool:
    """The z score against the history is above 5.

    Source:
        conbench, lookback z-score: threshold 5 standard deviations.
    """
    spread = float(before_s.std(ddof=1))
    return bool(spread > 0 and (now_s - before_s.mean()) / spread > 5)


def otava(noise: Noise, factor: float, rng: np.random.Generator) -> Heard:
    """Twenty runs before and five after; called slower where a change to more is found in them.

    Source:
        Apache Otava (Hunter): e-divisive splits after Matteson and James (2014), each kept where
        Student's t test gives p < 0.001; here for the one best split.
    """
    drawn = rng.integers(len(noise.processes), size=HISTORY_RUNS + RUNS_AFTER)
    medians = run_medians(noise, drawn, rng)
    medians[HISTORY_RUNS:] *= factor
    place = best_energy_split(medians)
    p_value = scipy.stats.ttest_ind(medians[:place], medians[place:]).pvalue
    slower = p_value < 0.001 and medians[place:].mean() > medians[:place].mean()
    return Heard(slower=bool(slower), seconds=spent(noise.processes[drawn[HISTORY_RUNS:]] * factor))


def best_energy_split(values: Array) -> int:
    """Return the split with the largest energy statistic, exponent 1, at least two on each side."""
    distance = np.abs(values[:, None] - values)
    count = len(values)

    def energy(place: int) -> float:
        between = 2 * distance[:place, place:].mean()
        within = (
            distance[:part, :part].sum() / (part * (part - 1))
            if side
            else distance[place:, place:].sum() / (part * (part - 1))
            for side, part in ((True, place), (False, count - place))
        )
        return float(place * (count - place) / count * (between - sum(within)))

    return max(range(2, count - 1), key=energy)


def tango(noise: Noise, factor: float, rng: np.random.Generator) -> Heard:
    """One process, two codes in turns: z of the paired differences at least 2.6, and 0.5 %.

    Source:
        bazhenov/tango: significant where |z| >= 2.6 and the difference is at least 0.5 % of the
        median; differences outside the Tukey fences are left out.
    """
    session = rng.integers(len(noise.pairs[0]))
    one, other = (side[session] for side in noise.pairs[:: rng.choice((-1, 1))])
    differences = other * factor - one
    low, high = np.quantile(differences, (0.25, 0.75))
    reach = 1.5 * (high - low)
    kept = differences[(differences >= low - reach) & (differences <= high + reach)]
    z = kept.mean() / (kept.std(ddof=1) / math.sqrt(len(kept)))
    slower = z >= 2.6 and kept.mean() >= 0.005 * np.median(one)
    return Heard(slower=bool(slower), seconds=PROCESS_S + float((one + other * factor).sum()))


def ours(noise: Noise, factor: float, rng: np.random.Generator) -> Heard:
    """Sessions drawn with replacement and sides exchanged at random; one of 16 cases is slower."""
    one, other = noise.pairs
    values = np.array([trimmed_mean(rounds).value for rounds in np.log(other) - np.log(one)])
    drawn = values[rng.integers(len(values), size=(CASES, MOST_SESSIONS))]
    drawn *= rng.choice((-1.0, 1.0), size=drawn.shape)
    drawn[0] += math.log(factor)
    counts = [FEWEST_SESSIONS] * CASES
    while True:
        cases = zip(drawn, counts, strict=True)
        found = decide([CaseSessions(wall=case[:count].tolist()) for case, count in cases])
        going = [
            place
            for place, each in enumerate(found)
            if not each.decided and counts[place] < MOST_SESSIONS
        ]
        if not going:
            break
        for place in going:
            counts[place] += 1
    session_s = PROCESS_S + float((one + other * factor).sum(axis=1).mean())
    return Heard(slower=found[0].verdict == "regressed", seconds=counts[0] * session_s)


def spent(*sides: Array) -> float:
    """Return the seconds of all steps, and of starting a process for each row."""
    return sum(float(steps.sum()) + PROCESS_S * len(steps) for steps in sides)


RULES: Mapping[str, Trial] = MappingProxyType(
    {
        "mean > 5 %": pooled(mean_slower),
        "median > 5 %": pooled(median_slower),
        "min > 5 %": pooled(min_slower),
        "Mann-Whitney p < 0.05": pooled(mann_whitney_slower),
        "Welch t p < 0.05": pooled(welch_slower),
        "asv": pooled(asv_slower),
        "CodSpeed, mean > 10 %": pooled(codspeed_slower),
        "NVBench, median and quartiles": pooled(nvbench_slower),
        "rustc-perf, quartile fence": history(rustc_slower),
        "conbench, z > 5": history(conbench_slower),
        "Otava, e-divisive": otava,
        "tango, z >= 2.6": tango,
        "**convmark**": ours,
    }
)

CONDITIONS: Mapping[str, tuple[str, str, str]] = {
    "quiet, training": ("reference_quiet_2threads", "lockstep_quiet_2threads", "train"),
    "quiet, inference": ("reference_quiet_2threads", "lockstep_quiet_2threads", "infer"),
    "loaded, training": ("plain_loaded_2threads", "lockstep_loaded", "train"),
    "loaded, inference": ("plain_loaded_2threads", "lockstep_loaded", "infer"),
}
"""File of fresh processes, file of steps in turns, and task."""


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


def noise_of(data: Path, condition: str) -> Noise:
    """Return the recorded step times of a condition; a slice's calls count by their median."""
    processes, pairs, task = CONDITIONS[condition]
    arrays = recorded(data, pairs)
    one, other = (np.median(arrays[f"{side}_{task}_wall_s"], axis=-1) for side in ("A1", "A2"))
    steps = recorded(data, processes)[f"{task}_wall_s"]
    return Noise(processes=steps[:, WARM_UP_STEPS:], pairs=(one, other))


def rows(noises: Mapping[str, Noise], trials: int) -> Iterator[tuple[object, ...]]:
    """Yield a row per rule: what it calls slower under each condition, and what it spends."""
    for name, trial in RULES.items():
        cells: list[str] = []
        seconds: list[float] = []
        for noise in noises.values():
            rng = np.random.default_rng(6)
            heard = [
                [trial(noise, 1 + slowdown, rng) for _ in range(trials)] for slowdown in SLOWDOWNS
            ]
            cells.append(
                " / ".join(f"{100 * sum(h.slower for h in each) / trials:.0f}" for each in heard)
            )
            seconds.append(float(np.mean([h.seconds for h in heard[0]])))
        yield (name, *cells, " / ".join(f"{each:.0f}" for each in seconds))


def league(data: Path, trials: int) -> str:
    """Return the whole page."""
    noises = {condition: noise_of(data, condition) for condition in CONDITIONS}
    table = tabulate(
        list(rows(noises, trials)),
        ("rule", *noises, "seconds, identical code"),
        tablefmt="pipe",
        disable_numparse=True,
    )
    processes, sessions = (
        " / ".join(str(len(side)) for side in sides)
        for sides in zip(*((n.processes, n.pairs[0]) for n in noises.values()), strict=True)
    )
    return f"""# The rule league

How often do rules in common use call code slower that is not, and how often do they find a
slowdown? This page replays recorded step times through thirteen rules. It is printed by `python
tests/benchmarks/rule_league.py`.

A cell has four numbers: the per cent of {trials} trials that a rule called slower, on identical
code / on code that is 3 % / 5 % / 10 % slower. The slowdown is made by multiplying step times by
a factor. The last column has the seconds that a rule spent on identical code. The step times are
of LeNet-5, training at batch 256 and inference at batch 1, two threads, on a shared machine with
two cores, quiet and at load 6. There were {processes} processes that ran alone, and {sessions}
sessions of two processes in turns.

Trials draw from the same processes again and again. A cell therefore says what a rule makes of
these processes, and not how rare a false alarm is on others. For convmark, [the
simulation](decision_rule.md) says that.

{table}

- The rules on pooled steps (the first eight) get half of the processes on either side.
- rustc-perf and conbench judge one run after {HISTORY_RUNS} others, Otava {RUNS_AFTER} runs after
  {HISTORY_RUNS}. The runs of the history do not count as spent.
- tango and convmark read steps that took turns, here of two processes. Two codes in one process
  scatter less.
- convmark judges one case of {CASES}, in up to {MOST_SESSIONS} sessions, and starts a process for
  each. Its margin is 3 %: it names a slowdown below the margin, and does not call it `regressed`.
- The rules are written anew in `tests/benchmarks/rule_league.py`, where the source of each stands
  beside it. They are not run from their packages. That of NVBench with quartiles
  is our reading of its comparison.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=default_data(), help="folder of noise/*.npz")
    parser.add_argument("--trials", type=int, default=200, help="for each cell's figures")
    options = parser.parse_args()
    if options.data is None:
        parser.error("no recorded noise: give --data, or set CONVMARK_NOISE_DATA")
    print(league(options.data, options.trials), end="")


if __name__ == "__main__":
    main()
