"""A results folder that is full, read-only, elsewhere or behind a link; a clock; a host's name."""

from __future__ import annotations

import os
import re
import resource
import shlex
import shutil
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from fast_worker import PAUSE
from faults import FAST, measuring, one_message, rows_in, run, run_files
from rows import row
from test_run import FACTS, TRAIN, Told, canned, events, ok
from workers import happens

from convmark.compare.history import accepted_history
from convmark.core.options import read
from convmark.results.reading import read_run
from convmark.results.store import Store, read_step_times
from convmark.session.facts import plan
from convmark.session.result import Result
from convmark.session.run import execute

pytestmark = pytest.mark.usefixtures("forked_commands")

PLAN = ("--models", "lenet5,conv_layer", *FAST, "--processes", "3")


# A full disk


def test_a_file_size_limit_in_the_middle_of_a_row_ends_the_run_with_one_message(
    tmp_path: Path,
) -> None:
    _, _, whole = run(*PLAN, folder=tmp_path)
    (path,) = run_files(tmp_path)
    lines = path.read_bytes().splitlines(keepends=True)
    room = sum(map(len, lines[:4])) + len(lines[4]) // 2  # three rows and a half
    shutil.rmtree(tmp_path / "results")

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))

    status, output, rows = run(*PLAN, folder=tmp_path, before=limit)
    assert status == 2
    assert [row.order for row in rows] == [1, 2, 3]
    assert re.search(
        r"^convmark run: results/.*/0001\.csv: a row cannot be written: File too large; rows "
        r"before it: 3; continue with --resume$",
        one_message(output),
        re.MULTILINE,
    )
    status, output, rows = run(*PLAN, "--resume", folder=tmp_path)
    assert status == 0, output
    assert [(row.order, row.case, row.process) for row in rows] == [
        (row.order, row.case, row.process) for row in whole
    ]


def namespaced(folder: Path, *commands: str) -> tuple[str, ...]:
    """Return what runs a command after others, in a place of its own for mounts and host names."""
    script = " && ".join([*commands, 'exec "$@"'])
    through = ("unshare", "--mount", "--uts", "sh", "-c", script, "sh")
    if shutil.which("unshare") is None:
        pytest.skip("needs unshare")
    tried = subprocess.run([*through, "true"], cwd=folder, capture_output=True, check=False)
    if tried.returncode:
        pytest.skip(f"needs to be allowed: {tried.stderr.decode().strip()}")
    return through


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A folder that a file system of its own can be mounted on."""
    folder = tmp_path / "results"
    folder.mkdir()
    return folder


def mounted(disk: Path, size: int, then: str) -> tuple[str, ...]:
    """Return what runs a command on a small disk, and copies what is left of it beside it."""
    there = shlex.quote(str(disk))
    saved = shlex.quote(str(disk.with_name("saved")))
    ran = f'"$@"; status=$?; cp -r {there} {saved}; exit $status #'
    return namespaced(disk, f"mount -t tmpfs -o size={size} tmpfs {there}", then, ran)


def test_a_full_disk_ends_the_run_with_one_message_and_its_rows_read(
    tmp_path: Path, disk: Path
) -> None:
    filled = f"dd if=/dev/zero of={shlex.quote(str(disk))}/ballast bs=1k count=36 status=none"
    through = mounted(disk, 48 * 1024, filled)
    status, output, _ = run(*PLAN, "--processes", "10", folder=tmp_path, through=through)
    assert status == 2, output
    said = [line for line in one_message(output).splitlines() if "a row cannot be written" in line]
    assert len(said) == 1
    assert "No space left on device; rows before it: " in said[0]
    rows = rows_in(tmp_path / "saved")
    assert [row.order for row in rows] == list(range(1, len(rows) + 1))
    assert 1 <= len(rows) < 20


def test_a_disk_without_room_for_a_header_is_refused_and_left_as_it_was(
    tmp_path: Path, disk: Path
) -> None:
    filled = f"dd if=/dev/zero of={shlex.quote(str(disk))}/ballast bs=1k count=8 status=none"
    through = mounted(disk, 8 * 1024, filled)
    status, output, _ = run(*PLAN, folder=tmp_path, through=through)
    assert status == 2
    assert "--results: " in one_message(output)
    assert "No space left on device" in output
    assert run_files(tmp_path) == []


def test_a_report_to_a_full_disk_is_one_line_without_a_traceback(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    run(*PLAN, folder=tmp_path)
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "convmark", "report", "--format", "text"],
            cwd=tmp_path,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode != 0
    assert "Traceback" not in done.stderr


# A folder that is not as it should be


def test_a_folder_on_a_read_only_file_system_is_refused_before_anything_is_measured(
    tmp_path: Path, disk: Path
) -> None:
    there = shlex.quote(str(disk))
    through = namespaced(disk, f"mount -t tmpfs tmpfs {there}", f"mount -o remount,ro {there}")
    status, output, rows = run(*PLAN, folder=tmp_path, through=through)
    assert status == 2
    assert one_message(output) == "convmark run: --results: must be writable, but results is not"
    assert rows == []


def test_a_folder_of_another_file_system_behind_a_link_is_as_good_as_any(tmp_path: Path) -> None:
    elsewhere = Path("/dev/shm")
    if not os.access(elsewhere, os.W_OK) or elsewhere.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("needs a second file system")
    target = elsewhere / f"convmark-test-{os.getpid()}"
    target.mkdir()
    try:
        (tmp_path / "results").symlink_to(target)
        for number in (1, 2):
            status, output, rows = run(*PLAN, folder=tmp_path)
            assert status == 0, output
            assert len(rows) == 6 * number
        assert [path.stem for path in run_files(target)] == ["0001", "0002"]
        status, output, rows = run(*PLAN, "--resume", folder=tmp_path)
        assert (status, len(rows)) == (0, 12), output
    finally:
        shutil.rmtree(target)


def test_a_link_to_nowhere_is_refused(tmp_path: Path) -> None:
    (tmp_path / "results").symlink_to(tmp_path / "gone" / "deeper")
    status, output, rows = run(*PLAN, folder=tmp_path)
    assert status == 2
    assert "--results: " in (said := one_message(output))
    assert len(said.splitlines()) == 1
    assert rows == []


def test_a_folder_that_is_removed_while_a_run_writes_to_it_is_put_back(tmp_path: Path) -> None:
    process = measuring(*PLAN, folder=tmp_path, environ={PAUSE: "0.02"})
    assert happens(lambda: len(rows_in(tmp_path)) >= 1, within_s=60)
    shutil.rmtree(tmp_path / "results")
    output, _ = process.communicate(timeout=60)
    assert "Traceback" not in output
    assert "was removed during the run" in output
    assert len(rows_in(tmp_path)) == int(re.findall(r"(\d+) rows in", output)[-1])


# The clock and the host's name


def test_a_clock_set_back_in_the_middle_of_a_run_disturbs_nothing(tmp_path: Path) -> None:
    begins = datetime(2026, 6, 1, 12, tzinfo=timezone.utc)
    steps = (0, 60, -86_400, -86_340, -86_280, -86_220)
    kept: list[Result] = []
    run_file = Store(tmp_path).create_run("xeon-2")
    jobs = plan([TRAIN], 6, seed=0)
    execute(
        jobs,
        canned(*(ok(events()) for _ in jobs)),
        read({"processes": "6"}),
        FACTS,
        run_file,
        Told(),
        keep=kept.append,
        now=lambda: begins + timedelta(seconds=steps[len(kept)]),
    )
    run_file.close()
    rows = read_run(run_file.path)
    assert [row.order for row in rows] == [1, 2, 3, 4, 5, 6]
    assert rows[2].started < rows[0].started


def test_a_run_of_an_earlier_clock_is_still_the_later_run_for_its_verdicts(tmp_path: Path) -> None:
    store = Store(tmp_path)
    known = {"machine": "xeon-2", "commit": "a" * 40, "dirty": False, "other_cpu_share": 0.0}
    for started in ("2026-06-01", "2026-05-01", "2025-01-01"):
        run_file = store.create_run("xeon-2")
        run_file.append(row(run=run_file.run, started=f"{started}T00:00:00.000+00:00", **known))
        run_file.close()
    newest = read_run(store.runs("xeon-2")[-1])
    history = accepted_history(store, "xeon-2", newest)
    (case,) = history.cases.values()
    assert case.anchor is not None
    assert case.anchor.run == "0001"
    assert [rows[0].run for rows in case.runs] == ["0001", "0002"]


def test_a_renamed_host_is_the_same_machine_and_its_run_goes_on(tmp_path: Path) -> None:
    through = namespaced(tmp_path, "hostname another-name")
    before = subprocess.run([*through, "hostname"], capture_output=True, text=True, check=True)
    assert before.stdout.strip() == "another-name"
    run(*PLAN, folder=tmp_path)
    (path,) = run_files(tmp_path)
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:4]))
    status, output, rows = run(*PLAN, "--resume", folder=tmp_path, through=through)
    assert status == 0, output
    assert len(rows) == 6
    assert len({row.machine for row in rows}) == 1


def test_ctrl_c_while_the_disk_is_waited_for_leaves_a_row_that_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(descriptor: int) -> None:
        raise KeyboardInterrupt

    run_file = Store(tmp_path).create_run("xeon-2")
    monkeypatch.setattr(os, "fsync", interrupted)
    for rows in (1, 2):
        with pytest.raises(KeyboardInterrupt):
            run_file.append(row(process=rows, order=rows), [0.01 * rows])
        assert run_file.rows == rows
    run_file.close()
    assert len(read_run(run_file.path)) == 2
    assert read_step_times(run_file.path, [1, 2]).tolist() == [0.01, 0.02]
