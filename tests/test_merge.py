"""`convmark merge`: parts of a plan become one run again; doubles are refused, gaps are named."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
from pathlib import Path

import fake_worker
import pytest

from convmark.cli import main
from convmark.compare import sessions_file
from convmark.compare.sessions_file import KeptSession
from convmark.results.code.manifest import (
    HERE,
    Code,
    CodeFile,
    Place,
    code_path,
    lay_out,
    read_codes,
)
from convmark.results.code.of_run import KeptCodes
from convmark.results.reading import read_run
from convmark.results.record import Record
from convmark.results.run_file import RunFile
from convmark.results.store import read_step_times, run_files
from convmark.session.fleet.part import part_path, read_part
from convmark.session.learning import EPOCHS, TABLE

SMALL = ("--models", "lenet5,mini_resnet", "--processes", "2")


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("convmark.interpreter.Interpreter", fake_worker.FakeInterpreter)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def parts(fake: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Three shards in a folder each."""
    for number in (1, 2, 3):
        measure(number)
    capsys.readouterr()
    return ["part1", "part2", "part3"]


def measure(number: int, *more: str, count: int = 3) -> None:
    asked = ["--shard", f"{number}/{count}", "--results", f"part{number}", *SMALL, *more]
    assert main(["run", *asked]) == 0


def run_of(folder: str) -> Path:
    (path,) = Path(folder).glob("*/0001.csv")
    return path


def rows(folder: str) -> list[Record]:
    return read_run(run_of(folder))


def key(record: Record) -> tuple[str, int]:
    return record.case.name, record.process


def test_the_parts_of_a_plan_become_one_run(
    parts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["merge", *parts, "--results", "all"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    found = rows("all")
    assert printed.out == f"{len(found)} rows of 3 runs in {run_of('all')}\n"
    assert sorted(map(key, found)) == sorted(key(row) for part in parts for row in rows(part))
    assert [row.order for row in found] == list(range(1, len(found) + 1))
    assert {row.run for row in found} == {"0001"}
    joined = read_part(run_of("all"))
    assert joined is not None
    assert joined.numbers == (1, 2, 3)


def test_the_rows_are_those_that_one_run_would_have_had_in_its_order(parts: list[str]) -> None:
    assert main(["run", "--results", "whole", *SMALL]) == 0
    assert main(["merge", *parts, "--results", "all"]) == 0
    assert list(map(key, rows("all"))) == list(map(key, rows("whole")))


def test_the_raw_step_times_come_along(parts: list[str]) -> None:
    assert main(["merge", *parts, "--results", "all"]) == 0
    before = {key(row): (run_of(part), row.order) for part in parts for row in rows(part)}
    for row in rows("all"):
        path, order = before[key(row)]
        old, new = read_step_times(path, [order]), read_step_times(run_of("all"), [row.order])
        assert old is not None
        assert new is not None
        assert old.tolist() == new.tolist()


def test_a_missing_shard_is_named_and_fails(
    parts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree("part2")
    assert main(["merge", "part1", "part3", "--results", "all"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("convmark merge: shard 2/3: all ")
    assert " processes missing: " in line
    assert len(rows("all")) == len(rows("part1")) + len(rows("part3"))


def test_what_an_interrupted_shard_lacks_is_named(
    parts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    path = run_of("part1")
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-1]))
    lost = rows("part1")
    capsys.readouterr()
    assert main(["merge", *parts, "--results", "all"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"convmark merge: shard 1/3: 1 of {len(lost) + 1} processes missing: ")
    assert line.endswith(" #2")


def test_the_rest_can_be_joined_with_what_was_joined_before(
    parts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["merge", "part1", "part3", "--results", "some"]) == 1
    assert main(["merge", "some", "part2", "--results", "all"]) == 0
    assert len(rows("all")) == sum(len(rows(part)) for part in parts)
    joined = read_part(run_of("all"))
    assert joined is not None
    assert joined.numbers == (1, 2, 3)


def refused(capsys: pytest.CaptureFixture[str], *places: str, into: str = "all") -> str:
    capsys.readouterr()
    before = sorted(Path(into).rglob("*"))
    assert main(["merge", *places, "--results", into]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert sorted(Path(into).rglob("*")) == before
    (line,) = printed.err.splitlines()
    return line


def test_a_copy_is_refused(parts: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree("part1", "copy")
    line = refused(capsys, *parts, "copy")
    assert line.startswith("convmark merge: ")
    assert "must have no row of " in line
    assert line.endswith("is in both; leave one out")


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_was_joined_already_is_passed_over_and_a_part_of_it_refused(
    parts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["merge", *parts, "--results", "all"]) == 0
    before = contents(Path("all"))
    assert main(["merge", *parts, "--results", "all"]) == 0
    assert "0001.csv: is in all/" in capsys.readouterr().err
    assert contents(Path("all")) == before
    assert "must have no row of all/" in refused(capsys, "part1")


def test_a_row_that_was_joined_already_with_another_figure_is_refused(
    parts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["merge", *parts, "--results", "all"]) == 0
    path = run_of("part1")
    figure = str(rows("part1")[0].throughput_samples_per_s)
    text = path.read_text()
    assert figure in text
    path.write_text(text.replace(figure, str(2 * float(figure))))
    assert refused(capsys, *parts).endswith("is in both, with other values; leave one out")


def test_a_merge_that_ends_in_the_middle_of_a_run_leaves_no_part_of_it(
    parts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if (child := os.fork()) == 0:
        monkeypatch.setattr(RunFile, "keep", lambda self, rows: os._exit(9))
        main(["merge", *parts, "--results", "all"])
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert [read_run(path) for path in run_files([Path("all")])] == [[]]
    assert main(["merge", *parts, "--results", "all"]) == 0


def test_a_shard_that_was_measured_twice_is_refused(
    parts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("part1").rename("first")
    measure(1)
    line = refused(capsys, "first", *parts)
    assert line.endswith("of the same plan was measured twice; leave one out")


def test_parts_of_another_commit_are_refused_with_both_values(
    parts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    path = run_of("part2")
    header, *lines = path.read_text().splitlines()
    place = header.split(",").index("tensorflow")
    changed = []
    for line in lines:
        cells = line.split(",")
        assert cells[place] == "2.99.0"
        cells[place] = "2.98.0"
        changed.append(",".join(cells))
    path.write_text("\n".join([header, *changed]) + "\n")
    line = refused(capsys, *parts)
    assert "must have the tensorflow of " in line
    assert sorted(word for word in line.replace(",", "").split() if word.startswith("2.9")) == [
        "2.98.0",
        "2.99.0",
    ]


def test_a_folder_is_not_joined_with_itself(
    parts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert "must not be one of the folders" in refused(capsys, "part1", into="part1")


def test_runs_that_are_no_parts_stay_runs_of_their_own(
    fake: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in ("one", "other"):
        assert main(["run", "--results", folder, *SMALL]) == 0
    assert main(["merge", "one", "other", "--results", "all"]) == 0
    assert len(list(Path("all").glob("*/000?.csv"))) == 2
    assert not list(Path("all").glob("*/*.plan.json"))


def test_a_plan_on_two_kinds_of_machine_is_a_run_for_each(
    parts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    path = run_of("part3")
    machine = path.parent.name
    part_path(path).write_text(part_path(path).read_text())
    path.write_text(path.read_text().replace(machine, "another-1"))
    assert main(["merge", *parts, "--results", "all"]) == 0
    assert {run.parent.name for run in Path("all").glob("*/*.csv")} == {machine, "another-1"}
    assert "was measured on 2 kinds of machine; each has a run" in capsys.readouterr().err


@pytest.mark.filterwarnings("default")
def test_a_torn_part_is_said_and_the_rest_is_joined(
    parts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    path = run_of("part1")
    path.write_bytes(path.read_bytes()[:-5])
    assert main(["merge", *parts, "--results", "all"]) == 1
    said = capsys.readouterr().err
    assert "a torn last line was left out" in said
    assert "shard 1/3: 1 of " in said


def test_a_part_that_failed_before_its_first_row_does_not_keep_the_others_from_being_joined(
    parts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    machine = run_of("part2").parent
    shutil.rmtree("part2")
    machine.mkdir(parents=True)
    assert main(["merge", *parts, "--results", "all"]) == 1
    left_out, lacks = capsys.readouterr().err.splitlines()
    assert left_out == "convmark merge: part2: has no runs, left out"
    assert lacks.startswith("convmark merge: shard 2/3: all ")
    assert len(rows("all")) == len(rows("part1")) + len(rows("part3"))


def test_the_epochs_of_rows_come_along_and_know_their_rows(fake: Path) -> None:
    trained = ["run", "--tasks", "accuracy", "--models", "lenet5", "--seeds", "0,1"]
    for folder in ("one", "other"):
        assert main([*trained, "--results", folder]) == 0
    assert main(["merge", "one", "other", "--results", "all"]) == 0
    merged = sorted(Path("all").glob("*/000?.csv"))
    assert len(merged) == 2
    for path, folder in zip(merged, ("one", "other"), strict=True):
        before = TABLE.of(run_of(folder))
        assert len(before) == 2 * EPOCHS
        assert {epoch.run for epoch in TABLE.of(path)} == {path.stem}
        unnamed = [dataclasses.replace(epoch, run="0001") for epoch in TABLE.of(path)]
        assert unnamed == before
        assert {epoch.order for epoch in unnamed} == {row.order for row in read_run(path)}


def test_epochs_that_do_not_fit_are_refused_before_anything_is_written(
    fake: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = ["run", "--tasks", "accuracy", "--models", "lenet5", "--seeds", "0"]
    assert main([*trained, "--results", "one"]) == 0
    path = TABLE.path(run_of("one"))
    path.write_text(path.read_text().replace(",lenet5,", ",", 1))
    assert f"{path}:2: must have " in refused(capsys, "one")


def test_a_place_without_runs_is_refused(fake: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("empty").mkdir()
    assert "empty: has no runs yet" in refused(capsys, "empty")
    assert "no such file or folder" in refused(capsys, "nowhere")


def with_code(folder: str, name: str) -> tuple[Code, KeptSession]:
    """Keep a code and a session beside a part's run, as one that was judged has them."""
    path = run_of(folder)
    place = Path(folder).resolve() / "models"
    place.mkdir()
    (place / "nets.py").write_text(f"NAME = {name!r}\n")
    digest = hashlib.sha256((place / "nets.py").read_bytes()).hexdigest()
    size = (place / "nets.py").stat().st_size
    code = Code(
        files=(CodeFile(Place(HERE, "nets.py"), digest, size),),
        packages={},
        roots={HERE: str(place)},
    )
    KeptCodes(path).keep(code)
    session = KeptSession(
        case=name, conditions="c", anchor="1234567", old_code="a", new_code=code.hash, commit=None,
        decided=False, run=None, apart=False, wall=0.01, cpu=None, seconds=1.5,
    )  # fmt: skip
    sessions_file.write(path, [session])
    return code, session


def test_codes_their_kept_files_and_sessions_come_along_so_that_the_run_can_be_an_anchor(
    parts: list[str], tmp_path: Path
) -> None:
    kept = [with_code(part, name) for part, name in zip(parts[:2], ("lenet5", "vgg"), strict=True)]
    assert main(["merge", *parts, "--results", "all"]) == 0
    path = run_of("all")
    assert read_codes(path) == {code.hash: code for code, _ in kept}
    assert sessions_file.TABLE.of(path) == [session for _, session in kept]
    for part in parts[:2]:
        shutil.rmtree(part)
    for place, (code, _) in enumerate(kept):
        tree = tmp_path / f"tree{place}"
        lay_out(path.parent, code, tree)
        assert "NAME" in (tree / "here" / "nets.py").read_text()


def test_a_damaged_manifest_is_refused_before_anything_is_written(
    parts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with_code("part1", "lenet5")
    code_path(run_of("part1")).write_text("{}")
    assert "0001.code.json: is damaged, so " in refused(capsys, *parts)
