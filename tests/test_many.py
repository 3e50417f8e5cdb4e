"""Many runs at once: eight in one folder, and one at a time on one machine."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fake_worker
import psutil
import pytest
from fast_worker import PAUSE
from faults import FAST, fast_python, measuring, one_message, run, run_files, start
from forks import STARTED
from workers import happens

from convmark.cli import main
from convmark.compare.files import read_verdicts
from convmark.core.errors import BusyError
from convmark.machine.lock import alone, runtime_folder
from convmark.results.reading import read_run

SUITE = """
import pytest
from convmark.core.suites import Suite

SUITE = Suite(models=("lenet5", "conv_layer"), tasks=("train",), batch_sizes=(1,))


@pytest.mark.convmark(SUITE)
def test_speed(measured, benchmark):
    measured.replay(benchmark)
"""

pytestmark = pytest.mark.usefixtures("forked_commands")

PLAN = ("--models", "lenet5,conv_layer", *FAST, "--processes", "2")


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which this test's runs know each other."""
    folder = tmp_path / "runtime"
    monkeypatch.setenv("CONVMARK_RUNTIME", str(folder))
    # what begins in this process; the runs look as long as ever
    monkeypatch.setattr("convmark.machine.lock.PASSING_S", 0.0)
    return folder


# Eight at once


def test_eight_runs_at_once_leave_eight_whole_files_of_their_own(tmp_path: Path) -> None:
    python = fast_python(tmp_path)
    options = (*PLAN, "--allow-concurrent")
    processes = [
        measuring(*options, "--seed", str(seed), folder=tmp_path, python=python)
        for seed in range(8)
    ]
    for process in processes:
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 0, output
    paths = run_files(tmp_path)
    assert [path.stem for path in paths] == [f"{number:04d}" for number in range(1, 9)]
    seeds = []
    for path in paths:
        rows = read_run(path)
        assert {row.run for row in rows} == {path.stem}
        assert [row.order for row in rows] == [1, 2, 3, 4]
        assert len({(row.seed, row.plan) for row in rows}) == 1
        assert {row.concurrent for row in rows} == {True}
        seeds.append(rows[0].seed)
    assert sorted(filter(lambda seed: seed is not None, seeds)) == list(range(8))
    assert not list(tmp_path.glob("results/*/.*")), "a file half made was left"


def test_eight_sessions_at_once_leave_their_verdicts_whole(tmp_path: Path) -> None:
    (tmp_path / "test_speed.py").write_text(SUITE)
    (tmp_path / "pyproject.toml").write_text(
        "[tool.pytest.ini_options]\n[tool.convmark]\nshort_options = true\n"
    )
    python = str(fast_python(tmp_path))
    bench = ("pytest", ".", "--python", python, "-p", "no:cacheprovider")
    first = start(*bench, folder=tmp_path)
    output, _ = first.communicate(timeout=120)
    assert first.returncode == 0, output
    more = ("--benchmark-compare", "--compare-budget=0", "--allow-concurrent")
    processes = [start(*bench, *more, folder=tmp_path) for _ in range(8)]
    outputs = [process.communicate(timeout=180)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * 8, outputs
    assert len(run_files(tmp_path)) == 9
    judged = Counter(found.run for path in run_files(tmp_path) for found in read_verdicts(path))
    assert sorted(judged) == [f"{number:04d}" for number in range(2, 10)]
    assert len(set(judged.values())) == 1, "each run has all its verdicts"


# One at a time


@contextlib.contextmanager
def holding(folder: Path, *options: str) -> Iterator[Any]:
    """Give a run that has the machine until the block's end, or until it is told to end."""
    endless = ("--models", "lenet5", *FAST, "--processes", "10000")
    there = len(run_files(folder))
    process = measuring(*endless, *options, folder=folder, environ={PAUSE: "0.01"})
    try:
        assert happens(lambda: len(run_files(folder)) > there, within_s=60)
        assert happens(lambda: len(read_run(run_files(folder)[there])) >= 1, within_s=60)
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)


def test_a_second_run_is_refused_with_the_process_of_the_first(tmp_path: Path) -> None:
    with holding(tmp_path) as first:
        status, output, _ = run(*PLAN, folder=tmp_path)
        assert status == 2
        assert one_message(output) == (
            f"convmark run: another benchmark run is active, process {first.pid}, and the two "
            "would disturb each other: wait for it with --wait, or measure anyway with "
            "--allow-concurrent"
        )
        assert len(run_files(tmp_path)) == 1
    status, output, _ = run(*PLAN, folder=tmp_path)
    assert status == 0, output


def test_a_second_run_waits_for_the_first_where_it_is_told_to(tmp_path: Path) -> None:
    with holding(tmp_path) as first, (tmp_path / "said").open("w+") as said:
        second = subprocess.Popen(
            [*_COMMAND, str(fast_python(tmp_path)), *PLAN, "--wait"], cwd=tmp_path, stderr=said
        )
        STARTED.append(second)
        line = f"convmark run: waiting for another benchmark run, process {first.pid}\n"
        assert happens(lambda: line in (tmp_path / "said").read_text(), within_s=60)
        time.sleep(1.2)  # it looks again meanwhile
        assert second.poll() is None
        assert len(run_files(tmp_path)) == 1
        first.send_signal(signal.SIGTERM)
        assert second.wait(timeout=60) == 0
        assert (tmp_path / "said").read_text().count("waiting for") == 1
    ends = [read_run(path) for path in run_files(tmp_path)]
    assert ends[0][-1].started < ends[1][0].started
    assert {row.concurrent for rows in ends for row in rows} == {False}


_COMMAND = (sys.executable, "-m", "convmark", "run", "--results", "results", "--python")


def test_a_second_run_goes_on_beside_the_first_where_that_is_allowed(tmp_path: Path) -> None:
    with holding(tmp_path) as first:
        status, output, _ = run(*PLAN, "--allow-concurrent", folder=tmp_path)
        assert first.poll() is None
        assert status == 0, output
    assert {row.concurrent for row in read_run(run_files(tmp_path)[1])} == {True}
    assert {row.concurrent for row in read_run(run_files(tmp_path)[0])} == {False}


def test_a_run_that_was_allowed_beside_another_still_has_the_machine_after_its_end(
    tmp_path: Path,
) -> None:
    with holding(tmp_path) as first, holding(tmp_path, "--allow-concurrent") as second:
        first.send_signal(signal.SIGTERM)
        first.wait(timeout=60)
        status, output, _ = run(*PLAN, folder=tmp_path)
        assert status == 2
        assert f"process {second.pid}," in output


def test_a_run_that_was_killed_keeps_nobody_waiting(tmp_path: Path, runtime: Path) -> None:
    with holding(tmp_path) as first:
        assert (runtime / f"{first.pid}.lock").exists()
        first.kill()
        first.wait()
    status, output, _ = run(*PLAN, folder=tmp_path)
    assert status == 0, output
    assert [path.name for path in runtime.glob("[0-9]*")] == []


def test_pytest_too_is_refused_but_for_what_is_untimed(tmp_path: Path) -> None:
    (tmp_path / "test_speed.py").write_text(SUITE)
    (tmp_path / "pyproject.toml").write_text(
        "[tool.pytest.ini_options]\n[tool.convmark]\nshort_options = true\n"
    )
    bench = ("pytest", ".", "--python", str(fast_python(tmp_path)), "-p", "no:cacheprovider")
    with holding(tmp_path) as first:
        refused = start(*bench, folder=tmp_path)
        output, _ = refused.communicate(timeout=60)
        assert refused.returncode == 4
        assert f"ERROR: another benchmark run is active, process {first.pid}," in output
        untimed = start(*bench, "--benchmark-disable", folder=tmp_path)
        output, _ = untimed.communicate(timeout=60)
        assert untimed.returncode == 0, output
        assert len(run_files(tmp_path)) == 1
    status = start(*bench, "--wait", folder=tmp_path)
    output, _ = status.communicate(timeout=60)
    assert status.returncode == 0, output


def test_a_comparison_is_refused_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("convmark.interpreter.Interpreter", fake_worker.FakeInterpreter)
    with holding(tmp_path) as first:
        for command in (
            ["ab", "--models", "lenet5", "--tasks", "train", "--set-b", "jit=on"],
            [
                *("bisect", "--good", "2.20.0", "--bad", "2.21.0", "--versions", "2.20.0,2.21.0"),
                *("--models", "lenet5", "--tasks", "infer", "--batch-sizes", "1"),
            ],
        ):
            assert main(command) == 2
            said = capsys.readouterr().err
            assert f"another benchmark run is active, process {first.pid}," in said


# The part


def said_nothing(line: str) -> None:
    raise AssertionError(line)


def test_a_run_inside_a_run_of_the_same_process_is_no_other(runtime: Path) -> None:
    with alone(wait=False, concurrent=False, say=said_nothing) as outer:
        with alone(wait=False, concurrent=False, say=said_nothing) as inner:
            assert (outer, inner) == ([], [])
        assert (runtime / f"{os.getpid()}.lock").exists(), "the outer run has the machine still"
    assert not (runtime / f"{os.getpid()}.lock").exists()


NESTED = """
import sys
from convmark.machine.lock import alone
with alone(wait=False, concurrent=False, say=print) as others:
    print("has it beside", others)
"""


def test_what_the_holder_itself_starts_is_not_refused(tmp_path: Path) -> None:
    with alone(wait=False, concurrent=False, say=said_nothing):
        for through in ([], ["sh", "-c", '"$@"; exit', "sh"]):
            done = subprocess.run(
                [*through, sys.executable, "-c", NESTED],
                capture_output=True,
                text=True,
                check=True,
            )
            assert done.stdout == "has it beside []\n"


def test_a_number_that_a_dead_run_has_left_is_no_run(runtime: Path) -> None:
    runtime.mkdir()
    for pid in (1, os.getppid(), 4_000_000):
        (runtime / f"{pid}.lock").touch()
    with alone(wait=False, concurrent=False, say=said_nothing) as others:
        assert others == []
    assert not (runtime / "4000000.lock").exists()


def test_where_it_cannot_be_told_who_is_there_a_run_goes_on_and_says_so(
    tmp_path: Path,
) -> None:
    (tmp_path / "file").touch()
    said: list[str] = []
    folder = tmp_path / "file" / "deeper"
    with alone(wait=False, concurrent=False, say=said.append, folder=folder) as others:
        assert others == []
    (line,) = said
    assert re.match(rf"{folder}: cannot check for other benchmark runs: ", line)


def test_eight_who_ask_at_the_same_moment_are_one_that_has_it_and_seven_refused(
    tmp_path: Path,
) -> None:
    code = """
import sys, time
from convmark.machine.lock import alone
from convmark.core.errors import BusyError
print("ready", flush=True)
sys.stdin.readline()
try:
    with alone(wait=False, concurrent=False, say=print):
        print("has it", flush=True)
        sys.stdin.readline()
except BusyError:
    print("refused", flush=True)
"""
    asking = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(8)
    ]
    for process in asking:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in asking:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    answers = [process.stdout.readline() for process in asking if process.stdout is not None]
    assert Counter(answers) == {"has it\n": 1, "refused\n": 7}
    for process in asking:
        process.communicate("\n", timeout=30)


def test_one_user_has_one_folder_whatever_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CONVMARK_RUNTIME", str(tmp_path / "named"))
    assert runtime_folder() == tmp_path / "named"
    monkeypatch.delenv("CONVMARK_RUNTIME")
    folders = set()
    for place in (str(tmp_path), "/nowhere", ""):
        for name in ("TMPDIR", "TEMP", "XDG_RUNTIME_DIR", "HOME"):
            monkeypatch.setenv(name, place)
        folders.add(runtime_folder())
    (folder,) = folders
    assert folder.name == f"convmark-{os.getuid()}"
    assert os.access(folder.parent, os.W_OK)
    monkeypatch.setattr("convmark.machine.lock.SHARED_FOLDERS", (tmp_path / "none", tmp_path))
    assert runtime_folder() == tmp_path / f"convmark-{os.getuid()}"


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder like /tmp: everybody may write to it, nobody may touch what is another's."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        Path(name).chmod(0o1777)
        yield Path(name)


NOBODY = 65534


@contextlib.contextmanager
def another_user(shared: Path, act: Callable[[Path], None]) -> Iterator[int]:
    """Have user nobody do something in its folder and stay until the block's end."""
    done, end = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            act(shared / f"convmark-{NOBODY}")
            os.write(done[1], b"+")
            os.read(end[0], 1)
        finally:
            os._exit(0)
    os.close(done[1])
    try:
        assert os.read(done[0], 1) == b"+", "the other user failed"
        yield pid
    finally:
        os.write(end[1], b"-")
        os.waitpid(pid, 0)
        for one in (done[0], *end):
            os.close(one)


def has_it(folder: Path) -> None:
    """Begin a run that does not end."""
    run = alone(wait=False, concurrent=False, say=said_nothing, folder=folder)
    assert run.__enter__() == []
    has_it.run = run  # type: ignore[attr-defined] # a run that nobody refers to is closed


forks = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
"""Other threads of the tests hold no lock that the child needs."""
as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")


@forks
@as_root
def test_another_users_run_is_seen_by_root_and_root_s_by_another_user(shared: Path) -> None:
    mine = shared / f"convmark-{os.getuid()}"
    with another_user(shared, has_it) as pid:
        with (
            pytest.raises(BusyError, match=rf"process {pid}, "),
            alone(wait=False, concurrent=False, say=said_nothing, folder=mine),
        ):
            pass
        assert [path.name for path in mine.glob("[0-9]*")] == []
        with alone(wait=False, concurrent=True, say=said_nothing, folder=mine) as others:
            assert others == [pid]
    with alone(wait=False, concurrent=False, say=said_nothing, folder=mine) as others:
        assert others == []
        asked = shared / "asked"

        def asks(folder: Path) -> None:
            os.umask(0o077)
            parent = psutil.Process.parents
            psutil.Process.parents = lambda self: []  # type: ignore[method-assign]
            try:
                with alone(wait=False, concurrent=False, say=said_nothing, folder=folder):
                    asked.write_text("has it")
            except BusyError as error:
                asked.write_text(str(error))
            psutil.Process.parents = parent  # type: ignore[method-assign]

        with another_user(shared, asks):
            assert f"process {os.getpid()}, " in asked.read_text()
        assert (shared / f"convmark-{NOBODY}").stat().st_mode & 0o777 == 0o755


@forks
@as_root
def test_a_folder_that_another_user_has_put_there_is_refused(shared: Path) -> None:
    mine = shared / f"convmark-{os.getuid()}"
    with another_user(shared, lambda folder: (folder.parent / mine.name).mkdir(mode=0o777)):
        said: list[str] = []
        with alone(wait=False, concurrent=False, say=said.append, folder=mine) as others:
            assert others == []
        assert f"must be owned by user {os.getuid()} and writable by nobody else" in said[0]
        assert list(mine.iterdir()) == []


def test_links_and_pipes_that_are_planted_are_not_followed_and_keep_nobody(
    shared: Path, tmp_path: Path
) -> None:
    mine, target = shared / f"convmark-{os.getuid()}", tmp_path / "target"
    target.mkdir()
    mine.symlink_to(target)
    said: list[str] = []
    with alone(wait=False, concurrent=False, say=said.append, folder=mine):
        pass
    assert (
        "it must be a folder and no link; remove it, or set CONVMARK_RUNTIME to another folder"
        in said[0]
    )
    assert list(target.iterdir()) == []
    mine.unlink()
    mine.mkdir()
    victim = tmp_path / "victim"
    victim.write_text("as it was")
    (mine / "guard.lock").symlink_to(victim)
    with alone(wait=False, concurrent=False, say=said.append, folder=mine):
        pass
    assert "cannot check for other benchmark runs" in said[1]
    (mine / "guard.lock").unlink()
    (mine / f"{os.getpid()}.lock").symlink_to(victim)
    with alone(wait=False, concurrent=False, say=said.append, folder=mine):
        pass
    assert "cannot check for other benchmark runs" in said[2]
    (mine / f"{os.getpid()}.lock").unlink()
    (mine / "4000000.lock").symlink_to(victim)
    os.mkfifo(mine / "4000001.lock")
    (shared / "convmark-12345").symlink_to(target)
    (shared / "convmark-x").mkdir()
    with alone(wait=False, concurrent=False, say=said_nothing, folder=mine) as others:
        assert others == []
    assert (victim.read_text(), victim.stat().st_mode & 0o777) == ("as it was", 0o644)


def test_busy_is_an_error_that_names_a_process_that_lives() -> None:
    holder = subprocess.Popen(
        [sys.executable, "-uc", f"{NESTED}    input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"has it beside []\n"
        with (
            pytest.raises(BusyError, match=rf"process {holder.pid}, ") as refused,
            alone(wait=False, concurrent=False, say=said_nothing),
        ):
            pass
        assert psutil.pid_exists(int(re.findall(r"process (\d+)", str(refused.value))[0]))
    finally:
        holder.communicate(b"\n", timeout=30)


# What else disturbs a run


def test_a_busy_machine_is_said_before_the_run_with_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from convmark.machine.state import CpuTicks, State

    state = State(
        load_average_1min=99.0,
        available_memory_bytes=64 << 30,
        governors=("powersave",),
        on_battery=True,
        steal_fraction=0.0,
        cpu_temperature_c=97.0,
    )
    ticks = iter([CpuTicks(stolen=0, wanted=0), CpuTicks(stolen=50, wanted=1000)])
    monkeypatch.setattr("convmark.machine.cautions.read_state", lambda: state)
    monkeypatch.setattr("convmark.machine.cautions.read_cpu_ticks", lambda: next(ticks))
    monkeypatch.setattr("convmark.interpreter.Interpreter", fake_worker.FakeInterpreter)
    monkeypatch.chdir(tmp_path)
    assert main(["run", "--models", "lenet5", *FAST, "--processes", "1"]) == 0
    lines = capsys.readouterr().err.splitlines()
    (begins,) = (line for line in lines if "1 process to measure" in line)
    before = lines[: lines.index(begins)]
    for subject, remedy in (
        ("load", "close other programs, wait a minute and check again"),
        ("governor", "sudo cpupower frequency-set -g performance"),
        ("power", "connect the machine to mains power"),
        ("steal: 5.0 %", "use a dedicated host, or an instance type with CPUs of its own"),
        ("temperature", "let the machine cool down, then check its fans and filters"),
    ):
        (line,) = [line for line in before if line.startswith(f"convmark run: {subject}")]
        assert line.endswith(f"; {remedy}")
