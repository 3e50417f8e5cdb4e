"""The index of a history: as good as reading the files, and never believed beyond them."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from histories import A_COMMIT, ANOTHER_COMMIT, MACHINE, keep, process, run_of
from test_verdicts_file import judgement

from convmark.cli import main
from convmark.judging import index as index_module
from convmark.judging import keeping, shelf
from convmark.judging.history import accepted_history
from convmark.judging.index import Index
from convmark.judging.keeping import kept_path
from convmark.judging.verdict_index import verdict_words
from convmark.judging.verdicts_file import append_verdicts, verdicts_path
from convmark.record import Record
from convmark.store import Store, read_run

LENET = "lenet5-train-cpu-b32-float32"
Printed = pytest.CaptureFixture[str]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CONVMARK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(index_module, "SETTLED_S", -3600)  # as if all were written long ago
    return Store(Path("results"))


def write(store: Store, runs: int, *, seed: int = 0) -> None:
    """Write a history of all sorts: several cases, commits, failures, an unsteady process."""
    rng = random.Random(seed)
    for number in range(1, runs + 1):
        run = f"{number:04d}"
        rows: list[Record] = []
        for model in rng.sample(["lenet5", "vgg16", "mini_resnet"], rng.randint(1, 3)):
            levels = [rng.uniform(-0.1, 0.1) for _ in range(rng.randint(1, 3))]
            commit = rng.choice([A_COMMIT, ANOTHER_COMMIT, None])
            rows += run_of(
                run, *levels, model=model, commit=commit, dirty=rng.choice([True, False])
            )
            if rng.random() < 0.3:
                status = rng.choice(["timeout", "crashed", "unsteady"])
                rows.append(process(run=run, model=model, status=status, process=9, order=9))
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
    original = index_module.digest_of

    def recording(path: Path) -> index_module.Digest:
        read.append(path.stem)
        return original(path)

    monkeypatch.setattr(index_module, "digest_of", recording)
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
    monkeypatch.setattr(index_module, "SETTLED_S", 2.0)
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
    yield b"[" * 70_000
    yield b'{"code": 1}\n'
    yield whole + b"more"
    for _ in range(40):
        place = rng.randrange(len(whole))
        yield whole[:place]
        yield whole[:place] + bytes([whole[place] ^ (1 << rng.randrange(8))]) + whole[place + 1 :]
        end = min(len(whole), place + rng.randint(1, 400))
        yield whole[:place] + whole[end:]
        yield whole[:place] + rng.randbytes(end - place) + whole[end:]


@pytest.mark.parametrize("kind", ["runs", "verdicts"])
def test_a_damaged_index_is_as_none_wherever_the_damage_is(
    store: Store, capsys: Printed, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    write(store, 4)
    append_verdicts(verdicts_path(store, MACHINE), [judgement(run=f"{n:04d}") for n in range(1, 5)])
    plain = without_index(capsys, monkeypatch)
    assert "regressed" in plain
    assert listed(capsys) == plain
    path = kept_path(store.folder / MACHINE, kind)
    whole = path.read_bytes()
    for data in damages(whole, random.Random(1)):
        path.write_bytes(data)
        assert listed(capsys) == plain


def test_an_index_of_another_folder_or_of_other_code_is_not_believed(
    store: Store, capsys: Printed, monkeypatch: pytest.MonkeyPatch, digested: list[str]
) -> None:
    write(store, 3)
    plain = listed(capsys)
    own = kept_path(store.folder / MACHINE, "runs")
    (store.folder / "other").mkdir()
    keep(store, run_of("0001", 0.3)).rename(store.folder / "other" / "0001.csv")
    write(store, 3)
    theirs = listed(capsys, "--machine", "other")
    assert "13.5 ms" in theirs
    own.write_bytes(kept_path(store.folder / "other", "runs").read_bytes())
    assert listed(capsys, "--machine", MACHINE) == plain
    digested.clear()
    monkeypatch.setattr(keeping, "_code", lambda: "another")
    assert listed(capsys, "--machine", MACHINE) == plain
    assert len(digested) == 3


def test_the_index_lies_in_the_cache_and_not_beside_the_results(
    store: Store, capsys: Printed, tmp_path: Path
) -> None:
    write(store, 2)
    before = sorted(store.folder.rglob("*"))
    listed(capsys)
    assert sorted(store.folder.rglob("*")) == before
    assert [path.suffix for path in (tmp_path / "cache" / "index").iterdir()] == [".runs"]


def test_deleting_the_index_is_harmless(store: Store, capsys: Printed) -> None:
    write(store, 5)
    plain = listed(capsys)
    kept_path(store.folder / MACHINE, "runs").unlink()
    assert listed(capsys) == plain


def test_an_index_that_nobody_has_used_for_long_is_removed_when_another_is_kept(
    store: Store, capsys: Printed, tmp_path: Path
) -> None:
    folder = tmp_path / "cache" / "index"
    folder.mkdir(parents=True)
    old, new = folder / "old.runs", folder / "new.runs"
    for path in (old, new):
        path.write_text("")
    long_ago = time.time() - keeping.UNUSED_S - 60
    os.utime(old, (long_ago, long_ago))
    write(store, 1)
    main(["history", LENET])
    assert not old.exists()
    assert new.exists()


HISTORY = """
import sys
from convmark.cli import main
from convmark.judging import index
index.SETTLED_S = -3600
sys.exit(main(["history", sys.argv[1]]))
"""


def test_many_that_make_the_index_at_once_all_print_the_same_and_leave_a_whole_one(
    store: Store, capsys: Printed, monkeypatch: pytest.MonkeyPatch, digested: list[str]
) -> None:
    write(store, 60)
    plain = without_index(capsys, monkeypatch)
    together = [
        subprocess.Popen([sys.executable, "-c", HISTORY, LENET], stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    assert {process.communicate(timeout=120)[0] for process in together} == {plain}
    digested.clear()
    assert listed(capsys) == plain
    assert digested == []
    assert [path.suffix for path in kept_path(store.folder, "x").parent.iterdir()] == [".runs"]


# What was said, by case


def test_the_words_of_a_case_follow_the_file_as_it_grows_and_as_it_is_written_anew(
    store: Store,
) -> None:
    folder = store.folder / MACHINE
    path = verdicts_path(store, MACHINE)
    assert verdict_words(folder, LENET) == {}
    append_verdicts(path, [judgement(run="0001"), judgement(run="0002", metric="parameters")])
    assert verdict_words(folder, LENET) == {"0001": "regressed"}
    append_verdicts(path, [judgement(run="0001", unconfirmed=True), judgement(run="0003")])
    expected = {"0001": "regressed (unconfirmed)", "0003": "regressed"}
    assert verdict_words(folder, LENET) == expected
    assert verdict_words(folder, LENET) == expected
    assert verdict_words(folder, "vgg16-train-cpu-b32-float32") == {}
    text = path.read_text().replace("regressed", "improved!")
    path.write_text(text.replace("improved!", "unchanged").replace(",true\n", ",false\n"))
    assert set(verdict_words(folder, LENET).values()) == {"unchanged (unconfirmed)", "unchanged"}
    path.unlink()
    assert verdict_words(folder, LENET) == {}


def test_a_change_in_what_was_read_is_seen_though_the_file_has_grown(store: Store) -> None:
    path = verdicts_path(store, MACHINE)
    append_verdicts(path, [judgement(run="0001"), judgement(run="0002")])
    assert verdict_words(path.parent, LENET)["0001"] == "regressed"
    text = path.read_text()
    path.write_text(text.replace("0001,", "0009,", 1) + text.splitlines(True)[-1])
    assert set(verdict_words(path.parent, LENET)) == {"0009", "0002"}


def test_a_torn_verdict_is_read_once_it_is_whole(store: Store) -> None:
    path = verdicts_path(store, MACHINE)
    append_verdicts(path, [judgement(run="0001"), judgement(run="0002")])
    whole = path.read_bytes()
    for end in range(len(whole) - 30, len(whole)):
        path.write_bytes(whole[:end])
        assert set(verdict_words(path.parent, LENET)) == {"0001"}
    path.write_bytes(whole)
    assert set(verdict_words(path.parent, LENET)) == {"0001", "0002"}


def test_a_broken_verdict_is_refused_by_its_line_also_behind_what_was_read(
    store: Store, capsys: Printed
) -> None:
    path = verdicts_path(store, MACHINE)
    keep(store, run_of("0001", 0.0))
    append_verdicts(path, [judgement(run="0001"), judgement(run="0002")])
    listed(capsys)
    with path.open("a") as file:
        file.write("0003,x\n")
    for _ in range(2):
        assert main(["history", LENET]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line == f"convmark history: {path}:4: must have 22 cells, has 2"


# What a comparison reads


def judged(store: Store, now: list[Record]) -> tuple[list[str], list[str]]:
    """The runs that lenet5 is judged against, and those that were read in full."""
    history = accepted_history(store, MACHINE, now)
    runs = [rows[0].run for rows in history.cases[LENET].runs]
    return runs, [path.stem for path in history.files]


def test_a_comparison_finds_the_same_with_an_index_and_without(store: Store) -> None:
    for seed in range(6):
        write(store, 30, seed=seed)
        for changes in ({}, {"tensorflow": "2.20.0"}, {"device": "gpu:0", "driver": "550"}):
            now = run_of("0031", 0.0, **changes)
            plain = accepted_history(store, MACHINE, now)
            index = Index.of(store.folder / MACHINE)
            index.update(store.runs(MACHINE))
            settled = accepted_history(store, MACHINE, now)
            assert settled.cases == plain.cases
            assert settled.absent == plain.absent
            assert settled.files == plain.files


def recording(read: Callable[[Path], Any], looked: list[Path]) -> Callable[[Path], Any]:
    def recorded(path: Path) -> Any:
        looked.append(path)
        return read(path)

    return recorded


def test_a_comparison_with_an_index_looks_into_no_file_that_it_does_not_need(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(1, 31):
        keep(store, run_of(f"{number:04d}", 0.0, tensorflow="2.20.0"))
    Index.of(store.folder / MACHINE).update(store.runs(MACHINE))
    looked: list[Path] = []
    for name in ("read_head", "_beginning", "read_run"):
        monkeypatch.setattr(shelf, name, recording(getattr(shelf, name), looked))
    runs, read = judged(store, run_of("0031", 0.0))
    assert runs == []
    assert read == ["0001"]  # to quote what differs
    assert {path.stem for path in looked} == {"0001"}


def test_where_too_many_files_must_be_looked_into_all_are_indexed_once(
    store: Store, monkeypatch: pytest.MonkeyPatch, digested: list[str]
) -> None:
    monkeypatch.setattr(shelf, "MOST_LOOKS", 10)
    for number in range(1, 31):
        keep(store, run_of(f"{number:04d}", 0.0, tensorflow="2.20.0"))
    said: list[str] = []
    accepted_history(store, MACHINE, run_of("0031", 0.0), said.append)
    assert len(digested) == 30
    assert said == []  # thirty are read in no time
    accepted_history(store, MACHINE, run_of("0031", 0.0), said.append)
    assert len(digested) == 30


def test_a_history_that_needs_few_files_makes_no_index(store: Store, digested: list[str]) -> None:
    for number in range(1, 121):
        keep(store, run_of(f"{number:04d}", 0.0))
    runs, read = judged(store, run_of("0121", 0.0))
    assert runs == ["0001", *(f"{number:04d}" for number in range(112, 121))]
    assert len(read) == 10
    assert digested == []


def test_the_user_is_told_before_a_long_reading(
    store: Store, capsys: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_module, "LONG", 3)
    write(store, 5)
    assert main(["history", LENET]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "convmark: reading 5 runs; what they say is kept for the next time"
    assert main(["history", LENET]) == 0
    assert capsys.readouterr().err == ""


def test_the_figures_of_a_digest_are_those_of_the_rows(store: Store) -> None:
    path = keep(store, [*run_of("0001", -0.1, 0.1, 0.3), process(run="0001", status="timeout")])
    digest = index_module.digest_of(path)
    (figures,) = digest.cases
    times_s = [row.step_time_p50_s or 0 for row in read_run(path)[:3]]
    assert figures.step_time_p50_s == sorted(times_s)[1]
    assert figures.spread == pytest.approx((max(times_s) - min(times_s)) / 2 / sorted(times_s)[1])
    assert (figures.case, figures.processes, figures.failed) == (LENET, 3, "timeout")
    assert digest.head is not None
    assert (digest.head.commit, digest.head.dirty) == (A_COMMIT, False)
