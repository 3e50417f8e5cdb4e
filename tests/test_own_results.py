"""The rows that this repository brings: they pass its own check, and are asked for by name."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import pytest
from report_rows import FAST, keep_run, suite

from convmark.cli.list import runs_table
from convmark.core.errors import StoreError
from convmark.report.build import build
from convmark.report.rows import read_rows
from convmark.report.submission import check
from convmark.results.reading import read_run
from convmark.results.store import Store

RESULTS = Path(__file__).resolve().parent.parent / "results" / "examples"
RUNS = sorted(RESULTS.glob("*/[0-9]*[0-9].csv"))

pytestmark = pytest.mark.skipif(not RUNS, reason="no rows of a checkout's results/ are here")


def test_they_pass_the_check() -> None:
    assert check([RESULTS], [], datetime.now(timezone.utc)).findings == []


def test_they_say_which_clean_commit_ran_and_name_no_host_or_folder_of_a_user() -> None:
    for path in RUNS:
        for row in read_run(path):
            assert row.commit
            assert row.dirty is False
            assert row.node is None
    for path in RESULTS.rglob("*"):
        if path.suffix in (".csv", ".json", ".log", ".md"):
            named = re.findall(r"/(?:home|root|tmp|work|Users)/\S*", path.read_text("utf-8"))
            assert not named, path


def test_rows_of_ones_own_host_are_not_ranked_among_them(tmp_path: Path) -> None:
    shutil.copytree(RESULTS, tmp_path / "results")
    machine = RUNS[0].parent.name
    own = [
        replace(row, node="mine")
        for row in suite(machine, 99, models=("mini_inception",))
        if row.task == "train"
    ]
    keep_run(tmp_path / "results", own)
    rows = read_rows([tmp_path / "results"])
    named = rows.frame["node"] == "mine"
    assert set(rows.frame[named]["machine"]) == {machine}
    assert set(rows.frame[~named]["machine"]) == {f"{machine} (host not named)"}
    tables = {table.key: table for table in build([tmp_path / "results"]).tables}
    for row in tables["answers"].records():
        if row["answer"] == "fastest model" and "train" in row["of"]:
            assert f"on {machine} (host not named) cpu" in row["detail"]
    assert len(tables["hardware"].rows) > 2


def test_they_are_checked_beside_the_rows_of_a_clone_as_a_folder_of_their_own(
    tmp_path: Path,
) -> None:
    now = datetime.now(timezone.utc)
    mine, main = (tmp_path / name / "results" for name in ("mine", "main"))
    for folder in (mine, main):
        shutil.copytree(RESULTS, folder / "examples")
    own = shutil.copytree(RUNS[0].parent, mine / RUNS[0].parent.name)
    assert {one.rule for one in check([mine], [], now).findings} == {"duplicate"}
    shutil.rmtree(own)
    keep_run(mine, suite(FAST, 1, models=("lenet5",)))

    def examples() -> set[tuple[str, str]]:
        found = check([mine], [main], now).findings
        inside = (one for one in found if "examples" in one.file.parts)
        return {(one.file.name, one.rule) for one in inside}

    assert examples() == set()
    (mine / "examples" / "page.html").touch()
    for path in (mine / "examples").glob("*/0001.*"):
        path.unlink()
    gone = {(f"0001.{name}", "gone") for name in ("csv", "code.json", "steps.npz")}
    assert examples() == {("page.html", "no results file"), *gone}


def test_a_report_has_them_only_where_they_are_named(tmp_path: Path) -> None:
    results = tmp_path / "results"
    shutil.copytree(RESULTS, results / "examples")
    theirs = RUNS[0].parent.name
    with pytest.raises(StoreError, match="has no runs yet"):
        build([results])
    keep_run(results, suite(FAST, 1, models=("lenet5",)))
    assert list(read_rows([results]).frame["machine"].cat.categories) == [FAST]
    assert set(runs_table(results, whole=True).column("machine")) == {FAST}
    assert Store(results).machines() == [FAST]
    tables = {table.key: table for table in build([results, results / "examples"]).tables}
    compared = {row["hardware"] for row in tables["hardware"].records() if row["model"] == "lenet5"}
    assert {f"{FAST} cpu", f"{theirs} cpu"} <= compared
    assert tables["published_times"].rows
