"""How often the search for change points is wrong, and how soon it finds a step or a creep.

Run it from the checkout: `python tests/benchmarks/change_points.py [--series N]` prints the shares,
`--critical` the table of critical values in `convmark/compare/rule/change_points.py` anew.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
from tabulate import tabulate

from convmark.compare.rule.change_points import (
    FALSE_RATE,
    Change,
    Run,
    change_points,
    cleaned,
    largest_t,
)
from convmark.compare.rule.decision import RUNS_DIFFER, CaseSessions, decide
from convmark.compare.rule.ratio_levels import Ratio, ratio_levels
from convmark.compare.rule.statistics import summary

Array = npt.NDArray[np.float64]

COUNTS = (6, 7, 8, 9, 10, 12, 15, 20, 30, 50, 100, 200, 500, 1000, 3000, 10000)
LEAST_DRAWS = 10_000
MOST_DRAWS = 200_000
VALUES_AT_ONCE = 2_000_000


def critical(count: int, rng: np.random.Generator) -> float:
    """Return the largest t that flat normal series of so many runs exceed at `FALSE_RATE`."""
    draws = int(np.clip(24_000_000 // count, LEAST_DRAWS, MOST_DRAWS))
    batch = max(1, VALUES_AT_ONCE // count)
    found: list[Array] = []
    for begin in range(0, draws, batch):
        values = rng.standard_normal((min(batch, draws - begin), count))
        found.append(largest_t(cleaned(values), np.ones(count))[0])
    return float(np.quantile(np.concatenate(found), 1 - FALSE_RATE))


def step(before: int, after: int, size: float) -> Array:
    return np.repeat([0.0, size], [before, after])


def creep(before: int, lasts: int, after: int, size: float) -> Array:
    slope = np.linspace(0.0, size, lasts + 1)[1:]
    return np.concatenate([np.zeros(before), slope, np.full(after, size)])


def found_in(levels: Array, noise: float, seed: int, heavy: bool = False) -> list[Change]:
    """Return the changes found in levels with noise between runs."""
    rng = np.random.default_rng(seed)
    draw = rng.standard_t(3, len(levels)) / 3**0.5 if heavy else rng.standard_normal(len(levels))
    return change_points([Run(value=value) for value in (levels + noise * draw).tolist()])


def gated(
    levels: Sequence[float], seed: int, scatter: float, sessions: int, *, moving: bool
) -> list[Ratio]:
    """Return what gates have seen of codes of these levels, each but the first beside another one.

    Runs of the same two codes differ by 0.4 % beside what their sessions scatter by.

    Args:
        sessions: of each gate; 0 for as many as decide it, beside three cases that have not moved.
        moving: whether each is compared with the one before, and not all with the first.
    """
    rng = np.random.default_rng(seed)
    ratios = []
    for place in range(1, len(levels)):
        old = place - 1 if moving else 0
        level = levels[place] - levels[old] + rng.normal(0.0, RUNS_DIFFER)
        if sessions:
            drawn = rng.normal(level, scatter, sessions)
        else:
            drawn = decided_sessions(level, scatter, rng)
        ratios.append(Ratio(sessions=summary(drawn.tolist()), new=place, old=old))
    return ratios


def decided_sessions(level: float, scatter: float, rng: np.random.Generator) -> Array:
    """Return the sessions of a gate's case until it is decided, 60 at most."""
    drawn = rng.normal([[level], [0.0], [0.0], [0.0]], scatter, (4, 60))
    for count in range(2, 60):
        cases = [CaseSessions(wall=one[:count].tolist()) for one in drawn]
        if decide(cases)[0].decided:
            return np.asarray(drawn[0, :count])
    return np.asarray(drawn[0])


def live_rows(series: int) -> Iterator[tuple[object, ...]]:
    """Yield per kind of gates the shares with a change, with a creep, and rightly named.

    Of flat series five times as many are made.
    """
    kinds = {
        "{} commits of 1 % each": lambda count: 0.01 * np.arange(count + 1),
        "{} commits of 0.6 % each": lambda count: 0.006 * np.arange(count + 1),
        "6 % in the middle of {} commits": lambda count: 0.06 * (np.arange(count + 1) > count // 2),
        "{} commits of 0 % each": lambda count: np.zeros(count + 1),
    }
    gates = [(n, scatter) for n in (2, 3) for scatter in (0.01, 0.02)]
    for (kind, made), moving in itertools.product(kinds.items(), (False, True)):
        for count, (sessions, scatter) in itertools.product((5, 6, 10), [*gates, (0, 0.01)]):
            levels = made(count)
            drawn = series if levels.any() else 5 * series
            results = [
                ratio_levels(gated(levels, seed, scatter, sessions, moving=moving), len(levels))
                for seed in range(drawn)
            ]
            moved = [one for found in results for one in found if one.change is not None]
            yield (
                kind.format(count) + ", each beside the one before" * moving,
                f"{sessions or 'enough'} of {scatter:.0%}",
                f"{len(moved) / drawn:.2%}",
                f"{sum(one.creep for one in moved) / drawn:.2%}",
                f"{sum(one.first <= 2 and one.last >= count - 1 for one in moved) / drawn:.2%}",
            )


def right(changes: Sequence[Change], first: int, last: int) -> bool:
    """Whether there is one change, of the right kind, named within a run; a creep within four."""
    if len(changes) != 1 or changes[0].gradual != (last > first):
        return False
    near = 4 if last > first else 1
    return abs(changes[0].first - first) <= near and abs(changes[0].last - last) <= near


def rows(series: int) -> Iterator[tuple[object, ...]]:
    """Yield per kind of series the shares with a change, with one change, and rightly named."""
    cases: dict[str, tuple[Array, float, bool, Callable[[Sequence[Change]], bool]]] = {}
    for count in (10, 25, 50, 200):
        cases[f"flat, {count} runs"] = (np.zeros(count), 0.02, False, lambda found: not found)
    cases["flat, 50 runs, Student's t with 3 degrees"] = (
        *(np.zeros(50), 0.02, True),
        lambda found: not found,
    )
    for before in (10, 20, 40):
        for after in (3, 5, 8, 12):
            levels = step(before, after, 0.05)
            cases[f"5 % at 2 %, {before} runs before, {after} after"] = (
                *(levels, 0.02, False),
                lambda found, at=before: right(found, at, at),
            )
    for noise in (0.005, 0.01, 0.02, 0.03):
        cases[f"creep of 10 runs by 1 % each, noise {noise:.1%}"] = (
            *(creep(20, 10, 10, 0.10), noise, False),
            lambda found: right(found, 20, 29),
        )
    for noise in (0.01, 0.02, 0.03):
        cases[f"creep of 10 runs by 1 % each, from the first on, noise {noise:.1%}"] = (
            *(creep(1, 10, 0, 0.10), noise, False),
            lambda found: right(found, 1, 10),
        )
    cases["two steps of 5 %, 20 runs apart, noise 1 %"] = (
        *(np.repeat([0.0, 0.05, 0.10], [20, 20, 20]), 0.01, False),
        lambda found: [c.first for c in found if not c.gradual] == [20, 40],
    )
    for name, (levels, noise, heavy, is_right) in cases.items():
        results = [found_in(levels, noise, seed, heavy) for seed in range(series)]
        some = sum(bool(found) for found in results)
        yield (
            name,
            f"{some / series:.2%}",
            f"{sum(map(len, results)) / series:.2f}",
            f"{sum(any(c.gradual for c in found) for found in results) / series:.2%}",
            f"{sum(map(is_right, results)) / series:.2%}",
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--critical", action="store_true", help="print the critical values")
    parser.add_argument("--series", type=int, default=400, help="series of each kind")
    parser.add_argument("--live", action="store_true", help="print those of gates alone")
    options = parser.parse_args()
    if options.critical:
        rng = np.random.default_rng(20)
        for count in COUNTS:
            print(f"    ({count}, {critical(count, rng):.2f}),", flush=True)
        return
    headers = ("series", "with a change", "changes each", "with a creep", "rightly named")
    if not options.live:
        print(tabulate(list(rows(options.series)), headers, tablefmt="pipe", disable_numparse=True))
    headers = ("gates", "sessions each", "with a change", "with a creep", "both ends within a run")
    found = list(live_rows(options.series))
    print("\n" + tabulate(found, headers, tablefmt="pipe", disable_numparse=True))


if __name__ == "__main__":
    main()
