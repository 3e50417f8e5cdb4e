"""A plan on a real Ray cluster of two nodes on 127.0.0.1, and the same without it."""

from __future__ import annotations

import math
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from statistics import mean

import pytest
from ray_cluster import LocalCluster, free_port, local_cluster

from convmark.judging.confirm import t_quantile
from convmark.record import COLUMNS, Record
from convmark.store import read_run

pytest.importorskip("ray", reason='needs Ray: pip install "convmark[ray]"')

LIMIT_S = 100
QUICK = ("--time-budget", "0.4", "--isolation", "fork")
THREE = ("--models", "conv_layer,separable_layer,lenet5", "--tasks", "infer", "--batch-sizes", "8")
TWO = ("--models", "conv_layer", "--tasks", "infer,train", "--batch-sizes", "8")


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with local_cluster() as started:
        yield started


class Caller:
    """A `convmark` command line in a process of its own, its lines as they come."""

    def __init__(self, cluster: LocalCluster, folder: Path, *arguments: str) -> None:
        self.said: list[str] = []
        self._out = (folder / "out").open("w+")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "convmark.cli", *arguments],
            cwd=folder,
            env=cluster.environ,
            stdout=self._out,
            stderr=subprocess.PIPE,
            text=True,
        )

    def until(self, pattern: str) -> str:
        """Read lines up to one that matches, and return it."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said.append(line.rstrip())
            if re.search(pattern, line):
                return line
        raise AssertionError("\n".join(self.said))

    def end(self) -> int:
        """Read to the end and return the exit status."""
        assert self.process.stderr is not None
        self.said += [line.rstrip() for line in self.process.stderr]
        self.process.stderr.close()
        return self.process.wait(LIMIT_S)

    def out(self) -> str:
        self._out.seek(0)
        text = self._out.read()
        self._out.close()
        return text


def called(cluster: LocalCluster, folder: Path, *arguments: str) -> tuple[int, str, list[str]]:
    caller = Caller(cluster, folder, *arguments)
    status = caller.end()
    return status, caller.out(), caller.said


def rows(folder: Path, results: str = "results") -> list[Record]:
    paths = sorted(folder.glob(f"{results}/*/*.csv"))
    return [row for path in paths if path.stem.isdecimal() for row in read_run(path)]


def test_the_cluster_of_this_test_listens_on_this_host_alone(cluster: LocalCluster) -> None:
    """What Ray does with a loopback address; elsewhere it listens on every network card."""
    assert cluster.other is not None
    for node in (cluster.head, cluster.other):
        assert {address.removeprefix("::ffff:") for address in node.addresses()} <= {
            "127.0.0.1",
            "::1",
        }


def test_the_doctor_finds_both_nodes(cluster: LocalCluster, tmp_path: Path) -> None:
    status, out, said = called(cluster, tmp_path, "fleet", "doctor", "--ray", cluster.address)
    assert status == 0, (out, said)
    for rack in ("rack=1", "rack=2"):
        (line,) = [one for one in out.splitlines() if rack in one]
        assert "127.0.0.1" in line
        assert " cpu" in line
    assert "Would refuse to measure\n  none" in out
    status, _, said = called(
        cluster, tmp_path, "fleet", "doctor", "--ray", cluster.address, "--nodes", "rack=3"
    )
    assert status == 2
    assert said[-1].endswith("labels there are: rack=1, rack=2 (ray start --labels)")


MEASURED_GROUPS = ("time", "memory", "state")
OF_ITS_OWN = {"run", "started", "commit", "dirty"}
SAME_TIME_COLUMNS = {"reference", "reference_version", "measurement_version"}


def test_three_cases_are_measured_alike_with_ray_and_without(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    asked = ["run", *THREE, *QUICK, "--processes", "3"]
    status, _, said = called(cluster, tmp_path, *asked, "--results", "plain")
    assert status == 0, said
    status, out, said = called(
        cluster, tmp_path, *asked, "--ray", cluster.address, "--per", "machine-kind",
        "--results", "rayed",
    )  # fmt: skip
    assert status == 0, (out, said)
    plain, rayed = (
        {(row.case, row.process): row for row in rows(tmp_path, results)}
        for results in ("plain", "rayed")
    )
    assert len({case for case, _ in plain}) == 3
    assert len({row.run for row in rayed.values()}) == 1, "one of the kind measures"
    assert list(plain) == list(rayed), "in the same order"
    for key, row in plain.items():
        for column in COLUMNS:
            one, other = getattr(row, column.name), getattr(rayed[key], column.name)
            if column.group in MEASURED_GROUPS and column.name not in SAME_TIME_COLUMNS:
                assert (one is None) == (other is None), column.name
            elif column.name not in OF_ITS_OWN:
                assert one == other, column.name
    for case in dict.fromkeys(case for case, _ in plain):
        agree([plain[case, number] for number in (1, 2, 3)], [rayed[case, n] for n in (1, 2, 3)])


def agree(one: list[Record], other: list[Record]) -> None:
    """Hold that the paired ratios' intervals, 99.9 % of the difference, have a value in common.

    Three processes tell a spread by luck: between fresh processes of one case it is taken for 5 %,
    the most that short inference was seen to have, where they tell less.
    """
    means, variances = [], []
    for side in (one, other):
        ratios = [row.paired_log_ratio for row in side if row.paired_log_ratio is not None]
        assert len(ratios) == 3
        errors = [row.paired_log_ratio_se or 0.0 for row in side]
        middle = mean(ratios)
        spread = sum((ratio - middle) ** 2 for ratio in ratios) / 2
        within = mean([error**2 for error in errors])
        means.append(middle)
        variances.append(max(spread, 0.05**2, within) / 3)
    half = t_quantile(0.9995, 4) * math.sqrt(sum(variances))
    assert abs(means[0] - means[1]) <= half, (one[0].case.name, means, half)


def test_a_node_killed_in_mid_case_loses_no_row_and_the_plan_completes(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    """Both nodes are on one host, so they take turns: after a row of the one the other is at it."""
    assert cluster.other is not None
    caller = Caller(cluster, tmp_path, "run", *TWO, *QUICK, "--ray", cluster.address)
    head = name_of(cluster, "rack=1")
    caller.until(rf"^{head} \[1/4\]")
    caller.until(rf"^{head} \[2/4\]")  # the other is at its second job, or about to be
    time.sleep(0.5)
    os.kill(cluster.other.raylet().pid, signal.SIGKILL)
    try:
        status = caller.end()
        assert status == 0, caller.said
        found = rows(tmp_path)
        reported = [line for line in caller.said if re.match(r"\S+ \[\d+/\d+\]", line)]
        assert len(found) == len(reported)
        assert all(row.measured for row in found)
        lost = [line for line in caller.said if ": lost: " in line]
        assert len(lost) == 1, caller.said
        runs = Counter(row.run for row in found)
        stood_in = [line for line in reported if " for " in line]
        assert stood_in, "what the lost node had left is measured"
        assert len(runs) == 3
        wanted = {(row.case, row.process) for row in found if row.run == "0001"}
        assert len(wanted) == 4
        by_others = {(row.case, row.process) for row in found if row.run != "0001"}
        assert by_others == wanted
    finally:
        cluster.join().await_start()


def name_of(cluster: LocalCluster, label: str) -> str:
    """Return what the node with the label is called."""
    _, out, said = called(cluster, Path.cwd(), "fleet", "doctor", "--ray", cluster.address)
    lines = [line for line in out.splitlines() if f" {label} " in line]
    assert lines, (out, said)
    return re.escape(lines[0].split()[0])


def test_a_caller_that_dies_comes_back_and_measures_what_is_missing(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    asked = ["run", *TWO, *QUICK, "--ray", cluster.address, "--nodes", "rack=1"]
    caller = Caller(cluster, tmp_path, *asked)
    caller.until(r"\[1/4\]")
    caller.process.kill()
    caller.end()
    caller.out()
    before = rows(tmp_path)
    assert 1 <= len(before) < 4
    status, out, said = called(cluster, tmp_path, *asked, "--resume")
    assert status == 0, (out, said)
    after = rows(tmp_path)
    assert after[: len(before)] == before
    assert len(after) == 4
    assert len({row.run for row in after}) == 1


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("nonsense", "--ray: must be an address, got 'nonsense'; "),
        ("host:0", "--ray: must be an address, got 'host:0'; "),
        ("127.0.0.1:{port}", "--ray: nothing answers at 127.0.0.1:{port}: "),
        ("ray://127.0.0.1:{port}", "--ray: nothing answers at ray://127.0.0.1:{port}: "),
    ],
)
def test_an_address_at_which_nothing_answers_is_refused_at_once(
    tmp_path: Path, address: str, said: str
) -> None:
    port = free_port()
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "convmark.cli", "run", "--ray", address.format(port=port)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"convmark run: {said.format(port=port)}")
    assert time.monotonic() - began < 30
