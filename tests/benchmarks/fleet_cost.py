"""What a large fleet costs to schedule, and which bad nodes are named, on fleets made of numbers.

Run it from the checkout: `python tests/benchmarks/fleet_cost.py`. It prints markdown tables.
"""

from __future__ import annotations

import argparse
import random
import resource
import sys
import time
from pathlib import Path

from tabulate import tabulate

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from simulated_fleet import SimulatedFleet, job_count, step_times

from convmark.compare.outliers import deviations
from convmark.session.fleet.run import drive
from convmark.session.fleet.scheduler import Assignment, Scheduler


class Silent:
    def began(self, assignment: Assignment) -> None:
        """Not shown."""

    def ended(self, assignment: Assignment, result: object) -> None:
        """Not shown."""

    def lost(self, node: str, why: str) -> None:
        """Not shown."""


SIZES = ((100, 100, 5), (1000, 100, 0), (1000, 100, 50), (1000, 100, 300))
"""Nodes, cases, and how many of the nodes are lost."""


def scheduling(most_nodes: int) -> str:
    rows = []
    for nodes, cases, dying in (size for size in SIZES if size[0] <= most_nodes):
        fleet = SimulatedFleet(nodes=nodes, cases=cases, dying=dying)
        cluster = fleet.cluster()
        kept = [0]

        def keep(assignment: Assignment, result: object, kept: list[int] = kept) -> None:
            kept[0] += 1

        began = time.process_time()
        scheduler = Scheduler(fleet.members, fleet.plans, expected_s=fleet.seconds.__getitem__)
        left = drive(scheduler, cluster, keep, Silent())
        seconds = time.process_time() - began
        rows.append(
            [
                f"{nodes:,}",
                cases,
                dying,
                f"{job_count(fleet.plans):,}",
                f"{kept[0]:,}",
                len(left),
                f"{seconds:.1f}",
                f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f}",
                f"{cluster.now / fleet.lower_bound_s():.4f}",
            ]
        )
    headers = ("nodes", "cases", "lost", "jobs", "rows", "not measured", "CPU s", "MiB so far",
               "makespan / lower bound")  # fmt: skip
    return tabulate(rows, headers=headers, tablefmt="pipe", disable_numparse=True)


def naming(fleets: int) -> str:
    rows = []
    for nodes in (4, 10, 50):
        for noise, cases, processes in ((0.05, 16, 2), (0.07, 3, 2), (0.10, 10, 3), (0.20, 16, 3)):
            cells = [nodes, f"{noise:.0%}", cases, processes]
            for slow in (1.0, 1.05, 1.10, 1.20, 1.50):
                rng = random.Random(f"{nodes} {noise} {cases} {processes} {slow}")
                good = bad = 0
                for _ in range(fleets):
                    times = step_times(
                        rng,
                        nodes=nodes,
                        cases=cases,
                        processes=processes,
                        noise=noise,
                        bad={"node-01": slow},
                    )
                    named = [one.node for one in deviations(times) if one.differs]
                    bad += "node-01" in named and slow > 1
                    good += any(name != "node-01" or slow == 1 for name in named)
                alarms = f"{100 * good / fleets:.1f}"
                cells.append(alarms if slow == 1 else f"{100 * bad / fleets:.0f} / {alarms}")
            rows.append(cells)
    changes = ("5 %", "10 %", "20 %", "50 %")
    headers = [
        *("nodes", "noise", "cases", "processes", "all good: alarm"),
        *(f"one {change} slow: it / a good one" for change in changes),
    ]
    return tabulate(rows, headers=headers, tablefmt="pipe", disable_numparse=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--most-nodes", type=int, default=1000, help="no larger fleets")
    parser.add_argument("--fleets", type=int, default=200, help="simulated ones per figure")
    options = parser.parse_args()
    print(scheduling(options.most_nodes))
    print(f"\nPer cent of {options.fleets} simulated fleets:\n")
    print(naming(options.fleets))
