"""The verdicts of a machine on disk: whole whoever writes at once, and what reading refuses."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from convmark.errors import StoreError
from convmark.judging.judgement import Judgement
from convmark.judging.verdicts_file import HEADER, append_verdicts, read_verdicts, verdicts_path
from convmark.store import Store


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
        "note": "5 sessions beside 1234567aaaaa",
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
    unconfirmed=True,
    smallest_visible=None,
    baseline_runs=(),
    note="",
    fails=False,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return verdicts_path(Store(tmp_path / "results"), "xeon-2")


def test_what_is_appended_is_read_back_in_order(path: Path) -> None:
    assert path.parts[-3:] == ("results", "xeon-2", "verdicts.csv")
    first = [judgement(), ABSENT]
    append_verdicts(path, first)
    append_verdicts(path, [])
    append_verdicts(path, [judgement(run="0008", note='a, b\nc "d"')])
    found = read_verdicts(path)
    assert found[:2] == first
    assert found[2].note == 'a, b c "d"'  # a row is one line
    assert path.read_text().count("run,case,model") == 1


def test_nothing_is_made_where_nothing_is_to_be_said(path: Path) -> None:
    append_verdicts(path, [])
    assert not path.exists()
    assert read_verdicts(path) == []


def test_cells_follow_the_rules_of_a_runs_file(path: Path) -> None:
    append_verdicts(path, [judgement(note="=1+1"), ABSENT])
    with path.open(newline="") as file:
        first, second = csv.DictReader(file)
    assert list(first) == HEADER
    assert (first["note"], first["fails"], first["unconfirmed"]) == ("'=1+1", "true", "false")
    assert (first["baseline"], first["baseline_runs"]) == ("0.01", "0001 0003")
    assert (second["baseline"], second["batch_size"], second["note"]) == ("", "", "")
    assert read_verdicts(path)[0].note == "=1+1"


def test_one_case_is_read_alone(path: Path) -> None:
    append_verdicts(path, [judgement(), ABSENT, judgement(run="0008")])
    found = read_verdicts(path, "lenet5-train-cpu-b32-float32")
    assert [one.run for one in found] == ["0007", "0008"]
    assert read_verdicts(path, "vgg16") == []


APPEND = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from test_verdicts_file import judgement
from convmark.judging.verdicts_file import append_verdicts
for number in range(20):
    rows = [judgement(run=f"{number:04d}", note=sys.argv[2] * 50) for _ in range(20)]
    append_verdicts(Path(sys.argv[1]), rows)
"""


def test_eight_processes_at_once_leave_a_whole_file(path: Path) -> None:
    here = str(Path(__file__).parent)
    writers = [
        subprocess.Popen([sys.executable, "-c", APPEND, str(path), letter, here])
        for letter in "abcdefgh"
    ]
    assert [writer.wait(timeout=120) for writer in writers] == [0] * 8
    found = read_verdicts(path)
    assert len(found) == 8 * 20 * 20
    notes = [one.note for one in found]
    for start in range(0, len(notes), 20):  # what was appended together stands together
        assert len(set(notes[start : start + 20])) == 1
    assert {note[0]: len(note) for note in notes} == dict.fromkeys("abcdefgh", 50)


def test_a_torn_last_line_is_left_out_and_then_cut_off(path: Path) -> None:
    append_verdicts(path, [judgement()])
    with path.open("a") as file:
        file.write("0008,lenet5-tr")
    assert read_verdicts(path) == [judgement()]
    append_verdicts(path, [ABSENT])
    assert read_verdicts(path) == [judgement(), ABSENT]


def test_a_torn_header_is_written_anew(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.write_text("run,ca")
    append_verdicts(path, [ABSENT])
    assert read_verdicts(path) == [ABSENT]


def refusal(path: Path) -> str:
    with pytest.raises(StoreError) as refused:
        read_verdicts(path)
    message = str(refused.value)
    assert message.startswith(str(path))
    assert len(message.splitlines()) == 1
    return message.removeprefix(str(path))


BAD_LINES = [
    ("0008,x", ":3: must have 22 cells, has 2"),
    ("," * 22, ":3: must have 22 cells, has 23"),
    ("," * 21, ":3: column 'run': must not be empty"),
]


@pytest.mark.parametrize(("line", "message"), BAD_LINES)
def test_what_does_not_fit_is_refused_by_file_and_line(path: Path, line: str, message: str) -> None:
    append_verdicts(path, [judgement()])
    path.write_text(path.read_text() + line + "\n")
    assert refusal(path).startswith(message)


def test_a_bad_value_or_verdict_is_refused(path: Path) -> None:
    append_verdicts(path, [judgement()])
    whole = path.read_text()
    path.write_text(whole.replace("regressed", "slower"))
    assert ":2: " in refusal(path)
    path.write_text(whole.replace(",32,", ",many,"))
    assert ":2: column 'batch_size'" in refusal(path)


def test_another_header_is_refused_and_nothing_appended_to_it(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.write_text("run,verdict\n0001,fine\n")
    assert refusal(path).startswith(":1: must have the columns run, case")
    with pytest.raises(StoreError, match="must have the columns"):
        append_verdicts(path, [judgement()])
    assert path.read_text() == "run,verdict\n0001,fine\n"


def test_a_file_that_cannot_be_written_is_one_line(path: Path) -> None:
    path.mkdir(parents=True)
    with pytest.raises(StoreError, match=r"verdicts\.csv: cannot be written"):
        append_verdicts(path, [judgement()])
    assert "cannot be read" in refusal(path)
