"""Every ratio or change that stands beside two figures is their quotient, to the digits shown.

The rows are such that mean, median and geometric mean are far apart, and so are runs.
"""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import pytest
from histories import process
from quotients import SKEW, agree, shown_rows, skewed
from report_rows import FAST, SLOW, keep_run
from test_across import across

from convmark.compare.history import CaseHistory, History
from convmark.compare.judgement import LiveComparison
from convmark.compare.rule.decision import CaseSessions, decide
from convmark.compare.verdict import conclude, review
from convmark.core.table import Table
from convmark.report.across import across_report
from convmark.report.build import build
from convmark.report.comment import Gate, comment_text
from convmark.report.comparison import Comparison
from convmark.report.summary import run_tables
from convmark.report.verdicts import verdicts_report

STEPS_S = {SLOW: 0.0117, FAST: 0.0041}
RUN_SKEW = (1.0, 1.7, 1.2)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three runs of two machines at two batch sizes; a run over threads and one over replicas."""
    folder = tmp_path_factory.mktemp("quotients") / "results"
    for (machine, step_s), (run, by) in itertools.product(STEPS_S.items(), enumerate(RUN_SKEW, 1)):
        facts = {"sustained_s": 60.0, "sustained_other_cpu_share": 0.0}
        rows = [
            row
            for batch in (8, 32)
            for row in skewed(machine, run, "lenet5", step_s * by * (batch / 32) ** 0.6,
                              batch_size=batch, **facts,
                              sustained_throughput_samples_per_s=batch / step_s / by / 1.3)
        ]  # fmt: skip
        keep_run(folder, rows)
    more = {"physical_cores": 8, "state": None}
    threads = [skewed(SLOW, 4, "mini_resnet", 0.03 / int(one), threads=one, **more)
               for one in "124"]  # fmt: skip
    replicas = [skewed(SLOW, 4, "mini_resnet", 0.02 + 0.003 * one, replicas=one,
                       cluster="local" if one > 1 else None) for one in (1, 2)]  # fmt: skip
    keep_run(folder, [row for rows in (*threads, *replicas) for row in rows])
    return folder


def table(results: Path, key: str, **compared: Any) -> Table:
    (found,) = (one for one in build([results], comparison=Comparison(**compared)).tables
                if one.key == key)  # fmt: skip
    return found


@pytest.mark.parametrize(
    ("key", "rank", "figure", "is_rate"),
    [
        ("hardware", "burst", "mean_s", False),
        ("hardware", "sustained", "mean_rate", True),
        ("hardware_best", "burst", "mean_rate", True),
        ("hardware_best", "sustained", "mean_rate", True),
    ],
)
def test_a_speed_up_of_machines(
    results: Path, key: str, rank: str, figure: str, is_rate: bool
) -> None:
    found = table(results, key, rank=rank, reference=f"{SLOW} cpu")
    rows = [row for row in shown_rows(found) if row.get(figure) and row["speedup"]]
    groups: dict[str, dict[str, dict[str, str]]] = {}
    for row in rows:
        name = row["model"] + (row.get("batch_size", "") if key == "hardware" else "")
        groups.setdefault(name, {})[row["hardware"]] = row
    pairs = [(one[f"{SLOW} cpu"], one[f"{FAST} cpu"]) for one in groups.values() if len(one) > 1]
    assert pairs
    for base, other in pairs:
        ends = (other[figure], base[figure]) if is_rate else (base[figure], other[figure])
        assert agree(float(other["speedup"]), 3, *ends), (base, other)


def test_a_speed_up_and_an_efficiency_over_threads(results: Path) -> None:
    for found in (table(results, "cores"), over_cores()):
        base, *others = (row for row in shown_rows(found) if row["threads"] in "124")
        assert len(others) == 2
        for row in others:
            assert agree(float(row["speedup"]), 3, base["mean_s"], row["mean_s"]), row
            share = float(row["efficiency"].removesuffix(" %")) / 100
            times = int(row["threads"])
            assert share * times == pytest.approx(float(row["speedup"]), abs=0.003 * times)


def over_cores() -> Table:
    rows = [row for one in "124" for row in skewed(SLOW, 4, "lenet5", 0.03 / int(one), threads=one)]
    (found,) = (one for one in run_tables(rows) if one.key == "cores")
    return found


def test_an_efficiency_over_replicas(results: Path) -> None:
    rows = [skewed(SLOW, 4, "lenet5", 0.02, replicas=one, cluster=None) for one in (1, 2)]
    own = [one for one in run_tables([row for its in rows for row in its]) if one.key == "scaling"]
    for found in (table(results, "scaling"), own[0]):
        base, other = shown_rows(found)
        share = float(other["efficiency"].removesuffix(" %")) / 100
        assert agree(2 * share, 3, other["mean_rate"], base["mean_rate"])


def test_a_change_from_version_to_version() -> None:
    for runs, alternate in ((1, False), (3, False), (3, True)):
        rows = []
        for number in range(2 * runs):
            new = bool(number % 2) if alternate else number >= runs
            step_s = (0.0101, 0.0137)[new] * RUN_SKEW[number % 3]
            version = ("2.20.0", "2.21.0")[new]
            rows += [
                process(run=f"{number + 1:04d}", tensorflow=version, code="c1", process=place,
                        order=place, step_time_p50_s=step_s * skew)
                for place, skew in enumerate(SKEW, 1)
            ]  # fmt: skip
        old, new = across(rows, "tensorflow")
        assert new.to_previous is not None
        assert old.step_time_p50_s
        assert new.step_time_p50_s
        told = across_report([old, new], "tensorflow")
        if new.to_previous.basis == "pairs":
            assert "the mean over their pairs" in " ".join(told.split())
            continue
        quotient = new.step_time_p50_s / old.step_time_p50_s
        assert 1 + new.to_previous.change == pytest.approx(quotient)
        assert not alternate


def test_a_change_of_a_gate_on_every_surface() -> None:
    rows = skewed(SLOW, 7, "lenet5", 0.0137, paired_log_ratio=0.1)
    decision = decide([CaseSessions(wall=[0.31, 0.30, 0.32, 0.33, 0.31, 0.30])])[0]
    live = {rows[0].case.name: LiveComparison(decision=decision, anchor="1234567aaaaa")}
    before = skewed(
        SLOW, 6, "lenet5", 0.0101, peak_host_memory_bytes=110_000_000, paired_log_ratio=0.0
    )
    history = History(cases={rows[0].case.name: CaseHistory(runs=(tuple(before),))})
    found = conclude(review(rows, history), live)
    seen = set()
    for one in found:
        if one.change is None or one.baseline is None or one.value is None:
            continue
        assert one.value / one.baseline == pytest.approx(1 + one.change)
        seen.add(one.metric)
    assert {"step_time", "throughput"} <= seen
    for text in (verdicts_report(found, "markdown"), comment_text(Gate(found))):
        lines = re.findall(
            r"\| +([\d.,]+(?: m?s)?) +\| +([\d.,]+(?: m?s)?) +\| +([+-][\d.]+) %", text
        )
        assert lines, text
        for baseline, now, change in lines:
            assert agree(1 + float(change) / 100, 3, now, baseline), (baseline, now, change)
