"""`convmark noise` with stand-ins for the interpreter, the sessions and the clock."""

from __future__ import annotations

import itertools
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fake_worker
import pytest
import test_widths
from json_tables import rows_of
from snapshots import check, plain

from convmark.cli import main, noise
from convmark.compare.files import NOISE, read_noise
from convmark.compare.live import case_result, live
from convmark.compare.live.session import DuetSide, Session
from convmark.core.errors import StoreError
from convmark.core.statistics import Estimate
from convmark.interpreter import Answer
from convmark.worker.protocol import file_digest

NETS = "nets.py"
tables = test_widths.tables
DISTURBED: list[str] = []


class Interpreter(fake_worker.FakeInterpreter):
    """One whose models all come of one file in the working folder."""

    def answer(self, request: Any, *more: Any) -> Answer:
        answer = super().answer(request, *more)
        path = Path(NETS).resolve()
        size, sha256 = file_digest(path) or (0, "")
        code = {
            "event": "code",
            "folder": str(path.parent),
            "sys_path": [str(path.parent)],
            "files": [{"path": str(path), "size": size, "sha256": sha256}],
            "packages": {},
        }
        return Answer(
            status=answer.status,
            message=answer.message,
            ready_s=answer.ready_s,
            events=(*answer.events, code),
        )


@pytest.fixture
def sides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[DuetSide, DuetSide]]:
    """The sides of each session; a session takes 2 s by the clock."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CONVMARK_RUNTIME", str(tmp_path / "runtime"))
    Path(NETS).write_text("WIDTH = 8\n")
    found: list[tuple[DuetSide, DuetSide]] = []
    scatter = random.Random(1)

    def duet(_: Any, case: Any, contenders: dict[str, DuetSide], *__: Any) -> Session:
        old, new = contenders["old"], contenders["new"]
        assert Path(old.folder, NETS).read_text() == "WIDTH = 8\n"
        found.append((old, new))
        one = Estimate(value=scatter.gauss(0, 0.01), error=0.001)
        return Session(wall=one, cpu=one)

    ticks = itertools.count()
    clock = SimpleNamespace(monotonic=lambda: float(2 * len(found)) + 1e-6 * next(ticks))
    monkeypatch.setattr(case_result, "time", clock)
    monkeypatch.setattr("convmark.machine.cautions.Preflight.lines", lambda *_: DISTURBED)
    monkeypatch.setattr(live, "duet_session", duet)
    monkeypatch.setattr("convmark.interpreter.Interpreter", Interpreter)
    return found


@pytest.mark.parametrize("width", test_widths.WIDTHS)
def test_the_table_fits_the_terminal_and_breaks_no_word(
    width: int, sides: Any, tables: list[set[str]], capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("COLUMNS", str(width))
    assert main(["noise", "--models", "lenet5", "--devices", "cpu", "--seconds", "20"]) == 0
    printed = capsys.readouterr()
    assert test_widths.too_wide(printed.err + printed.out, width) == []
    assert len(tables) == 1


def test_each_session_is_shown_before_it_begins(
    sides: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[str] = []
    update = lambda display, lane, text, **more: shown.append(text)  # noqa: E731
    monkeypatch.setattr("convmark.cli.noise.Display.update", update)
    assert main(["noise", "--models", "lenet5", "--devices", "cpu", "--seconds", "20"]) == 0
    assert shown[0].endswith(": session 1, at most 20 s left")
    assert shown[0].startswith("lenet5-")


def test_each_case_runs_beside_a_copy_of_itself_and_is_kept(
    sides: list[tuple[DuetSide, DuetSide]],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["noise", "--models", "lenet5", "--devices", "cpu", "--seconds", "60.5"]) == 0
    printed = capsys.readouterr()
    old, new = sides[0]
    assert old.folder != new.folder
    assert not Path(old.folder).exists()  # the copies are gone afterwards
    assert set(old.moved.values()) == {str(Path(old.folder))}
    (path,) = Path("results").glob(f"*/{NOISE}")
    rows = read_noise(path)
    assert list(rows) == [
        f"lenet5-{case}{threads}"
        for case in ("infer-cpu-b1-float32", "infer-cpu-b32-float32", "train-cpu-b32-float32")
        for threads in ("", "-t1")
    ]
    row = rows["lenet5-train-cpu-b32-float32"]
    assert (row.cases, row.sessions, row.budget_s, row.note) == (3, 5, 600.0, None)
    assert row.session_s == pytest.approx(2.0, abs=0.01)
    assert row.found_from is not None
    table = printed.out.partition("\n\n")[0].splitlines()
    assert table[0].split() == ["case", "scatter", "takes", "sees", "excl.", "3/5/10", "%"]
    assert [line.split()[0] for line in table[2:4]] == ["lenet5-infer-b1", "lenet5-infer-b1-t1"]
    assert max(map(len, printed.out.splitlines())) <= 80
    assert "session 1, about 58 s left" in printed.err
    check("noise", plain(printed.out, tmp_path))


def test_noise_that_finds_no_room_is_printed(
    sides: list[Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, rows: object) -> None:
        raise StoreError(f"{path}: no room")

    monkeypatch.setattr(type(noise.NOISE_TABLE), "append", lambda _, *given: full(*given))
    assert main(["noise", "--models", "lenet5", "--tasks", "train", "--seconds", "30"]) == 2
    printed = capsys.readouterr()
    assert "scatter" in printed.out
    assert printed.err.splitlines()[-1].endswith("noise.csv: no room")


def test_noise_is_kept_where_its_reader_has_left(
    sides: list[Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def leaves(rows: object, **form: object) -> str:
        raise BrokenPipeError

    monkeypatch.setattr(noise, "noise_text", leaves)
    assert main(["noise", "--models", "lenet5", "--tasks", "train", "--seconds", "30"]) == 1
    (path,) = Path("results").glob(f"*/{NOISE}")
    assert read_noise(path)


def test_other_programs_get_the_rows_that_are_kept(
    sides: list[tuple[DuetSide, DuetSide]], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["noise", "--models", "lenet5", "--tasks", "train", "--seconds", "30", "--format"]
    assert main([*words, "json"]) == 0
    (path,) = Path("results").glob(f"*/{NOISE}")
    kept = read_noise(path)
    rows = rows_of(capsys.readouterr().out, "noise")
    assert [row["scatter"] for row in rows] == [kept[row["case"]].scatter for row in rows]
    assert main([*words, "markdown"]) == 0
    assert capsys.readouterr().out.startswith("| case")


def test_what_disturbs_the_machine_is_noted_with_its_noise(
    sides: list[tuple[DuetSide, DuetSide]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Once with its cause and what to do, as a run says it, and in the rows without them."""
    line = "load: 1-min load 9 on 2 cores, above 0.50: other programs took CPU time; close them"
    monkeypatch.setattr("convmark.machine.cautions.Preflight.lines", lambda *_: [line])
    assert main(["noise", "--models", "lenet5", "--tasks", "train", "--seconds", "30"]) == 0
    assert len(sides) == 14
    told, said = capsys.readouterr()
    assert told.splitlines()[-1] == "all cases: load: 1-min load 9 on 2 cores, above 0.50"
    assert f"convmark noise: {line}" in said.splitlines()


def test_a_file_that_changes_meanwhile_makes_its_case_no_control(
    sides: list[tuple[DuetSide, DuetSide]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    compared = noise.compare_live

    def edited(*arguments: Any) -> list[live.Found]:
        found = compared(*arguments)
        Path(NETS).write_text("WIDTH = 9\n")
        return found

    monkeypatch.setattr(noise, "compare_live", edited)
    assert main(["noise", "--models", "lenet5", "--tasks", "train", "--seconds", "30"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[-1].endswith("nets.py changed during the measurement: start again")
    assert "- (0)" in said[2]


def test_too_little_time_says_so_and_a_number_of_threads_is_taken_alone(
    sides: list[tuple[DuetSide, DuetSide]], capsys: pytest.CaptureFixture[str]
) -> None:
    named = ("--models", "lenet5", "--tasks", "train", "--threads", "2")
    assert main(["noise", *named, "--seconds", "3"]) == 0
    assert len(sides) == 1
    assert "lenet5-train-b32-t2: needs two sessions or more" in capsys.readouterr().out
    assert list(Path("results").glob(f"*/{NOISE}")) == []  # an earlier row is not hidden by it


@pytest.mark.parametrize(("seconds", "is_rough"), [("5", True), ("20", False)])
def test_the_noise_of_few_sessions_is_said_to_be_a_rough_one(
    sides: list[tuple[DuetSide, DuetSide]], seconds: str, is_rough: bool
) -> None:
    named = ("--models", "lenet5", "--tasks", "train", "--threads", "2")
    assert main(["noise", *named, "--seconds", seconds]) == 0
    (path,) = Path("results").glob(f"*/{NOISE}")
    (row,) = read_noise(path).values()
    rough = "from 2 sessions, which tell the noise roughly: raise --seconds"
    assert (row.sessions < noise.FEW_SESSIONS, row.note) == (is_rough, rough if is_rough else None)


def test_a_model_that_cannot_be_run_is_left_out_by_name(
    sides: list[tuple[DuetSide, DuetSide]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["noise", "--models", "broken", "--tasks", "train", "--seconds", "9"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert "broken-train-cpu-b32-float32: left out: RuntimeError: no weights" in said[-2]
    assert said[-1].endswith("no case can be run: convmark run shows the reason")
    assert sides == []
