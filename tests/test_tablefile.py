"""Small tables beside the runs: whole whoever writes at once, and what reading refuses."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from convmark.core.errors import StoreError
from convmark.core.files import open_kept
from convmark.results.table_file import TableFile


@dataclass(frozen=True)
class Figure:
    """A row of every kind of column."""

    name: str
    count: int
    seconds: float | None
    sure: bool
    note: str = ""
    runs: tuple[str, ...] = ()
    since: str | None = None


TABLE = TableFile(Figure, ("count", "name", "seconds", "sure", "gone"))
ONE = Figure("a", 1, 0.5, True, 'x, "y"', ("0001", "0002"), "2026")
TWO = Figure("=b", -2, None, False)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "machine" / "figures.csv"


def test_what_is_appended_is_read_back_in_order_under_one_header(path: Path) -> None:
    assert TABLE.read(path) == []
    TABLE.append(path, [])
    assert not path.exists()
    TABLE.append(path, [ONE, TWO])
    TABLE.append(path, [ONE])
    assert TABLE.read(path) == [ONE, TWO, ONE]
    assert path.read_text().splitlines()[:3] == [
        "name,count,seconds,sure,note,runs,since",
        'a,1,0.5,true,"x, ""y""",0001 0002,2026',
        "'=b,-2,,false,,,",
    ]


def test_what_replaces_the_rows_leaves_nothing_else(path: Path) -> None:
    TABLE.append(path, [ONE, ONE])
    TABLE.replace(path, [TWO])
    assert TABLE.read(path) == [TWO]
    assert [one.name for one in path.parent.iterdir()] == [path.name]


APPEND = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from test_tablefile import TABLE, Figure
for _ in range(20):
    TABLE.append(Path(sys.argv[1]), [Figure(sys.argv[2] * 50, 1, 0.1, True)] * 20)
"""


def test_eight_processes_at_once_leave_a_whole_file(path: Path) -> None:
    here = str(Path(__file__).parent)
    writers = [
        subprocess.Popen([sys.executable, "-c", APPEND, str(path), letter, here])
        for letter in "abcdefgh"
    ]
    assert [writer.wait(timeout=120) for writer in writers] == [0] * 8
    names = [one.name for one in TABLE.read(path)]
    assert len(names) == 8 * 20 * 20
    for start in range(0, len(names), 20):  # what was appended together stands together
        assert len(set(names[start : start + 20])) == 1
    assert {name[0]: len(name) for name in names} == dict.fromkeys("abcdefgh", 50)


def test_a_torn_last_line_is_left_out_and_then_cut_off(path: Path) -> None:
    TABLE.append(path, [ONE])
    with path.open("a") as file:
        file.write("b,1,0.")
    assert TABLE.read(path) == [ONE]
    TABLE.append(path, [TWO])
    assert TABLE.read(path) == [ONE, TWO]
    path.write_text("name,co")  # a torn header
    TABLE.append(path, [TWO])
    assert TABLE.read(path) == [TWO]


def test_a_disk_without_room_for_all_rows_keeps_none_of_them_and_no_empty_file(path: Path) -> None:
    with at_most(30), pytest.raises(StoreError, match=r"figures\.csv: cannot be written: File too"):
        TABLE.append(path, [ONE])
    assert not path.exists()
    TABLE.append(path, [ONE])
    whole = path.read_bytes()
    line = len(whole.splitlines(keepends=True)[1])
    with at_most(len(whole) + line + line // 2), pytest.raises(StoreError, match="cannot be"):
        TABLE.append(path, [ONE, ONE])
    assert path.read_bytes() == whole


@contextlib.contextmanager
def at_most(size_bytes: int) -> Iterator[None]:
    """Let this process write no file larger than this."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_file_that_another_writer_replaced_while_it_was_waited_for_is_opened_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    TABLE.append(path, [ONE])
    opened = iter([True, False])

    def open_then_replaced(*arguments: Any) -> int:
        descriptor = open_kept(*arguments)
        if next(opened):
            TABLE.replace(path, [TWO])
        return descriptor

    monkeypatch.setattr("convmark.results.table_file.open_kept", open_then_replaced)
    TABLE.append(path, [ONE])
    assert TABLE.read(path) == [TWO, ONE]


def test_a_file_of_earlier_columns_is_read_and_keeps_them(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("count,name,seconds,sure,gone\n3,c,,true,x\n")
    assert TABLE.read(path) == [Figure("c", 3, None, True)]
    TABLE.append(path, [TWO])
    assert TABLE.read(path) == [Figure("c", 3, None, True), TWO]
    assert path.read_text().splitlines()[2] == "-2,'=b,,false,"
    with pytest.raises(StoreError, match=r"figures\.csv: has no column '(note|runs|since)', as "):
        TABLE.append(path, [ONE])
    assert len(TABLE.read(path)) == 2


BAD_LINES = [
    ("b,1", ":3: must have 7 cells, has 2"),
    ("b,1,,true,,,,", ":3: must have 7 cells, has 8"),
    (",1,,true,,,", ":3: column 'name' must not be empty"),
    ("b,one,,true,,,", ":3: column 'count' must be of type int"),
    ("b,1,nan,true,,,", ":3: column 'seconds' must be finite"),
    ("b,1,,yes,,,", ":3: column 'sure' must be true or false"),
]


@pytest.mark.parametrize(("line", "message"), BAD_LINES)
def test_what_does_not_fit_is_refused_by_file_and_line(path: Path, line: str, message: str) -> None:
    TABLE.append(path, [ONE])
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(StoreError) as refused:
        TABLE.read(path)
    assert str(refused.value) == f"{path}{message}"


def test_another_header_is_refused_and_nothing_appended_to_it(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("run,verdict\n0001,fine\n")
    told = (
        r"figures\.csv:1: must have the columns name, count, .*; move it away to start a new file"
    )
    with pytest.raises(StoreError, match=told):
        TABLE.read(path)
    with pytest.raises(StoreError, match=told):
        TABLE.append(path, [ONE])
    assert path.read_text() == "run,verdict\n0001,fine\n"


@pytest.mark.parametrize("write", [TABLE.append, TABLE.replace])
def test_a_file_that_cannot_be_written_is_one_line(path: Path, write: object) -> None:
    path.mkdir(parents=True)
    with pytest.raises(StoreError, match=r"figures\.csv: cannot be written"):
        write(path, [ONE])  # type: ignore[operator]
    with pytest.raises(StoreError, match="cannot be read"):
        TABLE.read(path)
    assert os.listdir(path.parent) == [path.name]


def test_a_row_appended_while_a_file_gets_new_columns_is_not_lost(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.parent.mkdir()
    path.write_text("count,name,seconds,sure,gone\n1,a,,true,\n")
    other = threading.Thread(target=lambda: TABLE.append(path, [TWO]))
    replace = TableFile.replace

    def replaced(*rest: Any) -> None:
        other.start()
        other.join(0.1)  # it is over at once, or waits until the file is replaced
        replace(*rest)

    monkeypatch.setattr(TableFile, "replace", replaced)
    TABLE.lift(path)
    other.join()
    assert path.read_text().startswith("name,count,seconds,sure,note,runs,since\n")
    assert [figure.name for figure in TABLE.read(path)] == ["a", TWO.name]
