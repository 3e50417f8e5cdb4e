"""`convmark run --ray` and `convmark fleet doctor`, on nodes that are stood in for."""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import fake_worker
import pytest
from fake_cluster import A100, FakeCluster, about, here, machine
from json_tables import tables_of

from convmark.cli import main
from convmark.core.errors import BusyError
from convmark.machine.cautions import Caution
from convmark.results.reading import read_run
from convmark.results.record import Record
from convmark.session.fleet.host import _as_the_node_was_started, _niceness
from convmark.session.fleet.nodes import read_labels
from convmark.session.latency_limit import TABLE as TRIES
from convmark.session.sustained import TABLE as INTERVALS

__all__ = ["here"]  # a fixture

SMALL = ("--models", "lenet5", "--processes", "2")
CASES = 3
"""That the default suites have of one model."""

Fleet = Callable[..., FakeCluster]


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, here: None) -> Fleet:
    """Make a cluster of nodes by name, and have the command line find it."""
    monkeypatch.setattr("convmark.interpreter.Interpreter", fake_worker.FakeInterpreter)
    monkeypatch.chdir(tmp_path)

    def made(*names: str, **settings: Any) -> FakeCluster:
        abouts = {name: about(name) for name in names}
        abouts.update(settings.pop("abouts", {}))
        cluster = FakeCluster(abouts=abouts, **settings)
        monkeypatch.setattr("convmark.cli.fleet._connected", lambda address: cluster)
        return cluster

    return made


def run(*arguments: str) -> int:
    return main(["run", "--ray", "head:6379", *SMALL, *arguments])


def rows() -> list[Record]:
    paths = sorted(Path("results").glob("*/*.csv"))
    return [row for path in paths if path.stem.isdecimal() for row in read_run(path)]


def by_node() -> dict[str | None, int]:
    return dict(Counter(row.node for row in rows()))


# who measures


def test_every_node_measures_the_whole_plan_in_a_run_of_its_own(
    fleet: Fleet, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster = fleet("x", "y")
    assert run() == 0
    assert by_node() == {"x": 2 * CASES, "y": 2 * CASES}
    assert sorted({(row.node, row.run) for row in rows()}) == [("x", "0001"), ("y", "0002")]
    printed = capsys.readouterr()
    assert "x: 6 rows in results/xeon-2/0001.csv" in printed.out
    assert "x [1/6] lenet5-" in printed.err
    assert cluster.closed


def test_what_a_node_notes_beside_its_rows_is_kept_under_the_name_of_the_run(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Noting(fake_worker.FakeInterpreter):
        def answer(self, request: Any, on_event: Callable[..., None] = lambda event: None) -> Any:
            answer = super().answer(request, on_event)
            if request.get("sustain_s"):
                state = {"memory_bytes": 2**20, "other_cpu_share": 0.0}
                tried = {"rate_per_s": 9.0, "requests": 90, "seconds": 10.0, "p50_s": 0.01,
                         "p99_s": 0.1, "steps": 90, "load": 0.1, "holds": True, "proved": False,
                         "other_cpu_share": 0.0, "late": 0, "number": 1}  # fmt: skip
                on_event({"event": "try", **tried})
                on_event({"event": "interval", "began_s": 0.0, "seconds": 1.0, "steps": 9, **state})
            return answer

    monkeypatch.setattr("convmark.interpreter.Interpreter", Noting)
    fleet("a", "b")
    assert run("--sustain", "1m", "--latency-limit", "1s") == 0
    for path in Path("results").glob("*/????.csv"):
        wanted = {(path.stem, row.order) for row in read_run(path) if row.sustained_s}
        assert len(wanted) == CASES
        for beside in (INTERVALS.of(path), TRIES.of(path)):
            assert {(one.run, one.order) for one in beside} == wanted


def test_nodes_that_run_the_code_of_whoever_reaches_them_are_named(
    fleet: Fleet, capsys: pytest.CaptureFixture[str]
) -> None:
    line = "x: anyone who reaches Ray's ports there can run code: start the nodes with RAY_AUTH_"
    for token, said in ((False, True), (True, False)):
        fleet(abouts={"x": about("x", asks_for_token=token)})
        assert run() == 0
        assert (f"convmark run: {line}" in capsys.readouterr().err) == said
        assert main(["fleet", "doctor", "--ray", "head:6379"]) == 0
        assert (f"convmark fleet doctor: {line}" in capsys.readouterr().err) == said


def test_one_of_each_kind_of_machine_measures(fleet: Fleet) -> None:
    other = machine("epyc-64")
    fleet("x", "y", abouts={"z": about("z", machine=other)})
    assert run("--per", "machine-kind") == 0
    assert by_node() == {"x": 2 * CASES, "z": 2 * CASES}
    assert {row.machine for row in rows()} == {"xeon-2", "epyc-64"}


def test_one_of_each_kind_of_gpu_measures_and_a_node_without_one_does_not(fleet: Fleet) -> None:
    gpus = {name: about(name, machine=machine(f"kind-{name}", gpus=(A100,))) for name in ("g", "h")}
    fleet("x", abouts=gpus)
    assert run("--per", "gpu-kind") == 0
    assert by_node() == {"g": 2 * CASES}


def test_nodes_are_chosen_by_their_labels(fleet: Fleet) -> None:
    fleet("x", "y", labels={"x": {"rack": "1"}, "y": {"rack": "2", "ssd": "yes"}})
    assert run("--nodes", "rack=2", "--nodes", "ssd=yes") == 0
    assert set(by_node()) == {"y"}


def test_labels_that_no_node_has_are_refused_with_those_there_are(
    fleet: Fleet, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet("x", labels={"x": {"rack": "1", "ray.io/node-id": "5"}})
    assert run("--nodes", "rack=7") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        "convmark run: --nodes: no node of 1 has rack=7; known labels: rack=1 (ray start --labels)"
    )


def test_labels_are_read() -> None:
    assert read_labels(["a=b", " c = d=e "]) == {"a": "b", "c": "d=e"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--nodes", "rack"], "--nodes: must be LABEL=VALUE such as rack=3, got 'rack'"),
        (["--nodes", "=3"], "--nodes: must be LABEL=VALUE"),
        (["--nodes", "a=1", "--nodes", "a=2"], "--nodes: must give a one value"),
        (["--per", "rack"], "--per: must be one of node, machine-kind, gpu-kind, got 'rack'"),
        (["--shard", "1/2"], "--shard: must not be given with --ray"),
        (["--describe"], "--describe: must not be given with --ray"),
        (["--resume", "7"], "--resume: must be given without a run with --ray, got '7'"),
        (["--batch-sizes", "auto"], "--ray: needs --batch-sizes in numbers, got auto"),
        (["--env", "tensorflow", "--env", "jax"], "--ray: measures in one --python or --env"),
        (
            ["--replicas", "2", "--cluster", "a:1,b:2", "--index", "0"],
            "--ray: must not be given with machines of a --cluster",
        ),
    ],
)
def test_what_cannot_be_asked_for_is_refused_on_one_line(
    fleet: Fleet, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    fleet("x")
    assert run(*arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"convmark run: {said}")


@pytest.mark.parametrize("arguments", [["--per", "node"], ["--nodes", "a=b"]])
def test_what_chooses_nodes_needs_a_cluster(
    capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert main(["run", *arguments]) == 2
    assert f"{arguments[0]}: must be given with --ray ADDRESS" in capsys.readouterr().err


# what nodes refuse


def test_a_node_with_another_convmark_does_not_measure_and_the_run_is_not_whole(
    fleet: Fleet, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet("x", abouts={"old": about("old", convmark="0.0.1"), "odd": about("odd", code="abc")})
    assert run() == 1
    assert set(by_node()) == {"x"}
    said = capsys.readouterr().err
    assert "convmark run: old does not measure: convmark 0.0.1 there, " in said
    assert "convmark run: odd does not measure: its measuring code or zoo differs" in said


def test_a_cluster_on_which_nobody_can_measure_is_refused(
    fleet: Fleet, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet(abouts={"x": RuntimeError("does not answer within 60 s")})
    assert run() == 2
    assert "none of 1 node can measure --per node" in capsys.readouterr().err.splitlines()[-1]


def test_of_a_kind_the_next_node_measures_where_the_first_cannot(
    fleet: Fleet, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet("x", "y", cannot_prepare={"x": "the framework is not installed"})
    assert run("--per", "machine-kind") == 0
    assert set(by_node()) == {"y"}
    assert "x does not measure: the framework is not installed" in capsys.readouterr().err


def test_where_no_node_can_prepare_nothing_is_written(
    fleet: Fleet, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet("x", "y", cannot_prepare={"x": "it has no framework", "y": "no such model"})
    assert run() == 2
    assert not Path("results").exists()
    *each, last = capsys.readouterr().err.splitlines()
    assert each == [
        "convmark run: x does not measure: it has no framework",
        "convmark run: y does not measure: no such model",
    ]
    assert last == ("convmark run: --ray: no node can run the plan; see the reason of each node")


def test_what_no_node_can_measure_for_one_reason_is_one_line(
    fleet: Fleet, capsys: pytest.CaptureFixture[str]
) -> None:
    hot = Caution(subject="temperature", finding="CPU at 95", remedy="let it cool down")
    fleet(abouts={name: about(name, cautions=(hot,)) for name in "abcde"})
    assert run("--models", "lennet5") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        "convmark run: --ray: a, b, c and 2 more do not measure: lennet5: no such model"
    )


def test_what_will_make_figures_of_nodes_unreliable_is_said_before_they_measure(
    fleet: Fleet, capsys: pytest.CaptureFixture[str]
) -> None:
    hot = Caution(subject="temperature", finding="CPU at 95", remedy="let it cool down")
    fleet("a", abouts={name: about(name, cautions=(hot,)) for name in "bcdef"})
    assert run() == 0
    said = capsys.readouterr().err.splitlines()
    line = "convmark run: b, c, d and 2 more: temperature: CPU at 95; let it cool down"
    assert said.index(line) < min(place for place, text in enumerate(said) if "[1/6]" in text)


# what goes wrong on the way


def test_what_a_lost_node_has_left_is_measured_by_another_of_its_kind(
    fleet: Fleet, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet("x", "y", dies_at={"x": 5})
    assert run() == 0
    found = {(row.node, row.run): 0 for row in rows()}
    for row in rows():
        found[row.node, row.run] += 1
    assert found == {("x", "0001"): 4, ("y", "0002"): 6, ("y", "0003"): 4}
    stood_in = [row for row in rows() if row.run == "0003"]
    whole = Counter(row.case for row in stood_in)
    assert set(whole.values()) == {2}, "a case goes whole"
    done = Counter(row.case for row in rows() if row.node == "x")
    assert {case for case, count in done.items() if count == 2} | set(whole) == set(done)
    printed = capsys.readouterr()
    assert "x: lost: node x is gone" in printed.err
    assert " for x lenet5-" in printed.err
    assert "y for x: 4 rows in results/xeon-2/0003.csv" in printed.out


def test_what_nobody_can_measure_has_rows_that_say_why(
    fleet: Fleet, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet("x", dies_at={"x": 5})
    assert run() == 1
    left = [row for row in rows() if not row.measured]
    assert len(rows()) == 2 * CASES
    assert {row.error for row in left} == {
        "not measured: node x is gone, and no other node of its kind is left"
    }
    assert {row.status for row in left} == {"crashed"}
    assert {row.machine for row in left} == {"xeon-2"}


def test_a_measuring_process_that_ends_costs_its_job_alone(fleet: Fleet) -> None:
    fleet("x", breaks_at={"x": 2})
    assert run() == 1
    (failed,) = [row for row in rows() if not row.measured]
    assert failed.error == "the measuring process of the node ended: killed"
    assert len(rows()) == 2 * CASES


def test_a_row_of_a_node_that_stands_in_says_the_machine_of_the_run_that_it_is_in(
    fleet: Fleet,
) -> None:
    gpus = {
        "x": about("x", machine=machine("xeon-2", gpus=(A100,))),
        "y": about("y", machine=machine("epyc-8", gpus=(A100,))),
    }
    fleet(abouts=gpus, dies_at={"x": 2}, breaks_at={"y": 2})
    assert run("--per", "gpu-kind") == 1
    found = read_run(Path("results/epyc-8/0001.csv"))
    assert {(row.machine, row.node) for row in found} == {("epyc-8", "y")}
    assert [row.status for row in found].count("crashed") == 1


def test_a_node_measures_in_the_environment_that_is_named(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node itself finds or makes it: its path there is nothing that the caller can know."""
    asked: list[tuple[Sequence[str], Sequence[str]]] = []
    pythons: set[str] = set()

    def of_the_node(named: Sequence[str], requirements: Sequence[str]) -> list[str]:
        asked.append((named, requirements))
        return ["/of/the/node/bin/python"]

    class Noted(fake_worker.FakeInterpreter):
        def __init__(self, python: str, **settings: Any) -> None:
            super().__init__()
            pythons.add(python)

    monkeypatch.setattr("convmark.session.fleet.host.interpreters", of_the_node)
    monkeypatch.setattr("convmark.interpreter.Interpreter", Noted)
    fleet("x", "y")
    assert run("--env", "tensorflow==2.12.1") == 0
    assert asked == [((), ("tensorflow==2.12.1",))] * 2
    assert pythons == {"/of/the/node/bin/python"}


def test_nodes_on_one_host_take_turns(fleet: Fleet) -> None:
    twins = {name: about("h", boot="b") for name in ("aaaaaaaa1", "bbbbbbbb2")}
    cluster = fleet(abouts=twins)
    assert run() == 0
    names = [name for name, _, _ in cluster.order]
    assert all(one != other for one, other in itertools.pairwise(names))
    assert by_node() == {"h": 4 * CASES}


def test_a_node_that_gives_way_to_others_says_so_in_its_flags(fleet: Fleet) -> None:
    fleet(abouts={"x": about("x", niceness=15)})
    assert run() == 0
    assert {row.flags for row in rows()} == {"nice=15"}


def test_a_node_that_differs_from_its_kind_is_named(
    fleet: Fleet, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet(*"abcdefgh", slower={"c": 1.6})
    assert run() == 0
    (line,) = [one for one in capsys.readouterr().out.splitlines() if "differs" in one]
    assert line.startswith("xeon-2 cpu: node c differs from its kind by +")
    assert line.endswith("3 cases, 6 processes")


# the doctor


def doctor(*arguments: str) -> int:
    return main(["fleet", "doctor", "--ray", "head:6379", *arguments])


def test_the_doctor_says_what_each_node_is_and_has(
    fleet: Fleet, capsys: pytest.CaptureFixture[str]
) -> None:
    hot = Caution(subject="temperature", finding="CPU at 95", remedy="let it cool down")
    fleet(
        "x",
        abouts={"y": about("y", niceness=15, cautions=(hot,))},
        labels={"x": {"rack": "1", "ray.io/node-id": "5"}},
    )
    assert doctor() == 0
    said = capsys.readouterr().out
    (line,) = [one for one in said.splitlines() if one.startswith("x ")]
    assert "rack=1" in line
    assert "ray.io" not in line
    assert "xeon-2" in line
    assert "tensorflow 2.21.0 Keras 3.15.0" in line
    assert "Nodes that would refuse to measure\n  none" in said
    assert "  y: temperature: CPU at 95\n    -> let it cool down" in said
    assert "  y: niceness: measures at niceness 15" in said
    assert "keep it on a network that you trust" in said


def test_the_doctor_says_what_each_node_would_refuse(
    fleet: Fleet, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet(
        "busy",
        "bare",
        abouts={"gone": RuntimeError("does not answer"), "old": about("old", convmark="0.0.1")},
        has={"bare": RuntimeError("No module named 'tensorflow'")},
        taken=["busy"],
    )
    assert doctor() == 1
    said = capsys.readouterr().out
    assert "  busy: its slot is used by other work of the cluster" in said
    assert "  bare: No module named 'tensorflow'" in said
    assert "  10.0.0.3: does not answer" in said
    assert "  old: convmark 0.0.1 there, " in said
    assert doctor("--format", "json") == 1
    tables = tables_of(capsys.readouterr().out, "fleet doctor")
    refused = {row["node"]: row["reason"] for row in tables["refusals"]}
    assert refused["bare"] == "No module named 'tensorflow'"
    assert {row["node"] for row in tables["nodes"]} >= set(refused)


# the node's own side


def test_a_node_measures_as_it_was_started_not_as_the_cluster_sets_its_workers() -> None:
    environ = {"OMP_NUM_THREADS": "2", "RAY_JOB_ID": "1", "A": "b", "CUDA_VISIBLE_DEVICES": ""}
    _as_the_node_was_started(environ, {"A": "c", "LD_PRELOAD": "x.so", "RAY_X": "0"})
    assert environ == {"RAY_JOB_ID": "1", "A": "c"}
    _as_the_node_was_started(environ, {})
    assert environ["A"] == "c"


def test_niceness_is_taken_back_where_that_is_allowed() -> None:
    nice = [15]

    def refused() -> None:
        raise PermissionError

    assert _niceness(lambda: nice[0], refused) == 15
    assert _niceness(lambda: nice[0], lambda: None) == 0
    assert _niceness(lambda: 0, refused) == 0


# Ray itself


def command(*arguments: str, without: str = "") -> subprocess.CompletedProcess[str]:
    """Run the command line in a fresh process, as if a package were not installed."""
    code = f"import sys; sys.modules.update({{{without!r}: None}} if {without!r} else {{}}); "
    code += "from convmark.cli import main; sys.exit(main(sys.argv[1:]))"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )


@pytest.mark.parametrize("asked", [("run",), ("fleet", "doctor")])
def test_without_ray_one_line_says_how_to_get_it(asked: tuple[str, ...]) -> None:
    done = command(*asked, "--ray", "127.0.0.1:1", without="ray")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line == (
        f"convmark {asked[0]}: --ray: needs Ray, which is not installed here: "
        'pip install "convmark[ray]"'
    )


def test_ray_is_imported_only_when_it_is_asked_for() -> None:
    code = (
        "import sys, convmark.cli, convmark.cli.fleet, convmark.cli.run; "
        "sys.exit('ray' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=120).returncode == 0


def test_a_node_waits_a_while_for_another_run_on_its_machine_and_then_says_who(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first three looks find somebody; then nobody; from then on somebody again."""
    looks = iter([True, True, True, False])

    @contextlib.contextmanager
    def taken(**asked: object) -> Iterator[list[int]]:
        if next(looks, True):
            raise BusyError("another benchmark run is active, process 7")
        yield []

    monkeypatch.setattr("convmark.session.fleet.host.alone", taken)
    monkeypatch.setattr("convmark.session.fleet.host.LOOK_AGAIN_S", 0.001)
    monkeypatch.setattr("convmark.session.fleet.host.TURN_LIMIT_S", 0.2)
    fleet("x")
    assert run() == 2  # in a process of its own it would be a lost node
    assert "another benchmark run is active, process 7" in capsys.readouterr().err
    assert len(rows()) == 1
