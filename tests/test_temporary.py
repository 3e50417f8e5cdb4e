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


def test_what_only_has_such_a_name_is_left_alone(tmp_path: Path) -> None:
    names = ("convmark-baseline", "convmark-tree-4194304-ab_c1", "convmark-tree-x1y2z3_4")
    for name in names:
        (tmp_path / name).mkdir(0o700)
    (tmp_path / names[-1] / ".in_use").touch()
    with TemporaryFolder():
        assert all((tmp_path / name).is_dir() for name in names)


def test_a_link_to_a_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / ".convmark_in_use").touch()
    os.symlink(tmp_path / "elsewhere", tmp_path / "convmark-link")
    with TemporaryFolder():
        assert (tmp_path / "elsewhere" / ".convmark_in_use").exists()


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
