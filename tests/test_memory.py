"""Host memory of a process: by hand, and of a real allocation."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from convmark.worker import host
from convmark.worker.host import HostMemory, forget_peak, peak_above

MIB = 1 << 20


def test_a_peak_is_without_pages_of_files_and_above_what_was_there_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said = {"RssAnon": 100, "RssFile": 300, "VmHWM": 450}
    monkeypatch.setattr(host, "_status", lambda: said)
    before = HostMemory()
    said.update(RssAnon=120, RssFile=350, VmHWM=900)
    assert peak_above(before, HostMemory()) == 900 - 350 - 100
    said.update(RssFile=850)
    assert peak_above(before, HostMemory()) == 0


def test_memory_that_cannot_be_read_is_an_error_and_no_other_measure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "STATUS", str(tmp_path / "none"))
    assert HostMemory().anonymous_bytes == HostMemory().peak_bytes > 0
    monkeypatch.setattr(host, "STATUS", str(tmp_path))  # there, and not to be read
    with pytest.raises(OSError, match="directory"):
        HostMemory()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can forget a process's peak")
def test_what_was_allocated_and_given_back_is_in_the_peak() -> None:
    forget_peak()
    before = HostMemory()
    block = bytearray(b"x") * (64 * MIB)
    del block
    assert 63 * MIB < peak_above(before, HostMemory()) < 80 * MIB
