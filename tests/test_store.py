"""The results folder: numbers, rows that are on the disk at once, and what reading refuses."""

from __future__ import annotations

import csv
import math
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rows import row

from convmark.core.errors import StoreError
from convmark.results.columnar import read_columns
from convmark.results.reading import HEADER, StoreWarning, read_run
from convmark.results.record import COLUMNS, Record, to_cells
from convmark.results.schema import SCHEMA_VERSION
from convmark.results.store import Store, read_step_times

MACHINE = "xeon-2"
A_COMMIT, ANOTHER_COMMIT = "1234567" + "a" * 33, "89abcde" + "b" * 33
TEXT_COLUMNS = [column.name for column in COLUMNS if column.type is str]
MEASURED_ROW = row(
    commit=A_COMMIT,
    dirty=False,
    cpu='Xeon, "Gold"',
    cuda="12.50",
    error="=1+1, or -1",
    parameters=61706,
    loss=2.3025851249694824,
    step_time_p50_s=0.1 + 0.2,
    paired_log_ratio=-0.0123456789012345,
    flags="Übergröße",
)


def write_rows(path: Path, *records: Record) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(HEADER)
        writer.writerows(to_cells(record) for record in records)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(StoreError) as refused:
        read_run(path)
    message = str(refused.value)
    assert message.startswith(str(path))
    assert len(message.splitlines()) == 1
    return message.removeprefix(str(path))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "results")


# Numbers


def test_runs_are_numbered_from_one_and_nothing_is_made_before_the_first(store: Store) -> None:
    assert not store.folder.exists()
    assert store.runs(MACHINE) == []
    for number in ("0001", "0002", "0003"):
        run_file = store.create_run(MACHINE)
        assert run_file.run == number
        assert run_file.path == store.folder / MACHINE / f"{number}.csv"
        run_file.append(row())
        run_file.close()
    assert [path.stem for path in store.runs(MACHINE)] == ["0001", "0002", "0003"]


def test_two_runs_open_at_once_have_different_numbers(store: Store) -> None:
    first, second = store.create_run(MACHINE), store.create_run(MACHINE)
    assert (first.run, second.run) == ("0001", "0002")
    first.close()
    second.close()


def test_each_machine_counts_for_itself(store: Store) -> None:
    for machine in ("a", "b"):
        run_file = store.create_run(machine)
        assert run_file.run == "0001"
        run_file.append(row())
        run_file.close()


def test_the_next_number_follows_the_greatest_not_the_count_and_not_the_alphabet(
    store: Store,
) -> None:
    for name in ("0002", "9999", "10000", "verdicts", "7", "0003.steps", "notes-0099"):
        write_rows(store.folder / MACHINE / f"{name}.csv")
    assert [path.stem for path in store.runs(MACHINE)] == ["0002", "9999", "10000"]
    run_file = store.create_run(MACHINE)
    assert run_file.run == "10001"
    run_file.close()


def test_runs_created_by_eight_processes_at_once_all_differ(store: Store) -> None:
    # one process imports convmark, forks eight that wait for the same pipe, and closes it
    code = f"""
import os
from pathlib import Path
from convmark.results.store import Store
wait, go = os.pipe()
for _ in range(8):
    if os.fork() == 0:
        os.close(go)
        os.read(wait, 1)
        run_file = Store(Path({str(store.folder)!r})).create_run({MACHINE!r})
        os.write(1, run_file.run.encode() + b"\\n")
        os._exit(0)
os.close(go)
assert [os.wait()[1] for _ in range(8)] == [0] * 8
"""
    one_thread = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}  # so that the fork is safe
    done = subprocess.run(
        [sys.executable, "-c", code], env=one_thread, check=True, capture_output=True, text=True
    )
    assert sorted(done.stdout.split()) == [f"{number:04d}" for number in range(1, 9)]
    assert len(store.runs(MACHINE)) == 8


# Writing


def test_a_row_is_on_the_disk_when_append_returns(store: Store) -> None:
    run_file = store.create_run(MACHINE)
    assert run_file.path.read_text() == ",".join(HEADER) + "\n"
    for count in (1, 2, 3):
        run_file.append(row(process=count))
        assert [record.process for record in read_run(run_file.path)] == list(range(1, count + 1))
        assert run_file.rows == count
    run_file.close()


def test_each_row_is_forced_to_the_disk(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    run_file = store.create_run(MACHINE)
    run_file.append(row())
    run_file.append(row())
    assert len(synced) == 3  # the header too
    run_file.close()


def test_a_row_that_the_system_takes_in_pieces_is_written_whole(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    run_file = store.create_run(MACHINE)
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, bytes(data)[:7]))
    run_file.append(MEASURED_ROW)
    monkeypatch.undo()
    run_file.close()
    assert read_run(run_file.path) == [MEASURED_ROW]


def test_a_full_disk_is_reported_by_file_and_reason(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_file = store.create_run(MACHINE)

    def full(descriptor: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(StoreError, match=r"0001\.csv: a row cannot be written: No space left"):
        run_file.append(row())
    assert run_file.rows == 0
    run_file.close()


def test_the_file_of_a_run_without_rows_is_removed_when_closed(store: Store) -> None:
    run_file = store.create_run(MACHINE)
    assert run_file.path.exists()
    run_file.close()
    assert not run_file.path.exists()
    run_file.close()  # once more harms nothing


def test_the_file_of_a_run_with_a_row_stays(store: Store) -> None:
    run_file = store.create_run(MACHINE)
    run_file.append(row(status="timeout", error="no progress for 600 s"))
    run_file.close()
    assert [record.status for record in read_run(run_file.path)] == ["timeout"]


def test_a_text_that_is_no_unicode_is_written_with_question_marks(store: Store) -> None:
    run_file = store.create_run(MACHINE)
    run_file.append(row(error="path \udcff"))
    run_file.close()
    assert read_run(run_file.path)[0].error == "path ?"


# The folder


def test_a_folder_that_is_there_or_can_be_made_is_writable(store: Store, tmp_path: Path) -> None:
    store.check_writable()
    Store(tmp_path).check_writable()
    Store(tmp_path / "a" / "b" / "c").check_writable()
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "results"
    file.write_text("not a folder")
    for folder in (file, file / "deeper"):
        with pytest.raises(StoreError, match=r"--results: must be a folder, .*results is a file"):
            Store(folder).check_writable()
        with pytest.raises(StoreError, match=r"--results: .* must be writable"):
            Store(folder).create_run(MACHINE)


def test_a_folder_without_write_permission_is_refused(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    with pytest.raises(StoreError, match=r"--results: must be writable, .* is not"):
        store.check_writable()


# Reading


def test_rows_come_back_equal_in_the_order_they_were_written(tmp_path: Path) -> None:
    records = [MEASURED_ROW, row(process=2), row(process=3, error="two\nlines\r\nand \r more")]
    assert read_run(write_rows(tmp_path / "0001.csv", *records)) == records


def test_a_header_alone_holds_no_rows(tmp_path: Path) -> None:
    assert read_run(write_rows(tmp_path / "0001.csv")) == []


def test_a_torn_last_line_is_left_out_with_a_warning_that_names_file_and_line(
    tmp_path: Path,
) -> None:
    path = write_rows(tmp_path / "0001.csv", row(), row(process=2))
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    with pytest.warns(StoreWarning, match=r"0001\.csv:3: a torn last line was left out"):
        assert read_run(path) == [row()]
    assert path.read_bytes() == whole[:-20]  # never rewritten


def test_wherever_the_last_line_is_torn_the_rows_before_it_are_read(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "0001.csv", row(), MEASURED_ROW)
    whole = path.read_bytes()
    start = whole[:-1].rfind(b"\n") + 1
    for end in range(start + 1, len(whole)):
        path.write_bytes(whole[:end])
        with pytest.warns(StoreWarning, match=":3: a torn last line"):
            assert read_run(path) == [row()]


def test_a_file_cut_at_the_end_of_a_line_is_whole(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "0001.csv", row())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_run(path) == [row()]


def test_a_file_torn_in_its_header_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "0001.csv"
    path.write_text("schema,run")
    with pytest.warns(StoreWarning, match=":1: a torn last line"):
        assert refusal(path) == ":1: must hold a run's rows, it ends in its header"


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "0001.csv"
    path.touch()
    assert refusal(path) == ":1: must hold a run's rows, it is empty"


def test_a_folder_and_a_missing_file_cannot_be_read(tmp_path: Path) -> None:
    folder = tmp_path / "0001.csv"
    folder.mkdir()
    assert refusal(folder) == ": cannot be read: Is a directory"
    assert refusal(tmp_path / "0002.csv") == ": cannot be read: No such file or directory"


@pytest.mark.parametrize(
    ("header", "detail"),
    [
        (HEADER[:-1], f"column {HEADER[-1]!r} is missing"),
        ([*HEADER, "extra"], "column 'extra' is unknown"),
        (["schema2", *HEADER[1:]], "column 'schema' is missing"),
        ([HEADER[1], HEADER[0], *HEADER[2:]], "the order of the columns differs"),
        ([*HEADER, HEADER[0]], "column 'schema' is there twice"),
        (["fullname", "mean"], "column 'schema' is missing"),
    ],
)
def test_other_columns_are_refused_by_the_first_that_differs(
    header: list[str], detail: str, tmp_path: Path
) -> None:
    path = tmp_path / "0001.csv"
    path.write_text(",".join(header) + "\n")
    assert refusal(path) == f":1: must have the columns of schema {SCHEMA_VERSION}: {detail}"


def with_cell(path: Path, name: str, text: str, line: int = 3) -> Path:
    write_rows(path, row(), row(process=2), row(process=3))
    with path.open(encoding="utf-8", newline="") as file:
        lines = list(csv.reader(file))
    lines[line - 1][HEADER.index(name)] = text
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(lines)
    return path


def test_a_wrong_cell_is_refused_by_line_column_and_value(tmp_path: Path) -> None:
    path = with_cell(tmp_path / "0001.csv", "batch_size", "many")
    assert refusal(path) == ":3: column 'batch_size' must be of type int, got 'many'"


def test_a_wrong_status_is_refused_by_line(tmp_path: Path) -> None:
    path = with_cell(tmp_path / "0001.csv", "status", "great", line=4)
    assert refusal(path).startswith(":4: lenet5: status must be one of ok, ")


def test_a_row_of_another_schema_is_refused_and_says_what_to_do(tmp_path: Path) -> None:
    later = SCHEMA_VERSION + 1
    path = with_cell(tmp_path / "0001.csv", "schema", str(later))
    assert refusal(path) == (
        f":3: must be of schema 2 to {SCHEMA_VERSION}, got '{later}'; a later convmark wrote it: "
        "upgrade convmark to read it"
    )
    path = with_cell(tmp_path / "one.csv", "schema", "one")
    assert refusal(path) == (
        f":3: must be of schema {SCHEMA_VERSION}, whose columns the file has, got 'one'"
    )


@pytest.mark.parametrize("line", ["", "1,2", ",".join(["1"] * (len(HEADER) + 1))])
def test_a_line_of_the_wrong_length_is_refused_with_both_lengths(line: str, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "0001.csv", row())
    path.write_text(path.read_text() + line + "\n")
    cells = len(line.split(",")) if line else 0
    assert refusal(path) == f":3: must have {len(HEADER)} cells, has {cells}"


def test_a_file_that_is_not_utf_8_is_refused_by_line(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "0001.csv", row(cpu="Gr\u00f6\u00dfe"), row())
    path.write_bytes(path.read_bytes().decode().encode("latin-1"))
    assert refusal(path) == ":2: must be UTF-8 text"


def test_a_file_with_nul_is_refused_by_line(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "0001.csv", row(), row(cpu="Xeon"))
    path.write_bytes(path.read_bytes().replace(b"Xeon", b"Xe\0n"))
    assert refusal(path) == ":3: must be text, it has a NUL"


def test_zeros_after_a_power_cut_are_a_torn_line(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "0001.csv", row())
    path.write_bytes(path.read_bytes() + b"\0" * 512)
    with pytest.warns(StoreWarning, match=":3: a torn last line"):
        assert read_run(path) == [row()]


def test_quotes_that_never_close_are_refused_by_line(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "0001.csv", row())
    path.write_text(path.read_text() + '1,"0001\n')
    assert ": must be CSV: " in refusal(path)


def test_lines_that_end_as_on_windows_are_read(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "0001.csv", row(process=2), MEASURED_ROW)
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert read_run(path) == [row(process=2), MEASURED_ROW]


def test_a_process_that_is_measured_twice_is_refused_and_one_that_failed_before_is_not(
    tmp_path: Path,
) -> None:
    """A copy of a row would count as another process, with no spread between the two."""
    failed = row(status="error", error="a reason")
    path = write_rows(tmp_path / "0001.csv", failed, row(), row(order=2))
    with pytest.raises(StoreError, match=r"0001\.csv:4: must have each process once, .* in line 3"):
        read_run(path)
    with pytest.raises(StoreError, match="must have each process once"):
        read_columns(path, path.read_bytes())
    assert len(read_run(write_rows(tmp_path / "a_file.csv", failed, row()))) == 2


TIMED = {"step_time_mean_s": 0.0101, "step_time_p50_s": 0.01, "throughput_samples_per_s": 3200.0}


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (TIMED, {**TIMED, "process": 2}, "own, but its start and step times equal those of line 2"),
        ({}, {"process": 2, "run": "0002"}, "column 'run' must be the file's number, 0001, got '0"),
        ({"machine": "a"}, {"process": 2, "machine": "b"}, "the machine of line 2 .*: a there, b "),
        ({"commit": "a"}, {"process": 2, "commit": "b"}, "the commit of line 2 .*: a there, b "),
        ({"processes": 3}, {"process": 2, "processes": 2}, "the processes of line 2 .*: 3 there"),
        ({"keras": "3.1"}, {"process": 2, "keras": "3.2"}, "the keras of line 2 .*: 3.1 there"),
    ],
    ids=["copy", "run", "machine", "commit", "processes", "keras"],
)
def test_a_copied_row_and_one_of_another_run_are_refused_by_both_readers(
    first: dict[str, Any], second: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = write_rows(tmp_path / "0001.csv", row(**first), row(**second))
    with pytest.raises(StoreError, match=rf"0001\.csv:3: .*{message}"):
        read_run(path)
    with pytest.raises(StoreError, match=rf"0001\.csv:3: .*{message}"):
        read_columns(path, path.read_bytes())


def test_rows_of_one_run_may_differ_in_what_is_a_process_s_or_a_backend_s(tmp_path: Path) -> None:
    rows = [
        row(**TIMED, keras="3.1", commit="a", seed=0),
        row(**TIMED, keras="3.2", backend="jax", node="other"),
        row(task="accuracy", process=2, seed=1, step_time_p50_s=0.01),
        row(process=2, status="error", keras="3.9"),
    ]
    path = write_rows(tmp_path / "0001.csv", *rows)
    assert read_run(path) == rows
    assert len(read_columns(path, path.read_bytes())["status"]) == len(rows)


# Finding


@pytest.fixture
def history(store: Store) -> Store:
    """Five runs: 1 and 3 of one commit, 4 of another, 2 of none, 12 without rows."""
    for number, commit in (("0001", A_COMMIT), ("0002", None), ("0003", A_COMMIT)):
        write_rows(store.folder / MACHINE / f"{number}.csv", row(run=number, commit=commit))
    write_rows(store.folder / MACHINE / "0004.csv", row(run="0004", commit=ANOTHER_COMMIT))
    write_rows(store.folder / MACHINE / "0012.csv")
    return store


@pytest.mark.parametrize(
    ("name", "run"),
    [
        ("1", "0001"),
        ("0001", "0001"),
        ("12", "0012"),
        ("000012", "0012"),
        (A_COMMIT, "0003"),
        (A_COMMIT[:7], "0003"),
        (ANOTHER_COMMIT[:12], "0004"),
    ],
)
def test_a_run_is_found_by_its_number_or_by_its_commit_the_newest_of_it(
    name: str, run: str, history: Store
) -> None:
    assert history.find(name, MACHINE) == history.folder / MACHINE / f"{run}.csv"


def test_a_run_is_found_by_its_path_wherever_it_lies(history: Store, tmp_path: Path) -> None:
    elsewhere = write_rows(tmp_path / "other" / "mine.csv", row())
    assert history.find(str(elsewhere), MACHINE) == elsewhere


def test_a_path_that_is_not_there_is_refused(history: Store, tmp_path: Path) -> None:
    for name in (str(tmp_path / "0001.csv"), "0099.csv", f"{tmp_path}{os.sep}none", str(tmp_path)):
        with pytest.raises(StoreError, match=r"no such file; expected the CSV file of a run"):
            history.find(name, MACHINE)


def test_a_commit_of_too_few_characters_is_answered_with_the_rule(history: Store) -> None:
    with pytest.raises(StoreError, match="no run '89abcd'; a commit is given by at least 7 char"):
        history.find(ANOTHER_COMMIT[:6], MACHINE)


@pytest.mark.parametrize(
    "name", ["5", "0", "newest", "main", A_COMMIT[:6], "fffffff", A_COMMIT + "0", "", "-1"]
)
def test_a_run_that_is_not_there_is_refused_with_the_newest_that_are(
    name: str, history: Store
) -> None:
    with pytest.raises(StoreError) as refused:
        history.find(name, MACHINE)
    message = str(refused.value)
    assert f"no run {name!r}; expected a file, a commit or the number of a run" in message
    assert "(newest: 0001, 0002, 0003, 0004, 0012)" in message


def test_without_any_run_the_refusal_says_so(store: Store) -> None:
    with pytest.raises(StoreError, match=r"\(newest: none yet\)"):
        store.find("1", MACHINE)


# Step times


def test_step_times_come_back_for_the_rows_asked_for_in_that_order(store: Store) -> None:
    run_file = store.create_run(MACHINE)
    run_file.append(row(order=1), [0.25, 0.5])
    run_file.append(row(order=2, process=2), [0.125])
    run_file.append(row(order=3, process=3, status="error", error="none"))
    run_file.close()
    steps = run_file.path.with_name("0001.steps.npz")
    assert steps.is_file()
    for orders, expected in (([1], [0.25, 0.5]), ([1, 2], [0.25, 0.5, 0.125]), ([2], [0.125])):
        times_s = read_step_times(run_file.path, orders)
        assert times_s is not None
        assert times_s.tolist() == expected
        assert times_s.dtype == np.float64
    assert read_step_times(run_file.path, [1, 3]) is None
    assert read_step_times(run_file.path, []) is None
    assert store.runs(MACHINE) == [run_file.path]


def test_step_times_are_kept_to_seven_digits(store: Store) -> None:
    run_file = store.create_run(MACHINE)
    run_file.append(row(), [0.0123456789])
    run_file.close()
    times_s = read_step_times(run_file.path, [1])
    assert times_s is not None
    assert times_s[0] == pytest.approx(0.0123456789, rel=1e-7)


def test_step_times_can_be_read_with_numpy_alone(store: Store) -> None:
    run_file = store.create_run(MACHINE)
    run_file.append(row(order=42), [0.5])
    run_file.close()
    with np.load(run_file.path.with_name("0001.steps.npz"), allow_pickle=False) as archive:
        assert archive.files == ["00042"]


def test_a_damaged_archive_gives_no_step_times_wherever_the_damage_is(store: Store) -> None:
    run_file = store.create_run(MACHINE)
    run_file.append(row(), [0.5, 0.25, 0.125])
    run_file.close()
    steps = run_file.path.with_name("0001.steps.npz")
    whole = steps.read_bytes()
    damaged = [whole[:end] for end in range(len(whole))]
    damaged += [whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :] for at in range(len(whole))]
    for data in damaged:
        steps.write_bytes(data)
        times_s = read_step_times(run_file.path, [1])
        assert times_s is None or times_s.tolist() == [0.5, 0.25, 0.125]


def test_something_else_in_place_of_the_archive_gives_no_step_times(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "0001.csv", row())
    steps = tmp_path / "0001.steps.npz"
    assert read_step_times(path, [1]) is None
    steps.write_text("no archive")
    assert read_step_times(path, [1]) is None
    with steps.open("wb") as file:
        np.save(file, np.zeros(3))
    assert read_step_times(path, [1]) is None
    steps.unlink()
    steps.mkdir()
    assert read_step_times(path, [1]) is None


def test_objects_are_never_unpickled(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "0001.csv", row())
    np.savez(tmp_path / "0001.steps.npz", **{"00001": np.array([{}], dtype=object)})
    assert read_step_times(path, [1]) is None


def test_step_times_that_cannot_be_kept_cost_a_warning_and_not_the_row(store: Store) -> None:
    run_file = store.create_run(MACHINE)
    run_file.path.with_name("0001.steps.npz").mkdir()
    with pytest.warns(StoreWarning, match=r"0001\.steps\.npz: raw step times are not saved: Is a"):
        run_file.append(row(), [0.5])
    run_file.close()
    assert read_run(run_file.path) == [row()]


def test_a_number_of_more_than_nine_digits_names_no_run(tmp_path: Path) -> None:
    accepted = tmp_path / "machine" / "accepted.csv"
    accepted.parent.mkdir()
    accepted.write_text(f"run\n{'7' * 5000}\n0041\n")
    accepted.with_name("1234567890.csv").touch()
    store = Store(tmp_path)
    run = store.create_run("machine")
    run.close()
    assert run.path.name == "0042.csv"
    accepted.write_text("run\n999999999\n")
    with pytest.raises(StoreError, match="at most 9 digits, the next would be 1000000000; remove"):
        store.create_run("machine")


def test_step_times_of_a_run_removed_by_hand_do_not_stay_for_the_next_of_its_number(
    store: Store,
) -> None:
    old = store.create_run(MACHINE)
    old.append(row(order=1), [9.0])
    old.append(row(order=2), [9.0])
    old.close()
    old.path.unlink()
    new = store.create_run(MACHINE)
    assert new.path == old.path
    new.append(row(order=1), [0.5])
    new.close()
    times_s = read_step_times(new.path, [1])
    assert times_s is not None
    assert times_s.tolist() == [0.5]
    assert read_step_times(new.path, [2]) is None


def test_what_stood_beside_a_run_removed_by_hand_is_of_no_later_run(store: Store) -> None:
    old = store.create_run(MACHINE).path
    old.unlink()
    for ending in (".layers.csv", ".log", ".verdicts.csv"):
        old.with_suffix(ending).touch()
    store.create_run(MACHINE).close()
    assert [path.name for path in old.parent.iterdir() if path.name.startswith("0001.")] == []


# Other readers


def as_read_elsewhere(name: str, record: Record) -> Any:
    """The value as it stands in the file: texts with their apostrophe."""
    value = getattr(record, name)
    return "'=1+1, or -1" if value == "=1+1, or -1" else value


def test_python_s_own_csv_reads_the_values(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "0007.csv", MEASURED_ROW, row())
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2
    for column in COLUMNS:
        expected = as_read_elsewhere(column.name, MEASURED_ROW)
        cell = rows[0][column.name]
        if column.type is bool:
            assert cell == ("" if expected is None else str(expected).lower())
        else:
            assert (column.type(cell) if cell else None) == expected


def test_pandas_reads_the_values(tmp_path: Path) -> None:
    import pandas

    path = write_rows(tmp_path / "0007.csv", MEASURED_ROW, row())
    frame = pandas.read_csv(path, dtype=dict.fromkeys(TEXT_COLUMNS, str))
    assert frame.shape == (2, len(COLUMNS))
    for column in COLUMNS:
        found, expected = frame[column.name][0], as_read_elsewhere(column.name, MEASURED_ROW)
        if expected is None:
            assert isinstance(found, float)
            assert math.isnan(found)
        elif column.type is float:  # pandas reads the last digit in haste
            assert found == pytest.approx(expected, rel=1e-15)
        else:
            assert found == expected


def test_duckdb_reads_the_values(tmp_path: Path) -> None:
    import duckdb

    path = write_rows(tmp_path / "0007.csv", MEASURED_ROW, row())
    types = ", ".join(f"'{name}': 'VARCHAR'" for name in TEXT_COLUMNS)
    with duckdb.connect() as connection:
        query = f"SELECT * FROM read_csv('{path}', header = true, types = {{{types}}})"
        found = connection.execute(query).fetchall()
    assert len(found) == 2
    for column, value in zip(COLUMNS, found[0], strict=True):
        assert value == as_read_elsewhere(column.name, MEASURED_ROW), column.name


def test_the_newest_run_is_none_where_no_other_one_is(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(StoreError, match=r"xeon-2: has no runs yet; `convmark run` makes one$"):
        store.find("latest", MACHINE)
    first = write_rows(tmp_path / MACHINE / "0001.csv", MEASURED_ROW)
    assert store.find("latest", MACHINE) == first
    with pytest.raises(
        StoreError, match=r"has no run but 0001, which is judged; `convmark run` makes one$"
    ):
        store.find("latest", MACHINE, but=first)
    write_rows(tmp_path / MACHINE / "0002.csv", MEASURED_ROW)
    assert store.find("latest", MACHINE, but=tmp_path / MACHINE / "0002.csv") == first
