"""What is read of a worker's pipe, however its events come together."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from convmark.interpreter.follower import Follower
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
