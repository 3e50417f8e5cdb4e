"""SIGINT, SIGTERM and SIGHUP: workers gone within two seconds, rows kept, the right status."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from fast_worker import PAUSE
from faults import (
    FAST,
    all_gone,
    descendants,
    fast_python,
    fast_workers,
    measuring,
    one_message,
    rows_in,
    start,
)
from workers import happens

from convmark.core.processes import as_interrupts

SUITE = """
import pytest
from convmark.core.suites import Suite

SUITE = Suite(models=("lenet5", "conv_layer"), tasks=("train",), batch_sizes=(1,))


@pytest.mark.convmark(SUITE)
def test_speed(measured, benchmark):
    measured.replay(benchmark)
"""

pytestmark = pytest.mark.usefixtures("forked_commands")

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
GONE_S = 2.0


def heeds_ctrl_c() -> None:
    """Undo what a shell does to a job that it starts in the background."""
    for number in ENDING:
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def ended_by(process: subprocess.Popen[str], number: signal.Signals, gone_s: float = GONE_S) -> str:
    """Send a signal; the workers must be gone in time. Return what the run had said."""
    below = descendants(process.pid)
    assert len(below) >= 2, "the zygote and a worker"
    process.send_signal(number)
    assert all_gone(below, within_s=gone_s)
    output, _ = process.communicate(timeout=30)
    return output


@pytest.mark.parametrize("number", ENDING)
def test_a_signal_ends_a_run_with_its_rows_kept_and_its_own_status(
    number: signal.Signals, tmp_path: Path
) -> None:
    options = ("--models", "lenet5,conv_layer", *FAST, "--processes", "20")
    process = measuring(*options, folder=tmp_path, environ={PAUSE: "0.02"})
    assert happens(lambda: len(rows_in(tmp_path)) >= 2, within_s=60)
    assert happens(lambda: len(descendants(process.pid)) >= 2, within_s=10)
    output = ended_by(process, number)
    assert process.returncode == 128 + number
    rows = rows_in(tmp_path)
    assert 2 <= len(rows) < 40
    assert re.search(rf"^convmark run: interrupted; {len(rows)} rows in results/", output, re.M)
    one_message(output)


@pytest.mark.parametrize("number", ENDING)
def test_a_worker_that_ignores_a_polite_end_is_gone_in_time_too(
    number: signal.Signals, tmp_path: Path
) -> None:
    process = measuring("--models", "hangs", *FAST, folder=tmp_path)
    # once it has started a process of its own it is deaf
    assert happens(lambda: len(fast_workers(process.pid)) == 3, within_s=60)
    output = ended_by(process, number)
    assert process.returncode == 128 + number
    assert "interrupted; no row was measured" in one_message(output)


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 2), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_under_pytest_keeps_the_rows_and_tells_itself(
    number: signal.Signals, status: int, tmp_path: Path
) -> None:
    (tmp_path / "test_speed.py").write_text(SUITE)
    (tmp_path / "pyproject.toml").write_text(
        "[tool.pytest.ini_options]\n[tool.convmark]\nshort_options = true\n"
    )
    process = start(
        "pytest", "--python", str(fast_python(tmp_path)), "--processes=20",
        folder=tmp_path, environ={PAUSE: "0.02"},
    )  # fmt: skip
    assert happens(lambda: len(rows_in(tmp_path)) >= 2, within_s=60)
    assert happens(lambda: len(descendants(process.pid)) >= 2, within_s=10)
    output = ended_by(process, number)
    assert process.returncode == status, output
    rows = rows_in(tmp_path)
    assert 2 <= len(rows) < 40
    assert re.search(rf"^interrupted; {len(rows)} rows in results/", output, re.MULTILINE)
    assert re.search("!+ convmark: interrupted; --resume continues !+", output)
    assert not re.search(r"INTERNALERROR|KeyboardInterrupt|\.py:\d", output)


def test_a_run_under_nohup_does_not_heed_the_closed_terminal(tmp_path: Path) -> None:
    options = ("--models", "lenet5", *FAST, "--processes", "4")
    process = measuring(
        *options,
        folder=tmp_path,
        before=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
        environ={PAUSE: "0.02"},
    )
    assert happens(lambda: len(rows_in(tmp_path)) >= 1, within_s=60)
    process.send_signal(signal.SIGHUP)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert len(rows_in(tmp_path)) == 4


def test_the_end_of_its_terminal_ends_a_run_in_order(tmp_path: Path) -> None:
    """What a user who closes the window leaves behind: nothing but the rows."""
    leader, terminal = os.openpty()
    fast = ("--python", str(fast_python(tmp_path)), "--results", "results")
    options = ("--models", "lenet5", *FAST, "--processes", "40")
    process = subprocess.Popen(
        [sys.executable, "-m", "convmark", "run", *fast, *options],
        cwd=tmp_path,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env={**os.environ, PAUSE: "0.02"},
        preexec_fn=_own_terminal,
    )
    os.close(terminal)
    drain = threading.Thread(target=_drain, args=(leader,), daemon=True)
    drain.start()
    assert happens(lambda: len(rows_in(tmp_path)) >= 1, within_s=60)
    below = descendants(process.pid)
    process.send_signal(signal.SIGHUP)
    assert process.wait(timeout=30) == 129
    assert all_gone(below, within_s=GONE_S)
    os.close(leader)
    drain.join(timeout=10)
    assert 1 <= len(rows_in(tmp_path)) < 40


def _own_terminal() -> None:
    import fcntl
    import termios

    heeds_ctrl_c()
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def _drain(leader: int) -> None:
    try:
        while os.read(leader, 4096):
            pass
    except OSError:
        return


@pytest.mark.skipif(importlib.util.find_spec("tensorflow") is None, reason="needs real workers")
def test_real_workers_are_gone_in_time_and_their_rows_are_kept(tmp_path: Path) -> None:
    process = start(
        "convmark", "run", "--models=separable_layer", "--time-budget=0.1", "--processes=30",
        "--results=results", folder=tmp_path,
    )  # fmt: skip
    assert happens(lambda: len(rows_in(tmp_path)) >= 1, within_s=120)
    assert happens(lambda: len(descendants(process.pid)) >= 2, within_s=10)
    output = ended_by(process, signal.SIGINT)
    assert process.returncode == 130
    count = len(rows_in(tmp_path))
    assert 1 <= count < 120
    assert re.search(rf"interrupted; {count} rows? in results/", one_message(output))


# The part


def test_the_first_signal_interrupts_and_later_ones_do_not() -> None:
    with as_interrupts() as received:
        assert received.status == 130
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGHUP)
        time.sleep(0.05)
        assert received.status == 143
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_what_somebody_else_handles_or_ignores_is_left_alone() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with as_interrupts() as received:
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            os.kill(os.getpid(), signal.SIGHUP)
            assert received.number is None
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_in_another_thread_nothing_is_taken() -> None:
    found: list[object] = []

    def take() -> None:
        with as_interrupts() as received:
            found.extend([signal.getsignal(signal.SIGTERM), received.number])

    thread = threading.Thread(target=take)
    thread.start()
    thread.join()
    assert found == [signal.SIG_DFL, None]
