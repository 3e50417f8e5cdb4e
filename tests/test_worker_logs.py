"""What a worker's log tells of its death."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from convmark.interpreter.follower import Follower, tail

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
