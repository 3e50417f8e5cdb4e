"""What another program does to a run's file while the run goes on."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from rows import row

from convmark.core.errors import StoreError
from convmark.results.code.manifest import HERE, Code, CodeFile, Place, code_path, read_codes
from convmark.results.reading import StoreWarning, read_run
from convmark.results.run_file import steps_path
from convmark.results.store import Store
from convmark.worker.protocol import file_digest


def test_a_run_file_that_was_removed_is_put_back_with_the_next_row(tmp_path: Path) -> None:
    run_file = Store(tmp_path).create_run("here")
    run_file.append(row())
    run_file.path.unlink()
    with pytest.warns(StoreWarning, match="it has been put back with 1 row"):
        run_file.append(row(process=2))
    run_file.close()
    assert len(read_run(run_file.path)) == 2


def test_a_folder_that_was_removed_is_put_back_with_step_times_and_code(tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text("NAME = 1\n")
    size, digest = file_digest(tmp_path / "nets.py") or (0, "")
    file = CodeFile(Place(HERE, "nets.py"), digest, size)
    code = Code(files=(file,), packages={}, roots={HERE: str(tmp_path)})
    run_file = Store(tmp_path / "results").create_run("here")
    run_file.codes.keep(code)
    run_file.append(row(), [0.1, 0.2])
    shutil.rmtree(tmp_path / "results")
    with pytest.warns(StoreWarning, match="epochs, intervals, tries\\) is lost"):
        run_file.append(row(process=2, order=2), [0.3])
    run_file.close()
    with np.load(steps_path(run_file.path)) as steps:
        assert {name: steps[name].tolist() for name in steps} == {
            "00001": [0.1, 0.2],
            "00002": [0.3],
        }
    assert read_codes(run_file.path) == {code.hash: code}
    kept = run_file.path.parent / "code" / digest[:2] / digest[2:]
    assert kept.read_text() == "NAME = 1\n"


@pytest.mark.parametrize("is_last", [False, True])
def test_rows_do_not_depend_on_raw_step_times_and_code_that_cannot_be_put_back(
    tmp_path: Path, is_last: bool
) -> None:
    run_file = Store(tmp_path).create_run("here")
    run_file.codes.keep(Code(files=(), packages={"scipy": "1.0"}))
    run_file.append(row(), [0.1])
    for path in (run_file.path, steps_path(run_file.path), code_path(run_file.path)):
        path.unlink()
    steps_path(run_file.path).mkdir()
    code_path(run_file.path).mkdir()

    def end() -> None:
        if not is_last:
            run_file.append(row(process=2, order=2), [0.3])
        run_file.close()

    with pytest.warns(StoreWarning) as told:
        end()
    words = [str(one.message) for one in told]
    assert not any("lost:" in one for one in words)
    for path in (steps_path(run_file.path), code_path(run_file.path)):
        assert any(one.startswith(f"{path}: cannot be put back for the rows") for one in words)
    assert len(read_run(run_file.path)) == (1 if is_last else 2)


@pytest.mark.filterwarnings("error")
def test_step_times_and_codes_that_were_removed_alone_are_put_back(tmp_path: Path) -> None:
    code = Code(files=(), packages={"scipy": "1.0"})
    run_file = Store(tmp_path).create_run("here")
    run_file.codes.keep(code)
    run_file.append(row(), [0.1])
    steps_path(run_file.path).unlink()
    code_path(run_file.path).unlink()
    run_file.codes.keep(code)
    run_file.append(row(process=2, order=2), [0.3])
    run_file.close()
    assert code.hash in read_codes(run_file.path)
    with np.load(steps_path(run_file.path)) as steps:
        assert sorted(steps) == ["00001", "00002"]


def test_a_run_file_that_another_program_changes_takes_no_more_rows(tmp_path: Path) -> None:
    run_file = Store(tmp_path).create_run("here")
    run_file.append(row())
    with run_file.path.open("a") as file:
        file.write("not,a,row\n")
    with pytest.raises(StoreError, match="only this run may change the file"):
        run_file.append(row(process=2))


def test_a_run_file_that_was_removed_after_its_last_row_is_put_back(tmp_path: Path) -> None:
    run_file = Store(tmp_path).create_run("here")
    run_file.append(row())
    run_file.path.unlink()
    with pytest.warns(StoreWarning, match="it has been put back with 1 row"):
        run_file.close()
    assert len(read_run(run_file.path)) == 1


def test_a_run_file_that_another_program_changed_after_its_last_row_is_an_error(
    tmp_path: Path,
) -> None:
    run_file = Store(tmp_path).create_run("here")
    run_file.append(row())
    with run_file.path.open("a") as file:
        file.write("not,a,row\n")
    with pytest.raises(StoreError, match="only this run may change the file"):
        run_file.hold_own()


def test_a_run_without_rows_removes_no_other_runs_file_of_its_name(tmp_path: Path) -> None:
    run_file = Store(tmp_path).create_run("here")
    run_file.path.unlink()
    other = Store(tmp_path).create_run("here")
    other.append(row())
    run_file.close()
    assert run_file.path == other.path
    assert len(read_run(other.path)) == 1


def test_a_run_file_whose_rows_another_program_has_written_over_takes_no_more(
    tmp_path: Path,
) -> None:
    run_file = Store(tmp_path).create_run("here")
    run_file.append(row(step_time_p50_s=0.5))
    content = run_file.path.read_bytes()
    with run_file.path.open("r+b") as file:
        file.write(content.replace(b"0.5", b"0.1"))
    with pytest.raises(StoreError, match="only this run may change the file"):
        run_file.append(row(process=2))
