"""What is written in place among the results is written through no link, and loses no line."""

from __future__ import annotations

import dataclasses
import os
import stat
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from rows import row as record

from convmark.compare.live import ab_files
from convmark.core.errors import StoreError
from convmark.core.files import new_folder
from convmark.results.reading import StoreWarning
from convmark.results.run_file import RunFile, steps_path
from convmark.results.store import Store
from convmark.results.table_file import TableFile
from convmark.session.result import Result
from convmark.session.run import with_kept_stack


@dataclass(frozen=True)
class Row:
    run: str
    note: str | None = None


TABLE = TableFile(Row)


def linked(folder: Path, name: str, content: str = "theirs\n") -> tuple[Path, Path]:
    """Return a link among the results, and the file that it leads to."""
    theirs, link = folder / "theirs.txt", folder / "results" / name
    link.parent.mkdir(exist_ok=True)
    theirs.write_text(content)
    link.symlink_to(theirs)
    return link, theirs


def test_a_table_that_is_a_link_is_not_appended_to(tmp_path: Path) -> None:
    link, theirs = linked(tmp_path, "accepted.csv", "run,note\n")
    refused = f"{link}: cannot be written: is a link to {theirs}; put the file itself there"
    with pytest.raises(StoreError, match=refused):
        TABLE.append(link, [Row("0001")])
    assert theirs.read_text() == "run,note\n"


def test_a_link_to_nowhere_makes_no_file_there(tmp_path: Path) -> None:
    link = tmp_path / "accepted.csv"
    link.symlink_to(tmp_path / "new.txt")
    with pytest.raises(StoreError, match="is a link to"):
        TABLE.append(link, [Row("0001")])
    assert os.listdir(tmp_path) == ["accepted.csv"]


def test_a_runs_log_that_is_a_link_is_not_appended_to(tmp_path: Path) -> None:
    link, theirs = linked(tmp_path, "0001.log")
    row = dataclasses.replace(record(), status="error", error="it failed")
    result = Result(case=row.asked_case, record=row, step_times_s=[], stack="Traceback ...")
    with pytest.raises(StoreError, match=r"0001\.log: must be writable: is a link to"):
        with_kept_stack(result, link.with_suffix(".csv"))
    assert theirs.read_text() == "theirs\n"


def test_a_run_that_is_a_link_is_not_resumed(tmp_path: Path) -> None:
    store = Store(tmp_path / "archive")
    run = store.create_run("machine")
    run.append(record())
    run.close()
    before = run.path.read_bytes()
    link = tmp_path / "0001.csv"
    link.symlink_to(run.path)
    with pytest.raises(StoreError, match="put the file itself there, or name it"):
        RunFile.reopened(link)
    assert run.path.read_bytes() == before


@pytest.mark.parametrize("there", [True, False])
def test_step_times_are_written_through_no_link(tmp_path: Path, there: bool) -> None:
    run = Store(tmp_path).create_run("machine")
    theirs = tmp_path / "theirs.zip"
    if there:
        zipfile.ZipFile(theirs, "w").close()
    before = theirs.read_bytes() if there else None
    steps_path(run.path).symlink_to(theirs)
    with pytest.warns(StoreWarning, match="raw step times are not saved: is a link to"):
        run.append(record(), [0.1, 0.2])
    run.close()
    assert (theirs.read_bytes() if theirs.exists() else None) == before


@pytest.mark.parametrize("content", ["their,columns\nlast line", "last line", "run;note"])
def test_a_file_of_other_columns_keeps_its_last_line(tmp_path: Path, content: str) -> None:
    path = tmp_path / "accepted.csv"
    path.write_text(content)
    with pytest.raises(StoreError, match="must have the columns run, note"):
        TABLE.append(path, [Row("0001")])
    assert path.read_text() == content


@pytest.mark.parametrize("torn", ["", "run,no", "run,note\n", "run,note\n0001,a\n0002,b"])
def test_what_a_killed_writer_left_is_cut_off_and_the_rows_go_on(tmp_path: Path, torn: str) -> None:
    path = tmp_path / "accepted.csv"
    path.write_text(torn)
    TABLE.append(path, [Row("0003", "c")])
    kept = [Row("0001", "a")] if "0001" in torn else []
    assert TABLE.read(path) == [*kept, Row("0003", "c")]


def test_a_number_that_a_table_still_names_is_given_to_no_new_file(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.create_run("machine").append(record())
    TABLE.append(tmp_path / "machine" / "accepted.csv", [Row("0002", "of a run that is removed")])
    assert store.create_run("machine").path.stem == "0003"
    first = ab_files.create(tmp_path)
    TABLE.append(ab_files.verdicts_path(first), [Row(first.stem)])
    first.unlink()
    assert ab_files.create(tmp_path).stem == "0002"


def test_the_folder_of_a_killed_export_is_removed_and_one_being_filled_is_not(
    tmp_path: Path,
) -> None:
    left = tmp_path / f".out.{'0a' * 4}.part"
    (left / "tests").mkdir(parents=True)
    (left / "tests" / "one.csv").touch()
    with new_folder(tmp_path / "out") as first:
        assert not left.exists()
        (first / "made").touch()
        with new_folder(tmp_path / "out") as second:
            assert first.exists()
        (tmp_path / "out").rmdir()
        assert not second.exists()
    assert os.listdir(tmp_path) == ["out"]
    assert os.listdir(tmp_path / "out") == ["made"]


def test_a_folder_that_another_process_takes_for_abandoned_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = []

    def lock_after_another(descriptor: int, within_s: float) -> None:
        if not taken:
            (part,) = tmp_path.glob(".out.*.part")
            taken.append(part)
            part.rmdir()

    monkeypatch.setattr("convmark.core.files.lock", lock_after_another)
    with new_folder(tmp_path / "out") as made:
        assert made not in taken
        (made / "one").touch()
    assert os.listdir(tmp_path / "out") == ["one"]


def test_a_table_may_be_written_by_whom_the_umask_lets(tmp_path: Path) -> None:
    mask = os.umask(0o002)
    try:
        TABLE.append(tmp_path / "accepted.csv", [Row("0001")])
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "accepted.csv").stat().st_mode) == 0o664
