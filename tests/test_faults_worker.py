"""Workers that die, hang, flood or are killed for memory: a row each, and the run goes on."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from fast_worker import DIES, PAUSE
from faults import (
    FAST,
    all_gone,
    descendants,
    fast_python,
    fast_workers,
    measuring,
    one_message,
    rows_in,
    run,
    start,
)
from workers import BUILDERS, environ, happens

from convmark.interpreter import Interpreter
from convmark.interpreter.follower import oom_kills
from convmark.results.record import Record

linux = pytest.mark.skipif(sys.platform != "linux", reason="the kernel's own way")

pytestmark = pytest.mark.usefixtures("forked_commands")

MIB = 1 << 20


def by_model(rows: list[Record]) -> dict[str, list[Record]]:
    found: dict[str, list[Record]] = {}
    for row in rows:
        found.setdefault(row.model, []).append(row)
    return found


def test_whatever_workers_do_each_has_its_row_costs_no_memory_and_the_others_go_on(
    tmp_path: Path,
) -> None:
    models = "lenet5,kills_itself,floods,piles_up,writes_rubbish,conv_layer"
    options = ("--models", models, *FAST, "--processes", "1")
    process = measuring(*options, folder=tmp_path)
    highest = 0
    while process.poll() is None:
        with contextlib.suppress(psutil.NoSuchProcess):
            highest = max(highest, psutil.Process(process.pid).memory_info().rss)
        time.sleep(0.02)
    output, _ = process.communicate()
    assert process.returncode == 1
    assert 0 < highest < 300 * MIB
    assert "6 rows in " in output
    said = one_message(output)
    rows = {row.model: row for row in rows_in(tmp_path)}
    assert len(rows) == 6
    for model, expected, reason in (
        ("lenet5", "ok", ""),
        ("conv_layer", "ok", ""),
        ("kills_itself", "crashed", "the worker ended (SIGKILL) after 'ready'"),
        ("floods", "crashed", "the worker sends too many events: 200,001 without an end"),
        ("piles_up", "crashed", "the worker sends too many events: 10,001 without an end"),
        ("writes_rubbish", "crashed", "the worker wrote an invalid event: b"),
    ):
        assert rows[model].status == expected
        assert (rows[model].error or "").startswith(reason)
        assert reason.split(":")[0] in said


def test_a_hanging_worker_goes_with_its_group_after_a_polite_and_a_firm_end(
    tmp_path: Path,
) -> None:
    options = ("--models", "hangs,lenet5", *FAST, "--processes", "1", "--time-limit", "2")
    process = measuring(*options, folder=tmp_path)
    try:
        assert happens(
            lambda: len(fast_workers(process.pid)) == 3, within_s=60
        )  # a fork of its own
        _, *hanging = fast_workers(process.pid)
        assert all_gone(hanging, within_s=30)
    finally:
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    rows = {row.model: row for row in rows_in(tmp_path)}
    assert {model: row.status for model, row in rows.items()} == {
        "hangs": "timeout",
        "lenet5": "ok",
    }
    reason = "no progress for 2 s after 'ready'; the worker was ended"
    assert (rows["hangs"].error or "").startswith(reason)
    assert reason in one_message(output)


# The zygote


def test_a_zygote_that_dies_is_started_again_and_costs_one_row(tmp_path: Path) -> None:
    models = "lenet5,kills_its_zygote,conv_layer,mini_resnet"
    status, output, rows = run("--models", models, *FAST, "--processes", "1", folder=tmp_path)
    assert status == 1
    one_message(output)
    assert [row.order for row in rows] == [1, 2, 3, 4]
    for row in rows:
        lost = row.model == "kills_its_zygote"
        assert row.status == ("crashed" if lost else "ok")
        assert row.error == ("the worker's interpreter ended (SIGKILL)" if lost else None)


def test_a_zygote_that_dies_again_at_once_is_started_no_more_and_the_rest_says_so(
    tmp_path: Path,
) -> None:
    models = ("--models", "kills_its_zygote", *FAST, "--processes", "5")
    status, output, rows = run(*models, folder=tmp_path)
    assert status == 1
    one_message(output)
    ended = "the worker's interpreter ended (SIGKILL)"
    rest = "the worker's interpreter ended again after a restart: nothing was measured"
    assert [row.error for row in rows] == [ended, ended, rest, rest, rest]
    assert {row.status for row in rows} == {"crashed"}
    assert rest in output


def test_what_a_dead_zygote_left_unmeasured_is_measured_by_resume(tmp_path: Path) -> None:
    python = fast_python(tmp_path)
    whole = python.read_text()
    models = ("--models", "lenet5,conv_layer", *FAST, "--processes", "3")
    python.write_text(whole.replace("exec ", f"export {DIES}=1\nexec "))
    status, output, rows = run(*models, folder=tmp_path, python=python)
    assert status == 1
    assert {row.status for row in rows} == {"crashed"}
    python.write_text(whole)
    status, output, rows = run(*models, "--resume", folder=tmp_path, python=python)
    assert status == 0, output
    assert "0 of 6 processes measured; 6 whose interpreter had ended are measured again" in output
    assert [(row.order, row.status) for row in rows] == [(order, "ok") for order in range(1, 7)]


# Memory


def limited(folder: Path, limit: str) -> Path:
    """Return an interpreter that a shell command limits first."""
    python = folder / "python"
    python.write_text(f'#!/bin/sh\n{limit}\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    return python


def test_memory_that_the_system_refuses_is_out_of_memory_and_the_next_case_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _skip_without_tensorflow()
    python = limited(tmp_path, f"ulimit -v {3 * 1024 * 1024}")  # KiB; TensorFlow maps 1.5 GiB
    _measures_with_too_little_memory(tmp_path, python, monkeypatch)


@pytest.fixture
def cgroup() -> Iterator[Path]:
    """A memory cgroup of 1 GiB, where this process may make one."""
    folder = _made_cgroup()
    if folder is None:
        pytest.skip("no memory cgroup can be made here")
    yield folder
    assert happens(lambda: not (folder / "cgroup.procs").read_text().split(), within_s=30)
    folder.rmdir()


def _made_cgroup() -> Path | None:
    membership = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().split()]
    own = {controllers: path.lstrip("/") for _, controllers, path in membership}
    for mount, controller, limit in (
        ("/sys/fs/cgroup/memory", "memory", "memory.limit_in_bytes"),
        ("/sys/fs/cgroup", "", "memory.max"),
    ):
        for below in (own.get(controller, ""), ""):
            folder = Path(mount, below, f"convmark-test-{os.getpid()}")
            try:
                folder.mkdir()
            except OSError:
                continue
            if (folder / limit).exists():
                (folder / limit).write_text(str(1024 * MIB))
                return folder
            folder.rmdir()
    return None


@linux
def test_a_worker_that_the_kernel_kills_for_memory_says_so(
    tmp_path: Path, cgroup: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _skip_without_tensorflow()
    before = oom_kills()
    python = limited(tmp_path, f"echo $$ >{cgroup / 'cgroup.procs'} || exit 9")
    rows = _measures_with_too_little_memory(tmp_path, python, monkeypatch)
    if oom_kills() > before:  # a kernel that counts
        assert "SIGKILL" in (rows["builders:eats_memory"].error or "")
        assert "killed by the kernel for memory" in (rows["builders:eats_memory"].error or "")


def _skip_without_tensorflow() -> None:
    if importlib.util.find_spec("tensorflow") is None:
        pytest.skip("a real worker needs TensorFlow")


def _measures_with_too_little_memory(
    folder: Path, python: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Record]:
    variables = environ(folder, CONVMARK_TEST_FOLDER=str(folder))
    models = ("--models", "builders:eats_memory,builders:well", "--tasks", "infer")
    options = (*models, "--batch-sizes", "1", "--processes", "1", "--time-budget", "0.1")
    command = ("convmark", "run", "--python", str(python), "--results", str(folder / "results"))
    process = start(*command, *options, folder=BUILDERS, environ=variables)
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 1, output
    rows = {row.model: row for row in rows_in(folder)}
    assert rows["builders:eats_memory"].status == "out_of_memory", rows
    assert rows["builders:well"].status in ("ok", "unsteady"), rows
    assert "Traceback" not in output
    return rows


@pytest.mark.parametrize(
    ("text", "count"),
    [("pgfault 1\noom_kill 12\nswap_ra 0\n", 12), ("oom_kill 0\n", 0), ("pgfault 3\n", 0), ("", 0)],
)
def test_the_kernels_count_is_read(text: str, count: int, tmp_path: Path) -> None:
    vmstat = tmp_path / "vmstat"
    vmstat.write_text(text)
    assert oom_kills(vmstat) == count
    assert oom_kills(tmp_path / "none") == 0


@pytest.mark.parametrize(
    ("kills", "signal_sent", "status"),
    [((3, 4), "SIGKILL", "out_of_memory"), ((3, 3), "SIGKILL", "crashed")],
)
def test_a_kill_counts_as_the_kernels_only_where_it_has_killed_meanwhile(
    kills: tuple[int, int],
    signal_sent: str,
    status: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counts = iter(kills)
    monkeypatch.setattr("convmark.interpreter.follower.oom_kills", lambda: next(counts))
    request = {"kind": "measure", "case": {"model": "kills_itself"}}
    with Interpreter(str(fast_python(tmp_path))) as interpreter:
        answer = interpreter.answer(request)
    assert answer.status == status
    assert re.match(r"the worker ended \(SIGKILL\) after 'ready'", answer.message)


# Signals to the worker alone


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGABRT, signal.SIGSEGV, signal.SIGTERM])
def test_a_worker_that_a_signal_ends_costs_its_row_alone(
    how: signal.Signals, tmp_path: Path
) -> None:
    options = ("--models", "lenet5", *FAST, "--processes", "4")
    process = measuring(*options, folder=tmp_path, environ={PAUSE: "0.03"})
    assert happens(lambda: len(descendants(process.pid)) == 2, within_s=60)
    zygote = psutil.Process(process.pid).children()[0]
    assert happens(lambda: len(rows_in(tmp_path)) == 1 and zygote.children() != [], within_s=60)
    zygote.children()[0].send_signal(how)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1, output
    rows = rows_in(tmp_path)
    assert sorted(row.status for row in rows) == ["crashed", "ok", "ok", "ok"]
    (crashed,) = [row for row in rows if row.status == "crashed"]
    assert how.name in (crashed.error or "")
