"""The index of a history: as good as reading the files, and never believed beyond them."""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from forks import Forks
from histories import A_COMMIT, ANOTHER_COMMIT, MACHINE, keep, keep_said, process, run_of
from test_verdicts_file import OLD, judgement

from convmark.cli import main
from convmark.compare import earlier, index
from convmark.compare.digest import digest_of
from convmark.compare.history import accepted_history
from convmark.compare.index import Index, index_path
from convmark.results.reading import read_run
from convmark.results.record import Record
from convmark.results.store import Store

LENET = "lenet5-train-cpu-b32-float32"
Printed = pytest.CaptureFixture[str]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CONVMARK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(index, "SETTLED_S", -3600)  # as if all were written long ago
    return Store(Path("results"))


def write(store: Store, runs: int, *, seed: int = 0) -> None:
    """Write a history of all sorts: several cases, commits, failures, an unsteady process."""
    rng = random.Random(seed)
    for number in range(1, runs + 1):
        run = f"{number:04d}"
        rows: list[Record] = []
        commit, dirty = rng.choice([A_COMMIT, ANOTHER_COMMIT, None]), rng.choice([True, False])
        for model in rng.sample(["lenet5", "vgg16", "mini_resnet"], rng.randint(1, 3)):
            levels = [rng.uniform(-0.1, 0.1) for _ in range(rng.randint(1, 3))]
            rows += run_of(run, *levels, model=model, commit=commit, dirty=dirty)
            if rng.random() < 0.3:
                status = rng.choice(["timeout", "crashed", "unsteady"])
                told = {"status": status, "commit": commit, "dirty": dirty}
                rows.append(process(run=run, model=model, process=9, order=9, **told))
        keep(store, rows)


def listed(capsys: Printed, *arguments: str) -> str:
    assert main(["history", LENET, *arguments]) == 0
    return capsys.readouterr().out


def without_index(capsys: Printed, monkeypatch: pytest.MonkeyPatch) -> str:
    """What the history prints where nothing can be kept."""
    with monkeypatch.context() as patch:
        patch.setenv("CONVMARK_CACHE", "/dev/null/nowhere")
        return listed(capsys)


@pytest.fixture
def digested(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The runs whose files are read for the index, as they are read."""
    read: list[str] = []
    original = index.digest_of

    def recording(path: Path) -> index.Digest:
        read.append(path.stem)
        return original(path)

    monkeypatch.setattr(index, "digest_of", recording)
    return read


# As good as reading the files


def test_a_history_is_the_same_with_and_without_an_index(
    store: Store, capsys: Printed, monkeypatch: pytest.MonkeyPatch, digested: list[str]
) -> None:
    write(store, 40)
    plain = without_index(capsys, monkeypatch)
    assert len(plain.splitlines()) > 15
    assert len(digested) == 40
    assert listed(capsys) == plain
    assert len(digested) == 80
    assert listed(capsys) == plain
    assert len(digested) == 80  # all from the index


def test_only_what_is_new_or_changed_is_read_again(
    store: Store, capsys: Printed, monkeypatch: pytest.MonkeyPatch, digested: list[str]
) -> None:
    write(store, 12)
    before = listed(capsys)
    digested.clear()
    keep(store, run_of("0013", 0.0, 0.1))
    keep(store, run_of("0004", 0.5))
    (store.folder / MACHINE / "0007.csv").unlink()
    after = listed(capsys)
    assert digested == ["0004", "0013"]
    assert after != before
    assert after == without_index(capsys, monkeypatch)
    digested.clear()
    keep(store, run_of("0014", 0.0))
    assert listed(capsys) == without_index(capsys, monkeypatch)
    assert digested[0] == "0014"
    assert len(digested) == 1 + 13  # the one, and all of those without an index


def test_a_change_that_leaves_size_and_time_as_they_were_is_seen(
    store: Store, capsys: Printed
) -> None:
    path = keep(store, run_of("0001", 0.0))
    assert "10.0 ms" in listed(capsys)
    stat = path.stat()
    time.sleep(0.02)  # a tick of the file system's clock
    path.write_text(path.read_text().replace(",0.01,", ",0.02,"))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert path.stat().st_size == stat.st_size
    assert "20.0 ms" in listed(capsys)


def test_a_file_written_just_now_is_read_again_the_next_time(
    store: Store, capsys: Printed, digested: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index, "SETTLED_S", 2.0)
    keep(store, run_of("0001", 0.0))
    listed(capsys)
    listed(capsys)
    assert digested == ["0001", "0001"]


@pytest.mark.filterwarnings("always")
def test_a_torn_line_and_a_broken_file_are_told_of_each_time(
    store: Store, capsys: Printed, digested: list[str]
) -> None:
    for number in (1, 2, 3):
        keep(store, run_of(f"{number:04d}", 0.0, 0.1))
    folder = store.folder / MACHINE
    torn, broken = folder / "0002.csv", folder / "0003.csv"
    torn.write_bytes(torn.read_bytes()[:-9])
    broken.write_bytes(broken.read_bytes().replace(b",train,", b",trian,", 1))
    for _ in range(2):
        assert main(["history", LENET]) == 0
        printed = capsys.readouterr()
        table = printed.out.partition("\n\n")[0]
        assert [line.split()[0] for line in table.splitlines()[2:]] == ["0001", "0002"]
        first, second = printed.err.splitlines()
        assert first == f"convmark: {torn}:3: a torn last line was left out"
        assert second.startswith(f"convmark: {broken}:2: lenet5: task must be one of train, infer")
        assert second.endswith("; left out of the history")
    assert digested == ["0001", "0002", "0003"]


@pytest.mark.filterwarnings("always")
def test_of_many_broken_files_five_are_named(store: Store, capsys: Printed) -> None:
    keep(store, run_of("0001", 0.0))
    for number in range(2, 10):
        (store.folder / MACHINE / f"{number:04d}.csv").write_text("")
    assert main(["history", LENET]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 5
    assert lines[-1].endswith("it is empty; left out of the history, and 3 more")


# Never believed beyond the files


def damages(whole: bytes, rng: random.Random) -> Iterator[bytes]:
    """Yield what may have become of an index."""
    yield b""
    yield b"no index\n"
    yield whole + b"more"
    for _ in range(40):
        place = rng.randrange(len(whole))
        yield whole[:place]
        yield whole[:place] + bytes([whole[place] ^ (1 << rng.randrange(8))]) + whole[place + 1 :]
        end = min(len(whole), place + rng.randint(1, 400))
        yield whole[:place] + whole[end:]
        yield whole[:place] + rng.randbytes(end - place) + whole[end:]


def test_a_damaged_index_is_as_none_wherever_the_damage_is(
    store: Store, capsys: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(store, 4)
    keep_said(store.folder / MACHINE, *(judgement(run=f"{n:04d}") for n in range(1, 5)))
    plain = without_index(capsys, monkeypatch)
    assert "regressed" in plain
    assert listed(capsys) == plain
    path = index_path(store.folder / MACHINE)
    whole = path.read_bytes()
    for data in damages(whole, random.Random(1)):
        path.write_bytes(data)
        assert listed(capsys) == plain


@pytest.mark.parametrize("table", ["figures", "verdicts"])
def test_an_index_that_lacks_rows_is_made_anew(
    table: str, store: Store, capsys: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page may be lost with its checksums: then no row is wrong, and some are not there."""
    failed = process(run="0001", status="timeout", order=1)  # in no list of cases that are judged
    keep(store, [process(run="0001", model="vgg16", order=2), failed])
    keep(store, run_of("0002", 0.0, 0.1))
    keep_said(store.folder / MACHINE, *(judgement(run=f"{n:04d}") for n in (1, 2)))
    plain = without_index(capsys, monkeypatch)
    assert plain.count("regressed") == 2
    assert listed(capsys) == plain
    with contextlib.closing(sqlite3.connect(index_path(store.folder / MACHINE))) as database:
        database.execute(f"DELETE FROM {table} WHERE file LIKE '0001%'")
        database.commit()
    assert listed(capsys) == plain


def test_a_damaged_index_is_made_anew_and_a_locked_one_left_alone(
    store: Store, capsys: Printed, monkeypatch: pytest.MonkeyPatch, digested: list[str]
) -> None:
    monkeypatch.setattr(index, "WAIT_S", 0.01)
    write(store, 3)
    plain = listed(capsys)
    path = index_path(store.folder / MACHINE)
    path.write_bytes(path.read_bytes()[:5000])
    assert listed(capsys) == plain
    whole = path.read_bytes()
    digested.clear()
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert listed(capsys) == plain
    assert len(digested) == 3
    assert path.read_bytes() == whole
    digested.clear()
    assert listed(capsys) == plain
    assert digested == []


def test_an_index_of_another_folder_or_of_other_code_is_not_believed(
    store: Store, capsys: Printed, monkeypatch: pytest.MonkeyPatch, digested: list[str]
) -> None:
    write(store, 3)
    plain = listed(capsys)
    (store.folder / "other").mkdir()
    keep(store, run_of("0001", 0.3)).rename(store.folder / "other" / "0001.csv")
    write(store, 3)
    theirs = listed(capsys, "--machine", "other")
    assert "13.5 ms" in theirs
    other = index_path(store.folder / "other")
    index_path(store.folder / MACHINE).write_bytes(other.read_bytes())
    assert listed(capsys, "--machine", MACHINE) == plain
    digested.clear()
    monkeypatch.setattr(index, "_code", lambda: b"another")
    assert listed(capsys, "--machine", MACHINE) == plain
    assert len(digested) == 3


def test_the_index_lies_in_the_cache_and_not_beside_the_results(
    store: Store, capsys: Printed, tmp_path: Path
) -> None:
    write(store, 2)
    before = sorted(store.folder.rglob("*"))
    listed(capsys)
    assert sorted(store.folder.rglob("*")) == before
    assert [path.suffix for path in (tmp_path / "cache" / "index").iterdir()] == [".sqlite"]


def test_deleting_the_index_is_harmless(store: Store, capsys: Printed) -> None:
    write(store, 5)
    plain = listed(capsys)
    index_path(store.folder / MACHINE).unlink()
    assert listed(capsys) == plain


def test_an_index_that_nobody_has_used_for_long_is_removed_when_another_is_kept(
    store: Store, capsys: Printed, tmp_path: Path
) -> None:
    folder = tmp_path / "cache" / "index"
    folder.mkdir(parents=True)
    old, new = folder / "old.sqlite", folder / "new.sqlite"
    for path in (old, new):
        path.write_text("")
    long_ago = time.time() - index.UNUSED_S - 60
    os.utime(old, (long_ago, long_ago))
    write(store, 1)
    main(["history", LENET])
    assert not old.exists()
    assert new.exists()


HISTORY = """
import sys
from convmark.cli import main
from convmark.compare import index
index.SETTLED_S = -3600
sys.exit(main(["history", sys.argv[1]]))
"""


def test_many_that_make_the_index_at_once_all_print_the_same_and_leave_a_whole_one(
    store: Store,
    capsys: Printed,
    monkeypatch: pytest.MonkeyPatch,
    digested: list[str],
    harness: Forks,
) -> None:
    write(store, 60)
    plain = without_index(capsys, monkeypatch)
    together = [harness.start(HISTORY, LENET, environ=os.environ) for _ in range(4)]
    assert {process.communicate(timeout=120)[0] for process in together} == {plain}
    digested.clear()
    assert listed(capsys) == plain
    assert digested == []
    assert [path.suffix for path in index_path(store.folder).parent.iterdir()] == [".sqlite"]


# What was said of a case


def words(store: Store, case: str = LENET) -> dict[str, str]:
    """The verdicts of the case, by run."""
    found = Index(store.folder / MACHINE, case)
    verdicts = {path.stem: found.verdict(path) for path in store.runs(MACHINE)}
    found.keep()
    return {run: said for run, said in verdicts.items() if said}


def test_a_verdict_follows_its_file_as_it_is_made_replaced_and_removed(store: Store) -> None:
    for run in ("0001", "0002"):
        keep(store, run_of(run, 0.0))
    folder = store.folder / MACHINE
    assert words(store) == {}
    keep_said(folder, judgement(run="0001"), judgement(run="0002", metric="parameters"))
    assert words(store) == words(store) == {"0001": "regressed"}
    keep_said(folder, judgement(run="0001", verdict="improved"), judgement(run="0002"))
    assert words(store) == {"0001": "improved", "0002": "regressed"}
    assert words(store, "vgg16-train-cpu-b32-float32") == {}
    (folder / "0001.verdicts.csv").unlink()
    assert words(store) == {"0002": "regressed"}


def test_the_verdicts_of_all_runs_from_before_count_where_a_run_has_none_of_its_own(
    store: Store,
) -> None:
    for run in ("0006", "0007"):
        keep(store, run_of(run, 0.0))
    (store.folder / MACHINE / "verdicts.csv").write_text(OLD)
    assert words(store) == words(store) == {"0006": "regressed", "0007": "inconclusive"}
    keep_said(store.folder / MACHINE, judgement(run="0006", verdict="unchanged", fails=False))
    assert words(store) == {"0006": "unchanged", "0007": "inconclusive"}


def test_a_broken_verdict_is_refused_by_its_line_each_time(store: Store, capsys: Printed) -> None:
    keep(store, run_of("0001", 0.0))
    keep_said(store.folder / MACHINE, judgement(run="0001"))
    listed(capsys)
    path = store.folder / MACHINE / "0001.verdicts.csv"
    with path.open("a") as file:
        file.write("0001,x\n")
    for _ in range(2):
        assert main(["history", LENET]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line == f"convmark history: {path}:3: must have 23 cells, has 2"


# What a comparison reads


def judged(store: Store, now: list[Record]) -> tuple[list[str], list[str]]:
    """The runs that lenet5 is judged against, and those that were read in full."""
    read: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(earlier, "read_run", lambda path: read.append(path.stem) or read_run(path))
        found = accepted_history(store, MACHINE, now)
    return [rows[0].run for rows in found.cases[LENET].runs], read


def test_a_comparison_finds_the_same_with_an_index_and_without(
    store: Store, digested: list[str]
) -> None:
    for seed in range(6):
        write(store, 30, seed=seed)
        for changes in ({}, {"tensorflow": "2.20.0"}, {"device": "gpu:0", "driver": "550"}):
            now = run_of("0031", 0.0, **changes)
            plain = accepted_history(store, MACHINE, now)
            digested.clear()
            kept = accepted_history(store, MACHINE, now)
            assert digested == []
            assert kept == plain


def test_a_comparison_reads_no_file_that_it_does_not_need(
    store: Store, monkeypatch: pytest.MonkeyPatch, digested: list[str]
) -> None:
    for number in range(1, 31):
        keep(store, run_of(f"{number:04d}", 0.0, tensorflow="2.20.0"))
    assert judged(store, run_of("0031", 0.0)) == ([], [])
    assert len(digested) == 30
    assert judged(store, run_of("0031", 0.0)) == ([], [])
    assert len(digested) == 30
    keep(store, run_of("0031", 0.0, tensorflow="2.20.0"))
    same = run_of("0032", 0.0, tensorflow="2.20.0")
    runs, read = judged(store, same)
    assert runs == ["0001", *(f"{number:04d}" for number in range(23, 32))]
    assert sorted(read) == runs
    assert digested[30:] == ["0031"]


def test_a_history_that_needs_few_files_looks_into_no_others(
    store: Store, digested: list[str]
) -> None:
    for number in range(1, 121):
        keep(store, run_of(f"{number:04d}", 0.0))
    runs, read = judged(store, run_of("0121", 0.0))
    assert runs == ["0001", *(f"{number:04d}" for number in range(112, 121))]
    assert len(read) == 10
    assert len(digested) == 11


def test_the_user_is_told_of_a_long_reading(
    store: Store, capsys: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index, "LONG", 3)
    write(store, 5)
    assert main(["history", LENET]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    folder = store.folder / MACHINE
    assert line == f"convmark: reading the files of {folder} for the index, once"
    assert main(["history", LENET]) == 0
    assert capsys.readouterr().err == ""


def test_the_figures_of_a_digest_are_those_of_the_rows(store: Store) -> None:
    path = keep(store, [*run_of("0001", -0.1, 0.1, 0.3), process(run="0001", status="timeout")])
    digest = digest_of(path)
    (figures,) = digest.cases
    times_s = [row.step_time_p50_s or 0 for row in read_run(path)[:3]]
    assert figures.step_time_p50_s == sorted(times_s)[1]
    assert figures.spread == pytest.approx((max(times_s) - min(times_s)) / 2 / sorted(times_s)[1])
    assert (figures.case, figures.processes, figures.failed) == (LENET, 3, "timeout")
    assert (digest.commit, digest.dirty) == (A_COMMIT, False)


def test_a_number_that_sqlite_has_no_room_for_is_read_from_the_file(
    store: Store, capsys: Printed
) -> None:
    keep(store, run_of("0001", 0.0, parameters=10**29))
    assert listed(capsys) == listed(capsys) != ""
