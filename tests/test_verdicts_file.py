"""The verdicts of a run beside its file, and those of all runs that earlier versions appended."""

from __future__ import annotations

import csv
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from convmark.compare.files import (
    keep_verdicts,
    read_step_time_verdicts,
    read_verdicts,
    verdicts_path,
)
from convmark.compare.judgement import Judgement
from convmark.core.errors import StoreError


def judgement(**changes: Any) -> Judgement:
    fields: dict[str, Any] = {
        "run": "0007",
        "case": "lenet5-train-cpu-b32-float32",
        "model": "lenet5",
        "task": "train",
        "device": "cpu",
        "batch_size": 32,
        "precision": "float32",
        "jit": "off",
        "threads": "default",
        "metric": "step_time",
        "unit": "s",
        "baseline": 0.010,
        "value": 0.0112,
        "change": 0.12,
        "low": 0.098,
        "high": 0.144,
        "verdict": "regressed",
        "smallest_visible": 0.031,
        "baseline_runs": ("0001", "0003"),
        "note": "5 sessions against 1234567aaaaa",
        "fails": True,
    }
    return Judgement(**{**fields, **changes})


ABSENT = judgement(
    case="machine-cpu-large",
    model="machine",
    task="",
    batch_size=None,
    precision="",
    jit="",
    unit="",
    baseline=None,
    value=None,
    change=None,
    low=None,
    high=None,
    verdict="inconclusive",
    smallest_visible=None,
    baseline_runs=(),
    note="",
    fails=False,
)


LENET = "lenet5-train-cpu-b32-float32"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return tmp_path / "0007.csv"


def test_what_was_judged_last_of_a_run_takes_the_place_of_what_was_judged_before(
    run: Path,
) -> None:
    keep_verdicts(run, [judgement(), judgement(metric="sizes", verdict="changed"), ABSENT])
    keep_verdicts(run, [judgement(verdict="unchanged", fails=False), ABSENT])
    assert read_verdicts(run) == [judgement(verdict="unchanged", fails=False), ABSENT]
    assert next(read_step_time_verdicts(verdicts_path(run))) == (LENET, "0007", "unchanged")
    assert read_verdicts(run.with_name("0008.csv")) == []


def test_each_column_is_a_field_and_a_list_is_parted_by_spaces(run: Path) -> None:
    keep_verdicts(run, [judgement(note="=1+1"), ABSENT])
    with verdicts_path(run).open(newline="") as file:
        first, second = csv.DictReader(file)
    assert list(first) == [field.name for field in fields(Judgement)]
    assert (first["note"], first["fails"]) == ("'=1+1", "true")
    assert (first["baseline"], first["baseline_runs"]) == ("0.01", "0001 0003")
    assert (second["baseline"], second["batch_size"], second["note"]) == ("", "", "")
    assert read_verdicts(run)[0].note == "=1+1"


OLD = f"""\
run,case,model,task,device,batch_size,precision,jit,threads,metric,unit,baseline,value,change,low,\
high,verdict,unconfirmed,smallest_visible,baseline_runs,note,fails
0006,{LENET},lenet5,train,cpu,32,float32,off,default,step_time,s,0.01,0.02,1.0,,,regressed,false,,\
0001,,true
0007,{LENET},lenet5,train,cpu,32,float32,off,default,step_time,s,0.01,0.01,0.0,,,unchanged,false,,\
0001,,false
0007,{LENET},lenet5,train,cpu,32,float32,off,default,step_time,s,0.01,0.02,1.0,,,regressed,true,,\
0001 0003,by far,true
"""


def test_the_file_of_all_runs_from_before_is_read_where_a_run_has_none_of_its_own(
    run: Path,
) -> None:
    path = run.with_name("verdicts.csv")
    path.write_text(OLD)
    (found,) = read_verdicts(run)
    assert (found.run, found.verdict, found.fails) == ("0007", "inconclusive", False)
    assert found.note == "regressed by its history alone; by far"
    assert found.baseline_runs == ("0001", "0003")
    (other,) = read_verdicts(run.with_name("0006.csv"))
    assert (other.verdict, other.fails) == ("regressed", True)
    words = [(said, verdict) for _, said, verdict in read_step_time_verdicts(path)]
    assert words == [("0006", "regressed"), ("0007", "unchanged"), ("0007", "inconclusive")]
    keep_verdicts(run, [judgement()])
    assert read_verdicts(run) == [judgement()]


def test_a_file_from_before_a_verdict_named_its_baseline_is_read(run: Path) -> None:
    keep_verdicts(run, [judgement(against="1234567aaaaa"), ABSENT])
    with verdicts_path(run).open(newline="") as file:
        rows = [cells[:-2] for cells in csv.reader(file)]
    with verdicts_path(run).open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
    assert read_verdicts(run) == [judgement(), ABSENT]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("regressed", "slower", ":2: lenet5-train-cpu-b32-float32: verdict must be one of"),
        (",32,", ",many,", ":2: column 'batch_size' must be of type int"),
        ("regressed", "unchanged", ":2: lenet5-train-cpu-b32-float32: what is unchanged must not"),
    ],
)
def test_a_bad_value_is_refused_by_file_and_line(
    run: Path, old: str, new: str, message: str
) -> None:
    keep_verdicts(run, [judgement()])
    path = verdicts_path(run)
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(StoreError) as refused:
        read_verdicts(run)
    assert str(refused.value).startswith(f"{path}{message}")


def test_a_verdict_that_is_cut_off_is_no_verdict_less(run: Path) -> None:
    """The file is written at once: a gate would pass by the verdict that it has lost."""
    keep_verdicts(run, [ABSENT, judgement()])
    path = verdicts_path(run)
    path.write_bytes(path.read_bytes()[:-20])
    said = rf"{path.name}:3: must be a whole line, but the file is cut off"
    with pytest.raises(StoreError, match=said):
        read_verdicts(run)
    with pytest.raises(StoreError, match=said):
        list(read_step_time_verdicts(path))
