"""What stands beside a run's file is of that run alone."""

from __future__ import annotations

from pathlib import Path

from convmark.compare import sessions_file
from convmark.compare.files import CHANGES_TABLE, verdicts_path
from convmark.results.code.manifest import code_path
from convmark.results.run_file import steps_path
from convmark.results.store import Store
from convmark.session import learning
from convmark.session.fleet.part import part_path

COMPANIONS = (
    *(
        CHANGES_TABLE.path,
        code_path,
        part_path,
        verdicts_path,
        learning.TABLE.path,
        sessions_file.TABLE.path,
        steps_path,
    ),
)


def test_a_run_that_takes_a_number_anew_inherits_nothing_from_the_run_that_had_it(
    tmp_path: Path,
) -> None:
    store = Store(tmp_path)
    path = store.create_run("xeon-2").path
    beside = [companion(path) for companion in COMPANIONS]
    for one in [*beside, path.with_suffix(".log"), path.with_name("0001.notes")]:
        one.write_text("of the run that had the number")
    path.unlink()
    again = store.create_run("xeon-2")
    assert again.path == path
    assert sorted(one.name for one in path.parent.iterdir()) == ["0001.csv", "0001.notes"]
