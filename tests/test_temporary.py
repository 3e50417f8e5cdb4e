"""What a killed process leaves in the temporary folder is removed by the next one."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from convmark.core.files import TemporaryFolder

HOLDS_ONE = """
from convmark.core.files import TemporaryFolder
folder = TemporaryFolder()
print(folder.path, flush=True)
input()
"""


@pytest.fixture(autouse=True)
def folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)


def test_a_folder_is_removed_with_all_that_is_in_it() -> None:
    folder = TemporaryFolder()
    (folder.path / "log").write_text("lines")
    folder.close()
    folder.close()
    assert not folder.path.exists()


def test_the_folder_of_a_killed_process_is_removed_and_that_of_a_running_one_is_not() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDS_ONE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    theirs = Path(process.stdout.readline().strip())
    with TemporaryFolder():
        assert theirs.is_dir()
        process.send_signal(signal.SIGKILL)
        process.communicate()
        with TemporaryFolder():
            assert not theirs.exists()


def test_a_folder_whose_maker_was_killed_before_its_lock_was_made_is_removed(
    tmp_path: Path,
) -> None:
    made = Path(tempfile.mkdtemp(prefix="convmark-"))
    others = {"convmark-reports1": 0o755, "convmark-10000000": 0o700, "convmark-own": 0o700}
    for name, mode in others.items():
        (tmp_path / name).mkdir(mode)
    used = Path(tempfile.mkdtemp(prefix="convmark-"))
    (used / "kept").touch()
    with TemporaryFolder():
        assert not made.exists()
        assert used.is_dir()
        assert all((tmp_path / name).is_dir() for name in others)


def test_a_folder_that_another_process_removes_before_its_lock_is_made_is_made_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened, calls = os.open, iter([True])

    def open_late(path: Path | str, *more: int) -> int:
        if Path(path).name == ".in_use" and next(calls, False):
            Path(path).parent.rmdir()
        return opened(path, *more)

    monkeypatch.setattr(os, "open", open_late)
    with TemporaryFolder() as folder:
        assert folder.is_dir()


def test_a_link_to_a_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / ".in_use").touch()
    os.symlink(tmp_path / "elsewhere", tmp_path / "convmark-link")
    with TemporaryFolder():
        assert (tmp_path / "elsewhere" / ".in_use").exists()


def test_a_folder_that_is_removed_before_its_lock_is_taken_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    removed: list[Path] = []
    flock = fcntl.flock

    def after_another_process(descriptor: int, how: int) -> None:
        if not removed:
            removed.extend(tmp_path.glob("convmark-*"))
            shutil.rmtree(removed[0])
        flock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", after_another_process)
    with TemporaryFolder() as folder:
        assert folder.is_dir()
        assert [folder.name] != [one.name for one in removed]
        with TemporaryFolder():
            assert folder.is_dir()


def test_an_earlier_versions_tree_is_removed_once_its_process_has_ended(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    left = tmp_path / f"convmark-tree-{ended.pid}-ab_c1"
    others = [tmp_path / f"convmark-tree-{end}" for end in (f"{os.getpid()}-a", f"{2**70}-a", "x")]
    for folder in (left, *others):
        (folder / "project").mkdir(parents=True)
    with TemporaryFolder():
        assert not left.exists()
        assert all(folder.exists() for folder in others)
