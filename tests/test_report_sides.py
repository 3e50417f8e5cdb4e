"""What can be set side by side: which processes make a side, and what tells sides apart."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from report_rows import FAST, SLOW, keep_run, measured

from convmark.compare.comparability import Comparability
from convmark.report.rows import read_rows
from convmark.report.sides import _LEFT_OUT, FACTS, Side, Sides, newest_versions, sides_of
from convmark.results.code.manifest import Code, CodeFile, Place, write_codes


def sides(folder: Path) -> Sides:
    rows = read_rows([folder])
    return sides_of(rows.frame, rows.runs)


def fact(side: Side, name: str) -> str:
    return side.facts[FACTS.index(name)]


def run(machine: str, number: int, processes: int, **changes: Any) -> list[Any]:
    return [
        measured(machine, number, "lenet5", process, **changes)
        for process in range(1, processes + 1)
    ]


def test_every_fact_that_makes_rows_comparable_is_held_alike_or_left_out_by_name() -> None:
    known = {field.name for field in dataclasses.fields(Comparability)}
    assert known == ({*FACTS, *_LEFT_OUT} & known)
    assert not {*FACTS} & {*_LEFT_OUT}


def test_a_side_is_of_the_newest_run_of_the_same_facts_code_and_commit(tmp_path: Path) -> None:
    keep_run(tmp_path, run(SLOW, 1, 3, commit="a" * 40, tensorflow="2.21.0"))
    keep_run(tmp_path, run(SLOW, 2, 2, commit="a" * 40, tensorflow="2.21.0"))
    keep_run(tmp_path, run(SLOW, 3, 3, commit="b" * 40, tensorflow="2.21.0", numpy="9"))
    keep_run(tmp_path, run(FAST, 1, 3, commit="a" * 40, tensorflow="2.21.0", status="unsteady"))
    found = [
        (fact(side, "hardware"), side.run, len(side.times_s)) for side in sides(tmp_path).sides
    ]
    assert found == [
        (f"{FAST} cpu", "0001", 3),
        (f"{SLOW} cpu", "0002", 2),
        (f"{SLOW} cpu", "0003", 3),
    ]
    first, _, last = sides(tmp_path).sides
    assert (first.doubt, first.commit) == ("3 of 3 processes unsteady", "a" * 12)
    assert (fact(last, "numpy"), fact(last, "framework")) == ("9", "TensorFlow 2.21.0")


def test_a_side_is_of_the_rows_that_can_be_judged_where_there_are_any(tmp_path: Path) -> None:
    hot = measured(SLOW, 1, "lenet5", 4, step_s=9.0, not_judged="hot")
    keep_run(tmp_path, [*run(SLOW, 1, 3, step_s=2.0), hot])
    keep_run(tmp_path, run(FAST, 1, 3, step_s=1.0))
    keep_run(tmp_path, run(FAST, 2, 3, step_s=5.0, not_judged="card in use"))
    fast, slow = sorted(sides(tmp_path).sides, key=lambda side: side.times_s)
    without = "speed-up without 1 of 4 processes, not judged: hot"
    assert (slow.times_s, slow.doubt) == ((2.0,) * 3, without)
    assert (fast.run, fast.times_s) == ("0001", (1.0,) * 3)
    assert fast.doubt == "speed-up of earlier runs, as the newest is not judged: card in use"
    keep_run(tmp_path / "none", run(SLOW, 1, 3, not_judged="hot"))
    assert [side.doubt for side in sides(tmp_path / "none").sides] == ["not judged: hot"]


def test_files_are_the_same_under_other_versions_of_their_packages(tmp_path: Path) -> None:
    file = CodeFile(Place(".", "nets.py"), "f" * 64, 10)
    codes = [Code(files=(file,), packages={"keras": version}) for version in ("3.9", "3.10")]
    for number, code in enumerate(codes, 1):
        path = keep_run(tmp_path, run(SLOW, number, 3, code=code.hash, packages=code.packages_text))
        write_codes(path, {code.hash: code})
    first, last = sides(tmp_path).sides
    assert first.code != last.code
    assert first.files == last.files != ""


def test_files_of_a_code_are_known_from_any_run_that_kept_them(tmp_path: Path) -> None:
    file = CodeFile(Place(".", "nets.py"), "f" * 64, 10)
    code = Code(files=(file,), packages={"keras": "3.9"})
    rows = {"code": code.hash, "packages": code.packages_text}
    keep_run(tmp_path, run(SLOW, 1, 3, tensorflow="2.20.0", **rows))
    write_codes(keep_run(tmp_path, run(SLOW, 2, 3, tensorflow="2.21.0", **rows)), {code.hash: code})
    assert [side.files for side in sides(tmp_path).sides] == [code.files_hash] * 2


def test_a_page_keeps_the_newest_runs_of_each_case_and_counts_the_others(
    tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr("convmark.report.sides.MOST_SIDES", 2)
    for number in range(1, 6):
        keep_run(tmp_path, run(SLOW, number, 3, commit=f"{number}" * 40, tensorflow="2.21.0"))
    found = sides(tmp_path)
    assert ([side.run for side in found.sides], found.kept, found.left_out) == (
        ["0004", "0005"],
        2,
        3,
    )


def test_runs_that_differ_in_what_comes_with_the_version_are_not_taken_together(
    tmp_path: Path,
) -> None:
    for number, version, numpy, step_s in (
        *((1, "2.20.0", "1.26", 9.0), (2, "2.20.0", "1.26", 9.0), (3, "2.20.0", "2.1", 2.0)),
        (4, "2.21.0", "2.1", 1.0),
    ):
        same = {"code": "c" * 12, "commit": "a" * 40, "step_s": step_s}
        keep_run(tmp_path, run(SLOW, number, 3, tensorflow=version, numpy=numpy, **same))
    found = newest_versions(sides(tmp_path).sides)
    assert found
    assert found.mean.value == pytest.approx(2.0)
