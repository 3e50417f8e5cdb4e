"""Rows of many files as one frame: the same values as the store reads, the same refusals."""

from __future__ import annotations

import dataclasses
import math
import warnings
from pathlib import Path

import pytest
from report_rows import FAST, SLOW, keep_run, measured, suite

from convmark.core.errors import OptionError, StoreError
from convmark.core.runtimes import DEFAULT_RUNTIME
from convmark.report.build import build
from convmark.report.comparison import Comparison, of_machines
from convmark.report.rows import read_rows
from convmark.results.reading import HEADER, StoreWarning, read_run
from convmark.results.record import COLUMNS
from convmark.results.schema import SCHEMA_VERSION
from convmark.results.store import labelled, oldest_first


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return tmp_path / "results"


def test_every_cell_is_what_the_store_reads(results: Path) -> None:
    odd = {"error": "=1+1, 'quoted'\nand more", "cpu": "'+quoted", "dirty": None, "gpu": None}
    rows = [measured(SLOW, 1, "lenet5", 1), measured(SLOW, 1, "vgg16", 2, loss=-1.5e-7, **odd)]
    path = keep_run(results, rows)
    frame = read_rows([results]).frame
    records = read_run(path)
    assert len(frame) == len(records) == 2
    for column in COLUMNS:
        for found, record in zip(frame[column.name].tolist(), records, strict=True):
            expected = getattr(record, column.name)
            if column.name == "runtime":  # the report fills it in, for all earlier rows
                expected = expected or DEFAULT_RUNTIME
            absent = found is None or (isinstance(found, float) and math.isnan(found))
            assert (None if absent else found) == expected, column.name
    assert frame["case"].tolist() == [record.case.name for record in records]
    assert frame["hardware"].tolist() == [f"{SLOW} cpu"] * 2


def test_cards_of_one_machine_that_were_the_same_device_are_two_hardwares(results: Path) -> None:
    """As CUDA_VISIBLE_DEVICES makes them, one after the other."""
    cards = (SLOW, "A100"), (SLOW, "H100"), (SLOW, None), (FAST, "A100")
    for run, (machine, card) in enumerate(cards, 1):
        keep_run(results, [measured(machine, run, "lenet5", 1, device="gpu:0", gpu=card)])
    expected = [f"{SLOW} A100 gpu:0", f"{SLOW} H100 gpu:0", f"{SLOW} gpu:0", f"{FAST} gpu:0"]
    for kept in ((), ("run",)):
        frame = read_rows([results], kept).frame
        found = dict(zip(frame["run"], frame["hardware"], strict=True))
        assert [found[f"000{run}"] for run in (1, 2, 3, 4)] == expected
    with pytest.raises(OptionError, match=f"devices; give '{expected[0]}' or '{expected[1]}'"):
        of_machines(Comparison(reference=SLOW), {}, frame)


def test_a_reference_may_leave_out_the_card_while_the_device_was_one_and_names_it_then(
    results: Path,
) -> None:
    def reference(text: str) -> str:
        frame = read_rows([results]).frame
        return of_machines(Comparison(reference=text), {"fingerprint": SLOW}, frame).reference

    a100 = {"device": "gpu:0", "gpu": "A100"}
    keep_run(results, [measured(SLOW, 1, "lenet5", number, **a100) for number in (1, 2)])
    assert reference(f"{SLOW} gpu:0") == reference("fingerprint gpu:0") == f"{SLOW} gpu:0"
    keep_run(results, [measured(SLOW, 2, "lenet5", 1, device="gpu:0", gpu="H100")])
    both = f"'{SLOW} A100 gpu:0' or '{SLOW} H100 gpu:0'"
    with pytest.raises(OptionError, match=f"'{SLOW} gpu:0' was several cards; give {both}"):
        reference(f"{SLOW} gpu:0")
    assert reference(f"{SLOW} H100") == reference("fingerprint H100 gpu:0") == f"{SLOW} H100 gpu:0"


def test_folders_of_several_machines_and_files_are_read_together(
    results: Path, tmp_path: Path
) -> None:
    keep_run(results, suite(SLOW, 1))
    keep_run(tmp_path / "other", suite(FAST, 1))
    file = keep_run(tmp_path / "third", suite("mac-8", 1)).rename(tmp_path / "mac.csv")
    rows = read_rows([results, tmp_path / "other" / FAST, file])
    assert sorted(set(rows.frame["machine"])) == [FAST, "mac-8", SLOW]
    assert [run.label for run in rows.runs] == ["0001", "0001", "mac"]


def test_verdicts_and_other_tables_beside_the_runs_are_no_runs(results: Path) -> None:
    path = keep_run(results, suite(SLOW, 1))
    (path.parent / "verdicts.csv").write_text("run\n")
    assert len(read_rows([results]).runs) == 1


def test_a_file_given_twice_counts_once(results: Path) -> None:
    path = keep_run(results, suite(SLOW, 1))
    assert len(read_rows([results, path, results / SLOW]).runs) == 1


def test_a_copy_that_was_made_while_the_run_went_on_counts_once_too(
    results: Path, tmp_path: Path
) -> None:
    whole = keep_run(results, suite(SLOW, 1))
    part = tmp_path / "copy" / SLOW / whole.name
    part.parent.mkdir(parents=True)
    part.write_bytes(b"".join(whole.read_bytes().splitlines(keepends=True)[:-1]))
    for places in ([results, tmp_path / "copy"], [tmp_path / "copy", results]):
        with pytest.warns(StoreWarning, match=r"copy/xeon-2/0001.csv: is an earlier copy of .*"):
            rows = read_rows(places)
        assert [run.path for run in rows.runs] == [whole]


def test_a_copy_in_another_folder_counts_once_and_is_told(results: Path, tmp_path: Path) -> None:
    keep_run(results, suite(SLOW, 1))
    keep_run(tmp_path / "copy", suite(SLOW, 1))
    with pytest.warns(StoreWarning, match=r"copy/xeon-2/0001.csv: is a copy of .*left out"):
        assert len(read_rows([results, tmp_path / "copy"]).runs) == 1


def test_runs_of_one_name_on_one_machine_are_told_apart(results: Path, tmp_path: Path) -> None:
    keep_run(results, suite(SLOW, 1))
    other = [measured(SLOW, 1, "lenet5", number, step_s=0.5) for number in (1, 2)]
    keep_run(tmp_path / "branch", other)
    labels = [run.label for run in read_rows([results, tmp_path / "branch"]).runs]
    assert labels == ["results/0001", "branch/0001"]
    keep_run(results, suite(FAST, 2))
    labels = [run.label for run in read_rows([results, tmp_path / "branch"]).runs]
    assert all("/" in label for label in labels)


def test_runs_are_named_with_as_many_folders_as_tell_them_apart(tmp_path: Path) -> None:
    folders = [tmp_path / name / "results" for name in ("alice", "bob")]
    for number, folder in enumerate(folders, 1):
        keep_run(folder, [measured(SLOW, 1, "lenet5", n, step_s=number) for n in (1, 2)])
    labels = [run.label for run in read_rows(folders).runs]
    assert labels == ["alice/results/0001", "bob/results/0001"]
    machines = [tmp_path / "results" / name / "0001.csv" for name in ("one", "two")]
    assert [run.label for run in labelled(machines, ["same", "same"])] == [
        "one/0001.csv",
        "two/0001.csv",
    ]


def test_a_row_without_a_machine_is_of_its_folder(results: Path) -> None:
    rows = [measured(SLOW, 1, "lenet5", number) for number in (1, 2)]
    keep_run(results, [dataclasses.replace(row, machine=None) for row in rows])
    assert set(read_rows([results]).frame["machine"]) == {"None"}


def test_a_torn_last_line_is_left_out_and_told(results: Path) -> None:
    path = keep_run(results, suite(SLOW, 1))
    whole = len(read_run(path))
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.warns(StoreWarning, match=rf"0001.csv:{whole + 1}: a torn last line"):
        assert len(read_rows([results]).frame) == whole - 1


def test_a_run_without_rows_is_told_and_the_others_are_read(results: Path) -> None:
    path = keep_run(results, suite(SLOW, 2))
    (path.parent / "0001.csv").write_text(",".join(HEADER) + "\n")
    with pytest.warns(StoreWarning, match="0001.csv:1: has no rows, skipped"):
        assert [run.label for run in read_rows([results]).runs] == ["0002"]


def test_a_single_row_is_read_and_told(results: Path) -> None:
    keep_run(results, [measured(SLOW, 1, "lenet5", 1)])
    with pytest.warns(StoreWarning, match=r"0001.csv:2: is the only row, .* try --processes 3"):
        assert len(read_rows([results]).frame) == 1


# Which run is the newest


def test_in_a_folder_a_higher_number_is_newer_though_the_clock_was_set_back() -> None:
    days = {"a/0001": "03-05", "a/0003": "02-01", "a/0002": "03-07", "b/0001": "03-06",
            "b/0002": "03-08"}  # fmt: skip
    runs = [(Path(f"{name}.csv"), f"2026-{day}T00:00:00+00:00") for name, day in days.items()]
    found = [str(runs[place][0].with_suffix("")) for place in oldest_first(runs)]
    assert found == ["a/0001", "b/0001", "a/0002", "a/0003", "b/0002"]


def test_a_file_of_another_name_has_its_place_by_the_clock_alone() -> None:
    days = {"0002": "03-07", "nightly": "03-09", "first": "03-01", "0001": "03-05"}
    runs = [(Path(f"{name}.csv"), f"2026-{day}T00:00:00+00:00") for name, day in days.items()]
    found = [runs[place][0].stem for place in oldest_first(runs)]
    assert found == ["first", "0001", "0002", "nightly"]


def test_a_report_takes_the_run_of_the_highest_number_for_the_newest_everywhere(
    results: Path,
) -> None:
    for run, day, step_s in ((1, "06-01", 1.0), (2, "05-01", 2.0)):
        for machine in (SLOW, FAST):
            rows = [
                measured(machine, run, "lenet5", number, step_s=step_s,
                         started=f"2026-{day}T00:00:0{number}.000+00:00")
                for number in (1, 2, 3)
            ]  # fmt: skip
            keep_run(results, rows)
    tables = {table.key: table for table in build([results]).tables}
    assert tables["architectures"].column("run") == ["0002", "0002"]
    assert tables["architectures"].column("step_time_p50_s") == [2, 2]
    assert tables["hardware"].column("step_time_p50_s")[1:] == [2, 2]
    assert tables["history"].column("run") == ["0001", "0002"] * 2
    assert not tables["troubles"].rows


def broken(path: Path, old: str, new: str, *, line: int) -> None:
    lines = path.read_text().split("\n")
    assert old in lines[line - 1]
    lines[line - 1] = lines[line - 1].replace(old, new, 1)
    path.write_text("\n".join(lines))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (f"{SCHEMA_VERSION},0002,", "9,0002,", f"must be of schema 2 to {SCHEMA_VERSION}, got '9'"),
        (",train,", ",", "cells, has"),
        (",train,", ",train,extra,", "cells, has"),
        (",32,", ",many,", "column 'batch_size' must be of type int, got 'many'"),
        (",32,", ",,", "column 'batch_size' must not be empty"),
        (",ok,", ",fine,", "status must be one of"),
        (",61706,", ",nan,", "column 'parameters' must be of type int"),
    ],
)
def test_what_does_not_fit_the_schema_is_refused_by_file_and_line(
    results: Path, old: str, new: str, message: str
) -> None:
    keep_run(results, suite(SLOW, 1))
    path = keep_run(results, suite(SLOW, 2))
    broken(path, old, new, line=3)
    with pytest.raises(StoreError) as refused:
        read_rows([results])
    assert str(refused.value).startswith(f"{path}:3: ")
    assert message in str(refused.value)


def test_a_number_that_is_not_finite_is_refused(results: Path) -> None:
    path = keep_run(results, suite(SLOW, 1))
    text = path.read_text()
    path.write_text(text.replace(str(read_run(path)[0].throughput_samples_per_s), "inf"))
    with pytest.raises(StoreError, match=r"0001.csv:2: column 'throughput_samples_per_s' must be"):
        read_rows([results])


def test_nothing_to_read_is_one_line(results: Path) -> None:
    results.mkdir()
    with pytest.raises(StoreError, match="results: has no runs yet; `convmark run` makes one"):
        read_rows([results])
    with pytest.raises(StoreError, match="nowhere: no such file or folder"):
        read_rows([results / "nowhere"])
    (results / "0001.csv").write_text(",".join(HEADER) + "\n")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with pytest.raises(StoreError, match=r"0001.csv:1: must have the rows of a run"):
            read_rows([results])
    assert not said  # the refusal is the one line
    (results / "0001.csv").write_text("")
    with pytest.raises(StoreError, match=r"0001.csv:1: must hold a run's rows, it is empty"):
        read_rows([results])
    (results / "0001.csv").write_text("other,columns\n1,2\n")
    with pytest.raises(StoreError, match=r"0001.csv:1: must have the columns of schema"):
        read_rows([results])
