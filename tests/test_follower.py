"""What is read of a worker's pipe and of its log, however its events come together."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from convmark.interpreter.follower import LOG_BYTES, LOG_TAIL_BYTES, Follower, shorten, tail
from convmark.worker.failure import message_of
from convmark.worker.protocol import encode

TIME_LIMIT_S = 0.5


class Silent:
    """A worker that lives and has written what a test wrote for it."""

    def __init__(self) -> None:
        self.events_fd, self._writer = os.pipe()
        self.control, self._peer = socket.socketpair()
        self.ended = False

    def writes(self, *names: str) -> None:
        os.write(self._writer, b"".join(encode({"event": name}) for name in names))

    def wait(self, limit_s: float = 0.0) -> int | None:
        return 0 if self.ended else None

    def end(self) -> None:
        self.ended = True

    def close(self) -> None:
        os.close(self.events_fd)
        os.close(self._writer)
        self.control.close()
        self._peer.close()


@pytest.fixture
def worker() -> Iterator[Silent]:
    silent = Silent()
    yield silent
    silent.close()


@pytest.fixture
def follower() -> Follower:
    return Follower(lambda event: None, 0.0, TIME_LIMIT_S)


def test_events_that_come_together_are_awaited_one_by_one(
    worker: Silent, follower: Follower
) -> None:
    worker.writes("ready", "sizes", "progress", "warm")
    assert follower.follow(worker, until="sizes") == {"event": "sizes"}
    assert follower.follow(worker, until="warm") == {"event": "warm"}
    assert follower.overrun == ""


def test_an_event_is_returned_once(worker: Silent, follower: Follower) -> None:
    worker.writes("turn")
    assert follower.follow(worker, until="turn") == {"event": "turn"}
    assert follower.follow(worker, until="turn") is None
    assert worker.ended
    assert "no progress for 0.5 s after 'start'" in follower.overrun


STACK = '  File "/site-packages/tensorflow/python/eager/execute.py", line 53 in quick_execute\n'


@pytest.mark.parametrize("frames", [1, 60, 400])
def test_why_a_framework_died_is_found_before_the_stacks_of_its_threads(
    frames: int, tmp_path: Path
) -> None:
    """A stack of TensorFlow's is some 60 lines of 80 letters, and each thread has one."""
    log = tmp_path / "7.log"
    log.write_text(
        "terminate called after throwing an instance of 'std::bad_alloc'\n"
        "  what():  std::bad_alloc\nFatal Python error: Aborted\n\n"
        "Thread 0x00007f6ac061dc40 (most recent call first):\n" + frames * STACK
    )
    found = tail(log)
    assert "std::bad_alloc' Fatal Python error: Aborted File" in found
    answer = Follower(lambda event: None, time.perf_counter(), 60.0).conclude(
        -signal.SIGABRT, found
    )
    assert answer.status == "out_of_memory"


def test_a_log_without_a_fatal_error_tells_its_last_line_and_no_log_nothing(tmp_path: Path) -> None:
    log = tmp_path / "7.log"
    log.write_text("first\n\nlast words\n\n")
    assert tail(log) == ": last words"
    assert tail(tmp_path / "none.log") == tail(None) == ""


def test_a_log_without_end_is_cut_down_to_its_end_and_goes_on(tmp_path: Path) -> None:
    log = tmp_path / "7.log"
    with log.open("ab") as writer:
        writer.write(b"x" * (LOG_BYTES + 1) + b"\nthe last line\n")
        writer.flush()
        shorten(log)
        assert log.stat().st_size == LOG_TAIL_BYTES
        assert tail(log) == ": the last line"
        writer.write(b"and one more\n")
    assert tail(log) == ": and one more"
    shorten(log)
    assert log.stat().st_size == LOG_TAIL_BYTES + len("and one more\n")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("cannot fetch https://me:pa55@host/x", "cannot fetch https://me:***@host/x"),
        ("GET /?token=abcd1234&page=1", "GET /?token=***&page=1"),
        ("MY_API_KEY: 'sk1234', retried", "MY_API_KEY: '***', retried"),
        ("Authorization: Bearer abcdef012345", "Authorization: Bearer ***"),
        (f"pushed with ghp_{'a' * 36}", "pushed with ghp_***"),
        ("KeyError: 'lenet5'; the key: value of monkey=banana, key=3, tokens: 12", None),
    ],
)
def test_a_secret_in_an_error_is_masked(text: str, shown: str | None) -> None:
    follower = Follower(lambda event: None, time.perf_counter(), 60.0)
    assert follower.death(text, 1, "").message == (shown or text)
    assert message_of(RuntimeError(text)) == f"RuntimeError: {shown or text}"
