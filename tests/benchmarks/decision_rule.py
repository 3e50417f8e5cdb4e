"""What the rule of `convmark.compare.rule` makes of simulated sessions: false alarms, found, spent.

Run it from the checkout: `python tests/benchmarks/decision_rule.py [--decisions N] [--state FILE]`.
It prints Markdown tables with Clopper-Pearson bounds of 95 %. Each simulated run is a line of the
state file: stopped with Ctrl-C and started again with the same file, it goes on where it was. What
another version of the rule or of this script left there is not read.

A run is a suite of 16 cases unless the scenario says otherwise. Each case gets two sessions, then
each undecided case one more in turn, and the rule is asked after every round, up to 60 sessions a
case. A decision is final. With a budget the sessions are allotted one by one, a second each, and
the run ends with the budget.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.special import betaincinv
from tabulate import tabulate

from convmark.compare.rule import allotment, decision, statistics
from convmark.compare.rule.allotment import Candidate, next_session
from convmark.compare.rule.decision import (
    FEWEST_SESSIONS,
    CaseSessions,
    Decision,
    Limits,
    bar,
    decide,
)

RULE = (allotment, decision, statistics)
Array = npt.NDArray[np.float64]
Draw = Callable[[np.random.Generator, int, int], Array]
"""Takes the generator, the cases and the sessions of each; returns log ratios of identical code."""

CASES = 16
MOST_SESSIONS = 60
SLOWDOWNS = (0.03, 0.05, 0.10)
NOISES = (0.005, 0.01, 0.02, 0.04)


def normal(spread: float) -> Draw:
    return lambda rng, cases, count: spread * rng.standard_normal((cases, count))


def one_noisy(rng: np.random.Generator, cases: int, count: int) -> Array:
    """The first case scatters by 20 %, the others by 0.5 %."""
    spread = np.full((cases, 1), 0.005)
    spread[0] = 0.20
    return np.asarray(spread * rng.standard_normal((cases, count)))


def unequal(rng: np.random.Generator, cases: int, count: int) -> Array:
    """Each case has a noise of its own, 0.3 to 20 %, evenly over the logarithm."""
    spread = np.exp(rng.uniform(math.log(0.003), math.log(0.20), (cases, 1)))
    return np.asarray(spread * rng.standard_normal((cases, count)))


def outliers(rng: np.random.Generator, cases: int, count: int) -> Array:
    """1 %, and three sessions in a hundred are off by 20 to 50 %, to either side."""
    values = 0.01 * rng.standard_normal((cases, count))
    odd = rng.random((cases, count)) < 0.03
    sizes = rng.uniform(0.2, 0.5, (cases, count)) * rng.choice((-1, 1), (cases, count))
    return np.asarray(np.where(odd, sizes, values))


def heavy(spread: float) -> Draw:
    """Student's t with two degrees of freedom."""
    return lambda rng, cases, count: spread * rng.standard_t(2, (cases, count))


def two_modes(rng: np.random.Generator, cases: int, count: int) -> Array:
    """A session lands in one of two modes, 3 to 8 % apart, and scatters by 0.4 % in it."""
    apart = rng.uniform(0.03, 0.08, (cases, 1))
    sides = rng.choice((-0.5, 0.5), (cases, count))
    return np.asarray(apart * sides + 0.004 * rng.standard_normal((cases, count)))


def three_modes(rng: np.random.Generator, cases: int, count: int) -> Array:
    """Either side lands in one of two modes, 3 to 8 % apart: the ratio has three."""
    apart = rng.uniform(0.03, 0.08, (cases, 1))
    sides = rng.integers(0, 2, (cases, count)) - rng.integers(0, 2, (cases, count))
    return np.asarray(apart * sides + 0.004 * rng.standard_normal((cases, count)))


def one_with_modes(rng: np.random.Generator, cases: int, count: int) -> Array:
    """The first case has two modes, the others scatter by 0.5 %."""
    values = normal(0.005)(rng, cases, count)
    values[0] = two_modes(rng, 1, count)
    return values


def drift(rng: np.random.Generator, cases: int, count: int) -> Array:
    """1 %, and what is built second is slower by a share that grows by 0.3 % with each session."""
    sides = rng.choice((-1, 1), (cases, count))
    grows = 0.003 * np.arange(count)
    return np.asarray(sides * grows + 0.01 * rng.standard_normal((cases, count)))


def load_steps(rng: np.random.Generator, cases: int, count: int) -> Array:
    """1 %, and 8 % for a stretch of sessions while another process runs."""
    begins = rng.integers(0, 12, (cases, 1))
    lasts = rng.integers(2, 12, (cases, 1))
    place = np.arange(count)
    loaded = (place >= begins) & (place < begins + lasts)
    return np.asarray(np.where(loaded, 0.08, 0.01) * rng.standard_normal((cases, count)))


def biased(rng: np.random.Generator, cases: int, count: int) -> Array:
    """0.5 %, around +0.4 %: the largest mean that duets of identical code were seen to have."""
    return 0.004 + normal(0.005)(rng, cases, count)


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """What is simulated: noise, and how much slower the first cases are."""

    draw: Draw
    slowdown: float = 0.0
    slowed: int = 0
    """So many cases are slower, by wall time."""
    cases: int = CASES
    cpu: tuple[float, float] | None = None
    """Noise of CPU time, and the share by which it is slower; None where it is not measured."""
    budget_s: float | None = None
    sharp: bool = False
    """The limits of an unlimited budget."""


SAME: Mapping[str, Scenario] = {
    **{f"normal, {noise:.1%}": Scenario(draw=normal(noise)) for noise in (*NOISES, 0.1, 0.2)},
    "one case 20 %, the others 0.5 %": Scenario(draw=one_noisy),
    "each case its own, 0.3 to 20 %": Scenario(draw=unequal),
    "1 %, outliers of 20 to 50 %": Scenario(draw=outliers),
    "Student's t, 2 degrees, 1 %": Scenario(draw=heavy(0.01)),
    "Student's t, 2 degrees, 5 %": Scenario(draw=heavy(0.05)),
    "two modes": Scenario(draw=two_modes),
    "three modes": Scenario(draw=three_modes),
    "one case with two modes": Scenario(draw=one_with_modes),
    "drift": Scenario(draw=drift),
    "load steps": Scenario(draw=load_steps),
    "bias of 0.4 %": Scenario(draw=biased),
    "two modes, one case in all": Scenario(draw=two_modes, cases=1),
    "each its own, one case in all": Scenario(draw=unequal, cases=1),
    "each its own, 100 cases": Scenario(draw=unequal, cases=100),
    "each its own, 60 s": Scenario(draw=unequal, budget_s=60),
    "two modes, 100 s": Scenario(draw=two_modes, budget_s=100),
    "normal, 1.0%, 60 s": Scenario(draw=normal(0.01), budget_s=60),
    "normal, 6.0%, 200 s": Scenario(draw=normal(0.06), budget_s=200),
}
SLOWER: Mapping[str, Scenario] = {
    f"{noise:.1%}, {slowdown:+.0%}{', sharp' * sharp}": Scenario(
        draw=normal(noise), slowdown=slowdown, slowed=1, sharp=sharp
    )
    for sharp in (False, True)
    for noise in NOISES
    for slowdown in SLOWDOWNS[: 1 if sharp else None]
}
MISSED: Mapping[str, Scenario] = {
    f"normal, {noise:.1%}": Scenario(draw=normal(noise), slowdown=0.05, slowed=CASES)
    for noise in (*NOISES, 0.06, 0.1)
}
BY_CPU: Mapping[str, Scenario] = {
    "same code, wall time alone": Scenario(draw=normal(0.06)),
    "same code": Scenario(draw=normal(0.06), cpu=(0.015, 0.0)),
    "wall and CPU +5 %": Scenario(
        draw=normal(0.06), slowdown=0.05, slowed=CASES, cpu=(0.015, 0.05)
    ),
    "wall +5 %, CPU stands still": Scenario(
        draw=normal(0.06), slowdown=0.05, slowed=CASES, cpu=(0.015, 0.0)
    ),
    "wall stands still, CPU +30 %": Scenario(draw=normal(0.06), cpu=(0.015, 0.3)),
}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of the cases of one run: the slowed ones first."""

    verdicts: list[str]
    sessions: list[int]
    ever: list[int]
    """Places of the cases that were called regressed at any look."""


def simulate(scenario: Scenario, seed: int) -> Outcome:
    """Return what the rule made of one run."""
    rng = np.random.default_rng(seed)
    wall = scenario.draw(rng, scenario.cases, MOST_SESSIONS)
    wall[: scenario.slowed] += math.log1p(scenario.slowdown)
    cpu = None
    if scenario.cpu is not None:
        noise, slower = scenario.cpu
        cpu = math.log1p(slower) + normal(noise)(rng, scenario.cases, MOST_SESSIONS)
    counts = [0 if scenario.budget_s else FEWEST_SESSIONS] * scenario.cases
    ever: set[int] = set()
    decisions: list[Decision] = []
    while True:
        final = [found if found.decided else None for found in decisions]
        decisions = look(wall, cpu, counts, final, sharp=scenario.sharp)
        ever |= {place for place, found in enumerate(decisions) if found.verdict == "regressed"}
        further = next_ones(decisions, scenario.budget_s)
        if not further:
            break
        for place in further:
            counts[place] += 1
    return Outcome(
        verdicts=[found.verdict for found in decisions], sessions=counts, ever=sorted(ever)
    )


def look(
    wall: Array,
    cpu: Array | None,
    counts: Sequence[int],
    final: Sequence[Decision | None],
    *,
    sharp: bool,
) -> list[Decision]:
    """Return the rule's decisions from the first sessions of each case; those made are final."""
    cases = [
        CaseSessions(
            wall=wall[place, :count].tolist(),
            cpu=None if cpu is None else cpu[place, :count].tolist(),
        )
        for place, count in enumerate(counts)
    ]
    return decide(cases, Limits().sharp() if sharp else Limits(), final)


def next_ones(decisions: Sequence[Decision], budget_s: float | None) -> list[int]:
    """Return who gets a session: every undecided case, or within a budget the best of them."""
    full = [found.sessions >= MOST_SESSIONS for found in decisions]
    if budget_s is None:
        return [
            place for place, found in enumerate(decisions) if not (found.decided or full[place])
        ]
    left_s = budget_s - sum(found.sessions for found in decisions)
    candidates = [
        Candidate(decision=found, session_s=1.0, closed=at_end)
        for found, at_end in zip(decisions, full, strict=True)
    ]
    found = next_session(candidates, left_s)
    return [] if found is None else [found]


class State:
    """The outcomes so far, in a file of JSON lines where one is named."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._version = version()
        self._known: dict[tuple[str, int], Outcome] = {}
        if path is not None and path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                kept = json.loads(line)
                if kept.pop("version") == self._version:
                    key = (kept.pop("name"), kept.pop("seed"))
                    self._known[key] = Outcome(**kept)

    def outcomes(self, name: str, scenario: Scenario, decisions: int) -> list[Outcome]:
        """Return so many cases' outcomes, and simulate those that are not known yet."""
        runs = range(math.ceil(decisions / scenario.cases))
        return [self._outcome(name, scenario, seed) for seed in runs]

    def _outcome(self, name: str, scenario: Scenario, seed: int) -> Outcome:
        if (name, seed) not in self._known:
            found = simulate(scenario, zlib.crc32(name.encode()) + seed)
            self._known[name, seed] = found
            if self._path is not None:
                line = {"version": self._version, "name": name, "seed": seed, **asdict(found)}
                with self._path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line) + "\n")
        return self._known[name, seed]


def version() -> str:
    """Return a hash of the rule and of this script."""
    files = [Path(__file__), *(Path(module.__file__) for module in RULE)]
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:12]


def bounds(count: int, of: int) -> tuple[float, float]:
    """Return the two-sided 95 % bounds of a share.

    Source:
        Clopper and Pearson (1934).
    """
    low = float(betaincinv(count, of - count + 1, 0.025)) if count else 0.0
    high = float(betaincinv(count + 1, of - count, 0.975)) if count < of else 1.0
    return low, high


def shown(count: int, of: int) -> str:
    """Return a share in per cent with its bounds."""
    low, high = bounds(count, of)
    return f"{count / of:.2%} [{low:.2%}, {high:.2%}]"


NAMED = ("slower_within_margin", "faster_within_margin")


def same_rows(state: State, decisions: int, most: int | None) -> Iterator[tuple[object, ...]]:
    """Yield a row per scenario of identical code, and one for all of them."""
    total = alarms = 0
    for name, scenario in islice(SAME.items(), most):
        outcomes = state.outcomes(name, scenario, decisions)
        verdicts = Counter(verdict for run in outcomes for verdict in run.verdicts)
        cases = sum(verdicts.values())
        ever = sum(len(run.ever) for run in outcomes)
        total, alarms = total + cases, alarms + ever
        yield (
            name,
            cases,
            ever,
            verdicts["regressed"],
            f"{1000 * bounds(ever, cases)[1]:.1f}",
            *(f"{verdicts[verdict] / cases:.1%}" for verdict in ("unchanged", "undecided")),
            f"{sum(verdicts[verdict] for verdict in NAMED) / cases:.1%}",
            f"{sum(sum(run.sessions) for run in outcomes) / cases:.1f}",
        )
    yield ("**all**", total, alarms, "", f"{1000 * bounds(alarms, total)[1]:.2f}", *[""] * 4)


def slower_rows(state: State, decisions: int, most: int | None) -> Iterator[tuple[object, ...]]:
    """Yield a row per noise and slowdown of one case among sixteen, from a tenth as many runs."""
    runs = max(1, decisions // 10)
    for name, scenario in islice(SLOWER.items(), most):
        outcomes = state.outcomes(f"slower {name}", scenario, runs * scenario.cases)
        verdicts = Counter(run.verdicts[0] for run in outcomes)
        blamed = sum(place > 0 for run in outcomes for place in run.ever)
        yield (
            name,
            shown(verdicts["regressed"], len(outcomes)),
            *(
                f"{verdicts[verdict] / len(outcomes):.1%}"
                for verdict in (NAMED[0], "unchanged", "undecided")
            ),
            f"{np.mean([run.sessions[0] for run in outcomes]):.1f}",
            f"{np.mean([sum(run.sessions) for run in outcomes]):.0f}",
            blamed,
        )


def share_rows(
    state: State, scenarios: Mapping[str, Scenario], decisions: int, most: int | None
) -> Iterator[tuple[object, ...]]:
    """Yield a row per scenario: shares of verdicts, and the sessions of a case."""
    for name, scenario in islice(scenarios.items(), most):
        outcomes = state.outcomes(f"{scenario.slowdown} {name}", scenario, decisions)
        verdicts = Counter(verdict for run in outcomes for verdict in run.verdicts)
        cases = sum(verdicts.values())
        yield (
            name,
            shown(verdicts["unchanged"], cases),
            shown(verdicts["regressed"], cases),
            f"{verdicts['undecided'] / cases:.1%}",
            f"{sum(sum(run.sessions) for run in outcomes) / cases:.1f}",
        )


def first_alarm(changes: Sequence[float], noise: float, seed: int) -> int | None:
    """Return the first commit, from 1 up, that is called regressed against the anchor and the bar.

    Args:
        changes: ln(commit / anchor) of each commit.
    """
    rng = np.random.default_rng(seed)
    earlier: list[tuple[float, float]] = []
    for commit, change in enumerate(changes, start=1):
        values = normal(noise)(rng, CASES, MOST_SESSIONS)
        values[0] += change
        wall, limit = values[0].tolist(), bar(earlier)
        count, others = FEWEST_SESSIONS, values[1:, : 2 * FEWEST_SESSIONS].tolist()
        while True:
            cases = [CaseSessions(wall=wall[:count], bar=limit)]
            found = decide(cases + [CaseSessions(wall=other) for other in others])[0]
            if found.decided or count == MOST_SESSIONS:
                break
            count += 1
        if found.verdict == "regressed":
            return commit
        error = found.spread / math.sqrt(found.sessions)
        earlier.append((found.estimate or 0.0, error))
    return None


CREEPS: Mapping[str, Sequence[float]] = {
    "1 % a commit": [k * math.log(1.01) for k in range(1, 11)],
    "no change": [0.0] * 10,
    "10 % faster at the first, not accepted; 7 % of it lost at the sixth": [
        *[-0.10] * 5,
        *[-0.03] * 5,
    ],
}


def creep_rows(state: State, decisions: int, most: int | None) -> Iterator[tuple[object, ...]]:
    """Yield, per history and noise, by which commit it was called regressed; not kept."""
    runs = max(1, decisions // 20)
    for name, changes in islice(CREEPS.items(), most):
        for noise in NOISES[:3]:
            found = [first_alarm(changes, noise, seed) for seed in range(runs)]
            counted = Counter(found)
            by = {last: sum(counted[c] for c in range(1, last + 1)) for last in (3, 4, 5, 6, 10)}
            yield (name, f"{noise:.1%}", *(f"{count / runs:.1%}" for count in by.values()))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--decisions", type=int, default=2000, help="cases of each scenario")
    parser.add_argument("--state", type=Path, help="file that keeps what was simulated")
    parser.add_argument("--only", choices=TABLES, help="print one table")
    parser.add_argument("--scenarios", type=int, help="simulate the first ones of a table alone")
    options = parser.parse_args()
    state = State(options.state)
    for name, (title, headers, rows) in TABLES.items():
        if options.only in (None, name):
            print(f"\n## {title}\n")
            found = list(rows(state, options.decisions, options.scenarios))
            print(tabulate(found, headers, tablefmt="pipe", disable_numparse=True), flush=True)


SHARES = ("unchanged", "regressed", "undecided", "sessions a case")
Rows = Callable[[State, int, int | None], Iterator[object]]
"""Takes what is known, the cases of each scenario, and the most scenarios."""
TABLES: Mapping[str, tuple[str, Sequence[str], Rows]] = {
    "same": (
        "Identical code",
        (
            *("noise", "cases", "ever regressed", "at the end", "per 1,000, at most"),
            *("unchanged", "undecided", "named within the margin", "sessions a case"),
        ),
        same_rows,
    ),
    "slower": (
        "One of 16 cases is slower",
        (
            *("noise, slowdown", "regressed", "slower within the margin", "unchanged"),
            *("undecided", "its sessions", "all sessions", "others blamed"),
        ),
        slower_rows,
    ),
    "missed": (
        "Every case is 5 % slower",
        ("noise", *SHARES),
        lambda state, *how: share_rows(state, MISSED, *how),
    ),
    "cpu": (
        "Wall time of 6 %, CPU time of 1.5 % a session",
        ("what happened", *SHARES),
        lambda state, *how: share_rows(state, BY_CPU, *how),
    ),
    "creep": (
        "Creep: regressed by the third, fourth, fifth, sixth and tenth commit",
        ("history", "noise", "3", "4", "5", "6", "10"),
        creep_rows,
    ),
}


if __name__ == "__main__":
    main()
