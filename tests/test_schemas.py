"""Files of an earlier schema, as the code of their time wrote them.

data/schema_2.csv: `convmark run --models conv_layer --processes 2 --time-budget 0.2`, run by commit
7ec0a39b, which wrote schema 2; the kernel's version in the column `os` was made plain.
"""

from __future__ import annotations

import csv
import dataclasses
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
from histories import comparability

from convmark.cli import main
from convmark.compare.comparability import difference
from convmark.compare.history import accepted_history
from convmark.core.errors import ConvmarkError
from convmark.report.rows import read_rows
from convmark.results.columnar import _from_records, _typed
from convmark.results.reading import HEADER, read_head, read_run, read_schema
from convmark.results.record import COLUMNS, Record, to_cells
from convmark.results.schema import SCHEMA_VERSION
from convmark.results.store import Store
from convmark.session.resume import open_interrupted

DATA = Path(__file__).parent / "data"
SCHEMA_2 = DATA / "schema_2.csv"
LATER = [column.name for column in COLUMNS if column.since > 2]
MACHINE = "amd-epyc-2cpu-24gib-b1e42e6f"
TRAIN = "conv_layer-train-cpu-b32-float32"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A results folder with a run of schema 2."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CONVMARK_CACHE", str(tmp_path / "cache"))
    folder = Path("results") / MACHINE
    folder.mkdir(parents=True)
    shutil.copy(SCHEMA_2, folder / "0001.csv")
    return Store(Path("results"))


def as_today(store: Store, run: str, **changes: object) -> list[Record]:
    """Write the same figures as a run of today's schema; return its rows."""
    rows = [
        dataclasses.replace(row, run=run, schema=SCHEMA_VERSION, **changes)
        for row in read_run(SCHEMA_2)
    ]
    path = store.folder / MACHINE / f"{run}.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([HEADER, *map(to_cells, rows)])
    return rows


def test_the_columns_of_a_schema_are_those_that_its_files_have() -> None:
    with SCHEMA_2.open(encoding="utf-8", newline="") as file:
        header = next(csv.reader(file))
    assert header == [column.name for column in COLUMNS if column.since <= 2]
    assert {"code", "packages", "state", "asked", "unsteady", "recipe"} <= set(LATER)


def test_an_earlier_file_reads_and_what_it_lacks_is_absent() -> None:
    rows = read_run(SCHEMA_2)
    with SCHEMA_2.open(encoding="utf-8", newline="") as file:
        written = list(csv.DictReader(file))
    assert len(rows) == 6
    for row, cells in zip(rows, written, strict=True):
        found = dict(zip(HEADER, to_cells(row), strict=True))
        assert all(found[name] == "" for name in LATER)
        lifted = {"schema": str(SCHEMA_VERSION), "measurement_version": "1"}
        assert {name: found[name] for name in cells} == {**cells, **lifted}
    assert read_head(SCHEMA_2) == rows[0]
    assert read_schema(SCHEMA_2) == 2


def test_an_earlier_file_is_read_by_columns_as_it_is_row_by_row() -> None:
    found, by_rows = _typed(SCHEMA_2.read_bytes(), SCHEMA_2), _from_records(SCHEMA_2)
    assert found is not None
    assert found.keys() == by_rows.keys()
    for name, values in found.items():
        np.testing.assert_array_equal(values, np.array(by_rows[name], values.dtype), name)


def test_a_file_of_a_schema_that_no_release_wrote_is_refused_with_what_to_do(
    tmp_path: Path,
) -> None:
    path = tmp_path / "0001.csv"
    path.write_text("schema,run,started\n1,0001,x\n", encoding="utf-8")
    with pytest.raises(ConvmarkError) as refused:
        read_run(path)
    assert str(refused.value) == (
        f"{path}:2: must be of schema 2 to {SCHEMA_VERSION}, got '1'; measure it again"
    )


def test_rows_that_name_the_measuring_code_by_its_hash_go_on_as_those_of_its_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CONVMARK_CACHE", str(tmp_path / "cache"))
    store = Store(Path("results"))
    folder = store.folder / MACHINE
    folder.mkdir(parents=True)
    shutil.copy(SCHEMA_2, folder / "0001.csv")
    assert "6eb0880a51a8" in SCHEMA_2.read_text(encoding="utf-8")
    now = [
        dataclasses.replace(row, run="0002", measurement_version="1") for row in read_run(SCHEMA_2)
    ]
    with (folder / "0002.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([HEADER, *map(to_cells, now)])
    for then, row in zip(read_run(folder / "0001.csv"), now, strict=True):
        assert difference(comparability(row), comparability(then)) == ""
    monkeypatch.setattr("convmark.compare.index.SETTLED_S", 0)
    for _ in range(2):  # from the files, and from the index
        found = accepted_history(store, MACHINE, now)
        assert {name: case.difference for name, case in found.cases.items()} == {
            row.case.name: "" for row in now
        }
    assert main(["history", TRAIN, "--machine", MACHINE]) == 0
    assert "0001" in capsys.readouterr().out


def test_a_report_has_the_rows_of_both_schemas(store: Store) -> None:
    as_today(store, "0002")
    frame = read_rows([store.folder]).frame
    for name in ("case", "step_time_p50_s", "throughput_samples_per_s", "replicas"):
        first, second = (frame.loc[frame["run"] == run, name].tolist() for run in ("0001", "0002"))
        assert first == second, name
    assert main(["report", "--format", "csv"]) == 0


def test_a_run_of_today_is_judged_against_one_of_schema_2(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = as_today(store, "0002")
    monkeypatch.setattr("convmark.compare.index.SETTLED_S", 0)
    for _ in range(2):  # from the files, and from the index
        found = accepted_history(store, MACHINE, now)
        runs = {name: [rows[0].run for rows in case.runs] for name, case in found.cases.items()}
        assert runs == {row.case.name: ["0001"] for row in now}


def test_other_measuring_code_is_not_compared_and_both_are_quoted(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    as_today(store, "0002", measurement_version="0123456789ab")
    assert main(["compare", "0001", "0002"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "measurement version was 1, is 0123456789ab" in shown


def test_a_history_lists_runs_of_both_schemas(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    as_today(store, "0002")
    assert main(["history", TRAIN, "--machine", MACHINE]) == 0
    shown = capsys.readouterr().out
    assert "0001" in shown
    assert "0002" in shown


def test_a_run_of_schema_2_does_not_go_on_and_stays_as_it_is(store: Store) -> None:
    path = store.runs(MACHINE)[0]
    before = path.read_bytes()
    with pytest.raises(ConvmarkError) as refused:
        open_interrupted(store, MACHINE)
    assert str(refused.value) == (
        f"--resume: {path}: the schema was 2, is {SCHEMA_VERSION}; resume a run with its own "
        "options, or start a new run without --resume"
    )
    assert path.read_bytes() == before


def test_a_file_that_says_another_schema_than_its_columns_are_of_is_refused(store: Store) -> None:
    path = store.runs(MACHINE)[0]
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text(lines[0] + "3" + lines[1][1:], encoding="utf-8")
    with pytest.raises(ConvmarkError) as refused:
        read_run(path)
    assert (
        str(refused.value) == f"{path}:2: must be of schema 2, whose columns the file has, got '3'"
    )


def test_a_column_more_or_less_is_told_by_the_schema_that_the_rows_are_of(store: Store) -> None:
    path = store.runs(MACHINE)[0]
    header, *rows = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join([f"{header},tomorrow", *(f"{row},x" for row in rows), ""]))
    with pytest.raises(ConvmarkError, match="columns of schema 2: column 'tomorrow' is unknown"):
        read_run(path)
    path.write_text("\n".join([header.replace("dirty,", ""), *rows, ""]))
    with pytest.raises(ConvmarkError, match="columns of schema 2: column 'dirty' is missing"):
        read_run(path)


def test_rows_of_both_schemas_are_one_history_of_a_case(store: Store) -> None:
    """The axes of a case are found in a file though its columns stand elsewhere."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        now = [row for row in as_today(store, "0002") if row.case.name == TRAIN]
        found = accepted_history(store, MACHINE, now)
    assert found.cases[TRAIN].anchor is not None
    assert {row.case.name for row in found.absent} == {
        row.case.name for row in read_run(SCHEMA_2)
    } - {TRAIN}
