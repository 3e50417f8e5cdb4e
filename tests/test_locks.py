"""Locks that end with the process that took them, and not with what it has forked."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from convmark.core.files import TemporaryFolder, lock, new_folder, write_whole
from convmark.machine.lock import alone
from convmark.results.run_file import RunFile
from convmark.results.store import Store
from convmark.results.table_file import TableFile

HOLDER = """
import os, sys, signal
from pathlib import Path
from convmark.core.files import TemporaryFolder
from convmark.machine.lock import alone
from convmark.results.store import Store

folder = Path(sys.argv[1])
run = Store(folder).create_run("machine")
os.write(run._descriptor, b"a row\\n")
temporary = TemporaryFolder()
with alone(wait=False, concurrent=False, say=print, folder=folder / "runtime"):
    child = os.fork()
    if child:
        print(child, run.path, temporary.path, flush=True)
    signal.pause()
"""


@contextmanager
def orphan_of_a_killed_run(folder: Path) -> Iterator[tuple[Path, Path]]:
    """Give the run file and the temporary folder of a run that was killed; its child lives."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        child, run, temporary = holder.stdout.readline().split()
        holder.kill()
        holder.wait()
        try:
            yield Path(run), Path(temporary)
        finally:
            os.kill(int(child), signal.SIGKILL)


def test_a_child_that_outlives_a_killed_run_holds_nothing_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with orphan_of_a_killed_run(tmp_path) as (run, temporary):
        with alone(wait=False, concurrent=False, say=print, folder=tmp_path / "runtime") as others:
            assert others == []
        RunFile.reopened(run).close()
        with TemporaryFolder():
            assert not temporary.exists()


@pytest.fixture
def held(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """Give a file whose lock another open file has, as a program has it before it becomes one."""
    path = tmp_path / "0001.csv"
    path.write_text("")
    other = os.open(path, os.O_RDWR)
    fcntl.flock(other, fcntl.LOCK_EX)
    yield path, other
    fcntl.flock(other, fcntl.LOCK_UN)
    os.close(other)


def test_a_lock_that_is_given_up_in_a_moment_is_waited_for(held: tuple[Path, int]) -> None:
    path, other = held
    with path.open("r+b") as file:
        assert not lock(file.fileno())

        def give_up(seconds: float) -> None:
            fcntl.flock(other, fcntl.LOCK_UN)

        assert lock(file.fileno(), within_s=60.0, sleep=give_up)


def test_the_machine_is_had_once_the_others_lock_is_given_up_in_a_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = tmp_path / "runtime"
    runtime.mkdir(mode=0o755)
    other = os.open(runtime / "4000000.lock", os.O_RDWR | os.O_CREAT, 0o644)
    fcntl.flock(other, fcntl.LOCK_EX)
    monkeypatch.setattr("convmark.machine.lock.time.sleep", lambda seconds: os.close(other))
    with alone(wait=False, concurrent=False, say=print, folder=runtime) as others:
        assert others == []


def test_what_took_a_closed_locks_number_stays_open_in_a_child(tmp_path: Path) -> None:
    first = os.open(tmp_path / "locked", os.O_RDWR | os.O_CREAT)
    assert lock(first)
    os.close(first)
    again = os.open(tmp_path / "other", os.O_RDWR | os.O_CREAT)
    assert again == first
    child = os.fork()
    if not child:
        os.write(again, b"from the child")
        os._exit(0)
    os.waitpid(child, 0)
    os.close(again)
    assert (tmp_path / "other").read_text() == "from the child"


def read_by_a_child(path: Path) -> bytes:
    """Return what a forked process reads of a file that this one has opened."""
    file = os.open(path, os.O_RDONLY)
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.write(writer, os.read(file, 100))
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writer)
    found = os.read(reader, 100)
    for descriptor in (reader, file):
        os.close(descriptor)
    return found


@dataclass(frozen=True)
class Row:
    run: str


def appended(folder: Path) -> Path:
    TableFile(Row).append(folder / "table.csv", [Row("0001")])
    return folder / "table.csv"


def run_made(folder: Path) -> Path:
    run = Store(folder).create_run("machine")
    os.write(run._descriptor, b"a row\n")
    run.close()
    return run.path


@pytest.mark.parametrize("locked", [appended, run_made])
def test_a_child_reads_a_file_that_was_locked_and_closed_and_opened_again(
    locked: Callable[[Path], Path], tmp_path: Path
) -> None:
    path = locked(tmp_path)
    assert read_by_a_child(path) == path.read_bytes()[:100] != b""


def test_nothing_that_was_locked_and_closed_is_kept_for_a_child_to_drop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own: dict[int, os.stat_result] = {}
    monkeypatch.setattr("convmark.core.files._OWN", own)
    runtime = tmp_path / "runtime"
    runtime.mkdir(mode=0o755)
    (runtime / "4000000.lock").touch()
    with alone(wait=False, concurrent=False, say=print, folder=runtime):
        assert own
    write_whole(tmp_path / "file", b"content")
    with new_folder(tmp_path / "folder"):
        pass
    with TemporaryFolder():
        pass
    assert not own
