"""A plan on a real Ray cluster of two nodes on 127.0.0.1, and the same without it."""

from __future__ import annotations

import importlib.util
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import mean

import pytest
from faults import fast_python
from forks import COMMAND, STARTED, Forks
from ray_cluster import LocalCluster, free_port, local_cluster

from convmark.core.statistics import t_quantile
from convmark.results.reading import read_run
from convmark.results.record import COLUMNS, Record

pytestmark = pytest.mark.skipif(  # to import it would take a second of every test process
    importlib.util.find_spec("ray") is None, reason='needs Ray: pip install "convmark[ray]"'
)

LIMIT_S = 100
QUICK = ("--time-budget", "0.2", "--isolation", "fork")
THREE = ("--models", "conv_layer,separable_layer,lenet5", "--tasks", "infer", "--batch-sizes", "8")
ONE = ("--models", "conv_layer", "--tasks", "infer", "--batch-sizes", "8")


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with local_cluster() as started:
        yield started


class Caller:
    """A `convmark` command line in a process of its own, its lines as they come."""

    def __init__(self, cluster: LocalCluster, folder: Path, *arguments: str) -> None:
        self.said: list[str] = []
        self.printed = ""
        self._out = (folder / "out").open("w+")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "convmark", *arguments],
            cwd=folder,
            env=cluster.environ,
            stdout=self._out,
            stderr=subprocess.PIPE,
            text=True,
        )
        STARTED.append(self.process)

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
        status = self.process.wait(LIMIT_S)
        self._out.seek(0)
        self.printed = self._out.read()
        self._out.close()
        return status


def called(cluster: LocalCluster, folder: Path, *arguments: str) -> tuple[int, str, list[str]]:
    caller = Caller(cluster, folder, *arguments)
    status = caller.end()
    return status, caller.printed, caller.said


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


@pytest.fixture(scope="module")
def doctored(cluster: LocalCluster, tmp_path_factory: pytest.TempPathFactory) -> str:
    """What the doctor says of both nodes."""
    folder = tmp_path_factory.mktemp("doctor")
    asked = ("fleet", "doctor", "--ray", cluster.address, "--python", str(fast_python(folder)))
    status, out, said = called(cluster, folder, *asked)
    assert status == 0, (out, said)
    return out


def test_the_doctor_finds_both_nodes(doctored: str) -> None:
    for rack in ("rack=1", "rack=2"):
        (line,) = [one for one in doctored.splitlines() if rack in one]
        assert "127.0.0.1" in line
        assert " cpu" in line
    assert "Nodes that would refuse to measure\n  none" in doctored


MEASURED_GROUPS = ("time", "memory", "state")
OF_ITS_OWN = {"run", "started", "commit", "dirty", "status", "command_started", "took_s",
              "windows_from_s", "windows_until_s"}  # fmt: skip
"""The status is ok or unsteady, as it happens."""
SAME_TIME_COLUMNS = {"reference", "reference_version", "measurement_version"}
OF_A_BUSY_MACHINE = {"step_time_p95_s", "step_time_p99_s", "unsteady"}
"""Given where the time budget held enough steps, or the steps did not hold still."""


def test_three_cases_are_measured_alike_with_ray_and_without(
    cluster: LocalCluster, harness: Forks, tmp_path: Path
) -> None:
    asked = ["run", *THREE, *QUICK, "--processes", "2"]
    done = harness.run(COMMAND, *asked, "--results", "plain", cwd=tmp_path, environ=cluster.environ)
    assert done.returncode == 0, done.stderr
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
    assert all(row.measured for row in (*plain.values(), *rayed.values()))
    for key, row in plain.items():
        for column in COLUMNS:
            one, other = getattr(row, column.name), getattr(rayed[key], column.name)
            if column.group in MEASURED_GROUPS and column.name not in SAME_TIME_COLUMNS:
                there = (one is None) == (other is None)
                assert there or column.name in OF_A_BUSY_MACHINE, column.name
            elif column.name not in OF_ITS_OWN:
                assert one == other, column.name
    agree(list(plain.values()), list(rayed.values()))


def agree(one: list[Record], other: list[Record]) -> None:
    """Hold that the paired ratios' intervals, at 99.9 % of each case, have a value in common.

    The spread between processes is pooled over cases and sides, and taken for 2.5 % at least, as
    the screen does: two processes of one case tell a spread by luck.
    """
    sides = [by_case(one), by_case(other)]
    groups = [values for side in sides for values in side.values()]
    squares = [(value - mean(values)) ** 2 for values in groups for value in values]
    freedom = len(squares) - len(groups)
    spread = math.sqrt(max(sum(squares) / freedom, 0.025**2))
    half = t_quantile(0.9995, freedom) * spread * math.sqrt(2 / len(groups[0]))
    for case, values in sides[0].items():
        assert abs(mean(values) - mean(sides[1][case])) <= half, (case, sides, half)


def by_case(records: list[Record]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for row in records:
        assert row.paired_log_ratio is not None
        found.setdefault(row.case.name, []).append(row.paired_log_ratio)
    return found


def test_a_node_killed_in_mid_case_loses_no_row_and_the_plan_completes(
    cluster: LocalCluster, doctored: str, tmp_path: Path
) -> None:
    assert cluster.other is not None
    asked = ["run", *ONE, "--processes", "3", "--ray", cluster.address]
    asked += ["--python", str(fast_python(tmp_path))]  # whose worker it is matters not
    caller = Caller(cluster, tmp_path, *asked)
    other = names(doctored)["rack=2"]
    caller.until(rf"^{other} \[1/3\]")  # two jobs are left to it, however fast the head is
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
        assert any(" for " in line for line in reported), "what it had left is measured"
        runs: dict[str, set[int]] = {}
        for row in found:
            runs.setdefault(row.run, set()).add(row.process)
        killed, *whole = sorted(runs.values(), key=len)
        assert whole == [{1, 2, 3}, {1, 2, 3}], "the head's own plan, and the other's in its place"
        assert killed in ({1}, {1, 2})
    finally:
        cluster.leave()  # no later test needs it


def names(doctored: str) -> dict[str, str]:
    """Return what the node with each label is called."""
    found = re.findall(r"^(\S+) .* (rack=\d) ", doctored, flags=re.MULTILINE)
    return {label: re.escape(name) for name, label in found}


def test_a_caller_that_dies_comes_back_and_measures_what_is_missing(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    asked = ["run", *ONE, "--processes", "2", "--ray", cluster.address]
    asked += ["--nodes", "rack=1", "--python", str(fast_python(tmp_path))]
    caller = Caller(cluster, tmp_path, *asked)
    caller.until(r"\[1/2\]")
    caller.process.kill()
    caller.end()
    before = rows(tmp_path)
    assert len(before) == 1
    status, out, said = called(cluster, tmp_path, *asked, "--resume")
    assert status == 0, (out, said)
    after = rows(tmp_path)
    assert after[: len(before)] == before
    assert len(after) == 2
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
    harness: Forks, tmp_path: Path, address: str, said: str
) -> None:
    port = free_port()
    began = time.monotonic()
    process = harness.start(COMMAND, "run", "--ray", address.format(port=port), cwd=tmp_path)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    (line,) = output.splitlines()
    assert line.startswith(f"convmark run: {said.format(port=port)}")
    assert time.monotonic() - began < 30
